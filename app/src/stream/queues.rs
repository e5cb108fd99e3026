//! Events into the model of listeners, and that into a block for each interval.

use std::{collections::HashMap, fmt::Write as _, io::Write as _, time::Duration};

use anyhow::Result;

use super::{Passed, Sink, tell};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    holders::Holders,
    kernel::{Counters, Loss},
    model::{Listeners, reconcile::Verdict},
    output::{Blocks, Format, Line, Sent, lost, say, screen},
    self_check::{Checked, SelfCheck},
    view::{
        histogram,
        queues::{Row, Table, json, rows},
        reconcile,
    },
};

/// Remarks of the last seconds that a screen keeps.
const REMARKS: usize = 3;

/// What is to be shown.
pub struct Shown {
    /// How.
    pub format: Format,
    /// How long an interval is.
    pub interval: Duration,
    /// How many of them.
    pub count: Option<u64>,
    /// Histograms at the end.
    pub histogram: bool,
    /// The comparison with the kernel's counters after each interval.
    pub reconcile: bool,
}

/// Takes events, shows listeners.
pub struct Queues<'a> {
    shown: Shown,
    holders: HashMap<u64, Holders>,
    check: Option<&'a SelfCheck>,
    listeners: Listeners,
    blocks: Blocks,
    table: Table,
    clock: Clock,
    /// When the interval began.
    since: Option<u64>,
    intervals: u64,
    skipped: u64,
    /// What was lost and has no line yet.
    news: Vec<Loss>,
    screen: Option<Screen>,
}

/// What stands on a terminal.
#[derive(Default)]
struct Screen {
    head: Vec<String>,
    lines: Vec<String>,
    remarks: Vec<String>,
}

impl<'a> Queues<'a> {
    /// Shows on standard output: in place where that is a terminal. Begins with the listeners that are there.
    pub fn start(
        shown: Shown,
        there: &[Event],
        holders: HashMap<u64, Holders>,
        check: Option<&'a SelfCheck>,
    ) -> Result<Self> {
        let in_place = shown.format == Format::Text && screen::size().is_some();
        let blocks = if in_place {
            Blocks::start(screen::ENTER, screen::LEAVE)?
        } else {
            Blocks::start(b"", b"")?
        };
        let mut listeners = Listeners::default();
        listeners.take_all(there);
        Ok(Self {
            shown,
            holders,
            check,
            listeners,
            blocks,
            table: Table::default(),
            clock: Clock::new(),
            since: None,
            intervals: 0,
            skipped: 0,
            news: Vec::new(),
            screen: in_place.then(Screen::default),
        })
    }

    /// Brings the model up to the kernel side's totals, and shows it.
    fn block(&mut self, counters: &Counters) -> Result<Sent> {
        self.listeners.take_all(&counters.listeners()?);
        let now = boot_ns();
        let interval_ns = self.since.map(|since| now.saturating_sub(since));
        self.clock.adjust();
        let checked = match self.check {
            Some(check) if self.shown.reconcile && interval_ns.is_some() => check.look(counters)?,
            _ => Vec::new(),
        };
        let rows = rows(&self.listeners, &self.holders, now, interval_ns);
        let sent = match (self.shown.format, &mut self.screen) {
            (Format::Json, _) => {
                let block = as_json(&rows, &checked, &self.news, now, &mut self.clock)?;
                self.blocks.send(block)
            }
            (Format::Text, None) => {
                let mut block = Vec::new();
                let mut time = String::new();
                self.clock.time_of_day(now, &mut time);
                writeln!(block, "{time}")?;
                for line in self.table.lines(&rows)?.iter().chain(&verdicts(&checked)) {
                    writeln!(block, "{line}")?;
                }
                writeln!(block)?;
                self.blocks.send(block)
            }
            (Format::Text, Some(screen)) => {
                let mut time = String::new();
                self.clock.time_of_day(now, &mut time);
                time.truncate(8);
                let mut lines = self.table.lines(&rows)?;
                let count = rows.len();
                screen.lines = lines.split_off(2);
                let title = format!(
                    "{time}  {count} listeners, every {:?}; Ctrl-C ends",
                    self.shown.interval
                );
                screen.head = [vec![title], lines].concat();
                screen.remarks.extend(verdicts(&checked));
                let size = screen::size().unwrap_or(screen::Size { height: 24, width: 80 });
                self.blocks.send(screen.draw(size))
            }
        };
        if sent == Sent::Lost {
            // The interval goes on, and the next block has it all.
            self.skipped += 1;
            return Ok(sent);
        }
        self.news.clear();
        self.listeners.next_interval();
        self.since = Some(now);
        Ok(sent)
    }

