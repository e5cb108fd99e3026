use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{AcceptQueued, BY_COOKIE, BY_FASTOPEN};

use super::{
    Describe, FieldDoc, Millis, known,
    queues::{self, queue_fields},
};

/// What stood in for the SYN queue.
fn by(queued: &AcceptQueued) -> Option<&'static str> {
    if queued.flags & BY_COOKIE != 0 {
        Some("cookie")
    } else if queued.flags & BY_FASTOPEN != 0 {
        Some("fastopen")
    } else {
        None
    }
}

impl Describe for AcceptQueued {
    const MEANING: &'static str = "The handshake is done: the child left the SYN queue and waits in the accept queue. \
                                   With TCP Fast Open it is queued before the handshake ends.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("half_open_ns", "time in the SYN queue, since `syn_queued`"),
        (
            "deferred_ns",
            "how much of that was after the final ACK, for accept was deferred (`accept_deferred`); absent otherwise"
        ),
        (
            "by",
            "`cookie` or `fastopen`: it never stood in the SYN queue; absent for an ordinary handshake"
        ),
        (
            "refusals",
            "how often its final ACK met a full accept queue before; absent for never"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.half_open_ns) {
            map.serialize_entry("half_open_ns", &ns)?;
        }
        if let Some(ns) = known(self.deferred_ns) {
            map.serialize_entry("deferred_ns", &ns)?;
        }
        if let Some(by) = by(self) {
            map.serialize_entry("by", by)?;
        }
        if self.refusals != 0 {
            map.serialize_entry("refusals", &self.refusals)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "accept queue {}", queues::accept(&self.queues))?;
        if let Some(ns) = known(self.half_open_ns) {
            write!(out, ", half-open for {}", Millis(ns))?;
        }
        if let Some(ns) = known(self.deferred_ns) {
            write!(out, ", of that deferred for {}", Millis(ns))?;
        }
        if let Some(by) = by(self) {
            write!(out, ", by {by}")?;
        }
        if self.refusals != 0 {
            write!(out, ", final ACK refused {}×", self.refusals)?;
        }
        Ok(())
    }
}
