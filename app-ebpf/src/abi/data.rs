//! Payloads of what happens to the data: segments dropped, sent again, connections reset, buffers and windows full.

use bytemuck::{Pod, Zeroable};

/// The kernel gives no reason.
pub const NO_REASON: u32 = u32::MAX;

/// The segment was on its way out.
pub const SENDING: u8 = 1;

/// A segment was dropped.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SkbDropped {
    /// The address in the kernel that dropped it.
    pub location: u64,
    /// A number of the running kernel's `enum skb_drop_reason`, or [`NO_REASON`].
    pub reason: u32,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Bytes of data in it, by its headers.
    pub len: u32,
    /// State of the socket that it was for, or from; 0 where there is none, or nobody knows which.
    pub state: u32,
    /// Flags of the TCP header.
    pub tcp_flags: u8,
    /// [`SENDING`], or 0.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What made TCP send again.
pub mod resend {
    #![allow(missing_docs, reason = "named below")]
    pub const UNKNOWN: u32 = 0;
    /// No acknowledgement came in time (RTO).
    pub const TIMEOUT: u32 = 1;
    /// After a timeout, what was sent before it as well.
    pub const AFTER_TIMEOUT: u32 = 2;
    /// Acknowledgements of what came later show a gap.
    pub const FAST: u32 = 3;
    /// The last segment, to provoke an acknowledgement (RFC 8985, section 7).
    pub const TAIL_LOSS_PROBE: u32 = 4;

    /// TCP Fast Open: the SYN-ACK acknowledges the SYN, and not the data that came with it.
    pub const SYN_DATA_NOT_ACKED: u32 = 5;
    /// The path takes no packets of that size: ICMP said so, or a probe of a larger one was lost.
    pub const PATH_MTU: u32 = 6;
    /// A SYN, before its timeout: the peer answered the one before with an ACK of another connection (RFC 5961, section 4).
    pub const CHALLENGE_ACK: u32 = 7;

    /// Every cause, by its number.
    pub const NAMES: [&str; 8] = [
        "unknown",
        "timeout",
        "after_timeout",
        "fast",
        "tail_loss_probe",
        "syn_data_not_acked",
        "path_mtu",
        "challenge_ack",
    ];
}

/// A segment was sent again.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Retransmitted {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Bytes of data in it.
    pub len: u32,
    /// Timeouts in a row, this one included (`icsk_retransmits`).
    pub timeouts: u32,
    /// One of [`resend`].
    pub cause: u32,
    /// State of the socket.
    pub state: u32,
    /// The errno where it could not be sent, positive; 0 where it was sent.
    pub errno: u32,
    /// Flags of the TCP header.
    pub tcp_flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// A RST was sent.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ResetSent {
    /// A number of the running kernel's `enum sk_rst_reason`, or [`NO_REASON`].
    pub reason: u32,
    /// State of the socket; 0 where there is none.
    pub state: u32,
    /// 1: the answer to a segment; 0: this end gave up.
    pub answers: u32,
    /// Zero.
    pub reserved: u32,
}

/// A RST came, and ends the connection.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ResetReceived {
    /// State of the socket before.
    pub state: u32,
    /// Bytes that were received and not read.
    pub unread: u32,
    /// Bytes that were written and not acknowledged.
    pub unacknowledged: u32,
    /// Zero.
    pub reserved: u32,
}

/// A segment found no room in the socket that it was for.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RcvqFull {
    /// As in [`SkbDropped`].
    pub reason: u32,
    /// Bytes of data in the segment.
    pub len: u32,
    /// Bytes that were received and not read, or [`UNKNOWN_BYTES`].
    pub unread: u32,
    /// `sk_rmem_alloc`, or [`UNKNOWN_BYTES`].
    pub rmem_alloc: u32,
    /// `sk_rcvbuf`, or [`UNKNOWN_BYTES`].
    pub rcvbuf: u32,
    /// Zero.
    pub reserved: u32,
}

/// An amount that nobody knows.
pub const UNKNOWN_BYTES: u32 = u32::MAX;

/// A writer had to wait for room in the send buffer, or was told to come again.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SndbufLimited {
    /// How long it waited.
    pub waited_ns: u64,
    /// `sk_wmem_queued`, after the wait.
    pub wmem_queued: u32,
    /// `sk_sndbuf`.
    pub sndbuf: u32,
    /// Bytes that were written and not acknowledged, after the wait.
    pub unacknowledged: u32,
    /// Why the wait ended without room, positive; 0 where there is room.
    pub errno: u32,
}

/// The peer's window is closed and data waits for it: a window probe is due.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct WindowStalled {
    /// Bytes that were written and not sent.
    pub unsent: u32,
    /// The window that the peer offered last.
    pub window: u32,
    /// Probes that were sent and not answered (`icsk_probes_out`).
    pub probes: u32,
    /// Zero.
    pub reserved: u32,
}
