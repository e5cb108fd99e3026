//! What a sock's queues hold. The one place that walks them: no step trusts a pointer, for where the kernel does not lock
//! the sock for an iterator (5.10) a queue changes under the walk, and each walk has an end.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use socklife_abi::{
    event::state,
    kernel::ABSENT,
    queued::{Flow, MOST, Memory, SkbQueue, chrono as going_on, cut},
    socket::{UNKNOWN_IDLE, pending},
};

use crate::{
    maps::global,
    mem::{Probe, off},
    packet::Skb,
    sock::{Sock, TIME_PROBE},
};

/// The lowest bits of a parent's pointer are the node's colour (`rb_parent`).
const RB_COLOUR: u64 = 3;

/// What was seen of a queue so far.
struct Seen {
    skbs: u32,
    bytes: u64,
    truesize: u64,
    /// Minus one, so that none is the latest.
    stamp: u64,
}

impl Seen {
    #[inline(always)]
    fn nothing() -> Self {
        Self {
            skbs: 0,
            bytes: 0,
            truesize: 0,
            stamp: u64::MAX,
        }
    }

    /// Takes one where the mask is all ones, and none where it is zero.
    #[inline(always)]
    fn take(&mut self, skb: Skb, mask: u64) {
        self.skbs += (mask & 1) as u32;
        self.bytes += u64::from(skb.len()) & mask;
        self.truesize += u64::from(skb.truesize()) & mask;
        let stamp = skb.stamp().wrapping_sub(1) | !mask;
        let later = if_below(self.stamp, stamp);
        self.stamp = (self.stamp & later) | (stamp & !later);
    }

    #[inline(always)]
    fn queue(self, more: bool) -> SkbQueue {
        SkbQueue {
            skbs: self.skbs,
            cut: if more { cut::UNCOUNTED } else { cut::NONE },
            bytes: self.bytes,
            truesize: self.truesize,
            stamp_ns: self.stamp.wrapping_add(1),
        }
    }
}

/// All ones if it is not zero. Without a branch: the verifier walks each way that a loop can take, in each round.
#[inline(always)]
fn if_any(value: u64) -> u64 {
    spread(value | value.wrapping_neg())
}

/// All ones if the one is less than the other, by what a subtraction borrows.
#[inline(always)]
fn if_below(one: u64, other: u64) -> u64 {
    let borrow = (!one & other) | (!(one ^ other) & one.wrapping_sub(other));
    spread(borrow)
}

