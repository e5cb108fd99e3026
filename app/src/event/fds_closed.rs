use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::FdsClosed;

use super::{Describe, FieldDoc};

impl Describe for FdsClosed {
    const MEANING: &'static str = "close_range(2) of a process that holds sockets; `fd_closed` tells which.";
    const TASK: Option<&'static str> = Some("the one that called close_range(2)");
    const FIELDS: &'static [FieldDoc] = &[("first", "the first descriptor"), ("last", "the last")];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("first", &self.first)?;
        map.serialize_entry("last", &self.last)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "fd {} to {}", self.first, self.last)
    }
}
