use serde::{Serialize, Serializer, ser::SerializeMap};
use socklife_abi::skb::{CallerTally, ConnectionTally};

use super::{Block, mean};
use crate::{
    event::{FieldDoc, address},
    model::skbs::Counted,
    output::Line,
};

/// The fields of a `skb_caller` line.
pub const CALLER_FIELDS: &[FieldDoc] = &[
    (
        "caller",
        "the function that allocates, or its address where the kernel does not tell names; absent where it is unknown",
    ),
    ("interval_ns", "length of the interval; absent in the first block"),
    ("allocated_in_interval", "allocations in the interval"),
    ("allocated", "allocations since the start"),
    ("freed", "how many of these are gone"),
    ("alive", "how many are not"),
    (
        "bytes",
        "bytes of data that were asked for; absent with tracepoints alone",
    ),
    ("truesize", "sum of `sk_buff.truesize` at the allocation"),
    ("truesize_alive", "the part of it that is alive"),
    (
        "lifetime_mean_ns",
        "mean lifetime of those that are gone; absent without any",
    ),
];

/// The fields of a `skb_total` line.
pub const TOTAL_FIELDS: &[FieldDoc] = &[
    ("connections", "connections seen since the start, both ends"),
    (
        "pairs",
        "`true` where an `sk_buff` and its first clone count as one (tracepoints alone)",
    ),
];

/// The fields of a `skb_connection` line.
pub const CONNECTION_FIELDS: &[FieldDoc] = &[
    ("cookie", "the kernel's socket cookie"),
    ("netns", "inode of the network namespace"),
    ("family", "4 or 6: the protocol on the wire"),
    ("laddr", "address of this end"),
    ("lport", "port of this end"),
    ("raddr", "address of the other end"),
    ("rport", "port of the other end"),
    ("closed", "`true`: the socket is gone"),
    ("interval_ns", "length of the interval; absent in the first block"),
    (
        "got_in_interval",
        "what the connection got in the interval, wherever from",
    ),
    ("sent", "allocated for what the socket sends"),
    ("received", "allocated by a driver, and taken by the socket"),
    (
        "arrived",
        "allocated for another connection's end, and taken by this one: loopback",
    ),
    ("passed", "taken by another connection's end"),
    ("freed", "gone"),
    ("alive", "`sent` + `received` + `arrived` − `passed` − `freed`"),
    (
        "bytes",
        "bytes of data that were asked for; absent with tracepoints alone",
    ),
    ("truesize", "sum of `sk_buff.truesize` at the allocation"),
    (
        "lifetime_mean_ns",
        "mean lifetime of those that are gone; absent without any",
    ),
];

struct Caller<'a> {
    name: Option<&'a str>,
    counted: &'a Counted<CallerTally>,
    block: &'a Block<'a>,
}

impl Serialize for Caller<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tally = &self.counted.tally;
        let mut map = serializer.serialize_map(None)?;
        match self.name {
            Some("?") => {}
            Some(name) => map.serialize_entry("caller", name)?,
            None => {
                map.serialize_entry("connections", &self.block.connections_seen)?;
                if self.block.pairs {
                    map.serialize_entry("pairs", &true)?;
                }
            }
        }
        if let Some(interval_ns) = self.block.interval_ns {
            map.serialize_entry("interval_ns", &interval_ns)?;
        }
        map.serialize_entry("allocated_in_interval", &self.counted.in_interval())?;
        map.serialize_entry("allocated", &tally.allocated)?;
        map.serialize_entry("freed", &tally.freed)?;
        map.serialize_entry("alive", &tally.alive())?;
        if !self.block.pairs {
            map.serialize_entry("bytes", &tally.bytes)?;
        }
        map.serialize_entry("truesize", &tally.truesize)?;
        map.serialize_entry("truesize_alive", &tally.truesize.saturating_sub(tally.truesize_freed))?;
        if let Some(mean) = mean(tally.lifetime_ns, tally.freed) {
            map.serialize_entry("lifetime_mean_ns", &mean)?;
        }
        map.end()
    }
}

struct Connection<'a> {
    counted: &'a Counted<ConnectionTally>,
    block: &'a Block<'a>,
}

impl Serialize for Connection<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tally = &self.counted.tally;
        let mut map = serializer.serialize_map(None)?;
        if tally.cookie != 0 {
            map.serialize_entry("cookie", &tally.cookie)?;
        }
        map.serialize_entry("netns", &tally.netns)?;
        map.serialize_entry("family", &tally.family)?;
        map.serialize_entry("laddr", &address(tally.saddr, tally.family))?;
        map.serialize_entry("lport", &tally.sport)?;
        // A listener has no other end.
        if tally.dport != 0 {
            map.serialize_entry("raddr", &address(tally.daddr, tally.family))?;
            map.serialize_entry("rport", &tally.dport)?;
        }
        if tally.closed != 0 {
            map.serialize_entry("closed", &true)?;
        }
        if let Some(interval_ns) = self.block.interval_ns {
            map.serialize_entry("interval_ns", &interval_ns)?;
        }
        map.serialize_entry("got_in_interval", &self.counted.in_interval())?;
        for (name, value) in [
            ("sent", tally.sent),
            ("received", tally.received),
            ("arrived", tally.arrived),
            ("passed", tally.passed),
            ("freed", tally.freed),
            ("alive", tally.alive()),
        ] {
            map.serialize_entry(name, &value)?;
        }
        if !self.block.pairs {
            map.serialize_entry("bytes", &tally.bytes)?;
        }
        map.serialize_entry("truesize", &tally.truesize)?;
        if let Some(mean) = mean(tally.lifetime_ns, tally.freed) {
            map.serialize_entry("lifetime_mean_ns", &mean)?;
        }
        map.end()
    }
}

/// A line for each caller and each connection that something happened to, and one for the total.
pub fn json(block: &Block<'_>, line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    for (name, counted) in &block.callers {
        let name = Some(*name);
        line.write("skb_caller", &Caller { name, counted, block }, out)?;
    }
    for counted in &block.connections {
        line.write("skb_connection", &Connection { counted, block }, out)?;
    }
    let total = Caller {
        name: None,
        counted: &block.total,
        block,
    };
    line.write("skb_total", &total, out)
}
