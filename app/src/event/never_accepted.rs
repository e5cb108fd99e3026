use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::NeverAccepted;

use super::{Describe, FieldDoc, Millis, known};

impl Describe for NeverAccepted {
    const MEANING: &'static str = "The listener was closed over a connection that waited in its accept queue: the peer \
                                   gets a reset. `pid` is the process that closed the listener.";
    const TASK: Option<&'static str> = Some("the one that closed the listener");
    const FIELDS: &'static [FieldDoc] = &[
        ("listener", "cookie of the listener"),
        ("accept_wait_ns", "time in the accept queue, since `accept_queued`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if self.listener != 0 {
            map.serialize_entry("listener", &self.listener)?;
        }
        if let Some(ns) = known(self.accept_wait_ns) {
            map.serialize_entry("accept_wait_ns", &ns)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(ns) = known(self.accept_wait_ns) {
            write!(out, "waited {}", Millis(ns))?;
        }
        Ok(())
    }
}
