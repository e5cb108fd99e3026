//! Steps that belong together: segments that are followed through the layers.

use std::collections::{BTreeMap, BTreeSet};

use socklife_abi::{
    event::SkbStep,
    step::{MERGED, READ_ALL, place},
};

use crate::event::{Detail, Event};

const SECOND: u64 = 1_000_000_000;
/// Two CPUs may hand in their steps in another order than they took them.
const SETTLE_NS: u64 = SECOND / 20;
/// What left by a device and does not come in by another one of this machine is gone: how long that may take.
const GONE_NS: u64 = SECOND;
/// How long a step may let wait for the next one otherwise; in the receive queue that is the reader's time.
const QUIET_NS: u64 = 10 * SECOND;
/// How many segments that ended are remembered, lest a late step begins another one: as many as the kernel side knows.
const ENDED: usize = 4096;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Read to its last byte.
    Read,
    /// Joined to the one in front of it in the receive queue.
    Merged,
    /// Nothing more was seen of it.
    Quiet,
    /// Nobody waited for more.
    Cut,
}

/// A step, and what its event says besides.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// Its payload.
    pub skb: SkbStep,
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// In the order of time; one at least.
    pub steps: Vec<Step>,
    /// How it ended.
    pub end: End,
}

/// The segments that are on their way.
#[derive(Debug, Default)]
pub struct Segments {
    open: BTreeMap<u32, Vec<Step>>,
    ended: BTreeSet<u32>,
}

impl Segments {
    /// Takes a step.
    pub fn see(&mut self, event: Event) {
        if let Detail::SkbStep(skb) = event.detail
            && !self.ended.contains(&skb.segment)
        {
            self.open.entry(skb.segment).or_default().push(Step { event, skb });
        }
    }

    /// The segments that have ended by now.
    pub fn ended(&mut self, now: u64) -> Vec<Segment> {
        let ended = self
            .open
            .iter()
            .filter_map(|(number, steps)| Some((*number, end(steps, now)?)));
        let ended: Vec<_> = ended.collect();
        ended
            .into_iter()
            .filter_map(|(number, end)| {
                let steps = self.open.remove(&number)?;
                self.ended.insert(number);
                if self.ended.len() > ENDED {
                    self.ended.pop_first();
                }
                Some(in_order(steps, end))
            })
            .collect()
    }

    /// Those that have not.
    pub fn rest(&mut self) -> Vec<Segment> {
        let open = std::mem::take(&mut self.open);
        open.into_values()
            .map(|steps| {
                let over = over(&steps);
                in_order(steps, over.unwrap_or(End::Cut))
            })
            .collect()
    }
}

fn in_order(mut steps: Vec<Step>, end: End) -> Segment {
    steps.sort_by_key(|step| step.event.envelope.time_ns);
    Segment { steps, end }
}

/// By what its steps say.
fn over(steps: &[Step]) -> Option<End> {
    steps.iter().find_map(|step| {
        if step.skb.flags & READ_ALL != 0 {
            Some(End::Read)
        } else if step.skb.flags & MERGED != 0 {
            Some(End::Merged)
        } else {
            None
        }
    })
}

/// By that, and by time.
fn end(steps: &[Step], now: u64) -> Option<End> {
    let last = steps.iter().max_by_key(|step| step.event.envelope.time_ns)?;
    let quiet = now.saturating_sub(last.event.envelope.time_ns);
    match over(steps) {
        Some(end) => (quiet >= SETTLE_NS).then_some(end),
        None if place::sends(last.skb.place) => (quiet >= GONE_NS).then_some(End::Quiet),
        None => (quiet >= QUIET_NS).then_some(End::Quiet),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use socklife_abi::{
        event::{Envelope, SkbStep},
        step::{READ_ALL, place},
    };

    use super::{Detail, End, Event, SECOND, Segments};

    fn step(segment: u32, place: u8, time_ns: u64, flags: u8) -> Event {
        Event {
            envelope: Envelope {
                time_ns,
                ..Envelope::zeroed()
            },
            detail: Detail::SkbStep(SkbStep {
                segment,
                place,
                flags,
                ..SkbStep::zeroed()
            }),
        }
    }

    #[test]
    fn a_segment_ends_when_it_is_read_and_steps_that_come_late_are_put_in_order() {
        let mut segments = Segments::default();
        segments.see(step(1, place::READ, 300, READ_ALL));
        assert_eq!(segments.ended(301).len(), 0, "another CPU may have more");
        segments.see(step(1, place::TRANSMIT, 100, 0));
        let ended = segments.ended(SECOND);
        let places: Vec<_> = ended[0].steps.iter().map(|step| step.skb.place).collect();
        assert_eq!((places, ended[0].end), (vec![place::TRANSMIT, place::READ], End::Read));
        segments.see(step(1, place::QUEUED, 200, 0));
        assert_eq!(segments.rest().len(), 0, "it is over");
    }

    #[test]
    fn what_leaves_the_machine_is_waited_for_less_than_a_reader() {
        let mut segments = Segments::default();
        segments.see(step(1, place::XMIT, 0, 0));
        segments.see(step(2, place::QUEUED, 0, 0));
        let ended = segments.ended(2 * SECOND);
        assert_eq!(
            (ended.len(), ended[0].steps[0].skb.segment, ended[0].end),
            (1, 1, End::Quiet)
        );
        assert_eq!(segments.ended(20 * SECOND)[0].steps[0].skb.segment, 2);
        segments.see(step(3, place::QUEUED, 0, 0));
        assert_eq!(segments.rest()[0].end, End::Cut);
    }
}
