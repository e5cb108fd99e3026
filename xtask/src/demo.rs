//! `cargo xtask demo`: a few real connections under socklife.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{cache, cmd, docs, output};

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments for `socklife demo`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    output::step("building socklife");
    let socklife = docs::socklife()?;
    let mut command = if cache::is_root() {
        Command::new(socklife)
    } else {
        ensure!(
            cmd::find_on_path("sudo").is_some(),
            "socklife demo must run as root, and there is no sudo: run this task as root"
        );
        output::step("loading eBPF programs takes root: sudo may ask for your password");
        let mut sudo = Command::new("sudo");
        sudo.arg(socklife);
        sudo
    };
    command.arg("demo").args(&args.arguments);
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", cmd::show(&command)))?;
    ensure!(status.success(), "{} failed: {status}", cmd::show(&command));
    Ok(())
}
