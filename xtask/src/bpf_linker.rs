//! bpf-linker, which turns LLVM bitcode into the eBPF object.

use std::{path::PathBuf, sync::Mutex};

use anyhow::{Context as _, Result, ensure};

use crate::{cache, cargo, cmd, output, toolchain::Rustc};

/// The last version that uses rustc's own libLLVM at run time, and so needs none of the system's.
pub const VERSION: &str = "0.10.4";

/// The newest LLVM whose bitcode this version reads.
const NEWEST_LLVM: u32 = 22;

/// Refuses a rustc whose LLVM is too new.
pub fn check_llvm(rustc: &Rustc) -> Result<()> {
    let major = rustc.llvm.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let major = major.with_context(|| format!("cannot read the LLVM version {}", rustc.llvm))?;
    ensure!(
        major <= NEWEST_LLVM,
        "rustc {} has LLVM {}, but bpf-linker {VERSION} knows LLVM up to {NEWEST_LLVM}: build with \
         an older rustc, or with Debian's by `cargo xtask build-ebpf --compiler debian-web`",
        rustc.release,
        rustc.llvm
    );
    Ok(())
}

/// Builds bpf-linker into the cache unless it is there; returns the directory of the program.
pub fn provision(rustc: &Rustc) -> Result<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock();
    check_llvm(rustc)?;
    let name = format!("tools/bpf-linker-{VERSION}");
    let bin = cache::root()?.join(&name).join("bin");
    if bin.join("bpf-linker").is_file() {
        return Ok(bin);
    }
    output::step(format!("building bpf-linker {VERSION} (a few minutes, once)"));
    let target = cache::dir("build/bpf-linker")?;
    cache::make_dir(&name, |root| {
        cmd::run(
            cargo::command()
                .args(["install", "--quiet", "--locked", "--root"])
                .arg(root)
                .arg("--target-dir")
                .arg(&target)
                .arg(format!("bpf-linker@{VERSION}"))
                .current_dir(root),
        )
    })?;
    std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    Ok(bin)
}
