//! ACKs that bring a SYN cookie back: `cookie_rejected`, and `accept_refused` where it is valid and the accept queue is
//! full. `cookie_accepted` comes with the child (`accept_queue`).

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use socklife_abi::{
    event::{CookieRejected, Total, state},
    program::Program,
    table::RequestKey,
};

use crate::{
    args::{Registers, arg, slot, tracepoint_slot},
    emit::Subject,
    half_open, listeners,
    maps::global,
    mem::{Direct, Mem, Obj, Probe},
    packet::Packet,
    requests,
    sock::{Sock, accept_queue_is_full},
    softirq::softirq,
};

/// The ACK has no valid cookie.
#[inline(always)]
fn rejected<M: Mem>(listener: Sock<M>, key: &RequestKey, via: Program) {
    let tuple = half_open::tuple_of(key, listener.is_ipv6());
    let Some(subject) = Subject::of(listener.key(), tuple, key.netns, via, || 0) else {
        return;
    };
    let queues = listeners::queues(listener);
    listeners::count_one(listener.key(), key.netns, Total::CookieRejected);
    subject.emit_sampled(listener.key(), CookieRejected { queues });
}

/// The cookie is valid, and there is no room for the child.
#[inline(always)]
fn refused<M: Mem>(listener: Sock<M>, key: &RequestKey, via: Program) {
    let tuple = half_open::tuple_of(key, listener.is_ipv6());
    if Subject::of(listener.key(), tuple, key.netns, via, || 0).is_some() {
        listeners::count_one(listener.key(), key.netns, Total::CookieReceived);
    }
    half_open::cookie_refused(listener, tuple, key.netns, via);
}

#[inline(always)]
fn entered<M: Mem>(sk: u64, skb: u64) {
    let Some(softirq) = softirq() else { return };
    softirq.cookie_listener = 0;
    let Some(packet) = Packet::received(Obj::<M>::new(skb as *const u8)) else {
        return;
    };
    if packet.is_ack() {
        softirq.cookie_key = requests::key(&packet.tuple, packet.netns);
        softirq.cookie_listener = sk;
    }
}

#[inline(always)]
fn returned<M: Mem>(sk: u64, result: u64, via: Program) {
    let Some(softirq) = softirq() else { return };
    let Some(listener) = M::tcp(sk as *const u8) else {
        return;
    };
    // What the kernel asks before it looks for a cookie.
    if softirq.cookie_listener == 0 || listener.syncookies() == 0 || !listener.sent_cookies() {
        return;
    }
    if result == sk {
        rejected(listener, &softirq.cookie_key, via);
    } else if result == 0 && accept_queue_is_full(&listener.queues()) {
        refused(listener, &softirq.cookie_key, via);
    }
}

#[fentry(function = "cookie_v4_check")]
pub fn cookie_fentry4(context: FEntryContext) -> i32 {
    entered::<Direct>(slot(&context, arg!(cookie4_sk)), slot(&context, arg!(cookie4_skb)));
    0
}

#[fentry(function = "cookie_v6_check")]
pub fn cookie_fentry6(context: FEntryContext) -> i32 {
    entered::<Direct>(slot(&context, arg!(cookie6_sk)), slot(&context, arg!(cookie6_skb)));
    0
}

#[fexit(function = "cookie_v4_check")]
pub fn cookie_fexit4(context: FExitContext) -> i32 {
    returned::<Direct>(
        slot(&context, arg!(cookie4_sk)),
        slot(&context, arg!(cookie4_ret)),
        Program::CookieFexit4,
    );
    0
}

#[fexit(function = "cookie_v6_check")]
pub fn cookie_fexit6(context: FExitContext) -> i32 {
    returned::<Direct>(
        slot(&context, arg!(cookie6_sk)),
        slot(&context, arg!(cookie6_ret)),
        Program::CookieFexit6,
    );
    0
}

/// Both functions take the same.
#[inline(always)]
fn entered_by_kprobe(context: &ProbeContext, _: Program) {
    let registers = Registers::of(context);
    entered::<Probe>(registers.arg(arg!(cookie4_sk)), registers.arg(arg!(cookie4_skb)));
}

#[inline(always)]
fn returned_by_kretprobe(context: &RetProbeContext, via: Program) {
    if let Some(softirq) = softirq() {
        returned::<Probe>(softirq.cookie_listener, Registers::of(context).returned(), via);
    }
}

at_each!(kprobe(ProbeContext) entered_by_kprobe: cookie_kprobe4 = CookieKprobe4, cookie_kprobe6 = CookieKprobe6);
at_each!(kretprobe(RetProbeContext) returned_by_kretprobe:
    cookie_kretprobe4 = CookieKretprobe4, cookie_kretprobe6 = CookieKretprobe6);

/// Without functions to hook: an ACK that a listener dropped, if it sent any cookies.
#[btf_tracepoint(function = "kfree_skb")]
pub fn cookie_dropped_tp_btf(context: BtfTracePointContext) -> i32 {
    let via = Program::CookieDroppedTpBtf;
    let skb = slot(&context, 0);
    let Some(packet) = Packet::received(Obj::<Direct>::new(skb as *const u8)) else {
        return 0;
    };
    // Of a half-open connection: the program in front of this one has told.
    let told = softirq().is_some_and(|softirq| softirq.dropped_skb == skb);
    if let Some(softirq) = softirq() {
        softirq.dropped_skb = 0;
    }
    if !packet.is_ack() || told {
        return 0;
    }
    let key = requests::key(&packet.tuple, packet.netns);
    let rx_sk = tracepoint_slot(&context, arg!(kfree_skb_rx_sk));
    let Some(listener) = Probe::tcp(rx_sk as *const u8) else {
        return 0;
    };
    if listener.state() != state::LISTEN || listener.syncookies() == 0 || !listener.sent_cookies() {
        return 0;
    }
    // The reason of a segment that a listener has no use for: an invalid cookie makes it one.
    if tracepoint_slot(&context, arg!(kfree_skb_reason)) as u32 == global!(CONFIG.reason_tcp_flags) {
        rejected(listener, &key, via);
    } else if accept_queue_is_full(&listener.queues()) {
        refused(listener, &key, via);
    }
    0
}
