//! From the ring buffer to whoever takes events, until something ends it.

mod drops;
mod events;
mod follow;
mod queues;
mod segments;
mod skb_allocs;

use std::{
    cell::RefCell,
    fmt::Write as _,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::yield_now,
    time::{MissedTickBehavior, timeout},
};

use crate::{
    balance::Balance,
    clock::boot_ns,
    ending::Ending,
    event::Event,
    kernel::{Counters, Loss, Losses, Told, Tracer},
    model::reconcile::Verdict,
    output::{Grouped, Sent, say},
    self_check::{Checked, SelfCheck},
};

pub use drops::{DropsSink, ShownDrops};
pub use events::Events;
pub use queues::{Queues, Shown};
pub use segments::Segments;
pub use skb_allocs::{ShownSkbs, SkbAllocs};

/// Programs wake us only when the ring buffer is a quarter full; what is less than that waits no longer than this.
const DRAIN: Duration = Duration::from_millis(5);
/// How often the kernel's counters are read and losses are told.
const COUNT: Duration = Duration::from_secs(1);
/// How often half-open connections that nobody saw end are looked for: they are known by two minutes of silence.
const SWEEP: Duration = Duration::from_secs(10);
/// Records that are read before others have their turn: some milliseconds.
const TURN: u32 = 1024;
/// A signal to a whole process group reaches each of its processes within this time.
const TOGETHER: Duration = Duration::from_millis(200);
/// How long the output may stand still at the end.
const PATIENCE: Duration = Duration::from_secs(5);

const EVENTS: &str = "events";

/// Where events go, and what is made of them.
pub trait Sink {
    /// What it counts.
    fn what(&self) -> &'static str {
        EVENTS
    }

    /// How often something is to be shown, where that is not with each event.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Takes an event; never waits.
    fn event(&mut self, event: Event, passed: &mut Passed);

    /// Takes an event that no hook sent, but user space made of what the kernel side remembers.
    fn made(&mut self, event: Event, passed: &mut Passed) {
        self.event(event, passed);
    }

    /// Once a second: what was lost since, and what the kernel side counted.
    fn second(&mut self, news: &[Loss], counters: &Counters, passed: &mut Passed) -> Result<()>;

    /// An interval is over, and everything that happened in it was handed in. False when it was the last that is wanted.
    fn show(&mut self, counters: &Counters, passed: &mut Passed) -> Result<bool> {
        let _ = (counters, passed);
        Ok(true)
    }

    /// The terminal has another size.
    fn resized(&mut self) {}

    /// It ends, and everything is still attached: while it is detached, one hook after the other, depths are not right.
    fn closing(&mut self, counters: &Counters) -> Result<()> {
        let _ = counters;
        Ok(())
    }

    /// Everything was handed in, and nothing is attached any more; this was lost since the last second.
    fn end(&mut self, news: &[Loss], counters: &Counters, passed: &mut Passed) -> Result<()>;

    /// Waits until the output has it all, but not for an output that stands still for so long.
    fn finish(self, patience: Duration) -> Result<()>;
}

/// When to end by itself.
#[derive(Debug, Default)]
pub struct Limits {
    /// After so many events.
    pub count: Option<u64>,
    /// After so long, from when everything is attached.
    pub duration: Option<Duration>,
    /// When somebody says so.
    pub until: Option<oneshot::Receiver<()>>,
    /// When this process ends (`pidfd_open(2)`), which it should not.
    pub server: Option<OwnedFd>,
}

/// What ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A limit, a signal, or the end of the output.
    Wanted,
    /// [`Limits::server`] has ended.
    ServerGone,
}

/// What is compared with the kernel's counters at the end.
#[derive(Default)]
pub struct Check<'a> {
    /// How; `None` for nothing.
    pub check: Option<&'a SelfCheck>,
    /// Say also what did not move.
    pub all: bool,
    /// Some of the hooks in use cannot tell everything.
    pub blind: bool,
    /// The books, where connections are followed.
    pub balance: Option<RefCell<Balance>>,
}

/// What went through.
#[derive(Debug, Default)]
pub struct Passed {
    events: u64,
    /// As many as are wanted.
    most: Option<u64>,
    closed: bool,
    /// When it ended, on the boot clock; what comes later is not part of it.
    over: Option<u64>,
    /// Accepts that no hook saw.
    unseen: u64,
}

impl Passed {
    /// Nothing more is wanted.
    pub fn done(&self) -> bool {
        self.closed || self.most.is_some_and(|most| self.events >= most)
    }

    /// Remembers what became of an event.
    pub fn note(&mut self, sent: Sent) {
        match sent {
            Sent::Yes => self.events += 1,
            Sent::Lost | Sent::Unwanted => {}
            Sent::Closed => {
                self.events += 1;
                self.close();
            }
        }
    }

