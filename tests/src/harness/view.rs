//! A view of the file system in which something is missing, for one command.

use std::{
    ffi::CString,
    io::{Error, Result},
    os::unix::process::CommandExt as _,
    process::Command,
};

/// Where the view is put together: a folder that every kernel has and no test needs.
const STAGE: &str = "/sys/fs/cgroup";

/// What the command shall see of `/sys/kernel`: the entries of the real one that are named here, and no others.
pub fn with_sys_kernel(command: &mut Command, entries: &'static [&'static str]) {
    // SAFETY: the child calls mkdir, unshare and mount only, and forks from a thread that holds no lock of theirs.
    unsafe {
        command.pre_exec(move || {
            own_mounts()?;
            mount("tmpfs", STAGE, "tmpfs", 0)?;
            for entry in entries {
                let target = format!("{STAGE}/{entry}");
                std::fs::create_dir(&target)?;
                mount(
                    &format!("/sys/kernel/{entry}"),
                    &target,
                    "",
                    libc::MS_BIND | libc::MS_REC,
                )?;
            }
            mount(STAGE, "/sys/kernel", "", libc::MS_BIND | libc::MS_REC)
        });
    }
}

/// The command shall see addresses of functions as `kernel.kptr_restrict=2` shows them: none.
pub fn without_addresses(command: &mut Command) {
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            own_mounts()?;
            mount("/dev/null", "/proc/kallsyms", "", libc::MS_BIND)
        });
    }
}

/// The command shall see no cgroup mount.
pub fn without_cgroups(command: &mut Command) {
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            own_mounts()?;
            mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0)
        });
    }
}

fn own_mounts() -> Result<()> {
    // SAFETY: changes this process's view of mounts only.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(Error::last_os_error());
    }
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE)
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    let text = |text: &str| CString::new(text).map_err(Error::other);
    let (source, target, kind) = (text(source)?, text(target)?, text(kind)?);
    // SAFETY: strings that live long enough.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
