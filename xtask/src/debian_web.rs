//! Debian's pair rustc-web and rust-web-src, the compiler that its browsers are built with.
//!
//! It is unpacked into the cache, never installed, and compiles nothing but the eBPF object.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Apt},
    cache, debian_version, output,
    rust_src::find_library,
    toolchain::{Rustc, Source},
};

const DIR: &str = "debian-web";
/// What every Debian system that runs cargo has: the C library's parts, and a C compiler.
const PRESENT: &[&str] = &[
    "binutils",
    "gcc",
    "libc-dev",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
];

/// Finds the pair in the cache, else fetches it.
pub fn provision() -> Result<(Rustc, Source)> {
    let dir = cache::root()?.join(DIR);
    if !dir.is_dir() {
        fetch().context("Debian's rustc-web cannot be had")?;
    }
    let libraries = library_dirs(&dir.join("usr/lib"))?;
    let path = std::env::join_paths(&libraries).context("a library directory holds a colon")?;
    let rustc = Rustc::query(find_rustc(&dir)?, path)?;
    let source = Source {
        library: find_library(&dir)?,
        kind: "debian-web",
    };
    Ok((rustc, source))
}

fn fetch() -> Result<()> {
    output::step("looking for Debian's rustc-web and rust-web-src");
    let apt = Apt::open()?;
    let version = apt
        .find(|apt| {
            pair(&apt.versions("rustc-web")?, &apt.versions("rust-web-src")?)
                .map_or(Ok(None), |version| Ok(Some(version)))
        })?
        .context("no suite has rustc-web and rust-web-src of one version")?;
    let mut packages = closure(&apt, "rustc-web", &version)?;
    packages.insert("rust-web-src".to_owned(), version);
    cache::make_dir(DIR, |dir| {
        for (package, version) in &packages {
            apt::unpack(&apt.download(package, version)?, dir)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The version of both packages: of the newest upstream version the build for the oldest suite,
/// which asks for the oldest C library and so runs everywhere.
fn pair(compilers: &[String], sources: &[String]) -> Option<String> {
    let both = || compilers.iter().filter(|version| sources.contains(version));
    let newest = debian_version::upstream(both().next()?);
    both()
        .rfind(|version| debian_version::upstream(version) == newest)
        .cloned()
}

/// A package and all it depends on, each in the oldest version offered.
fn closure(apt: &Apt, package: &str, version: &str) -> Result<BTreeMap<String, String>> {
    let mut chosen = BTreeMap::new();
    let mut open = vec![(package.to_owned(), Some(version.to_owned()))];
    while let Some((package, exact)) = open.pop() {
        if chosen.contains_key(&package) || PRESENT.contains(&package.as_str()) {
            continue;
        }
        // A name without versions is a virtual package: something present provides it.
        let Some(version) = exact.or(apt.versions(&package)?.pop()) else {
            continue;
        };
        open.extend(apt.depends(&package, &version)?);
        chosen.insert(package, version);
    }
    Ok(chosen)
}

fn find_rustc(dir: &Path) -> Result<PathBuf> {
    ["usr/bin/rustc", "usr/bin/rustc-web"]
        .iter()
        .map(|path| dir.join(path))
        .find(|path| path.exists())
        .with_context(|| format!("{} holds no rustc", dir.join("usr/bin").display()))
}

/// All directories under `top` that hold shared libraries.
fn library_dirs(top: &Path) -> Result<Vec<OsString>> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        let mut libraries = false;
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot read {}", dir.display()))?;
            if kind.is_dir() && entry.file_name() != "rustlib" {
                open.push(entry.path());
            }
            libraries |= entry.file_name().to_string_lossy().contains(".so");
        }
        if libraries {
            found.push(dir.into());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_is_the_newest_upstream_for_the_oldest_suite() {
        let owned = |versions: &[&str]| versions.iter().map(|v| v.to_string()).collect::<Vec<_>>();
        let compilers = owned(&[
            "1.96.0-1~deb13u1+b1",
            "1.96.0-1~deb12u2",
            "1.96.0-1~deb11u2",
            "1.78.0-2",
        ]);
        let sources = owned(&[
            "1.96.0-1~deb13u1",
            "1.96.0-1~deb12u2",
            "1.96.0-1~deb11u2",
            "1.78.0-2",
        ]);
        assert_eq!(
            pair(&compilers, &sources).as_deref(),
            Some("1.96.0-1~deb11u2")
        );
        assert_eq!(pair(&compilers, &[]), None);
    }
}
