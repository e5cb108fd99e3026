//! A listener's two queues: what goes in, what comes out, what is refused, and why; against the kernel's own counters.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    time::Duration,
};

use serde_json::Value;
use socklife::scene::{
    peer::{self, Peer},
    queues::{begin, listener, set_backlog, sysctl},
};

use crate::harness::{Class, Events, Namespace, PATIENCE, Tracer, helper::cookie, netstat::Netstat, until};

const KINDS: &str = "syn_queued,synack_sent,synack_retransmitted,cookie_sent,cookie_accepted,cookie_rejected,\
                     syn_refused,half_open_ended,accept_queued,accept_refused,accepted,never_accepted,connect_failed";

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A namespace whose peers are routed, and a tracer of it.
fn start(class: Class) -> (Namespace, Tracer) {
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    (namespace, tracer)
}

/// Both protocols.
fn both(mut act: impl FnMut(IpAddr)) {
    act(V4);
    act(V6);
}

fn port(event: &Value, name: &str) -> u16 {
    u16::try_from(event[name].as_u64().unwrap()).unwrap()
}

/// The kinds of the events of one connection, in order of time; accept(2) on another CPU may be first.
fn story(events: &Events, client: SocketAddr) -> Vec<&Value> {
    let mut story: Vec<_> = events
        .all
        .iter()
        .filter(|event| event["rport"] == client.port() && event["raddr"] == client.ip().to_string())
        .collect();
    story.sort_by_key(|event| event["time_ns"].as_u64());
    story
}

fn kinds<'a>(story: &[&'a Value]) -> Vec<&'a str> {
    story.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// A figure that must be there.
fn ns(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_else(|| panic!("no {name}: {event}"))
}

/// Ordinary connections: through both queues, each step once, with one cookie and the listener's.
pub fn handshake(class: Class) {
    const COUNT: usize = 7;
    let (namespace, tracer) = start(class);
    let connections = namespace.run(|| {
        let mut connections = Vec::new();
        both(|ip| {
            let listener = listener(ip, 3).unwrap();
            for _ in 0..COUNT {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, from) = listener.accept().unwrap();
                connections.push((from, cookie(server.as_raw_fd()), cookie(listener.as_raw_fd())));
                drop(client);
            }
        });
        connections
    });
    tracer.wait_for("accepted", 2 * COUNT);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert_eq!(events.all.len(), 4 * 2 * COUNT, "{:#?}", events.all);
    for (client, child, listener) in connections {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "accept_queued", "accepted"]
        );
        for event in &story {
            assert_eq!(
                (&event["cookie"], &event["listener"]),
                (&child.into(), &listener.into()),
                "{event}"
            );
            assert_eq!(event["accept_queue_limit"], 3, "{event}");
            assert_eq!(event["syn_queue_limit"], 3, "{event}");
            assert_eq!(event["family"], if client.is_ipv4() { 4 } else { 6 }, "{event}");
        }
        let depth = |at: usize| (story[at]["syn_queue"].as_u64(), story[at]["accept_queue"].as_u64());
        assert_eq!(depth(0), (Some(1), Some(0)));
        assert_eq!(depth(2), (Some(0), Some(1)));
        assert_eq!(depth(3), (Some(0), Some(0)));
        assert!(story[..3].iter().all(|event| event["pid"].is_null()), "{story:#?}");
        assert_eq!(story[3]["pid"], std::process::id());
        assert!(ns(story[2], "half_open_ns") > 0);
        assert!(ns(story[3], "accept_wait_ns") > 0);
    }
}

