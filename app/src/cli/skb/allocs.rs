//! `socklife skb --allocs`: who allocates `sk_buff`s, for which connections, and how many are alive.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use socklife_abi::{config::Filter, event::Kind, program::Program, skb::COUNTED};

use crate::{
    cli::args::{TraceArgs, check_privileges, drop_privileges, duration, tell_missing},
    kernel::{Losses, Tracer},
    output::{self, Format},
    stream::{self, Check, Events, Limits, ShownSkbs, SkbAllocs},
    symbols,
};

/// How to count.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Allocations")]
pub struct Counting {
    /// Length of an interval: seconds, or 10s, 500ms, 2m.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = duration, requires = "allocs")]
    interval: Duration,

    /// Show each allocation and each end, of connections only, instead of counts.
    #[arg(long, requires = "allocs")]
    each: bool,
}

/// Each interval reads the kernel side's tables.
const SHORTEST: Duration = Duration::from_millis(50);

/// Counts until it is told to end.
pub fn run(
    counting: &Counting,
    mut filter: Filter,
    trace: &TraceArgs,
    format: Format,
    count: Option<u64>,
) -> Result<ExitCode> {
    ensure!(counting.interval >= SHORTEST, "--interval: give at least 50ms");
    let each = Kind::set(&[Kind::SkbAlloc, Kind::SkbFree]);
    filter.events = if counting.each { each } else { COUNTED };
    let wanted = trace.wanted(filter)?;
    check_privileges()?;
    let losses = Arc::new(Losses::default());
    let tracer = Tracer::start(&wanted, false)?;
    tell_missing(&tracer);
    let pairs = tracer.report.iter().any(|row| row.takes(Program::SkbPairRawTp));
    ensure!(
        !pairs || symbols::range("__alloc_skb").is_some(),
        "this kernel admits tracepoints only, and hides where __alloc_skb is: let root read /proc/kallsyms \
         (sysctl kernel.kptr_restrict=1)"
    );
    if pairs {
        eprintln!(
            "socklife: with tracepoints alone only what TCP queues to send can be counted, an sk_buff and its first \
             clone as one (`docs/skb.md`)"
        );
    }
    drop_privileges(false)?;
    let check = Check::default();
    if counting.each {
        let output = output::start(format, Arc::clone(&losses))?;
        let limits = Limits {
            count,
            ..Limits::default()
        };
        let sink = Events::new(output, wanted.filter, each, None);
        stream::run(tracer, sink, &losses, limits, &check)?;
    } else {
        let shown = ShownSkbs {
            format,
            interval: counting.interval,
            count,
            pairs,
        };
        stream::run(tracer, SkbAllocs::start(shown)?, &losses, Limits::default(), &check)?;
    }
    Ok(ExitCode::SUCCESS)
}
