//! What is counted of one listener. The kernel side's totals are authoritative: they hold also what was lost on the way, or
//! held back. Single events fill the gap until the next totals come.

use socklife_abi::event::{REFUSED_COOKIE, TOTALS, Total, accept_failure, ending, refusal};

use crate::event::Detail;

/// A count for each [`Total`].
pub type Totals = [u64; TOTALS];

/// The counts of one listener.
#[derive(Debug)]
pub struct Figures {
    counted: Totals,
    /// Up to when `counted` counts.
    until: Option<u64>,
    /// Single events after that.
    since: Totals,
    /// What the kernel side did not count of this listener, because it could not tell that it was this one.
    apart: Totals,
    /// Where the interval began.
    mark: Totals,
}

impl Default for Figures {
    fn default() -> Self {
        let zero = [0; TOTALS];
        Self {
            counted: zero,
            until: None,
            since: zero,
            apart: zero,
            mark: zero,
        }
    }
}

impl Figures {
    /// The kernel side's totals of that time. What came after it, and before these totals, is at most what two CPUs had
    /// under way: the next totals have it.
    pub fn set(&mut self, time_ns: u64, totals: &Totals) {
        if self.until.is_some_and(|until| time_ns < until) {
            return;
        }
        self.counted = *totals;
        self.until = Some(time_ns);
        self.since = [0; TOTALS];
    }

    /// One event; `apart` where the kernel side did not know the listener.
    pub fn add(&mut self, time_ns: u64, detail: &Detail, apart: bool) {
        for slot in slots(detail).into_iter().flatten() {
            self.more(time_ns, slot, 1, apart);
        }
        // The refusals of one connection's ACK are told once, and afterwards how many there were.
        if let Some((refusals @ 2.., half_open_ns)) = repeated(detail) {
            let began = time_ns.saturating_sub(half_open_ns);
            self.more(began, Total::AcceptRefused as usize, u64::from(refusals) - 1, apart);
        }
    }

    fn more(&mut self, time_ns: u64, slot: usize, count: u64, apart: bool) {
        if apart {
            self.apart[slot] += count;
        } else if self.until.is_none_or(|until| time_ns > until) {
            self.since[slot] += count;
        }
    }

    /// The next interval begins.
    pub fn next_interval(&mut self) {
        self.mark = self.totals();
    }

    /// Whether the kernel side's totals were seen.
    pub fn is_counted(&self) -> bool {
        self.until.is_some()
    }

    /// Everything since the start of the trace.
    pub fn totals(&self) -> Totals {
        std::array::from_fn(|slot| {
            self.counted[slot]
                .saturating_add(self.since[slot])
                .saturating_add(self.apart[slot])
        })
    }

    /// Everything since the start of the interval.
    pub fn recent(&self) -> Totals {
        let now = self.totals();
        std::array::from_fn(|slot| now[slot].saturating_sub(self.mark[slot]))
    }
}

/// SYNs that came: taken, answered with a cookie, or refused.
pub fn arrivals(totals: &Totals) -> u64 {
    totals[Total::SynQueued as usize] + totals[Total::CookieSent as usize] + refused_syns(totals).iter().sum::<u64>()
}

/// Refused SYNs, by [`refusal`].
pub fn refused_syns(totals: &Totals) -> &[u64] {
    &totals[Total::SynRefused as usize..][..refusal::NAMES.len()]
}

/// Half-open connections that ended, by [`ending`].
pub fn ended(totals: &Totals) -> &[u64] {
    &totals[Total::HalfOpenEnded as usize..][..ending::NAMES.len()]
}

/// Accepts that failed, by [`accept_failure`].
pub fn failed_accepts(totals: &Totals) -> &[u64] {
    &totals[Total::AcceptFailed as usize..][..accept_failure::NAMES.len()]
}

/// Which counts an event moves.
fn slots(detail: &Detail) -> [Option<usize>; 2] {
    let one = |total: Total| [Some(total as usize), None];
    let two = |first: Total, second: Total| [Some(first as usize), Some(second as usize)];
    match detail {
        Detail::SynQueued(_) => one(Total::SynQueued),
        Detail::CookieSent(_) => two(Total::CookieSent, Total::CookieMode),
        Detail::CookieAccepted(_) => two(Total::CookieAccepted, Total::CookieReceived),
        Detail::CookieRejected(_) => one(Total::CookieRejected),
        Detail::SynRefused(refused) => by_cause(Total::SynRefused, &refusal::NAMES, refused.cause),
        Detail::HalfOpenEnded(ended) => by_cause(Total::HalfOpenEnded, &ending::NAMES, ended.cause),
        Detail::AcceptQueued(_) => one(Total::AcceptQueued),
        Detail::AcceptDeferred(_) => one(Total::AcceptDeferred),
        Detail::AcceptRefused(refused) if refused.how == REFUSED_COOKIE => {
            two(Total::AcceptRefused, Total::CookieReceived)
        }
        Detail::AcceptRefused(_) => one(Total::AcceptRefused),
        Detail::Accepted(_) => one(Total::Accepted),
        Detail::AcceptFailed(failed) => by_cause(
            Total::AcceptFailed,
            &accept_failure::NAMES,
            accept_failure::place(failed.errno),
        ),
        Detail::NeverAccepted(_) => one(Total::NeverAccepted),
        Detail::ConnectFailed(_) => one(Total::ConnectFailed),
        // The rest moves no count of a listener or namespace.
        _ => [None, None],
    }
}

