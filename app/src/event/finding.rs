use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Finding, finding};

use super::{
    Describe, FieldDoc, Millis,
    holder::{Fd, Named},
    names::numbered,
};

impl Describe for Finding {
    const MEANING: &'static str =
        "Something is wrong with who holds a socket, and has been so for a second, or a process ended so.";
    const TASK: Option<&'static str> =
        Some("of `connected_to_itself` the one in whose call that happened, where it was in one; absent otherwise");
    const FIELDS: &'static [FieldDoc] = &[
        (
            "finding",
            "`listener_held`: children serve connections and still hold the listener they came from, which keeps the port after the parent is gone: told once for each listener; `never_closed`: who accepted or opened the connection gave it away and never closed its copy, so that the peer sees no end; `kept_open`: a process that never touched the connection keeps it open (a helper that was forked without close-on-exec); `zombie`: a child ended and its parent did not wait for it, and is still there; `connected_to_itself`: nobody listens on the port, and the kernel chose it as this end's port, so that the connection has one end and echoes what is sent",
        ),
        (
            "holder",
            "who is to blame, or the child: an object with `pid`, `comm` and `fd`",
        ),
        (
            "other",
            "who had the socket before, or used it last, or the parent: likewise",
        ),
        ("since_ns", "for how long it has been so"),
        (
            "count",
            "of `listener_held`: how many children there are by now; `holder` is the first",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("finding", numbered(&finding::NAMES, self.what))?;
        if self.holder.pid != 0 {
            map.serialize_entry("holder", &Named(self.holder))?;
        }
        if self.other.pid != 0 {
            map.serialize_entry("other", &Named(self.other))?;
        }
        map.serialize_entry("since_ns", &self.since_ns)?;
        if self.what == finding::LISTENER_HELD {
            map.serialize_entry("count", &self.count)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.what == finding::CONNECTED_TO_ITSELF {
            return out.write_str("connected to itself: nobody listens on this port, both ends are one socket");
        }
        let (holder, fd, other) = (Named(self.holder), Fd(self.holder.fd), Named(self.other));
        match self.what {
            finding::LISTENER_HELD => write!(out, "child {holder} still holds the listener{fd} of {other}"),
            finding::NEVER_CLOSED => write!(out, "{holder} never closed{fd}, which {other} is done with"),
            finding::KEPT_OPEN => write!(
                out,
                "{holder} keeps{fd} open and never touched it; {other} is done with it"
            ),
            finding::ZOMBIE => write!(out, "{holder} is a zombie: {other} did not wait for it"),
            other => write!(out, "{}", numbered(&finding::NAMES, other)),
        }?;
        write!(out, ", for {}", Millis(self.since_ns))?;
        if self.count > 1 {
            write!(out, ", the first of {}", self.count)?;
        }
        Ok(())
    }
}
