//! Whole connections, counted.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, Tracer, emulated,
    helper::{Server, Witness, client},
    reset,
};

/// A prime number of connections: 505 over IPv4 and 504 over IPv6.
const V4: usize = 505;
const V6: usize = 504;

const LIFE: &str = "connect,connected,established,accepted,closed";

fn address(event: &Value, addr: &str, port: &str) -> SocketAddr {
    let ip = event[addr].as_str().unwrap().parse().unwrap();
    SocketAddr::new(ip, u16::try_from(event[port].as_u64().unwrap()).unwrap())
}

/// (local, remote)
fn tuple(event: &Value) -> (SocketAddr, SocketAddr) {
    (address(event, "laddr", "lport"), address(event, "raddr", "rport"))
}

/// So many bytes the client sends that comes before anyone looks; the others send fewer.
const BEFORE: usize = 97;
const MOST_BYTES: usize = 89;

/// 1009 connections in (211 where every instruction is emulated): each of them out once, told by both ends as both ends know it themselves.
pub fn exactly_1009(class: Class) {
    let (count_v4, count_v6) = if emulated() { (106, 105) } else { (V4, V6) };
    let namespace = Namespace::new();
    let server = namespace.run(move || Server::start(&["127.0.0.1:0", "[::1]:0"], count_v4.max(count_v6)));
    // The IPv6 half has one less; the server is told so by a connection that is made before anyone looks.
    let (v4, v6) = (server.addresses[0], server.addresses[1]);
    namespace.run(move || client(v6, BEFORE));
    let tracer = Tracer::start(class, &namespace, &["--event", LIFE]);
    let clients = namespace.run(move || {
        let half = |address, count| (0..count).map(|i| client(address, i % MOST_BYTES)).collect::<Vec<_>>();
        let mut clients = half(v4, count_v4);
        clients.extend(half(v6, count_v6));
        clients
    });
    tracer.wait_for("closed", 2 * (count_v4 + count_v6));
    let events = tracer.stop();
    events.assert_whole();

    let (server_pid, listeners) = (server.pid(), server.listeners.clone());
    let mut served = server.finish();
    assert_eq!(served.len(), count_v4 + count_v6 + 1);
    // By what it sent: one of the others may have had its port since.
    served.retain(|seen| seen.received != BEFORE as u64);
    assert_eq!(served.len(), count_v4 + count_v6);

    let count = count_v4 + count_v6;
    for (kind, expected) in [
        ("connect", count),
        ("connected", count),
        ("established", count),
        ("accepted", count),
        ("closed", 2 * count),
    ] {
        assert_eq!(events.of(kind).len(), expected, "{kind}");
    }
    assert_eq!(events.all.len(), 6 * count);
    assert!(events.all.iter().all(|event| event["netns"] == namespace.inode));

    let cookies: HashSet<_> = clients.iter().chain(&served).map(|socket| socket.cookie).collect();
    assert_eq!(cookies.len(), 2 * count, "each socket has a cookie of its own");
    for client in &clients {
        assert_life(&events, client, &["connect", "connected", "closed"], std::process::id());
    }
    let mut nameless = 0;
    for seen in &served {
        let life = assert_life(&events, seen, &["established", "accepted", "closed"], server_pid);
        let accepted = life.iter().find(|event| event["event"] == "accepted").unwrap();
        if accepted["listener"].is_null() {
            nameless += 1;
        } else {
            assert!(
                listeners.iter().any(|cookie| accepted["listener"] == *cookie),
                "{accepted}"
            );
        }
        if let Some(fd) = accepted["fd"].as_i64() {
            assert_eq!(fd, i64::from(seen.fd), "{accepted}");
        } else {
            assert_ne!(
                class,
                Class::Tracepoint,
                "at a system call's exit the descriptor is known: {accepted}"
            );
        }
    }
    // The two calls that were waiting when we attached.
    assert!(nameless <= 2, "{nameless} accepts do not name their listener");
}

