//! The events: one list, one envelope, one payload each. This is the wire format of the ring buffer.

use bytemuck::{Pod, Zeroable};

use super::{skb::COUNTED, table::DROPS_COUNTED};

pub use super::data::{
    NO_REASON, RcvqFull, ResetReceived, ResetSent, Retransmitted, SENDING, SkbDropped, SndbufLimited, UNKNOWN_BYTES,
    WindowStalled, resend,
};
pub use super::step::SkbStep;

/// The one list of events: number on the wire, name of the payload, name in output.
///
/// `for_each_event!(m)` calls `m! { number => Payload "name", … }`. [`Kind`] comes from it, and in user space the
/// decoder, the output and the values of `--event`.
#[macro_export]
macro_rules! for_each_event {
    ($then:ident) => {
        $then! {
            1 => Bound "bound",
            2 => Listening "listening",
            3 => Connect "connect",
            4 => Connected "connected",
            5 => ConnectFailed "connect_failed",
            6 => Established "established",
            7 => Accepted "accepted",
            8 => State "state",
            9 => Closed "closed",
            10 => SynQueued "syn_queued",
            11 => SynackSent "synack_sent",
            12 => SynackRetransmitted "synack_retransmitted",
            13 => CookieSent "cookie_sent",
            14 => CookieAccepted "cookie_accepted",
            15 => CookieRejected "cookie_rejected",
            16 => SynRefused "syn_refused",
            17 => HalfOpenEnded "half_open_ended",
            18 => AcceptQueued "accept_queued",
            19 => AcceptRefused "accept_refused",
            20 => NeverAccepted "never_accepted",
            21 => Listener "listener",
            22 => FdOpened "fd_opened",
            23 => FdClosed "fd_closed",
            24 => FdsClosed "fds_closed",
            25 => LastClose "last_close",
            26 => Touched "touched",
            27 => Forked "forked",
            28 => Executed "executed",
            29 => Exited "exited",
            30 => Inherited "inherited",
            31 => HandedOff "handed_off",
            32 => Finding "finding",
            33 => SkbDropped "skb_dropped",
            34 => Retransmitted "retransmitted",
            35 => ResetSent "reset_sent",
            36 => ResetReceived "reset_received",
            37 => RcvqFull "rcvq_full",
            38 => SndbufLimited "sndbuf_limited",
            39 => WindowStalled "window_stalled",
            40 => SkbStep "skb_step",
            41 => SkbAlloc "skb_alloc",
            42 => SkbFree "skb_free",
            43 => AcceptFailed "accept_failed",
            44 => AcceptDeferred "accept_deferred",
        }
    };
}

macro_rules! kinds {
    ($($number:literal => $name:ident $text:literal,)*) => {
        /// What happened. The number is the one on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("`", $text, "`; see [`", stringify!($name), "`].")] $name = $number,)*
        }

        impl Kind {
            /// Every kind, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in output and in `--event`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// A set of kinds, one bit for each: [`Filter::events`](crate::config::Filter::events).
            #[must_use]
            pub const fn set(kinds: &[Self]) -> u64 {
                let (mut set, mut i) = (0, 0);
                while i < kinds.len() {
                    set |= 1 << kinds[i] as u8;
                    i += 1;
                }
                set
            }

            /// Whether it is in a set.
            #[must_use]
            pub const fn is_in(self, set: u64) -> bool {
                set & (1 << self as u8) != 0
            }

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_wire(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }

        $(impl Payload for $name { const KIND: Kind = Kind::$name; })*
    };
}

impl Kind {
    /// Kinds whose hooks run for each packet, and what is counted in place of events: nobody gets them who does not name
    /// them.
    pub const ON_REQUEST: u64 = Self::set(&[Self::SkbStep, Self::SkbAlloc, Self::SkbFree]) | DROPS_COUNTED | COUNTED;
}

/// Slots in a table indexed by the number of a [`Kind`].
pub const KINDS: usize = 64;

const _: () = {
    let mut i = 0;
    while i < Kind::ALL.len() {
        assert!((Kind::ALL[i] as usize) < KINDS);
        // Bits of `Filter::events` that are borrowed for what is counted.
        assert!(!Kind::ALL[i].is_in(DROPS_COUNTED | COUNTED));
        i += 1;
    }
    assert!(DROPS_COUNTED & COUNTED == 0);
};

