use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::State;

use super::{Describe, FieldDoc, names::state};

impl Describe for State {
    const MEANING: &'static str = "The socket's TCP state changed (`sock:inet_sock_set_state`). The birth of a child, \
                                   LISTEN → SYN_RECV, is left out: up to 6.12 the kernel shows the listener's \
                                   four-tuple there.";
    const TASK: Option<&'static str> = Some("the one in whose call the state changed; absent in softirq");
    const FIELDS: &'static [FieldDoc] = &[
        ("oldstate", "the state that ends, by the kernel's name"),
        ("newstate", "the state that begins"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("oldstate", state(self.oldstate))?;
        map.serialize_entry("newstate", state(self.newstate))
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{} -> {}", state(self.oldstate), state(self.newstate))
    }
}
