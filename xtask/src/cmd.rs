//! Running other programs, with the command in every error.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// Runs a command to its end; its output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", show(command)))?;
    ensure!(status.success(), "{} failed: {status}", show(command));
    Ok(())
}

/// Runs a command and returns its stdout; its stderr goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", show(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}\n{}",
            show(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not UTF-8", show(command)))
}

/// Runs a command without its output, for at most `limit`; says whether it succeeded.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", show(command)))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(status.success());
        }
        if start.elapsed() > limit {
            child.kill().context("cannot end a child")?;
            child.wait().context("cannot wait for a child")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The file that `program` is on `PATH`, if any.
pub fn find_on_path(program: impl AsRef<Path>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(&program))
        .find(|file| file.is_file())
}

/// A command as one would type it.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
