//! The compiled eBPF programs.

use std::{borrow::Cow, path::PathBuf};

use anyhow::{Context as _, Result};

/// Built by `cargo xtask build-ebpf`, checked in, so that a user needs no eBPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../app-ebpf/socklife.bpf.o");

/// A file that takes the place of the embedded object, for tests of one that was just built.
const OVERRIDE: &str = "SOCKLIFE_OBJECT";

/// The object to load.
pub fn bytes() -> Result<Cow<'static, [u8]>> {
    let Some(path) = std::env::var_os(OVERRIDE).map(PathBuf::from) else {
        return Ok(Cow::Borrowed(OBJECT));
    };
    let object = std::fs::read(&path).with_context(|| format!("cannot read {OVERRIDE}={}", path.display()))?;
    Ok(Cow::Owned(object))
}
