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
    const MEANING: &'static str = "Another process uses the socket now: it read or wrote for the first time, or it has the socket alone. `from` is who used it before, or accepted it.";
    const FIELDS: &'static [FieldDoc] = &[
        ("from", "who had it: an object with `pid`, `comm` and `fd`"),
        ("to", "who has it now: likewise"),
        (
            "accepted",
            "`true` where `from` has it from accept(2); absent otherwise",
        ),
        (
            "how",
            "how it came there: `fork`, `exec` (by fork(2) and then execve(2), or execve(2) alone where both are one process), `fd_passing`, `unknown`",
        ),
        (
            "held_ns",
            "from when `from` got it, which is accept(2) as a rule, until `to` did",
        ),
        (
            "first_ns",
            "from then to the first read or write of `to`; absent where there was none yet",
        ),
        ("first", "`read` or `write`; likewise"),
        ("inode", "inode of the socket: the number in `/proc/PID/fd`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("from", &Named(self.from))?;
        map.serialize_entry("to", &Named(self.to))?;
        if self.accepted != 0 {
            map.serialize_entry("accepted", &true)?;
        }
        map.serialize_entry("how", numbered(&handoff::NAMES, self.how))?;
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
            "{}{}{} → {}, by {}",
            if self.accepted != 0 { "accepted by " } else { "" },
            Named(self.from),
            Fd(self.from.fd),
            Named(self.to),
            numbered(&handoff::NAMES, self.how)
        )?;
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
