use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{AcceptRefused, REFUSED_COOKIE, REFUSED_IGNORED, REFUSED_RESET};

use super::{
    Describe, FieldDoc, Millis, known,
    queues::{self, queue_fields},
};

/// What the kernel did with the ACK.
fn answer(refused: &AcceptRefused) -> &'static str {
    match refused.how {
        REFUSED_IGNORED | REFUSED_COOKIE => "ignored",
        REFUSED_RESET => "reset",
        _ => "unknown",
    }
}

impl Describe for AcceptRefused {
    const MEANING: &'static str = "The final ACK of a handshake met a full accept queue. Told once for a connection; \
                                   how often it happened stands in `refusals` of its `accept_queued` or \
                                   `half_open_ended`.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("half_open_ns", "since `syn_queued`"),
        (
            "answer",
            "`ignored`: the client believes that it is connected, and the SYN-ACK is sent again; `reset`: \
             `net.ipv4.tcp_abort_on_overflow` is on"
        ),
        (
            "by",
            "`cookie` where the ACK brought back a SYN cookie; absent otherwise"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.half_open_ns) {
            map.serialize_entry("half_open_ns", &ns)?;
        }
        map.serialize_entry("answer", answer(self))?;
        if self.how == REFUSED_COOKIE {
            map.serialize_entry("by", "cookie")?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}, accept queue {}", answer(self), queues::accept(&self.queues))?;
        if let Some(ns) = known(self.half_open_ns) {
            write!(out, ", half-open for {}", Millis(ns))?;
        }
        Ok(())
    }
}
