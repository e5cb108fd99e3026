//! What did not reach the reader of the output, counted by cause.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use socklife_abi::{
    counter::{MISSED, Missed, UNSEEN},
    event::{KINDS, Kind},
};

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The ring buffer was full: user space was too slow.
    RingBuffer,
    /// The output was too slow.
    Output,
    /// A table in the kernel was full.
    Kernel(Missed),
    /// The kernel did not run a program that was at work on that CPU already.
    ProgramBusy,
    /// It happened, and no program saw it: what was seen later, or the kernel's own counters, tell so.
    Unseen,
    /// Not lost: one listener's events came too fast to show each, and are counted only.
    Sampled,
}

impl Stage {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingBuffer => "ring_buffer",
            Self::Output => "output",
            Self::Kernel(missed) => missed.name(),
            Self::ProgramBusy => "program_busy",
            Self::Unseen => UNSEEN,
            Self::Sampled => "sampled",
        }
    }

    /// Whether what is counted here is events that are missing. A socket that is not remembered costs its durations, a
    /// listener that is not counted its totals, and an end that nobody saw is told when it is found.
    const fn costs_events(self) -> bool {
        !matches!(
            self,
            Self::Sampled
                | Self::Kernel(
                    Missed::SocketTable | Missed::ListenerTable | Missed::SkbTallyTable | Missed::SkbEnd | Missed::End
                )
        )
    }
}

/// So many events of this kind were lost there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub stage: Stage,
    /// Which; a table concerns several.
    pub kind: Option<Kind>,
    /// How many.
    pub count: u64,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("events", Kind::name);
        match self.stage {
            Stage::RingBuffer => write!(
                f,
                "{} {kind} lost: ring buffer full (--ring-buffer makes it larger)",
                self.count
            ),
            Stage::Output => write!(
                f,
                "{} {kind} lost: output too slow (narrow the filter, or write to a file)",
                self.count
            ),
            Stage::Kernel(Missed::SocketTable) => write!(
                f,
                "{} sockets not remembered: table full, their durations are unknown (--max-sockets makes it larger)",
                self.count
            ),
            Stage::ProgramBusy => write!(
                f,
                "{} runs of a program skipped: it was at work on that CPU already, and an event may be missing for each",
                self.count
            ),
            Stage::Kernel(Missed::RequestTable) => write!(
                f,
                "{} half-open connections not remembered: table full, their time in the SYN queue and how they end are unknown (--max-sockets makes it larger)",
                self.count
            ),
            Stage::Kernel(Missed::ListenerTable) => write!(
                f,
                "{} times a listener was not counted: table full, its totals are too low",
                self.count
            ),
            Stage::Kernel(Missed::ProcessTable) => write!(
                f,
                "{} processes not remembered: table full, what they do with their sockets is unknown",
                self.count
            ),
            Stage::Sampled if self.kind == Some(Kind::SkbStep) => write!(
                f,
                "{} segments not followed: too many in a second (--rate follows more)",
                self.count
            ),
            Stage::Kernel(Missed::SkbTable) => write!(
                f,
                "{} sk_buffs not counted: table full (--max-skbs makes it larger)",
                self.count
            ),
            Stage::Kernel(Missed::SkbTallyTable) => write!(
                f,
                "{} sk_buffs not counted of their caller or connection: table full (--max-sockets makes it larger)",
                self.count
            ),
            Stage::Kernel(Missed::SkbEnd) => write!(
                f,
                "{} sk_buffs whose end nobody saw: they count as gone from when their address was used again",
                self.count
            ),
            Stage::Sampled => write!(
                f,
                "{} {kind} counted only: too many in a second for one listener, or one CPU (--sample 0 shows each)",
                self.count
            ),
            Stage::Unseen => write!(f, "{} {kind} unseen: no program of ours was run for it", self.count),
            Stage::Kernel(Missed::End) => write!(
                f,
                "{} ends of connections unseen: told as closed when they were found, at an unknown time",
                self.count
            ),
            Stage::Kernel(Missed::Outcome) => write!(
                f,
                "{} connects, or children of listeners, gone unseen: whether they were connected is unknown",
                self.count
            ),
            Stage::Kernel(Missed::DropTable) => write!(f, "{} drops not counted: table full", self.count),
            Stage::Kernel(Missed::CallTable) => write!(
                f,
                "{} calls not remembered: table full, their events are lost",
                self.count
            ),
        }
    }
}