    /// On a screen it is said there, or it would be drawn over.
    fn lost(&mut self, news: &[Loss]) {
        match &mut self.screen {
            Some(screen) => screen.remarks.extend(news.iter().map(ToString::to_string)),
            None => tell(news),
        }
        if self.shown.format == Format::Json {
            self.news.extend_from_slice(news);
        }
    }

    /// Of every listener with connections, those that are closed too.
    fn histograms(&mut self) -> Result<Vec<u8>> {
        let now = boot_ns();
        let mut wall = String::new();
        self.clock.rfc3339(now, &mut wall);
        let line = Line {
            time_ns: now,
            wall: &wall,
        };
        let mut listeners: Vec<_> = self.listeners.iter().collect();
        listeners.sort_by_key(|(key, listener)| (listener.port, listener.address(), *key));
        let mut out = Vec::new();
        for (_, listener) in listeners {
            match self.shown.format {
                Format::Json => histogram::json(listener, line, &mut out)?,
                Format::Text => out.extend(histogram::text(listener)?.into_bytes()),
            }
        }
        Ok(out)
    }
}

fn as_json(rows: &[Row<'_>], checked: &[Checked], news: &[Loss], now: u64, clock: &mut Clock) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut wall = String::new();
    clock.rfc3339(now, &mut wall);
    let line = Line {
        time_ns: now,
        wall: &wall,
    };
    for loss in news {
        lost(loss, line, &mut out)?;
    }
    for row in rows {
        json(row, line, &mut out)?;
    }
    for checked in checked {
        if let Some(compared) = &checked.compared {
            reconcile::json(checked.netns, compared, line, &mut out)?;
        }
    }
    Ok(out)
}

fn verdicts(checked: &[Checked]) -> Vec<String> {
    let verdicts = checked.iter().filter_map(|checked| {
        Some(Verdict {
            netns: checked.netns,
            compared: checked.compared.as_ref()?,
            all: true,
        })
    });
    verdicts.map(|verdict| verdict.to_string()).collect()
}

impl Screen {
    fn draw(&mut self, size: screen::Size) -> Vec<u8> {
        let older = self.remarks.len().saturating_sub(REMARKS);
        self.remarks.drain(..older);
        screen::draw(&self.head, &self.lines, &self.remarks, size).into_bytes()
    }
}

impl Sink for Queues<'_> {
    fn interval(&self) -> Option<Duration> {
        Some(self.shown.interval)
    }

    fn event(&mut self, event: Event, passed: &mut Passed) {
        self.listeners.take(&event);
        passed.note(Sent::Yes);
    }

    fn second(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        self.lost(news);
        Ok(())
    }

    fn show(&mut self, counters: &Counters, _: &mut Passed) -> Result<bool> {
        if self.since.is_some() {
            self.intervals += 1;
        }
        let sent = self.block(counters)?;
        Ok(sent != Sent::Closed && self.shown.count.is_none_or(|count| self.intervals < count))
    }

    fn resized(&mut self) {
        if let (Some(screen), Some(size)) = (&mut self.screen, screen::size()) {
            // Of no interest if it is skipped: another comes soon.
            let _ = self.blocks.send(screen.draw(size));
        }
    }

    fn closing(&mut self, counters: &Counters) -> Result<()> {
        // What has begun since the last block, unless only so many were wanted.
        if self.shown.count.is_none_or(|count| self.intervals < count) {
            self.block(counters)?;
        }
        Ok(())
    }

    fn end(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        self.lost(news);
        Ok(())
    }

    fn finish(mut self, patience: Duration) -> Result<()> {
        let mut last = match self.screen.take() {
            // What stood there last stays.
            Some(screen) => {
                let mut text = String::new();
                for line in screen.head.iter().chain(&screen.lines).chain(&screen.remarks) {
                    writeln!(text, "{line}")?;
                }
                text.into_bytes()
            }
            None => Vec::new(),
        };
        if self.shown.histogram {
            last.extend(self.histograms()?);
        }
        self.blocks.finish(patience, last)?;
        for (count, what) in [
            (
                self.skipped,
                "blocks skipped, each is part of the next: output too slow",
            ),
            (
                self.listeners.left_out(),
                "events of listeners not shown: there are too many listeners",
            ),
            (
                self.listeners.waiters_left_out(),
                "connections whose wait was not followed: too many wait",
            ),
        ] {
            if count > 0 {
                say!("socklife: {count} {what}");
            }
        }
        Ok(())
    }
}
