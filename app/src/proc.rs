//! What /proc says of one process.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use socklife_abi::event::UNKNOWN_FD;

use crate::{holders, model::holders::Held, pids};

/// Its descriptors that are sockets, with their inodes; `None` where it is gone or about to be, or may not be looked at.
pub fn socket_descriptors(pid: u32) -> Option<HashMap<i32, u64>> {
    if !pids::proc_is_initial() {
        return None;
    }
    let entries: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().collect();
    // Who ends has no table any more.
    if entries.is_empty() {
        return None;
    }
    let sockets = entries.iter().filter_map(|entry| holders::socket(&entry.path()));
    Some(
        sockets
            .filter_map(|(fd, inode)| Some((i32::try_from(fd).ok()?, inode)))
            .collect(),
    )
}

/// Whether a descriptor is what it is believed to be; `None` where nobody can say.
pub fn holds(held: &Held) -> Option<bool> {
    let process = PathBuf::from(format!("/proc/{}", held.pid));
    if held.inode == 0 || !pids::proc_is_initial() || !Path::exists(&process) {
        return None;
    }
    if held.fd == UNKNOWN_FD {
        return Some(!holders::held_by(held.pid, &HashSet::from([held.inode])).is_empty());
    }
    let found = holders::socket(&process.join(format!("fd/{}", held.fd)));
    Some(found.is_some_and(|(_, inode)| inode == held.inode))
}

/// The parent of a process that has ended and was not waited for; `None` for any other.
pub fn zombie(pid: u32) -> Option<u32> {
    if !pids::proc_is_initial() {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses, and ends with the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? != "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _, process::Command};

    use super::{Held, UNKNOWN_FD, holds, socket_descriptors, zombie};

    #[test]
    fn our_own_sockets_are_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let file = std::fs::File::open("/proc/self/stat").expect("a file");
        let found = socket_descriptors(std::process::id()).expect("our own");
        assert!(found.contains_key(&socket.as_raw_fd()));
        assert!(!found.contains_key(&file.as_raw_fd()));
        assert!(socket_descriptors(u32::MAX).is_none());
        let held = Held {
            pid: std::process::id(),
            cookie: 1,
            fd: socket.as_raw_fd(),
            inode: found[&socket.as_raw_fd()],
        };
        assert_eq!(holds(&held), Some(true));
        assert_eq!(holds(&Held { fd: UNKNOWN_FD, ..held }), Some(true));
        let another = held.inode + 1;
        assert_eq!(holds(&Held { inode: another, ..held }), Some(false));
        assert_eq!(
            holds(&Held {
                fd: file.as_raw_fd(),
                ..held
            }),
            Some(false)
        );
        assert_eq!(holds(&Held { pid: u32::MAX, ..held }), None);
        assert_eq!(holds(&Held { inode: 0, ..held }), None);
        drop(socket);
        assert_eq!(holds(&held), Some(false));
    }

    #[test]
    fn a_child_is_a_zombie_until_it_is_waited_for() {
        let mut child = Command::new("/proc/self/exe")
            .arg("--help")
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a child");
        let pid = child.id();
        let mut found = None;
        for _ in 0..1000 {
            found = zombie(pid);
            if found.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(found, Some(std::process::id()));
        child.wait().expect("it ends");
        assert_eq!(zombie(pid), None);
        assert_eq!(zombie(std::process::id()), None);
    }
}
