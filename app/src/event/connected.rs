use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Connected;

use super::{Describe, FieldDoc, Millis, known};

impl Describe for Connected {
    const MEANING: &'static str = "The connecting side finished the handshake.";
    const TASK: Option<&'static str> = Some(
        "the one in whose call the SYN-ACK was taken, which is the one that connects; absent where that was in softirq",
    );
    const FIELDS: &'static [FieldDoc] = &[("handshake_ns", "since `connect`")];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match known(self.handshake_ns) {
            Some(ns) => map.serialize_entry("handshake_ns", &ns),
            None => Ok(()),
        }
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match known(self.handshake_ns) {
            Some(ns) => write!(out, "after {}", Millis(ns)),
            None => Ok(()),
        }
    }
}
