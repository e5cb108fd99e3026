//! Counts of `sk_buff`s into a block for each interval.

use std::{borrow::Cow, time::Duration};

use anyhow::Result;

use super::{Passed, Sink, tell};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    kernel::{Counters, Loss, symbols},
    model::Skbs,
    output::{Board, Format, Line, Sent, lost},
    view::skb_allocs::{Block, Table, json},
};

/// Rows of a table in text: those that matter most come first.
const MOST: usize = 20;

/// What is to be shown.
pub struct ShownSkbs {
    /// How.
    pub format: Format,
    /// How long an interval is.
    pub interval: Duration,
    /// How many of them.
    pub count: Option<u64>,
    /// Pairs are counted, see the view.
    pub pairs: bool,
}

/// Shows what the kernel side counted.
pub struct SkbAllocs {
    shown: ShownSkbs,
    skbs: Skbs,
    board: Board,
    table: Table,
    clock: Clock,
    /// When the interval began.
    since: u64,
    intervals: u64,
    /// What was lost and has no line yet.
    news: Vec<Loss>,
}

impl SkbAllocs {
    /// Shows on standard output: in place where that is a terminal.
    pub fn start(shown: ShownSkbs) -> Result<Self> {
        Ok(Self {
            skbs: Skbs::default(),
            board: Board::start(shown.format)?,
            shown,
            table: Table::default(),
            clock: Clock::new(),
            since: boot_ns(),
            intervals: 0,
            news: Vec::new(),
        })
    }

    fn block(&mut self, counters: &Counters) -> Result<Sent> {
        let counts = counters.skbs()?;
        self.skbs.take(&counts.callers, &counts.connections, |address| {
            symbols::shown(address).unwrap_or(Cow::Borrowed("?")).into_owned()
        });
        let now = boot_ns();
        self.clock.adjust();
        let interval_ns = (self.intervals > 0).then(|| now.saturating_sub(self.since));
        let block = Block::of(&self.skbs, interval_ns, self.shown.pairs);
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
                json(&block, line, &mut out)?;
                self.board.json(out)
            }
            Format::Text => {
                let mut time = String::new();
                self.clock.time_of_day(now, &mut time);
                let lines = std::iter::once(time).chain(self.table.lines(&block, MOST));
                self.board.text(lines.collect())
            }
        };
        if sent == Sent::Lost {
            // The interval goes on, and the next block has it all.
            return Ok(sent);
        }
        self.news.clear();
        self.skbs.next_interval();
        self.since = now;
        Ok(sent)
    }

    fn lost(&mut self, news: &[Loss]) {
        tell(news);
        if self.shown.format == Format::Json {
            self.news.extend_from_slice(news);
        }
    }
}

impl Sink for SkbAllocs {
    fn interval(&self) -> Option<Duration> {
        Some(self.shown.interval)
    }

    fn event(&mut self, _: Event, _: &mut Passed) {}

    fn second(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        self.lost(news);
        Ok(())
    }

    fn show(&mut self, counters: &Counters, _: &mut Passed) -> Result<bool> {
        let sent = self.block(counters)?;
        let more = self.shown.count.is_none_or(|count| self.intervals < count);
        self.intervals += 1;
        Ok(sent != Sent::Closed && more)
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
        self.lost(news);
        Ok(())
    }

    fn finish(self, patience: Duration) -> Result<()> {
        self.board.finish(patience)
    }
}
