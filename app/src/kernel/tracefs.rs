//! Tracepoints get their numbers from tracefs.

use std::{
    ffi::CStr,
    io::{Error, Result},
    path::Path,
    ptr::null,
};

/// Where the loader looks.
const PLACES: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// Sees to it that this thread finds tracefs.
///
/// Where it is mounted nowhere, this thread gets a mount namespace of its own with tracefs in its usual place; nobody
/// else sees it, and it is gone with us.
pub fn ensure() -> Result<()> {
    for place in PLACES {
        match Path::new(place).try_exists() {
            Ok(true) => return Ok(()),
            // It is mounted, and not for us.
            Err(error) => return Err(error),
            Ok(false) => {}
        }
    }
    // SAFETY: changes this thread's view of mounts, nothing else.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // Mounts from outside still arrive, ours do not leave.
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE)?;
    mount(
        Some(c"tracefs"),
        c"/sys/kernel/tracing",
        Some(c"tracefs"),
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
    )
}

/// The number of a tracepoint.
pub fn number(category: &str, name: &str) -> Result<u64> {
    let mut found = Err(Error::from(std::io::ErrorKind::NotFound));
    for place in PLACES {
        found = std::fs::read_to_string(format!("{place}/{category}/{name}/id"));
        if found.is_ok() {
            break;
        }
    }
    found?.trim().parse().map_err(Error::other)
}

fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> Result<()> {
    let text = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: strings that live long enough.
    check(unsafe { libc::mount(text(source), target.as_ptr(), text(kind), flags, null()) })
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}
