use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::ResetReceived;

use super::{Describe, FieldDoc, names::state};

impl Describe for ResetReceived {
    const MEANING: &'static str = "A RST came, and ends the connection.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        ("state", "of the socket before"),
        ("unread", "bytes that were received and not read"),
        ("unacknowledged", "bytes that were written and not acknowledged"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("state", state(self.state))?;
        map.serialize_entry("unread", &self.unread)?;
        map.serialize_entry("unacknowledged", &self.unacknowledged)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(
            out,
            "in {}, {} unread, {} unacknowledged",
            state(self.state),
            self.unread,
            self.unacknowledged
        )
    }
}
