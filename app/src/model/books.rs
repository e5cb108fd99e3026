//! The books of a network namespace: whether what was counted of its connections adds up, and agrees with the kernel's own
//! counters.

use std::fmt;

use socklife_abi::{
    event::Kind,
    table::{Book, Entry, phase},
};

use super::sampled::Sampled;

/// The kernel's counters that are the second witness. All are in `/proc/net/snmp`.
pub const NAMES: [&str; 4] = ["ActiveOpens", "PassiveOpens", "EstabResets", "CurrEstab"];

/// Our books beside the kernel's counters, by [`NAMES`].
pub type BookSample = Sampled<Book, { NAMES.len() }>;

/// A figure that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The kernel's counter.
    pub name: &'static str,
    /// By our own counts, at least and at most.
    pub ours: (i64, i64),
    /// The kernel's.
    pub kernel: i64,
}

impl Difference {
    /// How much is missing, or too much.
    pub fn size(&self) -> u64 {
        let (least, most) = self.ours;
        (self.kernel - most).max(least - self.kernel).max(0).unsigned_abs()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.ours;
        write!(f, "{} {least}", self.name)?;
        if most != least {
            write!(f, " to {most}")?;
        }
        write!(f, " counted, the kernel says {}", self.kernel)
    }
}

/// What two samples tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookCompared {
    /// Where we and the kernel differ.
    pub differences: Vec<Difference>,
    /// Events that no program saw, by kind.
    pub unseen: Vec<(Kind, u64)>,
}

/// What happened between two samples, at least and at most.
struct Between<'a>(&'a BookSample, &'a BookSample);

impl Between<'_> {
    fn least(&self, entry: Entry) -> i64 {
        signed(self.1.before[entry as usize]) - signed(self.0.after[entry as usize])
    }

    fn most(&self, entry: Entry) -> i64 {
        signed(self.1.after[entry as usize]) - signed(self.0.before[entry as usize])
    }

    fn kernel(&self, which: usize) -> Option<i64> {
        Some(signed(self.1.kernel[which]?.wrapping_sub(self.0.kernel[which]?)))
    }

    /// Against the count of one entry, where the kernel may leave out some of it.
    fn opens(&self, which: usize, entry: Entry, perhaps: i64) -> Option<Difference> {
        Some(Difference {
            name: NAMES[which],
            ours: (self.least(entry).saturating_sub(perhaps).max(0), self.most(entry)),
            kernel: self.kernel(which)?,
        })
    }

    /// `CurrEstab` is how many there are. From 6.10 on it counts those in CLOSE_WAIT, too: either may be meant.
    fn standing(&self) -> Option<Difference> {
        let (start, end) = (signed(self.0.kernel[3]?), signed(self.1.kernel[3]?));
        let least = start + self.least(Entry::EstablishedIn) - self.most(Entry::EstablishedOut);
        let most = start + self.most(Entry::EstablishedIn) - self.least(Entry::EstablishedOut);
        let waits_least = self.least(Entry::CloseWaitIn) - self.most(Entry::CloseWaitOut);
        let waits_most = self.most(Entry::CloseWaitIn) - self.least(Entry::CloseWaitOut);
        Some(Difference {
            name: NAMES[3],
            ours: (least + waits_least.min(0), most + waits_most.max(0)),
            kernel: end,
        })
    }
}

fn signed(count: u64) -> i64 {
    count.cast_signed()
}

