use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{HalfOpenEnded, ending};

use super::{
    Describe, FieldDoc, Millis, known,
    names::numbered,
    queues::{self, queue_fields},
};

impl Describe for HalfOpenEnded {
    const MEANING: &'static str = "A half-open connection ended without a handshake, and left the SYN queue.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("half_open_ns", "since `syn_queued`"),
        (
            "cause",
            "`expired` (no final ACK), `reset` (by the peer), `listener_closed`, `accept_queue_full` (and \
             `net.ipv4.tcp_abort_on_overflow` is on), `cancelled` (ICMP, `ss --kill`), or `unknown`"
        ),
        ("synacks", "SYN-ACKs that were sent"),
        (
            "refusals",
            "how often its final ACK met a full accept queue; absent for never"
        ),
        (
            "deferred",
            "true: its final ACK had come, and accept was deferred (`accept_deferred`); absent otherwise"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.half_open_ns) {
            map.serialize_entry("half_open_ns", &ns)?;
        }
        map.serialize_entry("cause", numbered(&ending::NAMES, self.cause))?;
        if self.synacks != 0 {
            map.serialize_entry("synacks", &self.synacks)?;
        }
        if self.refusals != 0 {
            map.serialize_entry("refusals", &self.refusals)?;
        }
        if self.deferred != 0 {
            map.serialize_entry("deferred", &true)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(numbered(&ending::NAMES, self.cause))?;
        if let Some(ns) = known(self.half_open_ns) {
            write!(out, " after {}", Millis(ns))?;
        }
        match self.synacks {
            0 => {}
            1 => out.write_str(", 1 SYN-ACK")?,
            n => write!(out, ", {n} SYN-ACKs")?,
        }
        if self.refusals != 0 {
            write!(out, ", final ACK refused {}×", self.refusals)?;
        }
        if self.deferred != 0 {
            out.write_str(", accept was deferred")?;
        }
        Ok(())
    }
}
