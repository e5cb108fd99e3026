//! `socklife skb`: the sk_buffs of chosen connections.

mod allocs;
mod drops;
mod follow;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;

use super::args::{ConnectionArgs, TraceArgs, duration, interval};
use crate::output::Format;

/// Follow segments through the kernel's layers, or count what it drops (--drops) and allocates (--allocs).
///
/// A segment is followed from write(2) to the peer's read(2). The kernel keeps it in one buffer, and a `struct sk_buff`
/// tells where in that the data begins and how long it is. On the way down each layer pushes its header in front of the
/// data: `skb->data` moves back, into the headroom. On the way up each layer pulls its header off: `data` moves forward.
/// Nothing is copied between the layers.
///
/// For each segment there is a table with a line for each step: the function (or tracepoint) of the kernel, what its layer
/// calls the whole (data, segment, packet, frame), HEADROOM (`data - head`), LEN, the headers pushed (+) or pulled (-) since
/// the step before, and whether the buffer is still the same. The picture at the right is the buffer around `data`. Below
/// the table: how often the payload was copied on the way.
///
/// With --drops or --allocs nothing is followed: what the kernel drops is counted, by reason and place, or what it
/// allocates, by function and by connection, and how many are alive (docs/trouble.md, docs/skb-allocs.md).
///
/// Only segments with data are followed, so no bare ACKs. The programs for it run for each packet of the machine, and are
/// attached only while this command runs. Over loopback and veth one sk_buff goes all the way; of a connection to another
/// machine this end's part is seen. docs/skb.md explains the picture.
#[derive(Args, Debug)]
#[command(mut_arg("pid", |pid| pid.help("What this process writes").long_help(None)))]
#[command(after_help = "Examples:\n  \
    sudo socklife skb --port 8080                  the next five segments from or to this port\n  \
    sudo socklife skb --rport 443 --count 1        one segment that goes to, or comes from, an HTTPS server\n  \
    sudo socklife skb --netns web --pid 4242       what a process writes\n  \
    sudo socklife skb --port 8080 -o json          one JSON object a step, for a program to read\n  \
    sudo socklife skb --drops --interval 10        what is dropped, why and where, every ten seconds\n  \
    sudo socklife skb --allocs --lport 443         who allocates, and how many sk_buffs each connection has\n  \
    sudo socklife skb --allocs --each --port 8080  each allocation and its end")]
pub struct Skb {
    /// End after this many segments (without it 5; 0 goes on), or with --drops or --allocs after so many intervals (with
    /// --each: events).
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Count what is dropped, by reason and place, instead of following anything.
    #[arg(long, group = "counting", conflicts_with_all = ["rate", "pid"])]
    drops: bool,

    /// Count what is allocated, by function and by connection, instead of following anything.
    #[arg(long, group = "counting", conflicts_with_all = ["rate", "pid"])]
    allocs: bool,

    /// With --allocs: show each allocation and each end, of connections only, instead of counts.
    #[arg(long, requires = "allocs")]
    each: bool,

    /// With --drops or --allocs: length of an interval: seconds, or 10s, 500ms, 2m.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = interval, requires = "counting")]
    interval: Duration,

    /// Begin to follow no more segments than this in a second; what is left out is counted.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,

    /// End after this time, from "attached" on: 10s, 500ms, 2m, or seconds.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// How to show it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    connections: ConnectionArgs,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Skb {
    pub fn run(self) -> Result<ExitCode> {
        if self.drops {
            drops::run(&self)
        } else if self.allocs {
            allocs::run(&self)
        } else {
            follow::run(&self)
        }
    }
}
