use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{FdClosed, UNKNOWN_DEPTH};

use super::{Describe, FieldDoc, holder::fd};

impl Describe for FdClosed {
    const MEANING: &'static str = "A process has one descriptor of the socket less: by close(2) or one of its kin, by execve(2), or because it ended.";
    const TASK: Option<&'static str> = Some("the one that had the descriptor");
    const FIELDS: &'static [FieldDoc] = &[
        ("fd", "the descriptor, where it is known"),
        (
            "left",
            "how many descriptors of the socket there are left, in all processes",
        ),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if let Some(fd) = fd(self.fd) {
            map.serialize_entry("fd", &fd)?;
        }
        if self.left != UNKNOWN_DEPTH {
            map.serialize_entry("left", &self.left)?;
        }
        if self.inode != 0 {
            map.serialize_entry("inode", &self.inode)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match fd(self.fd) {
            Some(fd) => write!(out, "fd {fd}")?,
            None => out.write_str("fd unknown")?,
        }
        match self.left {
            UNKNOWN_DEPTH => Ok(()),
            left => write!(out, ", {left} left"),
        }
    }
}
