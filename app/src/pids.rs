//! PID namespaces. Events have the numbers of the initial one; this process, and its /proc, may live in another.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::LazyLock};

use anyhow::{Context as _, Result, ensure};

/// The inode of the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL: u64 = 0xefff_fffc;

static OWN: LazyLock<u64> = LazyLock::new(|| namespace(Path::new("/proc/self")).unwrap_or(INITIAL));

static PROC_IS_INITIAL: LazyLock<bool> =
    LazyLock::new(|| is_initial() || namespace(Path::new("/proc/1")) == Some(INITIAL) || has_kernel_threads());

/// They have numbers in the initial PID namespace only. `kthreadd` is the second there.
fn has_kernel_threads() -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let flags = fs::read_to_string("/proc/2/stat").ok().and_then(|stat| {
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(6)?.parse::<u32>().ok()
    });
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// Whether this process lives in the initial PID namespace.
pub fn is_initial() -> bool {
    *OWN == INITIAL
}

/// Whether /proc has the numbers that events have: else a look there would find other processes.
pub fn proc_is_initial() -> bool {
    *PROC_IS_INITIAL
}

/// The number in the initial PID namespace of the process that has this number in ours.
///
/// # Errors
///
/// When there is none, or nobody here can know it.
pub fn translate(pid: u32) -> Result<u32> {
    if is_initial() {
        return Ok(pid);
    }
    ensure!(
        proc_is_initial(),
        "this is a PID namespace with a /proc of its own, which does not tell what process {pid} is called outside; run \
         socklife in the initial one (nsenter -t 1 -p, docker run --pid=host) with the number there (NSpid in \
         /proc/PID/status has both)"
    );
    find(Path::new("/proc"), *OWN, pid)
        .with_context(|| format!("no process of this PID namespace has the number {pid}"))
}

fn find(proc: &Path, own: u64, pid: u32) -> Option<u32> {
    let processes = fs::read_dir(proc).ok()?.flatten().map(|entry| entry.path());
    processes
        .filter(|process| namespace(process) == Some(own))
        .filter(|process| innermost(process) == Some(pid))
        .find_map(|process| process.file_name()?.to_str()?.parse().ok())
}

fn namespace(process: &Path) -> Option<u64> {
    fs::metadata(process.join("ns/pid")).ok().map(|file| file.ino())
}

/// The number that a process has in its own namespace: the last of `NSpid`.
fn innermost(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{find, innermost, namespace, translate};

    #[test]
    fn a_process_is_found_by_its_innermost_number() {
        let own = std::process::id();
        assert_eq!(innermost(Path::new("/proc/self")), Some(own));
        let namespace = namespace(Path::new("/proc/self")).expect("our own");
        assert_eq!(find(Path::new("/proc"), namespace, own), Some(own));
        assert_eq!(find(Path::new("/proc"), namespace, u32::MAX), None);
        assert_eq!(find(Path::new("/proc"), 1, own), None);
        assert_eq!(translate(own).expect("our own"), own);
    }
}
