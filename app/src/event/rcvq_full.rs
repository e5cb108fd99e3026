use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{RcvqFull, UNKNOWN_BYTES};

use super::{Describe, FieldDoc};
use crate::kernel::reasons;

impl Describe for RcvqFull {
    const MEANING: &'static str = "A segment found no room in the socket that it was for: its process does not read.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        (
            "reason",
            "`SOCKET_RCVBUFF`, `SOCKET_BACKLOG`, `PROTO_MEM`, `TCP_ZEROWINDOW`, `TCP_OVERWINDOW`, `TCP_INVALID_END_SEQUENCE`, `TCP_OFO_QUEUE_PRUNE`, as in `skb_dropped`",
        ),
        ("len", "bytes of data in the segment"),
        (
            "unread",
            "bytes that were received and not read; this and what follows is absent where the kernel does not tell which \
             socket it was (before 6.11)",
        ),
        ("rmem_alloc", "`sk_rmem_alloc`: memory of its receive queues, in bytes"),
        ("rcvbuf", "`sk_rcvbuf`: its limit"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if let Some(reason) = reasons::of_drop(self.reason) {
            map.serialize_entry("reason", &reason.name)?;
        }
        map.serialize_entry("len", &self.len)?;
        for (name, bytes) in [
            ("unread", self.unread),
            ("rmem_alloc", self.rmem_alloc),
            ("rcvbuf", self.rcvbuf),
        ] {
            if bytes != UNKNOWN_BYTES {
                map.serialize_entry(name, &bytes)?;
            }
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(
            out,
            "{}: no room for {} bytes",
            reasons::of_drop(self.reason)
                .map(|reason| reason.name)
                .unwrap_or_default(),
            self.len
        )?;
        if self.unread != UNKNOWN_BYTES {
            write!(
                out,
                ", {} unread, memory {} of {}",
                self.unread, self.rmem_alloc, self.rcvbuf
            )?;
        }
        Ok(())
    }
}
