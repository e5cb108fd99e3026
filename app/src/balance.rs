//! Whether the books of each network namespace add up, and what the kernel's own counters tell of what nobody saw.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::Result;
use socklife_abi::{config::Filter, event::Kind, table::ENTRIES};

use crate::{
    kernel::{Counters, Losses, Netstat},
    model::books::{self, BookCompared, BookSample, NAMES, Seen},
    self_check::sample,
};

/// A difference must outlast this many looks: the kernel counts a moment before, or after, the hook that sees the same.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(2);
/// More namespaces than that are compared at the end only.
const MOST: usize = 64;

/// The namespaces that are watched, and how they began.
pub struct Balance {
    namespaces: Vec<Netstat>,
    started: HashMap<u32, BookSample>,
    events: u64,
    seen: Seen,
    /// What the last look found missing: it is told when the next still does.
    last: HashMap<(u32, u8), u64>,
}

/// Kinds for which the hooks at connect(2) are attached.
const CONNECTS: u64 = Kind::set(&[Kind::Connect, Kind::Connected, Kind::ConnectFailed, Kind::Closed]);

impl Balance {
    /// Of what this filter lets pass. The kernel's counters are those of whole namespaces; takes privileges.
    pub fn open(filter: &Filter) -> Self {
        let ends = (filter.port, filter.rport, filter.family) == (0, 0, 0) && filter.mask == [0; 2];
        let whole = ends && filter.pid == 0 && filter.lport == 0;
        Self {
            namespaces: if whole { Netstat::find(filter.netns) } else { Vec::new() },
            started: HashMap::new(),
            events: filter.events,
            seen: Seen {
                connects: filter.events & CONNECTS != 0,
                children: ends,
                lives: Kind::Closed.is_in(filter.events),
            },
            last: HashMap::new(),
        }
    }

    /// Now it begins: everything is attached.
    pub fn begin(&mut self, counters: &Counters) -> Result<()> {
        for _ in 0..LOOKS {
            let sampled = self.sample(counters)?;
            let still = sampled.values().all(|sample| sample.before == sample.after);
            self.started = sampled;
            if still {
                break;
            }
        }
        Ok(())
    }

    /// Now and then: what is missing twice is unseen.
    pub fn now_and_then(&mut self, counters: &Counters, losses: &Losses) -> Result<()> {
        if self.namespaces.len() > MOST {
            return Ok(());
        }
        let compared = self.compared(counters)?;
        let now: HashMap<_, _> = compared
            .iter()
            .flat_map(|(netns, compared)| {
                compared
                    .unseen
                    .iter()
                    .map(|(kind, count)| ((*netns, *kind as u8), *count))
            })
            .collect();
        let both = |key: &(u32, u8), count: u64| count.min(self.last.get(key).copied().unwrap_or(0));
        let mut sums: HashMap<u8, u64> = HashMap::new();
        for (key, count) in &now {
            *sums.entry(key.1).or_default() += both(key, *count);
        }
        self.last = now;
        self.witness(&sums, losses);
        Ok(())
    }

    /// At the end, while everything is attached: says where the kernel's counters differ. True where something does.
    pub fn look(&mut self, counters: &Counters, losses: &Losses) -> Result<Vec<String>> {
        let mut compared = self.compared(counters)?;
        for _ in 1..LOOKS {
            if compared.iter().all(|(_, compared)| compared.differences.is_empty()) {
                break;
            }
            thread::sleep(PAUSE);
            compared = self.compared(counters)?;
        }
        let mut sums: HashMap<u8, u64> = HashMap::new();
        let mut lines = Vec::new();
        for (netns, compared) in &compared {
            for (kind, count) in &compared.unseen {
                *sums.entry(*kind as u8).or_default() += count;
            }
            for difference in &compared.differences {
                lines.push(format!("netns {netns}: {difference}"));
            }
        }
        self.witness(&sums, losses);
        Ok(lines)
    }

    /// When nothing is attached any more, and all stands still: says what does not add up.
    pub fn close(&self, counters: &mut Counters, losses: &Losses) -> Result<Vec<String>> {
        // What found no room is in no sum.
        if losses.not_remembered() > 0 {
            return Ok(Vec::new());
        }
        let standing = counters.standing()?;
        let mut lines = Vec::new();
        let mut size = 0;
        for (netns, book) in counters.books()?.iter().filter(|(netns, _)| **netns != 0) {
            let standing = standing.get(netns).copied().unwrap_or_default();
            for imbalance in books::balance(book, &standing, self.seen) {
                size += imbalance.size;
                lines.push(format!("netns {netns}: {}", imbalance.text));
            }
        }
        losses.set_imbalance(size);
        Ok(lines)
    }

    fn witness(&self, sums: &HashMap<u8, u64>, losses: &Losses) {
        for (kind, count) in sums {
            if let Some(kind) = Kind::from_wire(*kind)
                && kind.is_in(self.events)
            {
                losses.witness(kind, *count);
            }
        }
    }

    fn compared(&self, counters: &Counters) -> Result<Vec<(u32, BookCompared)>> {
        let now = self.sample(counters)?;
        let mut compared: Vec<_> = self
            .started
            .iter()
            .filter_map(|(netns, start)| Some((*netns, books::compare(start, now.get(netns)?, self.seen.connects))))
            .collect();
        compared.sort_by_key(|(netns, _)| *netns);
        Ok(compared)
    }

    /// Each namespace whose counters can be read.
    fn sample(&self, counters: &Counters) -> Result<HashMap<u32, BookSample>> {
        sample(&self.namespaces, &NAMES, || counters.books(), [0; ENTRIES])
    }
}
