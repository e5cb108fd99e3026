//! The rustc of the eBPF build, without the directory in its symbol names.
//!
//! Cargo hashes the directory of a path package, and build-std's `core` is one, into
//! `-C metadata`. From there it reaches the name, and by the name the order, of every function
//! that is not inlined: two machines would give two objects. `build-ebpf` therefore names this
//! program as `RUSTC_WRAPPER`, and it puts package and version in the place of the hash.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};

/// Says that this process is a rustc wrapper, and for which target.
const VARIABLE: &str = "SOCKLIFE_RUSTC_WRAPPER_TARGET";

/// Makes cargo call this program in place of rustc.
pub fn wrap(cargo: &mut Command, target: &str) -> Result<()> {
    let own: PathBuf = std::env::current_exe().context("cannot find this program's own file")?;
    cargo.env("RUSTC_WRAPPER", own).env(VARIABLE, target);
    Ok(())
}

/// Becomes rustc if cargo called this program as one; returns otherwise.
pub fn become_rustc_if_called() -> Result<()> {
    let Some(target) = std::env::var_os(VARIABLE) else {
        return Ok(());
    };
    let mut arguments = std::env::args_os().skip(1);
    let rustc = arguments.next().context("a rustc wrapper needs the path of rustc")?;
    let package = format!(
        "{}-{}",
        std::env::var("CARGO_PKG_NAME").unwrap_or_default(),
        std::env::var("CARGO_PKG_VERSION").unwrap_or_default()
    );
    let arguments = stable(arguments.collect(), &target, &package);
    let error = Command::new(&rustc).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", rustc.display()))
}

/// The arguments with a metadata that tells nothing but the package; host crates keep theirs.
fn stable(mut arguments: Vec<OsString>, target: &OsStr, package: &str) -> Vec<OsString> {
    let for_target = arguments
        .windows(2)
        .any(|pair| pair[0] == "--target" && pair[1] == target);
    if for_target {
        for argument in &mut arguments {
            if argument.to_string_lossy().starts_with("metadata=") {
                *argument = format!("metadata={package}").into();
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(target: &str) -> Vec<OsString> {
        ["--target", target, "-C", "metadata=0123", "-C", "extra-filename=-0123"]
            .map(OsString::from)
            .into()
    }

    #[test]
    fn only_the_target_loses_its_hash() {
        let ours = stable(arguments("bpf"), "bpf".as_ref(), "core-0.0.0");
        assert_eq!(ours[3], "metadata=core-0.0.0");
        assert_eq!(ours[5], "extra-filename=-0123");
        assert_eq!(
            stable(arguments("host"), "bpf".as_ref(), "core-0.0.0"),
            arguments("host")
        );
    }
}
