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
    io::Write as _,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use crate::{
    balance::Balance,
    event::Event,
    kernel::{Counters, Loss, Losses, Told, Tracer},
    model::reconcile::Verdict,
    output::{Grouped, Sent},
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
/// How long the output may stand still at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where events go, and what is made of them.
pub trait Sink {
    /// What it counts.
    fn what(&self) -> &'static str {
        "events"
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
    /// After so long.
    pub duration: Option<Duration>,
    /// When somebody says so.
    pub until: Option<oneshot::Receiver<()>>,
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
            Sent::Closed => self.closed = true,
        }
    }
}

/// Streams until a limit, a signal, or the end of the output; then tells what was seen and lost.
pub fn run<S: Sink>(tracer: Tracer, mut sink: S, losses: &Losses, mut limits: Limits, check: &Check<'_>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let started = Instant::now();
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
    let (checked, unbalanced) = streamed?;
    let news = told.news(losses);
    tell(&news);
    finished?;
    summary(&passed, what, losses, started.elapsed());
    verdicts(&checked, check);
    for line in unbalanced {
        eprintln!("socklife: {line}");
    }
    Ok(())
}

async fn stream<S: Sink>(
    mut tracer: Tracer,
    sink: &mut S,
    losses: &Losses,
    limits: &mut Limits,
    check: &Check<'_>,
    passed: &mut Passed,
    told: &mut Told,
) -> Result<(Vec<Checked>, Vec<String>)> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut resize = signal(SignalKind::window_change()).context("cannot watch for SIGWINCH")?;
    let fd = tracer
        .ring
        .as_fd()
        .try_clone_to_owned()
        .context("cannot watch the ring buffer")?;
    // SAFETY: the descriptor is our own, and `readable` closes it.
    let readable = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(std::io::Error::from)
        .context("cannot watch the ring buffer")?;
    let mut drain_tick = ticks(DRAIN);
    let mut count_tick = ticks(COUNT);
    let mut sweep_tick = ticks(SWEEP);
    let shows = sink.interval();
    let mut show_tick = ticks(shows.unwrap_or(COUNT));
    let (duration, until) = (limits.duration, limits.until.take());
    let end = async move {
        match (duration, until) {
            (Some(duration), _) => tokio::time::sleep(duration).await,
            // Said, or nobody is left to say it.
            (None, Some(until)) => drop(until.await),
            (None, None) => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    eprintln!("socklife: attached");
    while !passed.done() {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut end => break,
            guard = readable.readable() => {
                drain(&mut tracer.ring, sink, passed);
                guard.context("cannot watch the ring buffer")?.clear_ready();
            }
            _ = drain_tick.tick() => drain(&mut tracer.ring, sink, passed),
            _ = show_tick.tick(), if shows.is_some() => {
                drain(&mut tracer.ring, sink, passed);
                if !sink.show(&tracer.counters, passed)? {
                    break;
                }
            }
            _ = resize.recv() => sink.resized(),
            _ = count_tick.tick() => {
                tracer.tell_log();
                for event in tracer.counters.graves()? {
                    sink.event(event, passed);
                }
                tracer.counters.read_into(losses)?;
                let news = told.news(losses);
                drain(&mut tracer.ring, sink, passed);
                sink.second(&news, &tracer.counters, passed)?;
                if reader_is_gone() {
                    break;
                }
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
        }
    }
    tracer.tell_log();
    drain(&mut tracer.ring, sink, passed);
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
    // What was sent before the end belongs to it.
    let (mut ring, mut counters) = tracer.detach();
    drain(&mut ring, sink, passed);
    counters.read_into(losses)?;
    if let Some(balance) = &check.balance {
        for event in counters.look()? {
            sink.event(event, passed);
        }
        unbalanced.extend(balance.borrow().close(&mut counters, losses)?);
        counters.read_into(losses)?;
    }
    let news = told.news(losses);
    sink.end(&news, &counters, passed)?;
    Ok((checked, unbalanced))
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn drain<S: Sink>(ring: &mut RingBuf<MapData>, sink: &mut S, passed: &mut Passed) {
    while !passed.done() {
        let Some(record) = ring.next() else { break };
        if let Some(event) = Event::decode(&record) {
            sink.event(event, passed);
        }
    }
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
    let mut stderr = std::io::stderr().lock();
    for loss in news {
        // There is nobody left to tell if this fails.
        let _ = writeln!(stderr, "socklife: {loss}");
    }
}

fn summary(passed: &Passed, what: &str, losses: &Losses, elapsed: Duration) {
    let mut lost = match (losses.lost(), losses.unseen_ends(), losses.not_counted()) {
        (0, 0, 0) => "none lost".to_owned(),
        (lost, ..) => format!("{} lost", Grouped(lost)),
    };
    if losses.unseen_ends() > 0 {
        let _ = write!(lost, ", {} ends unseen", Grouped(losses.unseen_ends()));
    }
    if losses.not_counted() > 0 {
        let _ = write!(lost, ", a table was full {} times", Grouped(losses.not_counted()));
    }
    let sampled = match losses.sampled() {
        0 => String::new(),
        sampled => format!(", {} counted only (flood; --sample 0 shows each)", Grouped(sampled)),
    };
    let left_out = match losses.not_followed() {
        0 => String::new(),
        left_out => format!(", {} not followed (--rate)", Grouped(left_out)),
    };
    eprintln!(
        "socklife: {} {what} in {:.1} s, {lost}{sampled}{left_out}",
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
                    eprintln!("socklife: {verdict}{hint}");
                }
            }
            None if *all => eprintln!(
                "socklife: netns {netns}: cannot be compared, the process that lived there is gone or moved away"
            ),
            None => {}
        }
    }
}
