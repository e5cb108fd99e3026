//! The accept queue: into it, through it, and what finds it full.

use std::{net::TcpStream, os::fd::AsRawFd as _, time::Duration};

use socklife::scene::{
    peer::{self, Peer},
    queues::{begin, listener, set_backlog, sysctl},
};

use super::*;
use crate::harness::{Class, Namespace, PATIENCE, Tracer, helper::cookie, netstat::Netstat, until};

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
    let events = ended(tracer);
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
    let events = ended(tracer);
    let refused = events.of("syn_refused");
    assert_eq!(
        (refused.len() as u64, overflows),
        (overflows, drops),
        "{refused:#?}\n{}",
        events.stderr
    );
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

/// A final ACK that is refused, with data or without, is one line on every kernel: no drop beside it.
pub fn refused_ack_is_one_line(class: Class) {
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let kinds = format!("{KINDS},skb_dropped");
    let tracer = Tracer::start(class, &namespace, &["--event", &kinds]);
    let held = namespace.run(|| {
        let mut held = Vec::new();
        both(|ip| {
            let before = Netstat::now();
            let (listener, peers) = squeezed(ip, 3);
            peers[0].ack().unwrap();
            peers[1].ack().unwrap();
            peers[2].data(0, b"and data").unwrap();
            assert_eq!(Netstat::now().since(&before, "ListenDrops"), 2);
            held.push((listener, peers));
        });
        held
    });
    tracer.wait_for("accept_refused", 4);
    let events = ended(tracer);
    for (listener, peers) in &held {
        let server = listener.local_addr().unwrap().port();
        for peer in &peers[1..] {
            let told = |kind: &str| {
                let of_peer = events.of(kind).into_iter();
                of_peer
                    .filter(|event| port(event, "lport") == server && port(event, "rport") == peer.local.port())
                    .count()
            };
            assert_eq!(
                (told("accept_refused"), told("skb_dropped")),
                (1, 0),
                "{:#?}",
                events.all
            );
        }
    }
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
    let events = ended(tracer);
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
    let events = ended(tracer);
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
    let events = ended(tracer);
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
    let events = ended(tracer);
    let half_open = ns(events.one("accept_queued"), "half_open_ns");
    let wait = ns(events.one("accepted"), "accept_wait_ns");
    assert!(
        u128::from(half_open) >= DELAY.as_nanos() && half_open < whole,
        "{half_open} of {whole}"
    );
    assert!(wait < waited, "{wait} of {waited}");
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
    let events = ended(tracer);
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