/// The highest bit, in each bit. The compiler does not see what it does, and makes no branch of it.
#[inline(always)]
fn spread(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: a shift of one register.
    unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// A list that ends at `end`, or with null.
#[inline(always)]
fn list(first: u64, end: u64) -> SkbQueue {
    let mut seen = Seen::nothing();
    let mut next = first;
    for _ in 0..MOST {
        if next == 0 || next == end {
            break;
        }
        let skb = Skb::at(next);
        seen.take(skb, !0);
        next = skb.next();
    }
    seen.queue(next != 0 && next != end)
}

/// A list with a head, in which the kernel counts.
#[inline(always)]
fn counted(first: u64, head: u64, len: u32) -> SkbQueue {
    let queue = list(first, head);
    if queue.cut == cut::NONE {
        return queue;
    }
    SkbQueue {
        skbs: len.max(queue.skbs),
        cut: cut::COUNTED,
        ..queue
    }
}

/// A tree, parents before their children. Where a step came from tells where it goes, so it takes no stack, and two steps
/// for each that is counted.
#[inline(always)]
fn tree(root: u64) -> SkbQueue {
    let mut seen = Seen::nothing();
    let (mut from, mut node) = (0, root);
    for _ in 0..2 * MOST {
        if node == 0 {
            break;
        }
        let skb = Skb::at(node);
        let [parent, left, right] = skb.tree();
        let parent = parent & !RB_COLOUR;
        let first = !if_any(from ^ parent);
        seen.take(skb, first);
        let go_left = first & if_any(left);
        let go_right = (first | !if_any(from ^ left)) & !go_left & if_any(right);
        let to = (left & go_left) | (right & go_right) | (parent & !(go_left | go_right));
        from = node;
        node = to;
    }
    seen.queue(node != 0)
}

impl Sock<Probe> {
    #[inline(always)]
    pub fn receive_queue(self) -> SkbQueue {
        let head = self.key() + u64::from(off!(receive_queue).bytes());
        counted(
            self.0.get(off!(receive_queue)),
            head,
            self.0.get(off!(receive_queue_len)),
        )
    }

    #[inline(always)]
    pub fn out_of_order_queue(self) -> SkbQueue {
        tree(self.0.get(off!(out_of_order_queue)))
    }

    #[inline(always)]
    pub fn backlog_queue(self) -> SkbQueue {
        list(self.0.get(off!(backlog)), 0)
    }

    #[inline(always)]
    pub fn write_queue(self) -> SkbQueue {
        let head = self.key() + u64::from(off!(write_queue).bytes());
        counted(self.0.get(off!(write_queue)), head, self.0.get(off!(write_queue_len)))
    }

    #[inline(always)]
    pub fn retransmit_queue(self) -> SkbQueue {
        tree(self.0.get(off!(retransmit_queue)))
    }

    /// How far its data has come.
    #[inline(always)]
    pub fn flow(self) -> Flow {
        let chrono = u32::from(self.0.bits(off!(chrono_type)));
        // SAFETY: takes no argument.
        let (time_ns, now) = unsafe { (bpf_ktime_get_ns(), bpf_jiffies64() as u32) };
        let since = now.wrapping_sub(self.0.get(off!(chrono_start)));
        let [busy, rwnd, sndbuf] = self.0.get(off!(chrono_stat));
        // What goes on is not in the sum yet (`tcp_get_info_chrono_stats`).
        let ms = |sum: u32, number: u32| {
            let more = if chrono == number { since } else { 0 };
            (u64::from(sum.wrapping_add(more)) * 1000 / u64::from(global!(CONFIG.hz).max(1))) as u32
        };
        Flow {
            time_ns,
            rcv_nxt: self.0.get(off!(rcv_nxt)),
            copied_seq: self.0.get(off!(copied_seq)),
            write_seq: self.0.get(off!(write_seq)),
            snd_nxt: self.0.get(off!(snd_nxt)),
            snd_una: self.0.get(off!(snd_una)),
            snd_wnd: self.0.get(off!(snd_wnd)),
            rcv_wnd: self.0.get(off!(rcv_wnd)),
            rcv_wup: self.0.get(off!(rcv_wup)),
            chrono_ms: [
                ms(busy, going_on::BUSY),
                ms(rwnd, going_on::RWND_LIMITED),
                ms(sndbuf, going_on::SNDBUF_LIMITED),
            ],
            chrono,
        }
    }

    /// Which of its timers runs; those of its ACKs aside (`get_tcp4_sock`).
    #[inline(always)]
    pub fn timer(self) -> u8 {
        match self.0.get(off!(timer_event)) {
            0 => {}
            TIME_PROBE => return pending::WINDOW_PROBE,
            _ => return pending::RETRANSMISSION,
        }
        // Newer kernels have it elsewhere, and another in its place.
        let armed = if off!(keepalive_timer).bytes() == ABSENT {
            self.0.get(off!(sock_timer))
        } else {
            self.0.get(off!(keepalive_timer))
        };
        match (armed, self.state()) {
            (0, _) => pending::NONE,
            (_, state::FIN_WAIT2) => pending::FIN_WAIT2,
            _ => pending::KEEPALIVE,
        }
    }

    /// Milliseconds since data or an ACK went over it.
    #[inline(always)]
    pub fn idle_ms(self) -> u64 {
        const CONNECTED: u32 = 1 << state::ESTABLISHED
            | 1 << state::FIN_WAIT1
            | 1 << state::FIN_WAIT2
            | 1 << state::CLOSE_WAIT
            | 1 << state::LAST_ACK
            | 1 << state::CLOSING;
        let hz = u64::from(global!(CONFIG.hz));
        if CONNECTED & (1 << (self.state() & 31)) == 0 || hz == 0 {
            return UNKNOWN_IDLE;
        }
        // SAFETY: takes no argument.
        let now = unsafe { bpf_jiffies64() } as u32;
        let since = |then: u32| now.wrapping_sub(then);
        let idle = since(self.0.get(off!(last_sent)))
            .min(since(self.0.get(off!(last_received))))
            .min(since(self.0.get(off!(last_ack))));
        u64::from(idle) * 1000 / hz
    }

    /// What its queues are charged to.
    #[inline(always)]
    pub fn memory(self) -> Memory {
        Memory {
            rmem_alloc: self.0.get(off!(rmem_alloc)),
            rcvbuf: self.0.get(off!(rcvbuf)),
            wmem_queued: self.0.get(off!(wmem_queued)),
            sndbuf: self.0.get(off!(sndbuf)),
            // One stands for the sock (`sk_wmem_alloc_get`).
            wmem_alloc: self.0.get(off!(wmem_alloc)).saturating_sub(1),
            forward_alloc: self.0.get(off!(forward_alloc)),
            drops: self.0.get(off!(drops)),
            reserved: 0,
        }
    }
}
