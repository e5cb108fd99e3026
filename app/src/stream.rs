//! From the ring buffer to the output, until something ends it.

use std::{
    io::Write as _,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use socklife_abi::counter::Missed;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use crate::{
    event::Event,
    kernel::{Losses, Stage, Told, Tracer},
    output::{Output, Sent},
};

/// Programs wake us only when the ring buffer is a quarter full; what is less than that waits no longer than this.
const DRAIN: Duration = Duration::from_millis(5);
/// How often the kernel's counters are read and losses are told.
const COUNT: Duration = Duration::from_secs(1);
/// How long the output may stand still at the end.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// What went through.
#[derive(Debug, Default)]
struct Passed {
    events: u64,
    closed: bool,
}

impl Passed {
    fn done(&self, limits: &Limits) -> bool {
        self.closed || limits.count.is_some_and(|count| self.events >= count)
    }
}

/// Streams until a limit, a signal, or the end of the output; then tells what was seen and lost.
pub fn run(tracer: Tracer, output: Output, losses: &Losses, mut limits: Limits) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let started = Instant::now();
    let mut passed = Passed::default();
    let mut told = Told::default();
    let streamed = runtime.block_on(stream(tracer, &output, losses, &mut limits, &mut passed, &mut told));
    let finished = output.finish(PATIENCE);
    streamed?;
    let news = told.news(losses);
    tell(&news);
    finished?;
    summary(&passed, losses, started.elapsed());
    Ok(())
}

async fn stream(
    mut tracer: Tracer,
    output: &Output,
    losses: &Losses,
    limits: &mut Limits,
    passed: &mut Passed,
    told: &mut Told,
) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let fd = tracer
        .ring
        .as_fd()
        .try_clone_to_owned()
        .context("cannot watch the ring buffer")?;
    // SAFETY: the descriptor is our own, and `readable` closes it.
    let readable = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(std::io::Error::from)
        .context("cannot watch the ring buffer")?;
    let mut drain_tick = interval(DRAIN);
    drain_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count_tick = interval(COUNT);
    let (duration, until) = (limits.duration, limits.until.take());
    let limits = &*limits;
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
    while !passed.done(limits) {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut end => break,
            guard = readable.readable() => {
                drain(&mut tracer.ring, output, limits, passed);
                guard.context("cannot watch the ring buffer")?.clear_ready();
            }
            _ = drain_tick.tick() => drain(&mut tracer.ring, output, limits, passed),
            _ = count_tick.tick() => {
                tracer.tell_log();
                tracer.counters.read_into(losses)?;
                let news = told.news(losses);
                tell(&news);
                if reader_is_gone() {
                    break;
                }
            }
        }
    }
    tracer.tell_log();
    // What was sent before the end belongs to it.
    let (mut ring, counters) = tracer.detach();
    drain(&mut ring, output, limits, passed);
    counters.read_into(losses)
}

fn drain(ring: &mut RingBuf<MapData>, output: &Output, limits: &Limits, passed: &mut Passed) {
    while !passed.done(limits) {
        let Some(record) = ring.next() else { break };
        let Some(event) = Event::decode(&record) else { continue };
        match output.send(event) {
            Sent::Yes => passed.events += 1,
            Sent::Lost => {}
            Sent::Closed => passed.closed = true,
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

fn tell(news: &[crate::kernel::Loss]) {
    let mut stderr = std::io::stderr().lock();
    for loss in news {
        // There is nobody left to tell if this fails.
        let _ = writeln!(stderr, "socklife: {loss}");
    }
}

fn summary(passed: &Passed, losses: &Losses, elapsed: Duration) {
    let lost: u64 = losses
        .all()
        .iter()
        // A socket that is not remembered costs its durations, not its events.
        .filter(|loss| loss.stage != Stage::Kernel(Missed::SocketTable))
        .map(|loss| loss.count)
        .sum();
    eprintln!(
        "socklife: {} events in {:.1} s, {}",
        passed.events,
        elapsed.as_secs_f64(),
        if lost == 0 {
            "none lost".to_owned()
        } else {
            format!("{lost} lost")
        }
    );
}
