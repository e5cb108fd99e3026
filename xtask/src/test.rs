//! `cargo xtask test`: unit tests, integration tests here, and on every kernel in a VM.

use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use crate::{
    allowed_skips::AllowedSkips,
    cargo,
    integration::{self, Initramfs},
    kernels::{self, Kernel},
    matrix::{self, Run},
    output, qemu,
    trials::{Counts, Trials},
};

/// Arguments of `test`.
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
    /// How many VMs run at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    jobs: u8,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let allowed = AllowedSkips::load()?;
    let series = match args {
        Args { native_only: true, .. } | Args { skip_vm: true, .. } => Vec::new(),
        Args { kernels, .. } if !kernels.is_empty() => kernels.clone(),
        _ => kernels::SERIES.iter().map(|series| series.to_string()).collect(),
    };
    if !series.is_empty() {
        qemu::provision()?;
    }
    let content = integration::build()?;
    let (mut counts, unit) = if args.native_only {
        (Counts::default(), Ok(()))
    } else {
        unit_tests()
    };
    let mut runs = vec![integration::native(&content, &[], |line| output::line(line))?];
    if !series.is_empty() {
        let initramfs = Initramfs::write(&content, &[])?;
        runs.extend(in_vms(&series, &initramfs, args.jobs));
    }

    let report = matrix::report(&runs, &allowed);
    output::line("");
    for line in &report.lines {
        output::line(line);
    }
    if let Err(error) = &unit {
        output::line(format!("fault: unit tests: {error:#}"));
        // A crate that does not build has no failed test to count.
        counts.failed = counts.failed.max(1);
    }
    let counts = counts.plus(report.counts);
    output::line("");
    output::line(counts.to_string());
    ensure!(counts.failed == 0, "{} failed", counts.failed);
    Ok(())
}

fn unit_tests() -> (Counts, Result<()>) {
    output::step("unit tests");
    let mut counts = Counts::default();
    let mut command = cargo::command();
    command.args([
        "test",
        "--locked",
        "--workspace",
        "--exclude",
        "socklife-tests",
        "--no-fail-fast",
    ]);
    let outcome = integration::stream(&mut command, |line| {
        counts = counts.plus(Counts::of_result_line(line).unwrap_or_default());
        output::line(line);
    });
    (counts, outcome)
}

/// One run for each series; what keeps one from running does not keep the others.
fn in_vms(series: &[String], initramfs: &Initramfs, jobs: u8) -> Vec<Run> {
    // Fetched one after the other, since apt locks its state.
    let kernels: Vec<(usize, &String, Result<Kernel>)> = series
        .iter()
        .enumerate()
        .map(|(index, series)| (index, series, kernels::provision(series)))
        .collect();
    let queue = Mutex::new(kernels.into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((index, series, kernel)) = next(&queue) {
                    let run = kernel.and_then(|kernel| {
                        integration::in_vm(&kernel, initramfs, None, |line| {
                            output::line(format!("{series} | {line}"));
                        })
                    });
                    if let Ok(mut done) = done.lock() {
                        done.push((index, run.unwrap_or_else(|error| not_run(series, error))));
                    }
                }
            });
        }
    });
    let mut runs = done.into_inner().unwrap_or_default();
    runs.sort_by_key(|(index, _)| *index);
    runs.into_iter().map(|(_, run)| run).collect()
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().ok()?.next()
}

fn not_run(series: &str, error: anyhow::Error) -> Run {
    Run {
        title: series.to_owned(),
        kernels: vec![series.to_owned()],
        trials: Trials::default(),
        outcome: Err(error).with_context(|| format!("kernel {series} could not be tested")),
    }
}
