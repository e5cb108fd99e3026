use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::AcceptFailed;

use super::{
    Describe, FieldDoc, known,
    names::Errno,
    queues::{self, queue_fields},
};

impl Describe for AcceptFailed {
    const MEANING: &'static str = "accept(2) failed, and not for want of a connection (EAGAIN, EINTR). Whoever waits in \
                                   the accept queue goes on waiting. The queues are the listener's; absent where the \
                                   socket is none.";
    const TASK: Option<&'static str> =
        Some("the one that called accept(2); absent where it was a kernel thread of io_uring (before 5.12)");
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        (
            "errno",
            "why: `EMFILE` (the process has no descriptor left), `ENFILE` (the machine has none), …"
        ),
        (
            "limit",
            "with `EMFILE`: how many descriptors the process may have, its soft `RLIMIT_NOFILE`"
        ),
        ("fd", "the listener's descriptor, where the hook can know it"),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        map.serialize_entry("errno", &Errno(self.errno))?;
        if let Some(limit) = known(self.limit) {
            map.serialize_entry("limit", &limit)?;
        }
        if self.fd >= 0 {
            map.serialize_entry("fd", &self.fd)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}", Errno(self.errno))?;
        if let Some(limit) = known(self.limit) {
            write!(out, ": RLIMIT_NOFILE {limit}")?;
        }
        if queues::depth(self.queues.accept_queue).is_some() {
            write!(out, ", accept queue {}", queues::accept(&self.queues))?;
        }
        Ok(())
    }
}