/// A payload knows its kind, so that a record cannot be mislabelled.
pub trait Payload: Pod {
    /// The kind of the event that carries this payload.
    const KIND: Kind;
}

/// The task that caused the event is in `pid`, `tid`, `uid`, `comm`. Without it the event ran in softirq, or nobody knows.
pub const HAS_TASK: u8 = 1;
/// An `AF_INET6` socket that speaks IPv4 (`::ffff:a.b.c.d`).
pub const MAPPED: u8 = 2;
/// The socket is older than the trace. User space finds out, where it follows holders.
pub const BORN_BEFORE: u8 = 4;

/// A duration, or another 64-bit figure, that nobody knows.
pub const UNKNOWN: u64 = u64::MAX;

/// What every event says.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Envelope {
    /// `bpf_ktime_get_boot_ns`.
    pub time_ns: u64,
    /// The kernel's socket cookie; 0 while nobody asked for one.
    pub cookie: u64,
    /// This end; an IPv4 address is held as `::ffff:a.b.c.d`.
    pub saddr: [u64; 2],
    /// The other end, likewise.
    pub daddr: [u64; 2],
    /// `task_struct.comm`: 16 bytes that the task chose.
    pub comm: [u8; 16],
    /// Port of this end, host order.
    pub sport: u16,
    /// Port of the other end, host order.
    pub dport: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// `HAS_TASK`, `MAPPED`, `BORN_BEFORE`.
    pub flags: u8,
    /// The [`Program`](crate::program::Program) that saw it, and so the hook.
    pub via: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    /// CPU the program ran on.
    pub cpu: u32,
    /// Thread group, in the initial PID namespace.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Effective user as `bpf_get_current_uid_gid` has it.
    pub uid: u32,
    /// 4 or 6: the protocol on the wire.
    pub family: u8,
    /// Lives of this socket that ended before this one: connected, disconnected, connected again. User space counts
    /// them, where it follows holders.
    pub lives: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Envelope>() == 96);

/// A record in the ring buffer.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Record<P> {
    /// What every event says.
    pub envelope: Envelope,
    /// What this one says.
    pub payload: P,
}

/// bind(2) gave the socket a local address.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Bound {
    /// Inode of the socket, or 0.
    pub inode: u64,
    /// The descriptor, [`UNKNOWN_FD`] or [`NO_FD`].
    pub fd: i32,
    /// Zero.
    pub reserved: u32,
}

/// listen(2) succeeded.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Listening {
    /// The backlog that the program asked for; only with `asked_known`.
    pub backlog_asked: i32,
    /// 1 when `backlog_asked` is known.
    pub asked_known: u32,
    /// `sk_max_ack_backlog`: what it got.
    pub backlog: u32,
    /// The descriptor, or [`UNKNOWN_FD`].
    pub fd: i32,
}

/// connect(2) chose the four-tuple and is about to send the SYN.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Connect {
    /// Inode of the socket, or 0.
    pub inode: u64,
    /// The descriptor, [`UNKNOWN_FD`] or [`NO_FD`].
    pub fd: i32,
    /// Zero.
    pub reserved: u32,
}

/// The connecting side is ESTABLISHED.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Connected {
    /// Since `connect`, or [`UNKNOWN`].
    pub handshake_ns: u64,
}

/// `errno` says why.
pub const CAUSE_ERRNO: u32 = 0;
/// The caller closed the socket before the handshake was done.
pub const CAUSE_CLOSED_BY_CALLER: u32 = 1;
/// The caller gave the connect up with `connect(AF_UNSPEC)`.
pub const CAUSE_DISCONNECTED: u32 = 2;
/// The kernel refused before it sent a SYN; `errno` says why.
pub const CAUSE_LOCAL: u32 = 3;
/// The error was gone when we looked.
pub const CAUSE_UNKNOWN: u32 = 4;

