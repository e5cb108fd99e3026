//! What events of a listener's queues have in common.

use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Queues, UNKNOWN_DEPTH};

/// The fields of [`json`], and then these.
macro_rules! queue_fields {
    ($($field:expr),* $(,)?) => {
        &[
            ("listener", "cookie of the listener"),
            ("syn_queue", "requests in its SYN queue"),
            (
                "syn_queue_limit",
                "how many that queue takes; full is more than that (5.10: as many)",
            ),
            ("accept_queue", "children in its accept queue"),
            ("accept_queue_limit", "the effective backlog; full is more than that"),
            $($field,)*
        ]
    };
}
pub(crate) use queue_fields;

/// A depth or limit, if it is known.
pub fn depth(value: u32) -> Option<u32> {
    (value != UNKNOWN_DEPTH).then_some(value)
}

/// Writes what is known of a listener and its queues.
pub fn json<M: SerializeMap>(queues: &Queues, map: &mut M) -> Result<(), M::Error> {
    if queues.listener != 0 {
        map.serialize_entry("listener", &queues.listener)?;
    }
    for (name, value) in [
        ("syn_queue", queues.syn_queue),
        ("syn_queue_limit", queues.syn_queue_limit),
        ("accept_queue", queues.accept_queue),
        ("accept_queue_limit", queues.accept_queue_limit),
    ] {
        if let Some(value) = depth(value) {
            map.serialize_entry(name, &value)?;
        }
    }
    Ok(())
}

/// `depth/limit`, with "?" for what nobody knows.
pub struct Fill(pub u32, pub u32);

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |value| depth(value).map_or_else(|| "?".to_owned(), |value| value.to_string());
        f.pad(&format!("{}/{}", part(self.0), part(self.1)))
    }
}

/// The SYN queue.
pub fn syn(queues: &Queues) -> Fill {
    Fill(queues.syn_queue, queues.syn_queue_limit)
}

/// The accept queue.
pub fn accept(queues: &Queues) -> Fill {
    Fill(queues.accept_queue, queues.accept_queue_limit)
}
