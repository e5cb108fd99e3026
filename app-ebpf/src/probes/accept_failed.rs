//! accept(2) that fails, other than for want of a connection: `accept_failed`.
//!
//! EMFILE comes before anyone looks at the listener (`get_unused_fd_flags`): only the system call itself tells.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use socklife_abi::{
    event::{AcceptFailed, Queues, Total, UNKNOWN, accept_failure, state},
    program::Program,
};

use crate::{
    args::{Registers, arg, slot},
    emit::Subject,
    listeners,
    maps::ACCEPTS,
    mem::Probe,
    sock::Sock,
    task::{Task, descriptor_limit, sock_of_fd, thread},
    twice::first,
};

const EINTR: u32 = 4;
const EAGAIN: u32 = 11;
const EMFILE: u32 = 24;
/// io_uring: the request was taken back.
const ECANCELED: u32 = 125;
/// From here on errnos are the kernel's own: ERESTARTSYS and its kin become EINTR, or the call is made again.
const ERESTARTSYS: u32 = 512;

/// Whether a result of accept(2) is a failure that is worth telling.
#[inline(always)]
pub fn is_failure(result: i32) -> bool {
    let errno = result.wrapping_neg() as u32;
    result < 0 && errno != EAGAIN && errno != EINTR && errno != ECANCELED && errno < ERESTARTSYS
}

/// What accept(2) on this descriptor of the current task returned, where [`is_failure`] holds.
#[inline(always)]
pub fn failed(fd: u64, result: i32, via: Program) {
    if let Some(sock) = sock_of_fd(fd) {
        failed_at(sock, fd as i32, result, Task::current(), via);
    }
}

/// The same where the sock is known, and who did it.
#[inline(always)]
pub fn failed_at(sock: Sock<Probe>, fd: i32, result: i32, task: Task, via: Program) {
    let errno = result.wrapping_neg() as u32;
    let Some(subject) = Subject::new(sock, via, task) else {
        return;
    };
    // accept(2) on what is no listener: EINVAL.
    let listens = sock.state() == state::LISTEN;
    let listener = if listens { sock.key() } else { 0 };
    listeners::count(
        listener,
        subject.envelope.netns,
        Total::AcceptFailed as usize + accept_failure::place(errno) as usize,
    );
    let payload = AcceptFailed {
        queues: if listens {
            listeners::queues(sock)
        } else {
            Queues::UNKNOWN
        },
        limit: if errno == EMFILE { descriptor_limit() } else { UNKNOWN },
        errno,
        fd,
    };
    // A server that polls is told again at once: it may come here a million times in a second.
    if listens {
        subject.emit_sampled(listener, payload);
    } else {
        subject.emit_limited(payload);
    }
}

#[inline(always)]
fn returned(context: &FExitContext, via: Program) -> i32 {
    let result = slot(context, arg!(sys_accept_ret)) as i32;
    if is_failure(result) {
        let fd = u64::from(slot(context, arg!(sys_accept_fd)) as u32);
        if first(fd, Program::AcceptFailFexit, via) {
            failed(fd, result, via);
        }
    }
    0
}

#[fexit(function = "__sys_accept4")]
pub fn accept_fail_fexit(context: FExitContext) -> i32 {
    returned(&context, Program::AcceptFailFexit)
}

#[fexit(function = "__sys_accept4")]
pub fn accept_fail_fexit_second(context: FExitContext) -> i32 {
    returned(&context, Program::AcceptFailFexitSecond)
}

#[kprobe]
pub fn accept_fail_kprobe(context: ProbeContext) -> u32 {
    let fd = Registers::of(&context).arg(arg!(sys_accept_fd)) as u32;
    // One that finds no room takes the place of the oldest.
    let _ = ACCEPTS.insert(thread(), u64::from(fd), 0);
    0
}

#[kretprobe]
pub fn accept_fail_kretprobe(context: RetProbeContext) -> u32 {
    let thread = thread();
    // SAFETY: only this thread writes its entry.
    let fd = unsafe { ACCEPTS.get(thread) }.copied();
    let _ = ACCEPTS.remove(thread);
    let result = Registers::of(&context).returned() as i32;
    if is_failure(result)
        && let Some(fd) = fd
    {
        failed(fd, result, Program::AcceptFailKretprobe);
    }
    0
}
