//! What stands in the tables that both sides read.

use bytemuck::{Pod, Zeroable};

use crate::event::{Queues, TOTALS};

/// A half-open connection: its four-tuple, and where. IPv4 is held as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RequestKey {
    /// This end.
    pub saddr: [u64; 2],
    /// The other end.
    pub daddr: [u64; 2],
    /// Port of this end, host order.
    pub sport: u16,
    /// Port of the other end, host order.
    pub dport: u16,
    /// Inode of the network namespace.
    pub netns: u32,
}

/// What is remembered of a half-open connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Request {
    /// When it joined the SYN queue, on the boot clock; 0 where nobody knows.
    pub queued_ns: u64,
    /// Address of its `request_sock`.
    pub req: u64,
    /// When it was last seen, in seconds of the boot clock.
    pub seen_s: u32,
    /// How often its final ACK met a full accept queue.
    pub refusals: u16,
    /// SYN-ACKs that were sent, as far as they were seen.
    pub synacks: u8,
    /// Zero.
    pub reserved: u8,
    /// Microseconds from there to its final ACK, where accept was deferred then; 0: it was not.
    pub deferred_us: u32,
    /// Zero.
    pub reserved2: u32,
}

// A SYN flood fills the table as far as the backlogs allow: what one takes is bounded.
const _: () = assert!(size_of::<RequestKey>() + size_of::<Request>() == 72);

/// A listener: who it is, and what was counted of it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tally {
    /// Its queues when they last changed.
    pub queues: Queues,
    /// By [`Total`](crate::event::Total).
    pub totals: [u64; TOTALS],
    /// Its address.
    pub saddr: [u64; 2],
    /// Inode of the socket.
    pub inode: u64,
    /// Its port, host order.
    pub sport: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1: it was there before the trace.
    pub before: u8,
    /// Inode of the network namespace; 0: the rest is not written yet.
    pub netns: u32,
    /// The second, of the boot clock, of which `shown` tells.
    pub second: u32,
    /// How many events of the SYN path were shown one by one in that second.
    pub shown: u32,
    /// Children of TCP Fast Open whose handshake is not done.
    pub fastopen_queue: u32,
    /// How many there may be.
    pub fastopen_queue_limit: u32,
}

const _: () = assert!(size_of::<Tally>() == 24 + 8 * TOTALS + 48);

/// An address that somebody listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ListenKey {
    /// The address; all zeroes, or `::ffff:0.0.0.0`, for any.
    pub saddr: [u64; 2],
    /// Inode of the network namespace.
    pub netns: u32,
    /// The port, host order.
    pub sport: u32,
}

/// Who listens there.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Listening {
    /// Address of the sock; of the last one where there are several.
    pub sk: u64,
    /// How many there are: more than one share it by `SO_REUSEPORT`.
    pub count: u64,
}

/// Asked for in place of the event `skb_dropped`: the kernel side counts, and sends nothing.
pub const DROPS_COUNTED: u64 = 1 << 62;

/// What [`DropCount`] is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct DropPlace {
    /// The address in the kernel that dropped it.
    pub location: u64,
    /// As in [`SkbDropped`](crate::event::SkbDropped).
    pub reason: u32,
    /// [`SENDING`](crate::event::SENDING), or 0.
    pub flags: u32,
}

/// What was dropped there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DropCount {
    /// Segments.
    pub segments: u64,
    /// Bytes of data in them.
    pub bytes: u64,
}

/// How many segments are followed. All zeroes follows none: user space says so when every hook is attached.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Following {
    /// How many in all.
    pub most: u64,
    /// How many so far.
    pub started: u64,
    /// How many in a second.
    pub rate: u32,
    /// The second, of the boot clock, of which `shown` tells.
    pub second: u32,
    /// How many in that second.
    pub shown: u32,
    /// Zero.
    pub reserved: u32,
}

