use std::{borrow::Cow, fmt};

use serde::ser::SerializeMap;
use socklife_abi::event::{SENDING, SkbDropped};

use super::{
    Describe, FieldDoc,
    names::{MEANS, TcpFlags, reason_json, state},
};
use crate::kernel::{
    reasons::{self, Reason},
    symbols,
};

impl Describe for SkbDropped {
    const MEANING: &'static str = "A segment was dropped. Its four-tuple is that of its headers where no socket is known; this end is the receiver's.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        (
            "reason",
            "the running kernel's name for it (`enum skb_drop_reason` in its BTF, without the prefix, and from 7.1 on \
             `enum qdisc_drop_reason`); `OPENVSWITCH 5` for a subsystem's that has no name there; absent before 5.17",
        ),
        MEANS,
        (
            "location",
            "the kernel's function that dropped it; its address where `/proc/kallsyms` gives none",
        ),
        ("direction", "`in` or `out`"),
        ("tcp_flags", "flags of its header: `SYN`, `PSH,ACK`, …"),
        ("seq", "its sequence number"),
        ("len", "bytes of data in it"),
        (
            "state",
            "of the socket it was for, or from; absent where there is none, or where the kernel does not tell (before 6.11)",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        reason_json(reasons::of_drop(self.reason), map)?;
        if let Some(location) = symbols::shown(self.location) {
            map.serialize_entry("location", &location)?;
        }
        let direction = if self.flags & SENDING == 0 { "in" } else { "out" };
        map.serialize_entry("direction", direction)?;
        map.serialize_entry("tcp_flags", &TcpFlags(self.tcp_flags))?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("len", &self.len)?;
        if self.state != 0 {
            map.serialize_entry("state", state(self.state))?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let reason = reasons::of_drop(self.reason);
        match &reason {
            Some(Reason { name, .. }) => write!(out, "{name} ")?,
            None => out.write_str("no reason given, ")?,
        }
        write!(
            out,
            "in {}",
            symbols::shown(self.location).unwrap_or(Cow::Borrowed("?"))
        )?;
        let way = if self.flags & SENDING == 0 {
            ""
        } else {
            " on its way out"
        };
        write!(out, ": {}{way}, {} bytes", TcpFlags(self.tcp_flags), self.len)?;
        match reason.and_then(|reason| reason.means) {
            Some(means) => write!(out, " ({means})"),
            None => Ok(()),
        }
    }
}