    /// Nobody takes any more.
    pub fn close(&mut self) {
        self.closed = true;
    }
}

/// Streams until a limit, a signal, or the end of the output; then tells what was seen and lost.
pub fn run<S: Sink>(
    tracer: Tracer,
    mut sink: S,
    losses: &Losses,
    mut limits: Limits,
    check: &Check<'_>,
) -> Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut passed = Passed {
        most: limits.count,
        ..Passed::default()
    };
    let mut told = Told::default();
    let streamed = runtime.block_on(stream(
        tracer,
        &mut sink,
        losses,
        &mut limits,
        check,
        &mut passed,
        &mut told,
    ));
    let what = sink.what();
    let finished = sink.finish(PATIENCE);
    let Streamed {
        checked,
        unbalanced,
        ended,
        lasted,
    } = streamed?;
    tell(&told.news(losses));
    // What could not be written was handed over before.
    if what == EVENTS {
        passed.events = passed.events.saturating_sub(losses.unwritten());
    }
    summary(&passed, what, losses, lasted);
    if passed.unseen > 0 {
        let unseen = Grouped(passed.unseen);
        say!(
            "socklife: {unseen} accepts were not seen: io_uring? (`socklife doctor` tells what the hooks in use cannot see)"
        );
    }
    verdicts(&checked, check);
    for line in unbalanced {
        say!("socklife: {line}");
    }
    finished?;
    Ok(ended)
}

struct Streamed {
    checked: Vec<Checked>,
    /// What does not add up.
    unbalanced: Vec<String>,
    ended: Ended,
    /// From when everything was attached to when it ended.
    lasted: Duration,
}

