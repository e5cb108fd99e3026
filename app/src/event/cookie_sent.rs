use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::CookieSent;

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

impl Describe for CookieSent {
    const MEANING: &'static str = "A SYN was answered with a SYN cookie, because the SYN queue was full or because \
                                   `net.ipv4.tcp_syncookies` is 2. Nothing was queued, so there is no `cookie` yet.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!();

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "SYN queue {}", queues::syn(&self.queues))
    }
}
