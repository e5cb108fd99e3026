//! Where things are in this repository.

use std::path::PathBuf;

use crate::build_ebpf::OBJECT_NAME;

/// The top of the checkout.
pub fn root() -> PathBuf {
    // Cargo's variable at run time: a copied checkout may come with a copied xtask binary.
    let xtask =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// The eBPF object that is checked in.
pub fn object() -> PathBuf {
    root().join("app-ebpf").join(OBJECT_NAME)
}

/// What the checked-in object was made with.
pub fn record() -> PathBuf {
    object().with_extension("json")
}
