//! The one place that reads `sk_buff`s.

pub mod layers;

use crate::{
    mem::{Mem, Obj, Probe, off},
    sock::{Sock, Tuple, v4},
};

/// Bits of the flags in a TCP header.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const IPPROTO_TCP: u8 = 6;
/// Bytes of an IPv6 header.
const IPV6_HEADER: u32 = 40;
/// `sk_buff.network_header` before it is known.
const NOT_SET: u16 = u16::MAX;
/// `SKB_DST_NOREF`: the lowest bit of the pointer to the route.
const DST_NOREF: u64 = 1;

/// A buffer of data in a sock's queue. It may be freed meanwhile: then it reads as anything.
#[derive(Clone, Copy)]
pub struct Skb(Obj<Probe>);

impl Skb {
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(Obj::new(address as *const u8))
    }

    /// Bytes of data; headers count where they are not pulled yet.
    #[inline(always)]
    pub fn len(self) -> u32 {
        self.0.get(off!(skb_len))
    }

    /// Bytes of memory that it is charged with.
    #[inline(always)]
    pub fn truesize(self) -> u32 {
        self.0.get(off!(skb_truesize))
    }

    /// When it was sent last, by the monotonic clock; when it came, by the wall clock; or 0.
    #[inline(always)]
    pub fn stamp(self) -> u64 {
        self.0.get(off!(skb_stamp))
    }

    /// The next in a list.
    #[inline(always)]
    pub fn next(self) -> u64 {
        self.0.get(off!(skb_next))
    }

    /// Its parent (with its colour), left and right in a tree, in which a buffer begins with its node.
    #[inline(always)]
    pub fn tree(self) -> [u64; 3] {
        [
            self.0.get(off!(skb_rb_parent)),
            self.0.get(off!(skb_rb_left)),
            self.0.get(off!(skb_rb_right)),
        ]
    }
}

/// A TCP segment that arrived, as the receiver's socket would see it.
pub struct Packet {
    pub tuple: Tuple,
    pub netns: u32,
    pub flags: u8,
}

impl Packet {
    /// What arrived for TCP; nothing for anything else.
    #[inline(always)]
    pub fn received<M: Mem>(skb: Obj<M>) -> Option<Self> {
        let head = skb.get(off!(skb_head));
        let transport = head + u64::from(skb.get(off!(skb_transport)));
        // TCP looks at it with its header in front; what is sent has others in front of that.
        if skb.get(off!(skb_data)) != transport {
            return None;
        }
        let network = Bytes(head + u64::from(skb.get(off!(skb_network))));
        let tcp = Bytes(transport);
        Some(Self {
            tuple: tuple(network, tcp)?,
            netns: netns(skb),
            flags: tcp.get(13),
        })
    }

    /// An ACK of a handshake, or of what claims to be a connection.
    #[inline(always)]
    pub fn is_ack(&self) -> bool {
        self.flags & (SYN | RST | ACK) == ACK
    }
}

/// A TCP segment wherever it is between its socket and the device, by its headers.
pub struct Segment {
    /// As the receiver's socket would see it.
    pub tuple: Tuple,
    pub netns: u32,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Bytes of data.
    pub len: u32,
    pub flags: u8,
    /// TCP has it, and the headers below are behind it.
    pub at_tcp: bool,
}

impl Segment {
    /// Nothing where there are no headers yet, or other ones.
    #[inline(always)]
    pub fn of(skb: Obj<Probe>) -> Option<Self> {
        let network_header = skb.get(off!(skb_network));
        if network_header == NOT_SET {
            return None;
        }
        let head = skb.get(off!(skb_head));
        let network = Bytes(head + u64::from(network_header));
        let (ip, total) = if network.get::<u8>(0) >> 4 == 4 {
            let ip = u32::from(network.get::<u8>(0) & 15) * 4;
            (ip, u32::from(u16::from_be(network.get(2))))
        } else {
            // What stands between the two headers is no TCP for us.
            (IPV6_HEADER, IPV6_HEADER + u32::from(u16::from_be(network.get(4))))
        };
        let tcp = Bytes(network.0 + u64::from(ip));
        let tuple = tuple(network, tcp)?;
        let headers = ip + u32::from(tcp.get::<u8>(12) >> 4) * 4;
        Some(Self {
            tuple,
            netns: device_netns(skb),
            seq: u32::from_be(tcp.get(4)),
            len: total.saturating_sub(headers),
            flags: tcp.get(13),
            at_tcp: skb.get(off!(skb_data)) >= tcp.0,
        })
    }

    /// The socket that sends it, while it is on its way out.
    #[inline(always)]
    pub fn sender(&self, skb: Obj<Probe>) -> Option<Sock<Probe>> {
        let sock = Probe::tcp(skb.follow(off!(skb_sk)).ptr())?;
        let ends = sock.tuple();
        (ends.sport == self.tuple.dport && ends.dport == self.tuple.sport).then_some(sock)
    }

