//! `cargo xtask lint`: formatting, clippy for both targets, documentation, generated documents.

use anyhow::{Context as _, Result};

use crate::{build_ebpf, cargo, cmd, docs, output};

/// Runs all checks; the first that fails ends it.
pub fn run() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        cmd::output(cargo::command().args([tool, "--version"]))
            .with_context(|| format!("cargo {tool} is missing: run `rustup component add {component}`"))?;
    }
    output::step("cargo fmt --check");
    cmd::run(cargo::command().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    output::step("clippy");
    cmd::run(
        cargo::command()
            .args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets"])
            .args(["--", "-Dwarnings"]),
    )?;
    build_ebpf::lint()?;
    output::step("cargo doc");
    cmd::run(
        cargo::command()
            .args(["doc", "--quiet", "--locked", "--workspace", "--no-deps", "--lib"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    docs::check()?;
    output::step("lint: nothing to say");
    Ok(())
}
