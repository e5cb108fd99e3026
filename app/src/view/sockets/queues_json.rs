//! A connection's queues as the objects `queues` and `dwell` of its JSON line.

use serde::Serialize;
use socklife_abi::queued::{SkbQueue, cut};

use super::queues::Queues;
use crate::{
    event::FieldDoc,
    model::dwell::{Dwell, Wait},
};

/// The fields of `queues`.
pub const QUEUES_FIELDS: &[FieldDoc] = &[
    (
        "receive_queue",
        "what came in order (`sk_receive_queue`): `skbs`, how many; `bytes`, their `len`, also of one that is read in part; \
         `truesize`, the memory that they are charged with; `oldest_ns`, how long the oldest is there, absent where the \
         kernel did not stamp it; `at_least`: `true` where there are more than were looked at (256), so that `bytes` and \
         `truesize` are the least; `skbs` are right all the same",
    ),
    (
        "out_of_order_queue",
        "what came before its turn, and waits for a segment that is missing; likewise, but with `at_least` \
         also `skbs` are the least",
    ),
    (
        "backlog",
        "what came while a process held the sock (`sk_backlog`), its `bytes` with TCP headers; like `out_of_order_queue`",
    ),
    (
        "write_queue",
        "what is written and not sent (`sk_write_queue`); like `receive_queue`, without `oldest_ns`",
    ),
    (
        "retransmit_queue",
        "what is sent and not acknowledged (`tcp_rtx_queue`); like `out_of_order_queue`, `oldest_ns` since it was sent \
         last",
    ),
    (
        "unsent",
        "bytes that are written and not sent; with `in_flight` it is `send_q`",
    ),
    ("in_flight", "bytes that are sent and not acknowledged"),
    (
        "rmem_alloc",
        "memory of what was received (`sk_rmem_alloc`; `r` of `ss -m`)",
    ),
    ("rcvbuf", "… and its limit (`rb`)"),
    (
        "wmem_queued",
        "memory of what is in the send queue (`sk_wmem_queued`; `w`)",
    ),
    ("sndbuf", "… and its limit (`tb`)"),
    (
        "wmem_alloc",
        "memory of what is on its way through this host, down to the device (`sk_wmem_alloc`; `t`)",
    ),
    (
        "forward_alloc",
        "memory that is charged to the socket and not in use (`f`)",
    ),
    (
        "drops",
        "segments that the socket dropped since it exists (`sk_drops`; `d`)",
    ),
    ("receive_window", "bytes that this end would take now"),
    (
        "send_window",
        "bytes that the peer takes, from the first on that it did not acknowledge",
    ),
    (
        "window_closed",
        "`true`: this end takes no more, for the process does not read",
    ),
    (
        "peer_window_closed",
        "`true`: the peer takes no more, and there is something for it",
    ),
    (
        "limited_by",
        "what the kernel says holds up sending now: `rwnd`, the peer's window; `sndbuf`, this end's send buffer",
    ),
    (
        "busy_ms",
        "how long there was something to send, since the connection exists; without the next two",
    ),
    ("rwnd_limited_ms", "how long the peer's window held it up"),
    ("sndbuf_limited_ms", "how long its own send buffer did"),
];

/// The fields of `dwell`.
pub const DWELL_FIELDS: &[FieldDoc] = &[
    ("span_ns", "how long the connection was looked at"),
    ("samples", "how often in that time"),
    (
        "receive",
        "arrived and not read: `left`, bytes that were read; `mean_bytes` that were in the queue; `mean_ns`, how long a \
         byte waited, by Little's law, absent where none left; `stalled_ns`: none left, and the queue was not empty for \
         so long at least",
    ),
    ("unsent", "written and not sent; likewise"),
    ("in_flight", "sent and not acknowledged; likewise"),
    ("busy_ms", "of the interval, as above"),
    ("rwnd_limited_ms", "of the interval, as above"),
    ("sndbuf_limited_ms", "of the interval, as above"),
];

