//! Signals by descriptor, so that one poll(2) waits for them and for connections (signalfd(2)).

use std::{
    fs::File,
    io::{Error, Read as _, Result},
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, RawFd},
};

/// Blocked signals, and where they are read.
pub struct Signals {
    file: File,
    before: libc::sigset_t,
}

/// What came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// A child ended.
    pub child: bool,
    /// SIGTERM or SIGINT.
    pub end: bool,
}

impl Signals {
    /// From here on these signals are read, not delivered.
    pub fn block() -> Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: places for sets; sigemptyset and pthread_sigmask fill them.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            if error != 0 {
                return Err(Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(Error::last_os_error());
            }
            Ok(Self {
                file: File::from_raw_fd(fd),
                before: before.assume_init(),
            })
        }
    }

    /// Readable when a signal came.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Takes what came.
    pub fn take(&mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        loop {
            match self.file.read(&mut info) {
                Ok(_) => {
                    // `ssi_signo` is the first field.
                    let signal = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                    if signal == libc::SIGCHLD.cast_unsigned() {
                        seen.child = true;
                    } else {
                        seen.end = true;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) => return Err(error),
            }
        }
    }

    /// For a child: signals are delivered again, but for Ctrl-C, which a terminal sends to parent and children alike: it is
    /// the parent's to say when they end.
    pub fn restore(&self) -> Result<()> {
        // SAFETY: no handler, and a set that pthread_sigmask gave.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        // SAFETY: as above.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
        if error == 0 {
            Ok(())
        } else {
            Err(Error::from_raw_os_error(error))
        }
    }
}
