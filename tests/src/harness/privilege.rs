//! Fewer privileges, for one command.

use std::io::{Error, Result};

/// In the child before exec: root keeps these capabilities only.
pub fn bound_to(kept: u64) -> Result<()> {
    for capability in 0..64 {
        // SAFETY: numbers only. Those that the kernel does not know are refused.
        unsafe {
            if kept & 1 << capability == 0 && libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) == 1 {
                check(libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0))?;
            }
        }
    }
    // exec(2) gives root what is in the bounding set, or inherited: nothing is.
    let header = [0x2008_0522_u32, 0];
    let half = |shift: u32| u32::try_from(kept >> shift & 0xffff_ffff).unwrap_or(0);
    // Effective, permitted, inheritable; twice 32 bits.
    let sets = [half(0), half(0), 0, half(32), half(32), 0];
    // SAFETY: a header of version 3 and its two sets (`capset(2)`).
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}
