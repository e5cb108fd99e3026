use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Accepted;

use super::{
    Describe, FieldDoc, Millis, known,
    queues::{self, queue_fields},
};

impl Describe for Accepted {
    const MEANING: &'static str = "accept(2) took the connection: `pid` and `tid` are the ones that called it. The \
                                   queues are the listener's, without this child.";
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("accept_wait_ns", "time in the accept queue, since `accept_queued`"),
        ("fd", "the new file descriptor, where the hook can know it"),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.accept_wait_ns) {
            map.serialize_entry("accept_wait_ns", &ns)?;
        }
        if self.fd >= 0 {
            map.serialize_entry("fd", &self.fd)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let fd = self.fd >= 0;
        if fd {
            write!(out, "fd {}", self.fd)?;
        }
        if let Some(ns) = known(self.accept_wait_ns) {
            write!(out, "{}waited {}", if fd { ", " } else { "" }, Millis(ns))?;
        }
        Ok(())
    }
}
