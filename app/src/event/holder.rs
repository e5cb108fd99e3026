//! A process that another's event names.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};
use socklife_abi::event::{Holder, UNKNOWN_FD};

use super::FieldDoc;

use crate::comm::Comm;

/// In JSON an object; `fd` only where it is known.
pub struct Named(pub Holder);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.0.pid)?;
        if self.0.comm != [0; 16] {
            map.serialize_entry("comm", &Comm(self.0.comm).to_string())?;
        }
        if let Some(fd) = fd(self.0.fd) {
            map.serialize_entry("fd", &fd)?;
        }
        map.end()
    }
}

/// In text `comm[pid]`.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.comm == [0; 16] {
            write!(f, "[{}]", self.0.pid)
        } else {
            write!(f, "{}[{}]", Comm(self.0.comm), self.0.pid)
        }
    }
}

/// A descriptor, where there is one and it is known.
pub fn fd(fd: i32) -> Option<i32> {
    (fd > UNKNOWN_FD).then_some(fd)
}

/// The fields of who opened a socket.
pub const OPENED_FIELDS: &[FieldDoc] = &[
    (
        "fd",
        "the descriptor; absent where it is not among the first 256, or is a direct descriptor of io_uring",
    ),
    ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
];

/// The same, where they are known.
pub fn opened<M: SerializeMap>(map: &mut M, number: i32, inode: u64) -> Result<(), M::Error> {
    if let Some(fd) = fd(number) {
        map.serialize_entry("fd", &fd)?;
    }
    if inode != 0 {
        map.serialize_entry("inode", &inode)?;
    }
    Ok(())
}

/// ` fd 7`, where it is known.
pub struct Fd(pub i32);

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match fd(self.0) {
            Some(fd) => write!(f, " fd {fd}"),
            None => Ok(()),
        }
    }
}
