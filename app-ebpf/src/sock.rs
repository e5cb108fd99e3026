//! The one place that reads kernel sockets.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use socklife_abi::event::{Queues, UNKNOWN_FD, state};

use crate::{
    maps::global,
    mem::{Mem, Obj, Probe, off},
    task::fd_of_file,
};

/// `ICSK_TIME_PROBE0`: the window is probed.
pub const TIME_PROBE: u8 = 3;

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// `enum sock_flags`: no process has it, and none will (`sock_orphan`).
const SOCK_DEAD: u64 = 1;
/// `enum sock_flags`: tcp_fin() sets it.
const SOCK_DONE: u64 = 1 << 1;
/// `TCP_SYNCOOKIE_VALID`, in seconds.
const COOKIE_VALID: u32 = 120;

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

impl Tuple {
    /// Nobody knows. (An `Option` of it would be copied with what it does not hold, which 5.10's verifier refuses.)
    pub const NONE: Self = Self {
        saddr: [0; 2],
        daddr: [0; 2],
        sport: 0,
        dport: 0,
        family: 0,
        mapped: false,
    };

    /// As the other end has it.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        Self {
            saddr: self.daddr,
            daddr: self.saddr,
            sport: self.dport,
            dport: self.sport,
            ..self
        }
    }
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

    /// A listener's queues.
    #[inline(always)]
    pub fn queues(self) -> Queues {
        let limit = self.0.get(off!(max_ack_backlog));
        let net = self.0.follow(off!(net));
        let syn_queue_limit = if net.get(off!(net_syncookies)) == 0 {
            let backlog = net.get(off!(net_max_syn_backlog));
            limit.min(backlog - (backlog >> 2))
        } else {
            limit
        };
        Queues {
            listener: M::cookie(self),
            syn_queue: self.0.get(off!(syn_queue)),
            syn_queue_limit,
            accept_queue: self.0.get(off!(ack_backlog)),
            accept_queue_limit: limit,
        }
    }

    /// Of a listener: children of TCP Fast Open whose handshake is not done.
    #[inline(always)]
    pub fn fastopen_queue(self) -> u32 {
        self.0.get(off!(fastopen_queue))
    }

    /// How many of them it takes; 0 without Fast Open.
    #[inline(always)]
    pub fn fastopen_limit(self) -> u32 {
        self.0.get(off!(fastopen_limit))
    }

    /// `net.ipv4.tcp_syncookies`.
    #[inline(always)]
    pub fn syncookies(self) -> u8 {
        self.0.follow(off!(net)).get(off!(net_syncookies))
    }

    /// Whether this listener sent SYN cookies lately, so that an ACK may bring one back (`tcp_synq_no_recent_overflow`).
    #[inline(always)]
    pub fn sent_cookies(self) -> bool {
        let hz = global!(CONFIG.hz);
        let group = self.0.follow(off!(reuseport));
        let last = if group.ptr().is_null() {
            self.0.get(off!(overflow))
        } else {
            group.get(off!(reuseport_overflow))
        };
        // SAFETY: takes no argument.
        let now = unsafe { bpf_jiffies64() } as u32;
        now.wrapping_sub(last.wrapping_sub(hz)) <= (COOKIE_VALID + 1) * hz
    }

    /// Inode of the socket, or 0.
    #[inline(always)]
    pub fn inode(self) -> u64 {
        let socket = self.0.follow(off!(socket)).ptr();
        if socket.is_null() {
            return 0;
        }
        // The file system's part stands around it (`struct socket_alloc`).
        let start = Obj::<Probe>::new(socket).back(off!(socket_struct));
        start.get(off!(socket_inode))
    }

    /// The descriptor of the current task that is this socket; `UNKNOWN_FD` or `NO_FD`.
    #[inline(always)]
    pub fn fd(self) -> i32 {
        let socket = Obj::<Probe>::new(self.0.follow(off!(socket)).ptr());
        if socket.ptr().is_null() {
            return UNKNOWN_FD;
        }
        fd_of_file(socket.follow(off!(socket_file)).ptr() as u64)
    }

    /// Bytes that were received and not read (`tcp_inq`): the peer's FIN is none.
    #[inline(always)]
    pub fn unread(self) -> u32 {
        self.recv_q().saturating_sub(u32::from(self.fin_received()))
    }

    /// The same as `ss` shows it (`tcp_diag_get_info`): the peer's FIN counts as one.
    #[inline(always)]
    pub fn recv_q(self) -> u32 {
        let unread = self.0.get(off!(rcv_nxt)).wrapping_sub(self.0.get(off!(copied_seq))) as i32;
        // The reader is ahead for a moment where the two are read at once.
        unread.max(0) as u32
    }

    /// Bytes that were written and not acknowledged (`tcp_ioctl`): our SYN and our FIN are none.
    #[inline(always)]
    pub fn unacknowledged(self) -> u32 {
        let sequence = self.send_q();
        match self.state() {
            state::SYN_SENT | state::SYN_RECV => 0,
            state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK => sequence.saturating_sub(1),
            _ => sequence,
        }
    }

    /// The same as `ss` shows it (`tcp_diag_get_info`): our SYN and our FIN count as one.
    #[inline(always)]
    pub fn send_q(self) -> u32 {
        self.0.get(off!(write_seq)).wrapping_sub(self.0.get(off!(snd_una)))
    }

    /// Something that was sent is not acknowledged.
    #[inline(always)]
    pub fn is_in_flight(self) -> bool {
        self.0.get(off!(snd_nxt)) != self.0.get(off!(snd_una))
    }

    /// Something that was written is not acknowledged, or not even sent.
    #[inline(always)]
    pub fn has_to_send(self) -> bool {
        self.0.get(off!(write_seq)) != self.0.get(off!(snd_una))
    }

    /// Bytes that were written and not sent.
    #[inline(always)]
    pub fn unsent(self) -> u32 {
        let unsent = self.0.get(off!(write_seq)).wrapping_sub(self.0.get(off!(snd_nxt))) as i32;
        unsent.max(0) as u32
    }

    /// The sequence number of the next byte that is written.
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        self.0.get(off!(write_seq))
    }

    /// A child that nobody accepted yet.
    #[inline(always)]
    pub fn waits_for_accept(self) -> bool {
        self.state() != state::LISTEN
            && self.0.follow(off!(socket)).ptr().is_null()
            && self.0.get(off!(flags)) & SOCK_DEAD == 0
    }

    /// A process has it, or had it: sock_graft() gave it a socket.
    #[inline(always)]
    pub fn is_grafted(self) -> bool {
        !self.0.follow(off!(socket)).ptr().is_null()
    }

    /// The request of a child that TCP Fast Open made, or null.
    #[inline(always)]
    pub fn fastopen(self) -> u64 {
        self.0.get(off!(fastopen_req))
    }
}

