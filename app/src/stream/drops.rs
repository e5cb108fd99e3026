//! What was dropped, by reason and place, as a block for each interval.

use std::time::Duration;

use anyhow::Result;

use super::{Passed, Sink, tell};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    kernel::{Counters, Loss},
    output::{Board, Format, Line, Sent, lost},
    view::drops::{Drops, Table, json},
};

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct ShownDrops {
    /// How.
    pub format: Format,
    /// How long an interval is.
    pub interval: Duration,
    /// How many of them.
    pub count: Option<u64>,
}

/// Shows what the kernel side counted.
pub struct DropsSink {
    shown: ShownDrops,
    drops: Drops,
    board: Board,
    table: Table,
    clock: Clock,
    intervals: u64,
    /// What was lost and has no line yet.
    news: Vec<Loss>,
}

impl DropsSink {
    /// Shows on standard output.
    pub fn start(shown: ShownDrops) -> Result<Self> {
        Ok(Self {
            shown,
            drops: Drops::default(),
            board: Board::start(shown.format)?,
            table: Table::default(),
            clock: Clock::new(),
            intervals: 0,
            news: Vec::new(),
        })
    }

    fn block(&mut self, counters: &Counters) -> Result<Sent> {
        self.drops.take(counters.drops()?);
        let rows = self.drops.rows();
        let now = boot_ns();
        self.clock.adjust();
        let sent = match self.shown.format {
            Format::Json => {
                let (mut out, mut wall) = (Vec::new(), String::new());
                self.clock.rfc3339(now, &mut wall);
                let line = Line {
                    time_ns: now,
                    wall: &wall,
                };
                for loss in &self.news {
                    lost(loss, line, &mut out)?;
                }
                for row in &rows {
                    json(row, line, &mut out)?;
                }
                self.board.json(out)
            }
            Format::Text => {
                let mut time = String::new();
                self.clock.time_of_day(now, &mut time);
                let lines = std::iter::once(time).chain(self.table.lines(&rows));
                self.board.text(lines.collect())
            }
        };
        if sent != Sent::Lost {
            self.news.clear();
            self.drops.next_interval();
        }
        Ok(sent)
    }
}

impl Sink for DropsSink {
    fn interval(&self) -> Option<Duration> {
        Some(self.shown.interval)
    }

    fn event(&mut self, _: Event, _: &mut Passed) {}

    fn second(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        tell(news);
        self.news.extend_from_slice(news);
        Ok(())
    }

    fn show(&mut self, counters: &Counters) -> Result<bool> {
        // The first comes at once, and nothing can have been dropped.
        if self.intervals > 0 && self.block(counters)? == Sent::Closed {
            return Ok(false);
        }
        let more = self.shown.count.is_none_or(|count| self.intervals < count);
        self.intervals += 1;
        Ok(more)
    }

    fn resized(&mut self) {
        self.board.redraw();
    }

    fn closing(&mut self, counters: &Counters) -> Result<()> {
        // What has come since the last block, unless only so many were wanted.
        if self.shown.count.is_none_or(|count| self.intervals <= count) {
            self.block(counters)?;
        }
        Ok(())
    }

    fn end(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        tell(news);
        Ok(())
    }

    fn finish(self, patience: Duration) -> Result<()> {
        self.board.finish(patience)
    }
}
