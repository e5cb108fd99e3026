//! What an eBPF object was made with, kept beside it.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    bpf_linker, cache,
    toolchain::{Rustc, Source, Toolchain},
};

/// The toolchain of an object, and the object's checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version and commit of the compiler.
    pub rustc: String,
    /// The compiler's LLVM, which bpf-linker uses too.
    pub llvm: String,
    /// Version of bpf-linker.
    pub bpf_linker: String,
    /// Version of aya-ebpf.
    pub aya_ebpf: String,
    /// How the source of `core` was come by: `sysroot` or a kind of Debian package.
    pub core: String,
    /// SHA-256 of the object.
    pub sha256: String,
}

impl Record {
    /// The record of a fresh object.
    pub fn new(toolchain: &Toolchain, aya_ebpf: &str, object: &[u8]) -> Self {
        let rustc = &toolchain.rustc;
        Self {
            rustc: name(rustc),
            llvm: rustc.llvm.clone(),
            bpf_linker: bpf_linker::VERSION.to_owned(),
            aya_ebpf: aya_ebpf.to_owned(),
            core: toolchain.source.kind.to_owned(),
            sha256: sha256(object),
        }
    }

    /// Reads a record.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display()))
    }

    /// Writes a record.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write a record as JSON")?;
        cache::write(path, format!("{text}\n").as_bytes())
    }

    /// Whether the tools at hand made it.
    pub fn made_by(&self, rustc: &Rustc, source: &Source) -> bool {
        (&*self.rustc, &*self.llvm, &*self.bpf_linker, &*self.core)
            == (&*name(rustc), &*rustc.llvm, bpf_linker::VERSION, source.kind)
    }

    /// Whether both objects were made by the same tools, so that they must be equal.
    pub fn same_toolchain(&self, other: &Self) -> bool {
        (&self.rustc, &self.llvm, &self.bpf_linker, &self.core)
            == (&other.rustc, &other.llvm, &other.bpf_linker, &other.core)
    }
}

fn name(rustc: &Rustc) -> String {
    format!("{} {}", rustc.release, rustc.commit).trim_end().to_owned()
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            llvm,
            bpf_linker,
            core,
            ..
        } = self;
        write!(
            f,
            "rustc {rustc}, LLVM {llvm}, bpf-linker {bpf_linker}, core from {core}"
        )
    }
}

/// The SHA-256 of some bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
