//! `cargo xtask test`: unit tests, integration tests here, and on every kernel in a VM; `cargo xtask ci`: the same, and all
//! else that must hold.
//!
//! All of it at once, as far as one thing does not wait for another: the VMs take longest, and begin as soon as there is
//! something to run. What is done beside them yields to them.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Mutex, OnceLock,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    build_ebpf, cargo,
    initramfs::Content,
    integration::{self, Choice},
    kernels::{self, Kernel},
    lint,
    matrix::{self, Run},
    output,
    policy::{self, Policy},
    qemu,
    since::Touched,
    toolchain::Choice as Compiler,
    trials::Counts,
};

/// Arguments of `test` and `ci`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the integration tests on this machine's kernel.
    #[arg(long, conflicts_with_all = ["kernels", "skip_vm"])]
    native_only: bool,
    /// Only these kernel series in VMs, such as 6.12.
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// No VMs.
    #[arg(long, conflicts_with = "kernels")]
    skip_vm: bool,
    /// Only what the changes since this revision can have touched, and no VMs: for the loop at the desk.
    #[arg(long, value_name = "REV", conflicts_with_all = ["kernels", "all"])]
    since: Option<String>,
    /// Each trial on each kernel, also where docs/kernels.md leaves it out: for a release.
    #[arg(long)]
    all: bool,
    /// How many VMs run at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    jobs: u8,
}

/// Runs the task `test`.
pub fn run(args: &Args) -> Result<()> {
    all_of_it(args, false)
}

/// Runs the task `ci`.
pub fn ci(args: &Args) -> Result<()> {
    all_of_it(args, true)
}

fn all_of_it(args: &Args, lints: bool) -> Result<()> {
    let policy = Policy::load(args.all)?;
    let touched = args.since.as_deref().map(Touched::since).transpose()?;
    let touched = touched.as_ref();
    let series: Vec<String> = match args {
        Args { native_only: true, .. } | Args { skip_vm: true, .. } | Args { since: Some(_), .. } => Vec::new(),
        Args { kernels, .. } if !kernels.is_empty() => kernels.clone(),
        _ => kernels::LONGEST_FIRST.iter().map(|series| series.to_string()).collect(),
    };
    let built = OnceLock::new();
    let (mut runs, counts, mut faults) = thread::scope(|scope| -> Result<_> {
        let (comparable, is_comparable) = mpsc::channel();
        let object = scope.spawn(move || {
            give_way();
            check_object(&comparable)
        });
        let (fetched, kernels) = mpsc::channel();
        let fetching = &series;
        scope.spawn(move || fetch(fetching, &fetched));

        // Where bytes tell nothing the tests take the fresh object, and wait for it.
        let (fresh, object) = if is_comparable.recv().unwrap_or(false) {
            (None, Some(object))
        } else {
            (joined(object)?, None)
        };
        let content = integration::build(fresh)?;
        let trials = integration::list(&content)?;
        let (content, trials) = built.get_or_init(|| (content, trials));
        let choose = |kernels: &[&str]| Choice::of(trials, policy.chosen(kernels, trials));

        let mut native = choose(&policy::native_names());
        if let (Some(touched), Some(chosen)) = (touched, &mut native.chosen) {
            chosen.retain(|trial| touched.has(trial));
        }
        let wanted = native.chosen.as_ref().is_none_or(|chosen| !chosen.is_empty());
        let native =
            wanted.then(|| scope.spawn(move || integration::native(content, &native, |line| output::line(line))));
        let beside = scope.spawn(move || {
            give_way();
            let mut faults = Vec::new();
            let mut counts = Counts::default();
            if !args.native_only {
                let (counted, outcome) = unit_tests(touched.map(|touched| &touched.packages));
                counts = counted;
                if let Err(error) = outcome {
                    // A crate that does not build has no failed test to count.
                    counts.failed = counts.failed.max(1);
                    faults.push(told("unit tests", error));
                }
            }
            if lints && let Err(error) = lint::run() {
                faults.push(told("lint", error));
            }
            (counts, faults)
        });
        let mut runs = in_vms(kernels, content, &choose, args.jobs);
        runs.extend(native.map(joined).transpose()?);
        let (counts, mut faults) = beside.join().map_err(|_| anyhow!("a thread panicked"))?;
        if let Some(object) = object {
            match joined(object) {
                Ok(None) => {}
                Ok(Some(fresh)) => faults.push(format!("the eBPF object: {} differs", fresh.display())),
                Err(error) => faults.push(told("the eBPF object", error)),
            }
        }
        Ok((runs, counts, faults))
    })?;

    // This machine's, which is no series; then in the order of their age.
    runs.sort_by_key(|run| kernels::SERIES.iter().position(|series| run.kernels[0] == *series));
    let report = matrix::report(&runs, &policy);
    output::line("");
    for line in report.lines.iter().chain(&matrix::times(&runs)) {
        output::line(line);
    }
    let counts = counts.plus(report.counts);
    // Last, for the end of a long output is what is kept.
    for line in &report.faults {
        output::line(line);
    }
    for fault in &faults {
        output::line(format!("fault: {fault}"));
    }
    output::line("");
    output::line(counts.to_string());
    ensure!(counts.failed == 0, "{} failed", counts.failed);
    ensure!(faults.is_empty(), "{}", faults.remove(0));
    Ok(())
}

