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
}

// A SYN flood fills the table as far as the backlogs allow: what one takes is bounded.
const _: () = assert!(size_of::<RequestKey>() + size_of::<Request>() == 64);

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
    /// Inode of the network namespace.
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