/// Totals since the start. Written by the reader, read by whoever reports.
#[derive(Debug)]
pub struct Losses {
    ring: [AtomicU64; KINDS],
    output: [AtomicU64; KINDS],
    kernel: [AtomicU64; MISSED],
    busy: AtomicU64,
    both_busy: AtomicU64,
    sampled: [AtomicU64; KINDS],
    /// Events that waited for an output which took no more.
    unwritten: AtomicU64,
    unseen: [AtomicU64; KINDS],
    /// What the kernel's counters tell of in addition.
    witnessed: [AtomicU64; KINDS],
    /// By how much the books do not add up.
    imbalance: AtomicU64,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            ring: [const { AtomicU64::new(0) }; KINDS],
            output: [const { AtomicU64::new(0) }; KINDS],
            kernel: [const { AtomicU64::new(0) }; MISSED],
            busy: AtomicU64::new(0),
            both_busy: AtomicU64::new(0),
            sampled: [const { AtomicU64::new(0) }; KINDS],
            unwritten: AtomicU64::new(0),
            unseen: [const { AtomicU64::new(0) }; KINDS],
            witnessed: [const { AtomicU64::new(0) }; KINDS],
            imbalance: AtomicU64::new(0),
        }
    }
}

impl Losses {
    /// The output took no more.
    pub fn output_full(&self, kind: Kind) {
        self.output[kind as usize].fetch_add(1, Relaxed);
    }

    /// These were handed over, and the output took no more. Told in the summary only: it is the end.
    pub fn add_unwritten(&self, events: u64) {
        self.unwritten.fetch_add(events, Relaxed);
    }

    /// How many events the output took no more.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed)
    }

    /// The kernel's own count.
    pub(super) fn set_ring(&self, slot: usize, total: u64) {
        if let Some(counter) = self.ring.get(slot) {
            counter.store(total, Relaxed);
        }
    }

    /// The kernel's own count.
    pub(super) fn set_kernel(&self, slot: usize, total: u64) {
        if let Some(counter) = self.kernel.get(slot) {
            counter.store(total, Relaxed);
        }
    }

    /// The kernel's own count.
    pub(super) fn set_busy(&self, total: u64) {
        self.busy.store(total, Relaxed);
    }

    /// See [`Losses::at_most`].
    pub fn set_both_busy(&self, at_most: u64) {
        self.both_busy.store(at_most, Relaxed);
    }

    /// How many more may be lost, at most: where two programs stand at a place, so often the kernel skipped the one, and so
    /// often or more the other. Whether it was for the same event nobody counts.
    pub fn at_most(&self) -> u64 {
        self.both_busy.load(Relaxed)
    }

    /// The kernel side's own count.
    pub(super) fn set_unseen(&self, slot: usize, total: u64) {
        if let Some(counter) = self.unseen.get(slot) {
            counter.store(total, Relaxed);
        }
    }

    /// The kernel's counters tell of so many that nobody saw.
    pub fn witness(&self, kind: Kind, total: u64) {
        self.witnessed[kind as usize].fetch_max(total, Relaxed);
    }

    /// The books do not add up by so much.
    pub fn set_imbalance(&self, size: u64) {
        self.imbalance.store(size, Relaxed);
    }

    /// How many sockets found no room in the table of them.
    pub fn not_remembered(&self) -> u64 {
        self.kernel[Missed::SocketTable as usize].load(Relaxed)
    }

    /// The kernel's own count.
    pub(super) fn set_sampled(&self, slot: usize, total: u64) {
        if let Some(counter) = self.sampled.get(slot) {
            counter.store(total, Relaxed);
        }
    }

    fn totals(&self) -> impl Iterator<Item = Loss> + '_ {
        let of = |stage, counters: &[AtomicU64; KINDS], kind: Kind| Loss {
            stage,
            kind: Some(kind),
            count: counters[kind as usize].load(Relaxed),
        };
        Kind::ALL
            .iter()
            .flat_map(move |kind| {
                [
                    of(Stage::RingBuffer, &self.ring, *kind),
                    of(Stage::Output, &self.output, *kind),
                    of(Stage::Sampled, &self.sampled, *kind),
                    Loss {
                        count: self.unseen[*kind as usize].load(Relaxed) + self.witnessed[*kind as usize].load(Relaxed),
                        ..of(Stage::Unseen, &self.unseen, *kind)
                    },
                ]
            })
            .chain(Missed::ALL.iter().map(|missed| Loss {
                stage: Stage::Kernel(*missed),
                kind: None,
                count: self.kernel[*missed as usize].load(Relaxed),
            }))
            .chain([
                Loss {
                    stage: Stage::ProgramBusy,
                    kind: None,
                    count: self.busy.load(Relaxed),
                },
                Loss {
                    stage: Stage::Unseen,
                    kind: None,
                    count: self.imbalance.load(Relaxed),
                },
            ])
    }

    /// Everything that was lost so far.
    pub fn all(&self) -> Vec<Loss> {
        self.totals().filter(|loss| loss.count > 0).collect()
    }

    /// How many events were lost.
    pub fn lost(&self) -> u64 {
        let losses = self.totals().filter(|loss| loss.stage.costs_events());
        losses.map(|loss| loss.count).sum::<u64>() + self.unwritten()
    }

    /// How many ends of connections nobody saw when they came.
    pub fn unseen_ends(&self) -> u64 {
        self.kernel[Missed::End as usize].load(Relaxed)
    }

    /// How often a table was full, so that what is counted or remembered is too little.
    pub fn not_counted(&self) -> u64 {
        [Missed::SocketTable, Missed::ListenerTable, Missed::SkbTallyTable]
            .iter()
            .map(|missed| self.kernel[*missed as usize].load(Relaxed))
            .sum()
    }

    /// How many events were counted only.
    pub fn sampled(&self) -> u64 {
        let all: u64 = self.sampled.iter().map(|counter| counter.load(Relaxed)).sum();
        all - self.not_followed()
    }

    /// How many segments were left out by the rate at which they are followed.
    pub fn not_followed(&self) -> u64 {
        self.sampled[Kind::SkbStep as usize].load(Relaxed)
    }
}

