//! Counts of `sk_buff`s into a block for each interval.

use std::{borrow::Cow, io::Write as _, time::Duration};

use anyhow::Result;

use super::{Passed, Sink, tell};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    kernel::{Counters, Loss},
    model::Skbs,
    output::{Blocks, Format, Line, Sent, lost, screen},
    symbols,
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
    blocks: Blocks,
    table: Table,
    clock: Clock,
    /// When the interval began.
    since: u64,
    intervals: u64,
    skipped: u64,
    /// What was lost and has no line yet.
    news: Vec<Loss>,
    in_place: bool,
    /// What stands on a terminal.
    last: Vec<String>,
}

impl SkbAllocs {
    /// Shows on standard output: in place where that is a terminal.
    pub fn start(shown: ShownSkbs) -> Result<Self> {
        let in_place = shown.format == Format::Text && screen::size().is_some();
        let blocks = if in_place {
            Blocks::start(screen::ENTER, screen::LEAVE)?
        } else {
            Blocks::start(b"", b"")?
        };
        Ok(Self {
            shown,
            skbs: Skbs::default(),
            blocks,
            table: Table::default(),
            clock: Clock::new(),
            since: boot_ns(),
            intervals: 0,
            skipped: 0,
            news: Vec::new(),
            in_place,
            last: Vec::new(),
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
        let bytes = match self.shown.format {
            Format::Json => {
                let mut out = Vec::new();
                let mut wall = String::new();
                self.clock.rfc3339(now, &mut wall);
                let line = Line {
                    time_ns: now,
                    wall: &wall,
                };
                for loss in &self.news {
                    lost(loss, line, &mut out)?;
                }
                json(&block, line, &mut out)?;
                out
            }
            Format::Text => {
                let mut time = String::new();
                self.clock.time_of_day(now, &mut time);
                self.last = vec![time];
                self.last.extend(self.table.lines(&block, MOST));
                self.draw()?
            }
        };
        let sent = self.blocks.send(bytes);
        if sent == Sent::Lost {
            // The interval goes on, and the next block has it all.
            self.skipped += 1;
            return Ok(sent);
        }
        self.news.clear();
        self.skbs.next_interval();
        self.since = now;
        Ok(sent)
    }

    fn draw(&self) -> Result<Vec<u8>> {
        if self.in_place {
            let size = screen::size().unwrap_or(screen::Size { height: 24, width: 80 });
            return Ok(screen::draw(&[], &self.last, &[], size).into_bytes());
        }
        let mut out = Vec::new();
        for line in &self.last {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
        Ok(out)
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

    fn show(&mut self, counters: &Counters) -> Result<bool> {
        let sent = self.block(counters)?;
        let more = self.shown.count.is_none_or(|count| self.intervals < count);
        self.intervals += 1;
        Ok(sent != Sent::Closed && more)
    }

    fn resized(&mut self) {
        if self.in_place
            && let Ok(bytes) = self.draw()
        {
            // Of no interest if it is skipped: another comes soon.
            let _ = self.blocks.send(bytes);
        }
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
        let mut last = Vec::new();
        if self.in_place {
            // What stood there last stays.
            for line in &self.last {
                writeln!(last, "{line}")?;
            }
        }
        self.blocks.finish(patience, last)?;
        if self.skipped > 0 {
            eprintln!(
                "socklife: {} blocks skipped, each is part of the next: output too slow",
                self.skipped
            );
        }
        Ok(())
    }
}
