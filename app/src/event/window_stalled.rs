use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::WindowStalled;

use super::{Describe, FieldDoc};

impl Describe for WindowStalled {
    const MEANING: &'static str =
        "The peer does not read: its window has no room for what waits to be sent, and a window probe is due.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        ("unsent", "bytes that were written and not sent"),
        ("window", "the window that the peer offered last, in bytes"),
        ("probes", "window probes that were sent and not answered"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("unsent", &self.unsent)?;
        map.serialize_entry("window", &self.window)?;
        map.serialize_entry("probes", &self.probes)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{} bytes wait, the peer's window is {}", self.unsent, self.window)?;
        match self.probes {
            0 => Ok(()),
            n => write!(out, ", {n} probes without an answer"),
        }
    }
}
