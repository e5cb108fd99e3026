//! Who allocates `sk_buff`s, for which connections, and how many are alive.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use socklife_abi::{config::Filter, event::Kind, program::Program, skb::COUNTED};

use super::Skb;
use crate::{
    cli::args::{check_privileges, drop_privileges, tell_missing},
    kernel::{Kernel, Losses, Tracer},
    output,
    output::say,
    stream::{self, Check, Events, Limits, ShownSkbs, SkbAllocs},
};

/// Counts until it is told to end.
pub fn run(skb: &Skb) -> Result<ExitCode> {
    let each = Kind::set(&[Kind::SkbAlloc, Kind::SkbFree]);
    let wanted = skb.trace.wanted(Filter {
        events: if skb.each { each } else { COUNTED },
        ..skb.connections.filter()?
    })?;
    check_privileges()?;
    let losses = Arc::new(Losses::default());
    let tracer = Tracer::start(&Kernel::running()?, &wanted, false)?;
    tell_missing(&tracer);
    let of_pairs = [Program::SkbPairRawTp, Program::SkbPairNodeRawTp];
    let pairs = tracer
        .report
        .iter()
        .any(|row| of_pairs.iter().any(|program| row.takes(*program)));
    if pairs {
        say!(
            "socklife: with tracepoints alone only what TCP queues to send can be counted, an sk_buff and its first \
             clone as one (`docs/skb-allocs.md`)"
        );
    }
    drop_privileges(false)?;
    let limits = |count| Limits {
        count,
        duration: skb.duration,
        ..Limits::default()
    };
    let check = Check::default();
    if skb.each {
        let output = output::start(skb.output, Arc::clone(&losses))?;
        let sink = Events::new(output, wanted.filter, each, None);
        stream::run(tracer, sink, &losses, limits(skb.count), &check)?;
    } else {
        let sink = SkbAllocs::start(ShownSkbs {
            format: skb.output,
            interval: skb.interval,
            count: skb.count,
            pairs,
        })?;
        stream::run(tracer, sink, &losses, limits(None), &check)?;
    }
    Ok(ExitCode::SUCCESS)
}