/// No final ACK: the SYN-ACK goes out twice, and then time is up.
pub fn expired(class: Class) {
    const COUNT: u16 = 5;
    let (namespace, tracer) = start(class);
    let peers = namespace.run(|| {
        sysctl("tcp_synack_retries", 1).unwrap();
        let mut peers = Vec::new();
        let mut listeners = Vec::new();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            for number in 0..COUNT {
                let peer = Peer::half_open(listener.local_addr().unwrap(), number).unwrap();
                peers.push(peer.local);
            }
            listeners.push(listener);
        });
        (peers, listeners)
    });
    tracer.wait_for("half_open_ended", 2 * usize::from(COUNT));
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert_eq!(events.all.len(), 4 * 2 * usize::from(COUNT), "{:#?}", events.all);
    for peer in peers.0 {
        let story = story(&events, peer);
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "synack_retransmitted", "half_open_ended"]
        );
        assert_eq!(story[2]["retransmit"], 1);
        assert_eq!(
            (&story[3]["cause"], &story[3]["synacks"]),
            (&"expired".into(), &2.into())
        );
        assert!(
            story
                .iter()
                .all(|event| event["cookie"] == story[0]["cookie"] && event["cookie"].is_u64())
        );
        // One second, and then two, as the kernel's timers have it; never less.
        assert!(ns(story[2], "half_open_ns") > 900_000_000, "{}", story[2]);
        assert!(ns(story[3], "half_open_ns") > 2_800_000_000, "{}", story[3]);
    }
}

/// The peer resets while half-open.
pub fn reset(class: Class) {
    const COUNT: u16 = 7;
    let (namespace, tracer) = start(class);
    let (peers, embryonic, failed) = namespace.run(|| {
        let before = Netstat::now();
        let mut peers = Vec::new();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            for number in 0..COUNT {
                let peer = Peer::half_open(listener.local_addr().unwrap(), number).unwrap();
                peer.reset().unwrap();
                peers.push(peer.local);
            }
        });
        let after = Netstat::now();
        (
            peers,
            after.since(&before, "EmbryonicRsts"),
            after.since(&before, "AttemptFails"),
        )
    });
    tracer.wait_for("half_open_ended", 2 * usize::from(COUNT));
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    let count = 2 * u64::from(COUNT);
    assert_eq!((embryonic, failed), (count, count), "the kernel's own counts");
    assert_eq!(events.all.len(), 3 * 2 * usize::from(COUNT), "{:#?}", events.all);
    for peer in peers {
        let story = story(&events, peer);
        assert_eq!(kinds(&story), ["syn_queued", "synack_sent", "half_open_ended"]);
        assert_eq!((&story[2]["cause"], &story[2]["synacks"]), (&"reset".into(), &1.into()));
        assert_eq!(story[2]["syn_queue"], 0, "{}", story[2]);
    }
}

/// A router says that the peer cannot be reached.
pub fn cancelled(class: Class) {
    const COUNT: u16 = 3;
    let (namespace, tracer) = start(class);
    let (peers, _listener) = namespace.run(|| {
        let listener = listener(V4, 64).unwrap();
        let peers: Vec<_> = (0..COUNT)
            .map(|number| {
                let peer = Peer::half_open(listener.local_addr().unwrap(), number).unwrap();
                peer.unreachable().unwrap();
                // A request that is gone lets the same peer begin again.
                peer.syn().unwrap();
                peer.reset().unwrap();
                peer.local
            })
            .collect();
        (peers, listener)
    });
    // Without functions to hook nobody sees it, and the second SYN takes the place of the first.
    let seen = if class == Class::Tracepoint { 1 } else { 2 };
    tracer.wait_for("half_open_ended", seen * usize::from(COUNT));
    let events = tracer.stop();
    events.assert_whole();
    for peer in peers {
        let story = story(&events, peer);
        let causes: Vec<_> = story.iter().filter_map(|event| event["cause"].as_str()).collect();
        if class == Class::Tracepoint {
            assert_eq!(causes, ["reset"]);
        } else {
            assert_eq!(causes, ["cancelled", "reset"]);
        }
        assert_eq!(kinds(&story).iter().filter(|kind| **kind == "syn_queued").count(), 2);
    }
}

