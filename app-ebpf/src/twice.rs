//! Two programs at one place.
//!
//! The kernel runs no program that is already running on the same CPU. Where it can be preempted in there, another task
//! that comes by meanwhile would be missed (`__bpf_prog_enter_recur`): so there are two, one after the other, and the
//! second does what the first could not.

use socklife_abi::{kernel::NO_ARG, program::Program};

use crate::{
    args::arg,
    maps::{DONE, Done},
    task::thread,
};

/// Whether this program is to tell what this call did to `object`: the first at the place always, the second unless the
/// first has.
#[inline(always)]
pub fn first(object: u64, place: Program, via: Program) -> bool {
    let thread = thread();
    let place = place as u64;
    if via as u64 == place {
        // One that finds no room takes the place of the oldest; without a note it would be told twice.
        let _ = DONE.insert(thread, Done { object, place }, 0);
        return true;
    }
    // SAFETY: only this thread writes its entry.
    let done = unsafe { DONE.get(thread) }.is_some_and(|done| done.object == object && done.place == place);
    if done {
        let _ = DONE.remove(thread);
    }
    !done
}

/// The same at a tracepoint of system calls, where two stand only on kernels that let a task be preempted in there.
#[inline(always)]
pub fn first_in_call(object: u64, place: Program, via: Program) -> bool {
    arg!(call_bpf_faultable) == NO_ARG || first(object, place, via)
}
