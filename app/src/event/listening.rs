use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Listening;

use super::{Describe, FieldDoc, holder::fd};

impl Describe for Listening {
    const MEANING: &'static str = "listen(2) succeeded: the socket is a listener, or an existing listener got another \
                                   backlog.";
    const TASK: Option<&'static str> = Some("the one that called listen(2)");
    const FIELDS: &'static [FieldDoc] = &[
        ("backlog_asked", "the backlog that listen(2) was called with"),
        (
            "accept_queue_limit",
            "the backlog it got (`sk_max_ack_backlog`): what was asked, clamped by `net.core.somaxconn`",
        ),
        ("fd", "the descriptor, where the hook can know it"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if self.asked_known != 0 {
            map.serialize_entry("backlog_asked", &self.backlog_asked)?;
        }
        map.serialize_entry("accept_queue_limit", &self.backlog)?;
        if let Some(fd) = fd(self.fd) {
            map.serialize_entry("fd", &fd)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "backlog {}", self.backlog)?;
        if self.asked_known != 0 && i64::from(self.backlog_asked) != i64::from(self.backlog) {
            write!(out, " (asked {})", self.backlog_asked)?;
        }
        Ok(())
    }
}
