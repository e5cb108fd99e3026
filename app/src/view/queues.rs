//! Listeners and their two queues, a row each.

mod json;
mod row;
mod table;

pub use json::{FIELDS, json};
pub use row::{Row, rows};
pub use table::Table;

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeSet, HashMap},
        net::SocketAddr,
    };

    use serde_json::Value;
    use socklife_abi::event::{Queues, Total, UNKNOWN, ending, refusal};

    use super::{FIELDS, Table, json, rows};
    use crate::{
        event::{Describe, Detail, Event},
        holders::Holders,
        model::{
            Listeners, Process,
            sample::{
                accept_queued, accepted, by, event, event_at, from_table, half_open_ended, listener, listening,
                never_accepted, older_listener, queues, syn_queued, syn_refused,
            },
        },
        output::Line,
    };

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000_000;

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    /// One where everything happens, an older one that is idle, and one that is not known to be one.
    fn listeners() -> Listeners {
        let mut listeners = Listeners::default();
        let old = at("[::]:8080");
        let mut take = |event: Event| listeners.take(&event);
        take(by(event(MS, 9, listening(1024)), 41, "serve"));
        take(from_table(event_at(old, MS, 10, older_listener(queues(10, 0, 2)))));
        for (child, pid) in [(100, 41), (101, 41), (102, 42)] {
            take(event(10 * MS, child, syn_queued(queues(9, 1, 0))));
            take(event(12 * MS, child, accept_queued(queues(9, 0, 1), 2 * MS)));
            take(by(
                event(262 * MS, child, accepted(queues(9, 0, 0), 250 * MS)),
                pid,
                "serve",
            ));
        }
        take(event(500 * MS, 103, accept_queued(queues(9, 0, 1), UNKNOWN)));
        take(event(
            600 * MS,
            0,
            syn_refused(queues(9, 3, 1), refusal::ACCEPT_QUEUE_FULL),
        ));
        take(event(600 * MS, 104, half_open_ended(queues(9, 3, 1), ending::EXPIRED)));
        take(event(700 * MS, 105, never_accepted(9)));
        take(event_at(
            at("10.0.0.1:443"),
            800 * MS,
            0,
            syn_refused(Queues::UNKNOWN, refusal::OTHER),
        ));
        listeners
    }

    fn holders() -> HashMap<u64, Holders> {
        let mut comm = [0; 16];
        comm[..5].copy_from_slice(b"nginx");
        let first = Process { pid: 1234, comm };
        HashMap::from([(77, Holders { first, more: 3 })])
    }

    fn block(listeners: &Listeners, interval: Option<u64>) -> String {
        let rows = rows(listeners, &holders(), SECOND, interval);
        Table::default().lines(&rows).expect("text").join("\n")
    }

    #[test]
    fn a_block_of_text() {
        assert_eq!(
            block(&listeners(), Some(SECOND)),
            "                             \
             ------- SYN queue, ms ------- --------- accept queue, ms ---------\n\
             LADDR     LPORT  PID COMM    DEPTH SYN/s   P50   P99   MAX DEPTH ACC/s   P50   P99   MAX OLDEST REFUSED \
             NOTES\n\
             127.0.0.1    80   41 serve   3/128     4 2.000 2.000 2.000 1/128     3 250.0 250.0 250.0  500.0       1 \
             refused: accept_queue_full 1; backlog 128 (asked 1024: net.core.somaxconn); ended: expired 1; 1 never \
             accepted; accepted by serve[41] 66%, serve[42] 33%\n\
             ::         8080 1234 nginx+3 0/128     0     -     -     - 2/128     0     -     -     -      ?       0\n\
             10.0.0.1    443    ? ?         ?/?     1     -     -     -   ?/?     0     -     -     -      -       1 \
             which listener is unknown; refused: other 1"
        );
    }

    #[test]
    fn the_first_block_has_no_rates() {
        let shown = block(&listeners(), None);
        assert_eq!(
            shown.lines().nth(2),
            Some(
                "127.0.0.1    80   41 serve   3/128     - 2.000 2.000 2.000 1/128     - 250.0 250.0 250.0  500.0       - \
                 refused: accept_queue_full 1; backlog 128 (asked 1024: net.core.somaxconn); ended: expired 1; 1 never \
                 accepted; accepted by serve[41] 66%, serve[42] 33%"
            )
        );
    }

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let mut listeners = listeners();
        let long = at("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535");
        for time in 0..2000 {
            let event = event_at(
                long,
                time,
                200 + time,
                accept_queued(queues(11, 100_000, 100_000), u64::MAX - 1),
            );
            listeners.take(&event);
        }
        let block = block(&listeners, Some(SECOND));
        let lines: Vec<Vec<char>> = block.lines().skip(1).map(|line| line.chars().collect()).collect();
        // Where the titles end, on the right side of each column, no row has anything else than a space.
        let titles: String = lines[0].iter().collect();
        for title in ["LPORT", "PID", "DEPTH", "SYN/s", "ACC/s", "OLDEST", "REFUSED"] {
            let byte = titles.find(title).expect("a title") + title.len();
            for line in &lines {
                assert_eq!(
                    *line.get(byte).unwrap_or(&' '),
                    ' ',
                    "{title}: {}",
                    line.iter().collect::<String>()
                );
                assert_ne!(line[byte - 1], ' ', "{title}: {}", line.iter().collect::<String>());
            }
        }
    }

    #[test]
    fn namespaces_are_told_apart_where_there_are_several() {
        let mut listeners = listeners();
        let mut other = event(900 * MS, 12, listening(128));
        other.envelope.netns = 7;
        listeners.take(&other);
        let block = block(&listeners, Some(SECOND));
        assert!(
            block.lines().any(|line| line.ends_with(" netns 7")) && block.contains(" netns 4026532281; refused:"),
            "{block}"
        );
    }

    #[test]
    fn a_closed_listener_is_shown_once_more() {
        let mut listeners = listeners();
        listeners.take(&event(900 * MS, 9, listener(queues(9, 0, 0), &[(Total::Accepted, 3)])));
        assert!(block(&listeners, Some(SECOND)).contains(" closed; backlog 128 "));
        listeners.next_interval();
        assert!(!block(&listeners, Some(SECOND)).contains("serve"));
    }

    fn lines(listeners: &Listeners, interval: Option<u64>) -> Vec<Value> {
        let mut out = Vec::new();
        let line = Line {
            time_ns: SECOND,
            wall: "2023-11-14T22:13:21.000000007Z",
        };
        for row in rows(listeners, &holders(), SECOND, interval) {
            json(&row, line, &mut out).expect("JSON");
        }
        let text = String::from_utf8(out).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn json_says_the_same_in_integers() {
        let lines = lines(&listeners(), Some(SECOND));
        let of = |port: u16| lines.iter().find(|line| line["lport"] == port).expect("a line");
        let line = of(80);
        for (name, value) in [
            ("listener", 9),
            ("syns", 4),
            ("accepts", 3),
            ("refused", 1),
            ("syn_queue", 3),
            ("syn_queue_limit", 128),
            ("accept_queue", 1),
            ("accept_queue_limit", 128),
            ("backlog_asked", 1024),
            ("pid", 41),
            ("interval_ns", SECOND),
            ("oldest_wait_ns", 500 * MS),
            ("half_open_count", 3),
            ("half_open_max_ns", 2 * MS),
            ("accept_wait_max_ns", 250 * MS),
            ("accepted_total", 3),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(
            (&line["event"], &line["bound"], &line["laddr"]),
            (&"queues".into(), &true.into(), &"127.0.0.1".into())
        );
        assert_eq!(line["acceptors"][0]["accepted"], 2);
        assert_eq!(line["syn_refused_total"]["accept_queue_full"], 1);
        let line = of(8080);
        assert_eq!(
            (&line["pid"], &line["more_holders"], &line["born"]),
            (&1234.into(), &3.into(), &"before".into())
        );
        assert!(line["oldest_wait_ns"].is_null() && line["backlog_asked"].is_null());
        assert_eq!(of(443)["group"], true);
        assert!(of(443)["syn_queue"].is_null() && of(443)["listener"].is_null());
    }

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_written() {
        let mut listeners = listeners();
        let closed = event_at(at("10.0.0.1:22"), 900 * MS, 12, listener(queues(12, 0, 0), &[]));
        listeners.take(&closed);
        // One that left the queue without a word, at a listener with Fast Open.
        let there = at("10.0.0.1:25");
        listeners.take(&event_at(there, 900 * MS, 300, accept_queued(queues(14, 0, 1), MS)));
        let Detail::Listener(mut counted) = listener(queues(14, 0, 0), &[(Total::AcceptQueued, 1)]) else {
            panic!("a listener")
        };
        (counted.fastopen_queue, counted.fastopen_queue_limit) = (1, 2);
        listeners.take(&from_table(event_at(there, 950 * MS, 14, Detail::Listener(counted))));
        let envelope = ["v", "event", "time_ns", "wall"];
        let own = FIELDS.iter().chain(<socklife_abi::event::Listener as Describe>::FIELDS);
        let documented: BTreeSet<_> = own.map(|(name, _)| *name).chain(envelope).collect();
        let lines = lines(&listeners, Some(SECOND));
        let written: BTreeSet<_> = lines
            .iter()
            .flat_map(|line| line.as_object().expect("an object").keys().map(String::as_str))
            .collect();
        assert_eq!(written, documented);
    }
}
