//! Standard output, written by a thread of its own: whoever reads it may stop reading, and nobody must wait for that.

use std::{
    fs::File,
    io::{self, Write as _},
    mem::ManuallyDrop,
    os::fd::FromRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// Standard output, without a buffer.
pub struct Stdout {
    file: ManuallyDrop<File>,
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
        let stdout = Self {
            // SAFETY: descriptor 1 is open for as long as the process lives (the runtime sees to that), and never closed
            // here.
            file: ManuallyDrop::new(unsafe { File::from_raw_fd(1) }),
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
        let done = self.file.write_all(bytes);
        self.written.fetch_add(bytes.len() as u64, Relaxed);
        done.context("cannot write to standard output")
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

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
