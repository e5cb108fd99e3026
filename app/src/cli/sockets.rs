//! `socklife sockets`: what exists now.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use caps::Capability;
use clap::Args;
use socklife_abi::{
    config::Filter,
    event::state,
    queued::{Flowing, Queueing, Record as _},
    socket::Socket,
};

use super::args::{FILTERS, SocketArgs, check_privileges, interval, port, process_exists};
use crate::{
    clock::{Clock, wall_ahead_of_monotonic},
    event::names,
    holders,
    kernel::{self, Found, Kernel, LOOK_AT_OTHERS, drop_all_but_bpf},
    netns,
    output::{Format, Line, say},
    view::sockets::{Listed, Queues, QueuesTable, Row, json, lines, rows},
    watch,
};

/// Show the TCP sockets that exist now, and every process that holds them.
///
/// One line a socket, in every network namespace: its state; RECV-Q and SEND-Q as `ss` has them, which are bytes that
/// nobody read and bytes that the peer did not acknowledge, or, of a listener, how many connections wait for accept(2) and
/// how many may; SYN-Q, how many are half-open and how many may be; both ends; its network namespace, user, inode and
/// cookie (the number that events name it by); and its holders: each process and descriptor. A connection without a
/// holder waits in the accept queue, or its last holder has closed it. "-" is nothing, or unknown.
///
/// A listener comes first, then what belongs to its port: half-open connections (NEW_SYN_RECV), those that wait for
/// accept(2), the others, TIME_WAIT. Connections to other listeners come after, by the port that they went to.
///
/// --queues shows instead where the data of each connection is. Received: SKBS wait to be read, OOO came before their turn,
/// BACKLOG came while a process held the socket; RMEM is their memory. To be sent: UNSENT bytes are written and not sent,
/// FLIGHT bytes are sent and not acknowledged, the oldest AGE milliseconds ago; WMEM is their memory. With --interval WAIT
/// is how long, in milliseconds, a byte waited there on average; ">" is how long nothing has left it. Where RECV-Q grows,
/// the process here does not read; where UNSENT grows and "the peer's window is closed", the process there does not.
/// docs/sockets-queues.md explains each.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    sudo socklife sockets                           every socket of every network namespace\n  \
    sudo socklife sockets --lport 443               a listener, with all that belongs to it\n  \
    sudo socklife sockets --state close-wait        what the peer closed, and who forgot to\n  \
    sudo socklife sockets --state listen --pid 41   what a process listens on\n  \
    sudo socklife sockets -o json --netns web       one JSON object a line\n  \
    sudo socklife sockets --queues --lport 443      where the data of a server's connections is\n  \
    sudo socklife sockets --queues --interval 1s    … and how long it waits there")]
pub struct Sockets {
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// Show what the queues of each connection hold: how many sk_buffs, bytes and memory, and which end is waited for.
    #[arg(long)]
    queues: bool,

    /// With --queues: show it after each interval, with how long data waited in each queue. Seconds, or 10s, 500ms, 2m.
    #[arg(long, value_name = "TIME", value_parser = interval, requires = "queues")]
    interval: Option<Duration>,

    /// End after so many intervals; without it Ctrl-C ends it.
    #[arg(long, value_name = "N", requires = "interval", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Sockets that this process holds a descriptor of.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304), help_heading = FILTERS)]
    pid: Option<u32>,

    #[command(flatten)]
    sockets: SocketArgs,

    /// The other end has this port.
    #[arg(long, value_name = "PORT", value_parser = port, help_heading = FILTERS)]
    rport: Option<u16>,

    /// Only in these states, separated by commas: listen, established, time-wait, close-wait, … syn-recv are the
    /// half-open ones.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = states, help_heading = FILTERS)]
    states: Vec<u32>,
}

