//! The kernel's own counters of a network namespace (`/proc/PID/net/netstat` and `snmp`), for as long as a trace lasts and
//! with no privileges.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    thread,
};

use super::namespaces::{self, Namespace};

/// Where the counters are, below the folder of a thread.
const FILES: [&str; 2] = ["net/netstat", "net/snmp"];

/// The counters of one namespace.
pub struct Netstat {
    /// Inode of the namespace.
    pub netns: u32,
    source: Source,
}

enum Source {
    /// The folder of a thread that lives there. Its files are opened anew each time: one that stays open would keep the
    /// namespace, and so a container's interfaces, from going away. Each namespace has files of its own, by whose inodes
    /// it is seen that the thread has not moved to another.
    Thread(File, [u64; FILES.len()]),
    /// The files themselves, where nobody lives there yet: to open them takes going there, which takes a privilege.
    Open([File; FILES.len()]),
}

impl Netstat {
    /// Of this namespace, or of all: those whose counters can be found.
    pub fn find(netns: u32) -> Vec<Self> {
        namespaces::find(netns).into_iter().filter_map(Self::of).collect()
    }

    fn of(namespace: Namespace) -> Option<Self> {
        let source = match &namespace.task {
            Some(folder) => {
                let folder = open_folder(folder).ok()?;
                let [netstat, snmp] = FILES.map(|path| open_below(&folder, path).and_then(|file| inode(&file)));
                Source::Thread(folder, [netstat.ok()?, snmp.ok()?])
            }
            None => Source::Open(thread::spawn(move || enter(&namespace.file)).join().ok()?.ok()?),
        };
        Some(Self {
            netns: namespace.inode,
            source,
        })
    }

    /// The counters of these names as they are now; `None` for one that this kernel lacks.
    ///
    /// # Errors
    ///
    /// The thread that showed them is gone, or lives elsewhere now.
    pub fn read<const N: usize>(&self, names: &[&str; N]) -> io::Result<[Option<u64>; N]> {
        let mut values = [None; N];
        for (index, path) in FILES.iter().enumerate() {
            let text = match &self.source {
                Source::Thread(folder, inodes) => {
                    let mut file = open_below(folder, path)?;
                    if inode(&file)? != inodes[index] {
                        return Err(ErrorKind::NotFound.into());
                    }
                    let mut text = String::new();
                    file.read_to_string(&mut text)?;
                    text
                }
                Source::Open(files) => from_the_start(&files[index])?,
            };
            for (name, value) in parse(&text) {
                if let Some(wanted) = names.iter().position(|wanted| *wanted == name) {
                    values[wanted] = Some(value);
                }
            }
        }
        Ok(values)
    }
}

/// Opens the files of a namespace from within; for a thread that ends then.
fn enter(namespace: &File) -> io::Result<[File; FILES.len()]> {
    // SAFETY: moves this thread to a namespace that the descriptor names.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let own = open_folder("/proc/thread-self".as_ref())?;
    let [netstat, snmp] = FILES.map(|path| open_below(&own, path));
    Ok([netstat?, snmp?])
}

/// For use as the place from which others are opened.
fn open_folder(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
}

fn open_below(folder: &File, path: &str) -> io::Result<File> {
    let path = std::ffi::CString::new(path.as_bytes()).map_err(io::Error::other)?;
    // SAFETY: a folder and a string that outlive the call.
    let fd = unsafe { libc::openat(folder.as_raw_fd(), path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn inode(file: &File) -> io::Result<u64> {
    file.metadata().map(|file| file.ino())
}

/// A file of /proc is made anew whenever it is read from the start.
fn from_the_start(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match file.read_at(&mut part, text.len() as u64) {
            Ok(0) => return String::from_utf8(text).map_err(io::Error::other),
            Ok(read) => text.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Pairs of lines: `TcpExt: name name …`, `TcpExt: value value …`. What is negative is none of ours.
fn parse(text: &str) -> impl Iterator<Item = (&str, u64)> {
    let mut lines = text.lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?))).flat_map(|(names, values)| {
        let pairs = names.split(' ').zip(values.split(' ')).skip(1);
        pairs.filter_map(|(name, value)| Some((name, value.parse().ok()?)))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{FILES, Netstat, Source, enter, parse};

    #[test]
    fn names_stand_above_values() {
        let text = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 3 18446744073709551615\n\
                    IpExt: InOctets\nIpExt: 5\n";
        assert_eq!(
            parse(text).collect::<Vec<_>>(),
            [("SyncookiesSent", 3), ("ListenDrops", u64::MAX), ("InOctets", 5)]
        );
        let text = "Tcp: RtoAlgorithm MaxConn AttemptFails\nTcp: 1 -1 7\nTcp: cut off\n";
        assert_eq!(
            parse(text).collect::<Vec<_>>(),
            [("RtoAlgorithm", 1), ("AttemptFails", 7)]
        );
        assert_eq!(parse("").count(), 0);
    }

    #[test]
    fn our_own_counters_are_there_and_move_on() {
        let own = File::open("/proc/self/ns/net").expect("our own");
        let netns = crate::netns::resolve(&std::process::id().to_string()).expect("our own");
        let found = Netstat::find(netns);
        assert_eq!(found.len(), 1);
        let names = ["ListenOverflows", "AttemptFails", "NoSuchCounter"];
        let values = found[0].read(&names).expect("they can be read");
        assert!(values[0].is_some() && values[1].is_some(), "{values:?}");
        assert_eq!(values[2], None);
        // Needs a privilege where the tests may have none.
        let Ok(files) = enter(&own) else { return };
        let open = Netstat {
            netns,
            source: Source::Open(files),
        };
        assert_eq!(FILES.len(), 2);
        let packets = || open.read(&["InSegs"]).expect("they can be read")[0];
        let before = packets();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        drop(std::net::TcpStream::connect(listener.local_addr().expect("an address")));
        assert!(packets() > before, "read anew each time");
    }
}
