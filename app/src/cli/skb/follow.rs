//! Segments, step by step.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use socklife_abi::event::Kind;

use super::Skb;
use crate::{
    cli::args::{check_privileges, drop_privileges, tell_missing},
    kernel::{Follow, Kernel, Losses, Tracer, Wanted},
    stream::{self, Check, Limits, Segments},
};

/// A few, where nobody says how many.
const SEGMENTS: u64 = 5;

/// Follows until there were enough.
pub fn run(skb: &Skb) -> Result<ExitCode> {
    let mut filter = skb.connections.filter()?;
    filter.events = Kind::set(&[Kind::SkbStep]);
    let count = Some(skb.count.unwrap_or(SEGMENTS)).filter(|count| *count > 0);
    let wanted = Wanted {
        follow: Follow {
            most: count.unwrap_or(u64::MAX),
            rate: skb.rate,
        },
        ..skb.trace.wanted(filter)?
    };
    check_privileges()?;
    let losses = Arc::new(Losses::default());
    let tracer = Tracer::start(&Kernel::running()?, &wanted, false)?;
    tell_missing(&tracer);
    drop_privileges(false)?;
    let sink = Segments::start(skb.output, Arc::clone(&losses))?;
    let limits = Limits {
        count,
        duration: skb.duration,
        ..Limits::default()
    };
    stream::run(tracer, sink, &losses, limits, &Check::default())?;
    Ok(ExitCode::SUCCESS)
}
