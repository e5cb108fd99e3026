//! The one place that reads kernel sockets.

use socklife_abi::event::state;

use crate::mem::{Mem, Obj, Probe, off};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// `enum sock_flags`: tcp_fin() sets it.
const SOCK_DONE: u64 = 1 << 1;

/// A full TCP sock: not a `request_sock`, a timewait sock, or MPTCP's msk.
#[derive(Clone, Copy)]
pub struct Sock<M>(pub Obj<M>);

/// The four-tuple as this end has it. Addresses as in the ABI: IPv4 is `::ffff:a.b.c.d`.
#[derive(Clone, Copy)]
pub struct Tuple {
    pub saddr: [u64; 2],
    pub daddr: [u64; 2],
    pub sport: u16,
    pub dport: u16,
    pub family: u8,
    pub mapped: bool,
}

/// `::ffff:a.b.c.d` of an address in network order.
#[inline(always)]
pub fn v4(addr: u32) -> [u64; 2] {
    [0, (u64::from(addr) << 32) | u64::from(0xffff_u32.to_be())]
}

/// Whether it is an IPv4 address in IPv6's clothes.
#[inline(always)]
pub fn is_v4(addr: [u64; 2]) -> bool {
    addr[0] == 0 && addr[1] as u32 == 0xffff_u32.to_be()
}

impl<M: Mem> Sock<M> {
    /// Identity: the address of the `struct sock`.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0.ptr() as u64
    }

    #[inline(always)]
    pub fn state(self) -> u32 {
        u32::from(self.0.get(off!(state)))
    }

    #[inline(always)]
    pub fn is_ipv6(self) -> bool {
        self.0.get(off!(family)) == AF_INET6
    }

    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        // After the port is released `skc_num` is 0 while `inet_sport` still has it.
        let num = self.0.get(off!(num));
        let sport = if num != 0 {
            num
        } else {
            u16::from_be(self.0.get(off!(sport)))
        };
        let dport = u16::from_be(self.0.get(off!(dport)));
        if self.is_ipv6() {
            let saddr = self.v6(off!(saddr6));
            let daddr = self.v6(off!(daddr6));
            let mapped = is_v4(daddr) || is_v4(saddr);
            Tuple {
                saddr,
                daddr,
                sport,
                dport,
                family: if mapped { 4 } else { 6 },
                mapped,
            }
        } else {
            Tuple {
                saddr: v4(self.0.get(off!(saddr4))),
                daddr: v4(self.0.get(off!(daddr4))),
                sport,
                dport,
                family: 4,
                mapped: false,
            }
        }
    }

    #[inline(always)]
    fn v6(self, field: socklife_abi::kernel::Off<u64>) -> [u64; 2] {
        [self.0.get(field), self.0.get_at(field, 8)]
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        self.0.follow(off!(net)).get(off!(net_inum))
    }

    /// A process has the sock locked (`lock_sock`). Softirqs then leave it alone, so whoever runs here is that process;
    /// what arrived meanwhile it handles itself when it lets go (`release_sock`).
    #[inline(always)]
    pub fn owned_by_user(self) -> bool {
        self.0.get(off!(lock_owned)) != 0
    }

    #[inline(always)]
    pub fn err(self) -> u32 {
        self.0.get(off!(err))
    }

    #[inline(always)]
    pub fn shutdown(self) -> u8 {
        self.0.get(off!(shutdown))
    }

    #[inline(always)]
    pub fn fin_received(self) -> bool {
        self.0.get(off!(flags)) & SOCK_DONE != 0
    }

    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        self.0.get(off!(is_mptcp)) != 0
    }
}

impl Sock<Probe> {
    #[inline(always)]
    pub fn if_tcp(self) -> Option<Self> {
        let state = self.state();
        if state == state::NEW_SYN_RECV || state == state::TIME_WAIT {
            return None;
        }
        let family = self.0.get(off!(family));
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        let protocol = self.0.get(off!(protocol));
        if protocol == IPPROTO_TCP {
            return Some(self);
        }
        None
    }

    /// The TCP sock behind the `sock` of a file: MPTCP's msk stands for its first subflow.
    #[inline(always)]
    pub fn of_file(sk: Obj<Probe>) -> Option<Self> {
        if sk.ptr().is_null() {
            return None;
        }
        if sk.get(off!(protocol)) == IPPROTO_MPTCP {
            let family = sk.get(off!(family));
            if family == AF_INET || family == AF_INET6 {
                return Probe::tcp(sk.follow(off!(mptcp_first)).ptr());
            }
        }
        Probe::tcp(sk.ptr())
    }
}