/// The listener is closed over half-open connections and over children that wait.
pub fn listener_closed(class: Class) {
    let (namespace, tracer) = start(class);
    let (half_open, waiting, listener) = namespace.run(|| {
        let listener = listener(V4, 64).unwrap();
        let (server, number) = (listener.local_addr().unwrap(), cookie(listener.as_raw_fd()));
        let waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(server).unwrap()).collect();
        let half_open: Vec<_> = (0..3).map(|number| Peer::half_open(server, number).unwrap()).collect();
        drop(listener);
        // Two find out by their next segment, the third by its timer.
        half_open[0].ack().unwrap();
        half_open[1].ack().unwrap();
        let locals = |socket: &TcpStream| socket.local_addr().unwrap();
        (
            half_open.iter().map(|peer| peer.local).collect::<Vec<_>>(),
            waiting.iter().map(locals).collect::<Vec<_>>(),
            number,
        )
    });
    tracer.wait_for("half_open_ended", 3);
    tracer.wait_for("never_accepted", 5);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for peer in half_open {
        let story = story(&events, peer);
        let ends: Vec<_> = story
            .iter()
            .filter(|event| event["event"] == "half_open_ended")
            .collect();
        assert_eq!(ends.len(), 1, "{story:#?}");
        assert_eq!(ends[0]["cause"], "listener_closed", "{}", ends[0]);
        assert_eq!(ends[0]["listener"], listener, "{}", ends[0]);
    }
    for client in waiting {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "accept_queued", "never_accepted"]
        );
        assert_eq!(story[3]["pid"], std::process::id(), "{}", story[3]);
        assert_eq!(story[3]["listener"], listener, "{}", story[3]);
        assert!(ns(story[3], "accept_wait_ns") > 0);
    }
    assert_eq!(
        events.of("half_open_ended").len() + events.of("never_accepted").len(),
        8
    );
}

/// Backlog 1 holds two; what then comes is refused, as often as it comes.
pub fn six_connects(class: Class) {
    let (namespace, tracer) = start(class);
    let (ports, overflows, drops, number) = namespace.run(|| {
        let listener = listener(V4, 1).unwrap();
        let server = listener.local_addr().unwrap();
        let before = Netstat::now();
        let clients: Vec<_> = (0..6).map(|_| begin(server).unwrap()).collect();
        // What is refused is sent again after a second: once more each.
        let again = || Netstat::now().since(&before, "ListenOverflows") >= 8;
        assert!(until(PATIENCE, again), "no SYN was sent again");
        let ports: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        drop(clients);
        let after = Netstat::now();
        (
            ports,
            after.since(&before, "ListenOverflows"),
            after.since(&before, "ListenDrops"),
            cookie(listener.as_raw_fd()),
        )
    });
    tracer.wait_for("syn_refused", usize::try_from(overflows).unwrap());
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    let refused = events.of("syn_refused");
    assert_eq!((refused.len() as u64, overflows), (overflows, drops), "{refused:#?}");
    for event in refused {
        assert_eq!(event["cause"], "accept_queue_full", "{event}");
        assert_eq!(event["listener"], number, "{event}");
        assert_eq!(
            (&event["accept_queue"], &event["accept_queue_limit"]),
            (&2.into(), &1.into()),
            "{event}"
        );
        assert!(
            ports[2..].iter().any(|client| client.port() == port(event, "rport")),
            "{event}"
        );
        assert!(event["cookie"].is_null() && event["pid"].is_null(), "{event}");
    }
    assert_eq!(events.of("accept_queued").len(), 2);
}

/// Half-open peers of a listener whose backlog is then made so small that its accept queue holds one.
fn squeezed(ip: IpAddr, count: u16) -> (TcpListener, Vec<Peer>) {
    let listener = listener(ip, 64).unwrap();
    let peers = (0..count)
        .map(|number| Peer::half_open(listener.local_addr().unwrap(), number).unwrap())
        .collect();
    set_backlog(&listener, 0).unwrap();
    (listener, peers)
}

