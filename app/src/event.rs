//! Events as user space has them: decoded, with the names and units that output shows.
//!
//! One small file for each kind says its fields and its text; the list is [`socklife_abi::for_each_event`].

mod accept_deferred;
mod accept_failed;
mod accept_queued;
mod accept_refused;
mod accepted;
mod bound;
mod closed;
mod connect;
mod connect_failed;
mod connected;
mod cookie_accepted;
mod cookie_rejected;
mod cookie_sent;
mod established;
mod executed;
mod exited;
mod fd_closed;
mod fd_opened;
mod fds_closed;
mod finding;
mod forked;
mod half_open_ended;
mod handed_off;
mod holder;
mod inherited;
mod last_close;
mod listener;
mod listening;
pub(crate) mod names;
mod never_accepted;
mod queues;
mod rcvq_full;
mod reset_received;
mod reset_sent;
mod retransmitted;
mod skb_alloc;
mod skb_dropped;
mod skb_free;
pub(crate) mod skb_step;
mod sndbuf_limited;
mod state;
mod syn_queued;
mod syn_refused;
mod synack_retransmitted;
mod synack_sent;
mod touched;
mod window_stalled;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::ser::SerializeMap;
use socklife_abi::{
    event::{self as abi, BORN_BEFORE, Envelope, HAS_TASK, Kind, MAPPED, Payload, UNKNOWN},
    for_each_event,
};

/// What the kernel side tells of who holds a socket. The hooks make one picture together: each of these needs them all.
pub const HOLDERS: u64 = Kind::set(&[
    Kind::FdOpened,
    Kind::FdClosed,
    Kind::FdsClosed,
    Kind::LastClose,
    Kind::Touched,
    Kind::Forked,
    Kind::Executed,
    Kind::Exited,
]);

/// A field of the JSON line: its name, and what it says.
pub type FieldDoc = (&'static str, &'static str);

/// What each payload says of itself.
pub trait Describe {
    /// What the event means, for the documentation.
    const MEANING: &'static str;

    /// Which task it names, and when not; `None` where it never names one.
    const TASK: Option<&'static str>;

    /// The fields it adds to the JSON line.
    const FIELDS: &'static [FieldDoc];

    /// Writes those fields that are known.
    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;

    /// Writes what stands behind the four-tuple in text.
    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// What a kind of event says of itself.
#[derive(Debug)]
pub struct Documented {
    /// The kind.
    pub kind: Kind,
    /// See [`Describe::MEANING`].
    pub meaning: &'static str,
    /// See [`Describe::TASK`].
    pub task: Option<&'static str>,
    /// See [`Describe::FIELDS`].
    pub fields: &'static [FieldDoc],
}

macro_rules! details {
    ($($number:literal => $name:ident $text:literal,)*) => {
        /// What an event says beyond its envelope.
        #[derive(Clone, Copy, Debug)]
        #[expect(missing_docs, reason = "documented on the payloads")]
        #[expect(clippy::large_enum_variant, reason = "decoded and written in place: no event is allocated")]
        pub enum Detail {
            $($name(abi::$name),)*
        }

        impl Detail {
            fn decode(kind: Kind, payload: &[u8]) -> Option<Self> {
                match kind {
                    $(Kind::$name => read(payload).map(Self::$name),)*
                }
            }

            /// The kind of the event.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => <abi::$name as Payload>::KIND,)* }
            }

            /// See [`Describe::json`].
            pub fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self { $(Self::$name(payload) => payload.json(map),)* }
            }

            /// See [`Describe::text`].
            pub fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                match self { $(Self::$name(payload) => payload.text(out),)* }
            }
        }

        /// What each kind says of itself.
        pub const DOCUMENTED: &[Documented] = &[
            $(Documented {
                kind: Kind::$name,
                meaning: <abi::$name as Describe>::MEANING,
                task: <abi::$name as Describe>::TASK,
                fields: <abi::$name as Describe>::FIELDS,
            },)*
        ];
    };
}

for_each_event!(details);

