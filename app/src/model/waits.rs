//! How long connections waited: percentiles of an interval and of all, and the counts by powers of two.

use hdrhistogram::Histogram;

/// Times below that are one.
const FINEST_NS: u64 = 1_000;
/// Longer waits count as this; their maximum is told right all the same.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Two digits: a percentile is right to one in a hundred.
const DIGITS: u8 = 2;
/// Powers of two in microseconds: up to half a day.
const POWERS: usize = 36;

/// Waits of one kind at one listener.
///
/// Nothing is allocated before the first. A histogram then grows with the longest wait that it met: 5 KiB at 10 ms, 14 KiB
/// at an hour, and there are two of them.
#[derive(Debug, Default)]
pub struct Waits(Option<Box<Both>>);

#[derive(Debug)]
struct Both {
    recent: Distribution,
    all: Distribution,
    powers: [u64; POWERS],
}

#[derive(Debug)]
struct Distribution {
    histogram: Histogram<u32>,
    max: u64,
}

/// What is said of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// Half of them were no longer.
    pub p50: u64,
    /// All but one in a hundred were no longer.
    pub p99: u64,
    /// The longest, exactly.
    pub max: u64,
}

impl Distribution {
    fn new() -> Option<Self> {
        let mut histogram = Histogram::new_with_bounds(FINEST_NS, 2 * FINEST_NS, DIGITS).ok()?;
        histogram.auto(true);
        Some(Self { histogram, max: 0 })
    }

    fn add(&mut self, ns: u64) {
        // It grows as far as the longest.
        let _ = self.histogram.record(ns.min(LONGEST_NS));
        self.max = self.max.max(ns);
    }

    fn clear(&mut self) {
        self.histogram.reset();
        self.max = 0;
    }

    fn summary(&self) -> Option<Summary> {
        if self.histogram.is_empty() {
            return None;
        }
        // A percentile is the upper end of its step.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max);
        Some(Summary {
            count: self.histogram.len(),
            p50: at(0.50),
            p99: at(0.99),
            max: self.max,
        })
    }
}

impl Waits {
    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        if self.0.is_none() {
            self.0 = Distribution::new().zip(Distribution::new()).map(|(recent, all)| {
                let powers = [0; POWERS];
                Box::new(Both { recent, all, powers })
            });
        }
        if let Some(both) = &mut self.0 {
            both.recent.add(ns);
            both.all.add(ns);
            let power = (ns / 1000).checked_ilog2().unwrap_or(0) as usize;
            both.powers[power.min(POWERS - 1)] += 1;
        }
    }

    /// The next interval begins.
    pub fn next_interval(&mut self) {
        if let Some(both) = &mut self.0 {
            both.recent.clear();
        }
    }

    /// Of this interval; `None` without any.
    pub fn recent(&self) -> Option<Summary> {
        self.0.as_ref()?.recent.summary()
    }

    /// Of all; `None` without any.
    pub fn all(&self) -> Option<Summary> {
        self.0.as_ref()?.all.summary()
    }

    /// How many there were between each power of two microseconds, and the next; the first from zero on. Up to the last
    /// that is not empty.
    pub fn powers(&self) -> &[u64] {
        let powers: &[u64] = self.0.as_ref().map_or(&[], |both| &both.powers);
        let end = powers.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        &powers[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_NS, POWERS, Summary, Waits};

    const MS: u64 = 1_000_000;

    #[test]
    fn percentiles_are_right_to_one_in_a_hundred_and_the_maximum_exactly() {
        let mut waits = Waits::default();
        assert_eq!((waits.recent(), waits.all(), waits.powers()), (None, None, &[][..]));
        for ms in 1..=100 {
            waits.add(ms * MS + 1);
        }
        let summary = waits.recent().expect("some");
        assert_eq!((summary.count, summary.max), (100, 100 * MS + 1));
        assert!(summary.p50.abs_diff(50 * MS) <= MS / 2, "{summary:?}");
        assert!(summary.p99.abs_diff(99 * MS) <= MS, "{summary:?}");
    }

    #[test]
    fn an_interval_begins_anew_and_all_goes_on() {
        let mut waits = Waits::default();
        waits.add(5 * MS);
        waits.next_interval();
        assert_eq!(waits.recent(), None);
        waits.add(MS);
        let one = |summary: Option<Summary>| summary.map(|summary| (summary.count, summary.max));
        assert_eq!(one(waits.recent()), Some((1, MS)));
        assert_eq!(one(waits.all()), Some((2, 5 * MS)));
    }

    #[test]
    fn no_wait_is_too_short_or_too_long() {
        let mut waits = Waits::default();
        for ns in [0, 1, 999, LONGEST_NS, LONGEST_NS + 1, u64::MAX] {
            waits.add(ns);
        }
        let summary = waits.all().expect("some");
        assert_eq!((summary.count, summary.max), (6, u64::MAX));
        assert!(summary.p50 < 1100 && summary.p99 >= LONGEST_NS, "{summary:?}");
        assert_eq!(waits.powers().len(), POWERS);
        assert_eq!(waits.powers().iter().sum::<u64>(), 6);
    }

    #[test]
    fn powers_of_two_are_exact() {
        let mut waits = Waits::default();
        for us in [0, 1, 2, 3, 4, 7, 8] {
            waits.add(us * 1000);
        }
        assert_eq!(waits.powers(), [2, 2, 2, 1]);
    }

    #[test]
    fn memory_is_small() {
        let mut waits = Waits::default();
        let bytes = |waits: &Waits| {
            let both = waits.0.as_ref().expect("some");
            both.all.histogram.distinct_values() * size_of::<u32>()
        };
        assert_eq!(size_of_val(&waits), size_of::<usize>());
        waits.add(10 * MS);
        assert!(bytes(&waits) <= 5 << 10, "{}", bytes(&waits));
        waits.add(u64::MAX);
        assert!(bytes(&waits) <= 14 << 10, "{}", bytes(&waits));
    }
}