/// A connect ended without a connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectFailed {
    /// Since `connect`, or [`UNKNOWN`].
    pub elapsed_ns: u64,
    /// Positive errno, or 0.
    pub errno: u32,
    /// One of the `CAUSE_` constants.
    pub cause: u32,
    /// Who sent the ICMP that ended it; an IPv4 address is held as `::ffff:a.b.c.d`.
    pub sender: [u64; 2],
    /// 4 or 6: there was one.
    pub icmp: u8,
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// The accepting side is ESTABLISHED: the handshake is done, accept(2) has not taken it yet.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Established {}

/// accept(2) took the connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Accepted {
    /// The listener, after it.
    pub queues: Queues,
    /// Since `accept_queued`, or [`UNKNOWN`].
    pub accept_wait_ns: u64,
    /// For how long it had been dead, or [`UNKNOWN`]: also where it lives.
    pub dead_ns: u64,
    /// The new file descriptor, or −1.
    pub fd: i32,
    /// 1: it was dead when accept(2) took it.
    pub dead: u32,
    /// `sk_err` of one that was dead, positive: what ended it.
    pub errno: u32,
    /// Zero.
    pub reserved: u32,
}

/// The errnos that failed accepts are counted by.
pub mod accept_failure {
    /// Every one by its place; the first stands for all others.
    pub const NAMES: [&str; 9] = [
        "other",
        "EMFILE",
        "ENFILE",
        "ENOBUFS",
        "ENOMEM",
        "EINVAL",
        "EFAULT",
        "ECONNABORTED",
        "EPERM",
    ];

    /// The place of an errno, of which Linux has one set of numbers for these.
    #[must_use]
    pub const fn place(errno: u32) -> u32 {
        match errno {
            24 => 1,
            23 => 2,
            105 => 3,
            12 => 4,
            22 => 5,
            14 => 6,
            103 => 7,
            1 => 8,
            _ => 0,
        }
    }
}

/// accept(2) failed, and it was not for want of a connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AcceptFailed {
    /// The listener.
    pub queues: Queues,
    /// `RLIMIT_NOFILE` (soft) of the process where the errno is EMFILE, or [`UNKNOWN`].
    pub limit: u64,
    /// Positive errno.
    pub errno: u32,
    /// The descriptor of the listener, or [`UNKNOWN_FD`].
    pub fd: i32,
}

/// `sock:inet_sock_set_state`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct State {
    /// The state that ends.
    pub oldstate: u32,
    /// The state that begins.
    pub newstate: u32,
}

/// A FIN of the peer arrived (`SOCK_DONE`).
pub const FIN_RECEIVED: u32 = 1;
/// Nobody saw when the connection ended, nor in which state it was.
pub const END_UNSEEN: u32 = 2;
/// Nor what was counted of it.
pub const UNCOUNTED: u32 = 4;

