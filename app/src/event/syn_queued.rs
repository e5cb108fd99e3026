use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::SynQueued;

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

impl Describe for SynQueued {
    const MEANING: &'static str = "A SYN was taken: its `request_sock` joined the SYN queue, and the connection is \
                                   half-open. `cookie` is the number that the accepted socket will have.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!();

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "SYN queue {}", queues::syn(&self.queues))
    }
}
