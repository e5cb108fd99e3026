//! The events: one list, one envelope, one payload each. This is the wire format of the ring buffer.

use bytemuck::{Pod, Zeroable};

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

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_wire(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }

        $(impl Payload for $name { const KIND: Kind = Kind::$name; })*
    };
}

/// Slots in a table indexed by the number of a [`Kind`].
pub const KINDS: usize = 16;

const _: () = {
    let mut i = 0;
    while i < Kind::ALL.len() {
        assert!((Kind::ALL[i] as usize) < KINDS);
        i += 1;
    }
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
    /// The [`Program`](crate::program::Program) that saw it.
    pub via: u8,
    /// `HAS_TASK`, `MAPPED`.
    pub flags: u8,
    /// 4 or 6: the protocol on the wire.
    pub family: u8,
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
    /// Zero.
    pub reserved: u32,
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
pub struct Bound {}

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
    /// Zero.
    pub reserved: u32,
}

/// connect(2) chose the four-tuple and is about to send the SYN.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Connect {}

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
}

/// The accepting side is ESTABLISHED: the handshake is done, accept(2) has not taken it yet.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Established {}

/// accept(2) took the connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Accepted {
    /// Cookie of the listener, or 0.
    pub listener: u64,
    /// The new file descriptor, or −1.
    pub fd: i32,
    /// Zero.
    pub reserved: u32,
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
    /// `FIN_RECEIVED`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

for_each_event!(kinds);

const _: () = {
    assert!(size_of::<Listening>() == 16);
    assert!(size_of::<ConnectFailed>() == 16);
    assert!(size_of::<Accepted>() == 16);
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
