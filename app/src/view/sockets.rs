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
        socket::{IN_ACCEPT_QUEUE, MAPPED, Socket},
    };

    use super::{FIELDS, json, lines, rows};
    use crate::{holders::Holder, model::Process, output::Line};

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
                ..socket(state::ESTABLISHED, "10.0.0.1:40000", "192.0.2.1:443")
            },
            socket(state::TIME_WAIT, "127.0.0.1:8080", "127.0.0.1:40010"),
            Socket {
                cookie: 30,
                inode: 802,
                uid: 33,
                send_q: 123_456_789,
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
                "STATE        RECV-Q    SEND-Q SYN-Q LADDR       LPORT RADDR       RPORT      NETNS  UID INODE COOKIE HOLDERS",
                "LISTEN            1       128 1/128 ::           8080 -               - 4026531840   33   801      7 serve[41] fd 3, serve[57] fd 3",
                "NEW_SYN_RECV      0         0     - 127.0.0.1    8080 127.0.0.1   40040 4026531840    -     -     28 -",
                "ESTABLISHED       0         0     - 2001:db8::1  8080 2001:db8::2 40030 4026531840    -     -     29 (in the accept queue)",
                "ESTABLISHED       0 123456789     - 127.0.0.1    8080 127.0.0.1   40020 4026531840   33   802     30 serve[57] fd 4, serve[57] fd 5",
                "TIME_WAIT         0         0     - 127.0.0.1    8080 127.0.0.1   40010 4026531840    -     -      - -",
                "ESTABLISHED       5         0     - 10.0.0.1    40000 192.0.2.1     443 4026531840 1000   900     31 \\u{1b}[2J[60] fd 9",
            ]
        );
        let held = rows(&sockets, &holders, Some(57));
        assert_eq!(held.iter().map(|row| row.socket.inode).collect::<Vec<_>>(), [801, 802]);
        assert!(rows(&sockets, &holders, Some(1)).is_empty());
    }

    fn objects() -> Vec<Value> {
        let (sockets, holders) = (sockets(), holders());
        let line = Line {
            time_ns: 1,
            wall: "2023-11-14T22:13:21.000000007Z",
        };
        let mut out = Vec::new();
        for row in rows(&sockets, &holders, None) {
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
        let objects = objects();
        let written: BTreeSet<_> = objects
            .iter()
            .flat_map(|line| line.as_object().expect("an object").keys().map(String::as_str))
            .collect();
        let documented: BTreeSet<_> = FIELDS
            .iter()
            .map(|(name, _)| *name)
            .chain(["v", "event", "time_ns", "wall"])
            .collect();
        assert_eq!(written, documented);
    }
}
