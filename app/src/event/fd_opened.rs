use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{FdOpened, how};

use super::{Describe, FieldDoc, holder::fd, names::numbered};

impl Describe for FdOpened {
    const MEANING: &'static str = "A process has one more descriptor of the socket.";
    const TASK: Option<&'static str> = Some("the one that has the descriptor");
    const FIELDS: &'static [FieldDoc] = &[
        ("fd", "the descriptor"),
        (
            "how",
            "how it came to it: `opened`, `accepted`, `duplicated`, `received` (over a Unix socket, or by pidfd_getfd(2)), `unknown` (it may have had one before that nobody saw: the socket is older than the trace, or something was lost meanwhile)",
        ),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if let Some(fd) = fd(self.fd) {
            map.serialize_entry("fd", &fd)?;
        }
        map.serialize_entry("how", numbered(&how::NAMES, self.how))?;
        if self.inode != 0 {
            map.serialize_entry("inode", &self.inode)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "fd {}, {}", self.fd, numbered(&how::NAMES, self.how))
    }
}
