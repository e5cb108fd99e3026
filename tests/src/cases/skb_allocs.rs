//! `socklife skb --allocs`: what was allocated is gone or alive, for the machine's part that is looked at and for each end of
//! each connection.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
};

use serde_json::Value;

use crate::harness::{Class, Events, Namespace, PATIENCE, Tracer, helper::cookie, socklife, until};

/// Of each connection, and what both ends send.
const CONNECTIONS: usize = 997;
const REQUEST: usize = 1009;
const ANSWER: usize = 503;
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
    assert_eq!(got, figure(row, "passed") + figure(row, "freed") + figure(row, "alive"), "{row}");
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
    let cookies = namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cookies: Vec<_> = (0..CONNECTIONS).map(|_| exchange(&listener)).collect();
        cookies
    });
    let bytes: usize = cookies.iter().map(|(.., bytes)| bytes).sum();
    assert_eq!(bytes, CONNECTIONS * (REQUEST + ANSWER));
    settled(&tracer);
    let events = tracer.stop();
    events.assert_whole();
    let ends = ends(&events);
    let mut kinds: HashMap<String, usize> = HashMap::new();
    for (client, server, _) in &cookies {
        for (who, cookie) in [("client", client), ("server", server)] {
            let row = ends.get(cookie).unwrap_or_else(|| panic!("no row of {who} {cookie}: {} rows, {:#?}, {:?} {}", ends.len(), events.of("skb_total").last(), events.of("skb_caller").iter().rev().take(9).collect::<Vec<_>>(), events.stderr));
            let names = ["sent", "received", "arrived", "passed", "freed", "alive"];
            let key = names.map(|name| format!("{name} {}", row[name])).join(", ");
            *kinds.entry(format!("{who}: {key}")).or_default() += 1;
        }
    }
    crate::harness::say(&format!("{class:?} {kinds:#?}"));
    for row in ends.values() {
        assert_adds_up(row);
        assert_eq!(figure(row, "alive"), 0, "{row}");
    }
    assert_eq!(ends.len(), 2 * CONNECTIONS);
    assert_total(&events, 0);
}

/// Waits until two blocks say the same.
fn settled(tracer: &Tracer) {
    let blocks = tracer.count("\"event\":\"skb_total\"");
    tracer.wait_for("skb_total", blocks + 3);
}
