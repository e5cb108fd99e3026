use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{BY_FASTOPEN, DEFERRED, SynackRetransmitted};

use super::{
    Describe, FieldDoc, Millis, known,
    queues::{self, queue_fields},
};

impl Describe for SynackRetransmitted {
    const MEANING: &'static str = "A SYN-ACK was sent again: no final ACK came, it met a full accept queue, or accept was \
                                   deferred (`accept_deferred`).";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        (
            "half_open_ns",
            "since `syn_queued`; with TCP Fast Open since `accept_queued`"
        ),
        ("retransmit", "which retransmission; 1 is the first"),
        (
            "deferred",
            "true: its final ACK came, and the time for which accept is deferred is over; absent otherwise"
        ),
        (
            "by",
            "`fastopen`: for a child of TCP Fast Open, which is in the accept queue, or accepted; absent otherwise"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.half_open_ns) {
            map.serialize_entry("half_open_ns", &ns)?;
        }
        map.serialize_entry("retransmit", &self.retransmit)?;
        if self.flags & DEFERRED != 0 {
            map.serialize_entry("deferred", &true)?;
        }
        if self.flags & BY_FASTOPEN != 0 {
            map.serialize_entry("by", "fastopen")?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "no. {}", self.retransmit)?;
        if let Some(ns) = known(self.half_open_ns) {
            write!(out, ", half-open for {}", Millis(ns))?;
        }
        if self.flags & BY_FASTOPEN != 0 {
            out.write_str(", by fastopen")?;
        }
        if self.flags & DEFERRED != 0 {
            out.write_str(", its ACK came: accept is deferred")?;
        }
        Ok(())
    }
}
