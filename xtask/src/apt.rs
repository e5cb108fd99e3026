//! A private apt state: Debian's packages without touching the system's own lists.
//!
//! The mirrors are those that this machine's apt is set up with; the suites are ours. Signatures
//! are checked against Debian's keyring as ever.

use std::{
    cell::Cell,
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache, cmd, debian_version, output};

const SUITES: &[&str] = &[
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "sid",
];
const SECURITY_SUITES: &[&str] = &["bullseye-security", "bookworm-security", "trixie-security"];
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// Lists younger than this serve without an update.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Held by whoever runs an apt program, and by whoever looks whether the lists are fresh: threads share the state.
static RUNNING: Mutex<()> = Mutex::new(());
static LOOKING: Mutex<()> = Mutex::new(());

/// The private apt state in the cache.
pub struct Apt {
    dir: PathBuf,
    updated: Cell<bool>,
}

impl Apt {
    /// Opens the state; the lists are fetched when something is looked for.
    pub fn open() -> Result<Self> {
        for program in ["apt-get", "dpkg-deb"] {
            ensure!(
                cmd::find_on_path(program).is_some(),
                "{program} is not on PATH: Debian's packages can only be had on a Debian system"
            );
        }
        let dir = cache::dir("apt")?;
        for sub in ["lists/partial", "archives/partial"] {
            cache::dir(Path::new("apt").join(sub))?;
        }
        cache::write(&dir.join("sources.list"), sources()?.as_bytes())?;
        Ok(Self {
            dir,
            updated: Cell::new(false),
        })
    }

    /// Looks for something in the lists; brings them up to date if they are old or lack it.
    ///
    /// An update that fails is said, and the lists at hand decide.
    pub fn find<T>(&self, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<Option<T>> {
        let _looking = LOOKING.lock();
        if !self.updated.get() {
            if self.is_fresh()
                && let Some(found) = look(self)?
            {
                return Ok(Some(found));
            }
            self.update()?;
        }
        look(self)
    }

    /// The versions of a package in all suites, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.ask("apt-cache", &["madison", package], &self.dir)?;
        Ok(parse_versions(&table, ""))
    }

    /// The versions of a package for the release that runs here, newest first; those of all
    /// suites where it has none.
    pub fn versions_here(&self, package: &str) -> Result<Vec<String>> {
        let table = self.ask("apt-cache", &["madison", package], &self.dir)?;
        let here = parse_versions(&table, &codename());
        Ok(if here.is_empty() {
            parse_versions(&table, "")
        } else {
            here
        })
    }

    /// The names of all packages that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.ask("apt-cache", &["pkgnames", prefix], &self.dir)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The packages that one version of a package depends on, first alternatives, with the exact
    /// version where one is asked for.
    pub fn depends(&self, package: &str, version: &str) -> Result<Vec<(String, Option<String>)>> {
        let spec = format!("{package}={version}");
        let text = self.ask("apt-cache", &["show", &spec], &self.dir)?;
        let field = text
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .unwrap_or_default();
        Ok(parse_depends(field))
    }

