//! `cargo xtask vm`: the integration tests on one kernel, with its console.

use anyhow::{Result, ensure};

use crate::{
    build_ebpf,
    integration::{self, Choice},
    kernels, matrix, output, qemu,
    toolchain::Choice as Compiler,
    trials::Verdict,
};

/// Arguments of `vm`.
#[derive(clap::Args)]
pub struct Args {
    /// The series of the kernel, such as 6.12.
    series: String,
    /// Arguments for the test binary: filters and libtest's options.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    qemu::provision()?;
    let kernel = kernels::provision(&args.series)?;
    let content = integration::build(build_ebpf::check(Compiler::Auto)?)?;
    let choice = Choice {
        arguments: args.arguments.clone(),
        ..Choice::default()
    };
    let run = integration::in_vm(&kernel, &content, &choice, |line| output::line(line))?;
    for (name, verdict) in &run.trials.verdicts {
        if let Verdict::Skipped(reason) = verdict {
            output::line(format!("skipped: {}: {name}: {reason}", run.title));
        }
    }
    let runs = [run];
    for line in matrix::times(&runs) {
        output::line(line);
    }
    let [run] = runs;
    run.outcome?;
    let counts = run.trials.counts(|_| true);
    output::line(counts.to_string());
    ensure!(
        counts.failed == 0,
        "{} of the trials failed on {}",
        counts.failed,
        run.title
    );
    ensure!(counts.passed > 0, "no trial ran on {}", run.title);
    Ok(())
}
