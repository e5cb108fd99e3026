//! socklife checks itself: what it counts in each network namespace against the kernel's own counters of the same time.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Result, ensure};
use socklife_abi::{
    config::Filter,
    event::{Kind, TOTALS},
};

use crate::{
    kernel::{Counters, Netstat},
    model::{
        reconcile::{ALL, Compared, Sample, compare},
        sampled::Sampled,
    },
};

/// The events whose hooks count what is compared.
pub const NEEDED: &[Kind] = &[
    Kind::SynRefused,
    Kind::AcceptRefused,
    Kind::CookieSent,
    Kind::CookieAccepted,
    Kind::CookieRejected,
    Kind::HalfOpenEnded,
    Kind::ConnectFailed,
];
/// The kernel counts a moment before, or after, the hook that sees the same: a difference must outlast this many looks.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// The namespaces that are checked, and how they began.
pub struct SelfCheck {
    namespaces: Vec<Netstat>,
    started: HashMap<u32, Sample>,
}

/// What came of one namespace.
pub struct Checked {
    /// Its inode.
    pub netns: u32,
    /// Each counter; `None` where the kernel's can no longer be read, because nobody lives there any more.
    pub compared: Option<Vec<Compared>>,
}

/// Whether the kernel's counters, which are those of whole namespaces, can be compared with what this filter lets pass.
///
/// # Errors
///
/// What is in the way, and what to do about it.
pub fn possible(filter: &Filter) -> Result<()> {
    let whole = filter.pid == 0
        && (filter.port, filter.lport, filter.rport, filter.family) == (0, 0, 0, 0)
        && filter.mask == [0; 2];
    ensure!(
        whole,
        "the kernel counts by network namespace: leave out every filter but --netns to compare"
    );
    let lacking: Vec<_> = NEEDED
        .iter()
        .filter(|kind| !kind.is_in(filter.events))
        .map(|kind| kind.name())
        .collect();
    ensure!(
        lacking.is_empty(),
        "to compare with the kernel's counters, --event must have {} too, or be left out",
        lacking.join(", ")
    );
    Ok(())
}

impl SelfCheck {
    /// Finds the counters of this namespace, or of all; takes privileges.
    pub fn open(netns: u32) -> Self {
        Self {
            namespaces: Netstat::find(netns),
            started: HashMap::new(),
        }
    }

    /// Whether there is anything to check.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Now it begins: everything is attached.
    pub fn begin(&mut self, counters: &Counters) -> Result<()> {
        let mut sampled = self.sample(counters)?;
        for _ in 1..LOOKS {
            let again = self.sample(counters)?;
            let still = again == sampled;
            sampled = again;
            if still {
                break;
            }
        }
        self.started = sampled;
        Ok(())
    }

    /// How it stands now, by namespace.
    pub fn look(&self, counters: &Counters) -> Result<Vec<Checked>> {
        let mut checked = self.checked(counters)?;
        for _ in 1..LOOKS {
            if checked.iter().all(Checked::agrees) {
                break;
            }
            thread::sleep(PAUSE);
            checked = self.checked(counters)?;
        }
        Ok(checked)
    }

    fn checked(&self, counters: &Counters) -> Result<Vec<Checked>> {
        let now = self.sample(counters)?;
        let mut checked: Vec<_> = self
            .started
            .iter()
            .map(|(netns, start)| Checked {
                netns: *netns,
                compared: now.get(netns).map(|end| compare(start, end)),
            })
            .collect();
        checked.sort_by_key(|checked| checked.netns);
        Ok(checked)
    }

    /// Each namespace whose counters can be read.
    fn sample(&self, counters: &Counters) -> Result<HashMap<u32, Sample>> {
        let names = ALL.map(|counter| counter.name);
        sample(&self.namespaces, &names, || counters.namespaces(), [0; TOTALS])
    }
}

impl Checked {
    fn agrees(&self) -> bool {
        self.compared
            .as_ref()
            .is_none_or(|compared| compared.iter().all(Compared::agrees))
    }
}

/// What is counted in each namespace whose counters can be read, ours around the kernel's; nothing is asked where there are
/// no namespaces.
pub fn sample<T: Copy, const N: usize>(
    namespaces: &[Netstat],
    names: &[&str; N],
    ours: impl Fn() -> Result<HashMap<u32, T>>,
    nothing: T,
) -> Result<HashMap<u32, Sampled<T, N>>> {
    if namespaces.is_empty() {
        return Ok(HashMap::new());
    }
    let before = ours()?;
    let kernels: Vec<_> = namespaces
        .iter()
        .filter_map(|netstat| Some((netstat.netns, netstat.read(names).ok()?)))
        .collect();
    let after = ours()?;
    let of = |counts: &HashMap<u32, T>, netns| counts.get(&netns).copied().unwrap_or(nothing);
    let sampled = |(netns, kernel)| {
        let sampled = Sampled {
            before: of(&before, netns),
            kernel,
            after: of(&after, netns),
        };
        (netns, sampled)
    };
    Ok(kernels.into_iter().map(sampled).collect())
}

#[cfg(test)]
mod tests {
    use super::{Filter, Kind, NEEDED, possible};

    #[test]
    fn only_whole_namespaces_and_all_kinds_can_be_compared() {
        let any = Filter::ANY;
        assert!(possible(&any).is_ok());
        assert!(possible(&Filter { netns: 7, ..any }).is_ok());
        for filter in [
            Filter { pid: 1, ..any },
            Filter { lport: 1, ..any },
            Filter { rport: 1, ..any },
            Filter { port: 1, ..any },
            Filter { family: 4, ..any },
            Filter { mask: [0, 1], ..any },
        ] {
            let error = possible(&filter).expect_err("part of a namespace").to_string();
            assert!(error.contains("--netns"), "{error}");
        }
        let events = Kind::set(NEEDED);
        assert!(possible(&Filter { events, ..any }).is_ok());
        let events = events & !(1 << Kind::CookieSent as u8);
        let error = possible(&Filter { events, ..any })
            .expect_err("a kind is missing")
            .to_string();
        assert!(error.contains("must have cookie_sent too"), "{error}");
    }
}
