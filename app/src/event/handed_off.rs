use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{HandedOff, handoff, touch};

use super::{
    Describe, FieldDoc, Millis,
    holder::{Fd, Named},
    known,
    names::numbered,
};

impl Describe for HandedOff {
    const MEANING: &'static str = "Another process uses the socket now: it read or wrote where the last one to do so was another, or has had it alone for a second after one that did nothing with it; of a listener, it accepts, and nobody else does. `from` is who used it before, or opened it. Who lets go hands it to nobody.";
    const TASK: Option<&'static str> = Some("the one that uses the socket now");
    const FIELDS: &'static [FieldDoc] = &[
        ("from", "who had it: an object with `pid`, `comm` and `fd`"),
        ("to", "who has it now: likewise"),
        (
            "accepted",
            "`true` where `from` has it from accept(2); absent otherwise",
        ),
        (
            "how",
            "the way on which `to` got its descriptor: `fork`, `exec` (by fork(2) and then execve(2), or execve(2) alone where both are one process), `fd_passing`, `accepted` or `opened` (it had it before `from`, and it comes back), `unknown`",
        ),
        (
            "through",
            "who gave it to `to` by fork(2), with `pid` and `comm`: another than `from`, where `to` is its grandchild; absent where nobody knows, or no fork(2) did",
        ),
        (
            "held_ns",
            "from when `from` got it, which is accept(2) as a rule, until `to` did; absent where that is not known, or it comes back",
        ),
        (
            "first_ns",
            "from then to the first read or write of `to`; absent where there was none yet",
        ),
        ("first", "`read`, `write`, or of a listener `accept`"),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("from", &Named(self.from))?;
        map.serialize_entry("to", &Named(self.to))?;
        if self.accepted != 0 {
            map.serialize_entry("accepted", &true)?;
        }
        map.serialize_entry("how", numbered(&handoff::NAMES, self.how))?;
        if self.through.pid != 0 {
            map.serialize_entry("through", &Named(self.through))?;
        }
        if let Some(ns) = known(self.held_ns) {
            map.serialize_entry("held_ns", &ns)?;
        }
        if let Some(ns) = known(self.first_ns) {
            map.serialize_entry("first_ns", &ns)?;
        }
        if self.first != touch::NONE {
            map.serialize_entry("first", numbered(&touch::NAMES, self.first))?;
        }
        if self.inode != 0 {
            map.serialize_entry("inode", &self.inode)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(
            out,
            "{}{}{} → {}, {}",
            if self.accepted != 0 { "accepted by " } else { "" },
            Named(self.from),
            Fd(self.from.fd),
            Named(self.to),
            Way(self.how)
        )?;
        if self.through.pid != 0 && self.through.pid != self.from.pid {
            write!(out, " of {}", Named(self.through))?;
        }
        if let Some(ns) = known(self.held_ns) {
            write!(out, " after {}", Millis(ns))?;
        }
        if let Some(ns) = known(self.first_ns)
            && self.first != touch::NONE
        {
            write!(
                out,
                ", first {} after {}",
                numbered(&touch::NAMES, self.first),
                Millis(ns)
            )?;
        }
        Ok(())
    }
}

/// For people.
struct Way(u32);

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            handoff::ACCEPTED => f.write_str("which accepted it"),
            handoff::OPENED => f.write_str("which opened it"),
            handoff::UNKNOWN => f.write_str("how is unknown"),
            how => write!(f, "by {}", numbered(&handoff::NAMES, how)),
        }
    }
}
