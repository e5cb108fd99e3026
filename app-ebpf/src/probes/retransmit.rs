//! `tcp:tcp_retransmit_skb` tells of `retransmitted`.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use socklife_abi::{
    event::{Retransmitted, resend},
    program::Program,
};

use crate::{
    args::{arg, slot, tracepoint_slot},
    emit::Subject,
    mem::{Mem as _, Obj, Probe, off},
    packet::{FIN, SYN, sequence, tcp_flags},
    sock::Sock,
    task::Task,
};

/// `enum tcp_ca_state`.
const CA_RECOVERY: u8 = 3;
const CA_LOSS: u8 = 4;
/// `ICSK_TIME_LOSS_PROBE`
pub const TIME_LOSS_PROBE: u8 = 5;

/// The timer takes its event away before it sends, except for a probe (`tcp_write_timer_handler`).
#[inline(always)]
fn cause(sock: Sock<Probe>) -> u32 {
    let event = sock.0.get(off!(timer_event));
    match sock.0.bits(off!(ca_state)) {
        CA_LOSS if event == 0 => resend::TIMEOUT,
        CA_LOSS => resend::AFTER_TIMEOUT,
        _ if event == TIME_LOSS_PROBE => resend::TAIL_LOSS_PROBE,
        CA_RECOVERY => resend::FAST,
        _ => resend::UNKNOWN,
    }
}

#[inline(always)]
fn resent(context: &impl EbpfContext, via: Program) {
    let Some(sock) = Probe::tcp(slot(context, 0) as *const u8) else {
        return;
    };
    let Some(subject) = Subject::new(sock, via, Task::NONE) else {
        return;
    };
    let skb = Obj::new(slot(context, 1) as *const u8);
    let (seq, end) = sequence(skb);
    let tcp_flags = tcp_flags(skb);
    // SYN and FIN take a sequence number each.
    let no_data = u32::from(tcp_flags & SYN != 0) + u32::from(tcp_flags & FIN != 0);
    let error = tracepoint_slot(context, arg!(retransmit_err)) as i32;
    subject.emit(Retransmitted {
        seq,
        len: end.wrapping_sub(seq).wrapping_sub(no_data),
        timeouts: u32::from(sock.0.get(off!(retransmits))),
        cause: cause(sock),
        state: sock.state(),
        errno: if error < 0 { error.unsigned_abs() } else { 0 },
        tcp_flags,
        reserved: [0; 3],
    });
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn resent_tp_btf(context: BtfTracePointContext) -> i32 {
    resent(&context, Program::ResentTpBtf);
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn resent_raw_tp(context: RawTracePointContext) -> i32 {
    resent(&context, Program::ResentRawTp);
    0
}
