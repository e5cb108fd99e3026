//! Writing on a thread of its own, behind a bounded channel: a slow output never holds up the reader of the ring buffer,
//! it loses events, which are counted.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
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

/// Events between reader and writer: a fifth of a second at 100,000 a second.
const CAPACITY: usize = (8 << 20) / size_of::<Event>();
/// Bytes gathered before they are written, if more events wait.
const BATCH: usize = 1 << 16;
/// How often losses are reported.
const REPORT: Duration = Duration::from_secs(1);

/// The reader's end.
pub struct Output {
    sender: SyncSender<Event>,
    losses: Arc<Losses>,
    writing: Writing,
    /// Events that were handed over.
    handed: Cell<u64>,
    /// Events that are written.
    written: Arc<AtomicU64>,
}

/// Starts the writer to standard output.
pub fn start(format: Format, losses: Arc<Losses>) -> Result<Output> {
    let (sender, receiver) = sync_channel(CAPACITY);
    let counted = Arc::clone(&losses);
    let written = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&written);
    let writing = Stdout::write_on_thread(move |stdout| {
        let mut writer = Writer {
            lines: Lines::new(format),
            losses: counted,
            told: Told::default(),
            buffer: Vec::with_capacity(BATCH + 4096),
            ends: Vec::new(),
            written: done,
            stdout,
        };
        writer.write_all(&receiver)
    })?;
    Ok(Output {
        sender,
        losses,
        writing,
        handed: Cell::new(0),
        written,
    })
}

impl Output {
    /// Hands an event over; never waits.
    pub fn send(&self, event: Event) -> Sent {
        match self.sender.try_send(event) {
            Ok(()) => {
                self.handed.set(self.handed.get() + 1);
                Sent::Yes
            }
            Err(TrySendError::Full(event)) => {
                self.losses.output_full(event.kind());
                Sent::Lost
            }
            Err(TrySendError::Disconnected(_)) => {
                self.handed.set(self.handed.get() + 1);
                Sent::Closed
            }
        }
    }

    /// Waits until everything is written, but not for an output that stands still for as long as `patience`. What is not
    /// written then is counted.
    pub fn finish(self, patience: Duration) -> Result<()> {
        drop(self.sender);
        let finished = self.writing.finish(patience);
        let unwritten = self.handed.get().saturating_sub(self.written.load(Relaxed));
        self.losses.add_unwritten(unwritten);
        finished
    }
}

struct Writer {
    lines: Lines,
    losses: Arc<Losses>,
    told: Told,
    buffer: Vec<u8>,
    /// Where each event in the buffer ends.
    ends: Vec<usize>,
    written: Arc<AtomicU64>,
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
                    self.event(&event)?;
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
                Ok(event) => self.event(&event)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.lines.event(event, &mut self.buffer)?;
        self.ends.push(self.buffer.len());
        Ok(())
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
        let mut told = 0;
        let (ends, written) = (&self.ends, &self.written);
        let done = self.stdout.write_parts(&self.buffer, |bytes| {
            let whole = ends.partition_point(|end| *end <= bytes);
            written.fetch_add((whole - told) as u64, Relaxed);
            told = whole;
        });
        self.buffer.clear();
        self.ends.clear();
        done
    }
}
