use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{SynRefused, refusal};

use super::{
    Describe, FieldDoc,
    names::numbered,
    queues::{self, queue_fields},
};

impl Describe for SynRefused {
    const MEANING: &'static str = "A SYN was dropped: the client hears nothing and sends it again. `docs/queues.md` has \
                                   each cause with its remedy.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!((
        "cause",
        "`accept_queue_full`, `syn_queue_full`, `max_syn_backlog`, `no_memory`, or `other`"
    ));

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        map.serialize_entry("cause", numbered(&refusal::NAMES, self.cause))
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(
            out,
            "{}, SYN queue {}, accept queue {}",
            numbered(&refusal::NAMES, self.cause),
            queues::syn(&self.queues),
            queues::accept(&self.queues)
        )
    }
}
