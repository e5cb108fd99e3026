//! A listener as one JSON line: the fields of the event `listener`, and more.

use serde::{Serialize, Serializer, ser::SerializeMap};
use socklife_abi::event as abi;

use super::row::{Row, Wait};
use crate::{
    event::{Describe as _, FieldDoc},
    model::{Acceptor, Summary},
    output::{Comm, Line},
};

/// The fields beside those of the event `listener`.
pub const FIELDS: &[FieldDoc] = &[
    ("netns", "inode of the network namespace"),
    ("family", "4 or 6: the listener's own"),
    (
        "laddr",
        "what it is bound to; without `bound`, where a connection came in",
    ),
    ("lport", "its port"),
    ("bound", "`true` where `laddr` is what it is bound to"),
    (
        "group",
        "`true`: nobody knows which listener on this address it was, or whether there is but one",
    ),
    ("closed", "`true`: it was closed in this interval"),
    (
        "pid",
        "who called listen(2); for a listener that is older than the trace, its oldest holder",
    ),
    ("comm", "the name of that process"),
    ("more_holders", "other processes that held it when the trace began"),
    ("backlog_asked", "the backlog that listen(2) was called with"),
    (
        "interval_ns",
        "length of the interval; absent, as are its counts, in the first lines, which come at once",
    ),
    (
        "syns",
        "SYNs in the interval: taken, answered with a cookie, or refused",
    ),
    ("accepts", "connections that accept(2) took in the interval"),
    (
        "accepts_unseen",
        "connections that left the accept queue in the interval without an accept(2) that was seen: how long they waited \
         is unknown; absent for none",
    ),
    ("refused", "SYNs and final ACKs that were refused in the interval"),
    ("half_open_count", "handshakes that were done in the interval"),
    ("half_open_p50_ns", "their time in the SYN queue: median"),
    ("half_open_p99_ns", "… 99th percentile"),
    ("half_open_max_ns", "… maximum"),
    (
        "accept_wait_count",
        "accepted connections of the interval whose wait is known",
    ),
    ("accept_wait_p50_ns", "their time in the accept queue: median"),
    ("accept_wait_p99_ns", "… 99th percentile"),
    ("accept_wait_max_ns", "… maximum"),
    (
        "oldest_wait_ns",
        "how long the first in the accept queue has waited; absent where nobody waits, or nobody knows",
    ),
    (
        "acceptors",
        "who accepted since the start: a list of `pid`, `comm` and `accepted`, most first",
    ),
];

struct Fields<'a>(&'a Row<'a>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Row {
            listener,
            owner,
            recent,
            oldest,
            ..
        } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("netns", &listener.netns)?;
        if let Some(address) = self.0.address() {
            map.serialize_entry("family", &if address.is_ipv4() { 4 } else { 6 })?;
            map.serialize_entry("laddr", &address)?;
        }
        map.serialize_entry("lport", &listener.port)?;
        for (name, value) in [
            ("bound", listener.bound.is_some()),
            ("group", listener.group),
            ("closed", listener.closed),
        ] {
            if value {
                map.serialize_entry(name, &true)?;
            }
        }
        if let Some((process, more)) = owner {
            map.serialize_entry("pid", &process.pid)?;
            map.serialize_entry("comm", &Comm(process.comm).to_string())?;
            if *more > 0 {
                map.serialize_entry("more_holders", more)?;
            }
        }
        if let Some(asked) = listener.asked {
            map.serialize_entry("backlog_asked", &asked)?;
        }
        if let Some(recent) = recent {
            map.serialize_entry("interval_ns", &recent.interval_ns)?;
            map.serialize_entry("syns", &recent.syns)?;
            map.serialize_entry("accepts", &recent.accepts)?;
            if recent.unseen > 0 {
                map.serialize_entry("accepts_unseen", &recent.unseen)?;
            }
            map.serialize_entry("refused", &recent.refused)?;
        }
        waits(&mut map, HALF_OPEN, listener.half_open.recent())?;
        waits(&mut map, ACCEPT_WAIT, listener.accept.recent())?;
        if let Wait::For(ns) = oldest {
            map.serialize_entry("oldest_wait_ns", ns)?;
        }
        let acceptors = listener.acceptors.ranked();
        if !acceptors.is_empty() {
            let acceptors: Vec<_> = acceptors.iter().map(By::from).collect();
            map.serialize_entry("acceptors", &acceptors)?;
        }
        abi::Listener::json(&self.0.counted(), &mut map)?;
        map.end()
    }
}

const HALF_OPEN: [&str; 4] = [
    "half_open_count",
    "half_open_p50_ns",
    "half_open_p99_ns",
    "half_open_max_ns",
];
const ACCEPT_WAIT: [&str; 4] = [
    "accept_wait_count",
    "accept_wait_p50_ns",
    "accept_wait_p99_ns",
    "accept_wait_max_ns",
];

fn waits<M: SerializeMap>(map: &mut M, names: [&str; 4], summary: Option<Summary>) -> Result<(), M::Error> {
    if let Some(summary) = summary {
        let values = [summary.count, summary.p50, summary.p99, summary.max];
        for (name, value) in names.into_iter().zip(values) {
            map.serialize_entry(name, &value)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct By {
    pid: u32,
    comm: String,
    accepted: u64,
}

impl From<&Acceptor> for By {
    fn from(acceptor: &Acceptor) -> Self {
        Self {
            pid: acceptor.process.pid,
            comm: Comm(acceptor.process.comm).to_string(),
            accepted: acceptor.accepted,
        }
    }
}

/// The line of a listener.
pub fn json(row: &Row<'_>, line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    line.write("queues", &Fields(row), out)
}
