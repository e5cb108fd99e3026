//! The integration tests on one kernel: this machine's, or one in a VM.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    allowed_skips, build_ebpf, cache, cargo, cmd, initramfs::Content, kernels::Kernel, matrix::Run, output, qemu::Boot,
    toolchain::Choice, trials::Trials,
};

/// Tests that load programs and count events disturb one another.
const ALWAYS: &[&str] = &["--test-threads=1", "--color=never"];

/// Builds the test binary and the program under test, and finds the object to test.
pub fn build() -> Result<Content> {
    let object = build_ebpf::check(Choice::Auto)?;
    output::step("building socklife and the integration tests");
    let socklife = cargo::executable(
        cargo::command().args(["build", "--quiet", "--locked", "--package", "socklife"]),
        "socklife",
    )?;
    let init = cargo::executable(
        cargo::command().args([
            "test",
            "--quiet",
            "--locked",
            "--no-run",
            "--package",
            "socklife-tests",
            "--test",
            "integration",
        ]),
        "integration",
    )?;
    Ok(Content { init, socklife, object })
}

/// Runs the tests here, as root.
pub fn native(content: &Content, arguments: &[String], mut say: impl FnMut(&str)) -> Result<Run> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read /proc/sys/kernel/osrelease")?;
    let title = format!("native ({})", release.trim());
    output::step(format!("integration tests on {title}"));
    let mut command = as_root(&content.init)?;
    let mut environment = vec![format!("SOCKLIFE_BIN={}", content.socklife.display())];
    environment.push("RUST_BACKTRACE=1".to_owned());
    if let Some(object) = &content.object {
        environment.push(format!("SOCKLIFE_OBJECT={}", object.display()));
    }
    command
        .args(environment)
        .arg(&content.init)
        .args(ALWAYS)
        .args(arguments);

    let mut trials = Trials::default();
    let outcome = stream(&mut command, |line| {
        trials.read(line);
        say(line);
    });
    let kernels = allowed_skips::native_names().into_iter().map(str::to_owned).collect();
    Ok(Run {
        title,
        kernels,
        trials: trials.finish(),
        outcome,
    })
}

/// Runs the tests on a kernel in a VM.
pub fn in_vm(kernel: &Kernel, initramfs: &Initramfs, append: Option<&str>, mut say: impl FnMut(&str)) -> Result<Run> {
    let title = format!("{} ({})", kernel.series, kernel.version);
    output::step(format!("integration tests in a VM on {title}"));
    let log = cache::dir("logs")?.join(format!("{}.log", kernel.series));
    let boot = Boot {
        image: &kernel.image,
        initramfs: &initramfs.0,
        append,
        log,
    };

    let mut trials = Trials::default();
    let outcome = boot.run(|line| {
        trials.read(line);
        say(line);
    });
    let trials = trials.finish();
    let outcome = outcome.and_then(|()| match trials.exit {
        Some(0) => Ok(()),
        // Trials that failed say so themselves.
        Some(_) if trials.counts(|_| true).failed > 0 => Ok(()),
        Some(code) => bail!("the tests ended with code {code} (console: {})", boot.log.display()),
        None => bail!("the tests never said their end (console: {})", boot.log.display()),
    });
    Ok(Run {
        title,
        kernels: vec![kernel.series.clone()],
        trials,
        outcome,
    })
}

/// `env`, by sudo if need be: the caller adds variables and the program.
fn as_root(program: &Path) -> Result<Command> {
    if cache::is_root() {
        return Ok(Command::new("env"));
    }
    ensure!(
        cmd::find_on_path("sudo").is_some(),
        "{} must run as root, and there is no sudo: run this task as root",
        program.display()
    );
    output::step(format!("running {} as root by sudo", program.display()));
    let mut command = Command::new("sudo");
    command.arg("env");
    Ok(command)
}

/// Runs a command and gives its stdout away line by line.
pub fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", cmd::show(command)))?;
    let stdout = child.stdout.take().context("a child has no stdout")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of {}", cmd::show(command)))?;
        on_line(&String::from_utf8_lossy(&line));
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", cmd::show(command)))?;
    ensure!(status.success(), "{} failed: {status}", cmd::show(command));
    Ok(())
}

/// An initramfs file, which goes when nobody needs it any more.
pub struct Initramfs(PathBuf);

impl Initramfs {
    /// Writes the file; the arguments are for the test binary.
    pub fn write(content: &Content, arguments: &[String]) -> Result<Self> {
        let mut all: Vec<String> = ALWAYS.iter().map(|argument| argument.to_string()).collect();
        all.extend_from_slice(arguments);
        let path = cache::dir("vm")?.join(format!("{}.cpio", std::process::id()));
        cache::write(&path, &content.archive(&all)?)?;
        Ok(Self(path))
    }
}

impl Drop for Initramfs {
    fn drop(&mut self) {
        // It lies in the cache, where it does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
