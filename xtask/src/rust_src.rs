//! The source of `core` that equals the rustc in use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Apt},
    cache, cmd, debian_version, output,
    toolchain::{Rustc, Source},
    workspace,
};

/// A component of a few MB; a network that takes longer is taken for none.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// Finds the source in the sysroot or the cache, else fetches it by rustup or from Debian.
pub fn provision(rustc: &Rustc) -> Result<Source> {
    let in_sysroot = rustc.sysroot.join("lib/rustlib/src/rust/library");
    if is_whole(&in_sysroot) {
        return Ok(Source {
            library: in_sysroot,
            kind: "sysroot",
        });
    }
    let name = format!("rust-src-{}", rustc.release);
    let cached = cache::root()?.join(&name).join("library");
    if is_whole(&cached) {
        return Ok(Source {
            library: cached,
            kind: "debian",
        });
    }
    if by_rustup()? && is_whole(&in_sysroot) {
        return Ok(Source {
            library: in_sysroot,
            kind: "sysroot",
        });
    }
    by_debian(rustc, &name).with_context(|| {
        format!(
            "no source of core {} for rustc {}: run `rustup component add rust-src`",
            rustc.release, rustc.release
        )
    })
}

fn is_whole(library: &Path) -> bool {
    library.join("core/Cargo.toml").is_file() && library.join("Cargo.lock").is_file()
}

/// Lets rustup install the component; says whether it could.
fn by_rustup() -> Result<bool> {
    if cmd::find_on_path("rustup").is_none() {
        return Ok(false);
    }
    if std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0") {
        output::step("rustup may not install rust-src by itself here (RUSTUP_AUTO_INSTALL=0)");
        return Ok(false);
    }
    output::step("rustup component add rust-src");
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src"])
        .env("RUSTUP_MAX_RETRIES", "1")
        .current_dir(workspace::root());
    let added = cmd::succeeds_within(&mut rustup, RUSTUP_LIMIT)?;
    if !added {
        output::step("rustup could not add rust-src");
    }
    Ok(added)
}

/// Unpacks Debian's package of exactly this version into the cache.
fn by_debian(rustc: &Rustc, name: &str) -> Result<Source> {
    output::step(format!("looking for Debian's rust-src {}", rustc.release));
    let apt = Apt::open()?;
    let version = apt
        .find(|apt| {
            let versions = apt.versions("rust-src")?;
            Ok(versions
                .into_iter()
                .find(|version| debian_version::upstream(version) == rustc.release))
        })?
        .with_context(|| {
            let offered = apt.versions("rust-src").unwrap_or_default().join(", ");
            format!("Debian has no rust-src {} (it has: {offered})", rustc.release)
        })?;
    let deb = apt.download("rust-src", &version)?;
    let dir = cache::make_dir(name, |dir| {
        let unpacked = dir.join("deb");
        apt::unpack(&deb, &unpacked)?;
        let library = find_library(&unpacked)?;
        cache::replace(&library, &dir.join("library"))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
    })?;
    Ok(Source {
        library: dir.join("library"),
        kind: "debian",
    })
}

/// The directory `usr/src/<anything>/library` of an unpacked package.
pub fn find_library(unpacked: &Path) -> Result<PathBuf> {
    let sources = unpacked.join("usr/src");
    fs::read_dir(&sources)
        .with_context(|| format!("cannot read {}", sources.display()))?
        .filter_map(|entry| Some(entry.ok()?.path().join("library")))
        .find(|library| is_whole(library))
        .with_context(|| format!("{} holds no Rust source", sources.display()))
}
