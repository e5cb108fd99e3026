//! Network namespaces: naming one, and making one to try things in.

use std::{
    fs,
    io::Error,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

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

fn inode(path: &Path) -> Result<u32> {
    let file = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    // NSFS_MAGIC (`include/uapi/linux/magic.h`).
    ensure!(filesystem(path)? == 0x6e73_6673, "{} is no namespace", path.display());
    u32::try_from(file.ino()).context("a namespace's inode has 32 bits")
}

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
        assert!(resolve("/proc/self/stat").is_err(), "no namespace");
        assert!(resolve("4194304").is_err(), "no such process");
        assert!(resolve("no-such-name").is_err());
    }
}