/// A cause that this version does not know counts as the first, "other" or "unknown".
fn by_cause(first: Total, names: &[&str], cause: u32) -> [Option<usize>; 2] {
    let cause = usize::try_from(cause).unwrap_or(0);
    let cause = if cause < names.len() { cause } else { 0 };
    [Some(first as usize + cause), None]
}

/// How often the final ACK of this connection was refused, and how long ago the connection began.
fn repeated(detail: &Detail) -> Option<(u32, u64)> {
    match detail {
        Detail::AcceptQueued(queued) => Some((queued.refusals, queued.half_open_ns)),
        Detail::HalfOpenEnded(ended) => Some((ended.refusals, ended.half_open_ns)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use socklife_abi::event::{
        AcceptQueued, AcceptRefused, Queues, REFUSED_COOKIE, REFUSED_IGNORED, SynQueued, SynRefused, TOTALS, Total,
        UNKNOWN, refusal,
    };

    use super::{Figures, arrivals, refused_syns};
    use crate::event::Detail;

    const QUEUES: Queues = Queues::UNKNOWN;

    fn syn() -> Detail {
        Detail::SynQueued(SynQueued { queues: QUEUES })
    }

    fn refused(how: u32) -> Detail {
        Detail::AcceptRefused(AcceptRefused {
            queues: QUEUES,
            half_open_ns: UNKNOWN,
            how,
            reserved: 0,
        })
    }

    fn queued(refusals: u32, half_open_ns: u64) -> Detail {
        Detail::AcceptQueued(AcceptQueued {
            queues: QUEUES,
            half_open_ns,
            deferred_ns: UNKNOWN,
            flags: 0,
            refusals,
        })
    }

    fn of(figures: &Figures, total: Total) -> u64 {
        figures.totals()[total as usize]
    }

    #[test]
    fn totals_take_the_place_of_the_events_that_they_count() {
        let mut figures = Figures::default();
        for time in [10, 20, 30] {
            figures.add(time, &syn(), false);
        }
        assert_eq!(of(&figures, Total::SynQueued), 3);
        let mut totals = [0; TOTALS];
        totals[Total::SynQueued as usize] = 5;
        figures.set(30, &totals);
        assert_eq!(of(&figures, Total::SynQueued), 5, "two were lost");
        figures.add(25, &syn(), false);
        figures.add(30, &syn(), false);
        assert_eq!(of(&figures, Total::SynQueued), 5, "late, and counted already");
        figures.add(31, &syn(), false);
        assert_eq!(of(&figures, Total::SynQueued), 6);
        figures.set(29, &[0; TOTALS]);
        assert_eq!(of(&figures, Total::SynQueued), 6, "older totals");
    }

    #[test]
    fn what_the_kernel_side_could_not_attribute_stays() {
        let mut figures = Figures::default();
        figures.add(10, &syn(), true);
        figures.set(20, &[0; TOTALS]);
        figures.add(15, &syn(), true);
        assert_eq!(of(&figures, Total::SynQueued), 2);
    }

    #[test]
    fn repeated_refusals_count_once_each() {
        let mut figures = Figures::default();
        figures.add(10, &refused(REFUSED_IGNORED), false);
        figures.add(40, &queued(4, 35), false);
        assert_eq!(of(&figures, Total::AcceptRefused), 4);
        let mut totals = [0; TOTALS];
        totals[Total::AcceptRefused as usize] = 6;
        figures.set(50, &totals);
        figures.add(60, &queued(3, 30), false);
        assert_eq!(
            of(&figures, Total::AcceptRefused),
            6,
            "some were before, some after: not twice"
        );
        figures.add(61, &queued(3, UNKNOWN), false);
        assert_eq!(of(&figures, Total::AcceptRefused), 6);
        figures.add(70, &queued(3, 15), false);
        assert_eq!(of(&figures, Total::AcceptRefused), 8);
        figures.add(71, &refused(REFUSED_COOKIE), false);
        assert_eq!(
            (of(&figures, Total::AcceptRefused), of(&figures, Total::CookieReceived)),
            (9, 1)
        );
    }

    #[test]
    fn an_interval_tells_what_came_in_it() {
        let mut figures = Figures::default();
        figures.add(1, &syn(), false);
        figures.next_interval();
        for cause in [refusal::NO_MEMORY, refusal::NO_MEMORY, 99] {
            let queues = QUEUES;
            let refused = SynRefused {
                queues,
                cause,
                reserved: 0,
            };
            figures.add(2, &Detail::SynRefused(refused), false);
        }
        assert_eq!(refused_syns(&figures.recent()), [1, 0, 0, 2, 0]);
        assert_eq!((arrivals(&figures.recent()), arrivals(&figures.totals())), (3, 4));
        figures.set(3, &[0; TOTALS]);
        assert_eq!(arrivals(&figures.recent()), 0, "never below zero");
    }
}
