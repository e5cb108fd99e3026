//! Standard error. Whoever reads it may have gone, or stopped reading: that ends nothing, and holds up nobody.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

/// How long a reader that has stopped is waited for, once.
const PATIENCE_MS: i32 = 200;

static STDERR: LazyLock<Mutex<Stderr>> = LazyLock::new(|| Mutex::new(Stderr::open()));

/// Says a line.
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::say_line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Says a line on standard error, if somebody reads it.
pub fn say_line(line: fmt::Arguments<'_>) {
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    stderr.line(&format!("{line}\n"));
}

struct Stderr {
    way: Way,
    /// Nobody took the last line in time.
    stuck: bool,
    /// Lines that nobody took.
    unsaid: u64,
}

enum Way {
    /// Opened again, so that a write never waits: of a pipe or a terminal.
    Again(File),
    Socket,
    Plain,
}

impl Stderr {
    fn open() -> Self {
        let path = Path::new("/proc/self/fd/2");
        let kind = path.metadata().map(|file| file.file_type());
        let way = match kind {
            Ok(kind) if kind.is_socket() => Way::Socket,
            Ok(kind) if kind.is_fifo() || kind.is_char_device() => OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .map_or(Way::Plain, Way::Again),
            _ => Way::Plain,
        };
        Self {
            way,
            stuck: false,
            unsaid: 0,
        }
    }

    fn line(&mut self, line: &str) {
        if self.unsaid > 0 {
            let before = format!("socklife: {} lines found no reader here\n", self.unsaid);
            if self.write(before.as_bytes()) {
                self.unsaid = 0;
            }
        }
        if !self.write(line.as_bytes()) {
            self.unsaid += 1;
        }
    }

    /// False where somebody is there, but does not read.
    fn write(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.way.write(bytes) {
                Ok(0) => return true,
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.stuck = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stuck || !self.way.waits() {
                        self.stuck = true;
                        return false;
                    }
                    self.stuck = true;
                }
                // Nobody is there any more.
                Err(_) => return true,
            }
        }
        true
    }
}

impl Way {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Again(file) => file.write(bytes),
            Self::Socket => {
                // SAFETY: a buffer of the length that is said.
                let sent = unsafe {
                    libc::send(
                        2,
                        bytes.as_ptr().cast(),
                        bytes.len(),
                        libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                    )
                };
                usize::try_from(sent).map_err(|_| io::Error::last_os_error())
            }
            Self::Plain => io::stderr().lock().write(bytes),
        }
    }

    /// Whether there is room after a moment.
    fn waits(&self) -> bool {
        let fd = match self {
            Self::Again(file) => file.as_raw_fd(),
            Self::Socket | Self::Plain => 2,
        };
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one descriptor.
        unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) == 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsRawFd as _};

    use super::{Stderr, Way};

    /// A pipe, of which the writing end never waits.
    fn pipe() -> (std::io::PipeReader, Stderr) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // SAFETY: a descriptor of our own.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let way = Way::Again(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
        (
            reader,
            Stderr {
                way,
                stuck: false,
                unsaid: 0,
            },
        )
    }

    #[test]
    fn a_reader_that_stands_still_is_told_later_how_much_it_missed() {
        let (mut reader, mut stderr) = pipe();
        let line = format!("{}\n", "x".repeat(1023));
        while stderr.unsaid < 7 {
            stderr.line(&line);
        }
        let mut read = vec![0; 1 << 16];
        reader.read_exact(&mut read).expect("a full pipe");
        stderr.line("again\n");
        drop(stderr);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "socklife: 7 lines found no reader here\nagain\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, mut stderr) = pipe();
        drop(reader);
        stderr.line("to nobody\n");
        assert_eq!(stderr.unsaid, 0);
    }
}
