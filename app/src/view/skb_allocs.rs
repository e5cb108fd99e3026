//! `sk_buff`s by who allocated them, and by connection.

mod json;
mod table;

pub use json::{CALLER_FIELDS, CONNECTION_FIELDS, TOTAL_FIELDS, json};
pub use table::Table;

use socklife_abi::skb::{CallerTally, ConnectionTally};

use crate::model::{Skbs, skbs::Counted};

/// What is shown of an interval.
pub struct Block<'a> {
    /// Most allocations in the interval first, then of all.
    pub callers: Vec<(&'a str, &'a Counted<CallerTally>)>,
    /// Those with most alive first, then what they got in the interval.
    pub connections: Vec<&'a Counted<ConnectionTally>>,
    /// Of all callers.
    pub total: Counted<CallerTally>,
    /// How many connections there were.
    pub connections_seen: u64,
    /// How long it was; unknown for what came before.
    pub interval_ns: Option<u64>,
    /// Pairs are counted: an `sk_buff` with its first clone. How many bytes were asked for is unknown.
    pub pairs: bool,
}

impl<'a> Block<'a> {
    /// Of the model as it is.
    pub fn of(skbs: &'a Skbs, interval_ns: Option<u64>, pairs: bool) -> Self {
        let mut callers: Vec<_> = skbs.callers().collect();
        callers.sort_by_key(|(_, caller)| std::cmp::Reverse((caller.in_interval(), caller.tally.allocated)));
        let mut connections: Vec<_> = skbs.connections().collect();
        connections.sort_by_key(|connection| {
            let tally = &connection.tally;
            let most = std::cmp::Reverse((tally.alive(), connection.in_interval()));
            (most, tally.netns, tally.sport, tally.dport, tally.cookie)
        });
        Self {
            callers,
            connections,
            total: skbs.total(),
            connections_seen: skbs.connections_seen(),
            interval_ns,
            pairs,
        }
    }
}

/// The mean of those that are gone.
fn mean(lifetime_ns: u64, freed: u64) -> Option<u64> {
    lifetime_ns.checked_div(freed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytemuck::Zeroable as _;
    use serde_json::Value;
    use socklife_abi::skb::{CallerTally, ConnectionTally};

    use super::{Block, CALLER_FIELDS, CONNECTION_FIELDS, TOTAL_FIELDS, Table, json};
    use crate::{model::Skbs, output::Line};

    const SECOND: u64 = 1_000_000_000;

    fn address(last: u8) -> [u64; 2] {
        bytemuck::cast(std::net::Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped().octets())
    }

    fn skbs() -> Skbs {
        let callers = [
            (
                1,
                CallerTally {
                    allocated: 10,
                    freed: 7,
                    bytes: 4_000,
                    truesize: 12_800,
                    truesize_freed: 8_960,
                    lifetime_ns: 7 * 1_234_567,
                },
            ),
            (
                2,
                CallerTally {
                    allocated: 4,
                    ..CallerTally::default()
                },
            ),
        ];
        let open = ConnectionTally {
            saddr: address(1),
            daddr: address(2),
            cookie: 41,
            sent: 9,
            arrived: 4,
            passed: 5,
            freed: 7,
            truesize: 12_800,
            lifetime_ns: 7_000_000,
            sport: 8080,
            dport: 40_000,
            netns: 7,
            family: 4,
            ..ConnectionTally::zeroed()
        };
        let listener = ConnectionTally {
            closed: 1,
            dport: 0,
            cookie: 9,
            sent: 0,
            arrived: 1,
            passed: 0,
            freed: 1,
            ..open
        };
        let mut skbs = Skbs::default();
        let name = |address| if address == 1 { "__tcp_transmit_skb" } else { "?" }.to_owned();
        skbs.take(&callers, &[(41, open), (9, listener)], name);
        skbs
    }

    #[test]
    fn a_block_of_text() {
        let skbs = skbs();
        let lines = Table::default().lines(&Block::of(&skbs, Some(SECOND), false), 20);
        assert_eq!(
            lines.join("\n"),
            "CALLER             ALLOC/s ALLOCS FREES ALIVE BYTES TRUESIZE HELD LIFE ms\n\
             __tcp_transmit_skb      10     10     7     3  4000    12800 3840   1.234\n\
             ?                        4      4     0     4     0        0    0       -\n\
             total                   14     14     7     7  4000    12800 3840   1.234\n\
             LADDR     LPORT RADDR     RPORT SENT RECEIVED ARRIVED PASSED FREES ALIVE TRUESIZE LIFE ms NOTES\n\
             127.0.0.1  8080 127.0.0.2 40000    9        0       4      5     7     1    12800   1.000 netns 7\n\
             127.0.0.1  8080 -             -    0        0       1      0     1     0    12800   7.000 closed, netns 7"
        );
        let short = Table::default().lines(&Block::of(&skbs, None, true), 1);
        assert!(short.iter().any(|line| line == "… 1 more callers"), "{short:#?}");
    }

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_written() {
        let skbs = skbs();
        let line = Line {
            time_ns: SECOND,
            wall: "2023-11-14T22:13:21.000000007Z",
        };
        let mut out = Vec::new();
        for pairs in [false, true] {
            json(&Block::of(&skbs, Some(SECOND), pairs), line, &mut out).expect("JSON");
        }
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let total = TOTAL_FIELDS
            .iter()
            .chain(CALLER_FIELDS.iter().filter(|(name, _)| *name != "caller"))
            .copied()
            .collect::<Vec<_>>();
        for (event, fields) in [
            ("skb_caller", CALLER_FIELDS),
            ("skb_connection", CONNECTION_FIELDS),
            ("skb_total", &total),
        ] {
            let envelope = ["v", "event", "time_ns", "wall"];
            let documented: BTreeSet<_> = fields.iter().map(|(name, _)| *name).chain(envelope).collect();
            let of = lines.iter().filter(|line| line["event"] == event);
            let written: BTreeSet<_> = of
                .flat_map(|line| line.as_object().expect("an object").keys().map(String::as_str))
                .collect();
            assert_eq!(written, documented, "{event}");
        }
        assert!(
            lines
                .iter()
                .any(|line| line["event"] == "skb_total" && line["pairs"] == true)
        );
    }
}
