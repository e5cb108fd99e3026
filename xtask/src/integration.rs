//! The integration tests on one kernel: this machine's, or one in a VM.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cache, cargo, cmd, initramfs::Content, kernels::Kernel, matrix::Run, output, policy, qemu::Boot, trials::Trials,
};

/// Tests that load programs and count events disturb one another.
const ALWAYS: &[&str] = &["--test-threads=1", "--color=never"];

/// Builds the test binary and the program under test; `object` is the one to test where that is not the embedded one.
pub fn build(object: Option<PathBuf>) -> Result<Content> {
    output::step("building socklife and the integration tests");
    // One call for both, so that what they share is built once and both cores have work.
    let [socklife, init] = cargo::executables(
        cargo::command()
            .args(["build", "--quiet", "--locked", "--workspace"])
            .args(["--bin", "socklife", "--test", "integration"]),
        ["socklife", "integration"],
    )?;
    Ok(Content { init, socklife, object })
}

/// The names of all trials.
pub fn list(content: &Content) -> Result<Vec<String>> {
    let text = cmd::output(Command::new(&content.init).arg("--list"))?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect();
    ensure!(!names.is_empty(), "{} lists no trials", content.init.display());
    Ok(names)
}

/// What is to run on a kernel.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Arguments for the test binary.
    pub arguments: Vec<String>,
    /// Variables for it: `NAME=value`.
    pub environment: Vec<String>,
    /// Where only these trials run: their names.
    pub chosen: Option<BTreeSet<String>>,
    /// The others.
    pub left_out: BTreeSet<String>,
}

impl Choice {
    /// Of all trials, those that are chosen.
    pub fn of(all: &[String], chosen: BTreeSet<String>) -> Self {
        let left_out = all.iter().filter(|name| !chosen.contains(*name)).cloned().collect();
        Self {
            chosen: Some(chosen),
            left_out,
            ..Self::default()
        }
    }

    /// A run that nothing came of yet.
    pub fn run(&self, title: String, kernels: Vec<String>) -> Run {
        Run {
            title,
            kernels,
            trials: Trials::default(),
            chosen: self.chosen.clone().unwrap_or_default(),
            left_out: self.left_out.clone(),
            took: Default::default(),
            outcome: Ok(()),
        }
    }
}

/// Runs the tests here, as root.
pub fn native(content: &Content, choice: &Choice, mut say: impl FnMut(&str)) -> Result<Run> {
    let begin = Instant::now();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read /proc/sys/kernel/osrelease")?;
    let title = format!("native ({})", release.trim());
    output::step(format!("integration tests on {title}"));
    let mut command = as_root(&content.init)?;
    let mut environment = vec![format!("SOCKLIFE_BIN={}", content.socklife.display())];
    environment.push("RUST_BACKTRACE=1".to_owned());
    if let Some(object) = &content.object {
        environment.push(format!("SOCKLIFE_OBJECT={}", object.display()));
    }
    let names = choice.chosen.as_ref().map(Names::write).transpose()?;
    if let Some(names) = &names {
        environment.push(format!("SOCKLIFE_TRIALS={}", names.0.display()));
    }
    command
        .args(environment)
        .arg(&content.init)
        .args(ALWAYS)
        .args(&choice.arguments);

    let mut trials = Trials::default();
    let outcome = stream(&mut command, |line| {
        trials.read(line);
        say(line);
    });
    let kernels = policy::native_names().into_iter().map(str::to_owned).collect();
    let run = choice.run(title, kernels);
    Ok(Run {
        trials: trials.finish(),
        took: (begin.elapsed(), None),
        outcome,
        ..run
    })
}

/// A file with the names of trials, which goes when nobody needs it any more.
struct Names(PathBuf);

impl Names {
    fn write(names: &BTreeSet<String>) -> Result<Self> {
        let path = cache::dir("vm")?.join(format!("{}.trials", std::process::id()));
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        cache::write(&path, text.as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // It lies in the cache, where it does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs the tests on a kernel in a VM.
pub fn in_vm(kernel: &Kernel, content: &Content, choice: &Choice, mut say: impl FnMut(&str)) -> Result<Run> {
    let initramfs = Initramfs::write(&kernel.series, content, choice)?;
    let begin = Instant::now();
    let title = format!("{} ({})", kernel.series, kernel.version);
    output::step(format!("integration tests in a VM on {title}"));
    let log = cache::dir("logs")?.join(format!("{}.log", kernel.series));
    let boot = Boot {
        image: &kernel.image,
        initramfs: &initramfs.0,
        log,
    };

    let mut trials = Trials::default();
    let outcome = boot.run(|line| {
        trials.read(line);
        say(line);
    });
    let trials = trials.finish();
    let busy = outcome.as_ref().ok().copied().flatten();
    let outcome = outcome.and_then(|_| match trials.exit {
        Some(0) => Ok(()),
        // Trials that failed say so themselves.
        Some(_) if trials.counts(|_| true).failed > 0 => Ok(()),
        Some(code) => bail!("the tests ended with code {code} (console: {})", boot.log.display()),
        None => bail!("the tests never said their end (console: {})", boot.log.display()),
    });
    let run = choice.run(title, vec![kernel.series.clone()]);
    Ok(Run {
        trials,
        took: (begin.elapsed(), busy),
        outcome,
        ..run
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
struct Initramfs(PathBuf);

impl Initramfs {
    fn write(series: &str, content: &Content, choice: &Choice) -> Result<Self> {
        let mut all: Vec<String> = ALWAYS.iter().map(|argument| argument.to_string()).collect();
        all.extend_from_slice(&choice.arguments);
        let path = cache::dir("vm")?.join(format!("{}.{series}.cpio", std::process::id()));
        cache::write(
            &path,
            &content.archive(&all, &choice.environment, choice.chosen.as_ref())?,
        )?;
        Ok(Self(path))
    }
}

impl Drop for Initramfs {
    fn drop(&mut self) {
        // It lies in the cache, where it does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
