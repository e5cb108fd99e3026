//! `socklife trace`: every event as it happens.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;

use super::args::{
    FilterArgs, TraceArgs, check_privileges, drop_privileges, duration, is_blind, self_check, tell_missing,
};
use crate::{
    kernel::{Losses, Tracer},
    output::{self, Format},
    stream::{self, Check, Events, Limits},
};

/// Show what happens to TCP sockets, as it happens.
///
/// One line an event: when, what, the process that did it ("-" where the kernel acted by itself, in softirq), this end
/// and the other end of the connection, and what the event says. "socklife: attached" on standard error tells that from
/// now on nothing is missed; what is lost is counted and said there too. Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    sudo socklife trace --lport 443                 one listener and its connections\n  \
    sudo socklife trace --pid 4242 -o json          one process, for a program to read\n  \
    sudo socklife trace -e accepted --count 10      the next ten accepts\n  \
    sudo socklife trace --netns 4242 --addr 10.0.0.0/8")]
pub struct Trace {
    #[command(flatten)]
    filter: FilterArgs,

    /// How to show events.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time: 10s, 500ms, 2m, or seconds.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Compare all that was counted with the kernel's own counters at the end, also where nothing happened.
    #[arg(long)]
    reconcile: bool,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Trace {
    pub fn run(self) -> Result<ExitCode> {
        let wanted = self.trace.wanted(self.filter.filter()?)?;
        check_privileges()?;
        let mut check = self_check(&wanted.filter, self.reconcile)?;
        let losses = Arc::new(Losses::default());
        let tracer = Tracer::start(&wanted, false)?;
        tell_missing(&tracer);
        if let Some(check) = &mut check {
            check.begin(&tracer.counters)?;
        }
        drop_privileges()?;
        let output = output::start(self.output, Arc::clone(&losses))?;
        let limits = Limits {
            count: self.count,
            duration: self.duration,
            until: None,
        };
        let check = Check {
            check: check.as_ref(),
            all: self.reconcile,
            blind: is_blind(&tracer),
        };
        stream::run(tracer, Events::new(output, wanted.filter), &losses, limits, &check)?;
        Ok(ExitCode::SUCCESS)
    }
}
