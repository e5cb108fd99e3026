//! Kernels for the VMs: Debian's cloud images, the newest point release of each series.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::{self, Apt},
    cache, cmd, output,
};

/// The series that the tests run on.
pub const SERIES: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7.3"];

/// The same in the order in which VMs start: those first that take longest.
pub const LONGEST_FIRST: &[&str] = &["7.3", "6.12", "5.10", "6.18", "6.1"];

/// From Linux 7.2 on the image is in `linux-binary-…`; where both exist it is there too.
const PREFIXES: &[&str] = &["linux-binary-", "linux-image-"];
const FLAVOUR: &str = "-cloud-amd64";

/// A kernel image in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The series that was asked for: `6.12`.
    pub series: String,
    /// What it is: `6.12.117+deb13`.
    pub version: String,
    /// The `vmlinuz` file.
    pub image: PathBuf,
}

/// Finds the newest kernel of a series that Debian has, else the newest in the cache.
pub fn provision(series: &str) -> Result<Kernel> {
    let kernel = fetch(series).or_else(|error| {
        let kernel = newest_cached(series)?.with_context(|| format!("no kernel of the series {series}: {error:#}"))?;
        output::step(format!("{error:#}"));
        output::step(format!("taking kernel {} from the cache", kernel.version));
        Ok::<_, anyhow::Error>(kernel)
    })?;
    output::step(format!("kernel {series}: {}", kernel.version));
    Ok(kernel)
}

fn fetch(series: &str) -> Result<Kernel> {
    let apt = Apt::open()?;
    let (package, version) = apt
        .find(|apt| {
            let mut names = Vec::new();
            for prefix in PREFIXES {
                names.extend(apt.names(&format!("{prefix}{series}."))?);
            }
            Ok(choose(&names, series))
        })?
        .with_context(|| format!("Debian has no cloud kernel of the series {series}"))?;
    let dir = Path::new("kernels").join(&version);
    let image = cache::root()?.join(&dir).join("vmlinuz");
    if !image.is_file() {
        let of_package = apt.versions(&package)?;
        let of_package = of_package
            .first()
            .with_context(|| format!("{package} has no version"))?;
        let deb = apt.download(&package, of_package)?;
        cache::make_dir(&dir, |dir| unpack_image(&deb, dir))?;
    }
    Ok(Kernel {
        series: series.to_owned(),
        version,
        image,
    })
}

/// The package that holds the newest kernel of a series, and that kernel's version.
fn choose(packages: &[String], series: &str) -> Option<(String, String)> {
    let version_of = |package: &str| {
        let name = PREFIXES.iter().find_map(|prefix| package.strip_prefix(prefix))?;
        let version = name.strip_suffix(FLAVOUR)?;
        is_of_series(version, series).then(|| version.to_owned())
    };
    let versions: Vec<String> = packages.iter().filter_map(|package| version_of(package)).collect();
    let newest = apt::newest(versions.iter().map(String::as_str))?;
    let package = PREFIXES
        .iter()
        .map(|prefix| format!("{prefix}{newest}{FLAVOUR}"))
        .find(|package| packages.contains(package))?;
    Some((package, newest.to_owned()))
}

fn is_of_series(version: &str, series: &str) -> bool {
    version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
}

fn newest_cached(series: &str) -> Result<Option<Kernel>> {
    let dir = cache::dir("kernels")?;
    let versions: Vec<String> = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|version| is_of_series(version, series))
        .collect();
    Ok(apt::newest(versions.iter().map(String::as_str)).map(|version| Kernel {
        series: series.to_owned(),
        version: version.to_owned(),
        image: dir.join(version).join("vmlinuz"),
    }))
}

/// Unpacks only the image, from wherever its package has it: the modules are larger, and no VM
/// loads one.
fn unpack_image(deb: &Path, dir: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = dpkg
        .spawn()
        .with_context(|| format!("cannot run {}", cmd::show(&dpkg)))?;
    let archive = child.stdout.take().context("dpkg-deb has no stdout")?;
    let image = dir.join("vmlinuz");
    let file = File::create(&image).with_context(|| format!("cannot write {}", image.display()))?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--to-stdout", "--wildcards", "*/vmlinuz*"]);
    let status = tar
        .stdin(archive)
        .stdout(file)
        .status()
        .with_context(|| format!("cannot run {}", cmd::show(&tar)))?;
    child
        .wait()
        .with_context(|| format!("cannot wait for {}", cmd::show(&dpkg)))?;
    ensure!(
        status.success(),
        "{} of {} failed: {status}",
        cmd::show(&tar),
        deb.display()
    );
    let size = fs::metadata(&image).map_or(0, |image| image.len());
    ensure!(size > 0, "{} holds no vmlinuz", deb.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_have_a_place_in_the_order() {
        let mut order = LONGEST_FIRST.to_vec();
        order.sort_by_key(|series| SERIES.iter().position(|other| other == series));
        assert_eq!(order, SERIES);
    }

    fn chosen(names: &[&str], series: &str) -> Option<(String, String)> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        choose(&names, series)
    }

    #[test]
    fn the_newest_signed_cloud_image_of_the_series() {
        let names = [
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-rt-amd64",
            "linux-image-6.12.100+deb12-cloud-amd64",
        ];
        let (package, version) = chosen(&names, "6.1").expect("a kernel");
        assert_eq!(package, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(version, "6.1.0-56");
        assert_eq!(chosen(&names, "6.18"), None);
    }

    #[test]
    fn the_binary_package_where_there_is_one() {
        let names = [
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
        ];
        let (package, _) = chosen(&names, "7.3").expect("a kernel");
        assert_eq!(package, "linux-binary-7.3.4+deb13-cloud-amd64");
    }
}
