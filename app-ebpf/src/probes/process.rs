//! fork, exec and exit of processes that hold sockets: `forked`, `executed`, `exited`.
//!
//! A fork copies the parent's table of descriptors. Nobody walks it here: user space knows what the parent holds.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use socklife_abi::{
    event::{Executed, Exited, Forked},
    program::Program,
};

use crate::{
    args::slot,
    emit::emit_process,
    mem::{Obj, Probe, off},
    processes,
    task::{Task, open_descriptors},
    twice::first,
};

/// Twice, see [`crate::twice`]: what the first told, the second finds done.
#[inline(always)]
fn forked(context: &impl EbpfContext, via: Program) {
    let parent = Obj::<Probe>::new(slot(context, 0) as *const u8);
    let child = Obj::<Probe>::new(slot(context, 1) as *const u8);
    let (of, new): (u32, u32) = (parent.get(off!(task_tgid)), child.get(off!(task_tgid)));
    // A thread is no process.
    if of == new {
        return;
    }
    if !processes::is_known(of) {
        processes::anew(new);
        return;
    }
    if !first(u64::from(new), Program::ForkRawTp, via) {
        return;
    }
    processes::anew(new);
    if !processes::note(new) {
        return;
    }
    let shared = parent.follow(off!(task_files)).ptr() == child.follow(off!(task_files)).ptr();
    emit_process(
        Task::current(),
        via,
        Forked {
            child: new,
            shared: u32::from(shared),
        },
    );
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw_tp(context: RawTracePointContext) -> i32 {
    forked(&context, Program::ForkRawTp);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw_tp_second(context: RawTracePointContext) -> i32 {
    forked(&context, Program::ForkRawTpSecond);
    0
}

/// The descriptors marked close-on-exec are closed by now.
#[inline(always)]
fn executed(via: Program) -> i32 {
    let task = Task::current();
    if processes::is_known(task.pid) && first(0, Program::ExecRawTp, via) {
        let open = open_descriptors();
        emit_process(task, via, Executed { open });
    }
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw_tp(_: RawTracePointContext) -> i32 {
    executed(Program::ExecRawTp)
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw_tp_second(_: RawTracePointContext) -> i32 {
    executed(Program::ExecRawTpSecond)
}

#[inline(always)]
fn exited(context: &impl EbpfContext, via: Program) {
    let current = Obj::<Probe>::new(slot(context, 0) as *const u8);
    // Other threads still run (`do_exit` has taken this one off the count).
    let live: u32 = current.follow(off!(task_signal)).get(off!(signal_live));
    let task = Task::current();
    if live != 0 || !processes::forget(task.pid) {
        return;
    }
    emit_process(
        task,
        via,
        Exited {
            status: current.get(off!(task_exit)),
            reserved: 0,
        },
    );
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_raw_tp(context: RawTracePointContext) -> i32 {
    exited(&context, Program::ExitRawTp);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_raw_tp_second(context: RawTracePointContext) -> i32 {
    exited(&context, Program::ExitRawTpSecond);
    0
}