/// Whether the accept queue takes no more (`sk_acceptq_is_full`).
#[inline(always)]
pub fn accept_queue_is_full(queues: &Queues) -> bool {
    queues.accept_queue > queues.accept_queue_limit
}

/// A `request_sock`: a half-open connection.
#[derive(Clone, Copy)]
pub struct Req<M>(pub Obj<M>);

impl<M: Mem> Req<M> {
    /// Identity: the address.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0.ptr() as u64
    }

    #[inline(always)]
    pub fn cookie(self) -> u64 {
        M::cookie_of(self.0)
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        self.0.follow(off!(net)).get(off!(net_inum))
    }

    /// SYN-ACKs that were sent again.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        u32::from(self.0.get(off!(req_retrans)))
    }

    /// Its handshake is done, and its listener waits for data: how long, in timeouts. 0: it is not (`tcp_check_req`).
    #[inline(always)]
    pub fn deferred(self, listener: Sock<M>) -> u32 {
        let timeouts = listener.0.get(off!(defer_accept));
        // What is behind a `request_sock` is read by address.
        let this = Obj::<Probe>::new(self.0.ptr());
        if this.bits(off!(req_acked)) != 0 && this.bits(off!(req_timeouts)) < timeouts {
            u32::from(timeouts)
        } else {
            0
        }
    }

    /// Whether it stands in the SYN queue. What leaves it is unhashed, and its memory is not given back at once
    /// (`SLAB_TYPESAFE_BY_RCU`).
    #[inline(always)]
    pub fn is_queued(self) -> bool {
        self.0.get(off!(hashed)) != 0
    }

    /// `v6` where the listener is an IPv6 socket.
    #[inline(always)]
    pub fn tuple(self, v6: bool) -> Tuple {
        let sport = self.0.get(off!(num));
        let dport = u16::from_be(self.0.get(off!(dport)));
        // `skc_family` is the listener's; what is on the wire its operations know.
        if self.0.follow(off!(req_ops)).get(off!(req_family)) == u32::from(AF_INET6) {
            Tuple {
                saddr: [self.0.get(off!(saddr6)), self.0.get_at(off!(saddr6), 8)],
                daddr: [self.0.get(off!(daddr6)), self.0.get_at(off!(daddr6), 8)],
                sport,
                dport,
                family: 6,
                mapped: false,
            }
        } else {
            Tuple {
                saddr: v4(self.0.get(off!(saddr4))),
                daddr: v4(self.0.get(off!(daddr4))),
                sport,
                dport,
                family: 4,
                mapped: v6,
            }
        }
    }
}

impl Req<Probe> {
    /// The request that a timer belongs to.
    #[inline(always)]
    pub fn of_timer(timer: u64) -> Self {
        Self(Obj::new(timer as *const u8).back(off!(req_timer)))
    }

    /// Its listener.
    #[inline(always)]
    pub fn listener(self) -> u64 {
        self.0.follow(off!(listener)).ptr() as u64
    }

    /// The function that its timer calls.
    #[inline(always)]
    pub fn timer_function(self) -> u64 {
        self.0.get_at(off!(timer_function), off!(req_timer).bytes() as usize)
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
