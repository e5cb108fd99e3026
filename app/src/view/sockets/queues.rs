//! What is said of a connection's queues.

use socklife_abi::{
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

    /// Bytes that were written and not sent.
    pub fn unsent(&self) -> u32 {
        between(self.flow().snd_nxt, self.flow().write_seq)
    }

    /// Bytes that were sent and not acknowledged.
    pub fn in_flight(&self) -> u32 {
        between(self.flow().snd_una, self.flow().snd_nxt)
    }

    /// What this end would take now (`tcp_receive_window`).
    pub fn receive_window(&self) -> u32 {
        let flow = self.flow();
        between(flow.rcv_nxt, flow.rcv_wup.wrapping_add(flow.rcv_wnd))
    }

    /// This end takes no more, and has something to read.
    pub fn is_closed(&self) -> bool {
        self.receive_window() == 0 && between(self.flow().copied_seq, self.flow().rcv_nxt) > 0
    }

    /// The peer takes no more, and there is something for it.
    pub fn peer_is_closed(&self) -> bool {
        self.flow().snd_wnd == 0 && between(self.flow().snd_una, self.flow().write_seq) > 0
    }

    /// What the kernel says holds up the sender.
    pub fn limited_by(&self) -> Option<&'static str> {
        match self.flow().chrono {
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