/// The final ACK meets a full accept queue and is ignored: told once, counted each time.
pub fn overflow_ignored(class: Class) {
    let (namespace, tracer) = start(class);
    let stories = namespace.run(|| {
        let mut stories = Vec::new();
        both(|ip| {
            let before = Netstat::now();
            let (listener, peers) = squeezed(ip, 3);
            peers[0].ack().unwrap();
            peers[1].ack().unwrap();
            peers[2].ack().unwrap();
            peers[2].ack().unwrap();
            peers[2].ack().unwrap();
            peers[1].reset().unwrap();
            set_backlog(&listener, 64).unwrap();
            peers[2].ack().unwrap();
            let after = Netstat::now();
            assert_eq!(after.since(&before, "ListenOverflows"), 4);
            assert_eq!(after.since(&before, "ListenDrops"), 4);
            assert_eq!(after.since(&before, "EmbryonicRsts"), 1);
            stories.push(peers.iter().map(|peer| peer.local).collect::<Vec<_>>());
        });
        stories
    });
    tracer.wait_for("never_accepted", 4);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for peers in stories {
        let begins = ["syn_queued", "synack_sent"];
        // A slow machine may send a SYN-ACK again meanwhile.
        let told = |peer| {
            let mut story = story(&events, peer);
            story.retain(|event| event["event"] != "synack_retransmitted");
            story
        };
        let first = told(peers[0]);
        assert_eq!(
            kinds(&first),
            [&begins[..], &["accept_queued", "never_accepted"]].concat()
        );
        let second = told(peers[1]);
        assert_eq!(
            kinds(&second),
            [&begins[..], &["accept_refused", "half_open_ended"]].concat()
        );
        assert_eq!(second[2]["answer"], "ignored");
        assert_eq!(
            (&second[2]["accept_queue"], &second[2]["accept_queue_limit"]),
            (&1.into(), &0.into())
        );
        assert_eq!(
            (&second[3]["cause"], &second[3]["refusals"]),
            (&"reset".into(), &1.into())
        );
        let third = told(peers[2]);
        assert_eq!(
            kinds(&third),
            [&begins[..], &["accept_refused", "accept_queued", "never_accepted"]].concat()
        );
        assert_eq!(third[3]["refusals"], 3, "{}", third[3]);
    }
    assert_eq!(events.of("accept_refused").len(), 4);
}

/// With `tcp_abort_on_overflow` the kernel resets.
pub fn overflow_reset(class: Class) {
    let (namespace, tracer) = start(class);
    let stories = namespace.run(|| {
        sysctl("tcp_abort_on_overflow", 1).unwrap();
        let mut stories = Vec::new();
        both(|ip| {
            let before = Netstat::now();
            let (_listener, peers) = squeezed(ip, 2);
            peers[0].ack().unwrap();
            peers[1].ack().unwrap();
            let after = Netstat::now();
            assert_eq!(after.since(&before, "ListenOverflows"), 1);
            assert_eq!(after.since(&before, "EmbryonicRsts"), 1);
            assert_eq!(after.since(&before, "AttemptFails"), 0);
            stories.push(peers[1].local);
        });
        stories
    });
    tracer.wait_for("half_open_ended", 2);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for peer in stories {
        let mut story = story(&events, peer);
        story.retain(|event| event["event"] != "synack_retransmitted");
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "accept_refused", "half_open_ended"]
        );
        assert_eq!(story[2]["answer"], "reset");
        assert_eq!(
            (&story[3]["cause"], &story[3]["refusals"]),
            (&"accept_queue_full".into(), &1.into())
        );
    }
}

/// The SYN queue is full, and there are no cookies.
pub fn syn_queue_full(class: Class) {
    let (namespace, tracer) = start(class);
    let (drops, full) = namespace.run(|| {
        sysctl("tcp_syncookies", 0).unwrap();
        let before = Netstat::now();
        both(|ip| {
            let listener = listener(ip, 2).unwrap();
            let server = listener.local_addr().unwrap();
            for number in 0..11 {
                Peer::new(server, number).unwrap().syn().unwrap();
            }
        });
        let after = Netstat::now();
        (
            after.since(&before, "ListenDrops"),
            after.since(&before, "TCPReqQFullDrop"),
        )
    });
    tracer.wait_for("syn_refused", usize::try_from(full).unwrap());
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert!(full > 0 && full == drops, "{full} of {drops}");
    let refused = events.of("syn_refused");
    assert_eq!(refused.len() as u64, full);
    assert_eq!(events.of("syn_queued").len() as u64, 22 - full);
    for event in refused {
        assert_eq!(event["cause"], "syn_queue_full", "{event}");
        // 2, or 3 where full means more than the limit.
        assert_eq!(event["syn_queue"], (22 - full) / 2, "{event}");
        assert_eq!(event["syn_queue_limit"], 2, "{event}");
    }
}

