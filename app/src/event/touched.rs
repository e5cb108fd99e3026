use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Touched, touch};

use super::{Describe, FieldDoc, names::numbered};

impl Describe for Touched {
    const MEANING: &'static str =
        "A process reads from the socket, or writes to it, where the last one to do so was another, or nobody.";
    const FIELDS: &'static [FieldDoc] = &[
        ("what", "`read` or `write`"),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("what", numbered(&touch::NAMES, self.what))?;
        if self.inode != 0 {
            map.serialize_entry("inode", &self.inode)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "first {}", numbered(&touch::NAMES, self.what))
    }
}