/// The events of one socket are these, in order, with its tuple, its process, and its bytes.
fn assert_life<'a>(events: &'a Events, socket: &Witness, kinds: &[&str], pid: u32) -> Vec<&'a Value> {
    let mut life: Vec<_> = events.of_socket(socket.cookie).collect();
    // Two CPUs may send in another order than they looked at the clock.
    life.sort_by_key(|event| event["time_ns"].as_u64());
    let mut seen: Vec<_> = life.iter().map(|event| event["event"].as_str().unwrap()).collect();
    // A child stands in the accept queue a moment before it is ESTABLISHED: on another CPU accept(2) may be first.
    if seen.starts_with(&["accepted", "established"]) {
        seen.swap(0, 1);
    }
    assert_eq!(seen, kinds, "{socket:?}");
    for event in &life {
        assert_eq!(tuple(event), (socket.local, socket.remote), "{event}");
        assert_eq!(event["family"], if socket.local.is_ipv4() { 4 } else { 6 });
        match event["event"].as_str().unwrap() {
            "connect" | "accepted" => assert_eq!(event["pid"], pid, "{event}"),
            "established" => assert!(event["pid"].is_null(), "{event}"),
            _ => assert!(event["pid"].is_null() || event["pid"] == pid, "{event}"),
        }
    }
    let closed = life.last().unwrap();
    assert!(closed["lifetime_ns"].is_u64(), "{closed}");
    assert_eq!(closed["bytes_in"], socket.received, "{closed}");
    // The client gets back twice what it sent.
    let sent = if kinds[0] == "connect" {
        socket.received / 2
    } else {
        socket.received * 2
    };
    assert_eq!(closed["bytes_out"], sent, "{closed}");
    assert_eq!(
        closed["closed_by"],
        if kinds[0] == "connect" { "local" } else { "remote" },
        "{closed}"
    );
    life
}

/// A pair of connected sockets: client, server.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// FIN by the client, FIN by the server, reset by the client, close over unread data.
pub fn who_closed_first(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "closed"]);
    let ports = namespace.run(|| {
        let mut ports = Vec::new();
        let mut begin = || {
            let (client, server) = pair();
            ports.push((client.local_addr().unwrap().port(), server.local_addr().unwrap().port()));
            (client, server)
        };
        let (client, mut server) = begin();
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        drop(server);

        let (mut client, server) = begin();
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        drop(client);

        let (client, mut server) = begin();
        reset(client);
        assert!(server.read(&mut [0; 1]).is_err(), "a reset arrived");
        drop(server);

        let (mut client, server) = begin();
        client.write_all(b"unread").unwrap();
        while server.peek(&mut [0; 6]).unwrap() < 6 {}
        drop(server);
        assert!(client.read(&mut [0; 1]).is_err(), "a reset arrived");
        drop(client);
        ports
    });
    tracer.wait_for("closed", 2 * ports.len());
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("closed").len(), 2 * ports.len());
    let end = |lport: u16, rport: u16| {
        let mut found = events
            .all
            .iter()
            .filter(|event| event["lport"] == lport && event["rport"] == rport);
        let (event, more) = (found.next().unwrap(), found.next());
        assert!(more.is_none());
        (event["closed_by"].as_str().unwrap(), event["errno"].as_str())
    };
    let both: Vec<_> = ports.iter().map(|(c, s)| (end(*c, *s), end(*s, *c))).collect();
    assert_eq!(
        both,
        [
            (("local", None), ("remote", None)),
            (("remote", None), ("local", None)),
            (("local", None), ("remote", Some("ECONNRESET"))),
            (("remote", Some("ECONNRESET")), ("local", None)),
        ]
    );
}

/// What the kernel does by itself in softirq is nobody's: the server is stopped while its connections are established,
/// so neither its PID nor the client's may stand there.
pub fn softirq_has_no_pid(class: Class) {
    const COUNT: usize = 53;
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "established,state"]);
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
        let servers: Vec<_> = (0..COUNT).map(|_| listener.accept().unwrap()).collect();
        drop((clients, servers));
    });
    tracer.wait_for("established", COUNT);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("established").len(), COUNT);
    let own = std::process::id();
    for event in &events.all {
        let (from, to) = (event["oldstate"].as_str(), event["newstate"].as_str());
        match (event["event"].as_str().unwrap(), from, to) {
            ("established", ..) | (_, Some("SYN_RECV"), _) => assert!(event["pid"].is_null(), "{event}"),
            (_, Some("CLOSE"), _) | (_, _, Some("FIN_WAIT1" | "LAST_ACK" | "LISTEN")) => {
                assert_eq!(event["pid"], own, "{event}");
            }
            _ => assert!(event["pid"].is_null() || event["pid"] == own, "{event}"),
        }
        assert_ne!((from, to), (Some("LISTEN"), Some("SYN_RECV")), "{event}");
    }
}
