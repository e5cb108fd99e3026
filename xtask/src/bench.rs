//! `cargo xtask bench start`: how long socklife takes to start and to end, side by side with another build of it.

use std::{
    io::{BufRead as _, BufReader},
    mem,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{docs, output};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Start and end of the commands that trace, and of `sockets`; takes root.
    Start {
        /// Another build of socklife, run in turn with this one.
        #[arg(long, value_name = "BIN")]
        against: PathBuf,
        /// How often to run each.
        #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
}

/// What is started, and whether it goes on until it is interrupted.
const COMMANDS: [(&[&str], bool); 4] = [
    (&["trace"], true),
    (&["queues"], true),
    (&["trace", "-e", "closed"], true),
    (&["sockets"], false),
];

/// Between the line that tells that it is attached and the end.
const REST: Duration = Duration::from_millis(300);

/// One run, in milliseconds.
#[derive(Clone, Copy)]
struct Run {
    /// Until it is attached; where nothing is, until it has ended.
    start: f64,
    /// From SIGINT until wait(2) returns.
    end: Option<f64>,
    /// Of the CPUs, in the whole run.
    cpu: f64,
}

/// Runs the task.
pub fn run(Args { what }: &Args) -> Result<()> {
    let What::Start { against, rounds } = what;
    output::step("building socklife");
    let builds = [against.clone(), docs::socklife()?];
    let mut lines = vec![
        "| median, ms | attached: before | now | | ended: before | now | | CPU: before | now | |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for (arguments, traces) in COMMANDS {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..*rounds {
            for (build, runs) in builds.iter().zip(&mut runs) {
                runs.push(once(build, arguments, traces)?);
            }
        }
        let of = |pick: fn(&Run) -> Option<f64>| {
            let [before, now] = [&runs[0], &runs[1]].map(|runs| median(runs.iter().filter_map(pick).collect()));
            match (before, now) {
                (Some(before), Some(now)) => format!("{before:.0} | {now:.0} | {:.2}", now / before),
                _ => "| |".to_owned(),
            }
        };
        lines.push(format!(
            "| `{}` | {} | {} | {} |",
            arguments.join(" "),
            of(|run| Some(run.start)),
            of(|run| run.end),
            of(|run| Some(run.cpu))
        ));
    }
    for line in lines {
        output::line(line);
    }
    Ok(())
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn once(build: &Path, arguments: &[&str], traces: bool) -> Result<Run> {
    let begin = Instant::now();
    let mut child = Command::new(build)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", build.display()))?;
    let pid = i32::try_from(child.id())?;
    let mut errors = BufReader::new(child.stderr.take().context("no standard error")?);
    let (mut start, mut told) = (None, Instant::now());
    if traces {
        let mut said = String::new();
        while !said.ends_with("socklife: attached\n") {
            ensure!(errors.read_line(&mut said)? > 0, "it did not attach: {said}");
        }
        start = Some(begin.elapsed());
        thread::sleep(REST);
        told = Instant::now();
        // SAFETY: a signal to our own child, which nobody waited for yet.
        let sent = unsafe { libc::kill(pid, libc::SIGINT) };
        ensure!(sent == 0, "cannot interrupt it");
    }
    let (mut status, mut usage) = (0, usage());
    // SAFETY: both places outlive the call, and nobody else waits for this child.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let ended = Instant::now();
    ensure!(waited == pid && status == 0, "{} failed", arguments.join(" "));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let cpu = [usage.ru_utime, usage.ru_stime].map(|time| time.tv_sec as f64 * 1000.0 + time.tv_usec as f64 / 1000.0);
    Ok(Run {
        start: milliseconds(start.unwrap_or(ended - begin)),
        end: traces.then(|| milliseconds(ended - told)),
        cpu: cpu.iter().sum(),
    })
}

fn usage() -> libc::rusage {
    // SAFETY: numbers only.
    unsafe { mem::zeroed() }
}
