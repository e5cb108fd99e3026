//! File descriptors of sockets come and go: `fd_opened`, `fd_closed`, `fds_closed`, and `last_close` with the last one.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_probe_read_user,
    macros::{cgroup_sock, kprobe, tracepoint},
    programs::{ProbeContext, SockContext, TracePointContext},
};
use socklife_abi::{
    counter::Missed,
    event::{FdClosed, FdOpened, FdsClosed, LastClose, UNKNOWN_DEPTH, UNKNOWN_FD, how},
    program::Program,
};

use crate::{
    args::{Registers, arg, record},
    calls::{enter, enter_unless_entered, leave},
    emit::{Subject, emit_process},
    maps::{CLOSES, missed},
    mem::{Obj, Probe, off},
    processes,
    sock::Sock,
    task::{Task, file_of_fd, sock_of_file, thread},
    twice::first_in_call,
};

/// A socket that has an address: one that was just made tells of itself when it binds, listens or connects.
#[inline(always)]
fn subject(sock: Sock<Probe>, via: Program, task: Task) -> Option<Subject> {
    let tuple = sock.tuple();
    if tuple.sport == 0 && tuple.dport == 0 {
        return None;
    }
    Subject::with_tuple(sock, tuple, via, task)
}

#[inline(always)]
fn opened(file: Obj<Probe>, fd: i32, how: u32, via: Program) {
    let Some(sock) = sock_of_file(file) else { return };
    if let Some(subject) = subject(sock, via, Task::current()) {
        subject.is_held();
        subject.emit(FdOpened {
            fd,
            how,
            inode: sock.inode(),
        });
    }
}

#[inline(always)]
fn closed(file: Obj<Probe>, fd: i32, via: Program) {
    let Some(sock) = sock_of_file(file) else { return };
    if let Some(subject) = subject(sock, via, Task::current()) {
        subject.emit(FdClosed {
            fd,
            left: UNKNOWN_DEPTH,
            inode: sock.inode(),
        });
    }
}

#[inline(always)]
fn released(sk: Obj<Probe>, via: Program, task: Task) {
    let Some(sock) = Sock::of_file(sk) else { return };
    if let Some(subject) = subject(sock, via, task) {
        subject.emit(LastClose {});
    }
}

#[inline(always)]
fn file(address: u64) -> Obj<Probe> {
    Obj::new(address as *const u8)
}

// fd_install() gives a descriptor to whatever has none yet; only dup2(2) and dup3(2) choose it themselves.

#[kprobe]
pub fn open_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    opened(
        file(registers.arg(arg!(fd_install_file))),
        registers.arg(arg!(fd_install_fd)) as i32,
        how::UNKNOWN,
        Program::OpenKprobe,
    );
    0
}

#[kprobe]
pub fn dup_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    opened(
        file(registers.arg(arg!(dup2_file))),
        registers.arg(arg!(dup2_fd)) as i32,
        how::DUPLICATED,
        Program::DupKprobe,
    );
    0
}

/// The exit of system calls that return a descriptor. `fcntl` may return another number, which at worst tells again of a
/// descriptor that there is.
#[inline(always)]
fn call_opened(context: &TracePointContext, place: Program, via: Program) {
    let fd = record(context, 16) as i64;
    if fd < 0 {
        return;
    }
    let file = file_of_fd(fd as u64);
    // Most descriptors are no sockets.
    if sock_of_file(file).is_some() && first_in_call(file.ptr() as u64, place, via) {
        let how = match place {
            Program::OpenPidfdTp => how::RECEIVED,
            Program::OpenAcceptTp | Program::OpenAccept4Tp => how::UNKNOWN,
            _ => how::DUPLICATED,
        };
        opened(file, fd as i32, how, via);
    }
}

