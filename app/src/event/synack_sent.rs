use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::SynackSent;

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

impl Describe for SynackSent {
    const MEANING: &'static str = "The first SYN-ACK of a half-open connection.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!();

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)
    }

    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
