use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Exited;

use super::{Describe, FieldDoc};

impl Describe for Exited {
    const MEANING: &'static str =
        "A process that holds sockets ends: its last thread does. What it still has is closed.";
    const TASK: Option<&'static str> = Some("the one that ends");
    const FIELDS: &'static [FieldDoc] = &[
        ("status", "the exit code; absent after a signal"),
        ("signal", "the signal that ended it, by number"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self.status & 0x7f {
            0 => map.serialize_entry("status", &(self.status >> 8)),
            signal => map.serialize_entry("signal", &signal),
        }
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.status & 0x7f {
            0 => write!(out, "status {}", self.status >> 8),
            signal => write!(out, "signal {signal}"),
        }
    }
}
