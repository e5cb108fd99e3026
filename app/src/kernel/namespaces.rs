//! The network namespaces of this machine: those that threads live in, and those that `ip netns` keeps.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Result, bail};

/// More namespaces than that are left alone: each costs system calls at the start.
const MOST: usize = 1024;

/// A network namespace that was found.
pub struct Namespace {
    /// Its inode, which is its name in events.
    pub inode: u32,
    /// The namespace itself; keeps it alive.
    pub file: File,
    /// The folder in /proc of the thread that was found in it first; nobody for one that only has a name.
    pub task: Option<PathBuf>,
}

/// This namespace, or all of them.
pub fn find(wanted: u32) -> Vec<Namespace> {
    let mut found = HashMap::new();
    let threads = entries("/proc".as_ref()).flat_map(|process| entries(&process.join("task")));
    let inhabited = threads.map(|thread| (thread.join("ns/net"), Some(thread)));
    let named = entries("/run/netns".as_ref()).map(|path| (path, None));
    for (path, task) in inhabited.chain(named) {
        let Some(inode) = fs::metadata(&path).ok().and_then(|file| u32::try_from(file.ino()).ok()) else {
            continue;
        };
        let room = found.len() < MOST;
        if (wanted == 0 || inode == wanted)
            && let Entry::Vacant(entry) = found.entry(inode)
            && room
            && let Ok(file) = File::open(&path)
        {
            entry.insert(Namespace { inode, file, task });
        }
        if wanted != 0 && !found.is_empty() {
            break;
        }
    }
    found.into_values().collect()
}

/// Whether a network namespace has this inode, as far as we may look: somebody lives in it, it is mounted somewhere, or a
/// descriptor keeps it.
pub fn look_for(inode: u32) -> bool {
    let name = format!("net:[{inode}]");
    let lives = |process: &Path| {
        let is_it = |path: &Path| fs::metadata(path).is_ok_and(|file| file.ino() == u64::from(inode));
        entries(&process.join("task")).any(|thread| is_it(&thread.join("ns/net")))
    };
    let holds = |process: &Path| {
        let is_it = |fd: PathBuf| fs::read_link(fd).is_ok_and(|link| link.as_os_str() == name.as_str());
        entries(&process.join("fd")).any(is_it)
    };
    let proc = Path::new("/proc");
    entries(proc).any(|process| lives(&process))
        || fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(&name))
        || entries(proc).any(|process| holds(&process))
}

/// Does something in each of these namespaces, in a thread of its own, and says which could not be entered, by inode.
pub fn visit<T: Send>(
    visits: Vec<(&Namespace, T)>,
    mut work: impl FnMut(u32, T) -> Result<()> + Send,
) -> Result<Vec<u32>> {
    let visit = || {
        let mut closed = Vec::new();
        for (namespace, with) in visits {
            if enter(namespace) {
                work(namespace.inode, with)?;
            } else {
                closed.push(namespace.inode);
            }
        }
        Ok(closed)
    };
    let joined = thread::scope(|scope| scope.spawn(visit).join());
    joined.unwrap_or_else(|_| bail!("the thread that visits namespaces died"))
}

/// Moves this thread, which is to end soon, to a namespace. Where it is already it needs no privilege to go.
fn enter(namespace: &Namespace) -> bool {
    let here = fs::metadata("/proc/thread-self/ns/net").map(|file| file.ino());
    if here.is_ok_and(|here| here == u64::from(namespace.inode)) {
        return true;
    }
    // SAFETY: changes this thread's namespace, nothing else.
    unsafe { libc::setns(namespace.file.as_raw_fd(), libc::CLONE_NEWNET) == 0 }
}

/// What a folder holds; nothing if it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::find;

    #[test]
    fn our_own_is_found_with_a_thread_of_it() {
        let own = fs::metadata("/proc/self/ns/net").expect("our own").ino();
        let own = u32::try_from(own).expect("32 bits");
        let found = find(own);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].inode, own);
        assert!(
            found[0]
                .task
                .as_ref()
                .is_some_and(|task| task.join("net/netstat").exists())
        );
        assert!(find(1).is_empty(), "no namespace");
    }
}
