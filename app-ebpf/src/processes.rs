//! Which processes are worth telling of: those that hold a socket that somebody asked for.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{counter::Missed, event::Kind};

use crate::maps::{PROCESSES, global, missed};

/// Whether anybody asked what processes do.
#[inline(always)]
fn wanted() -> bool {
    global!(FILTER.events) & (1 << Kind::Forked as u8) != 0
}

/// Remembers a process. True where it was not known before.
#[inline(always)]
pub fn note(pid: u32) -> bool {
    if !wanted() || is_known(pid) {
        return false;
    }
    if PROCESSES.insert(pid, 1, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    // Another CPU may have been first, which is as good.
    if !is_known(pid) {
        missed(Missed::ProcessTable);
    }
    false
}

/// Whether it holds, or has held, a socket.
#[inline(always)]
pub fn is_known(pid: u32) -> bool {
    PROCESSES.get_ptr(pid).is_some()
}

/// A process is made: whatever is known of its PID is of another, whose end nobody saw.
#[inline(always)]
pub fn anew(pid: u32) {
    if is_known(pid) {
        let _ = PROCESSES.remove(pid);
    }
}

/// The process has ended. True where it was known.
#[inline(always)]
pub fn forget(pid: u32) -> bool {
    PROCESSES.remove(pid).is_ok()
}