async fn stream<S: Sink>(
    mut tracer: Tracer,
    sink: &mut S,
    losses: &Losses,
    limits: &mut Limits,
    check: &Check<'_>,
    passed: &mut Passed,
    told: &mut Told,
) -> Result<Streamed> {
    let mut ending = Ending::watch()?;
    let mut resize = signal(SignalKind::window_change()).context("cannot watch for SIGWINCH")?;
    let fd = tracer
        .ring
        .as_fd()
        .try_clone_to_owned()
        .context("cannot watch the ring buffer")?;
    let readable = watch(fd).context("cannot watch the ring buffer")?;
    let server = limits
        .server
        .take()
        .map(watch)
        .transpose()
        .context("cannot watch the server")?;
    let mut drain_tick = ticks(DRAIN);
    let mut count_tick = ticks(COUNT);
    let mut sweep_tick = ticks(SWEEP);
    let shows = sink.interval();
    let mut show_tick = ticks(shows.unwrap_or(COUNT));
    let until = limits.until.take();
    let until = async move {
        match until {
            // Said, or nobody is left to say it.
            Some(until) => drop(until.await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(until);
    say!("socklife: attached");
    let begun = Instant::now();
    let end = async {
        match limits.duration {
            Some(duration) => tokio::time::sleep_until((begun + duration).into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut ended = Ended::Wanted;
    // A second, or an interval, is over: it is told when everything that happened before was handed in.
    let (mut second, mut interval) = (None, None);
    while !passed.done() {
        // Reading comes last: it may never come to an end.
        tokio::select! {
            biased;
            () = ending.comes() => break,
            () = &mut end => break,
            () = &mut until => break,
            () = gone(server.as_ref()) => {
                // A signal of the terminal comes to both of us.
                if timeout(TOGETHER, ending.comes()).await.is_err() {
                    ended = Ended::ServerGone;
                }
                break;
            }
            _ = show_tick.tick(), if shows.is_some() && interval.is_none() => interval = Some(boot_ns()),
            _ = count_tick.tick(), if second.is_none() => {
                tracer.tell_log();
                for event in tracer.counters.graves()? {
                    sink.event(event, passed);
                }
                tracer.counters.read_into(losses)?;
                second = Some((told.news(losses), boot_ns()));
            }
            _ = sweep_tick.tick() => {
                for event in tracer.counters.sweep()? {
                    sink.made(event, passed);
                }
                drain(&mut tracer.ring, sink, passed);
                for event in tracer.counters.look()? {
                    sink.event(event, passed);
                }
                if let Some(balance) = &check.balance {
                    balance.borrow_mut().now_and_then(&tracer.counters, losses)?;
                }
            }
            _ = resize.recv() => sink.resized(),
            guard = readable.readable() => {
                let mut guard = guard.context("cannot watch the ring buffer")?;
                if drain(&mut tracer.ring, sink, passed) == Drained::Everything {
                    guard.clear_ready();
                }
            }
            _ = drain_tick.tick() => {}
        }
        let drained = drain(&mut tracer.ring, sink, passed);
        if interval.take_if(|over| drained.has_passed(*over)).is_some() && !sink.show(&tracer.counters, passed)? {
            break;
        }
        if let Some((news, _)) = second.take_if(|(_, over)| drained.has_passed(*over)) {
            sink.second(&news, &tracer.counters, passed)?;
            if reader_is_gone() {
                break;
            }
        }
        if drained != Drained::Everything {
            // Or the runtime would not look for signals, nor at its clock.
            yield_now().await;
        }
    }
    let lasted = limits
        .duration
        .map_or(begun.elapsed(), |most| begun.elapsed().min(most));
    let over = boot_ns().saturating_sub(nanos(begun.elapsed() - lasted));
    tracer.tell_log();
    passed.over = Some(over);
    while !drain(&mut tracer.ring, sink, passed).has_passed(over) {}
    for event in tracer.counters.look()? {
        sink.event(event, passed);
    }
    sink.closing(&tracer.counters)?;
    // To detach takes a while, and happens in no order: what is compared must be counted by all.
    let checked = match check.check {
        Some(check) => check.look(&tracer.counters)?,
        None => Vec::new(),
    };
    let mut unbalanced = match &check.balance {
        Some(balance) => balance.borrow_mut().look(&tracer.counters, losses)?,
        None => Vec::new(),
    };
    tracer.counters.read_into(losses)?;
    // What was sent before the end belongs to it.
    let (mut ring, mut counters) = tracer.detach();
    while drain(&mut ring, sink, passed) != Drained::Everything {}
    counters.read_after_end_into(losses)?;
    if let Some(balance) = &check.balance {
        counters.settle()?;
        unbalanced.extend(balance.borrow().close(&mut counters, losses)?);
    }
    let mut news = second.map(|(news, _)| news).unwrap_or_default();
    news.extend(told.news(losses));
    passed.unseen = counters.unseen_accepts()?;
    sink.end(&news, &counters, passed)?;
    Ok(Streamed {
        checked,
        unbalanced,
        ended,
        lasted,
    })
}

fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is its own, and closed with it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched.map_err(std::io::Error::from)?)
}

/// Waits for the end of a process, if there is one to watch.
async fn gone(process: Option<&AsyncFd<OwnedFd>>) {
    match process {
        // An error is no end.
        Some(process) if process.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How far the ring buffer was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    /// There is nothing more in it.
    Everything,
    /// Up to this time, on the boot clock. More waits.
    UpTo(u64),
}

impl Drained {
    /// Whether everything was read that was there then.
    fn has_passed(self, time_ns: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::UpTo(read) => read > time_ns,
        }
    }
}

/// Reads some of what waits.
fn drain<S: Sink>(ring: &mut RingBuf<MapData>, sink: &mut S, passed: &mut Passed) -> Drained {
    turn(|| ring.next().map(|record| Event::decode(&record)), sink, passed)
}

/// No more than a turn: in a storm there is always a next one.
fn turn<S: Sink>(mut next: impl FnMut() -> Option<Option<Event>>, sink: &mut S, passed: &mut Passed) -> Drained {
    let mut read = 0;
    for _ in 0..TURN {
        if passed.done() {
            break;
        }
        let Some(event) = next() else {
            return Drained::Everything;
        };
        if let Some(event) = event {
            read = event.envelope.time_ns;
            if passed.over.is_none_or(|over| read <= over) {
                sink.event(event, passed);
            }
        }
    }
    if passed.done() {
        return Drained::Everything;
    }
    Drained::UpTo(read)
}

/// Whether standard output is a pipe that nobody reads any more: without this a quiet trace would not notice.
fn reader_is_gone() -> bool {
    let mut poll = libc::pollfd {
        fd: 1,
        events: 0,
        revents: 0,
    };
    // SAFETY: one descriptor, no waiting.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLERR != 0
}

/// Says on standard error what was lost.
pub fn tell(news: &[Loss]) {
    for loss in news {
        say!("socklife: {loss}");
    }
}

/// What was lost, and what may be, in words.
fn lost_in_words(losses: &Losses) -> String {
    let mut lost = match (
        losses.lost(),
        losses.unseen_ends(),
        losses.not_counted(),
        losses.at_most(),
    ) {
        (0, 0, 0, 0) => "none lost".to_owned(),
        (0, 0, 0, _) => "none lost that is known of".to_owned(),
        (lost, ..) => format!("{} lost", Grouped(lost)),
    };
    if losses.unseen_ends() > 0 {
        let _ = write!(lost, ", {} ends unseen", Grouped(losses.unseen_ends()));
    }
    if losses.not_counted() > 0 {
        let _ = write!(lost, ", a table was full {} times", Grouped(losses.not_counted()));
    }
    if losses.at_most() > 0 {
        let at_most = Grouped(losses.at_most());
        let _ = write!(lost, ", at most {at_most} more: busy CPUs (docs/limitations.md)");
    }
    lost
}

fn summary(passed: &Passed, what: &str, losses: &Losses, elapsed: Duration) {
    let lost = lost_in_words(losses);
    let unwritten = match losses.unwritten() {
        0 => String::new(),
        unwritten => format!(", {} of them because the output took no more", Grouped(unwritten)),
    };
    let sampled = match losses.sampled() {
        0 => String::new(),
        sampled => format!(", {} counted only (flood; --sample 0 shows each)", Grouped(sampled)),
    };
    let left_out = match losses.not_followed() {
        0 => String::new(),
        left_out => format!(", {} not followed (--rate)", Grouped(left_out)),
    };
    say!(
        "socklife: {} {what} in {:.1} s, {lost}{unwritten}{sampled}{left_out}",
        Grouped(passed.events),
        elapsed.as_secs_f64(),
    );
}

fn verdicts(checked: &[Checked], Check { all, blind, .. }: &Check<'_>) {
    for Checked { netns, compared } in checked {
        match compared {
            Some(compared) => {
                let verdict = Verdict {
                    netns: *netns,
                    compared,
                    all: *all,
                };
                if verdict.is_worth_saying() {
                    let hint = if *blind && !verdict.agrees() {
                        " (`socklife doctor` tells what the hooks in use cannot see)"
                    } else {
                        ""
                    };
                    say!("socklife: {verdict}{hint}");
                }
            }
            None if *all => {
                say!("socklife: netns {netns}: cannot be compared, the process that lived there is gone or moved away")
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::Result;
    use bytemuck::Zeroable as _;
    use socklife_abi::event::{Connect, Envelope, Kind};

    use super::{Counters, Drained, Event, Loss, Losses, Passed, Sent, Sink, TURN, lost_in_words, turn};
    use crate::event::Detail;

    #[test]
    fn none_lost_is_said_only_where_none_can_be() {
        let losses = Losses::default();
        assert_eq!(lost_in_words(&losses), "none lost");
        losses.set_both_busy(2);
        assert_eq!(
            lost_in_words(&losses),
            "none lost that is known of, at most 2 more: busy CPUs (docs/limitations.md)"
        );
        losses.output_full(Kind::Accepted);
        assert_eq!(
            lost_in_words(&losses),
            "1 lost, at most 2 more: busy CPUs (docs/limitations.md)"
        );
    }

    #[derive(Default)]
    struct Count(u64);

    impl Sink for Count {
        fn event(&mut self, _: Event, passed: &mut Passed) {
            self.0 += 1;
            passed.note(Sent::Yes);
        }

        fn second(&mut self, _: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
            Ok(())
        }

        fn end(&mut self, _: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
            Ok(())
        }

        fn finish(self, _: Duration) -> Result<()> {
            Ok(())
        }
    }

    /// Each event is a nanosecond later.
    fn storm(first: u64) -> impl FnMut() -> Option<Option<Event>> {
        let mut time = first;
        move || {
            time += 1;
            Some(Some(Event {
                envelope: Envelope {
                    time_ns: time,
                    kind: Kind::Connect as u8,
                    ..Envelope::zeroed()
                },
                detail: Detail::Connect(Connect::zeroed()),
            }))
        }
    }

    #[test]
    fn a_storm_is_read_in_turns() {
        let (mut count, mut passed) = (Count::default(), Passed::default());
        let drained = turn(storm(0), &mut count, &mut passed);
        assert_eq!((drained, count.0), (Drained::UpTo(TURN.into()), TURN.into()));
        assert!(drained.has_passed(u64::from(TURN) - 1) && !drained.has_passed(TURN.into()));
        assert_eq!(turn(|| None, &mut count, &mut passed), Drained::Everything);
    }

    #[test]
    fn what_comes_after_the_end_is_not_part_of_it() {
        let mut passed = Passed {
            over: Some(7),
            ..Passed::default()
        };
        let mut count = Count::default();
        assert!(turn(storm(0), &mut count, &mut passed).has_passed(7));
        assert_eq!(count.0, 7);
    }

    #[test]
    fn enough_is_enough() {
        let mut passed = Passed {
            most: Some(13),
            ..Passed::default()
        };
        let mut count = Count::default();
        assert_eq!(turn(storm(0), &mut count, &mut passed), Drained::Everything);
        assert_eq!(count.0, 13);
    }
}
