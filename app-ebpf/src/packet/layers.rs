//! What an sk_buff has in front of its payload, layer by layer, and where it lies.

use super::{Bytes, DST_NOREF, IPV6_HEADER, sequence, tuple};
use crate::{
    mem::{Obj, Probe, off},
    sock::Tuple,
};

/// Where the headers of an sk_buff are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// `data` points at IP's.
    AtData,
    /// Where the kernel wrote down that IP's is.
    Noted,
    /// `data` points at TCP's, and there is none of IP yet.
    TcpAtData,
    /// There are none yet.
    None,
}

/// A TCP segment in an sk_buff, with what stands in front of it.
pub struct Layers {
    /// As its sender has it, out of IP's header: family 0 where there is none.
    pub tuple: Tuple,
    pub seq: u32,
    /// Bytes without any header.
    pub payload: u32,
    /// Bytes of headers between `data` and the payload: of TCP, of IP, of the link.
    pub headers: [u16; 3],
}

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// `IP_OFFSET`: a fragment that is not the first has no TCP header.
const FRAGMENT: u16 = 0x1fff;

impl Layers {
    /// What is to be sent, or was, or arrived; nothing for anything but TCP.
    #[inline(always)]
    pub fn of(skb: Obj<Probe>, headers: Headers) -> Option<Self> {
        let head = skb.get(off!(skb_head));
        let data = skb.get(off!(skb_data)).wrapping_sub(head) as u32;
        let len = skb.get(off!(skb_len));
        let there = |offset: u32| Bytes(head.wrapping_add(u64::from(offset)));
        match headers {
            Headers::None => Some(Self {
                tuple: Tuple::NONE,
                seq: sequence(skb).0,
                payload: len,
                headers: [0; 3],
            }),
            Headers::TcpAtData => {
                let (seq, header) = tcp_header(there(data));
                Some(Self {
                    tuple: Tuple::NONE,
                    seq,
                    payload: len.wrapping_sub(header),
                    headers: [header as u16, 0, 0],
                })
            }
            Headers::AtData | Headers::Noted => {
                let ip = if headers == Headers::AtData {
                    data
                } else {
                    u32::from(skb.get(off!(skb_network)))
                };
                let protocol = u16::from_be(skb.get(off!(skb_protocol)));
                let (ip_len, total) = ip_header(there(ip), protocol)?;
                let tcp = ip + ip_len;
                let (seq, tcp_len) = tcp_header(there(tcp));
                let payload = tcp + tcp_len;
                // The headers lie in the buffer itself, or TCP could not be told yet.
                if payload > data.wrapping_add(len).wrapping_sub(skb.get(off!(skb_data_len))) {
                    return None;
                }
                // A short frame is padded.
                let end = data.wrapping_add(len);
                let end = if total == 0 { end } else { end.min(ip + total) };
                let between = |from: u32, to: u32| to.saturating_sub(from.max(data)) as u16;
                Some(Self {
                    tuple: tuple(there(ip), there(tcp))?.reversed(),
                    seq,
                    payload: end.saturating_sub(payload),
                    headers: [between(tcp, payload), between(ip, tcp), between(0, ip)],
                })
            }
        }
    }
}

/// Sequence number and length.
#[inline(always)]
fn tcp_header(tcp: Bytes) -> (u32, u32) {
    (u32::from_be(tcp.get(4)), u32::from(tcp.get::<u8>(12) >> 4) * 4)
}

/// Length of the header, and of all that IP knows of; 0 where it does not say, which is longer than 64 KiB.
#[inline(always)]
fn ip_header(ip: Bytes, protocol: u16) -> Option<(u32, u32)> {
    match (protocol, ip.get::<u8>(0) >> 4) {
        (ETH_P_IP, 4) if u16::from_be(ip.get(6)) & FRAGMENT == 0 => {
            let length = u32::from(ip.get::<u8>(0) & 15) * 4;
            Some((length, u32::from(u16::from_be(ip.get(2)))))
        }
        (ETH_P_IPV6, 6) => {
            let payload = u32::from(u16::from_be(ip.get(4)));
            Some((IPV6_HEADER, if payload == 0 { 0 } else { payload + IPV6_HEADER }))
        }
        _ => None,
    }
}

/// The buffer of an sk_buff, as it is now.
pub struct Layout {
    /// `skb->head`.
    pub head: u64,
    pub headroom: u32,
    pub len: u32,
    pub data_len: u32,
    /// Of the buffer.
    pub size: u32,
    pub gso_size: u16,
    pub gso_segs: u16,
    /// Where the payload lies: its first page, or the buffer.
    pub payload: u64,
}

impl Layout {
    /// `skb->head`: the buffer.
    #[inline(always)]
    pub fn head(skb: Obj<Probe>) -> u64 {
        skb.get(off!(skb_head))
    }

    #[inline(always)]
    pub fn of(skb: Obj<Probe>) -> Self {
        let head = Self::head(skb);
        let size = skb.get(off!(skb_end));
        let data_len = skb.get(off!(skb_data_len));
        // `skb_shinfo`.
        let shared = Obj::<Probe>::new(head.wrapping_add(u64::from(size)) as *const u8);
        Self {
            head,
            headroom: skb.get(off!(skb_data)).wrapping_sub(head) as u32,
            len: skb.get(off!(skb_len)),
            data_len,
            size,
            gso_size: shared.get(off!(shinfo_gso_size)),
            gso_segs: shared.get(off!(shinfo_gso_segs)),
            // A fragment begins with its page (`bv_page`, `netmem`).
            payload: if data_len == 0 {
                head
            } else {
                shared.get(off!(shinfo_frags))
            },
        }
    }
}

/// A network device.
pub struct Device(Obj<Probe>);

impl Device {
    /// The one that an sk_buff came in by, or goes out by.
    #[inline(always)]
    pub fn of(skb: Obj<Probe>) -> Self {
        Self(skb.follow(off!(skb_dev)))
    }

    /// The one that the route of an sk_buff leads to.
    #[inline(always)]
    pub fn of_route(skb: Obj<Probe>) -> Self {
        let dst = skb.get(off!(skb_dst)) & !DST_NOREF;
        Self(Obj::new(dst as *const u8).follow(off!(dst_dev)))
    }

    /// Nobody says.
    pub const NONE: Self = Self(Obj::NULL);

    #[inline(always)]
    pub fn index(&self) -> u32 {
        self.0.get(off!(dev_ifindex))
    }

    #[inline(always)]
    pub fn name(&self) -> [u8; 16] {
        self.0.get(off!(dev_name))
    }

    #[inline(always)]
    pub fn netns(&self) -> u32 {
        self.0.follow(off!(dev_net)).get(off!(net_inum))
    }
}

/// The socket that an sk_buff belongs to, or null.
#[inline(always)]
pub fn owner(skb: Obj<Probe>) -> u64 {
    skb.follow(off!(skb_sk)).ptr() as u64
}
