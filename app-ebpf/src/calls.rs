//! A call from its entry to its return: who sees the return often no longer sees the arguments.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use socklife_abi::counter::Missed;

use crate::maps::{CALLS, Call, missed};

/// Remembers a call of this thread: one at a time.
#[inline(always)]
pub fn enter(object: u64, other: u64) {
    if CALLS
        .insert(bpf_get_current_pid_tgid(), Call { object, other }, 0)
        .is_err()
    {
        missed(Missed::CallTable);
    }
}

/// The same, in a second program.
#[inline(always)]
pub fn enter_unless_entered(object: u64, other: u64) {
    // SAFETY: only this thread writes its entry.
    let entered = unsafe { CALLS.get(bpf_get_current_pid_tgid()) };
    if !entered.is_some_and(|call| call.object == object && call.other == other) {
        enter(object, other);
    }
}

/// The call that this thread returns from, if its entry was seen.
#[inline(always)]
pub fn leave() -> Option<Call> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    let call = unsafe { CALLS.get(thread) }.copied();
    let _ = CALLS.remove(thread);
    call
}