/// Without cookies the last quarter of `tcp_max_syn_backlog` is for peers that are known to be alive.
pub fn max_syn_backlog(class: Class) {
    let (namespace, tracer) = start(class);
    let (drops, full) = namespace.run(|| {
        sysctl("tcp_syncookies", 0).unwrap();
        sysctl("tcp_max_syn_backlog", 8).unwrap();
        let listener = listener(V4, 100).unwrap();
        let before = Netstat::now();
        for number in 0..13 {
            Peer::new(listener.local_addr().unwrap(), number)
                .unwrap()
                .syn()
                .unwrap();
        }
        let after = Netstat::now();
        (
            after.since(&before, "ListenDrops"),
            after.since(&before, "TCPReqQFullDrop"),
        )
    });
    tracer.wait_for("syn_refused", 6);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert_eq!((drops, full), (6, 0), "the kernel's own counts");
    assert_eq!(events.of("syn_queued").len(), 7);
    assert_eq!(events.of("syn_refused").len(), 6);
    for event in events.of("syn_refused") {
        assert_eq!(event["cause"], "max_syn_backlog", "{event}");
        assert_eq!(
            (&event["syn_queue"], &event["syn_queue_limit"]),
            (&7.into(), &6.into()),
            "{event}"
        );
    }
}

/// The SYN queue is full, and cookies take its place.
pub fn syn_queue_full_cookies(class: Class) {
    let (namespace, tracer) = start(class);
    let (sent, mode, drops) = namespace.run(|| {
        sysctl("tcp_syncookies", 1).unwrap();
        let before = Netstat::now();
        both(|ip| {
            let listener = listener(ip, 2).unwrap();
            for number in 0..11 {
                Peer::new(listener.local_addr().unwrap(), number)
                    .unwrap()
                    .syn()
                    .unwrap();
            }
        });
        let after = Netstat::now();
        (
            after.since(&before, "SyncookiesSent"),
            after.since(&before, "TCPReqQFullDoCookies"),
            after.since(&before, "ListenDrops"),
        )
    });
    tracer.wait_for("cookie_sent", usize::try_from(sent).unwrap());
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert!(sent > 0 && sent == mode && drops == 0, "{sent}, {mode}, {drops}");
    assert_eq!(events.of("cookie_sent").len() as u64, sent);
    assert_eq!(events.of("syn_queued").len() as u64, 22 - sent);
    assert_eq!(events.of("synack_sent").len() as u64, 22 - sent);
    assert_eq!(events.of("syn_refused").len(), 0);
}

/// Always cookies: no connection stands in the SYN queue.
pub fn cookies(class: Class) {
    const COUNT: usize = 5;
    let (namespace, tracer) = start(class);
    let clients = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        let mut clients = Vec::new();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            for _ in 0..COUNT {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, from) = listener.accept().unwrap();
                clients.push((from, cookie(server.as_raw_fd()), cookie(listener.as_raw_fd())));
                drop(client);
            }
        });
        let after = Netstat::now();
        let count = 2 * COUNT as u64;
        assert_eq!(after.since(&before, "SyncookiesSent"), count);
        assert_eq!(after.since(&before, "SyncookiesRecv"), count);
        clients
    });
    tracer.wait_for("accepted", 2 * COUNT);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert_eq!(events.all.len(), 4 * 2 * COUNT, "{:#?}", events.all);
    for (client, child, listener) in clients {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["cookie_sent", "cookie_accepted", "accept_queued", "accepted"]
        );
        assert!(story.iter().all(|event| event["listener"] == listener), "{story:#?}");
        assert!(story[0]["cookie"].is_null(), "nothing was queued: {}", story[0]);
        for event in &story[1..] {
            assert_eq!(event["cookie"], child, "{event}");
        }
        assert_eq!(story[2]["by"], "cookie");
        assert!(story[2]["half_open_ns"].is_null(), "{}", story[2]);
        assert!(ns(story[3], "accept_wait_ns") > 0);
    }
}

/// Whether this kernel, with this class of hooks, shows an ACK whose SYN cookie is not valid.
fn sees_cookie_acks(class: Class) -> bool {
    // The tracepoint at dropped segments names the receiver from 6.12 on.
    class != Class::Tracepoint || {
        let names = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        names.windows(7).any(|name| name == b"\0rx_sk\0")
    }
}

