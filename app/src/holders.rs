//! Who holds a socket: the links of /proc/PID/fd tell its inode.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::model::Process;

/// Descriptors that are looked at, at most: a machine may have millions.
const DESCRIPTORS: usize = 2_000_000;

/// A process that holds a socket, by one of its descriptors. Its threads share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub process: Process,
    /// The descriptor.
    pub fd: u32,
}

/// The processes that hold a socket, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holders {
    /// The one with the lowest PID: the oldest, as a rule.
    pub first: Process,
    /// How many more there are.
    pub more: u32,
}

impl Holders {
    /// Of a list in the order of PIDs; `None` where it is empty.
    pub fn of(all: &[Holder]) -> Option<Self> {
        let processes = all.chunk_by(|a, b| a.process.pid == b.process.pid).count();
        Some(Self {
            first: all.first()?.process,
            more: u32::try_from(processes - 1).unwrap_or(u32::MAX),
        })
    }
}

/// What a look at all processes found.
#[derive(Debug, Default)]
pub struct Found {
    /// The holders of each socket, by its inode, in the order of PIDs and descriptors.
    pub by_inode: HashMap<u64, Vec<Holder>>,
    /// Processes whose descriptors we may not look at.
    pub hidden: usize,
    /// There are more descriptors than are looked at.
    pub cut: bool,
}

impl Found {
    /// The holders of each socket in short, by its inode.
    pub fn in_short(self) -> HashMap<u64, Holders> {
        let found = self.by_inode.into_iter();
        found
            .filter_map(|(inode, all)| Some((inode, Holders::of(&all)?)))
            .collect()
    }
}

/// The holders of these sockets, by inode. Takes the privilege to look at others' descriptors.
pub fn find(inodes: &HashSet<u64>) -> Found {
    let mut found = Found::default();
    if inodes.is_empty() {
        return found;
    }
    let mut left = DESCRIPTORS;
    let mut processes: Vec<u32> = entries("/proc".as_ref())
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    processes.sort_unstable();
    for pid in processes {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let descriptors = match fs::read_dir(folder.join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                // One that ended meanwhile holds nothing.
                found.hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        let mut held = Vec::new();
        for descriptor in descriptors.flatten() {
            if left == 0 {
                found.cut = true;
                break;
            }
            left -= 1;
            if let Some((fd, inode)) = socket(&descriptor.path())
                && inodes.contains(&inode)
            {
                held.push((fd, inode));
            }
        }
        if held.is_empty() {
            continue;
        }
        held.sort_unstable();
        let process = Process {
            pid,
            comm: comm(&folder),
        };
        for (fd, inode) in held {
            let holders = found.by_inode.entry(inode).or_default();
            holders.push(Holder { process, fd });
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

/// Number and inode of a descriptor, if it is that of a socket.
pub fn socket(descriptor: &Path) -> Option<(u32, u64)> {
    let inode = inode(&fs::read_link(descriptor).ok()?)?;
    Some((descriptor.file_name()?.to_str()?.parse().ok()?, inode))
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

    use super::{Holders, find, held_by, inode};

    #[test]
    fn a_listener_of_ours_is_held_by_us() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let twice = listener.try_clone().expect("another descriptor of it");
        let link = fs::read_link(format!("/proc/self/fd/{}", twice.as_raw_fd())).expect("a link");
        let inode = inode(&link).expect("a socket");
        let found = find(&HashSet::from([inode, u64::MAX])).by_inode;
        assert_eq!(found.len(), 1);
        let holders = &found[&inode];
        let mut expected = [&listener, &twice].map(|socket| socket.as_raw_fd().cast_unsigned());
        expected.sort_unstable();
        assert_eq!(holders.iter().map(|holder| holder.fd).collect::<Vec<_>>(), expected);
        let short = Holders::of(holders).expect("holders");
        assert_eq!((short.first.pid, short.more), (std::process::id(), 0));
        assert_ne!(short.first.comm, [0; 16]);
        assert!(find(&HashSet::new()).by_inode.is_empty() && Holders::of(&[]).is_none());
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
