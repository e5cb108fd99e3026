//! `cargo xtask docs`: the documents that the program writes about itself.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{cache, cargo, cmd, output, workspace};

/// A generated file, and the arguments with which socklife prints it.
const GENERATED: &[(&str, &[&str])] = &[
    ("docs/events.md", &["generate", "events"]),
    ("docs/reasons.md", &["generate", "reasons"]),
];

/// Writes the generated documents.
pub fn run() -> Result<()> {
    for (file, text) in generate()? {
        let path = workspace::root().join(file);
        cache::write(&path, text.as_bytes())?;
        output::line(path.display().to_string());
    }
    Ok(())
}

/// Fails if a generated document is not what the program prints.
pub fn check() -> Result<()> {
    output::step("generated documents");
    for (file, text) in generate()? {
        let path = workspace::root().join(file);
        let written = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            written == text,
            "{file} is out of date: run `cargo xtask docs` and commit it"
        );
    }
    Ok(())
}

fn generate() -> Result<Vec<(&'static str, String)>> {
    let socklife = socklife()?;
    GENERATED
        .iter()
        .map(|(file, arguments)| {
            let text = cmd::output(Command::new(&socklife).args(*arguments))
                .with_context(|| format!("cannot generate {file}"))?;
            Ok((*file, text))
        })
        .collect()
}

/// Builds the program.
pub fn socklife() -> Result<PathBuf> {
    cargo::executable(
        cargo::command().args(["build", "--quiet", "--locked", "--package", "socklife"]),
        "socklife",
    )
}
