//! Writing on a thread of its own, behind a bounded channel: a slow output never holds up the reader of the ring buffer,
//! it loses events, which are counted.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Format, Lines, Sent,
    stdout::{Stdout, Writing},
};
use crate::{
    clock::boot_ns,
    event::Event,
    kernel::{Losses, Told},
};

/// Events between reader and writer: a quarter of a second at 100,000 a second.
const CAPACITY: usize = 1 << 15;
/// Bytes gathered before they are written, if more events wait.
const BATCH: usize = 1 << 16;
/// How often losses are reported.
const REPORT: Duration = Duration::from_secs(1);

/// The reader's end.
pub struct Output {
    sender: SyncSender<Event>,
    losses: Arc<Losses>,
    writing: Writing,
}

/// Starts the writer to standard output.
pub fn start(format: Format, losses: Arc<Losses>) -> Result<Output> {
    let (sender, receiver) = sync_channel(CAPACITY);
    let counted = Arc::clone(&losses);
    let writing = Stdout::write_on_thread(move |stdout| {
        let mut writer = Writer {
            lines: Lines::new(format),
            losses: counted,
            told: Told::default(),
            buffer: Vec::with_capacity(BATCH + 4096),
            stdout,
        };
        writer.write_all(&receiver)
    })?;
    Ok(Output {
        sender,
        losses,
        writing,
    })
}

impl Output {
    /// Hands an event over; never waits.
    pub fn send(&self, event: Event) -> Sent {
        match self.sender.try_send(event) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(event)) => {
                self.losses.output_full(event.kind());
                Sent::Lost
            }
            Err(TrySendError::Disconnected(_)) => Sent::Closed,
        }
    }

    /// Waits until everything is written, but not for an output that stands still for as long as `patience`.
    pub fn finish(self, patience: Duration) -> Result<()> {
        drop(self.sender);
        self.writing.finish(patience)
    }
}

struct Writer {
    lines: Lines,
    losses: Arc<Losses>,
    told: Told,
    buffer: Vec<u8>,
    stdout: Stdout,
}

impl Writer {
    fn write_all(&mut self, events: &Receiver<Event>) -> Result<()> {
        self.lines.header(&mut self.buffer)?;
        self.flush()?;
        let mut reported = Instant::now();
        loop {
            match events.recv_timeout(REPORT) {
                Ok(event) => {
                    self.lines.adjust();
                    self.lines.event(&event, &mut self.buffer)?;
                    if !self.gather(events)? {
                        break;
                    }
                    self.flush()?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                self.lost()?;
            }
        }
        self.lost()?;
        self.flush()
    }

    /// Takes what waits; false when there will be no more.
    fn gather(&mut self, events: &Receiver<Event>) -> Result<bool> {
        while self.buffer.len() < BATCH {
            match events.try_recv() {
                Ok(event) => self.lines.event(&event, &mut self.buffer)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn lost(&mut self) -> Result<()> {
        if self.lines.tells_losses() {
            for loss in self.told.news(&self.losses) {
                self.lines.lost(&loss, boot_ns(), &mut self.buffer)?;
            }
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let done = self.stdout.write(&self.buffer);
        self.buffer.clear();
        done
    }
}
