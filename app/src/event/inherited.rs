use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Inherited, UNKNOWN_DEPTH};

use super::{
    Describe, FieldDoc,
    holder::{Fd, fd},
};

impl Describe for Inherited {
    const MEANING: &'static str = "fork(2) gave a child a copy of the descriptor: both hold the socket now. One line for each socket, at most 16 for each fork. `pid` is the parent.";
    const TASK: Option<&'static str> = Some("the parent");
    const FIELDS: &'static [FieldDoc] = &[
        ("child", "the new process"),
        ("fd", "the descriptor, where it is known"),
        ("sockets", "how many sockets the child inherited in all"),
        (
            "holders",
            "how many descriptors of this socket there are now, in all processes",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("child", &self.child)?;
        if let Some(fd) = fd(self.fd) {
            map.serialize_entry("fd", &fd)?;
        }
        map.serialize_entry("sockets", &self.sockets)?;
        if self.holders != UNKNOWN_DEPTH {
            map.serialize_entry("holders", &self.holders)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "by [{}]{}", self.child, Fd(self.fd))?;
        if self.holders != UNKNOWN_DEPTH {
            write!(out, ", {} holders", self.holders)?;
        }
        if self.sockets > 16 {
            write!(out, ", one of {} sockets", self.sockets)?;
        }
        Ok(())
    }
}
