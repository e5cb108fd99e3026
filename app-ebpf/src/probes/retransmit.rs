//! `tcp:tcp_retransmit_skb` tells of `retransmitted`.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use socklife_abi::{
    event::{Retransmitted, resend, state},
    program::Program,
};

use crate::{
    args::{arg, slot, tracepoint_slot},
    emit::Subject,
    maps::global,
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

/// `TFO_DATA_NOT_ACKED`, the first of two: the kernel gave up what it sent with the SYN (`tcp_rcv_fastopen_synack`).
const FASTOPEN_NOT_ACKED: u8 = 2;

/// The timer takes its event away before it sends, except for a probe (`tcp_write_timer_handler`).
#[inline(always)]
fn cause(sock: Sock<Probe>, seq: u32) -> u32 {
    let event = sock.0.get(off!(timer_event));
    let ca_state = sock.0.bits(off!(ca_state));
    let timed_out = sock.0.get(off!(retransmits)) != 0;
    // It may be due and not be sent yet; the first segment of all that is sent again is none.
    let probing = event == TIME_LOSS_PROBE && ca_state != CA_LOSS && sock.0.get(off!(total_retrans)) != 1;
    if !timed_out && !probing && ca_state != CA_RECOVERY {
        let is_first = sock.0.get(off!(snd_una)) == seq && sock.0.get(off!(bytes_acked)) <= 1;
        if is_first && sock.0.bits(off!(fastopen_failed)) >= FASTOPEN_NOT_ACKED {
            return resend::SYN_DATA_NOT_ACKED;
        }
        // A timeout would have noted where to go back to (`tcp_enter_loss`). Without SACK one that was undone looks the same.
        if ca_state == CA_LOSS && sock.0.get(off!(undo_marker)) == 0 {
            let certain = sock.0.bits(off!(sack_ok)) != 0;
            return if certain { resend::PATH_MTU } else { resend::UNKNOWN };
        }
    }
    match ca_state {
        CA_LOSS if event == 0 && is_hurried(sock) => resend::CHALLENGE_ACK,
        CA_LOSS if event == 0 => resend::TIMEOUT,
        CA_LOSS => resend::AFTER_TIMEOUT,
        _ if event == TIME_LOSS_PROBE => resend::TAIL_LOSS_PROBE,
        CA_RECOVERY => resend::FAST,
        _ => resend::UNKNOWN,
    }
}

/// A SYN is sent again before its time: an ACK that does not fit does that, once (`tcp_rcv_synsent_state_process`).
#[inline(always)]
fn is_hurried(sock: Sock<Probe>) -> bool {
    if sock.state() != state::SYN_SENT || sock.0.get(off!(retransmits)) != 1 {
        return false;
    }
    // SAFETY: takes no argument.
    let us = unsafe { bpf_ktime_get_ns() } / 1000;
    // Since connect(2): TCP's own clock, of milliseconds.
    let is_us = sock.0.bits(off!(usec_ts)) != 0;
    let now = if is_us { us } else { us / 1000 };
    let elapsed = (now as u32).wrapping_sub(sock.0.get(off!(retrans_stamp)));
    let elapsed_ms = if is_us { elapsed / 1000 } else { elapsed };
    // Both clocks are coarse, and timers of the kernel are never early.
    let hz = global!(CONFIG.hz).max(1);
    let rto_ms = u64::from(sock.0.get(off!(rto)).saturating_sub(2)) * 1000 / u64::from(hz);
    u64::from(elapsed_ms) + 2 < rto_ms
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
        cause: cause(sock, seq),
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
