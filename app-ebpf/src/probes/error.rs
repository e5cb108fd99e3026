//! What ICMP says of a connect. One that comes while connect(2) holds the socket ends nothing: the error waits until the
//! process asks (`SO_ERROR`), and is gone when it closes.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use socklife_abi::{event::state, table::Refusal};

use crate::{
    args::{Registers, arg, slot},
    lives,
    maps::REFUSALS,
    mem::{Mem as _, Probe, off},
    packet::{control, sender},
};

/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Before 6.0 what came while connect(2) held the socket is not queued, and nobody is told.
#[inline(always)]
fn reported(sk: u64) {
    let Some(sock) = Probe::tcp(sk as *const u8) else {
        return;
    };
    if sock.state() != state::SYN_SENT || sock.0.get(off!(error_queue_len)) == 0 {
        return;
    }
    // The last of the queue is what this is about (`ip_icmp_error`).
    let skb = sock.0.follow(off!(error_queue));
    let control = control(skb);
    let version = match control.get(off!(exterr_origin)) {
        ORIGIN_ICMP => 4,
        ORIGIN_ICMP6 => 6,
        _ => return,
    };
    let refusal = Refusal {
        cookie: lives::cookie(sk),
        sender: sender(skb, version),
        errno: control.get(off!(exterr_errno)),
        version,
        icmp_type: control.get(off!(exterr_type)),
        icmp_code: control.get(off!(exterr_code)),
        reserved: 0,
    };
    // One that finds no room takes the place of the oldest.
    let _ = REFUSALS.insert(sk, refusal, 0);
}

/// What ICMP said of this connect, if it did.
#[inline(always)]
pub fn refusal(sk: u64) -> Option<&'static Refusal> {
    // SAFETY: a value of the table, which says whose it is.
    let refusal = unsafe { &*REFUSALS.get_ptr(sk)? };
    (refusal.cookie != 0 && refusal.cookie == lives::cookie(sk)).then_some(refusal)
}

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn error_tp_btf(context: BtfTracePointContext) -> i32 {
    reported(slot(&context, 0));
    0
}

#[raw_tracepoint(tracepoint = "inet_sk_error_report")]
pub fn error_raw_tp(context: RawTracePointContext) -> i32 {
    reported(slot(&context, 0));
    0
}

#[fentry(function = "sock_def_error_report")]
pub fn error_fentry(context: FEntryContext) -> i32 {
    reported(slot(&context, arg!(error_report_sk)));
    0
}

#[kprobe]
pub fn error_kprobe(context: ProbeContext) -> u32 {
    reported(Registers::of(&context).arg(arg!(error_report_sk)));
    0
}
