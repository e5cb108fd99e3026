//! Calling cargo, and reading what it says as JSON.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{cmd, workspace};

/// The cargo that runs us, in the workspace.
pub fn command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace::root());
    command
}

/// The part of `cargo metadata` that is used here.
#[derive(Deserialize)]
pub struct Metadata {
    /// All packages of the dependency graph.
    pub packages: Vec<Package>,
}

/// One package of the dependency graph.
#[derive(Deserialize)]
pub struct Package {
    /// The name in its manifest.
    pub name: String,
    /// The version that the lock file chose.
    pub version: String,
    /// Where it comes from; none for a package of the workspace.
    pub source: Option<String>,
    /// Its unpacked manifest.
    pub manifest_path: PathBuf,
}

impl Metadata {
    /// Reads the metadata of the workspace; cargo downloads what is missing.
    pub fn load() -> Result<Self> {
        let json = cmd::output(command().args(["metadata", "--format-version=1", "--locked"]))?;
        serde_json::from_str(&json).context("cargo metadata printed other JSON than expected")
    }

    /// The version of a dependency.
    pub fn version_of(&self, name: &str) -> Option<&str> {
        self.packages
            .iter()
            .find(|package| package.name == name)
            .map(|package| package.version.as_str())
    }

    /// The directories in which cargo unpacked the packages of registries.
    pub fn registry_dirs(&self) -> Vec<&Path> {
        let mut dirs: Vec<_> = self
            .packages
            .iter()
            .filter(|package| package.source.is_some())
            .filter_map(|package| package.manifest_path.parent()?.parent())
            .collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }
}

/// Runs a cargo command that builds, and returns the executable it made for `target`.
pub fn executable(command: &mut Command, target: &str) -> Result<PathBuf> {
    let [executable] = executables(command, [target])?;
    Ok(executable)
}

/// Runs a cargo command that builds, and returns the executables it made for `targets`.
pub fn executables<const N: usize>(command: &mut Command, targets: [&str; N]) -> Result<[PathBuf; N]> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }

    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", cmd::show(command)))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        cmd::show(command),
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Message> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut found = Vec::new();
    for target in targets {
        let executable = messages
            .iter()
            .filter(|message| message.target.as_ref().is_some_and(|built| built.name == target))
            .find_map(|message| message.executable.clone());
        found.push(executable.with_context(|| format!("{} made no executable {target}", cmd::show(command)))?);
    }
    found.try_into().ok().context("as many as there are targets")
}
