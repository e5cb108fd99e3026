//! A socket as it is now: what `sockets_iter` writes of each.

use bytemuck::{Pod, Zeroable};

/// An `AF_INET6` socket that speaks IPv4 (`::ffff:a.b.c.d`).
pub const MAPPED: u8 = 1;
/// Its handshake is done, or data came with its SYN, and accept(2) has not taken it.
pub const IN_ACCEPT_QUEUE: u8 = 2;

/// One record of the iterator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Socket {
    /// Address of the kernel's object: the walk may come by twice.
    pub key: u64,
    /// The kernel's socket cookie, or 0.
    pub cookie: u64,
    /// Cookie of the listener that a half-open connection belongs to, or 0.
    pub listener: u64,
    /// Inode of the socket, or 0 where no process has it.
    pub inode: u64,
    /// This end; an IPv4 address is held as `::ffff:a.b.c.d`.
    pub saddr: [u64; 2],
    /// The other end, likewise.
    pub daddr: [u64; 2],
    /// Bytes to read; of a listener: connections that wait for accept(2).
    pub recv_q: u32,
    /// Bytes that are not acknowledged; of a listener: how many may wait.
    pub send_q: u32,
    /// Of a listener: half-open connections.
    pub syn_queue: u32,
    /// Of a listener: how many may be.
    pub syn_queue_limit: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Its user; means nothing without an inode.
    pub uid: u32,
    /// Port of this end, host order.
    pub sport: u16,
    /// Port of the other end, host order.
    pub dport: u16,
    /// 4 or 6: the protocol on the wire.
    pub family: u8,
    /// A [`state`](crate::event::state).
    pub state: u8,
    /// `MAPPED`, `IN_ACCEPT_QUEUE`.
    pub flags: u8,
    /// A [`pending`].
    pub timer: u8,
    /// Milliseconds since it last sent data, received data or was acknowledged, or [`UNKNOWN_IDLE`].
    pub idle_ms: u64,
}

/// Nothing tells how long nothing went over it.
pub const UNKNOWN_IDLE: u64 = u64::MAX;

/// The timer of a connection that runs.
pub mod pending {
    /// Of what is no connection, or not any more.
    pub const UNKNOWN: u8 = 0;
    /// None.
    pub const NONE: u8 = 1;
    /// What is sent and not acknowledged will be sent again.
    pub const RETRANSMISSION: u8 = 2;
    /// The peer's closed window will be probed.
    pub const WINDOW_PROBE: u8 = 3;
    /// Whether the peer is still there will be asked.
    pub const KEEPALIVE: u8 = 4;
    /// The peer's FIN is waited for.
    pub const FIN_WAIT2: u8 = 5;

    /// By number.
    pub const NAMES: [&str; 6] = [
        "unknown",
        "none",
        "retransmission",
        "window_probe",
        "keepalive",
        "fin_wait2",
    ];
}

/// What tells a socket from others: its address, which may be used again, and its ends.
pub type Identity = (u64, [u64; 2], u16, [u64; 2], u16);

impl Socket {
    /// What tells it from others.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        (self.key, self.saddr, self.sport, self.daddr, self.dport)
    }
}

const _: () = assert!(size_of::<Socket>() == 104);
