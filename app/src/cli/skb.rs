//! `socklife skb`: single `sk_buff`s.

mod allocs;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use super::args::{SocketArgs, TraceArgs};
use crate::output::Format;

/// Show what becomes of sk_buffs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    sudo socklife skb --allocs                            who allocates, every two seconds\n  \
    sudo socklife skb --allocs --netns web --lport 443    the connections of a listener\n  \
    sudo socklife skb --allocs --each --port 8080         each allocation and its end")]
pub struct Skb {
    /// Count allocations, by function and by connection.
    #[arg(long)]
    allocs: bool,

    #[command(flatten)]
    counting: allocs::Counting,

    /// End after so many intervals, or with --each after so many events; without it Ctrl-C ends it.
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
        ensure!(self.allocs, "say what to show: --allocs");
        let filter = self.sockets.filter()?;
        allocs::run(&self.counting, filter, &self.trace, self.output, self.count)
    }
}