/// The fields that every event has, or may have.
pub const ENVELOPE_FIELDS: &[FieldDoc] = &[
    ("v", "format version: 1"),
    ("event", "the kind"),
    ("time_ns", "when, in nanoseconds of the boot clock (`CLOCK_BOOTTIME`)"),
    ("wall", "the same in UTC, RFC 3339 with nanoseconds"),
    ("cpu", "CPU that the event ran on"),
    (
        "cookie",
        "the kernel's socket cookie: one number from the SYN to the end",
    ),
    (
        "born",
        "`before`: the socket is older than the trace, which is found out where holders are followed (`-e fd_closed` and its kin); absent otherwise",
    ),
    (
        "life",
        "2 or more: the same socket, with the same cookie, had so many lives less one before, each with a four-tuple of its own (connect(2) again, or disconnected and made a listener); absent in the first, and where holders are not followed",
    ),
    (
        "netns",
        "inode of the network namespace; absent where the kernel does not tell",
    ),
    ("family", "4 or 6: the protocol on the wire"),
    (
        "mapped",
        "`true` for an IPv6 socket that speaks IPv4 (`::ffff:a.b.c.d`)",
    ),
    ("laddr", "address of this end; an event about a process has no ends"),
    ("lport", "port of this end"),
    ("raddr", "address of the other end"),
    ("rport", "port of the other end"),
    (
        "pid",
        "process (thread group) that caused the event, in the initial PID namespace; absent in softirq",
    ),
    ("tid", "thread, likewise"),
    ("comm", "the thread's name; control characters are escaped"),
    ("uid", "user of the thread, in the initial user namespace"),
    ("via", "the hook that saw it"),
];

/// The fields of the `lost` line, beside `v`, `event`, `time_ns` and `wall`.
pub const LOST_FIELDS: &[FieldDoc] = &[
    (
        "stage",
        "where: `ring_buffer`, `output`, `socket_table_full`, `call_table_full`, `request_table_full`, \
         `listener_table_full`, `process_table_full`, `skb_table_full`, `skb_tally_table_full`, `skb_end_missed`, \
         `drop_table_full`, `program_busy`; `unseen`: no program was run for it, without a kind where it is told late or its \
         kind is unknown; `sampled`: not lost, but counted only (`--sample`; of `skb_step`, segments that \
         are not followed, `--rate`)",
    ),
    ("kind", "the kind of the lost events, where one is concerned"),
    ("count", "how many since the last `lost` line"),
];

/// The task that caused an event.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Thread group.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User.
    pub uid: u32,
    /// `comm`, as the kernel has it.
    pub comm: [u8; 16],
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What every event says, as the kernel sent it.
    pub envelope: Envelope,
    /// What this one says.
    pub detail: Detail,
}

impl Event {
    /// Decodes a record of the ring buffer; `None` if it is none of ours.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut envelope: Envelope = read(record)?;
        let kind = Kind::from_wire(envelope.kind)?;
        let detail = Detail::decode(kind, record.get(size_of::<Envelope>()..)?)?;
        // A socket that was disconnected keeps the address of the peer that it had, but not the port.
        let has_peer = !matches!(
            detail,
            Detail::Bound(_)
                | Detail::Listening(_)
                | Detail::State(abi::State {
                    newstate: abi::state::LISTEN,
                    ..
                })
        );
        if !has_peer && envelope.dport == 0 {
            envelope.daddr = UNSPECIFIED[usize::from(envelope.family == 6)];
        }
        Some(Self { envelope, detail })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.detail.kind()
    }

    /// The task, where the event ran in the one that caused it.
    pub fn task(&self) -> Option<Task> {
        let Envelope {
            pid,
            tid,
            uid,
            comm,
            flags,
            ..
        } = self.envelope;
        (flags & HAS_TASK != 0).then_some(Task { pid, tid, uid, comm })
    }

    /// Address of this end.
    pub fn laddr(&self) -> IpAddr {
        address(self.envelope.saddr, self.envelope.family)
    }

    /// Address of the other end.
    pub fn raddr(&self) -> IpAddr {
        address(self.envelope.daddr, self.envelope.family)
    }

    /// Whether its socket is known to be older than the trace.
    pub fn born_before(&self) -> bool {
        self.envelope.flags & BORN_BEFORE != 0
    }

    /// Which life of the socket it is, from the second on.
    pub fn life(&self) -> Option<u32> {
        (self.envelope.lives > 0).then(|| u32::from(self.envelope.lives) + 1)
    }

    /// An IPv6 socket that speaks IPv4.
    pub fn mapped(&self) -> bool {
        self.envelope.flags & MAPPED != 0
    }
}

