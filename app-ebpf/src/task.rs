//! The task that runs here, for hooks that run in the task that caused the event.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_comm, bpf_get_current_task},
};
use socklife_abi::{
    event::{EXECUTED_WORDS, NO_FD, UNKNOWN_FD},
    kernel::Off,
};

use crate::{
    mem::{Obj, Probe, off},
    sock::Sock,
};

/// Who it is. Process 0 is nobody: the idle task makes no system calls.
#[derive(Clone, Copy)]
pub struct Task {
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
}

impl Task {
    /// The event ran in softirq, or nobody knows.
    pub const NONE: Self = Self {
        pid: 0,
        tid: 0,
        uid: 0,
        comm: [0; 16],
    };

    /// The process that runs here.
    #[inline(always)]
    pub fn pid() -> u32 {
        (bpf_get_current_pid_tgid() >> 32) as u32
    }

    /// By helper: tracing programs.
    #[inline(always)]
    pub fn current() -> Self {
        let id = bpf_get_current_pid_tgid();
        Self {
            pid: (id >> 32) as u32,
            tid: id as u32,
            uid: bpf_get_current_uid_gid() as u32,
            comm: current_comm(),
        }
    }

    /// The same, and nobody where it is one of the kernel's own threads, which works for others: io_uring's before 5.12,
    /// and those that let go of files which somebody else gave up.
    #[inline(always)]
    pub fn if_user(self) -> Self {
        const PF_KTHREAD: u32 = 0x0020_0000;
        if current_task().get(off!(task_flags)) & PF_KTHREAD != 0 {
            Self::NONE
        } else {
            self
        }
    }

    /// By walking `task_struct`: `sock_ops` and cgroup programs, which have no helper for it on every kernel.
    #[inline(always)]
    pub fn walked() -> Self {
        let task = current_task();
        Self {
            pid: task.get(off!(task_tgid)),
            tid: task.get(off!(task_pid)),
            uid: task.follow(off!(task_cred)).get(off!(cred_uid)),
            comm: task.get(off!(task_comm)),
        }
    }
}

/// `RLIMIT_NOFILE` of the process that runs here: how many descriptors it may have, by the soft limit.
#[inline(always)]
pub fn descriptor_limit() -> u64 {
    // `struct rlimit`: the soft limit, then the hard one.
    const RLIMIT_NOFILE: usize = 7;
    current_task()
        .follow(off!(task_signal))
        .get_at(off!(signal_limits), RLIMIT_NOFILE * 16)
}

/// The key of the tables of calls: one thread is in one call at a time.
#[inline(always)]
pub fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
fn current_comm() -> [u8; 16] {
    let mut comm = MaybeUninit::<[u8; 16]>::uninit();
    // SAFETY: the helper fills the place, with zeroes if it fails.
    unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
        comm.assume_init()
    }
}

#[inline(always)]
fn current_task() -> Obj<Probe> {
    // SAFETY: no arguments.
    Obj::new(unsafe { bpf_get_current_task() } as *const u8)
}

/// The table of descriptors of the current task.
#[inline(always)]
fn descriptors() -> Obj<Probe> {
    current_task().follow(off!(task_files)).follow(off!(files_fdt))
}

/// Which of the first descriptors of the current task are open.
#[inline(always)]
pub fn open_descriptors() -> [u64; EXECUTED_WORDS] {
    let table = descriptors();
    let (bits, max) = (table.follow(off!(fdt_open)), table.get(off!(fdt_max)));
    let mut open = [0; EXECUTED_WORDS];
    for (i, word) in open.iter_mut().enumerate() {
        if (i as u32) * 64 < max {
            *word = bits.get(Off::at(i as u32 * 8));
        }
    }
    open
}

/// The file behind a descriptor of the current task, or null.
#[inline(always)]
pub fn file_of_fd(fd: u64) -> Obj<Probe> {
    let table = descriptors();
    if fd >= u64::from(table.get(off!(fdt_max))) {
        return Obj::new(core::ptr::null());
    }
    let slots = table.follow(off!(fdt_fd));
    slots.follow(Off::at(fd as u32 * 8))
}

/// Descriptors that are looked at to find the one of a file, eight at a time.
const LOOKED_AT: u32 = 256;
type Slots = [u64; 8];

/// The lowest descriptor of the current task that is this file: `UNKNOWN_FD` where it is not among the first, `NO_FD` where
/// there is no other.
#[inline(never)]
pub fn fd_of_file(file: u64) -> i32 {
    let table = descriptors();
    let (slots, max) = (table.follow(off!(fdt_fd)), table.get(off!(fdt_max)));
    // A table that cannot be read tells nothing.
    if file == 0 || max == 0 {
        return UNKNOWN_FD;
    }
    let mut at = 0;
    while at < LOOKED_AT {
        if at >= max {
            return NO_FD;
        }
        let [a, b, c, d, e, f, g, h]: Slots = slots.get(Off::at(at * 8));
        // One by one: before 5.12 the verifier takes no place on the stack that is not constant.
        let place = if a == file {
            0
        } else if b == file {
            1
        } else if c == file {
            2
        } else if d == file {
            3
        } else if e == file {
            4
        } else if f == file {
            5
        } else if g == file {
            6
        } else if h == file {
            7
        } else {
            at += 8;
            continue;
        };
        return at as i32 + place;
    }
    if max <= LOOKED_AT { NO_FD } else { UNKNOWN_FD }
}

/// The TCP sock behind a file descriptor of the current task.
#[inline(always)]
pub fn sock_of_fd(fd: u64) -> Option<Sock<Probe>> {
    sock_of_file(file_of_fd(fd))
}

/// The TCP sock behind a file.
#[inline(always)]
pub fn sock_of_file(file: Obj<Probe>) -> Option<Sock<Probe>> {
    if file.ptr().is_null() {
        return None;
    }
    let socket = file.follow(off!(file_private));
    // Only a socket's private data points back at its file.
    if socket.ptr().is_null() || socket.follow(off!(socket_file)).ptr() != file.ptr() {
        return None;
    }
    Sock::of_file(socket.follow(off!(socket_sk)))
}
