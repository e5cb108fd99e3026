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
    cache, output,
    rust_src::find_library,
    toolchain::{Rustc, Source},
};

const DIR: &str = "debian-web";
/// What every Debian system that runs cargo has: the C library's parts, and a C compiler.
const PRESENT: &[&str] = &["binutils", "gcc", "libc-dev", "libc6", "libgcc-s1", "libstdc++6"];

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
    let (compiler, source) = apt
        .find(|apt| {
            Ok(pair(
                &apt.versions_here("rustc-web")?,
                &apt.versions_here("rust-web-src")?,
            ))
        })?
        .context("no suite has rustc-web and rust-web-src of one version")?;
    let mut packages = closure(&apt, "rustc-web", &compiler)?;
    packages.insert("rust-web-src".to_owned(), source);
    cache::make_dir(DIR, |dir| {
        for (package, version) in &packages {
            apt::unpack(&apt.download(package, version)?, dir)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The newest versions of compiler and source that were built from one source package.
fn pair(compilers: &[String], sources: &[String]) -> Option<(String, String)> {
    compilers.iter().find_map(|compiler| {
        // A rebuild of the compiler alone has `+b1` at its end.
        let built_from = compiler.rsplit_once("+b").map_or(compiler.as_str(), |(from, _)| from);
        let source = sources.iter().find(|source| *source == built_from)?;
        Some((compiler.clone(), source.clone()))
    })
}

/// A package and all it depends on, each in the newest version for this release.
fn closure(apt: &Apt, package: &str, version: &str) -> Result<BTreeMap<String, String>> {
    let mut chosen = BTreeMap::new();
    let mut open = vec![(package.to_owned(), Some(version.to_owned()))];
    while let Some((package, exact)) = open.pop() {
        if chosen.contains_key(&package) || PRESENT.contains(&package.as_str()) {
            continue;
        }
        // A name without versions is a virtual package: something present provides it.
        let version = match exact {
            Some(version) => version,
            None => match apt.versions_here(&package)?.into_iter().next() {
                Some(version) => version,
                None => continue,
            },
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
    fn the_pair_is_of_one_source_package() {
        let owned = |versions: &[&str]| versions.iter().map(|v| v.to_string()).collect::<Vec<_>>();
        let compilers = owned(&["1.96.0-1~deb13u1+b1", "1.96.0-1~deb12u2"]);
        let both = owned(&["1.96.0-1~deb13u1", "1.96.0-1~deb12u2"]);
        let expect = |compiler: &str, source: &str| Some((compiler.to_owned(), source.to_owned()));
        assert_eq!(
            pair(&compilers, &both),
            expect("1.96.0-1~deb13u1+b1", "1.96.0-1~deb13u1")
        );
        assert_eq!(
            pair(&compilers, &both[1..]),
            expect("1.96.0-1~deb12u2", "1.96.0-1~deb12u2")
        );
        assert_eq!(pair(&compilers, &[]), None);
    }
}
