use std::{borrow::Cow, fmt};

use serde::ser::SerializeMap;
use socklife_abi::{
    event::{SkbAlloc, UNKNOWN_DEPTH},
    skb::direction,
};

use super::{
    Describe, FieldDoc,
    names::{Nameless, numbered},
};
use crate::kernel::symbols;

impl Describe for SkbAlloc {
    const MEANING: &'static str = "An `sk_buff` was allocated for the connection, or one that was allocated elsewhere is \
                                   known to be the connection's. Told only where it is asked for.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        (
            "skb",
            "a number for it: `skb_free` has the same one, another run of socklife has others",
        ),
        (
            "caller",
            "the function that allocated it, or the address where the kernel does not tell names; absent where it is unknown",
        ),
        ("direction", "`send`: for what the socket sends; `receive`: it arrived"),
        ("bytes", "bytes of data that were asked for; 0 for a clone"),
        (
            "truesize",
            "what it takes of memory (`sk_buff.truesize`), when it was allocated",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("skb", &Nameless(self.skb))?;
        if let Some(caller) = symbols::shown(self.caller) {
            map.serialize_entry("caller", &caller)?;
        }
        map.serialize_entry("direction", numbered(&direction::NAMES, self.direction))?;
        if self.bytes != UNKNOWN_DEPTH {
            map.serialize_entry("bytes", &self.bytes)?;
        }
        map.serialize_entry("truesize", &self.truesize)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let caller = symbols::shown(self.caller).unwrap_or(Cow::Borrowed("?"));
        let direction = numbered(&direction::NAMES, self.direction);
        write!(
            out,
            "skb {} by {caller} to {direction}, truesize {}",
            Nameless(self.skb),
            self.truesize
        )
    }
}
