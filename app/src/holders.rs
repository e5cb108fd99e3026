//! Who holds a socket that is older than the trace: the links of /proc/PID/fd tell a socket's inode.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use crate::model::Process;

/// Descriptors that are looked at, at most: a machine may have millions.
const DESCRIPTORS: usize = 2_000_000;

/// The processes that hold a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holders {
    /// The one with the lowest PID: the oldest, as a rule.
    pub first: Process,
    /// How many more there are.
    pub more: u32,
}

/// The holders of these sockets, by inode. Takes the privilege to look at others' descriptors; what cannot be looked at is
/// left out.
pub fn find(inodes: &HashSet<u64>) -> HashMap<u64, Holders> {
    if inodes.is_empty() {
        return HashMap::new();
    }
    let mut found: HashMap<u64, Holders> = HashMap::new();
    let mut left = DESCRIPTORS;
    let mut processes: Vec<u32> = entries("/proc".as_ref())
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    processes.sort_unstable();
    for pid in processes {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let mut held: Vec<u64> = entries(&folder.join("fd"))
            .take(left)
            .inspect(|_| left -= 1)
            .filter_map(|fd| inode(&fs::read_link(fd).ok()?))
            .filter(|inode| inodes.contains(inode))
            .collect();
        held.sort_unstable();
        held.dedup();
        for inode in held {
            found
                .entry(inode)
                .and_modify(|holders| holders.more += 1)
                .or_insert_with(|| Holders {
                    first: Process {
                        pid,
                        comm: comm(&folder),
                    },
                    more: 0,
                });
        }
    }
    found
}

/// Those of these sockets that a process holds.
pub fn held_by(pid: u32, inodes: &HashSet<u64>) -> HashSet<u64> {
    entries(format!("/proc/{pid}/fd").as_ref())
        .take(DESCRIPTORS)
        .filter_map(|fd| inode(&fs::read_link(fd).ok()?))
        .filter(|inode| inodes.contains(inode))
        .collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// `socket:[inode]`
fn inode(link: &Path) -> Option<u64> {
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// The name of the process in this folder; zeroes where it cannot be read.
pub fn comm(folder: &Path) -> [u8; 16] {
    let mut comm = [0; 16];
    let name = fs::read(folder.join("comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name[..length]);
    comm
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, net::TcpListener, os::fd::AsRawFd as _, path::Path};

    use super::{find, held_by, inode};

    #[test]
    fn a_listener_of_ours_is_held_by_us() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let twice = listener.try_clone().expect("another descriptor of it");
        let link = fs::read_link(format!("/proc/self/fd/{}", twice.as_raw_fd())).expect("a link");
        let inode = inode(&link).expect("a socket");
        let found = find(&HashSet::from([inode, u64::MAX]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[&inode].first.pid, found[&inode].more), (std::process::id(), 0));
        assert_ne!(found[&inode].first.comm, [0; 16]);
        assert!(find(&HashSet::new()).is_empty());
        let ours = HashSet::from([inode]);
        assert_eq!(held_by(std::process::id(), &HashSet::from([inode, u64::MAX])), ours);
    }

    #[test]
    fn links_of_sockets_have_an_inode() {
        assert_eq!(inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(inode(Path::new("pipe:[4711]")), None);
        assert_eq!(inode(Path::new("/dev/null")), None);
    }
}