impl Sockets {
    pub fn run(self) -> Result<ExitCode> {
        let filter = self.filter()?;
        check_privileges()?;
        match self.interval {
            Some(interval) => self.watch(&filter, interval)?,
            None if self.queues => {
                let found =
                    kernel::Sockets::open(&Kernel::running()?, &filter, &[Queueing::PROGRAM])?.list::<Queueing>()?;
                let found = found.map(|record| Queues {
                    record,
                    wall_ahead: wall_ahead_of_monotonic(),
                    dwell: None,
                });
                self.show(&found, |rows| QueuesTable::new(false).lines(rows))?;
            }
            None => {
                let found =
                    kernel::Sockets::open(&Kernel::running()?, &filter, &[Socket::PROGRAM])?.list::<Socket>()?;
                self.show(&found, lines)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What there is now.
    fn show<T: Listed>(&self, found: &Found<T>, lines: impl FnOnce(&[Row<'_>]) -> Vec<String>) -> Result<()> {
        let held = holders_of(&found.all);
        let rows = rows(&found.all, &held.by_inode, self.pid);
        let mut out = Vec::new();
        match self.output {
            Format::Text => {
                for line in lines(&rows) {
                    writeln!(out, "{line}")?;
                }
            }
            Format::Json => {
                let (time_ns, mut wall) = (found.time_ns, String::new());
                Clock::new().rfc3339(time_ns, &mut wall);
                for row in &rows {
                    json(row, Line { time_ns, wall: &wall }, &mut out)?;
                }
            }
        }
        write(&out)?;
        tell_missing(&found.closed, &held);
        Ok(())
    }

    /// What there is after each interval, and how long data waited in it.
    fn watch(&self, filter: &Filter, interval: Duration) -> Result<()> {
        let mut sockets = kernel::Sockets::open(&Kernel::running()?, filter, &[Flowing::PROGRAM, Queueing::PROGRAM])?;
        let shown = watch::Shown {
            format: self.output,
            interval,
            count: self.count,
        };
        drop_all_but_bpf(&needed_to_go_on(filter.netns)).context("cannot go on with fewer privileges")?;
        let mut told = false;
        watch::run(&mut sockets, shown, |found, show| {
            let held = holders_of(&found.all);
            if !std::mem::replace(&mut told, true) {
                tell_missing(&found.closed, &held);
            }
            show(&rows(&found.all, &held.by_inode, self.pid))
        })
    }

    fn filter(&self) -> Result<Filter> {
        if let Some(pid) = self.pid {
            process_exists(pid)?;
        }
        Ok(Filter {
            rport: self.rport.unwrap_or(0),
            states: self.states.iter().fold(0, |all, states| all | states),
            ..self.sockets.filter()?
        })
    }
}

/// What it takes to look again: at others' descriptors, and, unless only this process's own network namespace is looked at,
/// to enter another.
fn needed_to_go_on(netns: u32) -> Vec<Capability> {
    let mut needed = LOOK_AT_OTHERS.to_vec();
    if netns == 0 || !netns::is_own(netns) {
        needed.push(Capability::CAP_SYS_ADMIN);
    }
    needed
}

/// Every descriptor of these sockets.
fn holders_of<T: Listed>(all: &[T]) -> holders::Found {
    let inodes: HashSet<_> = all
        .iter()
        .map(|listed| listed.socket().inode)
        .filter(|inode| *inode != 0)
        .collect();
    holders::find(&inodes)
}

fn write(out: &[u8]) -> Result<()> {
    io::stdout()
        .write_all(out)
        .or_else(|error| match error.kind() {
            // Whoever read has seen enough.
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })
        .context("cannot write to standard output")
}

/// Says what is not in the list.
fn tell_missing(closed: &[u32], held: &holders::Found) {
    if !closed.is_empty() {
        let names: Vec<_> = closed.iter().map(ToString::to_string).collect();
        say!(
            "socklife: sockets of network namespaces that may not be entered (CAP_SYS_ADMIN) are not shown: {}",
            names.join(", ")
        );
    }
    if held.hidden > 0 {
        say!(
            "socklife: {} processes do not show their descriptors (CAP_SYS_PTRACE): holders may be missing",
            held.hidden
        );
    }
    if held.cut {
        say!("socklife: too many descriptors on this machine to look at each: holders may be missing");
    }
}

/// Every state, by its number.
const STATES: std::ops::RangeInclusive<u32> = state::ESTABLISHED..=state::NEW_SYN_RECV;

/// The bits of a state: named as the kernel does, or as `ss` does.
fn states(text: &str) -> Result<u32, String> {
    let name = text.to_uppercase().replace('-', "_");
    let Some(number) = STATES.into_iter().find(|number| names::state(*number) == name) else {
        let names: Vec<_> = STATES
            .map(|number| names::state(number).to_lowercase().replace('_', "-"))
            .collect();
        return Err(format!("no such state; there are {}", names.join(", ")));
    };
    Ok(match number {
        // A `request_sock`, or with TCP Fast Open a sock.
        state::SYN_RECV => 1 << state::SYN_RECV | 1 << state::NEW_SYN_RECV,
        number => 1 << number,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use socklife_abi::event::state;

    use super::{Sockets, states};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        sockets: Sockets,
    }

    #[test]
    fn states_have_the_names_of_the_kernel_and_of_ss() {
        assert_eq!(states("listen"), Ok(1 << state::LISTEN));
        for name in ["TIME_WAIT", "time-wait", "Time_Wait"] {
            assert_eq!(states(name), Ok(1 << state::TIME_WAIT), "{name}");
        }
        assert_eq!(states("syn-recv"), Ok(1 << state::SYN_RECV | 1 << state::NEW_SYN_RECV));
        assert_eq!(states("new_syn_recv"), Ok(1 << state::NEW_SYN_RECV));
        let error = states("UNKNOWN").expect_err("none");
        assert!(error.contains("fin-wait1") && error.contains("new-syn-recv"), "{error}");
        assert!(states("").is_err());
    }

    #[test]
    fn intervals_are_for_queues_and_counts_for_intervals() {
        let parsed = |arguments: &[&str]| Arguments::try_parse_from([&["sockets"], arguments].concat());
        let watching = parsed(&["--queues", "--interval", "500ms", "--count", "3"]).expect("they go together");
        assert_eq!(watching.sockets.interval, Some(Duration::from_millis(500)));
        assert_eq!(watching.sockets.count, Some(3));
        for wrong in [
            &["--interval", "1s"][..],
            &["--queues", "--count", "3"],
            &["--queues", "--interval", "1ms"],
            &["--queues", "--interval", "1s", "--count", "0"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn several_states_are_one_filter() {
        let arguments = [
            "sockets",
            "--state",
            "listen,established",
            "--state",
            "closing",
            "--rport",
            "80",
        ];
        let sockets = Arguments::parse_from(arguments).sockets;
        let filter = sockets.filter().expect("a filter");
        let expected = 1 << state::LISTEN | 1 << state::ESTABLISHED | 1 << state::CLOSING;
        assert_eq!((filter.states, filter.rport), (expected, 80));
        let filter = Arguments::parse_from(["sockets"]).sockets.filter().expect("a filter");
        assert_eq!(filter.states, 0, "all");
    }
}
