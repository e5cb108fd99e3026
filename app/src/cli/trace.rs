//! `socklife trace`: every event as it happens.

use std::{cell::RefCell, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use socklife_abi::config::Filter;

use super::args::{
    FilterArgs, TraceArgs, check_privileges, drop_privileges, duration, is_blind, self_check, tell_missing,
};
use crate::{
    balance::Balance,
    event::HOLDERS,
    kernel::{Kernel, Losses, Tracer},
    model::{Holders, holders},
    netns, older,
    output::{self, Format},
    pids,
    server::Attended,
    stream::{self, Check, Ended, Events, Limits},
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

    /// End after this time, from "attached" on: 10s, 500ms, 2m, or seconds.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Compare all that was counted with the kernel's own counters at the end, also where nothing happened.
    #[arg(long)]
    reconcile: bool,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Trace {
    pub fn run(self) -> Result<ExitCode> {
        let mut filter = self.filter.filter()?;
        if let Some(address) = self.serve {
            server_passes(&filter, address, self.all)?;
        }
        let shown = filter.events;
        filter.events = holders::sources(shown);
        let mut server = self.serve.map(|listen| Attended::begin(listen, &[])).transpose()?;
        if let Some(server) = &server
            && !self.all
        {
            filter.pid = pids::translate(server.pid()).context("--serve (with --all it needs no number)")?;
        }
        let wanted = self.trace.wanted(filter)?;
        check_privileges()?;
        let mut check = self_check(&wanted.filter, self.reconcile)?;
        let mut balance = Balance::open(&wanted.filter);
        let losses = Arc::new(Losses::default());
        let kernel = Kernel::running()?;
        let mut tracer = Tracer::start(&kernel, &wanted, false)?;
        tell_missing(&tracer);
        if let Some(check) = &mut check {
            check.begin(&tracer.counters)?;
        }
        balance.begin(&tracer.counters)?;
        let follows = filter.events & HOLDERS != 0;
        let mut holders = follows.then(|| Holders::new(wanted.max_sockets as usize));
        if let Some(holders) = &mut holders {
            older::tell(holders, &kernel, &mut tracer, &wanted.filter)?;
        }
        drop_privileges(follows)?;
        let output = output::start(self.output, Arc::clone(&losses))?;
        let limits = Limits {
            count: self.count,
            duration: self.duration,
            server: server.as_ref().map(Attended::watched).transpose()?,
            ..Limits::default()
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
        let events = Events::new(output, wanted.filter, shown, holders);
        let ended = stream::run(tracer, events, &losses, limits, &check)?;
        if let Some(server) = &mut server
            && ended == Ended::ServerGone
        {
            let how = server.ended().map_or_else(String::new, |status| format!(" ({status})"));
            bail!("the reference server has ended{how}; what it said stands above");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An error if nothing of the server can pass the filter.
fn server_passes(filter: &Filter, address: SocketAddr, all: bool) -> Result<()> {
    let port = address.port();
    ensure!(
        filter.netns == 0 || netns::is_own(filter.netns),
        "--serve: the server runs in this network namespace, and --netns names another; leave --netns out, or run \
         socklife in there (ip netns exec NAME socklife trace --serve {address})"
    );
    for (option, wanted) in [("--port", filter.port), ("--lport", filter.lport)] {
        ensure!(
            wanted == 0 || port != 0,
            "--serve {address} takes a free port, which {option} cannot name: leave {option} out"
        );
        ensure!(
            wanted == 0 || wanted == port,
            "--serve {address}: {option} {wanted} leaves out all that the server does; leave {option} out"
        );
    }
    ensure!(
        filter.rport == 0 || filter.rport != port || all,
        "--serve {address}: the server's port is its own end (--lport), and --rport {port} leaves it out"
    );
    let family = match address {
        SocketAddr::V4(_) => 4,
        // A wildcard takes IPv4 as well.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => 0,
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => 4,
        SocketAddr::V6(_) => 6,
    };
    ensure!(
        filter.family == 0 || family == 0 || filter.family == family,
        "--serve {address} speaks IPv{family}, and the filter lets only IPv{} pass",
        filter.family
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Filter, server_passes};

    #[test]
    fn a_filter_that_leaves_the_server_out_is_an_error() {
        let passes = |change: fn(&mut Filter), address: &str| {
            let mut filter = Filter::ANY;
            change(&mut filter);
            server_passes(&filter, address.parse().expect("an address"), false)
        };
        assert!(passes(|_| {}, "127.0.0.1:0").is_ok());
        assert!(passes(|filter| filter.lport = 80, "127.0.0.1:80").is_ok());
        assert!(passes(|filter| filter.family = 4, "[::]:80").is_ok());
        for (change, address, word) in [
            (
                (|filter| filter.lport = 81) as fn(&mut Filter),
                "127.0.0.1:80",
                "--lport 81",
            ),
            (|filter| filter.port = 81, "127.0.0.1:80", "--port 81"),
            (|filter| filter.port = 81, "127.0.0.1:0", "free port"),
            (|filter| filter.rport = 80, "127.0.0.1:80", "--rport 80"),
            (|filter| filter.netns = 7, "127.0.0.1:80", "--netns"),
            (|filter| filter.family = 6, "127.0.0.1:80", "IPv4"),
            (|filter| filter.family = 4, "[::1]:80", "IPv6"),
        ] {
            let error = passes(change, address).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
