//! A process that another's event names.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use socklife_abi::event::{Holder, UNKNOWN_FD};

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

/// A descriptor, where it is known.
pub fn fd(fd: i32) -> Option<i32> {
    (fd != UNKNOWN_FD).then_some(fd)
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
