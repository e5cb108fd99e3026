//! What is counted of `sk_buff`s, and what stands in the tables of them.

use bytemuck::{Pod, Zeroable};

use crate::event::Kind;

/// The bit in a set of kinds that asks for counts, and for no event.
pub const COUNTED: u64 = 1 << 63;

/// What is counted, or told, of single `sk_buff`s.
pub const SINGLY: u64 = Kind::set(&[Kind::SkbAlloc, Kind::SkbFree]) | COUNTED;

/// Which way an `sk_buff` goes.
pub mod direction {
    #![allow(missing_docs, reason = "named below")]
    /// Made for a socket that sends.
    pub const SEND: u32 = 0;
    /// It arrived for a socket.
    pub const RECEIVE: u32 = 1;

    /// Each, by its number.
    pub const NAMES: [&str; 2] = ["send", "receive"];
}

/// An `sk_buff` that is alive. Its key is its address; in the class `tracepoint` that of the pair that it is one of.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Alive {
    /// When it was allocated.
    pub born_ns: u64,
    /// Return address of the allocation.
    pub caller: u64,
    /// Key of the connection that has it, or 0.
    pub connection: u64,
    /// The one that it is a clone of, until it is known whose both are; or 0.
    pub original: u64,
    /// `sk_buff.truesize` at the allocation.
    pub truesize: u32,
    /// Bytes that were asked for.
    pub bytes: u32,
    /// A [`direction`].
    pub direction: u32,
    /// 1: it is counted. A filter waits until it is known whose it is.
    pub counted: u32,
}

/// What is counted of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CallerTally {
    /// Allocations.
    pub allocated: u64,
    /// Of these: gone.
    pub freed: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Sum of `truesize` at the allocation.
    pub truesize: u64,
    /// The part of it that was given back.
    pub truesize_freed: u64,
    /// How long those lived that are gone.
    pub lifetime_ns: u64,
}

/// What is counted of a connection's end, by the socket's cookie, or its address where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionTally {
    /// This end; an IPv4 address is held as `::ffff:a.b.c.d`.
    pub saddr: [u64; 2],
    /// The other end, likewise.
    pub daddr: [u64; 2],
    /// The socket's cookie, or 0.
    pub cookie: u64,
    /// Made for what the socket sends.
    pub sent: u64,
    /// Made elsewhere, and known here first: by a network card's driver.
    pub received: u64,
    /// Made for another connection, and handed to this one: loopback.
    pub arrived: u64,
    /// Handed to another connection.
    pub passed: u64,
    /// Gone.
    pub freed: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Sum of `truesize` at the allocation.
    pub truesize: u64,
    /// How long those lived that are gone.
    pub lifetime_ns: u64,
    /// Port of this end, host order.
    pub sport: u16,
    /// Port of the other end, host order.
    pub dport: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    /// 4 or 6: the protocol on the wire.
    pub family: u8,
    /// 1: the socket is destroyed.
    pub closed: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl CallerTally {
    /// How many are alive; read while others count, an end may be there before its beginning.
    #[must_use]
    pub const fn alive(&self) -> u64 {
        self.allocated.saturating_sub(self.freed)
    }
}

impl ConnectionTally {
    /// How many it has.
    #[must_use]
    pub const fn alive(&self) -> u64 {
        (self.sent + self.received + self.arrived).saturating_sub(self.passed + self.freed)
    }
}

const _: () = {
    assert!(size_of::<Alive>() == 48);
    assert!(size_of::<CallerTally>() == 48);
    assert!(size_of::<ConnectionTally>() == 120);
};

/// What the programs must know of the running kernel's code, from `/proc/kallsyms` and BTF.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Code {
    /// Where `__alloc_skb` begins, or 0.
    pub alloc_from: u64,
    /// Where it ends.
    pub alloc_to: u64,
    /// 1 where fexit programs may call `bpf_get_func_ip` (5.15).
    pub func_ip: u64,
}

impl Code {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        alloc_from: 0,
        alloc_to: 0,
        func_ip: 0,
    };
}
