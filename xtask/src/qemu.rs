//! Running a kernel in QEMU and reading its console.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache, cmd, output};

const QEMU: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Warnings are shown, since call traces are warnings; a soft lockup traces every CPU, since the one that is stuck may
/// wait for another. Whoever detaches waits for RCU, and here nobody minds being interrupted for that. What costs
/// emulated instructions and proves nothing is off: thunks at each return, tests of ciphers, and `rep stos` and `rep movs`
/// (112 is the kernel's X86_FEATURE_REP_GOOD), which TCG takes a byte or a word at a time.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 softlockup_all_cpu_backtrace=1 rcupdate.rcu_expedited=1 \
                            mitigations=off cryptomgr.notests clearcpuid=112";
/// How the last line of the tests begins.
const LAST_LINE: &str = "integration: exit ";
/// What a kernel says that will not go on.
const DEATHS: &[&str] = &["Kernel panic", "soft lockup"];
/// How long a trial may take without a word, on a machine that others use, too.
const SILENCE: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(90 * 60);
/// How long a dying kernel may go on talking, for the stack trace.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How many lines of the console an error shows.
const TAIL: usize = 25;

/// One boot.
pub struct Boot<'a> {
    /// The kernel image.
    pub image: &'a Path,
    /// The initramfs file.
    pub initramfs: &'a Path,
    /// More of the kernel's command line.
    pub append: Option<&'a str>,
    /// Where the console is kept.
    pub log: PathBuf,
}

/// Installs QEMU if it is missing and this is root on an apt system.
pub fn provision() -> Result<()> {
    if cmd::find_on_path(QEMU).is_some() {
        return Ok(());
    }
    ensure!(
        cache::is_root() && cmd::find_on_path("apt-get").is_some(),
        "{QEMU} is not on PATH: install it (Debian's package {PACKAGE})"
    );
    output::step(format!("installing {PACKAGE} with apt-get"));
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    cmd::output(apt_get().args(["--quiet", "update"]))?;
    cmd::output(apt_get().args(["install", "-y", "--no-install-recommends", PACKAGE]))?;
    Ok(())
}

impl Boot<'_> {
    /// Runs until the machine ends, giving each console line to `on_line`; returns for how long it kept a CPU busy.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<Option<Duration>> {
        let mut log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = self.command();
        let mut machine = Machine(
            command
                .spawn()
                .with_context(|| format!("cannot run {}", cmd::show(&command)))?,
        );
        let pid = machine.0.id();
        let mut busy = None;
        let console = machine.0.stdout.take().context("QEMU has no stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            // An error is an end too: the machine is gone, or we have ended it.
            while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).replace('\r', "");
                if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });

        let mut tail = Vec::new();
        let mut end = Instant::now() + LIMIT;
        let mut death: Option<&str> = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left.min(SILENCE)) {
                Ok(line) => {
                    writeln!(log, "{line}").with_context(|| format!("cannot write {}", self.log.display()))?;
                    on_line(&line);
                    if line.starts_with(LAST_LINE) {
                        busy = cpu_time(pid);
                    }
                    if death.is_none() {
                        death = DEATHS.iter().find(|marker| line.contains(**marker)).copied();
                        if death.is_some() {
                            end = Instant::now() + LAST_WORDS;
                        }
                    }
                    tail.push(line);
                    if tail.len() > TAIL && death.is_none() {
                        tail.remove(0);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let reason = match death {
                        Some(_) => break,
                        None if left > SILENCE => format!("no output for {SILENCE:?}"),
                        None => format!("not done after {LIMIT:?}"),
                    };
                    bail!("{reason}; console ({}):\n{}", self.log.display(), tail.join("\n"));
                }
            }
        }
        if let Some(death) = death {
            bail!("{death}; console ({}):\n{}", self.log.display(), tail.join("\n"));
        }
        let status = machine.0.wait().with_context(|| format!("cannot wait for {QEMU}"))?;
        ensure!(status.success(), "{QEMU} failed: {status}:\n{}", tail.join("\n"));
        Ok(busy)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        command
            // One thread for all CPUs: with a thread each, QEMU before 8.1 can translate an instruction while another CPU
            // patches it, and keep the old one (its commit deba78709ae8 is the fix). The kernel patches its code by way of
            // int3 whenever a tracepoint is switched; a CPU that keeps the int3 takes it for ever, or dies of it.
            .args(["-accel", "tcg,thread=single"])
            // With cx16, QEMU 7.2's TCG corrupts flags and kernels die at random. Without erms and fsrm pages are cleared
            // and copied by plain stores: a third of the time that a start takes.
            .args(["-cpu", "max,-cx16,-erms,-fsrm", "-smp", "2", "-m", "1024"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-nodefaults", "-append"])
            .arg(format!("{COMMAND_LINE} {}", self.append.unwrap_or_default()))
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// The CPU time of a process so far, as proc_pid_stat(5) has it.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // A tick is 10 ms, whatever the kernel's own are.
    Some(Duration::from_millis(ticks * 10))
}

/// A running QEMU, ended when nobody looks at it any more.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
