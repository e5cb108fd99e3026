use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::{event::SkbFree, skb::direction};

use super::{
    Describe, FieldDoc, Millis,
    names::{Nameless, numbered},
};
use crate::kernel::symbols;

impl Describe for SkbFree {
    const MEANING: &'static str = "An `sk_buff` of the connection is gone. Told only where it is asked for.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        ("skb", "its number, as in `skb_alloc`"),
        (
            "caller",
            "the function that allocated it, or the address where the kernel does not tell names; absent where it is unknown",
        ),
        ("direction", "`send` or `receive`, as the connection had it last"),
        ("truesize", "as in `skb_alloc`"),
        ("lifetime_ns", "since it was allocated"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("skb", &Nameless(self.skb))?;
        if let Some(caller) = symbols::shown(self.caller) {
            map.serialize_entry("caller", &caller)?;
        }
        map.serialize_entry("direction", numbered(&direction::NAMES, self.direction))?;
        map.serialize_entry("truesize", &self.truesize)?;
        map.serialize_entry("lifetime_ns", &self.lifetime_ns)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "skb {} after {}", Nameless(self.skb), Millis(self.lifetime_ns))
    }
}
