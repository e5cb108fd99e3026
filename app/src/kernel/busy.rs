//! Runs that the kernel skipped because the program was at work on that CPU already: in an interrupt, or in a task that
//! got the CPU meanwhile (`bpf_prog_info.recursion_misses`, 5.12 on). Each may be an event that nobody saw.

use std::{
    io::{Error, Result},
    mem::offset_of,
    os::fd::{AsRawFd as _, OwnedFd},
};

const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;

/// `struct bpf_prog_info` (`include/uapi/linux/bpf.h`), up to the field that is wanted. Older kernels fill less of it.
#[derive(Clone, Copy)]
#[repr(C)]
struct ProgInfo {
    before: [u64; 26],
    recursion_misses: u64,
}

const _: () = assert!(offset_of!(ProgInfo, recursion_misses) == 208);

/// The part of `union bpf_attr` that the command reads.
#[repr(C)]
struct Attr {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often a program was skipped.
pub fn skipped(program: &OwnedFd) -> Result<u64> {
    let mut info = ProgInfo {
        before: [0; 26],
        recursion_misses: 0,
    };
    let attr = Attr {
        fd: u32::try_from(program.as_raw_fd()).map_err(Error::other)?,
        len: u32::try_from(size_of::<ProgInfo>()).map_err(Error::other)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` names a place of the size that it says, which outlives the call; the place is all zeroes, so that
    // the kernel takes it for a request of no arrays.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attr,
            size_of::<Attr>(),
        )
    };
    if done == 0 {
        Ok(info.recursion_misses)
    } else {
        Err(Error::last_os_error())
    }
}
