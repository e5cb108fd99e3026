//! What is dropped, by reason and place.

use std::process::ExitCode;

use anyhow::Result;
use socklife_abi::{config::Filter, table::DROPS_COUNTED};

use super::Skb;
use crate::{
    cli::args::{check_privileges, drop_privileges, tell_missing},
    kernel::{Kernel, Losses, Tracer},
    stream::{self, Check, DropsSink, Limits, ShownDrops},
};

/// Counts until it is told to end.
pub fn run(skb: &Skb) -> Result<ExitCode> {
    let wanted = skb.trace.wanted(Filter {
        events: DROPS_COUNTED,
        ..skb.connections.filter()?
    })?;
    check_privileges()?;
    let losses = Losses::default();
    let tracer = Tracer::start(&Kernel::running()?, &wanted, false)?;
    tell_missing(&tracer);
    drop_privileges(false)?;
    let sink = DropsSink::start(ShownDrops {
        format: skb.output,
        interval: skb.interval,
        count: skb.count,
    })?;
    let limits = Limits {
        duration: skb.duration,
        ..Limits::default()
    };
    stream::run(tracer, sink, &losses, limits, &Check::default())?;
    Ok(ExitCode::SUCCESS)
}
