//! `socklife skb --allocs`: what was allocated is gone or alive, for the machine's part that is looked at and for each end of
//! each connection.

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
};

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, PATIENCE, Tracer, helper::cookie, netstat::Netstat, run_on, socklife, until,
};

/// Of each connection, and what both ends send.
const CONNECTIONS: usize = 997;
const REQUEST: usize = 1009;
const ANSWER: usize = 503;
/// The kernel's counts of segments that a timer sends: on a machine that is held up for 40 ms or more.
const LATE: [&str; 4] = ["DelayedACKs", "TCPLossProbes", "TCPTimeouts", "RetransSegs"];
/// Segments that nobody reads.
const UNREAD: usize = 13;

fn skb(class: Class, namespace: &Namespace, args: &[&str]) -> Tracer {
    let mut command: Command = socklife();
    command.args(["skb", "--allocs", "-o", "json", "--hooks", class.name()]);
    command.args(["--netns", &namespace.inode.to_string()]).args(args);
    Tracer::spawn(command)
}

fn figure(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no {name}: {row}"))
}

/// The last row of each end of a connection.
fn ends(events: &Events) -> HashMap<u64, &Value> {
    let rows = events.of("skb_connection");
    rows.into_iter()
        .filter(|row| row["rport"].is_number())
        .map(|row| (figure(row, "cookie"), row))
        .collect()
}

/// What a row says of itself is right.
fn assert_adds_up(row: &Value) {
    let got = figure(row, "sent") + figure(row, "received") + figure(row, "arrived");
    assert_eq!(
        got,
        figure(row, "passed") + figure(row, "freed") + figure(row, "alive"),
        "{row}"
    );
}

/// Of all callers, at the end.
fn assert_total(events: &Events, alive: u64) {
    let totals = events.of("skb_total");
    let total = totals.last().unwrap();
    assert_eq!(figure(total, "allocated"), figure(total, "freed") + alive, "{total}");
    assert_eq!(figure(total, "alive"), alive, "{total}");
    let last = figure(total, "time_ns");
    let callers = events.of("skb_caller");
    let callers: Vec<_> = callers.iter().filter(|row| figure(row, "time_ns") == last).collect();
    let sum: u64 = callers.iter().map(|row| figure(row, "allocated")).sum();
    assert_eq!(sum, figure(total, "allocated"), "{callers:#?}");
}

/// A connection in both directions; the client closes first. Both cookies, and what both read.
fn exchange(listener: &TcpListener) -> (u64, u64, usize) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let cookies = (cookie(client.as_raw_fd()), cookie(server.as_raw_fd()));
    client.write_all(&[b'x'; REQUEST]).unwrap();
    let mut request = [0; REQUEST];
    server.read_exact(&mut request).unwrap();
    server.write_all(&[b'y'; ANSWER]).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; ANSWER];
    client.read_exact(&mut part).unwrap();
    answer.extend_from_slice(&part);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut part).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut part).unwrap(), 0);
    (cookies.0, cookies.1, request.len() + answer.len())
}

/// 997 connections, one after the other: nothing is left of them, and each end had what it must have.
pub fn exactly_997(class: Class) {
    let namespace = Namespace::new();
    let tracer = skb(class, &namespace, &["--interval", "0.5"]);
    let (cookies, late) = namespace.run(|| {
        let before = Netstat::now();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cookies: Vec<_> = (0..CONNECTIONS).map(|_| exchange(&listener)).collect();
        let after = Netstat::now();
        (cookies, LATE.map(|name| after.since(&before, name)))
    });
    let bytes: usize = cookies.iter().map(|(.., bytes)| bytes).sum();
    assert_eq!(bytes, CONNECTIONS * (REQUEST + ANSWER));
    settled(&tracer, &namespace);
    let events = tracer.stop();
    events.assert_whole();
    let ends = ends(&events);
    // An sk_buff goes to the other end by loopback: what one passes arrives at the other, and the client's SYN at the
    // listener. With tracepoints alone: SYN, data and FIN, each with its clone.
    let (client_has, server_has) = match class {
        Class::Fentry | Class::Kprobe => ([9, 0, 4, 5, 8], [6, 0, 4, 4, 6]),
        Class::Tracepoint => ([3, 0, 0, 0, 3], [2, 0, 0, 0, 2]),
    };
    let mut others = Vec::new();
    for (client, server, _) in &cookies {
        for (cookie, has) in [(client, client_has), (server, server_has)] {
            let row = ends.get(cookie).unwrap_or_else(|| panic!("no row of {cookie}"));
            let names = ["sent", "received", "arrived", "passed", "freed"];
            if names.map(|name| figure(row, name)) != has {
                others.push(row);
            }
        }
    }
    // Where a timer sent one more, both ends have it.
    let may_differ = 2 * late.iter().sum::<u64>();
    assert!(others.len() as u64 <= may_differ, "{LATE:?} {late:?}: {others:#?}");
    for row in ends.values() {
        assert_adds_up(row);
        assert_eq!(figure(row, "alive"), 0, "{row}");
    }
    assert_eq!(ends.len(), 2 * CONNECTIONS);
    assert_total(&events, 0);
    assert_callers(class, &events);
}

