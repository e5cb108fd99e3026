//! The one place that reads `sk_buff`s.

use crate::{
    mem::{Mem, Obj, Probe, off},
    sock::{Tuple, v4},
};

/// Bits of the flags in a TCP header.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const IPPROTO_TCP: u8 = 6;
/// `SKB_DST_NOREF`: the lowest bit of the pointer to the route.
const DST_NOREF: u64 = 1;

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
        let network = Obj::<Probe>::new((head + u64::from(skb.get(off!(skb_network)))) as *const u8);
        let tcp = Obj::<Probe>::new(transport as *const u8);
        // SAFETY: read by the helper, which checks the address.
        let byte = |at: Obj<Probe>, offset: usize| unsafe { Probe::read::<u8>(at.ptr().wrapping_add(offset)) };
        // SAFETY: as above.
        let port = |offset: usize| unsafe { u16::from_be(Probe::read(tcp.ptr().wrapping_add(offset).cast())) };
        // SAFETY: as above.
        let v4_at = |offset: usize| unsafe { v4(Probe::read(network.ptr().wrapping_add(offset).cast())) };
        // SAFETY: as above.
        let v6_at = |offset: usize| unsafe { Probe::read::<[u64; 2]>(network.ptr().wrapping_add(offset).cast()) };
        let (saddr, daddr, family) = match byte(network, 0) >> 4 {
            4 if byte(network, 9) == IPPROTO_TCP => (v4_at(16), v4_at(12), 4),
            6 if byte(network, 6) == IPPROTO_TCP => (v6_at(24), v6_at(8), 6),
            _ => return None,
        };
        Some(Self {
            tuple: Tuple {
                saddr,
                daddr,
                sport: port(2),
                dport: port(0),
                family,
                mapped: false,
            },
            netns: netns(skb),
            flags: byte(tcp, 13),
        })
    }

    /// An ACK of a handshake, or of what claims to be a connection.
    #[inline(always)]
    pub fn is_ack(&self) -> bool {
        self.flags & (SYN | RST | ACK) == ACK
    }
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

/// The network namespace of the device that it is at.
#[inline(always)]
pub fn device_netns<M: Mem>(skb: Obj<M>) -> u32 {
    skb.follow(off!(skb_dev)).follow(off!(dev_net)).get(off!(net_inum))
}