/// Remembers what was said of the losses.
#[derive(Debug, Default)]
pub struct Told(Vec<Loss>);

impl Told {
    /// What was lost since the last call.
    pub fn news(&mut self, losses: &Losses) -> Vec<Loss> {
        let now = losses.all();
        let news = now
            .iter()
            .map(|loss| {
                let before = self
                    .0
                    .iter()
                    .find(|old| (old.stage, old.kind) == (loss.stage, loss.kind));
                Loss {
                    count: loss.count - before.map_or(0, |old| old.count),
                    ..*loss
                }
            })
            .filter(|loss| loss.count > 0)
            .collect();
        self.0 = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Loss, Losses, Missed, Stage, Told};

    #[test]
    fn news_are_told_once() {
        let losses = Losses::default();
        let mut told = Told::default();
        assert_eq!(told.news(&losses), []);
        losses.output_full(Kind::Accepted);
        losses.output_full(Kind::Accepted);
        losses.set_kernel(Missed::SocketTable as usize, 7);
        let accepted = |count| Loss {
            stage: Stage::Output,
            kind: Some(Kind::Accepted),
            count,
        };
        let sockets = Loss {
            stage: Stage::Kernel(Missed::SocketTable),
            kind: None,
            count: 7,
        };
        assert_eq!(told.news(&losses), [accepted(2), sockets]);
        assert_eq!(told.news(&losses), []);
        losses.output_full(Kind::Accepted);
        assert_eq!(told.news(&losses), [accepted(1)]);
        assert_eq!(losses.all(), [accepted(3), sockets]);
        assert_eq!(
            (losses.lost(), losses.sampled()),
            (3, 0),
            "the sockets' events are there"
        );
    }

    #[test]
    fn what_is_counted_only_is_not_lost() {
        let losses = Losses::default();
        let mut told = Told::default();
        losses.set_sampled(Kind::SynRefused as usize, 9);
        let sampled = Loss {
            stage: Stage::Sampled,
            kind: Some(Kind::SynRefused),
            count: 9,
        };
        assert_eq!(told.news(&losses), [sampled]);
        assert_eq!((losses.lost(), losses.sampled()), (0, 9));
        assert!(
            sampled.to_string().starts_with("9 syn_refused counted only"),
            "{sampled}"
        );
    }
}
