use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Listener, Total, accept_failure, ending, refusal};

use super::{
    Describe, FieldDoc,
    queues::{self, queue_fields},
};

/// The simple totals: their names in JSON.
const TOTALS: [(&str, Total); 13] = [
    ("syn_queued_total", Total::SynQueued),
    ("cookie_sent_total", Total::CookieSent),
    ("cookie_accepted_total", Total::CookieAccepted),
    ("cookie_rejected_total", Total::CookieRejected),
    ("accept_queued_total", Total::AcceptQueued),
    ("accepted_total", Total::Accepted),
    ("accept_refused_total", Total::AcceptRefused),
    ("never_accepted_total", Total::NeverAccepted),
    ("cookie_received_total", Total::CookieReceived),
    ("dead_in_queue_total", Total::DeadInQueue),
    ("accept_unseen_total", Total::AcceptUnseen),
    ("fastopen_refused_total", Total::FastopenRefused),
    ("accept_deferred_total", Total::AcceptDeferred),
];

impl Describe for Listener {
    const MEANING: &'static str = "What the kernel side has counted of a listener since the start of the trace, and its \
                                   queues when they last changed. It comes where single events were held back (see \
                                   `lost`), once a second and at the end; the events in between are part of it.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = queue_fields!(
        ("syn_queued_total", "SYNs that joined the SYN queue"),
        ("cookie_sent_total", "SYNs that were answered with a cookie"),
        ("cookie_accepted_total", "connections made of a cookie"),
        ("cookie_rejected_total", "ACKs without a valid cookie"),
        ("accept_queued_total", "connections that joined the accept queue"),
        ("accepted_total", "connections that accept(2) took"),
        (
            "accept_refused_total",
            "final ACKs that met a full accept queue, each one"
        ),
        (
            "never_accepted_total",
            "connections that waited when the listener was closed"
        ),
        ("cookie_received_total", "ACKs with a valid cookie"),
        (
            "dead_in_queue_total",
            "connections that were reset, or timed out, while they waited for accept(2)"
        ),
        (
            "accept_unseen_total",
            "connections that some process has, though nobody saw accept(2) take them: by io_uring, where the hooks in use \
             do not see that"
        ),
        (
            "fastopen_refused_total",
            "SYNs of TCP Fast Open that its queue had no room for: an ordinary handshake follows"
        ),
        (
            "accept_deferred_total",
            "handshakes that were done while accept was deferred (`TCP_DEFER_ACCEPT`)"
        ),
        ("accept_failed_total", "accept(2) that failed, by errno: an object"),
        (
            "fastopen_queue",
            "connections of TCP Fast Open whose handshake is not done; absent where the listener has no Fast Open"
        ),
        ("fastopen_queue_limit", "how many of them there may be (`TCP_FASTOPEN`)"),
        ("syn_refused_total", "refused SYNs by cause: an object"),
        (
            "half_open_ended_total",
            "half-open connections that ended without a handshake, by cause: an object"
        ),
        ("inode", "inode of the listening socket"),
        (
            "born",
            "`before`: the listener is older than the trace; absent otherwise"
        ),
    );

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        queues::json(&self.queues, map)?;
        for (name, total) in TOTALS {
            map.serialize_entry(name, &self.total(total))?;
        }
        let refused = (0..)
            .zip(refusal::NAMES)
            .map(|(cause, name)| (name, self.refused(cause)));
        map.serialize_entry("syn_refused_total", &Causes(refused))?;
        let ended = (0..).zip(ending::NAMES).map(|(cause, name)| (name, self.ended(cause)));
        map.serialize_entry("half_open_ended_total", &Causes(ended))?;
        let failed = (0..)
            .zip(accept_failure::NAMES)
            .map(|(place, name)| (name, self.accept_failed(place)));
        map.serialize_entry("accept_failed_total", &Causes(failed))?;
        if self.fastopen_queue_limit != 0 {
            if let Some(depth) = queues::depth(self.fastopen_queue) {
                map.serialize_entry("fastopen_queue", &depth)?;
            }
            map.serialize_entry("fastopen_queue_limit", &self.fastopen_queue_limit)?;
        }
        if self.inode != 0 {
            map.serialize_entry("inode", &self.inode)?;
        }
        if self.before != 0 {
            map.serialize_entry("born", "before")?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let refused: u64 = (0..).zip(refusal::NAMES).map(|(cause, _)| self.refused(cause)).sum();
        write!(
            out,
            "SYN queue {}, accept queue {}; SYNs queued {}, refused {}; accepted {}",
            queues::syn(&self.queues),
            queues::accept(&self.queues),
            self.total(Total::SynQueued),
            refused,
            self.total(Total::Accepted),
        )
    }
}

/// Counts by the name of a cause; those that are zero are left out.
struct Causes<I>(I);

impl<I: Iterator<Item = (&'static str, u64)> + Clone> serde::Serialize for Causes<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone().filter(|(_, count)| *count > 0))
    }
}
