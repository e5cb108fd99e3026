//! A listener's queues as they are now. User space runs this for each listener that it is about to show
//! (`BPF_PROG_TEST_RUN`); it is attached nowhere.
//!
//! What hooks saw last is not enough: a queue also moves where none of them looks.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use socklife_abi::event::state;

use crate::{
    args::slot,
    listeners,
    mem::{Mem as _, Probe},
};

/// Its argument is the address of the listener's sock.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn refresh_raw_tp(context: RawTracePointContext) -> i32 {
    if let Some(listener) = Probe::tcp(slot(&context, 0) as *const u8)
        && listener.state() == state::LISTEN
    {
        listeners::refresh(listener);
    }
    0
}
