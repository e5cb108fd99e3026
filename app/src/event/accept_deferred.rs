use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::AcceptDeferred;

use super::{
    Describe, FieldDoc, Millis, known,
    queues::{self, queue_fields},
};

impl Describe for AcceptDeferred {
    const MEANING: &'static str = "The final ACK of a handshake came without data, and the listener waits for data \
                                   (`TCP_DEFER_ACCEPT`, tcp(7)): the connection stays in the SYN queue, and no ACK is lost. \
                                   Data brings it into the accept queue. Without any the SYN-ACK is sent again when the time \
                                   is over, and the ACK that answers it brings it there.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("half_open_ns", "what the handshake took: since `syn_queued`"),
        (
            "timeouts",
            "how long it may wait, in timeouts of the SYN-ACK: the first comes after a second, each other after twice the \
             time of the one before"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.half_open_ns) {
            map.serialize_entry("half_open_ns", &ns)?;
        }
        map.serialize_entry("timeouts", &self.timeouts)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(ns) = known(self.half_open_ns) {
            write!(out, "handshake {}, ", Millis(ns))?;
        }
        write!(out, "waits for data (TCP_DEFER_ACCEPT, {} timeouts)", self.timeouts)
    }
}
