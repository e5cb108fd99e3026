//! Network namespaces: naming one, and making one to try things in.

use std::{
    fs::File,
    io::Error,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{kernel::namespaces, output::say};

/// The inode of a namespace named by path, PID, inode, or name as `ip netns` has it.
pub fn resolve(name: &str) -> Result<u32> {
    let number = name
        .strip_prefix("net:[")
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    if let Ok(number) = number.parse::<u32>() {
        // The inodes of namespaces start at 0xf0000000 (`PROC_DYNAMIC_FIRST`), or just below for the first few; PIDs
        // end at 4194304.
        if number > 4_194_304 {
            is_there(number, name)?;
            return Ok(number);
        }
        return inode(&PathBuf::from(format!("/proc/{number}/ns/net")))
            .with_context(|| format!("--netns {name}: there is no process {number}"));
    }
    let path = if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new("/run/netns").join(name)
    };
    inode(&path).with_context(|| {
        format!("--netns {name}: give a path such as /run/netns/NAME, a PID, the inode of a namespace, or its name")
    })
}

/// Whether this thread lives in the network namespace with this inode.
pub fn is_own(netns: u32) -> bool {
    inode(Path::new("/proc/thread-self/ns/net")).is_ok_and(|own| own == netns)
}

/// An error if no network namespace has this inode, as far as anybody can know.
fn is_there(number: u32, name: &str) -> Result<()> {
    let found = namespaces::look_for(number);
    if found || may_look_at_others() {
        ensure!(
            found,
            "--netns {name}: no network namespace has this number, as far as processes may be looked at (`lsns -t net` \
             lists them; a path such as /run/netns/NAME, or a PID, names one as well)"
        );
    } else {
        say!(
            "socklife: --netns {name}: cannot tell whether there is such a namespace: other processes may not be looked at \
             (CAP_SYS_PTRACE)"
        );
    }
    Ok(())
}

fn may_look_at_others() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

fn inode(path: &Path) -> Result<u32> {
    let file = File::open(path).with_context(|| format!("cannot look at {}", path.display()))?;
    // NSFS_MAGIC (`include/uapi/linux/magic.h`).
    ensure!(filesystem(path)? == 0x6e73_6673, "{} is no namespace", path.display());
    // SAFETY: asks an open descriptor for a number.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    ensure!(
        kind == libc::CLONE_NEWNET,
        "{} is a namespace of another kind: a network namespace is /proc/PID/ns/net",
        path.display()
    );
    let file = file
        .metadata()
        .with_context(|| format!("cannot look at {}", path.display()))?;
    u32::try_from(file.ino()).context("a namespace's inode has 32 bits")
}

/// `_IO(0xb7, 3)` (`include/uapi/linux/nsfs.h`).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

fn filesystem(path: &Path) -> Result<i64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).context("a path has no NUL")?;
    // SAFETY: all zeroes is a value of the structure, and the call fills it.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string and a place for the answer.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut info) } != 0 {
        bail!(Error::last_os_error());
    }
    Ok(info.f_type)
}

/// Moves this thread into a new network namespace with loopback up, and returns the namespace's inode.
pub fn enter_new() -> Result<u32> {
    // SAFETY: changes this thread's namespace, nothing else.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(Error::last_os_error())
            .context("cannot make a network namespace (it takes CAP_SYS_ADMIN: run as root)");
    }
    loopback_up().context("cannot bring loopback up")?;
    inode(Path::new("/proc/thread-self/ns/net"))
}

/// The same for this process, without any privilege: it becomes root of a user namespace of its own. It must have one thread.
pub fn enter_new_as_anybody() -> Result<u32> {
    // SAFETY: no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // A program with privileges of its own does not own its /proc otherwise.
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    // SAFETY: changes this process's namespaces, nothing else.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
        return Err(Error::last_os_error()).context("cannot make a user namespace with a network namespace");
    }
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        // It has no name there without it, but all privileges: root without CAP_SETFCAP may not be mapped.
        let _ = std::fs::write(format!("/proc/self/{file}"), text);
    }
    loopback_up().context("cannot bring loopback up")?;
    inode(Path::new("/proc/thread-self/ns/net"))
}

fn loopback_up() -> Result<()> {
    // SAFETY: a new socket, closed below.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, Error::last_os_error());
    // SAFETY: all zeroes is a value of the structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the request outlives the call.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let error = Error::last_os_error();
    // SAFETY: ours.
    unsafe { libc::close(socket) };
    ensure!(done == 0, error);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{inode, resolve};

    #[test]
    fn a_namespace_has_many_names() {
        let own = inode("/proc/self/ns/net".as_ref()).expect("our own");
        for name in [
            "/proc/self/ns/net".to_owned(),
            std::process::id().to_string(),
            own.to_string(),
            format!("net:[{own}]"),
        ] {
            assert_eq!(resolve(&name).expect("it resolves"), own, "{name}");
        }
        for (wrong, why) in [
            ("/proc/self/stat", "is no namespace"),
            ("/proc/self/ns/mnt", "of another kind"),
            ("4294967295", "no network namespace has this number"),
            ("4026531835", "no network namespace has this number"),
        ] {
            // Who may not look at others cannot know.
            if !wrong.starts_with('/') && !super::may_look_at_others() {
                continue;
            }
            let error = format!("{:#}", resolve(wrong).expect_err(wrong));
            assert!(error.contains(why), "{error}");
        }
        assert!(resolve("4194304").is_err(), "no such process");
        assert!(resolve("no-such-name").is_err());
    }
}
