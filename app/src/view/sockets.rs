//! Sockets that exist now, a row each.

mod json;
mod queues;
mod queues_json;
mod queues_table;
mod row;
mod table;

pub use json::{FIELDS, json};
pub use queues::Queues;
pub use queues_json::{DWELL_FIELDS, QUEUES_FIELDS};
pub use queues_table::QueuesTable;
pub use row::{Listed, Row, rows};
pub use table::lines;

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeSet, HashMap},
        net::SocketAddr,
    };

    use bytemuck::Zeroable as _;
    use serde_json::Value;
    use socklife_abi::{
        event::state,
        queued::{Flow, Memory, Queued, Queueing, SkbQueue, chrono, cut},
        socket::{IN_ACCEPT_QUEUE, MAPPED, Socket, UNKNOWN_IDLE, pending},
    };

    use super::{DWELL_FIELDS, FIELDS, Listed, QUEUES_FIELDS, Queues, QueuesTable, json, lines, rows};
    use crate::{
        event::FieldDoc,
        holders::Holder,
        model::{
            Process,
            dwell::{Dwell, Wait},
        },
        output::Line,
    };

    fn socket(state: u32, local: &str, remote: &str) -> Socket {
        let [local, remote] = [local, remote].map(|text| text.parse::<SocketAddr>().expect("an address"));
        let words = |address: SocketAddr| {
            bytemuck::cast(match address {
                SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(v6) => v6.ip().octets(),
            })
        };
        Socket {
            saddr: words(local),
            daddr: words(remote),
            sport: local.port(),
            dport: remote.port(),
            family: if local.is_ipv4() { 4 } else { 6 },
            state: u8::try_from(state).expect("small"),
            netns: 4_026_531_840,
            idle_ms: UNKNOWN_IDLE,
            ..Socket::zeroed()
        }
    }

    fn sockets() -> Vec<Socket> {
        vec![
            Socket {
                cookie: 31,
                inode: 900,
                uid: 1000,
                recv_q: 5,
                timer: pending::KEEPALIVE,
                idle_ms: 63_049,
                ..socket(state::ESTABLISHED, "10.0.0.1:40000", "192.0.2.1:443")
            },
            socket(state::TIME_WAIT, "127.0.0.1:8080", "127.0.0.1:40010"),
            Socket {
                cookie: 30,
                inode: 802,
                uid: 33,
                send_q: 123_456_789,
                timer: pending::NONE,
                idle_ms: 0,
                flags: MAPPED,
                ..socket(state::ESTABLISHED, "127.0.0.1:8080", "127.0.0.1:40020")
            },
            Socket {
                cookie: 29,
                flags: IN_ACCEPT_QUEUE,
                ..socket(state::ESTABLISHED, "[2001:db8::1]:8080", "[2001:db8::2]:40030")
            },
            Socket {
                cookie: 28,
                listener: 7,
                ..socket(state::NEW_SYN_RECV, "127.0.0.1:8080", "127.0.0.1:40040")
            },
            Socket {
                cookie: 7,
                inode: 801,
                uid: 33,
                recv_q: 1,
                send_q: 128,
                syn_queue: 1,
                syn_queue_limit: 128,
                ..socket(state::LISTEN, "[::]:8080", "[::]:0")
            },
        ]
    }

    fn holders() -> HashMap<u64, Vec<Holder>> {
        let holder = |name: &[u8], pid, fd| {
            let mut comm = [0; 16];
            comm[..name.len()].copy_from_slice(name);
            Holder {
                process: Process { pid, comm },
                fd,
            }
        };
        HashMap::from([
            (801, vec![holder(b"serve", 41, 3), holder(b"serve", 57, 3)]),
            (802, vec![holder(b"serve", 57, 4), holder(b"serve", 57, 5)]),
            (900, vec![holder(b"\x1b[2J", 60, 9)]),
        ])
    }

    #[test]
    fn a_listener_stands_with_its_connections() {
        let (sockets, holders) = (sockets(), holders());
        assert_eq!(
            lines(&rows(&sockets, &holders, None)),
            [
                "STATE        RECV-Q    SEND-Q SYN-Q LADDR       LPORT RADDR       RPORT      NETNS  UID INODE COOKIE TIMER      IDLE HOLDERS",
                "LISTEN            1       128 1/128 ::           8080 -               - 4026531840   33   801      7 -             - serve[41] fd 3, serve[57] fd 3",
                "NEW_SYN_RECV      0         0     - 127.0.0.1    8080 127.0.0.1   40040 4026531840    -     -     28 -             - -",
                "ESTABLISHED       0         0     - 2001:db8::1  8080 2001:db8::2 40030 4026531840    -     -     29 -             - (in the accept queue)",
                "ESTABLISHED       0 123456789     - 127.0.0.1    8080 127.0.0.1   40020 4026531840   33   802     30 none       0.0s serve[57] fd 4, serve[57] fd 5",
                "TIME_WAIT         0         0     - 127.0.0.1    8080 127.0.0.1   40010 4026531840    -     -      - -             - -",
                "ESTABLISHED       5         0     - 10.0.0.1    40000 192.0.2.1     443 4026531840 1000   900     31 keepalive 63.0s \\u{1b}[2J[60] fd 9",
            ]
        );
        let held = rows(&sockets, &holders, Some(57));
        assert_eq!(held.iter().map(|row| row.socket.inode).collect::<Vec<_>>(), [801, 802]);
        assert!(rows(&sockets, &holders, Some(1)).is_empty());
    }

    const SECOND: u64 = 1_000_000_000;

    fn queue(skbs: u32, cut: u32, stamp_ns: u64) -> SkbQueue {
        SkbQueue {
            skbs,
            cut,
            bytes: u64::from(skbs) * 10,
            truesize: u64::from(skbs) * 100,
            stamp_ns,
        }
    }

    /// The same, with queues: the first cannot read, the third cannot send.
    fn queueing(dwell: Option<Dwell>) -> Vec<Queues> {
        let flow = Flow {
            time_ns: 100 * SECOND,
            snd_wnd: 1,
            rcv_wnd: 1,
            ..Flow::zeroed()
        };
        let of = |socket: Socket| {
            let (flow, queued) = match socket.cookie {
                31 => (
                    Flow {
                        rcv_nxt: 5,
                        rcv_wup: 5,
                        rcv_wnd: 0,
                        chrono: chrono::SNDBUF_LIMITED,
                        ..flow
                    },
                    Queued {
                        receive: queue(2, 0, 1099 * SECOND),
                        out_of_order: queue(256, cut::UNCOUNTED, 0),
                        memory: Memory {
                            rmem_alloc: 4096,
                            rcvbuf: 8192,
                            drops: 7,
                            ..Memory::zeroed()
                        },
                        ..Queued::zeroed()
                    },
                ),
                30 => (
                    Flow {
                        snd_una: u32::MAX,
                        snd_nxt: 3,
                        write_seq: 123_456_788,
                        snd_wnd: 0,
                        chrono: chrono::RWND_LIMITED,
                        ..flow
                    },
                    Queued {
                        write: queue(1000, cut::COUNTED, 0),
                        retransmit: queue(1, 0, 99 * SECOND + SECOND / 2),
                        ..Queued::zeroed()
                    },
                ),
                29 => (flow, Queued::zeroed()),
                _ => (Flow::zeroed(), Queued::zeroed()),
            };
            Queues {
                record: Queueing { socket, flow, queued },
                wall_ahead: i128::from(1000 * SECOND),
                dwell,
            }
        };
        sockets().into_iter().map(of).collect()
    }

    fn dwell() -> Dwell {
        let wait = Wait {
            left: 9,
            mean_bytes: 5,
            mean_ns: Some(SECOND / 100),
            stalled_ns: None,
        };
        let stalled = Wait {
            left: 0,
            mean_ns: None,
            stalled_ns: Some(2 * SECOND),
            ..wait
        };
        Dwell {
            span_ns: SECOND,
            samples: 10,
            receive: wait,
            unsent: stalled,
            in_flight: Wait {
                stalled_ns: None,
                ..stalled
            },
            chrono_ms: [0, 1004, 0],
        }
    }

    #[test]
    fn queues_are_columns_with_what_is_the_matter() {
        let holders = holders();
        let now = queueing(None);
        assert_eq!(
            QueuesTable::new(false).lines(&rows(&now, &holders, None)),
            [
                "                                                 ------------- receive -------------- ------------------------ send ------------------------",
                "STATE        LADDR       LPORT RADDR       RPORT RECV-Q SKBS  OOO BACKLOG RMEM/RCVBUF    SEND-Q    UNSENT SKBS FLIGHT SKBS   AGE WMEM/SNDBUF HOLDERS; NOTES",
                "LISTEN       ::           8080 -               -      1    -    -       -           -       128         -    -      -    -     -           - serve[41] fd 3, serve[57] fd 3",
                "NEW_SYN_RECV 127.0.0.1    8080 127.0.0.1   40040      0    -    -       -           -         0         -    -      -    -     -           - -",
                "ESTABLISHED  2001:db8::1  8080 2001:db8::2 40030      0    0    0       0         0/0         0         0    0      0    0     -         0/0 (in the accept queue)",
                "ESTABLISHED  127.0.0.1    8080 127.0.0.1   40020      0    0    0       0         0/0 123456789 123456785 1000      4    1 500.0         0/0 serve[57] fd 4, serve[57] fd 5; the peer's window is closed: nobody reads there",
                "TIME_WAIT    127.0.0.1    8080 127.0.0.1   40010      0    -    -       -           -         0         -    -      -    -     -           - -",
                "ESTABLISHED  10.0.0.1    40000 192.0.2.1     443      5    2 256+       0   4096/8192         0         0    0      0    0     -         0/0 \\u{1b}[2J[60] fd 9; a segment is missing; its window is closed: nobody reads; held up by its send buffer; 7 dropped",
            ]
        );
        let then = queueing(Some(dwell()));
        let lines = QueuesTable::new(true).lines(&rows(&then, &holders, Some(60)));
        assert_eq!(
            lines[1..],
            [
                "STATE       LADDR    LPORT RADDR     RPORT RECV-Q   WAIT SKBS  OOO BACKLOG RMEM/RCVBUF SEND-Q UNSENT    WAIT SKBS FLIGHT WAIT SKBS AGE WMEM/SNDBUF HOLDERS; NOTES",
                "ESTABLISHED 10.0.0.1 40000 192.0.2.1   443      5 10.000    2 256+       0   4096/8192      0      0 >2000.0    0      0    -    0   -         0/0 \\u{1b}[2J[60] fd 9; a segment is missing; its window is closed: nobody reads; held up by its send buffer; waited 1000 of 1000 ms for the peer's window; 7 dropped",
            ]
        );
    }

    fn objects() -> Vec<Value> {
        objects_of(&sockets())
    }

    fn objects_of<T: Listed>(sockets: &[T]) -> Vec<Value> {
        let holders = holders();
        let line = Line {
            time_ns: 1,
            wall: "2023-11-14T22:13:21.000000007Z",
        };
        let mut out = Vec::new();
        for row in rows(sockets, &holders, None) {
            json(&row, line, &mut out).expect("JSON");
        }
        let text = String::from_utf8(out).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn json_has_what_is_known() {
        let objects = objects();
        let known = |index: usize, name: &str| objects[index][name].clone();
        assert_eq!(known(0, "state"), "LISTEN");
        for (name, value) in [
            ("v", 1),
            ("syn_queue", 1),
            ("syn_queue_limit", 128),
            ("accept_queue", 1),
            ("accept_queue_limit", 128),
            ("recv_q", 1),
            ("send_q", 128),
            ("uid", 33),
            ("inode", 801),
            ("cookie", 7),
        ] {
            assert_eq!(known(0, name), value, "{name}");
        }
        assert!(known(0, "raddr").is_null() && known(0, "rport").is_null());
        assert_eq!(
            known(0, "holders"),
            serde_json::json!([{"pid": 41, "comm": "serve", "fd": 3}, {"pid": 57, "comm": "serve", "fd": 3}])
        );
        assert_eq!((known(1, "listener"), known(1, "cookie")), (7.into(), 28.into()));
        assert!(known(1, "uid").is_null() && known(1, "inode").is_null() && known(1, "holders").is_null());
        assert_eq!(
            (known(2, "in_accept_queue"), known(2, "family")),
            (true.into(), 6.into())
        );
        assert_eq!(
            (known(3, "mapped"), known(3, "laddr")),
            (true.into(), "127.0.0.1".into())
        );
        assert!(known(4, "cookie").is_null());
        assert_eq!(known(5, "holders")[0]["comm"], "\\u{1b}[2J");
    }

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_written() {
        fn names<'a>(objects: impl Iterator<Item = &'a Value>) -> BTreeSet<&'a str> {
            let objects = objects.filter_map(Value::as_object);
            objects.flat_map(|object| object.keys().map(String::as_str)).collect()
        }
        fn documented(fields: &[FieldDoc]) -> BTreeSet<&str> {
            fields.iter().map(|(name, _)| *name).collect()
        }
        let objects = objects_of(&queueing(Some(dwell())));
        let mut whole = documented(FIELDS);
        whole.extend(["v", "event", "time_ns", "wall"]);
        assert_eq!(names(objects.iter()), whole);
        for (name, fields) in [("queues", QUEUES_FIELDS), ("dwell", DWELL_FIELDS)] {
            let objects = objects.iter().map(|line| &line[name]);
            assert_eq!(names(objects), documented(fields), "{name}");
        }
    }

    #[test]
    fn json_tells_of_queues_where_there_is_data() {
        let objects = objects_of(&queueing(None));
        for index in [0, 1, 4] {
            assert!(objects[index]["queues"].is_null(), "{}", objects[index]);
        }
        let (sender, receiver) = (&objects[3]["queues"], &objects[5]["queues"]);
        assert_eq!(
            (&sender["in_flight"], &sender["unsent"]),
            (&4.into(), &123_456_785.into()),
            "beyond the last number comes the first"
        );
        assert_eq!(sender["retransmit_queue"]["oldest_ns"], SECOND / 2);
        assert_eq!(
            (&sender["write_queue"]["at_least"], &sender["peer_window_closed"]),
            (&true.into(), &true.into())
        );
        assert_eq!(receiver["receive_queue"]["oldest_ns"], SECOND, "by the wall clock");
        assert!(receiver["out_of_order_queue"]["oldest_ns"].is_null());
        assert_eq!(
            (&receiver["window_closed"], &receiver["limited_by"]),
            (&true.into(), &"sndbuf".into())
        );
    }
}
