//! What a connection's queues hold: what `sockets_queues_iter` and `sockets_flow_iter` write of each socket.

use bytemuck::{Pod, Zeroable};

use crate::{program::Program, socket::Socket};

/// So many `sk_buff`s of a queue are looked at, if there are so many; of a tree up to twice as many.
pub const MOST: u32 = 256;

/// The `sk_buff`s of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SkbQueue {
    /// How many there are (the kernel counts them), or were seen.
    pub skbs: u32,
    /// A [`cut`].
    pub cut: u32,
    /// `skb->len` of those that were looked at.
    pub bytes: u64,
    /// `skb->truesize` of those that were looked at.
    pub truesize: u64,
    /// The earliest of their stamps, or 0 where none has one.
    pub stamp_ns: u64,
}

/// Whether there are more `sk_buff`s than were looked at.
pub mod cut {
    /// No.
    pub const NONE: u32 = 0;
    /// Yes, and the kernel counts them.
    pub const COUNTED: u32 = 1;
    /// Yes, and nobody knows how many.
    pub const UNCOUNTED: u32 = 2;
}

/// How far a connection's data has come: sequence numbers, windows, and what the kernel says holds it up. All zero where
/// there is no data: a listener, a half-open connection, TIME_WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// CLOCK_MONOTONIC, when it was so.
    pub time_ns: u64,
    /// What comes next from the peer.
    pub rcv_nxt: u32,
    /// What is read next.
    pub copied_seq: u32,
    /// What is written next.
    pub write_seq: u32,
    /// What is sent next.
    pub snd_nxt: u32,
    /// What is acknowledged next.
    pub snd_una: u32,
    /// The window that the peer offered.
    pub snd_wnd: u32,
    /// The window that was offered to the peer, …
    pub rcv_wnd: u32,
    /// … when this was `rcv_nxt`.
    pub rcv_wup: u32,
    /// Milliseconds so far, by [`chrono`].
    pub chrono_ms: [u32; 3],
    /// A [`chrono`], or 0: there is nothing to send.
    pub chrono: u32,
}

/// `enum tcp_chrono`: what a connection that has something to send does.
pub mod chrono {
    /// It sends, or waits for the network.
    pub const BUSY: u32 = 1;
    /// The peer's window takes no more.
    pub const RWND_LIMITED: u32 = 2;
    /// Its own send buffer is too small: the process could not write more.
    pub const SNDBUF_LIMITED: u32 = 3;
}

/// The queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Queued {
    /// `sk_receive_queue`: what came in order.
    pub receive: SkbQueue,
    /// `out_of_order_queue`: what came before its turn.
    pub out_of_order: SkbQueue,
    /// `sk_backlog`: what came while a process held the sock. Its bytes have their TCP headers.
    pub backlog: SkbQueue,
    /// `sk_write_queue`: what is not sent.
    pub write: SkbQueue,
    /// `tcp_rtx_queue`: what is sent and not acknowledged.
    pub retransmit: SkbQueue,
    /// What they are charged to.
    pub memory: Memory,
}

/// The memory that a connection's data takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Memory {
    /// `sk_rmem_alloc`: memory of what was received.
    pub rmem_alloc: u32,
    /// `sk_rcvbuf`: its limit.
    pub rcvbuf: u32,
    /// `sk_wmem_queued`: memory of what was written.
    pub wmem_queued: u32,
    /// `sk_sndbuf`: its limit.
    pub sndbuf: u32,
    /// `sk_wmem_alloc`, without the one that stands for the sock: memory of what is on its way through the host.
    pub wmem_alloc: u32,
    /// `sk_forward_alloc`: memory that is charged already and not in use.
    pub forward_alloc: i32,
    /// `sk_drops`
    pub drops: u32,
    /// Zero.
    pub reserved: u32,
}

/// A record that begins with a socket.
pub trait Record: Pod + Send {
    /// The iterator that writes it.
    const PROGRAM: Program;

    /// The socket.
    fn socket(&self) -> &Socket;
}

/// A socket, and no more.
impl Record for Socket {
    const PROGRAM: Program = Program::SocketsIter;

    fn socket(&self) -> &Socket {
        self
    }
}

/// A socket, and how far its data has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flowing {
    /// The socket.
    pub socket: Socket,
    /// Its data.
    pub flow: Flow,
}

impl Record for Flowing {
    const PROGRAM: Program = Program::SocketsFlowIter;

    fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// A socket with its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Queueing {
    /// The socket.
    pub socket: Socket,
    /// How far its data has come.
    pub flow: Flow,
    /// What its queues hold.
    pub queued: Queued,
}

impl Record for Queueing {
    const PROGRAM: Program = Program::SocketsQueuesIter;

    fn socket(&self) -> &Socket {
        &self.socket
    }
}

const _: () = {
    assert!(size_of::<SkbQueue>() == 32);
    assert!(size_of::<Flow>() == 56);
    assert!(size_of::<Queued>() == 5 * 32 + 32);
    // Each is written by itself, one behind the other.
    assert!(size_of::<Queueing>() == size_of::<Flowing>() + size_of::<Queued>());
};
