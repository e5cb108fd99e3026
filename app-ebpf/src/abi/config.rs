//! What the loader sets before the programs are loaded. The verifier takes these for constants and prunes what is off.

use bytemuck::{Pod, Zeroable};

use super::event::Kind;

/// The filter. A zero means "any".
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Filter {
    /// One bit for each [`Kind`](crate::event::Kind) that is wanted.
    pub events: u64,
    /// The network; see `mask`. In the byte order of an address.
    pub addr: [u64; 2],
    /// The bits of `addr` that count.
    pub mask: [u64; 2],
    /// Thread group.
    pub pid: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Port of this end.
    pub lport: u16,
    /// Port of the other end.
    pub rport: u16,
    /// Port of either end.
    pub port: u16,
    /// 4 or 6.
    pub family: u16,
    /// One bit for each state that `sockets` shows.
    pub states: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Filter>() == 64);

impl Filter {
    /// Everything passes, and each event is sent that need not be asked for by name.
    pub const ANY: Self = Self {
        events: !Kind::ON_REQUEST,
        addr: [0; 2],
        mask: [0; 2],
        pid: 0,
        netns: 0,
        lport: 0,
        rport: 0,
        port: 0,
        family: 0,
        states: 0,
        reserved: 0,
    };
}

/// How the programs work on this kernel.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Bytes waiting in the ring buffer from which on the reader is woken; below it waits for its tick.
    pub wakeup_bytes: u64,
    /// 1 where tracing programs may call `bpf_get_socket_cookie` (5.12).
    pub cookie_helper: u32,
    /// Number of `accept` on this architecture.
    pub nr_accept: u32,
    /// Number of `accept4` on this architecture.
    pub nr_accept4: u32,
    /// How many events of one listener's SYN path are shown one by one in a second; 0: all.
    pub sample: u32,
    /// Ticks of the kernel's clock (`jiffies`) in a second.
    pub hz: u32,
    /// `SKB_DROP_REASON_TCP_FLAGS`, or 0 where this kernel has none.
    pub reason_tcp_flags: u32,
    /// `SKB_DROP_REASON_NOT_SPECIFIED`, or `u32::MAX` where this kernel has none.
    pub reason_unsaid: u32,
    /// `SKB_DROP_REASON_TCP_LISTEN_OVERFLOW`, or `u32::MAX` where this kernel has none.
    pub reason_listen_overflow: u32,
    /// For tests: what the programs do not do, as if the kernel had skipped them. A [`blind`] in the upper half, and in
    /// the lower a number: it is done for sockets whose local port is a multiple. 0: nothing.
    pub blind: u32,
    /// Zero.
    pub reserved: u32,
    /// Drop reasons that are none: the segment was used up, or its socket is closed.
    pub used_up: Reasons,
    /// Drop reasons of an ACK without data that TCP had no use for any more: nothing is lost with it.
    pub stale_ack: Reasons,
    /// Drop reasons that say that the receiving socket has no room.
    pub no_room: Reasons,
    /// Where `skb_queue_purge` begins and ends, on kernels that give no reason for what it frees; else 0.
    pub purge: [u64; 2],
    /// How many sockets that are older than the trace are remembered.
    pub older: u64,
}

const _: () = assert!(size_of::<Config>() == 168);

/// What a test takes from the programs; see [`Config::blind`].
pub mod blind {
    /// States that a connection begins with.
    pub const BEGIN: u32 = 1;
    /// The end of a handshake.
    pub const HANDSHAKE: u32 = 2;
    /// The end.
    pub const END: u32 = 3;
    /// The end, but not that the socket is given back.
    pub const STATE: u32 = 4;

    /// Each by its name.
    pub const NAMES: [(&str, u32); 4] = [
        ("begin", BEGIN),
        ("handshake", HANDSHAKE),
        ("end", END),
        ("state", STATE),
    ];
}

/// A set of the kernel's drop reasons: one bit for each of the first 256.
pub type Reasons = [u64; 4];

impl Config {
    /// Nothing is set.
    pub const UNSET: Self = Self {
        wakeup_bytes: 0,
        cookie_helper: 0,
        nr_accept: 0,
        nr_accept4: 0,
        sample: 0,
        hz: 0,
        reason_tcp_flags: 0,
        reason_unsaid: u32::MAX,
        reason_listen_overflow: u32::MAX,
        blind: 0,
        reserved: 0,
        used_up: [0; 4],
        stale_ack: [0; 4],
        no_room: [0; 4],
        purge: [0; 2],
        older: 0,
    };
}