/// From one sample to a later one. `connects` where connects are seen at all.
pub fn compare(start: &BookSample, end: &BookSample, connects: bool) -> BookCompared {
    let between = Between(start, end);
    // A connect that fails before its SYN is sent, and one under repair, the kernel does not count.
    let active = connects
        .then(|| between.opens(0, Entry::Connects, between.most(Entry::Connects)))
        .flatten();
    let passive = between.opens(1, Entry::Children, 0);
    let resets = between.opens(2, Entry::Resets, 0);
    let standing = between.standing();
    let missing = |difference: &Option<Difference>| {
        difference
            .map_or(0, |difference| difference.kernel - difference.ours.1)
            .max(0)
    };
    let (connects, children) = (missing(&active), missing(&passive));
    let connected = (connects - between.least(Entry::NoConnect)).max(0);
    let established = (children - between.least(Entry::NoChild)).max(0);
    let ends = (connected + established - between.least(Entry::Late)).max(0);
    let states = [&resets, &standing].map(|difference| difference.map_or(0, |difference| difference.size()));
    let unseen = [
        (Kind::Connect, connects.unsigned_abs()),
        (Kind::Connected, connected.unsigned_abs()),
        (Kind::Established, established.unsigned_abs()),
        (Kind::Closed, ends.unsigned_abs()),
        (Kind::State, states[0].max(states[1])),
    ];
    let all = [active, passive, resets, standing].into_iter().flatten();
    BookCompared {
        differences: all.filter(|difference| difference.size() > 0).collect(),
        unseen: unseen.into_iter().filter(|(_, count)| *count > 0).collect(),
    }
}

/// A sum that should be equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imbalance {
    /// What it is a sum of, with each figure.
    pub text: String,
    /// By how much it fails.
    pub size: u64,
}

/// What began, and what became of it, in words.
struct Sum<'a> {
    began: &'a [(&'static str, u64)],
    ended: &'a [(&'static str, u64)],
}

impl Sum<'_> {
    fn check(&self) -> Option<Imbalance> {
        let total = |figures: &[(&str, u64)]| figures.iter().map(|(_, count)| count).sum::<u64>();
        let words = |figures: &[(&str, u64)]| {
            let shown = figures
                .iter()
                .enumerate()
                .filter(|(index, (_, count))| *index == 0 || *count > 0);
            let words: Vec<_> = shown.map(|(_, (name, count))| format!("{count} {name}")).collect();
            words.join(" + ")
        };
        let size = total(self.began).abs_diff(total(self.ended));
        (size > 0).then(|| Imbalance {
            text: format!("{}, but {}", words(self.began), words(self.ended)),
            size,
        })
    }
}

/// Which sums can be made, by what is seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Connects are.
    pub connects: bool,
    /// Each child of a listener is, and not only those that a filter lets pass.
    pub children: bool,
    /// Connections are remembered until they end.
    pub lives: bool,
}

/// Whether the books of a namespace add up: `standing` is how many connections are in each phase.
pub fn balance(book: &Book, standing: &[u64; 5], seen: Seen) -> Vec<Imbalance> {
    let of = |entry: Entry| book[entry as usize];
    let now = |phase: u8| standing[usize::from(phase)];
    let connects = Sum {
        began: &[
            ("connects", of(Entry::Connects)),
            ("older ones", of(Entry::OlderConnects)),
            ("whose beginning was not seen", of(Entry::NoConnect)),
        ],
        ended: &[
            ("connected", of(Entry::Connected) + of(Entry::ConnectedUnseen)),
            ("failed", of(Entry::ConnectEnded)),
            ("gone unseen", of(Entry::ConnectLost)),
            ("under way", now(phase::CONNECTING)),
        ],
    };
    let children = Sum {
        began: &[
            ("children of listeners", of(Entry::Children)),
            ("whose beginning was not seen", of(Entry::NoChild)),
        ],
        ended: &[
            ("established", of(Entry::Established) + of(Entry::EstablishedUnseen)),
            ("given up", of(Entry::ChildEnded)),
            ("gone unseen", of(Entry::ChildLost)),
            ("under way", now(phase::CHILD)),
        ],
    };
    let lives = Sum {
        began: &[
            ("connected", of(Entry::Connected) + of(Entry::ConnectedUnseen)),
            ("established", of(Entry::Established) + of(Entry::EstablishedUnseen)),
            ("older ones", of(Entry::Older)),
            ("whose beginning was not seen", of(Entry::Late)),
        ],
        ended: &[
            ("closed", of(Entry::Closed)),
            ("whose end was not seen", of(Entry::ClosedUnseen)),
            ("open", now(phase::OPEN)),
        ],
    };
    let sums = [
        (seen.connects, connects),
        (seen.children, children),
        (seen.lives, lives),
    ];
    let checked = sums.iter().filter(|(possible, _)| *possible);
    checked.filter_map(|(_, sum)| sum.check()).collect()
}

