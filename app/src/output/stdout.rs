//! Standard output, written by a thread of its own: whoever reads it may stop reading, and nobody must wait for that.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    mem::ManuallyDrop,
    os::{fd::FromRawFd as _, unix::fs::FileTypeExt as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// What a pipe takes as a whole or not at all (`PIPE_BUF`): of what is larger nobody knows, while it waits, how much of it
/// was taken.
const WHOLE: usize = 4096;

/// Standard output, without a buffer.
pub struct Stdout {
    file: ManuallyDrop<File>,
    is_pipe: bool,
    written: Arc<AtomicU64>,
}

/// The thread that writes.
pub struct Writing {
    /// Bytes written so far.
    written: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Stdout {
    /// Starts the thread that writes to it.
    pub fn write_on_thread(run: impl FnOnce(Self) -> Result<()> + Send + 'static) -> Result<Writing> {
        let written = Arc::new(AtomicU64::new(0));
        // SAFETY: descriptor 1 is open for as long as the process lives (the runtime sees to that), and never closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
        let stdout = Self {
            is_pipe: file.metadata().is_ok_and(|file| file.file_type().is_fifo()),
            file,
            written: Arc::clone(&written),
        };
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || match run(stdout) {
                // Whoever read has seen enough.
                Err(error) if is_closed_pipe(&error) => Ok(()),
                result => result,
            })
            .context("cannot start the output thread")?;
        Ok(Writing { written, thread })
    }

    /// Writes all of it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_parts(bytes, |_| {})
    }

    /// Writes all of it, and says after each part how much of it is written.
    pub fn write_parts(&mut self, bytes: &[u8], mut progress: impl FnMut(usize)) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let part = if self.is_pipe { whole_lines(rest) } else { rest };
            match self.file.write(part) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)).context(CANNOT),
                Ok(written) => {
                    done += written;
                    self.written.fetch_add(written as u64, Relaxed);
                    progress(done);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(CANNOT),
            }
        }
        Ok(())
    }
}

impl Writing {
    /// Waits until everything is written, or until nothing was for as long as `patience`: whoever reads may have stopped
    /// reading. The thread must have been told that there is no more.
    pub fn finish(self, patience: Duration) -> Result<()> {
        let mut written = self.written.load(Relaxed);
        let mut moved = Instant::now();
        while !self.thread.is_finished() {
            let now = self.written.load(Relaxed);
            if now != written {
                (written, moved) = (now, Instant::now());
            } else if moved.elapsed() > patience {
                return Err(anyhow!("the output takes no more: what waited for it is lost"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow!("the output thread died")),
        }
    }
}

const CANNOT: &str = "cannot write to standard output";

/// As many lines as a pipe takes at once; a longer line goes as it is.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let Some(some) = bytes.get(..WHOLE) else {
        return bytes;
    };
    match some.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => bytes.get(..=last).unwrap_or(bytes),
        None => some,
    }
}

/// Nobody reads any more: a pipe or a socket without a reader, a terminal that was hung up.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            || error.raw_os_error() == Some(libc::EIO) && io::stdout().is_terminal()
    })
}

#[cfg(test)]
mod tests {
    use super::{WHOLE, whole_lines};

    #[test]
    fn a_pipe_gets_whole_lines() {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        assert_eq!(whole_lines(&line), line);
        assert_eq!(whole_lines(&line.repeat(9)).len(), 4000);
        assert_eq!(whole_lines(&[b'x'; 9999]).len(), WHOLE);
        assert_eq!(whole_lines(b""), b"");
    }
}