/// Says it at once, for the rest may take a while.
fn told(what: &str, error: anyhow::Error) -> String {
    let fault = format!("{what}: {error:#}");
    output::step(format!("fault: {fault}"));
    fault
}

/// What the calling thread starts from now on leaves the CPU to others that want it.
fn give_way() {
    // SAFETY: a thread's own niceness.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Compares the object; says first whether bytes will tell something.
fn check_object(comparable: &Sender<bool>) -> Result<Option<PathBuf>> {
    // Nobody waits who does not care.
    let _ = comparable.send(build_ebpf::comparable(Compiler::Auto)?);
    build_ebpf::check(Compiler::Auto)
}

/// QEMU and the kernels, one after the other, since apt locks its state.
fn fetch(series: &[String], fetched: &Sender<(String, Result<Kernel>)>) {
    if series.is_empty() {
        return;
    }
    let qemu = qemu::provision().map_err(|error| format!("{error:#}"));
    for series in series {
        let kernel = match &qemu {
            Ok(()) => kernels::provision(series),
            Err(error) => Err(anyhow!("{error}")),
        };
        if fetched.send((series.clone(), kernel)).is_err() {
            break;
        }
    }
}

/// Of these packages, or of all.
fn unit_tests(packages: Option<&BTreeSet<&str>>) -> (Counts, Result<()>) {
    let mut counts = Counts::default();
    let mut command = cargo::command();
    command.args(["test", "--locked", "--no-fail-fast"]);
    match packages {
        Some(packages) if packages.is_empty() => return (counts, Ok(())),
        Some(packages) => command.args(packages.iter().flat_map(|package| ["--package", package])),
        None => command.args(["--workspace", "--exclude", "socklife-tests"]),
    };
    output::step("unit tests");
    let outcome = integration::stream(&mut command, |line| {
        counts = counts.plus(Counts::of_result_line(line).unwrap_or_default());
        output::line(line);
    });
    (counts, outcome)
}

/// One run for each series; what keeps one from running does not keep the others.
fn in_vms(
    kernels: Receiver<(String, Result<Kernel>)>,
    content: &Content,
    choose: &(impl Fn(&[&str]) -> Choice + Sync),
    jobs: u8,
) -> Vec<Run> {
    let queue = Mutex::new(kernels.into_iter());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((series, kernel)) = next(&queue) {
                    let choice = choose(&[&series]);
                    let run = kernel.and_then(|kernel| {
                        integration::in_vm(&kernel, content, &choice, |line| {
                            output::line(format!("{series} | {line}"));
                        })
                    });
                    if let Ok(mut done) = done.lock() {
                        done.push(run.unwrap_or_else(|error| not_run(&series, error)));
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().ok()?.next()
}

fn not_run(series: &str, error: anyhow::Error) -> Run {
    let run = Choice::default().run(series.to_owned(), vec![series.to_owned()]);
    Run {
        outcome: Err(error).with_context(|| format!("kernel {series} could not be tested")),
        ..run
    }
}
