//! What socklife counted in a network namespace, against the kernel's own counters of the same time.

use std::fmt;

use socklife_abi::event::{Total, ending, refusal};

use super::sampled::Sampled;

use super::{
    Listener,
    figures::{self, Totals},
};

/// A counter of the kernel, and what it should be by our own counts.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Its name in `/proc/net/netstat` or `/proc/net/snmp`.
    pub name: &'static str,
    ours: fn(&Totals) -> u64,
    /// What the kernel counts here only for some of its causes, which we cannot tell apart.
    perhaps: fn(&Totals) -> u64,
}

/// For most of them.
fn nothing(_: &Totals) -> u64 {
    0
}

/// How many there are.
pub const COUNTERS: usize = 9;

/// Every counter that is compared.
pub const ALL: [Counter; COUNTERS] = [
    Counter {
        name: "ListenOverflows",
        ours: |totals| refused(totals, refusal::ACCEPT_QUEUE_FULL) + of(totals, Total::AcceptRefused),
        perhaps: nothing,
    },
    Counter {
        name: "ListenDrops",
        ours: Listener::refusals,
        // ICMP drops a half-open connection (`tcp_req_err`) and counts it, `ss --kill` does not.
        perhaps: |totals| ended(totals, ending::CANCELLED),
    },
    Counter {
        name: "TCPReqQFullDrop",
        ours: |totals| refused(totals, refusal::SYN_QUEUE_FULL),
        perhaps: nothing,
    },
    Counter {
        name: "TCPReqQFullDoCookies",
        ours: |totals| of(totals, Total::CookieMode),
        perhaps: nothing,
    },
    Counter {
        name: "SyncookiesSent",
        ours: |totals| of(totals, Total::CookieSent),
        perhaps: nothing,
    },
    Counter {
        name: "SyncookiesRecv",
        ours: |totals| of(totals, Total::CookieReceived),
        perhaps: nothing,
    },
    Counter {
        name: "SyncookiesFailed",
        ours: |totals| of(totals, Total::CookieRejected),
        perhaps: nothing,
    },
    Counter {
        name: "EmbryonicRsts",
        ours: |totals| ended(totals, ending::RESET) + ended(totals, ending::ACCEPT_QUEUE_FULL),
        perhaps: nothing,
    },
    Counter {
        name: "AttemptFails",
        ours: |totals| of(totals, Total::ConnectFailed) + ended(totals, ending::RESET),
        perhaps: nothing,
    },
];

fn of(totals: &Totals, total: Total) -> u64 {
    totals[total as usize]
}

fn refused(totals: &Totals, cause: u32) -> u64 {
    figures::refused_syns(totals)[cause as usize]
}

fn ended(totals: &Totals, cause: u32) -> u64 {
    figures::ended(totals)[cause as usize]
}

/// Our totals beside the kernel's counters, by [`ALL`].
pub type Sample = Sampled<Totals, COUNTERS>;

/// One counter between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The counter.
    pub name: &'static str,
    /// What we counted, at least and at most: something may have happened while a sample was taken.
    pub ours: (u64, u64),
    /// What the kernel counted.
    pub kernel: u64,
}

impl Compared {
    /// Nothing says that the two differ.
    pub fn agrees(&self) -> bool {
        (self.ours.0..=self.ours.1).contains(&self.kernel)
    }

    /// Something was counted by either.
    pub fn moved(&self) -> bool {
        self.kernel != 0 || self.ours.1 != 0
    }
}

/// Every counter that this kernel has, from one sample to a later one.
pub fn compare(start: &Sample, end: &Sample) -> Vec<Compared> {
    let counters = ALL.iter().zip(start.kernel.iter().zip(&end.kernel));
    counters
        .filter_map(|(counter, (before, after))| {
            let ours = |totals: &Totals| (counter.ours)(totals);
            let least = ours(&end.before).saturating_sub(ours(&start.after));
            let most = ours(&end.after).saturating_sub(ours(&start.before));
            let perhaps = (counter.perhaps)(&end.after).saturating_sub((counter.perhaps)(&start.before));
            Some(Compared {
                name: counter.name,
                ours: (least, most.saturating_add(perhaps)),
                // The kernel's are 64 bits wide and wrap by themselves.
                kernel: (*after)?.wrapping_sub((*before)?),
            })
        })
        .collect()
}

/// What is said of a namespace: that the two agree, or each difference.
pub struct Verdict<'a> {
    /// Inode of the namespace.
    pub netns: u32,
    /// Its counters.
    pub compared: &'a [Compared],
    /// Also those that did not move.
    pub all: bool,
}

