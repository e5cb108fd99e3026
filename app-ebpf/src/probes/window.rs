//! A sender that may not send: `window_stalled` by the peer, `sndbuf_limited` by its own buffer.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use socklife_abi::{
    event::{SndbufLimited, UNKNOWN, WindowStalled},
    kernel::ABSENT,
    program::Program,
};

use crate::{
    args::{Registers, arg, slot},
    calls::{enter, leave},
    emit::Subject,
    maps::LEARNT,
    mem::{Mem, Obj, Probe, off},
    requests::now,
    sock::{Sock, TIME_PROBE},
    task::Task,
};

/// Its place in `LEARNT`: the function of a connection's timer.
const WRITE_TIMER: u32 = 1;

#[inline(always)]
fn stalled(sk: u64, via: Program) {
    let Some(sock) = Probe::tcp(sk as *const u8) else {
        return;
    };
    if let Some(subject) = Subject::new(sock, via, Task::NONE) {
        subject.emit(WindowStalled {
            unsent: sock.unsent(),
            window: sock.0.get(off!(snd_wnd)),
            probes: u32::from(sock.0.get(off!(window_probes))),
            reserved: 0,
        });
    }
}

#[fentry(function = "tcp_send_probe0")]
pub fn window_fentry(context: FEntryContext) -> i32 {
    stalled(slot(&context, arg!(probe_sk)), Program::WindowFentry);
    0
}

#[kprobe]
pub fn window_kprobe(context: ProbeContext) -> u32 {
    stalled(Registers::of(&context).arg(arg!(probe_sk)), Program::WindowKprobe);
    0
}

/// Bytes from the start of a sock to the timer that sends again and probes.
#[inline(always)]
fn write_timer() -> u32 {
    if off!(write_timer).bytes() == ABSENT {
        off!(write_timer_in_sock).bytes()
    } else {
        off!(write_timer).bytes()
    }
}

/// A connection shows whose function its timer calls.
#[inline(always)]
pub fn learn<M: Mem>(sock: Sock<M>) {
    if write_timer() == ABSENT {
        return;
    }
    let timer = Obj::<Probe>::new((sock.key() + u64::from(write_timer())) as *const u8);
    let function = timer.get(off!(timer_function));
    if let Some(learnt) = LEARNT.get_ptr_mut(WRITE_TIMER) {
        // SAFETY: a word of a map's value, which is the same for all who write it.
        unsafe { *learnt = function }
    }
}

/// Without functions to hook: any timer of the machine that expires.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn window_raw_tp(context: RawTracePointContext) -> i32 {
    let timer = slot(&context, 0);
    let function = Obj::<Probe>::new(timer as *const u8).get(off!(timer_function));
    let learnt = LEARNT.get(WRITE_TIMER).copied().unwrap_or(0);
    if function == 0 || function != learnt {
        return 0;
    }
    let sk = timer.wrapping_sub(u64::from(write_timer()));
    if Obj::<Probe>::new(sk as *const u8).get(off!(timer_event)) == TIME_PROBE {
        stalled(sk, Program::WindowRawTp);
    }
    0
}

#[inline(always)]
fn waited(sk: u64, since_ns: u64, returned: i32, via: Program) {
    let Some(sock) = Probe::tcp(sk as *const u8) else {
        return;
    };
    let Some(subject) = Subject::new(sock, via, Task::current()) else {
        return;
    };
    let waited_ns = match since_ns {
        UNKNOWN => UNKNOWN,
        since_ns => subject.envelope.time_ns.saturating_sub(since_ns),
    };
    subject.emit_limited(SndbufLimited {
        waited_ns,
        wmem_queued: sock.0.get(off!(wmem_queued)),
        sndbuf: sock.0.get(off!(sndbuf)),
        unacknowledged: sock.unacknowledged(),
        errno: if returned < 0 { returned.unsigned_abs() } else { 0 },
    });
}

#[fentry(function = "sk_stream_wait_memory")]
pub fn wait_memory_fentry(context: FEntryContext) -> i32 {
    enter(slot(&context, arg!(wait_memory_sk)), now());
    0
}

#[fexit(function = "sk_stream_wait_memory")]
pub fn wait_memory_fexit(context: FExitContext) -> i32 {
    // Who was waiting before we came has waited for nobody knows how long.
    let since_ns = leave().map_or(UNKNOWN, |call| call.other);
    waited(
        slot(&context, arg!(wait_memory_sk)),
        since_ns,
        slot(&context, arg!(wait_memory_ret)) as i32,
        Program::WaitMemoryFexit,
    );
    0
}

#[kprobe]
pub fn wait_memory_kprobe(context: ProbeContext) -> u32 {
    enter(Registers::of(&context).arg(arg!(wait_memory_sk)), now());
    0
}

#[kretprobe]
pub fn wait_memory_kretprobe(context: RetProbeContext) -> u32 {
    if let Some(call) = leave() {
        waited(
            call.object,
            call.other,
            Registers::of(&context).returned() as i32,
            Program::WaitMemoryKretprobe,
        );
    }
    0
}
