//! ACKs that bring a SYN cookie back: `cookie_rejected`, and `accept_refused` where it is valid and the accept queue is
//! full. `cookie_accepted` comes with the child (`accept_queue`).

use aya_ebpf::{
    macros::{btf_tracepoint, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext},
};
use socklife_abi::{
    event::{CookieRejected, Total, state},
    program::Program,
};

use crate::{
    args::{Registers, arg, slot, tracepoint_slot},
    emit::Subject,
    half_open, listeners,
    maps::global,
    mem::{Direct, Mem, Obj, Probe},
    packet::Packet,
    requests,
    sock::{Sock, Tuple, accept_queue_is_full},
    softirq::softirq,
};

#[inline(always)]
fn tuple<M: Mem>(listener: Sock<M>, packet: &Packet) -> Tuple {
    let mut tuple = packet.tuple;
    tuple.mapped = tuple.family == 4 && listener.is_ipv6();
    tuple
}

/// The ACK has no valid cookie.
#[inline(always)]
pub fn rejected<M: Mem>(listener: Sock<M>, packet: &Packet, via: Program) {
    let Some(subject) = Subject::of(listener.key(), tuple(listener, packet), packet.netns, via, || 0) else {
        return;
    };
    let queues = listeners::queues(listener);
    listeners::count_one(listener.key(), packet.netns, Total::CookieRejected);
    subject.emit_sampled(listener.key(), CookieRejected { queues });
}

/// The cookie is valid, and there is no room for the child.
#[inline(always)]
pub fn refused<M: Mem>(listener: Sock<M>, packet: &Packet, via: Program) {
    let tuple = tuple(listener, packet);
    if Subject::of(listener.key(), tuple, packet.netns, via, || 0).is_some() {
        listeners::count_one(listener.key(), packet.netns, Total::CookieReceived);
    }
    half_open::cookie_refused(listener, tuple, packet.netns, via);
}

#[inline(always)]
fn checked<M: Mem>(sk: u64, skb: u64, returned: u64, via: Program) {
    let (Some(listener), Some(packet)) = (
        M::tcp(sk as *const u8),
        Packet::received(Obj::<M>::new(skb as *const u8)),
    ) else {
        return;
    };
    // What the kernel asks before it looks for a cookie.
    if !packet.is_ack() || listener.syncookies() == 0 || !listener.sent_cookies() {
        return;
    }
    if returned == sk {
        rejected(listener, &packet, via);
    } else if returned == 0 && accept_queue_is_full(&listener.queues()) {
        refused(listener, &packet, via);
    }
}

#[fexit(function = "cookie_v4_check")]
pub fn cookie_fexit4(context: FExitContext) -> i32 {
    checked::<Direct>(
        slot(&context, arg!(cookie4_sk)),
        slot(&context, arg!(cookie4_skb)),
        slot(&context, arg!(cookie4_ret)),
        Program::CookieFexit4,
    );
    0
}

#[fexit(function = "cookie_v6_check")]
pub fn cookie_fexit6(context: FExitContext) -> i32 {
    checked::<Direct>(
        slot(&context, arg!(cookie6_sk)),
        slot(&context, arg!(cookie6_skb)),
        slot(&context, arg!(cookie6_ret)),
        Program::CookieFexit6,
    );
    0
}

/// For `cookie_v4_check` and `cookie_v6_check`, which take the same.
#[kprobe]
pub fn cookie_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    if let Some(softirq) = softirq() {
        softirq.cookie_listener = registers.arg(arg!(cookie4_sk));
        softirq.cookie_skb = registers.arg(arg!(cookie4_skb));
    }
    0
}

#[kretprobe]
pub fn cookie_kretprobe(context: RetProbeContext) -> u32 {
    if let Some(softirq) = softirq() {
        checked::<Probe>(
            softirq.cookie_listener,
            softirq.cookie_skb,
            Registers::of(&context).returned(),
            Program::CookieKretprobe,
        );
    }
    0
}

/// Without functions to hook: an ACK that a listener dropped, if it sent any cookies.
#[btf_tracepoint(function = "kfree_skb")]
pub fn cookie_dropped_tp_btf(context: BtfTracePointContext) -> i32 {
    let via = Program::CookieDroppedTpBtf;
    let Some(packet) = Packet::received(Obj::<Direct>::new(slot(&context, 0) as *const u8)) else {
        return 0;
    };
    if !packet.is_ack() || requests::get(&requests::key(&packet.tuple, packet.netns)).is_some() {
        return 0;
    }
    let rx_sk = tracepoint_slot(&context, arg!(kfree_skb_rx_sk));
    let Some(listener) = Probe::tcp(rx_sk as *const u8) else {
        return 0;
    };
    if listener.state() != state::LISTEN || listener.syncookies() == 0 || !listener.sent_cookies() {
        return 0;
    }
    // The reason of a segment that a listener has no use for: an invalid cookie makes it one.
    if tracepoint_slot(&context, arg!(kfree_skb_reason)) as u32 == global!(CONFIG.reason_tcp_flags) {
        rejected(listener, &packet, via);
    } else if accept_queue_is_full(&listener.queues()) {
        refused(listener, &packet, via);
    }
    0
}
