use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Touched, touch};

use super::{Describe, FieldDoc, holder::opened, names::numbered};

impl Describe for Touched {
    const MEANING: &'static str =
        "A process reads from the socket, or writes to it, where the last one to do so was another, or nobody.";
    const TASK: Option<&'static str> = Some("the one that reads or writes");
    const FIELDS: &'static [FieldDoc] = &[
        ("what", "`read` or `write`"),
        (
            "fd",
            "the descriptor, the first of several; absent where it is not among the first 256, or is a direct descriptor of io_uring",
        ),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("what", numbered(&touch::NAMES, self.what))?;
        opened(map, self.fd, self.inode)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "first {}", numbered(&touch::NAMES, self.what))
    }
}
