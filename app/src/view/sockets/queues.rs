//! What is said of a connection's queues.

use socklife_abi::{
    event::state,
    queued::{Flow, Queued, Queueing, SkbQueue, chrono},
    socket::Socket,
};

use super::row::Listed;
use crate::model::dwell::Dwell;

/// A socket with its queues.
pub struct Queues {
    /// As the kernel side told it.
    pub record: Queueing,
    /// The wall clock minus the monotonic one: a buffer that was received has its stamp by the former.
    pub wall_ahead: i128,
    /// How long its data waited, where it was looked at for a while.
    pub dwell: Option<Dwell>,
}

impl Listed for Queues {
    fn socket(&self) -> &Socket {
        &self.record.socket
    }

    fn queues(&self) -> Option<&Queues> {
        // Without data it has no time.
        (self.record.flow.time_ns != 0).then_some(self)
    }
}

impl Queues {
    /// How far its data has come.
    pub fn flow(&self) -> &Flow {
        &self.record.flow
    }

    /// What its queues hold.
    pub fn queued(&self) -> &Queued {
        &self.record.queued
    }

    /// Bytes that were written and not sent; a FIN counts as one, as in SEND-Q.
    pub fn unsent(&self) -> u32 {
        between(self.flow().snd_nxt, self.flow().write_seq)
    }

    /// Bytes that were sent and not acknowledged; a SYN or FIN counts as one, as in SEND-Q.
    pub fn in_flight(&self) -> u32 {
        between(self.flow().snd_una, self.flow().snd_nxt)
    }

    /// Whether there is data for the peer, which a FIN is not.
    fn has_data_for_peer(&self) -> bool {
        let fin = match u32::from(self.record.socket.state) {
            state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK => 1,
            _ => 0,
        };
        self.unsent() + self.in_flight() > fin
    }

    /// A SYN waits for its answer.
    pub fn is_connecting(&self) -> bool {
        u32::from(self.record.socket.state) == state::SYN_SENT
    }

    /// What this end would take now (`tcp_receive_window`).
    pub fn receive_window(&self) -> u32 {
        let flow = self.flow();
        between(flow.rcv_nxt, flow.rcv_wup.wrapping_add(flow.rcv_wnd))
    }

    /// This end takes no more, and has something to read.
    pub fn is_closed(&self) -> bool {
        let fin = match u32::from(self.record.socket.state) {
            state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING => 1,
            _ => 0,
        };
        self.receive_window() == 0 && self.record.socket.recv_q > fin
    }

    /// The peer takes no more, and there is something for it. It offers no window before it answers.
    pub fn peer_is_closed(&self) -> bool {
        self.flow().snd_wnd == 0 && !self.is_connecting() && self.has_data_for_peer()
    }

    /// What the kernel says holds up the sender.
    pub fn limited_by(&self) -> Option<&'static str> {
        match self.flow().chrono {
            _ if self.is_connecting() => None,
            chrono::RWND_LIMITED => Some("rwnd"),
            chrono::SNDBUF_LIMITED => Some("sndbuf"),
            _ => None,
        }
    }

    /// How long the oldest of what was received is there; unknown where nothing wants the kernel to stamp what arrives.
    pub fn arrived_ns(&self, queue: &SkbQueue) -> Option<u64> {
        let now = i128::from(self.flow().time_ns) + self.wall_ahead;
        age(queue, now)
    }

    /// How long ago the oldest of what was sent was sent last.
    pub fn sent_ns(&self, queue: &SkbQueue) -> Option<u64> {
        age(queue, self.flow().time_ns.into())
    }
}

/// A stamp of the future is of a segment that is paced, or of a clock that was set.
fn age(queue: &SkbQueue, now: i128) -> Option<u64> {
    let age = now - i128::from(queue.stamp_ns);
    (queue.stamp_ns != 0).then(|| u64::try_from(age.max(0)).unwrap_or(0))
}

/// From one sequence number to a later one. They are read one after the other: where the kernel does not lock the sock, the
/// earlier may have overtaken the later.
fn between(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from).cast_signed().max(0).cast_unsigned()
}