/// Reads a plain structure from the front; the ring buffer aligns its records, a slice of bytes need not be.
fn read<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// No address, of IPv4 and of IPv6.
const UNSPECIFIED: [[u64; 2]; 2] = [[0, 0xffff_u32.to_be() as u64], [0; 2]];

/// The kernel side holds IPv4 as `::ffff:a.b.c.d`.
pub(crate) fn address(words: [u64; 2], family: u8) -> IpAddr {
    let bytes: [u8; 16] = bytemuck::cast(words);
    if family == 4 {
        IpAddr::V4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes))
    }
}

/// A figure that may be unknown.
fn known(value: u64) -> Option<u64> {
    (value != UNKNOWN).then_some(value)
}

/// Nanoseconds as milliseconds for people.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytemuck::Zeroable as _;
    use serde::{Serializer as _, ser::SerializeMap as _};
    use socklife_abi::step;

    use super::{DOCUMENTED, Detail, Documented, Envelope, Event, Kind, abi};
    use crate::kernel::reasons::Reasons;

    const QUEUES: abi::Queues = abi::Queues {
        listener: 1,
        syn_queue: 2,
        syn_queue_limit: 3,
        accept_queue: 4,
        accept_queue_limit: 5,
    };

    const HOLDER: abi::Holder = abi::Holder {
        pid: 41,
        fd: 7,
        comm: *b"serve\0\0\0\0\0\0\0\0\0\0\0",
    };

    /// A detail with every field known; what is one thing or another, is this one.
    fn full(kind: Kind, status: u32) -> Detail {
        match kind {
            Kind::Bound => Detail::Bound(abi::Bound {
                inode: 1,
                fd: 3,
                reserved: 0,
            }),
            Kind::Listening => Detail::Listening(abi::Listening {
                backlog_asked: 5,
                asked_known: 1,
                backlog: 4,
                fd: 3,
            }),
            Kind::Connect => Detail::Connect(abi::Connect {
                inode: 1,
                fd: 3,
                reserved: 0,
            }),
            Kind::Connected => Detail::Connected(abi::Connected { handshake_ns: 1 }),
            Kind::ConnectFailed => Detail::ConnectFailed(abi::ConnectFailed {
                elapsed_ns: 1,
                errno: 111,
                cause: abi::CAUSE_ERRNO,
                sender: [0, 0x0100_007f_ffff_0000],
                icmp: 4,
                icmp_type: 3,
                icmp_code: 13,
                reserved: [0; 5],
            }),
            Kind::Established => Detail::Established(abi::Established {}),
            Kind::Accepted => Detail::Accepted(abi::Accepted {
                queues: QUEUES,
                accept_wait_ns: 1,
                dead_ns: 1,
                fd: 7,
                dead: 1,
                errno: 104,
                reserved: 0,
            }),
            Kind::State => Detail::State(abi::State {
                oldstate: 2,
                newstate: 1,
            }),
            Kind::Closed => Detail::Closed(abi::Closed {
                lifetime_ns: 1,
                oldstate: 1,
                errno: 104,
                srtt_us8: 80,
                flags: abi::END_UNSEEN,
                timer: abi::timer::KEEPALIVE,
                ..abi::Closed::zeroed()
            }),
            Kind::SynQueued => Detail::SynQueued(abi::SynQueued { queues: QUEUES }),
            Kind::SynackSent => Detail::SynackSent(abi::SynackSent { queues: QUEUES }),
            Kind::SynackRetransmitted => Detail::SynackRetransmitted(abi::SynackRetransmitted {
                queues: QUEUES,
                half_open_ns: 1,
                retransmit: 1,
                flags: abi::BY_FASTOPEN | abi::DEFERRED,
            }),
            Kind::AcceptDeferred => Detail::AcceptDeferred(abi::AcceptDeferred {
                queues: QUEUES,
                half_open_ns: 1,
                timeouts: 2,
                reserved: 0,
            }),
            Kind::CookieSent => Detail::CookieSent(abi::CookieSent { queues: QUEUES }),
            Kind::CookieAccepted => Detail::CookieAccepted(abi::CookieAccepted { queues: QUEUES }),
            Kind::CookieRejected => Detail::CookieRejected(abi::CookieRejected { queues: QUEUES }),
            Kind::SynRefused => Detail::SynRefused(abi::SynRefused {
                queues: QUEUES,
                cause: abi::refusal::SYN_QUEUE_FULL,
                reserved: 0,
            }),
            Kind::HalfOpenEnded => Detail::HalfOpenEnded(abi::HalfOpenEnded {
                queues: QUEUES,
                half_open_ns: 1,
                cause: abi::ending::EXPIRED,
                synacks: 6,
                refusals: 1,
                deferred: 1,
            }),
            Kind::AcceptQueued => Detail::AcceptQueued(abi::AcceptQueued {
                queues: QUEUES,
                half_open_ns: 1,
                deferred_ns: 1,
                flags: abi::BY_FASTOPEN,
                refusals: 1,
            }),
            Kind::AcceptRefused => Detail::AcceptRefused(abi::AcceptRefused {
                queues: QUEUES,
                half_open_ns: 1,
                how: abi::REFUSED_COOKIE,
                reserved: 0,
            }),
            Kind::NeverAccepted => Detail::NeverAccepted(abi::NeverAccepted {
                listener: 1,
                accept_wait_ns: 1,
            }),
            Kind::Listener => Detail::Listener(abi::Listener {
                queues: QUEUES,
                totals: [1; abi::TOTALS],
                inode: 1,
                before: 1,
                fastopen_queue: 1,
                fastopen_queue_limit: 2,
                reserved: 0,
            }),
            Kind::AcceptFailed => Detail::AcceptFailed(abi::AcceptFailed {
                queues: QUEUES,
                limit: 12,
                errno: 24,
                fd: 3,
            }),
            Kind::FdOpened => Detail::FdOpened(abi::FdOpened {
                fd: 7,
                how: abi::how::RECEIVED,
                inode: 1,
            }),
            Kind::FdClosed => Detail::FdClosed(abi::FdClosed {
                fd: 7,
                left: 1,
                inode: 1,
            }),
            Kind::FdsClosed => Detail::FdsClosed(abi::FdsClosed { first: 3, last: 7 }),
            Kind::LastClose => Detail::LastClose(abi::LastClose {}),
            Kind::Touched => Detail::Touched(abi::Touched {
                what: abi::touch::READ,
                fd: 7,
                inode: 1,
            }),
            Kind::Forked => Detail::Forked(abi::Forked { child: 57, shared: 1 }),
            Kind::Executed => Detail::Executed(abi::Executed {
                open: [1; abi::EXECUTED_WORDS],
            }),
            Kind::Exited => Detail::Exited(abi::Exited { status, reserved: 0 }),
            Kind::Inherited => Detail::Inherited(abi::Inherited {
                child: 57,
                fd: 7,
                sockets: 2,
                holders: 2,
            }),
            Kind::HandedOff => Detail::HandedOff(abi::HandedOff {
                from: HOLDER,
                to: HOLDER,
                through: HOLDER,
                held_ns: 1,
                first_ns: 1,
                how: abi::handoff::FORK,
                first: abi::touch::READ,
                inode: 1,
                accepted: 1,
                reserved: 0,
            }),
            Kind::SkbDropped => Detail::SkbDropped(abi::SkbDropped {
                location: 1,
                reason: 2,
                seq: 1,
                len: 1,
                state: 1,
                tcp_flags: 0x18,
                flags: 0,
                reserved: [0; 6],
            }),
            Kind::Retransmitted => Detail::Retransmitted(abi::Retransmitted {
                seq: 1,
                len: 1,
                timeouts: 1,
                cause: abi::resend::TIMEOUT,
                state: 1,
                errno: 105,
                tcp_flags: 0x18,
                reserved: [0; 3],
            }),
            Kind::ResetSent => Detail::ResetSent(abi::ResetSent {
                reason: 1,
                state: 1,
                answers: 1,
                reserved: 0,
            }),
            Kind::ResetReceived => Detail::ResetReceived(abi::ResetReceived {
                state: 1,
                unread: 1,
                unacknowledged: 1,
                reserved: 0,
            }),
            Kind::RcvqFull => Detail::RcvqFull(abi::RcvqFull {
                reason: 1,
                len: 1,
                unread: 1,
                rmem_alloc: 1,
                rcvbuf: 1,
                reserved: 0,
            }),
            Kind::SndbufLimited => Detail::SndbufLimited(abi::SndbufLimited {
                waited_ns: 1,
                wmem_queued: 1,
                sndbuf: 1,
                unacknowledged: 1,
                errno: 11,
            }),
            Kind::WindowStalled => Detail::WindowStalled(abi::WindowStalled {
                unsent: 1,
                window: 0,
                probes: 1,
                reserved: 0,
            }),
            Kind::SkbStep => Detail::SkbStep(abi::SkbStep {
                since_ns: 1,
                headroom: if status == 0 { abi::UNKNOWN_DEPTH } else { 320 },
                moved: if status == 9 { -32 } else { 32 },
                gso_size: 1448,
                gso_segs: 2,
                tcp_header: 32,
                ip_header: 20,
                link_header: 14,
                ifindex: 1,
                place: step::place::READ,
                flags: step::MOVE_KNOWN | step::MERGED | step::ZERO_COPY,
                ..abi::SkbStep::zeroed()
            }),
            Kind::SkbAlloc => Detail::SkbAlloc(abi::SkbAlloc {
                skb: 1,
                caller: 1,
                bytes: 1,
                truesize: 1,
                direction: socklife_abi::skb::direction::SEND,
                reserved: 0,
            }),
            Kind::SkbFree => Detail::SkbFree(abi::SkbFree {
                skb: 1,
                caller: 1,
                lifetime_ns: 1,
                truesize: 1,
                direction: socklife_abi::skb::direction::RECEIVE,
            }),
            Kind::Finding => Detail::Finding(abi::Finding {
                holder: HOLDER,
                other: HOLDER,
                since_ns: 1,
                what: abi::finding::LISTENER_HELD,
                count: 2,
            }),
        }
    }

    /// Names for those that `full` has.
    fn name_reasons() {
        let reasons = |number| [(number, "NO_SOCKET".to_owned())].into();
        let known = Reasons {
            drops: reasons(2),
            resets: reasons(1),
            ..Reasons::default()
        };
        known.publish();
    }

    fn fields_of(kind: Kind, status: u32) -> BTreeMap<String, serde_json::Value> {
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut json);
        let mut map = serializer.serialize_map(None).expect("a map");
        full(kind, status).json(&mut map).expect("it serializes");
        map.end().expect("it ends");
        serde_json::from_slice(&json).expect("JSON")
    }

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_written() {
        name_reasons();
        for Documented { kind, fields, .. } in DOCUMENTED {
            // An end by exit, one by a signal, and a call without an sk_buff.
            let written: BTreeMap<_, _> = [256, 9, 0]
                .into_iter()
                .flat_map(|status| fields_of(*kind, status))
                .collect();
            let written: Vec<_> = written.keys().map(String::as_str).collect();
            let mut documented: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
            documented.sort_unstable();
            assert_eq!(written, documented, "{}", kind.name());
        }
    }

    #[test]
    fn what_is_not_ours_is_not_decoded() {
        let mut envelope = Envelope::zeroed();
        assert!(Event::decode(bytemuck::bytes_of(&envelope)).is_none(), "kind 0");
        envelope.kind = Kind::LastClose as u8;
        assert!(Event::decode(bytemuck::bytes_of(&envelope)).is_some());
        assert!(
            Event::decode(&bytemuck::bytes_of(&envelope)[1..]).is_none(),
            "too short"
        );
        envelope.kind = Kind::Closed as u8;
        assert!(Event::decode(bytemuck::bytes_of(&envelope)).is_none(), "no payload");
    }
}