/// Who allocates for TCP: the names of functions, and no address that is none.
fn assert_callers(class: Class, events: &Events) {
    let callers: HashSet<_> = events
        .of("skb_caller")
        .iter()
        .filter_map(|row| row["caller"].as_str())
        .collect();
    let there = |name: &str| callers.iter().any(|caller| caller.starts_with(name));
    assert!(
        there("tcp_stream_alloc_skb") || there("sk_stream_alloc_skb"),
        "{callers:?}"
    );
    assert!(there("tcp_send_fin"), "{callers:?}");
    if class != Class::Tracepoint {
        assert!(there("__tcp_transmit_skb"), "clones: {callers:?}");
        assert!(there("__tcp_send_ack") && there("tcp_make_synack"), "{callers:?}");
    }
    assert!(!there("0x") && callers.len() < 100, "{callers:?}");
    let unknown = events.of("skb_caller").into_iter().find(|row| row["caller"].is_null());
    assert!(unknown.is_none(), "{unknown:?}");
}

/// Segments that nobody reads are alive, one for each; when they are read nothing is.
pub fn unread(class: Class) {
    let namespace = Namespace::new();
    let tracer = skb(class, &namespace, &["--interval", "0.2"]);
    let mut pairs = namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..UNREAD)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, _) = listener.accept().unwrap();
                client.write_all(&[b'x'; REQUEST]).unwrap();
                (client, server)
            })
            .collect();
        pairs
    });
    // The kernel's own word: each has memory in its receive queue, and what was sent is acknowledged.
    let memory = |socket: &TcpStream| meminfo(socket)[RMEM_ALLOC];
    assert!(until(PATIENCE, || pairs
        .iter()
        .all(|(client, server)| memory(server) > 0 && unsent(client) == 0)));
    assert!(pairs.iter().all(|(client, _)| memory(client) == 0));
    settled(&tracer, &namespace);
    let alive = tracer.last("skb_total");
    assert_eq!(figure(&alive, "alive"), UNREAD as u64, "{alive}");
    let unread_at = figure(&alive, "time_ns");
    for (_, server) in &mut pairs {
        server.read_exact(&mut [0; REQUEST]).unwrap();
        assert_eq!(memory(server), 0);
    }
    settled(&tracer, &namespace);
    let cookies: Vec<_> = pairs
        .iter()
        .map(|(client, server)| (cookie(client.as_raw_fd()), cookie(server.as_raw_fd())))
        .collect();
    let events = tracer.stop();
    events.assert_whole();
    // Who has them: the receiver, or with tracepoints alone whoever sent them.
    let rows = events.of("skb_connection");
    for (client, server) in &cookies {
        let holder = if class == Class::Tracepoint { client } else { server };
        // Not the most of all blocks: one may fall into the handshake, which has sk_buffs of its own.
        let then = rows
            .iter()
            .rfind(|row| row["cookie"] == *holder && figure(row, "time_ns") <= unread_at);
        let then = then.map(|row| figure(row, "alive"));
        assert_eq!(then, Some(1), "{rows:#?}");
    }
    assert_total(&events, 0);
    for row in ends(&events).values() {
        assert_adds_up(row);
        assert_eq!((figure(row, "alive"), &row["closed"]), (0, &Value::Null), "{row}");
    }
}

/// Place of `sk_rmem_alloc` in the answer (`SK_MEMINFO_RMEM_ALLOC`).
const RMEM_ALLOC: usize = 0;

/// `SO_MEMINFO`.
fn meminfo(socket: &TcpStream) -> [u32; 9] {
    let mut figures = [0_u32; 9];
    let mut len = libc::socklen_t::try_from(size_of_val(&figures)).unwrap();
    // SAFETY: a place of the size that `len` says.
    let done = unsafe {
        let place = figures.as_mut_ptr().cast();
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            place,
            &raw mut len,
        )
    };
    assert_eq!(done, 0, "SO_MEMINFO: {}", std::io::Error::last_os_error());
    figures
}

