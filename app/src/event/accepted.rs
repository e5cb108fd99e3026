use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Accepted;

use super::{Describe, FieldDoc};

impl Describe for Accepted {
    const MEANING: &'static str = "accept(2) took the connection: `pid` and `tid` are the ones that called it.";
    const FIELDS: &'static [FieldDoc] = &[
        ("listener", "cookie of the listener"),
        ("fd", "the new file descriptor, where the hook can know it"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if self.listener != 0 {
            map.serialize_entry("listener", &self.listener)?;
        }
        if self.fd >= 0 {
            map.serialize_entry("fd", &self.fd)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.fd >= 0 {
            write!(out, "fd {}", self.fd)?;
        }
        Ok(())
    }
}
