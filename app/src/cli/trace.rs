//! `socklife trace`: every event as it happens.

use std::{cell::RefCell, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;

use super::args::{
    FilterArgs, TraceArgs, check_privileges, drop_privileges, duration, is_blind, self_check, tell_missing,
};
use crate::{
    balance::Balance,
    event::HOLDERS,
    kernel::{Losses, Tracer},
    model::{Holders, holders},
    older,
    output::{self, Format},
    server::Attended,
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
    sudo socklife trace --netns 4242 --addr 10.0.0.0/8\n  \
    sudo socklife trace --serve 127.0.0.1:8080      a server that forks, and who holds its connections\n  \
    sudo socklife trace -e handed_off,finding       connections that change hands, and what goes wrong")]
pub struct Trace {
    #[command(flatten)]
    filter: FilterArgs,

    /// Run the reference server (`socklife serve`) on this address as a child, and trace it: what it does, its
    /// connections, and the children it forks for them. It ends with the trace.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "pid")]
    serve: Option<SocketAddr>,

    /// With --serve: trace everything else, too.
    #[arg(long, requires = "serve")]
    all: bool,

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
        let mut filter = self.filter.filter()?;
        let shown = filter.events;
        filter.events = holders::sources(shown);
        let mut server = self.serve.map(|listen| Attended::begin(listen, &[])).transpose()?;
        if let Some(server) = &server
            && !self.all
        {
            filter.pid = server.pid();
        }
        let wanted = self.trace.wanted(filter)?;
        check_privileges()?;
        let mut check = self_check(&wanted.filter, self.reconcile)?;
        let mut balance = Balance::open(&wanted.filter);
        let losses = Arc::new(Losses::default());
        let mut tracer = Tracer::start(&wanted, false)?;
        tell_missing(&tracer);
        if let Some(check) = &mut check {
            check.begin(&tracer.counters)?;
        }
        balance.begin(&tracer.counters)?;
        let follows = filter.events & HOLDERS != 0;
        let mut holders = follows.then(|| Holders::new(wanted.max_sockets as usize));
        if let Some(holders) = &mut holders {
            older::tell(holders, &mut tracer.counters, &wanted.filter)?;
        }
        drop_privileges(follows)?;
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
            balance: Some(RefCell::new(balance)),
        };
        if let Some(server) = &mut server {
            server.start()?;
        }
        stream::run(
            tracer,
            Events::new(output, wanted.filter, shown, holders),
            &losses,
            limits,
            &check,
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
