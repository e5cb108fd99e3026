//! `socklife skb --drops`: what is dropped, by reason and place.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use socklife_abi::{config::Filter, table::DROPS_COUNTED};

use crate::{
    cli::args::{TraceArgs, check_privileges, drop_privileges, tell_missing},
    kernel::{Losses, Tracer},
    output::Format,
    stream::{self, Check, DropsSink, Limits, ShownDrops},
};

/// Counts until it is told to end.
pub fn run(
    filter: Filter,
    trace: &TraceArgs,
    format: Format,
    interval: Duration,
    count: Option<u64>,
) -> Result<ExitCode> {
    let wanted = trace.wanted(Filter {
        events: DROPS_COUNTED,
        ..filter
    })?;
    check_privileges()?;
    let losses = Losses::default();
    let tracer = Tracer::start(&wanted, false)?;
    tell_missing(&tracer);
    drop_privileges(false)?;
    let sink = DropsSink::start(ShownDrops {
        format,
        interval,
        count,
    })?;
    stream::run(tracer, sink, &losses, Limits::default(), &Check::default())?;
    Ok(ExitCode::SUCCESS)
}
