//! How long data waits, by Little's law: the mean wait of a byte in a queue is the bytes that were in it, on average over a
//! time, divided by the rate at which bytes left it (J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations
//! Research 9 (1961)). Both come from sequence numbers that are looked at now and then; no `sk_buff` is followed.

use std::collections::{HashMap, hash_map::Entry};

use socklife_abi::{queued::Flow, socket::Identity};

/// The connections that exist, and what was seen of them in this interval.
#[derive(Debug, Default)]
pub struct Dwells {
    connections: HashMap<Identity, Connection>,
    looks: u64,
}

/// How long a connection's data waited in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dwell {
    /// How long it was looked at.
    pub span_ns: u64,
    /// How often, after the first time.
    pub samples: u32,
    /// Arrived, and not read.
    pub receive: Wait,
    /// Written, and not sent.
    pub unsent: Wait,
    /// Sent, and not acknowledged.
    pub in_flight: Wait,
    /// Milliseconds that the kernel counted, as in [`Flow::chrono_ms`].
    pub chrono_ms: [u32; 3],
}

/// The wait in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Bytes that left it.
    pub left: u64,
    /// Bytes that were in it, on average.
    pub mean_bytes: u64,
    /// How long one waited, on average; unknown where none left.
    pub mean_ns: Option<u64>,
    /// None left, and it was not empty for so long at least.
    pub stalled_ns: Option<u64>,
}

#[derive(Debug)]
struct Connection {
    first: Flow,
    last: Flow,
    samples: u32,
    queues: [Queue; 3],
    /// The look that saw it last.
    look: u64,
}

/// One queue at one moment.
#[derive(Clone, Copy)]
struct Fill {
    bytes: u32,
    /// The number of the byte that leaves next.
    out: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// Twice the integral of bytes over nanoseconds.
    area: u128,
    left: u64,
    /// Since when it was not empty, and nothing left it.
    since: Option<u64>,
}

fn fills(flow: &Flow) -> [Fill; 3] {
    // What is read one after the other without a lock may be out of order for a moment.
    let between = |from: u32, to: u32| to.wrapping_sub(from).cast_signed().max(0).cast_unsigned();
    [
        Fill {
            bytes: between(flow.copied_seq, flow.rcv_nxt),
            out: flow.copied_seq,
        },
        Fill {
            bytes: between(flow.snd_nxt, flow.write_seq),
            out: flow.snd_nxt,
        },
        Fill {
            bytes: between(flow.snd_una, flow.snd_nxt),
            out: flow.snd_una,
        },
    ]
}

impl Queue {
    fn begin(fill: Fill, time_ns: u64) -> Self {
        Self {
            since: (fill.bytes > 0).then_some(time_ns),
            ..Self::default()
        }
    }

    fn take(&mut self, before: Fill, now: Fill, time_ns: u64, passed_ns: u64) {
        self.area += (u128::from(before.bytes) + u128::from(now.bytes)) * u128::from(passed_ns);
        let left = now.out.wrapping_sub(before.out).cast_signed().max(0).cast_unsigned();
        self.left += u64::from(left);
        if now.bytes == 0 {
            self.since = None;
        } else if left > 0 || self.since.is_none() {
            self.since = Some(time_ns);
        }
    }

    fn wait(&self, now_ns: u64, span_ns: u64) -> Wait {
        let per = |divisor: u64| {
            let quotient = self.area / 2 / u128::from(divisor.max(1));
            u64::try_from(quotient).unwrap_or(u64::MAX)
        };
        Wait {
            left: self.left,
            mean_bytes: per(span_ns),
            mean_ns: (self.left > 0).then(|| per(self.left)),
            stalled_ns: match self.since {
                Some(since) if self.left == 0 => Some(now_ns.saturating_sub(since)),
                _ => None,
            },
        }
    }
}

impl Connection {
    fn begin(flow: Flow, look: u64) -> Self {
        Self {
            first: flow,
            last: flow,
            samples: 0,
            queues: fills(&flow).map(|fill| Queue::begin(fill, flow.time_ns)),
            look,
        }
    }

    fn take(&mut self, flow: Flow, look: u64) {
        let passed_ns = flow.time_ns.saturating_sub(self.last.time_ns);
        let (before, now) = (fills(&self.last), fills(&flow));
        for (queue, (before, now)) in self.queues.iter_mut().zip(before.into_iter().zip(now)) {
            queue.take(before, now, flow.time_ns, passed_ns);
        }
        self.last = flow;
        self.samples += 1;
        self.look = look;
    }

    /// What was seen so far; the next interval begins.
    fn end(&mut self) -> Option<Dwell> {
        let span_ns = self.last.time_ns.saturating_sub(self.first.time_ns);
        let [receive, unsent, in_flight] = self.queues.map(|queue| queue.wait(self.last.time_ns, span_ns));
        let chrono = |index: usize| self.last.chrono_ms[index].wrapping_sub(self.first.chrono_ms[index]);
        let dwell = Dwell {
            span_ns,
            samples: self.samples,
            receive,
            unsent,
            in_flight,
            chrono_ms: [0, 1, 2].map(chrono),
        };
        self.first = self.last;
        self.samples = 0;
        for queue in &mut self.queues {
            (queue.area, queue.left) = (0, 0);
        }
        (dwell.samples > 0).then_some(dwell)
    }
}

