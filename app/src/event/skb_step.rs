use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::{
    event::{SkbStep, UNKNOWN_DEPTH},
    step::{MERGED, MOVE_KNOWN, ZERO_COPY, kin, place, unit},
};

use super::{Describe, FieldDoc, known, names::numbered};
use crate::comm::Comm;

/// The layer that a step belongs to.
pub fn layer(step: &SkbStep) -> &'static str {
    numbered(&place::LAYERS, step.place.into())
}

/// What the layer calls the whole.
pub fn name(step: &SkbStep) -> &'static str {
    numbered(&unit::NAMES, step.unit.into())
}

/// Whether there is an sk_buff yet: the call that writes has none.
pub fn has_skb(step: &SkbStep) -> bool {
    step.headroom != UNKNOWN_DEPTH
}

/// How far `data` moved since the step before; a header that is pushed moves it back, and is positive here.
pub fn moved(step: &SkbStep) -> Option<i32> {
    (step.flags & MOVE_KNOWN != 0).then_some(step.moved)
}

impl Describe for SkbStep {
    const MEANING: &'static str = "A step of a segment that is followed through the layers (`socklife skb`): what a function \
                                   of the kernel, or a tracepoint, saw of its sk_buff. `trace` shows it only where it is named \
                                   (`-e skb_step`). `laddr` is the sender on the way down, and the receiver on the way up.";
    const TASK: Option<&'static str> =
        Some("the one that wrote, read, or in whose call the segment was passed down; absent elsewhere");
    const FIELDS: &'static [FieldDoc] = &[
        (
            "segment",
            "number of the segment: the steps with the same number belong together",
        ),
        ("seq", "sequence number of its first byte"),
        ("direction", "`send` or `receive`"),
        ("layer", "`socket`, `tcp`, `ip`, `device`"),
        (
            "unit",
            "what the layer calls it, by what `skb->data` points at: `data`, `segment` (a TCP header), `packet` (an IP \
             header), `frame` (a header of the link)",
        ),
        (
            "payload",
            "bytes of the segment without any header; absent where a call writes",
        ),
        (
            "written",
            "bytes that the call writes: the first step, which has no sk_buff yet",
        ),
        (
            "zero_copy",
            "`true`: the call asks that nothing be copied (MSG_ZEROCOPY, or sendfile(2) from 6.5 on)",
        ),
        ("since_ns", "since the step before"),
        ("headroom", "`skb->data - skb->head`"),
        ("len", "`skb->len`"),
        ("data_len", "`skb->data_len`: what of `len` lies in pages"),
        ("size", "`skb->end - skb->head`: the buffer's own bytes"),
        (
            "pushed",
            "bytes of headers pushed in front of the data since the step before",
        ),
        ("pulled", "bytes of headers pulled from its front since the step before"),
        ("tcp_header", "bytes of TCP's header between `data` and the payload"),
        ("ip_header", "bytes of IP's header there"),
        ("link_header", "bytes of the link's header there: 14 of Ethernet"),
        (
            "skb",
            "`first`; `same` as at the step before; `clone`: another sk_buff on the same buffer; `copy`: another buffer",
        ),
        ("buffer", "which buffer of the segment it is: counts from 1"),
        (
            "copies",
            "how often the payload had been copied between the layers by now",
        ),
        (
            "gso_size",
            "bytes of each segment that the device, or the last step before it, will cut it into",
        ),
        ("gso_segs", "how many those are"),
        ("dev", "name of the network device; control characters are escaped"),
        ("ifindex", "its index in the network namespace"),
        ("read", "bytes that read(2), or its like, copies out"),
        (
            "merged",
            "`true`: joined to the sk_buff in front of it in the receive queue, and read with that one",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("segment", &self.segment)?;
        map.serialize_entry("seq", &self.seq)?;
        let direction = if place::sends(self.place) { "send" } else { "receive" };
        map.serialize_entry("direction", direction)?;
        map.serialize_entry("layer", layer(self))?;
        map.serialize_entry("unit", name(self))?;
        if !has_skb(self) {
            map.serialize_entry("written", &self.len)?;
            if self.flags & ZERO_COPY != 0 {
                map.serialize_entry("zero_copy", &true)?;
            }
            return Ok(());
        }
        map.serialize_entry("payload", &self.payload)?;
        if let Some(since_ns) = known(self.since_ns) {
            map.serialize_entry("since_ns", &since_ns)?;
        }
        map.serialize_entry("headroom", &self.headroom)?;
        map.serialize_entry("len", &self.len)?;
        map.serialize_entry("data_len", &self.data_len)?;
        map.serialize_entry("size", &self.size)?;
        match moved(self) {
            Some(moved @ 1..) => map.serialize_entry("pushed", &moved)?,
            Some(moved @ ..0) => map.serialize_entry("pulled", &moved.unsigned_abs())?,
            Some(0) | None => {}
        }
        for (name, bytes) in [
            ("tcp_header", self.tcp_header),
            ("ip_header", self.ip_header),
            ("link_header", self.link_header),
            ("gso_size", self.gso_size),
            ("gso_segs", self.gso_segs),
        ] {
            if bytes != 0 {
                map.serialize_entry(name, &bytes)?;
            }
        }
        map.serialize_entry("skb", numbered(&kin::NAMES, self.kin.into()))?;
        map.serialize_entry("buffer", &self.buffer)?;
        map.serialize_entry("copies", &self.copies)?;
        if self.ifindex != 0 {
            map.serialize_entry("dev", &Comm(self.dev).to_string())?;
            map.serialize_entry("ifindex", &self.ifindex)?;
        }
        if self.place == place::READ {
            map.serialize_entry("read", &self.read)?;
        }
        if self.flags & MERGED != 0 {
            map.serialize_entry("merged", &true)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "segment {} in {}: {}", self.segment, layer(self), name(self))?;
        if has_skb(self) {
            write!(out, ", headroom {}, len {}", self.headroom, self.len)?;
        }
        Ok(())
    }
}
