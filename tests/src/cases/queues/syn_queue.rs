//! The SYN queue: the ways out of it that are no handshake, and what does not get in.

use std::{
    io::Read as _,
    net::TcpStream,
    os::fd::{AsRawFd as _, FromRawFd as _},
};

use socklife::scene::{
    peer::Peer,
    queues::{listener, sysctl},
};

use super::*;
use crate::harness::{
    Class,
    helper::{cookie, sockaddr},
    netstat::Netstat,
    socklife,
};

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
    let events = ended(tracer);
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

/// While more than half of the SYN queue is old, entries go after two more SYN-ACKs, whatever the sysctl says: until it is half
/// full.
pub fn expired_early() {
    const COUNT: u16 = 13;
    const HALF: u16 = 8;
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let mut trace = socklife();
    trace.args(["trace", "-o", "json", "--netns", &namespace.inode.to_string()]);
    trace.args(["--event", "half_open_ended"]);
    let tracer = Tracer::spawn(trace);
    let listener = namespace.run(|| {
        sysctl("tcp_synack_retries", 5).unwrap();
        let listener = listener(V4, i32::from(2 * HALF)).unwrap();
        for number in 0..COUNT {
            Peer::half_open(listener.local_addr().unwrap(), number).unwrap();
        }
        listener
    });
    tracer.wait_for("half_open_ended", usize::from(COUNT - HALF));
    drop(listener);
    tracer.wait_for("half_open_ended", usize::from(COUNT));
    let events = tracer.stop();
    events.assert_whole();
    let ended = events.of("half_open_ended");
    let (early, late): (Vec<_>, Vec<_>) = ended.into_iter().partition(|event| event["cause"] == "expired");
    assert_eq!(
        (early.len(), late.len()),
        ((COUNT - HALF).into(), HALF.into()),
        "{:#?}",
        events.all
    );
    assert!(early.iter().all(|event| event["synacks"] == 3), "{early:#?}");
    assert!(
        late.iter().all(|event| event["cause"] == "listener_closed"),
        "{late:#?}"
    );
}

/// Connects from a port that a socket of before had.
fn connect_from(local: SocketAddr, server: SocketAddr) -> TcpStream {
    let (from, to) = (sockaddr(local), sockaddr(server));
    let yes: libc::c_int = 1;
    // SAFETY: plain socket calls with an option and addresses of the right sizes.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let socket = TcpStream::from_raw_fd(fd);
        let reuse = libc::SO_REUSEADDR;
        assert_eq!(
            libc::setsockopt(fd, libc::SOL_SOCKET, reuse, (&raw const yes).cast(), 4),
            0
        );
        assert_eq!(libc::bind(fd, (&raw const from).cast(), 16), 0);
        assert_eq!(libc::connect(fd, (&raw const to).cast(), 16), 0);
        socket
    }
}

/// A SYN whose four-tuple is in TIME_WAIT gets in where the SYN queue is full for everybody else.
pub fn time_wait_passes() {
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let mut trace = socklife();
    trace.args(["trace", "-o", "json", "--netns", &namespace.inode.to_string()]);
    trace.args(["--event", "syn_queued,syn_refused"]);
    let tracer = Tracer::spawn(trace);
    let (local, peers) = namespace.run(|| {
        sysctl("tcp_syncookies", 0).unwrap();
        let listener = listener(V4, 1).unwrap();
        let server = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(server).unwrap();
        let local = client.local_addr().unwrap();
        // This end closes first.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        let peers: Vec<_> = (0..3)
            .map(|number| {
                let peer = Peer::new(server, number).unwrap();
                peer.syn().unwrap();
                peer.local
            })
            .collect();
        let _again = connect_from(local, server);
        (local, peers)
    });
    tracer.wait_for("syn_queued", 3);
    let events = tracer.stop();
    events.assert_whole();
    let queued = events.of("syn_queued");
    let of_peers = queued
        .iter()
        .filter(|event| peers.iter().any(|peer| peer.port() == port(event, "rport")))
        .count();
    let refused = events.of("syn_refused");
    assert_eq!(of_peers + refused.len(), peers.len(), "{:#?}", events.all);
    assert!(!refused.is_empty(), "{:#?}", events.all);
    assert!(
        refused.iter().all(|event| event["cause"] == "syn_queue_full"),
        "{refused:#?}"
    );
    let again = queued.last().unwrap();
    assert_eq!(
        (
            port(again, "rport"),
            again["syn_queue"].as_u64(),
            &again["syn_queue_limit"]
        ),
        (local.port(), Some(of_peers as u64 + 1), &1.into()),
        "{again}"
    );
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
    let events = ended(tracer);
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
    let events = ended(tracer);
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
    let events = ended(tracer);
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
    let events = ended(tracer);
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

/// A half-open connection that is older than the trace outlives a SYN-ACK that is sent again, and ends when it is reset.
pub fn older(class: Class) {
    let namespace = Namespace::new();
    let (listener, peer) = namespace.run(|| {
        peer::prepare().unwrap();
        let listener = listener(V4, 8).unwrap();
        let peer = Peer::half_open(listener.local_addr().unwrap(), 1).unwrap();
        (listener, peer)
    });
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    tracer.wait_for("synack_retransmitted", 1);
    let local = peer.local;
    namespace.run(move || peer.reset().unwrap());
    tracer.wait_for("half_open_ended", 1);
    let events = ended(tracer);
    drop(listener);
    let story = story(&events, local);
    let (last, before) = story.split_last().unwrap();
    assert!(
        !before.is_empty() && before.iter().all(|event| event["event"] == "synack_retransmitted"),
        "{story:?}"
    );
    assert_eq!(
        (&last["event"], &last["cause"]),
        (&"half_open_ended".into(), &"reset".into())
    );
}