/// ACKs that claim to bring back a cookie.
pub fn forged_cookie(class: Class) {
    const COUNT: u16 = 3;
    let (namespace, tracer) = start(class);
    let failed = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            let server = listener.local_addr().unwrap();
            Peer::new(server, 98).unwrap().syn().unwrap();
            for number in 0..COUNT {
                Peer::new(server, number).unwrap().forged_ack().unwrap();
            }
        });
        Netstat::now().since(&before, "SyncookiesFailed")
    });
    let seen = if sees_cookie_acks(class) {
        usize::try_from(failed).unwrap()
    } else {
        0
    };
    tracer.wait_for("cookie_rejected", seen);
    tracer.wait_for("cookie_sent", 2);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(failed, 2 * u64::from(COUNT), "the kernel's own count");
    if sees_cookie_acks(class) {
        events.assert_reconciled();
    } else {
        // A difference is said, with both numbers.
        let difference = "SyncookiesFailed 0 counted, the kernel says 6";
        assert!(events.stderr.contains(difference), "{}", events.stderr);
    }
    assert_eq!(events.of("cookie_rejected").len(), seen);
    assert_eq!(events.all.len(), 2 + seen, "{:#?}", events.all);
    for event in events.of("cookie_rejected") {
        assert!((20_000..20_000 + COUNT).contains(&port(event, "rport")), "{event}");
        assert!(event["listener"].is_u64(), "{event}");
    }
}

/// A valid cookie meets a full accept queue.
pub fn cookie_overflow(class: Class) {
    let (namespace, tracer) = start(class);
    let (peers, _listener) = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        let (listener, peers) = squeezed(V4, 2);
        peers[0].ack().unwrap();
        peers[1].ack().unwrap();
        let after = Netstat::now();
        assert_eq!(after.since(&before, "SyncookiesSent"), 2);
        assert_eq!(after.since(&before, "SyncookiesRecv"), 2);
        assert_eq!(after.since(&before, "ListenOverflows"), 1);
        (peers.iter().map(|peer| peer.local).collect::<Vec<_>>(), listener)
    });
    let seen = usize::from(sees_cookie_acks(class));
    tracer.wait_for("accept_refused", seen);
    tracer.wait_for("accept_queued", 1);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(
        kinds(&story(&events, peers[0])),
        ["cookie_sent", "cookie_accepted", "accept_queued"]
    );
    let second = story(&events, peers[1]);
    assert_eq!(kinds(&second), ["cookie_sent", "accept_refused"][..=seen].to_vec());
    if seen == 1 {
        assert_eq!(
            (&second[1]["answer"], &second[1]["by"]),
            (&"ignored".into(), &"cookie".into())
        );
    }
}

fn boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a valid place for its time.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// An acceptor that sleeps: the accept queue shows it, the SYN queue does not. Each wait lies within what the test
/// itself saw go by.
pub fn slow_acceptor(class: Class) {
    const SLEEP: Duration = Duration::from_millis(250);
    let (namespace, tracer) = start(class);
    let (handshake, whole) = namespace.run(|| {
        let listener = listener(V4, 8).unwrap();
        let begun = boot_ns();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer::settle().unwrap();
        let connected = boot_ns();
        std::thread::sleep(SLEEP);
        let _server = listener.accept().unwrap();
        (connected - begun, boot_ns() - begun)
    });
    tracer.wait_for("accepted", 1);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    let half_open = ns(events.one("accept_queued"), "half_open_ns");
    let wait = ns(events.one("accepted"), "accept_wait_ns");
    assert!(half_open < handshake, "{half_open} of {handshake}");
    assert!(
        u128::from(wait) >= SLEEP.as_nanos() && half_open + wait < whole,
        "{half_open} + {wait} of {whole}"
    );
}

/// A path that takes its time: the SYN queue shows it, the accept queue does not.
pub fn slow_path(class: Class) {
    const DELAY: Duration = Duration::from_millis(40);
    let (namespace, tracer) = start(class);
    let (waited, whole) = namespace.run(|| {
        let listener = listener(V4, 8).unwrap();
        let begun = boot_ns();
        let peer = Peer::half_open(listener.local_addr().unwrap(), 1).unwrap();
        std::thread::sleep(DELAY);
        let acked = boot_ns();
        peer.ack().unwrap();
        let _server = listener.accept().unwrap();
        (boot_ns() - acked, boot_ns() - begun)
    });
    tracer.wait_for("accepted", 1);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    let half_open = ns(events.one("accept_queued"), "half_open_ns");
    let wait = ns(events.one("accepted"), "accept_wait_ns");
    assert!(
        u128::from(half_open) >= DELAY.as_nanos() && half_open < whole,
        "{half_open} of {whole}"
    );
    assert!(wait < waited, "{wait} of {waited}");
}