impl Verdict<'_> {
    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.compared.iter().all(Compared::agrees)
    }

    /// Whether there is anything to say.
    pub fn is_worth_saying(&self) -> bool {
        self.all || self.compared.iter().any(Compared::moved)
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (agreed, different): (Vec<&Compared>, Vec<&Compared>) =
            self.compared.iter().partition(|compared| compared.agrees());
        write!(f, "netns {}: ", self.netns)?;
        for (index, compared) in different.iter().enumerate() {
            let (least, most) = compared.ours;
            write!(f, "{}{} {least}", if index > 0 { ", " } else { "" }, compared.name)?;
            if most != least {
                write!(f, " to {most}")?;
            }
            write!(f, " counted, the kernel says {}", compared.kernel)?;
        }
        let shown: Vec<_> = agreed
            .iter()
            .filter(|compared| self.all || compared.moved())
            .map(|compared| format!("{} {}", compared.name, compared.kernel))
            .collect();
        match (different.is_empty(), shown.is_empty()) {
            (true, true) => f.write_str("counts agree with the kernel's: nothing happened"),
            (true, false) => write!(f, "counts agree with the kernel's: {}", shown.join(", ")),
            (false, true) => Ok(()),
            (false, false) => write!(f, "; the others agree: {}", shown.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use socklife_abi::event::{TOTALS, Total, ending, refusal};

    use super::{ALL, COUNTERS, Compared, Sample, Totals, Verdict, compare};

    const ZERO: Totals = [0; TOTALS];

    fn still(totals: Totals, kernel: [Option<u64>; COUNTERS]) -> Sample {
        Sample {
            before: totals,
            kernel,
            after: totals,
        }
    }

    /// One of each that we count, by powers of two.
    fn counts() -> Totals {
        let mut totals = ZERO;
        let mut add = |slot: usize, count| totals[slot] = count;
        let refused = Total::SynRefused as usize;
        let ended = Total::HalfOpenEnded as usize;
        add(refused + refusal::OTHER as usize, 1);
        add(refused + refusal::SYN_QUEUE_FULL as usize, 2);
        add(refused + refusal::ACCEPT_QUEUE_FULL as usize, 4);
        add(refused + refusal::NO_MEMORY as usize, 8);
        add(refused + refusal::MAX_SYN_BACKLOG as usize, 16);
        add(Total::AcceptRefused as usize, 32);
        add(ended + ending::RESET as usize, 64);
        add(ended + ending::ACCEPT_QUEUE_FULL as usize, 128);
        add(ended + ending::EXPIRED as usize, 256);
        add(Total::ConnectFailed as usize, 512);
        add(Total::CookieSent as usize, 1024);
        add(Total::CookieReceived as usize, 2048);
        add(Total::CookieRejected as usize, 4096);
        add(Total::CookieMode as usize, 8192);
        add(Total::SynQueued as usize, 1 << 20);
        totals
    }

    #[test]
    fn each_counter_is_made_of_its_events() {
        let expected = [36, 63, 2, 8192, 1024, 2048, 4096, 192, 576];
        let compared = compare(
            &still(ZERO, [Some(1000); 9]),
            &still(counts(), expected.map(|count| Some(1000 + count))),
        );
        assert_eq!(compared.len(), ALL.len());
        for (compared, expected) in compared.iter().zip(expected) {
            assert_eq!(
                (compared.ours, compared.kernel),
                ((expected, expected), expected),
                "{}",
                compared.name
            );
            assert!(compared.agrees());
        }
    }

    #[test]
    fn what_happens_during_a_sample_is_no_difference() {
        let (mut more, mut kernel) = (ZERO, [Some(0); 9]);
        more[Total::CookieSent as usize] = 3;
        kernel[4] = Some(2);
        let moving = Sample {
            before: ZERO,
            kernel,
            after: more,
        };
        let start = still(ZERO, [Some(0); 9]);
        let sent = compare(&start, &moving)[4];
        assert_eq!((sent.ours, sent.kernel, sent.agrees()), ((0, 3), 2, true));
        // The other way round.
        let sent = compare(&moving, &still(more, [Some(3); 9]))[4];
        assert_eq!((sent.ours, sent.kernel, sent.agrees()), ((0, 3), 1, true));
        let sent = compare(&start, &still(more, kernel))[4];
        assert!(!sent.agrees());
    }

    #[test]
    fn a_half_open_connection_that_icmp_ended_may_be_a_drop() {
        let mut totals = ZERO;
        totals[Total::HalfOpenEnded as usize + ending::CANCELLED as usize] = 3;
        for drops in 0..=4 {
            let mut kernel = [Some(0); 9];
            kernel[1] = Some(drops);
            let compared = compare(&still(ZERO, [Some(0); 9]), &still(totals, kernel));
            assert_eq!(compared[1].agrees(), drops <= 3, "{drops}");
        }
    }

    #[test]
    fn a_counter_that_the_kernel_lacks_is_left_out() {
        let mut kernel = [Some(0); 9];
        kernel[2] = None;
        let compared = compare(&still(ZERO, kernel), &still(ZERO, kernel));
        assert_eq!(compared.len(), 8);
        assert!(compared.iter().all(|compared| compared.name != "TCPReqQFullDrop"));
    }

    #[test]
    fn agreement_and_differences_in_words() {
        let compared = |name, ours, kernel| Compared { name, ours, kernel };
        let quiet = compared("SyncookiesSent", (0, 0), 0);
        let good = compared("ListenDrops", (12, 12), 12);
        let bad = compared("ListenOverflows", (11, 11), 12);
        let vague = compared("AttemptFails", (3, 5), 7);
        let say = |all, compared: &[Compared]| {
            let verdict = Verdict {
                netns: 4_026_532_281,
                compared,
                all,
            };
            (verdict.is_worth_saying(), verdict.to_string())
        };
        assert_eq!(
            say(false, &[quiet, good]),
            (
                true,
                "netns 4026532281: counts agree with the kernel's: ListenDrops 12".to_owned()
            )
        );
        assert_eq!(
            say(true, &[quiet, good]).1,
            "netns 4026532281: counts agree with the kernel's: SyncookiesSent 0, ListenDrops 12"
        );
        assert_eq!(
            say(false, &[quiet, bad, good, vague]).1,
            "netns 4026532281: ListenOverflows 11 counted, the kernel says 12, AttemptFails 3 to 5 counted, the kernel \
             says 7; the others agree: ListenDrops 12"
        );
        assert!(!say(false, &[quiet]).0 && say(true, &[quiet]).0);
    }
}
