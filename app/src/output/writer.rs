//! Writing on a thread of its own, behind a bounded channel: a slow output never holds up the reader of the ring buffer,
//! it loses events, which are counted.

use std::{
    fs::File,
    io::{self, Write as _},
    mem::ManuallyDrop,
    os::fd::FromRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{Format, json::Json, text::Text};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    kernel::{Losses, Told},
};

/// Events between reader and writer: a quarter of a second at 100,000 a second.
const CAPACITY: usize = 1 << 15;
/// Bytes gathered before they are written, if more events wait.
const BATCH: usize = 1 << 16;
/// How often losses are reported.
const REPORT: Duration = Duration::from_secs(1);

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// It was lost, and counted.
    Lost,
    /// The writer is gone.
    Closed,
}

/// The reader's end.
pub struct Output {
    sender: SyncSender<Event>,
    losses: Arc<Losses>,
    /// Bytes written so far.
    written: Arc<AtomicU64>,
    writer: JoinHandle<Result<()>>,
}

/// Starts the writer to standard output.
pub fn start(format: Format, losses: Arc<Losses>) -> Result<Output> {
    let (sender, receiver) = sync_channel(CAPACITY);
    let written = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        format: match format {
            Format::Text => Either::Text(Text::new()),
            Format::Json => Either::Json(Json::new()),
        },
        clock: Clock::new(),
        losses: Arc::clone(&losses),
        written: Arc::clone(&written),
        told: Told::default(),
        buffer: Vec::with_capacity(BATCH + 4096),
        // SAFETY: descriptor 1 is open for as long as the process lives (the runtime sees to that), and never closed here.
        stdout: ManuallyDrop::new(unsafe { File::from_raw_fd(1) }),
    };
    let writer = std::thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || writer.run(&receiver))
        .context("cannot start the output thread")?;
    Ok(Output {
        sender,
        losses,
        written,
        writer,
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

    /// Waits until everything is written, or until nothing was for as long as `patience`: whoever reads may have stopped
    /// reading.
    pub fn finish(self, patience: Duration) -> Result<()> {
        drop(self.sender);
        let mut written = self.written.load(Relaxed);
        let mut moved = Instant::now();
        while !self.writer.is_finished() {
            let now = self.written.load(Relaxed);
            if now != written {
                (written, moved) = (now, Instant::now());
            } else if moved.elapsed() > patience {
                return Err(anyhow!("the output takes no more: what waited for it is lost"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.writer.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow!("the output thread died")),
        }
    }
}

enum Either {
    Text(Text),
    Json(Json),
}

struct Writer {
    format: Either,
    clock: Clock,
    losses: Arc<Losses>,
    written: Arc<AtomicU64>,
    told: Told,
    buffer: Vec<u8>,
    stdout: ManuallyDrop<File>,
}

impl Writer {
    fn run(mut self, events: &Receiver<Event>) -> Result<()> {
        match self.write_all(events) {
            // Whoever read has seen enough.
            Err(error) if is_closed_pipe(&error) => Ok(()),
            result => result,
        }
    }

    fn write_all(&mut self, events: &Receiver<Event>) -> Result<()> {
        if let Either::Text(text) = &mut self.format {
            text.header(&mut self.buffer)?;
            self.flush()?;
        }
        let mut reported = Instant::now();
        loop {
            match events.recv_timeout(REPORT) {
                Ok(event) => {
                    self.clock.adjust();
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
        match &mut self.format {
            Either::Text(text) => text.event(event, &mut self.clock, &mut self.buffer),
            Either::Json(json) => json.event(event, &mut self.clock, &mut self.buffer),
        }
    }

    /// In text the losses go to standard error, from the reader.
    fn lost(&mut self) -> Result<()> {
        if let Either::Json(json) = &mut self.format {
            for loss in self.told.news(&self.losses) {
                json.lost(&loss, boot_ns(), &mut self.clock, &mut self.buffer)?;
            }
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let done = self.stdout.write_all(&self.buffer);
        self.written.fetch_add(self.buffer.len() as u64, Relaxed);
        self.buffer.clear();
        done.context("cannot write to standard output")
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
