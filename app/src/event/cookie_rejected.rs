use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::CookieRejected;

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

impl Describe for CookieRejected {
    const MEANING: &'static str = "An ACK to a listener that had sent SYN cookies carried none that is valid: forged, \
                                   too old, or a stray. The kernel answers with a reset.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!();

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)
    }

    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
