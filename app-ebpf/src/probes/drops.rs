//! `skb:kfree_skb` tells of `skb_dropped`, and of `rcvq_full` where the socket had no room. From 7.1 on a qdisc says its
//! reason a moment before, to `qdisc:qdisc_drop` alone.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use socklife_abi::{
    config::Reasons,
    counter::Missed,
    event::{NO_REASON, RcvqFull, SENDING, SkbDropped, UNKNOWN_BYTES},
    kernel::NO_ARG,
    program::Program,
    table::{DROPS_COUNTED, DropCount, DropPlace},
};

use crate::{
    args::{arg, slot, tracepoint_slot},
    emit::Subject,
    maps::{DROPS, add, global, missed},
    mem::{Mem as _, Obj, Probe, off},
    packet::Segment,
    sock::{Sock, Tuple},
    softirq::softirq,
    task::Task,
};

macro_rules! reasons {
    ($set:ident) => {
        [
            global!(CONFIG.$set[0]),
            global!(CONFIG.$set[1]),
            global!(CONFIG.$set[2]),
            global!(CONFIG.$set[3]),
        ]
    };
}

#[inline(always)]
fn holds(set: Reasons, reason: u32) -> bool {
    let word = match reason >> 6 {
        0 => set[0],
        1 => set[1],
        2 => set[2],
        3 => set[3],
        _ => return false,
    };
    word >> (reason & 63) & 1 != 0
}

/// Whether nothing is lost with it.
#[inline(always)]
fn is_used_up(segment: &Segment, reason: u32) -> bool {
    if reason != NO_REASON && holds(reasons!(used_up), reason) {
        return true;
    }
    if !segment.at_tcp {
        return false;
    }
    // TCP frees ACKs that it has used up in the same way, up to 6.1, and FINs and RSTs that a timewait sock takes.
    let unsaid = reason == NO_REASON || reason == global!(CONFIG.reason_unsaid);
    (unsaid && segment.is_empty()) || (segment.is_bare_ack() && holds(reasons!(stale_ack), reason))
}

/// What others noted of an `sk_buff` that is dropped.
struct Noted {
    /// The qdisc's reason; 0: none.
    reason: u32,
    refused: bool,
}

#[inline(always)]
fn noted(skb: u64) -> Noted {
    let mut noted = Noted {
        reason: 0,
        refused: false,
    };
    if let Some(softirq) = softirq() {
        if softirq.qdisc_skb == skb {
            softirq.qdisc_skb = 0;
            noted.reason = softirq.qdisc_reason as u32;
        }
        if softirq.refused_skb == skb {
            softirq.refused_skb = 0;
            noted.refused = true;
        }
    }
    noted
}

#[inline(always)]
fn freed(context: &impl EbpfContext, via: Program) {
    let skb = slot(context, 0);
    let noted = noted(skb);
    let skb = Obj::<Probe>::new(skb as *const u8);
    let Some(segment) = Segment::of(skb) else { return };
    let reason = if noted.reason != 0 {
        noted.reason
    } else if arg!(kfree_skb_reason) == NO_ARG {
        NO_REASON
    } else {
        tracepoint_slot(context, arg!(kfree_skb_reason)) as u32
    };
    // Counted by the kernel's reason, but told as `accept_refused`.
    let refused = noted.refused || (reason != NO_REASON && reason == global!(CONFIG.reason_listen_overflow));
    if refused && global!(FILTER.events) & DROPS_COUNTED == 0 {
        return;
    }
    let location = tracepoint_slot(context, arg!(kfree_skb_location));
    // A queue that goes with its socket: what was in it is not dropped for its own sake.
    let purged = (global!(CONFIG.purge[0])..global!(CONFIG.purge[1])).contains(&location);
    if purged || is_used_up(&segment, reason) {
        return;
    }
    let sender = segment.sender(skb);
    let receiver = Probe::tcp(tracepoint_slot(context, arg!(kfree_skb_rx_sk)) as *const u8);
    let tuple = match sender {
        Some(sock) => sock.tuple(),
        None => segment.tuple,
    };
    let Some(subject) = subject(&segment, sender.or(receiver), tuple, via) else {
        return;
    };
    if global!(FILTER.events) & DROPS_COUNTED != 0 {
        let place = DropPlace {
            location,
            reason,
            flags: if sender.is_some() { u32::from(SENDING) } else { 0 },
        };
        tally(&place, segment.len);
        return;
    }
    subject.emit_limited(SkbDropped {
        location,
        reason,
        seq: segment.seq,
        len: segment.len,
        state: sender.or(receiver).map_or(0, Sock::state),
        tcp_flags: segment.flags,
        flags: if sender.is_some() { SENDING } else { 0 },
        reserved: [0; 6],
    });
    if sender.is_none() && reason != NO_REASON && holds(reasons!(no_room), reason) {
        full(&subject, receiver, segment.len, reason);
    }
}

#[inline(always)]
fn tally(place: &DropPlace, len: u32) {
    if counted(place, len) {
        return;
    }
    let first = DropCount {
        segments: 1,
        bytes: u64::from(len),
    };
    if DROPS.insert(place, first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU was first, or there is no room.
    if !counted(place, len) {
        missed(Missed::DropTable);
    }
}

#[inline(always)]
fn counted(place: &DropPlace, len: u32) -> bool {
    let Some(count) = DROPS.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: a value of DROPS.
    unsafe {
        add(&raw mut (*count).segments, 1);
        add(&raw mut (*count).bytes, u64::from(len));
    }
    true
}

#[inline(always)]
fn subject(segment: &Segment, sock: Option<Sock<Probe>>, tuple: Tuple, via: Program) -> Option<Subject> {
    match sock {
        Some(sock) => Subject::with_tuple(sock, tuple, via, Task::NONE),
        None => Subject::of(0, tuple, segment.netns, via, || 0),
    }
}

#[inline(always)]
fn full(subject: &Subject, receiver: Option<Sock<Probe>>, len: u32, reason: u32) {
    let of = |read: fn(Sock<Probe>) -> u32| receiver.map_or(UNKNOWN_BYTES, read);
    subject.emit_limited(RcvqFull {
        reason,
        len,
        unread: of(Sock::unread),
        rmem_alloc: of(|sock| sock.0.get(off!(rmem_alloc))),
        rcvbuf: of(|sock| sock.0.get(off!(rcvbuf))),
        reserved: 0,
    });
}

#[btf_tracepoint(function = "kfree_skb")]
pub fn drop_tp_btf(context: BtfTracePointContext) -> i32 {
    freed(&context, Program::DropTpBtf);
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn drop_raw_tp(context: RawTracePointContext) -> i32 {
    freed(&context, Program::DropRawTp);
    0
}

/// A qdisc runs with softirqs off from here to where it frees what it drops.
#[inline(always)]
fn qdisc_drops(context: &impl EbpfContext) {
    if let Some(softirq) = softirq() {
        softirq.qdisc_skb = tracepoint_slot(context, arg!(qdisc_drop_skb));
        softirq.qdisc_reason = tracepoint_slot(context, arg!(qdisc_drop_reason));
    }
}

#[btf_tracepoint(function = "qdisc_drop")]
pub fn qdisc_drop_tp_btf(context: BtfTracePointContext) -> i32 {
    qdisc_drops(&context);
    0
}

#[raw_tracepoint(tracepoint = "qdisc_drop")]
pub fn qdisc_drop_raw_tp(context: RawTracePointContext) -> i32 {
    qdisc_drops(&context);
    0
}
