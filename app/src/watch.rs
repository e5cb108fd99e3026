//! Looks at the sockets again and again, and shows after each interval what their queues hold and how long data waited.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use socklife_abi::queued::{Flowing, Queueing, Record};
use tokio::time::sleep_until;

use crate::{
    clock::{Clock, wall_ahead_of_monotonic},
    ending::Ending,
    kernel::{Found, Sockets},
    model::dwell::Dwells,
    output::{Blocks, Format, Line, Sent, say, screen},
    view::sockets::{Queues, QueuesTable, Row, json},
};

/// Looks in an interval, at least; in a long one there is one each second.
const LOOKS: u32 = 10;
const RAREST: Duration = Duration::from_secs(1);
/// Looking in between may take one part in so many of the time: on a machine with very many sockets there are fewer looks.
const PART: u32 = 10;
/// How long the output may stand still at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be shown.
pub struct Shown {
    /// How.
    pub format: Format,
    /// How long an interval is.
    pub interval: Duration,
    /// How many of them.
    pub count: Option<u64>,
}

/// The output, in place on a terminal.
struct Display {
    shown: Shown,
    blocks: Blocks,
    table: QueuesTable,
    clock: Clock,
    in_place: bool,
    /// How often it was looked in this interval: so far WAIT is to be trusted.
    looks: u32,
    skipped: u64,
}

/// Watches until so many intervals are over, a signal comes, or the output is closed. What was found at the end of an
/// interval is handed to `rows`, which makes rows of it and shows them with what it is given.
pub fn run(
    sockets: &mut Sockets,
    shown: Shown,
    mut rows: impl FnMut(&Found<Queues>, &mut dyn FnMut(&[Row<'_>]) -> Result<Sent>) -> Result<Sent>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut display = Display::start(shown)?;
    let watched = runtime.block_on(watch(sockets, &mut display, &mut rows));
    let skipped = display.skipped;
    let finished = display.blocks.finish(PATIENCE, Vec::new());
    watched?;
    finished?;
    if skipped > 0 {
        say!("socklife: {skipped} blocks skipped: output too slow");
    }
    Ok(())
}

async fn watch(
    sockets: &mut Sockets,
    display: &mut Display,
    rows: &mut impl FnMut(&Found<Queues>, &mut dyn FnMut(&[Row<'_>]) -> Result<Sent>) -> Result<Sent>,
) -> Result<()> {
    let mut ending = Ending::watch()?;
    let Shown { interval, count, .. } = display.shown;
    let between = (interval / LOOKS).min(RAREST);
    let mut dwells = Dwells::default();
    let first = Instant::now();
    look(&sockets.list::<Flowing>()?, &mut dwells);
    let mut start = Instant::now();
    let mut earliest = rested(first);
    let (mut intervals, mut number) = (0, 0);
    while count.is_none_or(|count| intervals < count) {
        let end = start + interval;
        number = behind(earliest - start, between).max(number + 1);
        // The last is in time, whatever it takes.
        let next = (start + scattered(between, number)).max(earliest).min(end);
        tokio::select! {
            biased;
            () = ending.comes() => return Ok(()),
            () = sleep_until(next.into()) => {}
        }
        let began = Instant::now();
        display.looks += 1;
        if next < end {
            look(&sockets.list::<Flowing>()?, &mut dwells);
            earliest = rested(began);
        } else {
            let found = with_dwell(sockets.list::<Queueing>()?, &mut dwells);
            if rows(&found, &mut |rows| display.show(rows, found.time_ns))? == Sent::Closed {
                return Ok(());
            }
            // New ones are seen from the next interval on.
            sockets.find_namespaces();
            intervals += 1;
            // An interval that is missed is missed.
            start = end.max(began);
            (number, display.looks) = (0, 0);
            earliest = Instant::now().max(start);
        }
    }
    Ok(())
}

/// When it may be looked again, after a look that began then.
fn rested(began: Instant) -> Instant {
    Instant::now() + began.elapsed() * (PART - 1)
}

/// How many looks are past by then.
fn behind(passed: Duration, between: Duration) -> u32 {
    let past = passed.as_nanos() / between.as_nanos().max(1);
    u32::try_from(past).unwrap_or(u32::MAX - 1)
}

fn look(found: &Found<Flowing>, dwells: &mut Dwells) {
    dwells.look(found.all.iter().map(|record| (record.socket().identity(), record.flow)));
}

fn with_dwell(found: Found<Queueing>, dwells: &mut Dwells) -> Found<Queues> {
    dwells.look(found.all.iter().map(|record| (record.socket().identity(), record.flow)));
    let mut ended = dwells.end();
    let wall_ahead = wall_ahead_of_monotonic();
    found.map(|record| Queues {
        dwell: ended.remove(&record.socket().identity()),
        wall_ahead,
        record,
    })
}

/// When a look is due, counted from one: once in each part of the interval, but not always at the same place of it, for a
/// program that does something each 100 ms is not to be met always at the same moment. Multiples of the golden ratio are
/// spread evenly.
fn scattered(between: Duration, number: u32) -> Duration {
    const GOLDEN: u32 = 2_654_435_769;
    let fraction = f64::from(number.wrapping_mul(GOLDEN)) / f64::from(u32::MAX);
    between.saturating_mul(number - 1) + between.mul_f64(fraction)
}

impl Display {
    fn start(shown: Shown) -> Result<Self> {
        let in_place = shown.format == Format::Text && screen::size().is_some();
        let (first, last) = if in_place {
            (screen::ENTER, screen::LEAVE)
        } else {
            (&b""[..], &b""[..])
        };
        Ok(Self {
            shown,
            blocks: Blocks::start(first, last)?,
            table: QueuesTable::new(true),
            clock: Clock::new(),
            in_place,
            looks: 0,
            skipped: 0,
        })
    }

    fn show(&mut self, rows: &[Row<'_>], time_ns: u64) -> Result<Sent> {
        self.clock.adjust();
        let mut block = Vec::new();
        let mut time = String::new();
        match self.shown.format {
            Format::Json => {
                self.clock.rfc3339(time_ns, &mut time);
                let line = Line { time_ns, wall: &time };
                for row in rows {
                    json(row, line, &mut block)?;
                }
            }
            Format::Text => {
                self.clock.time_of_day(time_ns, &mut time);
                let looks = self.looks;
                let mut lines = self.table.lines(rows);
                if self.in_place {
                    let rest = lines.split_off(2);
                    time.truncate(8);
                    let title = format!(
                        "{time}  {} sockets, every {:?}, looked {looks} times; Ctrl-C ends",
                        rows.len(),
                        self.shown.interval
                    );
                    let size = screen::size().unwrap_or(screen::Size { height: 24, width: 80 });
                    block = screen::draw(&[vec![title], lines].concat(), &rest, &[], size).into_bytes();
                } else {
                    writeln!(block, "{time} looked {looks} times")?;
                    for line in lines {
                        writeln!(block, "{line}")?;
                    }
                    writeln!(block)?;
                }
            }
        }
        let sent = self.blocks.send(block);
        if sent == Sent::Lost {
            self.skipped += 1;
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{behind, scattered};

    #[test]
    fn each_part_of_an_interval_has_its_look() {
        let between = Duration::from_millis(100);
        for number in 1..=1000 {
            let at = scattered(between, number);
            assert!(
                at >= between * (number - 1) && at <= between * number,
                "{number}: {at:?}"
            );
            assert_eq!(behind(between * number, between), number);
        }
        let early = (1..=1000).filter(|number| scattered(between, *number) < between * (number - 1) + between / 2);
        assert!((490..=510).contains(&early.count()), "as often early as late");
    }
}