/// What is remembered of a socket. Each flag is a byte of its own: two CPUs that set two of them do not undo each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Life {
    /// When it began; only with `active` or `established`.
    pub birth_ns: u64,
    /// When this child was put into the accept queue; 0 where nobody knows.
    pub queued_ns: u64,
    /// Address of the listener that this is a child of; 0 where nobody knows.
    pub listener: u64,
    /// Whose it is: an address is used again. 0 while nobody knows.
    pub cookie: u64,
    /// This end; with a `phase`.
    pub saddr: [u64; 2],
    /// The other end.
    pub daddr: [u64; 2],
    /// Port of this end, host order.
    pub sport: u16,
    /// Port of the other end, host order.
    pub dport: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    /// One of [`phase`].
    pub phase: u8,
    /// 4 or 6; with 128 where it is a v4-mapped one.
    pub family: u8,
    /// This end called connect(2).
    pub active: u8,
    /// This end is a listener's child, and its handshake is done.
    pub established: u8,
    /// `accepted` was told.
    pub accepted: u8,
    /// connect(2) is still running and got as far as the SYN.
    pub attempt: u8,
    /// The task of `--pid` was seen with it.
    pub wanted: u8,
    /// `accept_queued` was told.
    pub queued: u8,
    /// The process that read last, and the one that wrote last; 0 for nobody.
    pub reader: u32,
    /// See `reader`.
    pub writer: u32,
}

const _: () = assert!(size_of::<Life>() == 88);

/// What ICMP said of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Refusal {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Who sent it; an IPv4 address is held as `::ffff:a.b.c.d`.
    pub sender: [u64; 2],
    /// What it means to the process, positive.
    pub errno: u32,
    /// 4 or 6.
    pub version: u8,
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
    /// Zero.
    pub reserved: u8,
}

/// How far a connection has come.
pub mod phase {
    /// Nobody knows, or it is none.
    pub const NONE: u8 = 0;
    /// connect(2) sent a SYN.
    pub const CONNECTING: u8 = 1;
    /// A listener's child was made.
    pub const CHILD: u8 = 2;
    /// It was connected, and not closed.
    pub const OPEN: u8 = 3;
    /// Its end was told.
    pub const OVER: u8 = 4;
}

/// What the books of a network namespace count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Entry {
    /// Connects that began.
    Connects,
    /// … that were there before the trace.
    OlderConnects,
    /// … that became a connection.
    Connected,
    /// … that did not.
    ConnectEnded,
    /// … of which nobody saw the beginning: connected, or ended.
    NoConnect,
    /// Children that were made (`LISTEN → SYN_RECV`).
    Children,
    /// … whose handshake was done.
    Established,
    /// … that the kernel gave up before.
    ChildEnded,
    /// … that nobody saw made: established, or given up.
    NoChild,
    /// Connections that were there before the trace.
    Older,
    /// Connections that were first seen when they were one for long.
    Late,
    /// Connections that ended.
    Closed,
    /// `ESTABLISHED` or `CLOSE_WAIT` → `CLOSE`.
    Resets,
    /// Changes to `ESTABLISHED`, and away from it.
    EstablishedIn,
    /// See there.
    EstablishedOut,
    /// Changes to `CLOSE_WAIT`, and away from it.
    CloseWaitIn,
    /// See there.
    CloseWaitOut,
    /// `connected` that nobody saw.
    ConnectedUnseen,
    /// `established` that nobody saw.
    EstablishedUnseen,
    /// Ends of connections that nobody saw when they came.
    ClosedUnseen,
    /// Connects that are gone, with nobody to say how they ended.
    ConnectLost,
    /// Children that are gone, likewise.
    ChildLost,
}

/// How many there are.
pub const ENTRIES: usize = Entry::ChildLost as usize + 1;

/// The books of a network namespace, by [`Entry`].
pub type Book = [u64; ENTRIES];

/// What `lives_iter` writes of a socket that is gone.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Gone {
    /// Its address.
    pub key: u64,
    /// What was remembered.
    pub life: Life,
}
