//! Running a program that is attached nowhere, once (`BPF_PROG_TEST_RUN`; of raw tracepoints from 5.10 on).

use std::{
    io::{Error, Result},
    os::fd::{AsRawFd as _, OwnedFd},
};

const BPF_PROG_TEST_RUN: i64 = 10;

/// The part of `union bpf_attr` that the command reads.
#[derive(Default)]
#[repr(C)]
struct Attr {
    fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
}

const _: () = assert!(size_of::<Attr>() == 72);

/// Runs a raw tracepoint's program with one argument.
pub fn run(program: &OwnedFd, argument: u64) -> Result<()> {
    let attr = Attr {
        fd: u32::try_from(program.as_raw_fd()).map_err(Error::other)?,
        ctx_size_in: u32::try_from(size_of::<u64>()).map_err(Error::other)?,
        ctx_in: (&raw const argument) as u64,
        ..Attr::default()
    };
    // SAFETY: `attr` names an argument of the size that it says, which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw const attr, size_of::<Attr>()) };
    if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