#[cfg(test)]
mod tests {
    use socklife_abi::{
        event::Kind,
        table::{Book, ENTRIES, Entry, phase},
    };

    use super::{BookSample, NAMES, Seen, balance, compare};

    const ALL: Seen = Seen {
        connects: true,
        children: true,
        lives: true,
    };

    fn book(entries: &[(Entry, u64)]) -> Book {
        let mut book = [0; ENTRIES];
        entries.iter().for_each(|(entry, count)| book[*entry as usize] = *count);
        book
    }

    fn still(book: Book, kernel: [Option<u64>; NAMES.len()]) -> BookSample {
        BookSample {
            before: book,
            kernel,
            after: book,
        }
    }

    fn start() -> BookSample {
        still(book(&[]), [Some(10), Some(20), Some(30), Some(5)])
    }

    fn whole() -> Book {
        book(&[
            (Entry::Connects, 7),
            (Entry::Connected, 6),
            (Entry::ConnectEnded, 1),
            (Entry::Children, 6),
            (Entry::Established, 6),
            (Entry::Closed, 10),
            (Entry::Resets, 2),
            (Entry::EstablishedIn, 12),
            (Entry::EstablishedOut, 11),
            (Entry::CloseWaitIn, 4),
            (Entry::CloseWaitOut, 3),
        ])
    }

    #[test]
    fn what_agrees_is_not_mentioned() {
        // One is ESTABLISHED, one is in CLOSE_WAIT: either way of counting is right.
        for established in [6, 7] {
            let end = still(whole(), [Some(17), Some(26), Some(32), Some(established)]);
            assert_eq!(compare(&start(), &end, true), super::BookCompared::default());
        }
        let lacking = still(whole(), [None; 4]);
        assert_eq!(compare(&start(), &lacking, true), super::BookCompared::default());
    }

    #[test]
    fn what_the_kernel_counts_and_nobody_saw_is_unseen_by_kind() {
        let mut seen = whole();
        // Three connects went unseen: one was seen when it was connected.
        seen[Entry::NoConnect as usize] = 1;
        // Five children: two were seen when they were established, one when it closed.
        seen[Entry::NoChild as usize] = 2;
        seen[Entry::Late as usize] = 1;
        let end = still(seen, [Some(20), Some(31), Some(33), Some(9)]);
        let compared = compare(&start(), &end, true);
        assert_eq!(
            compared.unseen,
            [
                (Kind::Connect, 3),
                (Kind::Connected, 2),
                (Kind::Established, 3),
                (Kind::Closed, 4),
                (Kind::State, 2)
            ]
        );
        let words: Vec<_> = compared.differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "ActiveOpens 0 to 7 counted, the kernel says 10",
                "PassiveOpens 6 counted, the kernel says 11",
                "EstabResets 2 counted, the kernel says 3",
                "CurrEstab 6 to 7 counted, the kernel says 9"
            ]
        );
        let compared = compare(&start(), &end, false);
        assert!(compared.unseen.iter().all(|(kind, _)| *kind != Kind::Connect));
    }

    #[test]
    fn what_happens_during_a_sample_is_no_difference() {
        let end = BookSample {
            before: book(&[]),
            kernel: [Some(12), Some(23), Some(30), Some(6)],
            after: whole(),
        };
        assert_eq!(compare(&start(), &end, true), super::BookCompared::default());
    }

    #[test]
    fn sums_add_up_or_are_told_with_both_sides() {
        let mut standing = [0; 5];
        standing[usize::from(phase::OPEN)] = 2;
        assert_eq!(balance(&whole(), &standing, ALL), []);
        standing[usize::from(phase::OPEN)] = 1;
        standing[usize::from(phase::CONNECTING)] = 3;
        let told = balance(&whole(), &standing, ALL);
        let words: Vec<_> = told.iter().map(|sum| (sum.text.as_str(), sum.size)).collect();
        assert_eq!(
            words,
            [
                ("7 connects, but 6 connected + 1 failed + 3 under way", 3),
                ("6 connected + 6 established, but 10 closed + 1 open", 1)
            ]
        );
        let nothing = Seen {
            connects: false,
            children: false,
            lives: false,
        };
        assert_eq!(balance(&whole(), &standing, nothing), []);
    }
}
