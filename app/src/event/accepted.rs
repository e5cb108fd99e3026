use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Accepted;

use super::{
    Describe, FieldDoc, Millis, known,
    names::Errno,
    queues::{self, queue_fields},
};

/// What ended a connection that nobody had accepted.
fn end(errno: u32) -> &'static str {
    match i32::try_from(errno) {
        // In CLOSE_WAIT a reset is EPIPE.
        Ok(libc::ECONNRESET | libc::EPIPE) => "reset by the peer",
        Ok(libc::ETIMEDOUT) => "timed out",
        _ => "closed",
    }
}

impl Describe for Accepted {
    const MEANING: &'static str = "accept(2) took the connection: `pid` and `tid` are the ones that called it. The \
                                   queues are the listener's, without this child.";
    const TASK: Option<&'static str> =
        Some("the one that called accept(2); absent where it was a kernel thread of io_uring (before 5.12)");
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("accept_wait_ns", "time in the accept queue, since `accept_queued`"),
        ("fd", "the new file descriptor, where the hook can know it"),
        (
            "dead",
            "`true`: the connection was over when accept(2) took it; absent otherwise"
        ),
        ("dead_for_ns", "for how long it had been over, where that was seen"),
        (
            "errno",
            "what had ended it: `ECONNRESET` or `EPIPE` for a reset by the peer, `ETIMEDOUT`"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        if let Some(ns) = known(self.accept_wait_ns) {
            map.serialize_entry("accept_wait_ns", &ns)?;
        }
        if self.fd >= 0 {
            map.serialize_entry("fd", &self.fd)?;
        }
        if self.dead != 0 {
            map.serialize_entry("dead", &true)?;
            if let Some(ns) = known(self.dead_ns) {
                map.serialize_entry("dead_for_ns", &ns)?;
            }
            if self.errno != 0 {
                map.serialize_entry("errno", &Errno(self.errno))?;
            }
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
        if self.dead != 0 {
            let between = if fd || known(self.accept_wait_ns).is_some() {
                ", "
            } else {
                ""
            };
            write!(out, "{between}already {}", end(self.errno))?;
            if let Some(ns) = known(self.dead_ns) {
                write!(out, " {} ago", Millis(ns))?;
            }
        }
        Ok(())
    }
}