/// TCP Fast Open: the child is queued at the SYN, once, and was never half-open.
pub fn fastopen(class: Class) {
    const COUNT: usize = 3;
    let (namespace, tracer) = start(class);
    let clients = namespace.run(|| {
        // Client and server, no cookie asked, every listener.
        sysctl("tcp_fastopen", 0x607).unwrap();
        let listener = listener(V4, 8).unwrap();
        let SocketAddr::V4(server) = listener.local_addr().unwrap() else {
            panic!("IPv4")
        };
        let to = crate::harness::helper::sockaddr(SocketAddr::V4(server));
        (0..COUNT)
            .map(|_| {
                // SAFETY: a new socket, owned by a stream, and an address and data of the sizes that are named.
                let client = unsafe {
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
                    let sent = libc::sendto(
                        fd,
                        b"hello".as_ptr().cast(),
                        5,
                        libc::MSG_FASTOPEN,
                        (&raw const to).cast(),
                        16,
                    );
                    assert_eq!(sent, 5, "{}", std::io::Error::last_os_error());
                    TcpStream::from_raw_fd(fd)
                };
                let (_server, from) = listener.accept().unwrap();
                drop(client);
                from
            })
            .collect::<Vec<_>>()
    });
    tracer.wait_for("accepted", COUNT);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for client in clients {
        let mut story = story(&events, client);
        // The callback that shows the SYN-ACK comes in front of the queue, or behind it.
        story.sort_by_key(|event| match event["event"].as_str().unwrap() {
            "synack_sent" => 0,
            "accept_queued" => 1,
            _ => 2,
        });
        assert_eq!(kinds(&story), ["synack_sent", "accept_queued", "accepted"]);
        assert_eq!(story[1]["by"], "fastopen");
        assert_eq!(story[1]["accept_queue"], 1, "{}", story[1]);
        assert!(story[1]["half_open_ns"].is_null(), "{}", story[1]);
        assert!(story[1]["listener"].is_u64() && story[1]["listener"] == story[2]["listener"]);
    }
    assert_eq!(events.all.len(), 3 * COUNT, "{:#?}", events.all);
}

/// `TCP_DEFER_ACCEPT`: the bare final ACK is dropped, which is no refusal.
pub fn defer_accept(class: Class) {
    const COUNT: usize = 3;
    let (namespace, tracer) = start(class);
    let clients = namespace.run(|| {
        let listener = listener(V4, 8).unwrap();
        let seconds: i32 = 30;
        // SAFETY: an option of that type.
        let done = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(done, 0);
        (0..COUNT)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.write_all(b"hello").unwrap();
                listener.accept().unwrap().1
            })
            .collect::<Vec<_>>()
    });
    tracer.wait_for("accepted", COUNT);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for client in clients {
        assert_eq!(
            kinds(&story(&events, client)),
            ["syn_queued", "synack_sent", "accept_queued", "accepted"]
        );
    }
    assert_eq!(events.all.len(), 4 * COUNT, "{:#?}", events.all);
}

/// IPv4 peers of an IPv6 listener: IPv4 on the wire, and said so from the SYN on.
pub fn mapped(class: Class) {
    let (namespace, tracer) = start(class);
    let peers = namespace.run(|| {
        let listener = listener(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 64).unwrap();
        let server = SocketAddr::new(V4, listener.local_addr().unwrap().port());
        let peers: Vec<_> = (0..3).map(|number| Peer::half_open(server, number).unwrap()).collect();
        set_backlog(&listener, 0).unwrap();
        peers[0].ack().unwrap();
        peers[1].ack().unwrap();
        Peer::new(server, 7).unwrap().syn().unwrap();
        peers[2].reset().unwrap();
        peers.iter().map(|peer| peer.local).collect::<Vec<_>>()
    });
    tracer.wait_for("never_accepted", 1);
    tracer.wait_for("half_open_ended", 1);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    for event in &events.all {
        assert_eq!(
            (&event["family"], &event["mapped"]),
            (&4.into(), &true.into()),
            "{event}"
        );
        assert_eq!(event["laddr"], "127.0.0.1", "{event}");
    }
    let ends = ["never_accepted", "accept_refused", "half_open_ended"];
    for (peer, end) in peers.iter().zip(ends) {
        assert!(kinds(&story(&events, *peer)).contains(&end), "{end}: {:#?}", events.all);
    }
    assert_eq!(events.one("syn_refused")["cause"], "accept_queue_full");
}