twice_at_each!(tracepoint(TracePointContext) call_opened:
    open_accept_tp, open_accept_tp_second = OpenAcceptTp, OpenAcceptTpSecond;
    open_accept4_tp, open_accept4_tp_second = OpenAccept4Tp, OpenAccept4TpSecond;
    open_dup_tp, open_dup_tp_second = OpenDupTp, OpenDupTpSecond;
    open_dup2_tp, open_dup2_tp_second = OpenDup2Tp, OpenDup2TpSecond;
    open_dup3_tp, open_dup3_tp_second = OpenDup3Tp, OpenDup3TpSecond;
    open_fcntl_tp, open_fcntl_tp_second = OpenFcntlTp, OpenFcntlTpSecond;
    open_pidfd_tp, open_pidfd_tp_second = OpenPidfdTp, OpenPidfdTpSecond);

/// `struct msghdr` of recvmsg(2), as far as it is wanted.
#[repr(C)]
struct Msghdr {
    before: [u64; 4],
    control: u64,
    controllen: u64,
}

/// `struct cmsghdr`.
#[repr(C)]
struct Cmsghdr {
    len: u64,
    level: i32,
    kind: i32,
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
/// Credentials, a security label and a pidfd may stand before the descriptors (`scm_recv`).
const MESSAGES: u32 = 4;
/// Of one message; more are seen when they are used.
const DESCRIPTORS: u64 = 8;

#[inline(always)]
fn recvmsg_entered(context: &TracePointContext, _: Program) {
    enter(record(context, 24), 0);
}

#[inline(always)]
fn recvmsg_entered_second(context: &TracePointContext, _: Program) {
    enter_unless_entered(record(context, 24), 0);
}

at_each!(tracepoint(TracePointContext) recvmsg_entered: recvmsg_enter_tp = RecvmsgEnterTp);
at_each!(tracepoint(TracePointContext) recvmsg_entered_second: recvmsg_enter_tp_second = RecvmsgEnterTpSecond);
at_each!(tracepoint(TracePointContext) recvmsg_returned:
    recvmsg_tp = RecvmsgTp, recvmsg_tp_second = RecvmsgTpSecond);

/// What came with the message. Who sees the return takes the note of the call away: a second program finds none.
#[inline(always)]
fn recvmsg_returned(context: &TracePointContext, via: Program) {
    let Some(call) = leave() else { return };
    if (record(context, 16) as i64) < 0 {
        return;
    }
    // SAFETY: the helper checks the address.
    let Ok(header) = (unsafe { bpf_probe_read_user(call.object as *const Msghdr) }) else {
        return;
    };
    let mut at = header.control;
    let end = header.control.wrapping_add(header.controllen);
    for _ in 0..MESSAGES {
        if at == 0 || at.wrapping_add(size_of::<Cmsghdr>() as u64) > end {
            break;
        }
        // SAFETY: as above.
        let Ok(message) = (unsafe { bpf_probe_read_user(at as *const Cmsghdr) }) else {
            break;
        };
        if message.len < size_of::<Cmsghdr>() as u64 {
            break;
        }
        if message.level == SOL_SOCKET && message.kind == SCM_RIGHTS {
            received(
                at + size_of::<Cmsghdr>() as u64,
                (message.len - size_of::<Cmsghdr>() as u64) / 4,
                via,
            );
            break;
        }
        at = at.wrapping_add((message.len + 7) & !7);
    }
}

#[inline(always)]
fn received(at: u64, count: u64, via: Program) {
    for i in 0..DESCRIPTORS {
        if i >= count {
            break;
        }
        // SAFETY: the helper checks the address.
        let Ok(fd) = (unsafe { bpf_probe_read_user((at + 4 * i) as *const i32) }) else {
            break;
        };
        if fd >= 0 {
            opened(file_of_fd(fd as u64), fd, how::RECEIVED, via);
        }
    }
}

// Each descriptor that goes passes filp_flush(), or on older kernels filp_close(): by close(2), close_range(2), dup2(2),
// execve(2), or the end of the process. Which one it was nobody says there; what close(2) was asked is noted before.

/// The same thread comes to the hooks below a moment later.
#[inline(always)]
fn closing(fd: u64) {
    let fd = fd & 0xffff_ffff;
    // Most descriptors are no sockets.
    if sock_of_file(file_of_fd(fd)).is_some() && CLOSES.insert(thread(), fd, 0).is_err() {
        missed(Missed::CallTable);
    }
}

/// A descriptor that goes; its number where the thread is in close(2).
#[inline(always)]
fn flushed(address: u64, via: Program) {
    let file = file(address);
    if sock_of_file(file).is_none() {
        return;
    }
    let thread = thread();
    // SAFETY: only this thread writes its entry.
    let fd = match unsafe { CLOSES.get(thread) } {
        Some(fd) => {
            let fd = *fd as i32;
            let _ = CLOSES.remove(thread);
            fd
        }
        None => UNKNOWN_FD,
    };
    closed(file, fd, via);
}

/// `file_close_fd` and `close_fd` take the same.
#[inline(always)]
fn closing_by_kprobe(context: &ProbeContext, _: Program) {
    closing(Registers::of(context).arg(arg!(close_fd)));
}

/// `filp_flush` and `filp_close` take the same.
#[inline(always)]
fn flushed_by_kprobe(context: &ProbeContext, via: Program) {
    flushed(Registers::of(context).arg(arg!(filp_close_filp)), via);
}

at_each!(kprobe(ProbeContext) closing_by_kprobe:
    closing_kprobe = ClosingKprobe, closing_file_kprobe = ClosingFileKprobe);
at_each!(kprobe(ProbeContext) flushed_by_kprobe:
    close_kprobe = CloseKprobe, close_flush_kprobe = CloseFlushKprobe);

#[inline(always)]
fn closed_once(fd: u64, place: Program, via: Program) {
    let file = file_of_fd(fd);
    // Most descriptors are no sockets.
    if sock_of_file(file).is_some() && first_in_call(file.ptr() as u64, place, via) {
        closed(file, fd as i32, via);
    }
}

#[inline(always)]
fn call_closes(context: &TracePointContext, place: Program, via: Program) {
    closed_once(record(context, 16) & 0xffff_ffff, place, via);
}

/// What stood at the new descriptor is closed.
#[inline(always)]
fn call_replaces(context: &TracePointContext, place: Program, via: Program) {
    let (old, new) = (record(context, 16) & 0xffff_ffff, record(context, 24) & 0xffff_ffff);
    // Or it fails, or does nothing.
    if old != new && !file_of_fd(old).ptr().is_null() {
        closed_once(new, place, via);
    }
}

twice_at_each!(tracepoint(TracePointContext) call_closes:
    close_tp, close_tp_second = CloseTp, CloseTpSecond);
twice_at_each!(tracepoint(TracePointContext) call_replaces:
    replace_dup2_tp, replace_dup2_tp_second = ReplaceDup2Tp, ReplaceDup2TpSecond;
    replace_dup3_tp, replace_dup3_tp_second = ReplaceDup3Tp, ReplaceDup3TpSecond);

/// They are kept, and closed by the next execve(2).
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

#[inline(always)]
fn call_closes_range(context: &TracePointContext, place: Program, via: Program) {
    let (from, to) = (record(context, 16) as u32, record(context, 24) as u32);
    if from > to || record(context, 32) as u32 & CLOSE_RANGE_CLOEXEC != 0 {
        return;
    }
    let task = Task::current();
    if processes::is_known(task.pid) && first_in_call(u64::from(from) << 32 | u64::from(to), place, via) {
        emit_process(task, via, FdsClosed { first: from, last: to });
    }
}

twice_at_each!(tracepoint(TracePointContext) call_closes_range:
    close_range_tp, close_range_tp_second = CloseRangeTp, CloseRangeTpSecond);

#[kprobe]
pub fn release_kprobe(context: ProbeContext) -> u32 {
    let socket = file(Registers::of(&context).arg(arg!(release_socket)));
    released(
        socket.follow(off!(socket_sk)),
        Program::ReleaseKprobe,
        Task::current().if_user(),
    );
    0
}

/// Here the context is the `struct sock` itself, once it is read by address.
#[cgroup_sock(sock_release)]
pub fn release_cgroup(context: SockContext) -> i32 {
    released(
        Obj::new(context.as_ptr().cast()),
        Program::ReleaseCgroup,
        Task::walked().if_user(),
    );
    1
}