/// The connection is over: its socket is in CLOSE (what remains may be a timewait sock).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Closed {
    /// Since the first event of this socket, or [`UNKNOWN`].
    pub lifetime_ns: u64,
    /// `tcp_sock.bytes_received`; counts the peer's FIN.
    pub bytes_received: u64,
    /// `tcp_sock.bytes_sent`; counts retransmitted bytes again.
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_retrans`.
    pub bytes_retrans: u64,
    /// `tcp_sock.segs_in`.
    pub segs_in: u32,
    /// `tcp_sock.segs_out`.
    pub segs_out: u32,
    /// `tcp_sock.total_retrans`.
    pub retransmits: u32,
    /// `tcp_sock.srtt_us`: eighths of a microsecond, 0 without a measurement.
    pub srtt_us8: u32,
    /// The state before CLOSE: it tells who closed first.
    pub oldstate: u32,
    /// `sk_err`, positive.
    pub errno: u32,
    /// `FIN_RECEIVED`, `END_UNSEEN`, `UNCOUNTED`.
    pub flags: u32,
    /// One of [`timer`].
    pub timer: u32,
}

/// Which timer gave a connection up.
pub mod timer {
    /// None did, or nobody knows.
    pub const NONE: u32 = 0;
    /// Keepalive: nothing was in flight, and probes were not answered.
    pub const KEEPALIVE: u32 = 1;
    /// What was sent again and again was not acknowledged.
    pub const RETRANSMISSION: u32 = 2;
    /// The peer's window was closed, and probes of it were not answered.
    pub const WINDOW_PROBE: u32 = 3;
    /// The same as the first two, for as long as `TCP_USER_TIMEOUT` says.
    pub const USER_TIMEOUT: u32 = 4;

    /// Every timer, by its number.
    pub const NAMES: [&str; 5] = ["none", "keepalive", "retransmission", "window_probe", "user_timeout"];
}

/// A depth or limit that nobody knows.
pub const UNKNOWN_DEPTH: u32 = u32::MAX;

/// A listener's two queues at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Queues {
    /// Cookie of the listener, or 0.
    pub listener: u64,
    /// Requests in the SYN queue: `icsk_accept_queue.qlen`, or [`UNKNOWN_DEPTH`].
    pub syn_queue: u32,
    /// How many it takes before a SYN is refused, or [`UNKNOWN_DEPTH`]: `sk_max_ack_backlog`; with SYN cookies off, no
    /// more than three quarters of `tcp_max_syn_backlog` (`tcp_conn_request`).
    pub syn_queue_limit: u32,
    /// Children in the accept queue: `sk_ack_backlog`, or [`UNKNOWN_DEPTH`].
    pub accept_queue: u32,
    /// `sk_max_ack_backlog`, or [`UNKNOWN_DEPTH`].
    pub accept_queue_limit: u32,
}

impl Queues {
    /// Nobody knows which listener it was.
    pub const UNKNOWN: Self = Self {
        listener: 0,
        syn_queue: UNKNOWN_DEPTH,
        syn_queue_limit: UNKNOWN_DEPTH,
        accept_queue: UNKNOWN_DEPTH,
        accept_queue_limit: UNKNOWN_DEPTH,
    };
}

/// A `request_sock` joined the SYN queue: the connection is half-open.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SynQueued {
    /// The listener, with this request.
    pub queues: Queues,
}

/// The first SYN-ACK of a half-open connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SynackSent {
    /// The listener.
    pub queues: Queues,
}

/// A SYN-ACK was sent again.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SynackRetransmitted {
    /// The listener.
    pub queues: Queues,
    /// Since `syn_queued`, or [`UNKNOWN`].
    pub half_open_ns: u64,
    /// Which retransmission: 1 is the first (`request_sock.num_retrans` after it).
    pub retransmit: u32,
    /// `DEFERRED`, `BY_FASTOPEN`.
    pub flags: u32,
}

/// The final ACK of a handshake came without data, and the listener waits for data (`TCP_DEFER_ACCEPT`).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AcceptDeferred {
    /// The listener.
    pub queues: Queues,
    /// Since `syn_queued`, or [`UNKNOWN`].
    pub half_open_ns: u64,
    /// How many timeouts of the SYN-ACK it may wait (`rskq_defer_accept`).
    pub timeouts: u32,
    /// Zero.
    pub reserved: u32,
}

/// A SYN was answered with a SYN cookie: nothing was queued.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CookieSent {
    /// The listener.
    pub queues: Queues,
}

/// An ACK brought back a valid SYN cookie, and a child was made of it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CookieAccepted {
    /// The listener, before the child is queued.
    pub queues: Queues,
}

/// An ACK that was to be a SYN cookie and is none.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CookieRejected {
    /// The listener.
    pub queues: Queues,
}

/// Why a SYN was refused.
pub mod refusal {
    #![allow(missing_docs, reason = "named below")]
    pub const OTHER: u32 = 0;
    pub const SYN_QUEUE_FULL: u32 = 1;
    pub const ACCEPT_QUEUE_FULL: u32 = 2;
    pub const NO_MEMORY: u32 = 3;
    /// SYN cookies are off, and the last quarter of `tcp_max_syn_backlog` is kept for peers that are known to be alive.
    pub const MAX_SYN_BACKLOG: u32 = 4;

    /// Every cause, by its number.
    pub const NAMES: [&str; 5] = [
        "other",
        "syn_queue_full",
        "accept_queue_full",
        "no_memory",
        "max_syn_backlog",
    ];
}

/// A SYN was dropped. The kernel frees it as if it had been used up: no drop reason tells of it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SynRefused {
    /// The listener as the SYN found it.
    pub queues: Queues,
    /// One of [`refusal`].
    pub cause: u32,
    /// Zero.
    pub reserved: u32,
}

/// How a half-open connection ended without a handshake.
pub mod ending {
    #![allow(missing_docs, reason = "named below")]
    /// Not seen; the request is gone.
    pub const UNKNOWN: u32 = 0;
    /// No final ACK came for as long as SYN-ACKs were sent again.
    pub const EXPIRED: u32 = 1;
    /// The peer sent a RST, or a SYN that does not belong.
    pub const RESET: u32 = 2;
    pub const LISTENER_CLOSED: u32 = 3;
    /// ICMP, `ss --kill`.
    pub const CANCELLED: u32 = 4;
    /// The final ACK met a full accept queue, and `tcp_abort_on_overflow` is on.
    pub const ACCEPT_QUEUE_FULL: u32 = 5;

    /// Every ending, by its number.
    pub const NAMES: [&str; 6] = [
        "unknown",
        "expired",
        "reset",
        "listener_closed",
        "cancelled",
        "accept_queue_full",
    ];
}

/// A half-open connection ended without a handshake.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct HalfOpenEnded {
    /// The listener, after it.
    pub queues: Queues,
    /// Since `syn_queued`, or [`UNKNOWN`].
    pub half_open_ns: u64,
    /// One of [`ending`].
    pub cause: u32,
    /// SYN-ACKs that were sent; 0 where nobody knows.
    pub synacks: u32,
    /// How often its final ACK met a full accept queue.
    pub refusals: u32,
    /// 1: its final ACK had come, and accept was deferred.
    pub deferred: u32,
}

/// The child came of a SYN cookie: it never stood in the SYN queue.
pub const BY_COOKIE: u32 = 1;
/// TCP Fast Open: the SYN brought a cookie of that kind, and the child was queued before the handshake.
pub const BY_FASTOPEN: u32 = 2;
/// Its final ACK has come, and accept is deferred.
pub const DEFERRED: u32 = 4;

/// The handshake is done and the child stands in the accept queue.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AcceptQueued {
    /// The listener, with this child.
    pub queues: Queues,
    /// Since `syn_queued`, or [`UNKNOWN`].
    pub half_open_ns: u64,
    /// Of that, since `accept_deferred`; or [`UNKNOWN`].
    pub deferred_ns: u64,
    /// `BY_COOKIE`, `BY_FASTOPEN`.
    pub flags: u32,
    /// How often its final ACK met a full accept queue before.
    pub refusals: u32,
}

/// The kernel ignores the ACK: the peer believes that it is connected, and the SYN-ACK is sent again.
pub const REFUSED_IGNORED: u32 = 0;
/// `tcp_abort_on_overflow`: the kernel resets the connection.
pub const REFUSED_RESET: u32 = 1;
/// The ACK brought back a SYN cookie; it is ignored.
pub const REFUSED_COOKIE: u32 = 2;

/// The final ACK of a handshake met a full accept queue: told once for a connection, later ones are counted.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AcceptRefused {
    /// The listener.
    pub queues: Queues,
    /// Since `syn_queued`, or [`UNKNOWN`].
    pub half_open_ns: u64,
    /// One of the `REFUSED_` constants.
    pub how: u32,
    /// Zero.
    pub reserved: u32,
}

/// The listener was closed over a child that waited for accept(2).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NeverAccepted {
    /// Cookie of the listener, or 0.
    pub listener: u64,
    /// Since `accept_queued`, or [`UNKNOWN`].
    pub accept_wait_ns: u64,
}

/// What is counted of each listener, and of each network namespace, in the kernel: single events may be lost or held back,
/// these are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named after the events")]
pub enum Total {
    SynQueued,
    CookieSent,
    CookieAccepted,
    CookieRejected,
    /// Five, by [`refusal`].
    SynRefused,
    /// Six, by [`ending`].
    HalfOpenEnded = 9,
    AcceptQueued = 15,
    Accepted,
    /// Each ACK, also the repeated ones.
    AcceptRefused,
    NeverAccepted,
    /// ACKs with a valid cookie, also those that met a full accept queue.
    CookieReceived,
    /// SYNs for which cookies were turned on because the SYN queue was full, or always are.
    CookieMode,
    /// Handshakes that failed, as the kernel counts them (`AttemptFails`), but for those in a SYN queue.
    ConnectFailed,
    /// Nine, by [`accept_failure`].
    AcceptFailed,
    /// Children that the peer reset, or that timed out, while they waited for accept(2). accept(2) takes them all the same.
    DeadInQueue = 31,
    /// Children that somebody has, though nobody saw accept(2) take them.
    AcceptUnseen,
    /// SYNs with data for which Fast Open's queue had no room.
    FastopenRefused,
    AcceptDeferred,
}

/// How many [`Total`]s there are.
pub const TOTALS: usize = 35;

/// A listener's queues, and all that was counted of it so far. Made from the kernel's table, not at a hook.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Listener {
    /// The listener, when its queues last changed.
    pub queues: Queues,
    /// By [`Total`].
    pub totals: [u64; TOTALS],
    /// Inode of the socket, or 0.
    pub inode: u64,
    /// 1: the listener was there before the trace.
    pub before: u32,
    /// Children of TCP Fast Open whose handshake is not done (`fastopenq.qlen`), or [`UNKNOWN_DEPTH`].
    pub fastopen_queue: u32,
    /// How many there may be: what `TCP_FASTOPEN` was set to; 0 where it was not.
    pub fastopen_queue_limit: u32,
    /// Zero.
    pub reserved: u32,
}

impl Listener {
    /// One figure.
    #[must_use]
    pub const fn total(&self, total: Total) -> u64 {
        self.totals[total as usize]
    }

    /// SYNs refused for a cause of [`refusal`].
    #[must_use]
    pub const fn refused(&self, cause: u32) -> u64 {
        self.totals[Total::SynRefused as usize + cause as usize]
    }

    /// Accepts that failed, by [`accept_failure`].
    #[must_use]
    pub const fn accept_failed(&self, place: u32) -> u64 {
        self.totals[Total::AcceptFailed as usize + place as usize]
    }

    /// Half-open connections that had an ending of [`ending`].
    #[must_use]
    pub const fn ended(&self, cause: u32) -> u64 {
        self.totals[Total::HalfOpenEnded as usize + cause as usize]
    }
}

for_each_event!(kinds);

const _: () = {
    assert!(size_of::<Listening>() == 16);
    assert!(size_of::<ConnectFailed>() == 40);
    assert!(size_of::<Queues>() == 24);
    assert!(size_of::<Accepted>() == 56);
    assert!(size_of::<AcceptFailed>() == 40);
    assert!(size_of::<SynackRetransmitted>() == 40);
    assert!(size_of::<SynRefused>() == 32);
    assert!(size_of::<HalfOpenEnded>() == 48);
    assert!(size_of::<AcceptQueued>() == 48);
    assert!(size_of::<AcceptRefused>() == 40);
    assert!(size_of::<NeverAccepted>() == 16);
    assert!(size_of::<Listener>() == 24 + 8 * TOTALS + 24);
    assert!(Total::HalfOpenEnded as usize == Total::SynRefused as usize + refusal::NAMES.len());
    assert!(Total::AcceptQueued as usize == Total::HalfOpenEnded as usize + ending::NAMES.len());
    assert!(Total::DeadInQueue as usize == Total::AcceptFailed as usize + accept_failure::NAMES.len());
    assert!(Total::AcceptDeferred as usize + 1 == TOTALS);
    assert!(size_of::<State>() == 8);
    assert!(size_of::<Closed>() == 64);
};

/// TCP states by the kernel's numbers (`include/net/tcp_states.h`).
pub mod state {
    #![allow(missing_docs, reason = "the kernel's own names")]
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    pub const SYN_RECV: u32 = 3;
    pub const FIN_WAIT1: u32 = 4;
    pub const FIN_WAIT2: u32 = 5;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    pub const CLOSE_WAIT: u32 = 8;
    pub const LAST_ACK: u32 = 9;
    pub const LISTEN: u32 = 10;
    pub const CLOSING: u32 = 11;
    pub const NEW_SYN_RECV: u32 = 12;

    /// The kernel's name of a state.
    #[must_use]
    pub const fn name(state: u32) -> Option<&'static str> {
        Some(match state {
            ESTABLISHED => "ESTABLISHED",
            SYN_SENT => "SYN_SENT",
            SYN_RECV => "SYN_RECV",
            FIN_WAIT1 => "FIN_WAIT1",
            FIN_WAIT2 => "FIN_WAIT2",
            TIME_WAIT => "TIME_WAIT",
            CLOSE => "CLOSE",
            CLOSE_WAIT => "CLOSE_WAIT",
            LAST_ACK => "LAST_ACK",
            LISTEN => "LISTEN",
            CLOSING => "CLOSING",
            NEW_SYN_RECV => "NEW_SYN_RECV",
            _ => return None,
        })
    }
}

/// How a process came to hold a socket.
pub mod how {
    #![allow(missing_docs, reason = "named below")]
    /// Not seen.
    pub const UNKNOWN: u32 = 0;
    /// socket(2).
    pub const OPENED: u32 = 1;
    pub const ACCEPTED: u32 = 2;
    /// dup(2), dup2(2), dup3(2), `F_DUPFD`.
    pub const DUPLICATED: u32 = 3;
    /// `SCM_RIGHTS`, pidfd_getfd(2).
    pub const RECEIVED: u32 = 4;
    /// fork(2) copied the table of descriptors.
    pub const INHERITED: u32 = 5;
    /// It held it before the trace began.
    pub const BEFORE: u32 = 6;

    /// Every way, by its number.
    pub const NAMES: [&str; 7] = [
        "unknown",
        "opened",
        "accepted",
        "duplicated",
        "received",
        "inherited",
        "before",
    ];
}

/// A descriptor that nobody knows.
pub const UNKNOWN_FD: i32 = -1;
/// The process has no descriptor of it: it is io_uring's (a direct descriptor).
pub const NO_FD: i32 = -2;

/// A process has one more descriptor of the socket.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FdOpened {
    /// The descriptor.
    pub fd: i32,
    /// One of [`how`]; what the kernel side does not know, it leaves to user space.
    pub how: u32,
    /// Inode of the socket, or 0.
    pub inode: u64,
}

/// A process has one descriptor of the socket less.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FdClosed {
    /// The descriptor, or [`UNKNOWN_FD`].
    pub fd: i32,
    /// How many descriptors of the socket are left, in all processes, or [`UNKNOWN_DEPTH`]; the kernel side leaves it to user space.
    pub left: u32,
    /// Inode of the socket, or 0.
    pub inode: u64,
}

/// close_range(2).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FdsClosed {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// Nobody has a descriptor of the socket any more: from here on the kernel ends the connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LastClose {}

/// What a process does with a socket.
pub mod touch {
    #![allow(missing_docs, reason = "named below")]
    /// Nothing yet.
    pub const NONE: u32 = 0;
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    /// Of a listener.
    pub const ACCEPT: u32 = 3;

    /// Each, by its number.
    pub const NAMES: [&str; 4] = ["none", "read", "write", "accept"];
}

/// A process reads or writes where another did so before, or nobody.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Touched {
    /// One of [`touch`].
    pub what: u32,
    /// The descriptor, [`UNKNOWN_FD`] or [`NO_FD`].
    pub fd: i32,
    /// Inode of the socket, or 0.
    pub inode: u64,
}

/// A process that has held a socket made another process.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Forked {
    /// The new process.
    pub child: u32,
    /// 1: both have one table of descriptors (`CLONE_FILES`).
    pub shared: u32,
}

/// Words of descriptors that [`Executed`] tells of.
pub const EXECUTED_WORDS: usize = 4;

/// A process that has held a socket runs another program.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Executed {
    /// Which of its first descriptors are open, one bit for each.
    pub open: [u64; EXECUTED_WORDS],
}

/// A process that has held a socket ends: its last thread does.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Exited {
    /// As wait(2) has it.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}

/// The child of a fork holds a socket.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Inherited {
    /// The child.
    pub child: u32,
    /// The descriptor, or [`UNKNOWN_FD`].
    pub fd: i32,
    /// How many sockets the child inherited in all.
    pub sockets: u32,
    /// How many descriptors of this socket there are now, in all processes.
    pub holders: u32,
}

/// A process, as somebody else's event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Holder {
    /// Thread group.
    pub pid: u32,
    /// The descriptor, or [`UNKNOWN_FD`].
    pub fd: i32,
    /// Its name.
    pub comm: [u8; 16],
}

/// How a socket came to its new owner.
pub mod handoff {
    #![allow(missing_docs, reason = "named below")]
    pub const UNKNOWN: u32 = 0;
    pub const FORK: u32 = 1;
    pub const FD_PASSING: u32 = 2;
    /// By fork(2), if it is another process, and then execve(2).
    pub const EXEC: u32 = 3;
    /// It has it from accept(2) itself, and had it all along.
    pub const ACCEPTED: u32 = 4;
    /// The same from socket(2).
    pub const OPENED: u32 = 5;

    /// Every way, by its number.
    pub const NAMES: [&str; 6] = ["unknown", "fork", "fd_passing", "exec", "accepted", "opened"];
}

/// Another process uses the socket now.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct HandedOff {
    /// Who used it before.
    pub from: Holder,
    /// Who uses it now.
    pub to: Holder,
    /// Who gave it to `to`, by its fork(2): another than `from`, if `to` is a grandchild. Process 0 where nobody knows.
    pub through: Holder,
    /// From when `from` got it until `to` did, or [`UNKNOWN`].
    pub held_ns: u64,
    /// From then to its first read or write, or [`UNKNOWN`].
    pub first_ns: u64,
    /// One of [`handoff`].
    pub how: u32,
    /// What it did first: one of [`touch`].
    pub first: u32,
    /// Inode of the socket, or 0.
    pub inode: u64,
    /// 1: `from` has it from accept(2).
    pub accepted: u32,
    /// Zero.
    pub reserved: u32,
}

/// An `sk_buff` was allocated for a connection; it is told once it is known whose it is.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SkbAlloc {
    /// Its address: `skb_free` names it again.
    pub skb: u64,
    /// Return address of the allocation.
    pub caller: u64,
    /// Bytes that were asked for, or [`UNKNOWN_DEPTH`].
    pub bytes: u32,
    /// `sk_buff.truesize` at the allocation.
    pub truesize: u32,
    /// One of [`direction`](crate::skb::direction).
    pub direction: u32,
    /// Zero.
    pub reserved: u32,
}

/// An `sk_buff` of a connection is gone.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SkbFree {
    /// As in `skb_alloc`.
    pub skb: u64,
    /// Return address of the allocation.
    pub caller: u64,
    /// Since the allocation.
    pub lifetime_ns: u64,
    /// `sk_buff.truesize` at the allocation.
    pub truesize: u32,
    /// One of [`direction`](crate::skb::direction).
    pub direction: u32,
}

/// What is wrong.
pub mod finding {
    #![allow(missing_docs, reason = "named below")]
    /// Children serve connections and still hold the listener that their parent accepts from.
    pub const LISTENER_HELD: u32 = 0;
    /// Who accepted the connection and gave it away never closed it.
    pub const NEVER_CLOSED: u32 = 1;
    /// Who used the socket closed it, and a process that never touched it keeps it open.
    pub const KEPT_OPEN: u32 = 2;
    /// A child ended and its parent does not wait for it.
    pub const ZOMBIE: u32 = 3;
    /// Both ends of the connection are one socket: nobody listened on the port, and the kernel chose it as the port of
    /// this end.
    pub const CONNECTED_TO_ITSELF: u32 = 4;

    /// Each, by its number.
    pub const NAMES: [&str; 5] = [
        "listener_held",
        "never_closed",
        "kept_open",
        "zombie",
        "connected_to_itself",
    ];
}

/// Something is wrong with who holds a socket.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Finding {
    /// Who is to blame.
    pub holder: Holder,
    /// Who had it before, or the parent; process 0 where nobody knows.
    pub other: Holder,
    /// For how long it has been so.
    pub since_ns: u64,
    /// One of [`finding`].
    pub what: u32,
    /// Of how many processes it is true; `holder` is the first.
    pub count: u32,
}
