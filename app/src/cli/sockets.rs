//! `socklife sockets`: what exists now.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use socklife_abi::{config::Filter, event::state};

use super::args::{SocketArgs, check_privileges, process_exists};
use crate::{
    clock::Clock,
    event::names,
    holders,
    kernel::{self, Sockets as Found},
    output::{Format, Line},
    view::sockets::{json, lines, rows},
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
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    sudo socklife sockets                           every socket of every network namespace\n  \
    sudo socklife sockets --lport 443               a listener, with all that belongs to it\n  \
    sudo socklife sockets --state close-wait        what the peer closed, and who forgot to\n  \
    sudo socklife sockets --state listen --pid 41   what a process listens on\n  \
    sudo socklife sockets -o json --netns web       one JSON object a line")]
pub struct Sockets {
    /// Sockets that this process holds a descriptor of.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pid: Option<u32>,

    /// How to show them.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    sockets: SocketArgs,

    /// The other end has this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    rport: Option<u16>,

    /// Only in these states, separated by commas: listen, established, time-wait, close-wait, … syn-recv are the
    /// half-open ones.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = states)]
    states: Vec<u32>,
}

impl Sockets {
    pub fn run(self) -> Result<ExitCode> {
        let filter = self.filter()?;
        check_privileges()?;
        let Found { all, time_ns, closed } = kernel::list(&filter)?;
        let inodes: HashSet<_> = all
            .iter()
            .map(|socket| socket.inode)
            .filter(|inode| *inode != 0)
            .collect();
        let held = holders::find(&inodes);
        let rows = rows(&all, &held.by_inode, self.pid);
        let mut out = Vec::new();
        match self.output {
            Format::Text => {
                for line in lines(&rows) {
                    writeln!(out, "{line}")?;
                }
            }
            Format::Json => {
                let mut wall = String::new();
                Clock::new().rfc3339(time_ns, &mut wall);
                for row in &rows {
                    json(row, Line { time_ns, wall: &wall }, &mut out)?;
                }
            }
        }
        write(&out)?;
        tell_missing(&closed, &held);
        Ok(ExitCode::SUCCESS)
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
        eprintln!(
            "socklife: sockets of network namespaces that may not be entered (CAP_SYS_ADMIN) are not shown: {}",
            names.join(", ")
        );
    }
    if held.hidden > 0 {
        eprintln!(
            "socklife: {} processes do not show their descriptors (CAP_SYS_PTRACE): holders may be missing",
            held.hidden
        );
    }
    if held.cut {
        eprintln!("socklife: too many descriptors on this machine to look at each: holders may be missing");
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