impl Dwells {
    /// Takes all connections as they are now. What is not among them is gone.
    pub fn look(&mut self, all: impl Iterator<Item = (Identity, Flow)>) {
        self.looks += 1;
        let look = self.looks;
        // Without data it has no time.
        for (identity, flow) in all.filter(|(_, flow)| flow.time_ns != 0) {
            match self.connections.entry(identity) {
                Entry::Occupied(mut connection) => connection.get_mut().take(flow, look),
                Entry::Vacant(place) => {
                    place.insert(Connection::begin(flow, look));
                }
            }
        }
        self.connections.retain(|_, connection| connection.look == look);
    }

    /// The interval is over: how long each connection's data waited in it, if it was seen more than once.
    pub fn end(&mut self) -> HashMap<Identity, Dwell> {
        let connections = self.connections.iter_mut();
        connections
            .filter_map(|(identity, connection)| Some((*identity, connection.end()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use socklife_abi::queued::Flow;

    use super::{Dwell, Dwells};

    const ID: socklife_abi::socket::Identity = (1, [0; 2], 2, [0; 2], 3);
    const MS: u64 = 1_000_000;

    /// `arrived` and `read` in bytes, from near the end of the numbers on.
    fn received(at_ms: u64, arrived: u32, read: u32) -> Flow {
        let start = u32::MAX - 10;
        Flow {
            time_ns: at_ms * MS,
            rcv_nxt: start.wrapping_add(arrived),
            copied_seq: start.wrapping_add(read),
            ..Flow::zeroed()
        }
    }

    fn after(dwells: &mut Dwells, flows: &[Flow]) -> Option<Dwell> {
        for flow in flows {
            dwells.look([(ID, *flow)].into_iter());
        }
        dwells.end().remove(&ID)
    }

    #[test]
    fn each_byte_of_a_steady_queue_waits_as_long() {
        // 100 bytes arrive each 10 ms, and are read 50 ms later.
        let flows: Vec<_> = (0..=100_u32)
            .map(|step| received(1 + 10 * u64::from(step), 100 * step + 500, 100 * step))
            .collect();
        let dwell = after(&mut Dwells::default(), &flows).expect("it was seen");
        assert_eq!((dwell.span_ns, dwell.samples), (1000 * MS, 100));
        assert_eq!((dwell.receive.left, dwell.receive.mean_bytes), (10_000, 500));
        assert_eq!(dwell.receive.mean_ns, Some(50 * MS));
        assert_eq!(dwell.receive.stalled_ns, None);
        assert_eq!((dwell.unsent.mean_ns, dwell.in_flight.stalled_ns), (None, None));
    }

    #[test]
    fn what_does_not_move_has_no_mean_but_a_least() {
        let mut dwells = Dwells::default();
        let dwell = after(
            &mut dwells,
            &[received(1, 0, 0), received(101, 77, 0), received(201, 77, 0)],
        );
        let wait = dwell.expect("it was seen").receive;
        assert_eq!((wait.left, wait.mean_ns), (0, None));
        assert_eq!(wait.stalled_ns, Some(100 * MS), "since it was seen first");
        // The next interval goes on.
        let dwell = after(&mut dwells, &[received(301, 77, 0)]);
        assert_eq!(dwell.expect("it was seen").receive.stalled_ns, Some(200 * MS));
        // A byte leaves: those behind it wait since then.
        let dwell = after(&mut dwells, &[received(401, 77, 1)]);
        let wait = dwell.expect("it was seen").receive;
        assert_eq!((wait.left, wait.stalled_ns), (1, None));
        let dwell = after(&mut dwells, &[received(501, 77, 1)]);
        assert_eq!(dwell.expect("it was seen").receive.stalled_ns, Some(100 * MS));
        let dwell = after(&mut dwells, &[received(601, 77, 77)]);
        let wait = dwell.expect("it was seen").receive;
        assert_eq!((wait.left, wait.stalled_ns), (76, None), "empty");
    }

    #[test]
    fn unsent_and_in_flight_are_told_apart() {
        let sent = |at_ms: u64, acknowledged: u32, sent: u32, written: u32| Flow {
            time_ns: at_ms * MS,
            snd_una: acknowledged,
            snd_nxt: sent,
            write_seq: written,
            chrono_ms: [5, u32::try_from(at_ms).expect("small"), 0],
            ..Flow::zeroed()
        };
        // 10 are in flight and 90 wait, always; 10 leave each 100 ms.
        let flows: Vec<_> = (0..=10)
            .map(|step| sent(1 + 100 * u64::from(step), 10 * step, 10 * step + 10, 10 * step + 100))
            .collect();
        let dwell = after(&mut Dwells::default(), &flows).expect("it was seen");
        assert_eq!(dwell.unsent.mean_ns, Some(900 * MS));
        assert_eq!(dwell.in_flight.mean_ns, Some(100 * MS));
        assert_eq!(dwell.chrono_ms, [0, 1000, 0]);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_new_has_no_wait_yet() {
        let mut dwells = Dwells::default();
        assert_eq!(after(&mut dwells, &[received(1, 5, 0)]), None);
        dwells.look(std::iter::empty());
        assert_eq!(after(&mut dwells, &[received(100, 5, 0)]), None, "another");
        dwells.look([(ID, Flow::zeroed())].into_iter());
        assert!(dwells.connections.is_empty(), "no data any more");
    }
}
