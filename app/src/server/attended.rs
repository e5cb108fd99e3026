//! The server as the child of another command: it starts when that is ready, and ends with it, however that ends.

use std::{
    io::{BufRead as _, BufReader, Error, Write as _},
    net::SocketAddr,
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that waits to be started. It ends when this is dropped.
pub struct Attended {
    child: Child,
    start: Option<ChildStdin>,
}

impl Attended {
    /// Begins a process of its own, which ends with the calling thread: this one is about to have a runtime and BPF maps, which no fork should copy.
    pub fn begin(listen: SocketAddr, options: &[&str]) -> Result<Self> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        let mut child = Command::new("/proc/self/exe")
            .args(["serve", "--attended", "--listen", &listen.to_string()])
            .args(options)
            .stdin(Stdio::piped())
            // Standard output is for events.
            .stdout(stderr.context("cannot share standard error")?)
            .spawn()
            .context("cannot run the reference server")?;
        let start = child.stdin.take();
        Ok(Self { child, start })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable once it has ended (`pidfd_open(2)`).
    pub fn watched(&self) -> Result<OwnedFd> {
        // SAFETY: a child that was not waited for, and no flags.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0);
        let fd = fd.ok_or_else(Error::last_os_error);
        // SAFETY: a descriptor that is ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd.context("cannot watch the reference server")?) };
        Ok(fd)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Lets it listen.
    pub fn start(&mut self) -> Result<()> {
        let mut start = self.start.take().context("the server was started already")?;
        start.write_all(b"\n").context("the reference server has ended")
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        // Not started: it sees that nobody will.
        self.start = None;
        if self.ended().is_some() {
            return;
        }
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let begun = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begun.elapsed() > PATIENCE {
                // Nobody is left to tell if this fails.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// In the server: waits until whoever began it says so. False where that is gone.
pub fn wait_for_start() -> Result<bool> {
    // SAFETY: takes a number.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } != 0 {
        return Err(Error::last_os_error()).context("cannot ask to end with the parent");
    }
    let mut line = String::new();
    let read = BufReader::new(std::io::stdin()).read_line(&mut line);
    Ok(read.context("cannot read standard input")? != 0)
}
