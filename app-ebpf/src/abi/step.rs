//! A step of a segment on its way through the layers: one sk_buff, and `data` that moves.

use bytemuck::{Pod, Zeroable};

/// Where on its way through the layers a segment is.
pub mod place {
    #![allow(missing_docs, reason = "named below")]
    /// write(2): `tcp_sendmsg` is about to copy the data into the kernel.
    pub const WRITTEN: u8 = 0;
    /// TCP is about to push its header.
    pub const TRANSMIT: u8 = 1;
    pub const TO_IP: u8 = 2;
    /// IP has pushed its header, and knows the device.
    pub const FROM_IP: u8 = 3;
    pub const TO_DEVICE: u8 = 4;
    pub const XMIT: u8 = 5;
    /// Handed to this CPU's backlog, as loopback and veth do.
    pub const NETIF_RX: u8 = 6;
    pub const RECEIVED: u8 = 7;
    pub const IP_RCV: u8 = 8;
    pub const TCP_RCV: u8 = 9;
    pub const QUEUED: u8 = 10;
    /// read(2) copies the data out.
    pub const READ: u8 = 11;
    /// A process has the socket locked: it waits until that one is done (`__release_sock`).
    pub const BACKLOG: u8 = 12;

    /// The layer of each.
    pub const LAYERS: [&str; 13] = [
        "socket", "tcp", "ip", "ip", "device", "device", "device", "device", "ip", "tcp", "tcp", "socket", "tcp",
    ];

    /// Whether it is on the way down.
    #[must_use]
    pub const fn sends(place: u8) -> bool {
        place <= XMIT
    }
}

/// What `data` points at, and so what a layer calls the whole.
pub mod unit {
    #![allow(missing_docs, reason = "named below")]
    /// The bytes that were written.
    pub const DATA: u8 = 0;
    /// A TCP header.
    pub const SEGMENT: u8 = 1;
    /// An IP header.
    pub const PACKET: u8 = 2;
    /// A header of the link, of Ethernet mostly.
    pub const FRAME: u8 = 3;

    /// Every unit, by its number.
    pub const NAMES: [&str; 4] = ["data", "segment", "packet", "frame"];
}

/// What an sk_buff is to the one that the step before saw.
pub mod kin {
    #![allow(missing_docs, reason = "named below")]
    pub const FIRST: u8 = 0;
    pub const SAME: u8 = 1;
    /// Another sk_buff on the same buffer (`skb_clone`).
    pub const CLONE: u8 = 2;
    /// Another buffer: the headers were copied, and the payload where `copies` grows.
    pub const COPY: u8 = 3;

    /// Every relation, by its number.
    pub const NAMES: [&str; 4] = ["first", "same", "clone", "copy"];
}

/// `moved` says something: the step before saw the same buffer.
pub const MOVE_KNOWN: u8 = 1;
/// Merged into the sk_buff that waits in front of it in the receive queue (`tcp_try_coalesce`): it is not seen again.
pub const MERGED: u8 = 2;
/// Read to its end.
pub const READ_ALL: u8 = 4;
/// The call that writes asked that nothing be copied (`MSG_ZEROCOPY`, and `MSG_SPLICE_PAGES` of sendfile(2)).
pub const ZERO_COPY: u8 = 8;

/// A step of a followed segment through the layers.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SkbStep {
    /// Since the step before, or [`UNKNOWN`](super::event::UNKNOWN).
    pub since_ns: u64,
    /// Which segment: counts from 1.
    pub segment: u32,
    /// Its first byte's sequence number.
    pub seq: u32,
    /// Bytes that were written, without any header.
    pub payload: u32,
    /// `skb->data - skb->head`; [`UNKNOWN_DEPTH`](super::event::UNKNOWN_DEPTH) where there is no sk_buff yet.
    pub headroom: u32,
    /// `skb->len`; before there is an sk_buff, the bytes that the call writes.
    pub len: u32,
    /// `skb->data_len`: what of it lies in pages.
    pub data_len: u32,
    /// `skb->end - skb->head`: the size of the buffer.
    pub size: u32,
    /// How far `data` moved back (a header pushed) or, negative, forward (pulled); only with [`MOVE_KNOWN`].
    pub moved: i32,
    /// Bytes that this call read.
    pub read: u32,
    /// Which buffer of the segment: counts from 1.
    pub buffer: u32,
    /// How often the payload lay somewhere else than the step before saw it.
    pub copies: u32,
    /// `net_device.ifindex`, or 0.
    pub ifindex: u32,
    /// `skb_shared_info.gso_size`, or 0.
    pub gso_size: u16,
    /// `skb_shared_info.gso_segs`, or 0.
    pub gso_segs: u16,
    /// Bytes of the headers that stand between `data` and the payload, by layer.
    pub tcp_header: u16,
    /// Likewise.
    pub ip_header: u16,
    /// Likewise.
    pub link_header: u16,
    /// One of [`place`].
    pub place: u8,
    /// One of [`mod@unit`].
    pub unit: u8,
    /// The [`mod@unit`] of the step before; only with [`MOVE_KNOWN`].
    pub before: u8,
    /// One of [`kin`].
    pub kin: u8,
    /// `MOVE_KNOWN`, `MERGED`, `READ_ALL`, `ZERO_COPY`.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// `net_device.name`: bytes that somebody chose.
    pub dev: [u8; 16],
}
