//! The root of the cgroup tree, where `sock_ops` and the cgroup hooks see every socket of the machine.

use std::{
    ffi::CStr,
    fs::File,
    io::{Error, Result},
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// Opens the root of cgroup2.
///
/// It is mounted for ourselves alone, detached, so that it need not be mounted anywhere and no container's bind mount
/// can be taken for the root. Where fsopen(2) is refused, a mount of the root that exists already serves.
pub fn root() -> Result<OwnedFd> {
    detached().or_else(|error| mounted().ok_or(error))
}

fn detached() -> Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: i64 = 6;
    const FSOPEN_CLOEXEC: i64 = 1;
    const FSMOUNT_CLOEXEC: i64 = 1;
    let name: &CStr = c"cgroup2";
    // SAFETY: plain system calls on a string that lives long enough and descriptors that we own.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC))?;
        let fd = raw(&context);
        if libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, 0_i64, 0_i64, 0_i64) != 0 {
            return Err(Error::last_os_error());
        }
        let mount = owned(libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0_i64))?;
        // A descriptor of the mount itself is O_PATH, which bpf(2) does not take.
        owned(i64::from(libc::openat(
            raw(&mount),
            c".".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )))
    }
}

fn raw(fd: &OwnedFd) -> RawFd {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

/// # Safety
///
/// `fd` is a new descriptor, or negative after a failed system call.
unsafe fn owned(fd: i64) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(Error::other)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A mount of the tree's root (`proc_pid_mountinfo(5)`: the fourth field is the root of the mount, the fifth where it is).
fn mounted() -> Option<OwnedFd> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if root != "/" || filesystem.split(' ').next()? != "cgroup2" {
            return None;
        }
        File::open(point).ok().map(OwnedFd::from)
    })
}
