//! `socklife skb`: sk_buffs.

mod drops;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;

use super::args::{SocketArgs, TraceArgs, duration};
use crate::output::Format;

/// Show what becomes of sk_buffs.
#[derive(Args, Debug)]
pub struct Skb {
    /// Count what is dropped, by reason and place.
    #[arg(long, required = true)]
    drops: bool,

    /// With --drops: length of an interval: seconds, or 10s, 500ms, 2m.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = duration)]
    interval: Duration,

    /// End after so many intervals; without it Ctrl-C ends it.
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// How to show it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    sockets: SocketArgs,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Skb {
    pub fn run(self) -> Result<ExitCode> {
        drops::run(
            self.sockets.filter()?,
            &self.trace,
            self.output,
            self.interval,
            self.count,
        )
    }
}