    /// Downloads one version of a package; the `.deb` stays in the cache.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        // As apt names the file, but for the architecture.
        let name = format!("{package}_{}.deb", version.replace(':', "%3a"));
        let target = self.dir.join("archives").join(&name);
        if target.is_file() {
            return Ok(target);
        }
        output::step(format!("downloading {package} {version}"));
        let scratch = Path::new("apt/archives").join(format!("{name}.d"));
        let scratch = cache::make_dir(scratch, |dir| {
            let spec = format!("{package}={version}");
            self.ask("apt-get", &["download", &spec], dir)?;
            Ok(())
        })?;
        let file = fs::read_dir(&scratch)
            .with_context(|| format!("cannot read {}", scratch.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded no .deb of {package} {version}"))?;
        cache::replace(&file, &target)?;
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
        Ok(target)
    }

    fn is_fresh(&self) -> bool {
        fs::metadata(self.stamp())
            .and_then(|stamp| stamp.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("updated")
    }

    fn update(&self) -> Result<()> {
        output::step("updating the private apt lists (40 MB when they are new)");
        self.updated.set(true);
        match self.ask("apt-get", &["--quiet", "update"], &self.dir) {
            Ok(_) => cache::write(&self.stamp(), b""),
            // One suite that a mirror lacks must not hide the others.
            Err(error) => {
                output::step(format!("{error:#}; going on with the lists at hand"));
                Ok(())
            }
        }
    }

    /// Runs an apt program in `dir`; an error has its complaints without our many options.
    fn ask(&self, program: &str, arguments: &[&str], dir: &Path) -> Result<String> {
        let shown = format!("{program} {}", arguments.join(" "));
        let _running = RUNNING.lock();
        let output = self
            .command(program)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {shown}"))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let complaint = stderr.lines().find(|line| line.starts_with("E: ")).unwrap_or_default();
            bail!("{shown} failed: {}: {complaint}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("{shown} did not print UTF-8"))
    }

    fn command(&self, program: &str) -> Command {
        let dir = self.dir.display();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}"),
            // Some containers turn these off, and each question then takes seconds.
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            // Nothing is installed as far as this state knows, and nothing will be.
            "Dir::State::status=/dev/null".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            // Only the package lists: the rest would cost more than they do.
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=1".to_owned(),
            // Else a mirror that cannot be reached is no error.
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Unpacks a `.deb` into a directory.
pub fn unpack(deb: &Path, into: &Path) -> Result<()> {
    cmd::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(into))?;
    Ok(())
}

/// The versions in a table of `apt-cache madison`, of the suites that start with `release`.
fn parse_versions(table: &str, release: &str) -> Vec<String> {
    let mut versions: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('|').skip(1);
            let version = columns.next()?.trim();
            let suite = columns.next()?.split_whitespace().nth(1)?;
            suite.starts_with(release).then(|| version.to_owned())
        })
        .collect();
    versions.sort_by(|a, b| debian_version::compare(b, a));
    versions.dedup();
    versions
}

/// The codename of the Debian release that runs here, empty if it is none.
fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

/// Our suites on this machine's mirrors.
fn sources() -> Result<String> {
    let uris =
        cmd::output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
    let mirror = |path: &str| uris.lines().find(|uri| uri.ends_with(path));
    let Some(keyring) = KEYRINGS.iter().find(|keyring| Path::new(keyring).is_file()) else {
        bail!("Debian's keyring is missing: install the package debian-archive-keyring");
    };
    let mut text = String::new();
    let mut add = |uri: &str, suites: &[&str]| {
        for suite in suites {
            text += &format!("deb [signed-by={keyring} arch=amd64] {uri} {suite} main\n");
        }
    };
    add(
        mirror("/debian/").context("this machine's apt sources name no Debian mirror (…/debian/)")?,
        SUITES,
    );
    if let Some(uri) = mirror("/debian-security/") {
        add(uri, SECURITY_SUITES);
    }
    Ok(text)
}

fn parse_depends(field: &str) -> Vec<(String, Option<String>)> {
    field
        .split(',')
        .filter_map(|alternatives| alternatives.split('|').next())
        .filter_map(|first| {
            let mut words = first.split_whitespace();
            let name = words.next()?.split(':').next()?.to_owned();
            let exact = match (words.next(), words.next()) {
                (Some("(="), Some(version)) => Some(version.trim_end_matches(')').to_owned()),
                _ => None,
            };
            Some((name, exact))
        })
        .collect()
}

/// The newest of some versions by dpkg's order.
pub fn newest<'a>(versions: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    versions.into_iter().fold(None, |best, version| match best {
        Some(best) if debian_version::compare(best, version) != Ordering::Less => Some(best),
        _ => Some(version),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_first_alternatives() {
        let field = "libc6 (>= 2.34), a-dev (= 1.2-3~deb12u2), gcc:any | clang, libz";
        let names = parse_depends(field);
        assert_eq!(
            names,
            [
                ("libc6".to_owned(), None),
                ("a-dev".to_owned(), Some("1.2-3~deb12u2".to_owned())),
                ("gcc".to_owned(), None),
                ("libz".to_owned(), None),
            ]
        );
    }

    #[test]
    fn versions_are_of_one_release_or_of_all() {
        let table = " rustc-web | 1.96.0-1~deb13u1+b1 | http://host/debian trixie/main amd64 Packages\n \
                      rustc-web | 1.85.0-3 | http://host/debian bookworm/main amd64 Packages\n \
                      rustc-web | 1.96.0-1~deb12u2 | http://host/s bookworm-security/main amd64 Packages\n";
        assert_eq!(parse_versions(table, "bookworm"), ["1.96.0-1~deb12u2", "1.85.0-3"]);
        assert_eq!(parse_versions(table, "").len(), 3);
    }

    #[test]
    fn newest_is_by_dpkg_order() {
        assert_eq!(newest(["5.10.0-9", "5.10.0-46", "5.10.0-43"]), Some("5.10.0-46"));
        assert_eq!(newest([]), None);
    }
}
