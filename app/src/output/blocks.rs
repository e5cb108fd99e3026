//! Blocks of text that belong together, one for each interval. A slow output skips blocks, and never holds up whoever
//! makes them.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use anyhow::Result;

use super::{
    Sent, say,
    stdout::{Stdout, Writing},
};

/// Blocks that wait for the output.
const CAPACITY: usize = 2;
/// How long an output that stands still is waited for when nobody asked for more.
const PATIENCE: Duration = Duration::from_millis(500);

/// The end at which blocks are handed in.
pub struct Blocks {
    open: Option<Open>,
}

struct Open {
    blocks: SyncSender<Vec<u8>>,
    /// What comes after everything.
    rest: SyncSender<Vec<u8>>,
    writing: Writing,
    /// Blocks that were handed in.
    handed: Cell<u64>,
    /// Blocks that are written.
    written: Arc<AtomicU64>,
}

impl Blocks {
    /// Starts the writer: `first` comes before all blocks, `last` after them, whatever ends it.
    pub fn start(first: &'static [u8], last: &'static [u8]) -> Result<Self> {
        let (blocks, receiver) = sync_channel::<Vec<u8>>(CAPACITY);
        let (rest, last_receiver) = sync_channel::<Vec<u8>>(1);
        let written = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&written);
        let writing = Stdout::write_on_thread(move |mut stdout| {
            stdout.write(first)?;
            for block in receiver {
                stdout.write(&block)?;
                done.fetch_add(1, Relaxed);
            }
            stdout.write(last)?;
            for block in last_receiver {
                stdout.write(&block)?;
            }
            Ok(())
        })?;
        Ok(Self {
            open: Some(Open {
                blocks,
                rest,
                writing,
                handed: Cell::new(0),
                written,
            }),
        })
    }

    /// Hands a block over; never waits.
    pub fn send(&self, block: Vec<u8>) -> Sent {
        let Some(open) = &self.open else {
            return Sent::Closed;
        };
        let sent = match open.blocks.try_send(block) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(_)) => return Sent::Lost,
            Err(TrySendError::Disconnected(_)) => Sent::Closed,
        };
        open.handed.set(open.handed.get() + 1);
        sent
    }

    /// Writes this after everything, and waits; not for an output that stands still for as long as `patience`.
    pub fn finish(mut self, patience: Duration, rest: Vec<u8>) -> Result<()> {
        match self.open.take() {
            Some(open) => open.finish(patience, rest),
            None => Ok(()),
        }
    }
}

impl Drop for Blocks {
    /// An error on its way out leaves the terminal as it was.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = open.finish(PATIENCE, Vec::new());
        }
    }
}

impl Open {
    fn finish(self, patience: Duration, rest: Vec<u8>) -> Result<()> {
        drop(self.blocks);
        // There is room for one; a writer that is gone says why below.
        let _ = self.rest.try_send(rest);
        drop(self.rest);
        let finished = self.writing.finish(patience);
        let unwritten = self.handed.get().saturating_sub(self.written.load(Relaxed));
        if unwritten > 0 {
            say!("socklife: {unwritten} blocks are not written: the output took no more");
        }
        finished
    }
}