    /// It brings no data, and begins nothing.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.flags & SYN == 0
    }

    /// An ACK, and nothing else.
    #[inline(always)]
    pub fn is_bare_ack(&self) -> bool {
        self.len == 0 && self.flags & (FIN | SYN | RST | ACK) == ACK
    }
}

/// Its header of IP.
#[inline(always)]
fn network(skb: Obj<Probe>) -> Bytes {
    Bytes(skb.get(off!(skb_head)) + u64::from(skb.get(off!(skb_network))))
}

/// Whether a packet that arrived is for this host, as its route says (`RTN_LOCAL`, `RTF_LOCAL`).
#[inline(always)]
pub fn is_for_us(skb: Obj<Probe>) -> bool {
    const RTN_LOCAL: u16 = 2;
    const RTF_LOCAL: u32 = 0x8000_0000;
    let network = network(skb);
    let route = Obj::<Probe>::new((skb.get(off!(skb_dst)) & !DST_NOREF) as *const u8);
    if network.get::<u8>(0) >> 4 == 4 {
        route.get(off!(rt_type)) == RTN_LOCAL
    } else {
        route.get(off!(rt6_flags)) & RTF_LOCAL != 0
    }
}

/// Who sent a packet, by its header of this version of IP.
#[inline(always)]
pub fn sender(skb: Obj<Probe>, version: u8) -> [u64; 2] {
    let network = network(skb);
    match version {
        4 => v4(network.get(12)),
        _ => [network.get(8), network.get(16)],
    }
}

/// What whoever has an `sk_buff` queued remembers of it.
#[inline(always)]
pub fn control(skb: Obj<Probe>) -> Obj<Probe> {
    Obj::new(skb.ptr().wrapping_add(off!(skb_control).bytes() as usize))
}

/// The sequence numbers that a segment takes: the first, and one behind the last.
#[inline(always)]
pub fn sequence(skb: Obj<Probe>) -> (u32, u32) {
    let control = control(skb);
    (control.get(off!(tcb_seq)), control.get(off!(tcb_end_seq)))
}

/// The flags that its header has, or will have.
#[inline(always)]
pub fn tcp_flags(skb: Obj<Probe>) -> u8 {
    control(skb).bits(off!(tcb_flags))
}

/// Bytes at a place that the kernel may have given away: what cannot be read is zero.
#[derive(Clone, Copy)]
struct Bytes(u64);

impl Bytes {
    #[inline(always)]
    fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: read by the helper, which checks the address.
        unsafe { Probe::read((self.0 as *const u8).wrapping_add(offset).cast()) }
    }
}

/// Out of an IP and a TCP header, as the receiver sees it.
#[inline(always)]
fn tuple(network: Bytes, tcp: Bytes) -> Option<Tuple> {
    let (saddr, daddr, family) = match network.get::<u8>(0) >> 4 {
        4 if network.get::<u8>(9) == IPPROTO_TCP => (v4(network.get(16)), v4(network.get(12)), 4),
        6 if network.get::<u8>(6) == IPPROTO_TCP => (network.get(24), network.get(8), 6),
        _ => return None,
    };
    Some(Tuple {
        saddr,
        daddr,
        sport: u16::from_be(tcp.get(2)),
        dport: u16::from_be(tcp.get(0)),
        family,
        mapped: false,
    })
}

/// Only the flags, of what is known to be TCP's.
#[inline(always)]
pub fn flags<M: Mem>(skb: Obj<M>) -> u8 {
    let tcp = skb.get(off!(skb_head)) + u64::from(skb.get(off!(skb_transport)));
    // SAFETY: read by the helper, which checks the address.
    unsafe { Probe::read((tcp as *const u8).wrapping_add(13)) }
}

/// TCP has taken the device away by now; the route still knows it.
#[inline(always)]
fn netns<M: Mem>(skb: Obj<M>) -> u32 {
    let dst = skb.get(off!(skb_dst)) & !DST_NOREF;
    let device = Obj::<Probe>::new(dst as *const u8).follow(off!(dst_dev));
    device.follow(off!(dev_net)).get(off!(net_inum))
}

/// The network namespace of the device that it is at; TCP has taken the device away, and the route may know it still.
#[inline(always)]
pub fn device_netns<M: Mem>(skb: Obj<M>) -> u32 {
    let device = skb.follow(off!(skb_dev));
    if device.ptr().is_null() {
        return netns(skb);
    }
    device.follow(off!(dev_net)).get(off!(net_inum))
}

/// What it takes of memory: itself, its data and what is shared.
#[inline(always)]
pub fn truesize<M: Mem>(skb: Obj<M>) -> u32 {
    skb.get(off!(skb_truesize))
}

/// The sock that it is charged to, or 0.
#[inline(always)]
pub fn sock<M: Mem>(skb: Obj<M>) -> u64 {
    skb.get(off!(skb_sk))
}