/// `SIOCOUTQ`: bytes that the peer did not acknowledge.
fn unsent(socket: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: a place for the answer.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(done, 0, "SIOCOUTQ: {}", std::io::Error::last_os_error());
    bytes
}

/// A listener's filter lets its own connections through, and what passes neither is not counted at all.
pub fn filtered(class: Class) {
    let namespace = Namespace::new();
    let (chosen, other) = namespace.run(|| {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        (listen(), listen())
    });
    let port = chosen.local_addr().unwrap().port().to_string();
    let tracer = skb(class, &namespace, &["--interval", "0.2", "--lport", &port]);
    let server = namespace.run(move || {
        for _ in 0..7 {
            exchange(&other);
        }
        exchange(&chosen).1
    });
    settled(&tracer, &namespace);
    let events = tracer.stop();
    events.assert_whole();
    let ends = ends(&events);
    assert_eq!(ends.keys().collect::<Vec<_>>(), [&server], "{ends:#?}");
    assert_adds_up(ends[&server]);
    assert_total(&events, 0);
}

/// One by one, for a connection that was chosen: each that is told of is told to end, and as many as are counted.
pub fn each(class: Class) {
    let namespace = Namespace::new();
    let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port().to_string();
    let tracer = skb(class, &namespace, &["--each", "--port", &port]);
    let (client, server, _) = namespace.run(move || exchange(&listener));
    // Handshake, request, answer, ends: without the ACKs that carry nothing, of which a slow machine sends more.
    let (made, acks) = match class {
        Class::Fentry | Class::Kprobe => (11, 4),
        Class::Tracepoint => (5, 0),
    };
    flush(&namespace);
    tracer.wait_for("skb_free", made + acks);
    let events = tracer.stop();
    events.assert_whole();
    let of = |kind: &str| -> Vec<&Value> {
        let all = events.of(kind).into_iter();
        all.filter(|event| event["rport"].is_number() && (event["cookie"] == client || event["cookie"] == server))
            .collect()
    };
    let (allocated, freed) = (of("skb_alloc"), events.of("skb_free"));
    assert_eq!(allocated.len(), freed.len(), "{:#?}", events.all);
    let is_ack = |event: &&&Value| {
        event["caller"]
            .as_str()
            .is_some_and(|caller| caller.contains("tcp_send_ack"))
    };
    let carry_nothing = allocated.iter().filter(is_ack).count();
    assert_eq!(allocated.len() - carry_nothing, made, "{:#?}", events.all);
    assert!((acks..=acks + 2).contains(&carry_nothing), "{:#?}", events.all);
    for event in allocated {
        let end = freed
            .iter()
            .find(|end| end["skb"] == event["skb"] && end["time_ns"].as_u64() >= event["time_ns"].as_u64());
        assert!(end.is_some() && event["caller"].is_string(), "{event}");
        assert!(class == Class::Tracepoint || figure(event, "truesize") > 0, "{event}");
    }
}

/// More than the table takes: what is not counted is said.
pub fn table_full(class: Class) {
    let namespace = Namespace::new();
    let tracer = skb(class, &namespace, &["--interval", "0.2", "--max-skbs", "5"]);
    let pairs = namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..UNREAD)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.write_all(&[b'x'; REQUEST]).unwrap();
                (client, listener.accept().unwrap())
            })
            .collect();
        pairs
    });
    settled(&tracer, &namespace);
    drop(pairs);
    settled(&tracer, &namespace);
    let events = tracer.stop();
    let lost: u64 = events
        .of("lost")
        .iter()
        .filter(|loss| loss["stage"] == "skb_table_full")
        .map(|loss| figure(loss, "count"))
        .sum();
    assert!(lost >= UNREAD as u64 - 5, "{:#?}", events.of("lost"));
    // What was counted is counted right.
    assert_total(&events, 0);
}

/// Lets two blocks pass in which nothing happens.
fn settled(tracer: &Tracer, namespace: &Namespace) {
    flush(namespace);
    let blocks = tracer.count("\"event\":\"skb_total\"");
    tracer.wait_for("skb_total", blocks + 3);
}

/// A packet passes on each CPU: an `sk_buff` whose reader was on another CPU waits there for the next one
/// (`skb_attempt_defer_free`).
fn flush(namespace: &Namespace) {
    namespace.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for cpu in 0..std::thread::available_parallelism().unwrap().get() {
            run_on(Some(cpu));
            socket.send_to(b"!", socket.local_addr().unwrap()).unwrap();
            socket.recv(&mut [0]).unwrap();
        }
        run_on(None);
    });
}