#[derive(Serialize)]
struct Skbs {
    skbs: u32,
    bytes: u64,
    truesize: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ns: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
}

impl Skbs {
    fn of(queue: &SkbQueue, oldest_ns: Option<u64>) -> Self {
        Self {
            skbs: queue.skbs,
            bytes: queue.bytes,
            truesize: queue.truesize,
            oldest_ns,
            at_least: queue.cut != cut::NONE,
        }
    }
}

#[derive(Serialize)]
pub struct QueuesFields {
    receive_queue: Skbs,
    out_of_order_queue: Skbs,
    backlog: Skbs,
    write_queue: Skbs,
    retransmit_queue: Skbs,
    unsent: u32,
    in_flight: u32,
    rmem_alloc: u32,
    rcvbuf: u32,
    wmem_queued: u32,
    sndbuf: u32,
    wmem_alloc: u32,
    forward_alloc: i32,
    drops: u32,
    receive_window: u32,
    send_window: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    window_closed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    peer_window_closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited_by: Option<&'static str>,
    #[serde(flatten)]
    limits: Limits,
}

/// What the kernel counted of a sender's time.
#[derive(Serialize)]
struct Limits {
    busy_ms: u32,
    rwnd_limited_ms: u32,
    sndbuf_limited_ms: u32,
}

impl From<[u32; 3]> for Limits {
    fn from([busy_ms, rwnd_limited_ms, sndbuf_limited_ms]: [u32; 3]) -> Self {
        Self {
            busy_ms,
            rwnd_limited_ms,
            sndbuf_limited_ms,
        }
    }
}

impl QueuesFields {
    pub fn of(queues: &Queues) -> Self {
        let (queued, memory) = (queues.queued(), queues.queued().memory);
        let received = |queue| Skbs::of(queue, queues.arrived_ns(queue));
        Self {
            receive_queue: received(&queued.receive),
            out_of_order_queue: received(&queued.out_of_order),
            backlog: received(&queued.backlog),
            write_queue: Skbs::of(&queued.write, None),
            retransmit_queue: Skbs::of(&queued.retransmit, queues.sent_ns(&queued.retransmit)),
            unsent: queues.unsent(),
            in_flight: queues.in_flight(),
            rmem_alloc: memory.rmem_alloc,
            rcvbuf: memory.rcvbuf,
            wmem_queued: memory.wmem_queued,
            sndbuf: memory.sndbuf,
            wmem_alloc: memory.wmem_alloc,
            forward_alloc: memory.forward_alloc,
            drops: memory.drops,
            receive_window: queues.receive_window(),
            send_window: queues.flow().snd_wnd,
            window_closed: queues.is_closed(),
            peer_window_closed: queues.peer_is_closed(),
            limited_by: queues.limited_by(),
            limits: queues.flow().chrono_ms.into(),
        }
    }
}

#[derive(Serialize)]
struct WaitFields {
    left: u64,
    mean_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_ns: Option<u64>,
}

impl From<Wait> for WaitFields {
    fn from(wait: Wait) -> Self {
        Self {
            left: wait.left,
            mean_bytes: wait.mean_bytes,
            mean_ns: wait.mean_ns,
            stalled_ns: wait.stalled_ns,
        }
    }
}

#[derive(Serialize)]
pub struct DwellFields {
    span_ns: u64,
    samples: u32,
    receive: WaitFields,
    unsent: WaitFields,
    in_flight: WaitFields,
    #[serde(flatten)]
    limits: Limits,
}

impl From<&Dwell> for DwellFields {
    fn from(dwell: &Dwell) -> Self {
        Self {
            span_ns: dwell.span_ns,
            samples: dwell.samples,
            receive: dwell.receive.into(),
            unsent: dwell.unsent.into(),
            in_flight: dwell.in_flight.into(),
            limits: dwell.chrono_ms.into(),
        }
    }
}
