use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::CookieAccepted;

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

impl Describe for CookieAccepted {
    const MEANING: &'static str = "An ACK brought back a valid SYN cookie: the connection that nobody remembered is \
                                   there, and `accept_queued` tells of it next.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!();

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)
    }

    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
