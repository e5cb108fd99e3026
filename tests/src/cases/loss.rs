//! What is lost is counted, exactly, and said.

use std::{
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

use serde_json::Value;
use socklife::scene::peer::{self, Peer};

use crate::harness::{Events, Namespace, Tracer, helper::connections, socklife};

const CONNECTIONS: usize = 307;

fn trace(namespace: &Namespace, args: &[&str]) -> Command {
    let mut command = socklife();
    command
        .args(["trace", "-o", "json", "--netns", &namespace.inode.to_string()])
        .args(args);
    command
}

/// How many events of a kind are told as lost at a stage.
fn lost(events: &Events, stage: &str, kind: &str) -> usize {
    let lines = events
        .of("lost")
        .into_iter()
        .filter(|line| line["stage"] == stage && line["kind"] == kind);
    lines
        .map(|line| usize::try_from(line["count"].as_u64().unwrap()).unwrap())
        .sum()
}

/// A tracer that is stopped while a small ring buffer overflows: what came and what is told as lost make the whole.
pub fn ring_buffer() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(
        &namespace,
        &["--event", "connect,accepted", "--ring-buffer", "4"],
    ));
    tracer.signal(libc::SIGSTOP);
    namespace.run(|| connections(CONNECTIONS));
    tracer.signal(libc::SIGCONT);
    let events = tracer.stop();
    assert!(events.status.success(), "{}", events.stderr);
    let mut total = 0;
    for kind in ["connect", "accepted"] {
        let lost = lost(&events, "ring_buffer", kind);
        assert!(lost > 0, "4 KiB hold no {CONNECTIONS} events: {}", events.stderr);
        assert_eq!(events.of(kind).len() + lost, CONNECTIONS, "{kind}");
        assert!(
            events.stderr.contains(&format!("{kind} lost: ring buffer full")),
            "{}",
            events.stderr
        );
        total += lost;
    }
    assert!(events.stderr.contains(&format!("{total} lost")), "{}", events.stderr);
}

/// A reader of the output that does not read: the tracer goes on, and counts what it cannot hand over.
pub fn slow_output() {
    const MANY: usize = 4001;
    let namespace = Namespace::new();
    // `sleep` inherits the pipe, so that it stays open, full, for as long as the test wants.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = trace(&namespace, &[]);
    command.stdout(writer).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("attached") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut stderr, &mut line).unwrap(),
            0,
            "it ended"
        );
    }
    namespace.run(|| connections(MANY));
    // SAFETY: a child that was not waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    // Now somebody reads.
    let lines: Vec<Value> = std::io::BufRead::lines(std::io::BufReader::new(reader))
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    let events = Events::of_values(lines, said, status);
    assert!(status.success(), "{}", events.stderr);
    let mut any = 0;
    for (kind, expected) in [
        ("connect", MANY),
        ("connected", MANY),
        ("established", MANY),
        ("accepted", MANY),
        ("closed", 2 * MANY),
    ] {
        let lost = lost(&events, "output", kind) + lost(&events, "ring_buffer", kind);
        assert_eq!(events.of(kind).len() + lost, expected, "{kind}: {}", events.stderr);
        any += lost;
    }
    assert!(any > 0, "{MANY} connections fit into the pipe and the channel");
}

/// More sockets than the table holds: events come all the same, without what must be remembered, and it is said.
pub fn socket_table() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(
        &namespace,
        &["--event", "connected,closed", "--max-sockets", "3"],
    ));
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..13).map(|_| TcpStream::connect(address).unwrap()).collect();
        let servers: Vec<_> = (0..13).map(|_| listener.accept().unwrap()).collect();
        drop((clients, servers));
    });
    tracer.wait_for("closed", 26);
    let events = tracer.stop();
    assert_eq!(events.of("connected").len(), 13);
    assert_eq!(events.of("closed").len(), 26);
    let aged = events
        .of("closed")
        .iter()
        .filter(|event| event["lifetime_ns"].is_u64())
        .count();
    assert_eq!(aged, 3, "as many as the table holds");
    let told: u64 = events
        .of("lost")
        .iter()
        .map(|line| line["count"].as_u64().unwrap())
        .sum();
    assert_eq!(told, 23, "{:#?}", events.of("lost"));
    assert!(
        events
            .of("lost")
            .iter()
            .all(|line| line["stage"] == "socket_table_full")
    );
    assert!(events.stderr.contains("table full"), "{}", events.stderr);
}

/// More half-open connections than the table holds: each SYN is told, and for the rest it is said.
pub fn request_table() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(
        &namespace,
        &["--event", "syn_queued,half_open_ended", "--max-sockets", "3"],
    ));
    namespace.run(|| {
        peer::prepare().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let peers: Vec<_> = (0..13).map(|number| Peer::half_open(server, number).unwrap()).collect();
        peers.iter().for_each(|peer| peer.reset().unwrap());
    });
    tracer.wait_for("half_open_ended", 3);
    let events = tracer.stop();
    assert_eq!(events.of("syn_queued").len(), 13);
    assert_eq!(events.of("half_open_ended").len(), 3, "as many as the table holds");
    let told: u64 = events
        .of("lost")
        .iter()
        .map(|line| {
            assert_eq!(line["stage"], "request_table_full", "{line}");
            line["count"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(told, 10, "{:#?}", events.of("lost"));
    assert!(
        events.stderr.contains("half-open connections not remembered"),
        "{}",
        events.stderr
    );
}
