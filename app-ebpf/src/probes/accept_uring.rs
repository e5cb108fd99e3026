//! accept(2) by io_uring, where no function can be hooked: what it completes with tells.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use socklife_abi::{kernel::NO_ARG, program::Program};

use crate::{
    args::{arg, tracepoint_slot},
    lives,
    mem::{Obj, Probe, off},
    probes::{accept, accept_failed},
    sock::Sock,
    task::{Task, sock_of_fd, sock_of_file},
};

/// `IORING_OP_ACCEPT`
const ACCEPT: u8 = 13;

/// A request is done. One that goes on (multishot) is not named; nor is any on 5.10.
#[raw_tracepoint(tracepoint = "io_uring_complete")]
pub fn accept_uring_raw_tp(context: RawTracePointContext) -> i32 {
    let via = Program::AcceptUringRawTp;
    let req = Obj::<Probe>::new(tracepoint_slot(&context, arg!(uring_req)) as *const u8);
    if !req.ptr().is_null() && req.get(off!(uring_opcode)) != ACCEPT {
        return 0;
    }
    let result = if arg!(uring_cqe) == NO_ARG {
        tracepoint_slot(&context, arg!(uring_res)) as i32
    } else {
        Obj::<Probe>::new(tracepoint_slot(&context, arg!(uring_cqe)) as *const u8).get(off!(uring_cqe_res))
    };
    if result >= 0 {
        if let Some(child) = sock_of_fd(result as u64) {
            accepted(child, result, via);
        }
    } else if !req.ptr().is_null()
        && accept_failed::is_failure(result)
        && let Some(listener) = sock_of_file(req.follow(off!(uring_file)))
    {
        accept_failed::failed_at(listener, -1, result, Task::current().if_user(), via);
    }
    0
}

/// The number may be no descriptor, but a count of bytes. A child that somebody has, and that no other hook saw leave the
/// queue, left it by this.
#[inline(always)]
fn accepted(child: Sock<Probe>, fd: i32, via: Program) {
    let life = lives::of(child.key(), lives::cookie(child.key()));
    if life.queued != 0 && life.accepted != lives::ACCEPTED && child.is_grafted() {
        accept::accepted_by::<Probe, Probe>(child, None, fd, Task::current().if_user(), via);
    }
}
