use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::SndbufLimited;

use super::{Describe, FieldDoc, Millis, known, names::Errno};

impl Describe for SndbufLimited {
    const MEANING: &'static str = "A writer had to wait for room in the send buffer, or was told to come again.";
    const TASK: Option<&'static str> = Some("the one that waits");
    const FIELDS: &'static [FieldDoc] = &[
        ("waited_ns", "how long it waited; told when the wait is over"),
        (
            "errno",
            "why there still is no room: `EAGAIN`, `EPIPE`, …; absent where there is",
        ),
        (
            "wmem_queued",
            "`sk_wmem_queued`: memory of its send queue, in bytes, after the wait",
        ),
        ("sndbuf", "`sk_sndbuf`: its limit"),
        (
            "unacknowledged",
            "bytes that were written and not acknowledged, after the wait",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if let Some(ns) = known(self.waited_ns) {
            map.serialize_entry("waited_ns", &ns)?;
        }
        if self.errno != 0 {
            map.serialize_entry("errno", &Errno(self.errno))?;
        }
        map.serialize_entry("wmem_queued", &self.wmem_queued)?;
        map.serialize_entry("sndbuf", &self.sndbuf)?;
        map.serialize_entry("unacknowledged", &self.unacknowledged)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match known(self.waited_ns) {
            Some(ns) => write!(out, "waited {}", Millis(ns))?,
            None => out.write_str("waited since before the trace")?,
        }
        if self.errno != 0 {
            write!(out, ", {}", Errno(self.errno))?;
        }
        write!(
            out,
            ", memory {} of {}, {} unacknowledged",
            self.wmem_queued, self.sndbuf, self.unacknowledged
        )
    }
}