/// Several listeners on one address: each event names the one that it is of.
pub fn reuseport(class: Class) {
    const COUNT: usize = 23;
    let (namespace, tracer) = start(class);
    let accepted = namespace.run(|| {
        let group: Vec<_> = (0..3).map(|_| group_member()).collect();
        assert!(
            group
                .iter()
                .all(|listener| listener.local_addr().unwrap().port() == GROUP_PORT)
        );
        let mut accepted = Vec::new();
        for _ in 0..COUNT {
            let client = TcpStream::connect((V4, GROUP_PORT)).unwrap();
            let taken = || {
                group.iter().find_map(|listener| {
                    let (server, from) = listener.accept().ok()?;
                    Some((from, cookie(server.as_raw_fd()), cookie(listener.as_raw_fd())))
                })
            };
            let mut found = None;
            assert!(until(PATIENCE, || {
                found = taken();
                found.is_some()
            }));
            accepted.push(found.unwrap());
            drop(client);
        }
        accepted
    });
    tracer.wait_for("accepted", COUNT);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    assert_eq!(events.all.len(), 4 * COUNT);
    for (client, child, listener) in accepted {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "accept_queued", "accepted"]
        );
        for event in story {
            assert_eq!(
                (&event["cookie"], &event["listener"]),
                (&child.into(), &listener.into()),
                "{event}"
            );
        }
    }
}

const GROUP_PORT: u16 = 7007;

/// A listener on the group's port that does not block.
fn group_member() -> TcpListener {
    let to = crate::harness::helper::sockaddr(SocketAddr::new(V4, GROUP_PORT));
    let on: i32 = 1;
    // SAFETY: a new socket, owned by a listener, and an address and an option of the sizes that are named.
    unsafe {
        let fd = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        );
        let set = libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, (&raw const on).cast(), 4);
        let bound = libc::bind(fd, (&raw const to).cast(), 16);
        let listens = libc::listen(fd, 64);
        assert_eq!((set, bound, listens), (0, 0, 0), "{}", std::io::Error::last_os_error());
        TcpListener::from_raw_fd(fd)
    }
}

/// What is there when the trace begins: a listener, a half-open connection, and a child that waits.
pub fn before(class: Class) {
    let namespace = Namespace::new();
    let (listener, peers, _client) = namespace.run(|| {
        peer::prepare().unwrap();
        let listener = listener(V4, 8).unwrap();
        let server = listener.local_addr().unwrap();
        let peers: Vec<_> = (0..2).map(|number| Peer::half_open(server, number).unwrap()).collect();
        let client = TcpStream::connect(server).unwrap();
        (listener, peers, client)
    });
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    let locals: Vec<_> = peers.iter().map(|peer| peer.local).collect();
    namespace.run(move || {
        peers[0].reset().unwrap();
        peers[1].ack().unwrap();
        let (_server, _) = listener.accept().unwrap();
        drop(listener);
    });
    tracer.wait_for("never_accepted", 1);
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    let first = story(&events, locals[0]);
    assert_eq!(kinds(&first).last(), Some(&"half_open_ended"));
    let ended = first.last().unwrap();
    assert_eq!(ended["cause"], "reset", "{ended}");
    assert!(ns(ended, "half_open_ns") > 0, "the kernel's stamp tells: {ended}");
    assert_eq!(
        (&ended["syn_queue"], &ended["accept_queue"]),
        (&1.into(), &1.into()),
        "{ended}"
    );
    let accepted = events.one("accepted");
    assert!(accepted["accept_wait_ns"].is_null(), "nobody saw it come: {accepted}");
    assert_eq!(
        (&accepted["syn_queue"], &accepted["accept_queue"]),
        (&0.into(), &1.into()),
        "{accepted}"
    );
    let second = story(&events, locals[1]);
    assert_eq!(
        kinds(&second)[kinds(&second).len() - 2..],
        ["accept_queued", "never_accepted"]
    );
    let queued = second[second.len() - 2];
    assert_eq!(queued["accept_queue"], 2, "{queued}");
    assert!(ns(queued, "half_open_ns") > 0, "{queued}");
}
