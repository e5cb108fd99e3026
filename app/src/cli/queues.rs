//! `socklife queues`: each listener with its two queues.

use std::{collections::HashSet, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use socklife_abi::event::Kind;

use super::args::{
    SocketArgs, TraceArgs, check_privileges, drop_privileges, duration, interval, is_blind, self_check, tell_missing,
};
use crate::{
    event::{Detail, Event},
    holders,
    kernel::{Kernel, Losses, Tracer},
    output::Format,
    stream::{self, Check, Limits, Queues as Sink, Shown},
};

/// What is made of these.
const KINDS: &[Kind] = &[
    Kind::Listening,
    Kind::SynQueued,
    Kind::CookieSent,
    Kind::CookieAccepted,
    Kind::CookieRejected,
    Kind::SynRefused,
    Kind::HalfOpenEnded,
    Kind::AcceptDeferred,
    Kind::AcceptQueued,
    Kind::AcceptRefused,
    Kind::Accepted,
    Kind::AcceptFailed,
    Kind::NeverAccepted,
    Kind::Listener,
    // For the comparison with the kernel's counters.
    Kind::ConnectFailed,
];

/// Show each listener's two queues: how full they are, how long connections wait in each, and what is refused.
///
/// The kernel keeps two queues for a listener. A SYN puts a half-open connection into the SYN queue, where it waits for
/// the final ACK of its handshake: that is the network's time, and the client's. The ACK moves it to the accept queue,
/// where it waits until a process calls accept(2): that is your program's time. DEPTH is how many wait now, and how many
/// the queue takes; P50, P99 and MAX are how long those waited, in milliseconds, that left it in the interval; OLDEST is
/// how long the first in the accept queue has been waiting; REFUSED counts SYNs and final ACKs that were refused in the
/// interval, and NOTES says why, since the start.
///
/// On a terminal the table is drawn again in place; in a pipe there is a block for each interval. The first comes at
/// once, with every listener that exists. docs/queues.md explains both queues, and what to do about each cause.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    sudo socklife queues                       every listener, every second\n  \
    sudo socklife queues 10 6 --lport 443      one listener for a minute, in six blocks\n  \
    sudo socklife queues 1 0                   how full the queues are now, and no more\n  \
    sudo socklife queues --histogram 30 1      how long connections wait, in powers of two\n  \
    sudo socklife queues -o json --netns web   one JSON object for each listener and interval")]
pub struct Queues {
    /// Length of an interval: seconds, or 10s, 500ms, 2m.
    #[arg(default_value = "1", value_parser = interval)]
    interval: Duration,

    /// End after so many intervals (the first block, which comes at once, is before them); without it Ctrl-C ends it.
    count: Option<u64>,

    /// End after this time, from "attached" on: 10s, 500ms, 2m, or seconds. What has begun by then is shown.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Print histograms of the time in both queues at the end, for each listener.
    #[arg(long)]
    histogram: bool,

    /// How to show it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// Compare all that was counted with the kernel's own counters, after each interval and at the end.
    #[arg(long)]
    reconcile: bool,

    #[command(flatten)]
    sockets: SocketArgs,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Queues {
    pub fn run(self) -> Result<ExitCode> {
        let mut filter = self.sockets.filter()?;
        filter.events = Kind::set(KINDS);
        let wanted = self.trace.wanted(filter)?;
        check_privileges()?;
        let mut check = self_check(&wanted.filter, self.reconcile)?;
        let losses = Losses::default();
        let tracer = Tracer::start(&Kernel::running()?, &wanted, false)?;
        tell_missing(&tracer);
        if let Some(check) = &mut check {
            check.begin(&tracer.counters)?;
        }
        // Before any event: what those say of a listener without its cookie is found by its address.
        let there = tracer.counters.listeners()?;
        let holders = holders::find(&older(&there)).in_short();
        drop_privileges(false)?;
        let shown = Shown {
            format: self.output,
            interval: self.interval,
            count: self.count,
            histogram: self.histogram,
            reconcile: self.reconcile,
        };
        let sink = Sink::start(shown, &there, holders, check.as_ref())?;
        let check = Check {
            check: check.as_ref(),
            all: self.reconcile,
            blind: is_blind(&tracer),
            balance: None,
        };
        let limits = Limits {
            duration: self.duration,
            ..Limits::default()
        };
        stream::run(tracer, sink, &losses, limits, &check)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The sockets of listeners that are older than the trace: nobody told who called listen(2).
fn older(listeners: &[Event]) -> HashSet<u64> {
    let inodes = listeners.iter().filter_map(|event| match event.detail {
        Detail::Listener(listener) if listener.before != 0 && listener.inode != 0 => Some(listener.inode),
        _ => None,
    });
    inodes.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::Queues;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        queues: Queues,
    }

    fn parsed(arguments: &[&str]) -> Option<(Duration, Option<u64>)> {
        let line = Line::try_parse_from([&["queues"], arguments].concat()).ok()?;
        Some((line.queues.interval, line.queues.count))
    }

    #[test]
    fn interval_and_count_stand_in_their_places() {
        let seconds = Duration::from_secs;
        assert_eq!(parsed(&[]), Some((seconds(1), None)));
        assert_eq!(parsed(&["10"]), Some((seconds(10), None)));
        assert_eq!(parsed(&["2m", "6", "--lport", "443"]), Some((seconds(120), Some(6))));
        assert_eq!(parsed(&["--duration", "3s"]), Some((seconds(1), None)));
        assert_eq!(parsed(&["0.5", "0"]), Some((Duration::from_millis(500), Some(0))));
        for wrong in [
            &["0"][..],
            &["-1"],
            &["9d"],
            &["soon"],
            &["1", "some"],
            &["1", "1", "1"],
            &["--duration", "soon"],
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
