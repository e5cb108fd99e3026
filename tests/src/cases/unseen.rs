//! What no program was run for is missed, counted, and never told as another's life.

use std::{
    collections::HashSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, PATIENCE, Tracer, emulated, netstat::Netstat, note_skipped, socklife, until,
};

const LIFE: &str = "connect,connected,established,accepted,closed";
/// A prime number of connections, half of them over each protocol.
const COUNT: usize = 211;
/// A prime that is the port of a listener and that no client's port is a multiple of.
const PORT: u16 = 61_003;

/// Connects, accepts and closes one after the other; the ports of the clients.
fn connections(server: SocketAddr, count: usize) -> Vec<u16> {
    let listener = TcpListener::bind(server).unwrap();
    let one = |_| {
        let client = TcpStream::connect(server).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let port = client.local_addr().unwrap().port();
        drop(client);
        drop(accepted);
        port
    };
    (0..count).map(one).collect()
}

fn both(port: u16) -> Vec<u16> {
    let mut ports = connections(([127, 0, 0, 1], port).into(), COUNT / 2);
    let v6 = SocketAddr::new("::1".parse().unwrap(), port);
    ports.extend(connections(v6, COUNT - COUNT / 2));
    ports
}

/// How many events of a kind, or of none, are told as unseen.
fn unseen(events: &Events, kind: &Value) -> usize {
    let lines = events.of("lost").into_iter();
    let told = lines.filter(|line| line["stage"] == "unseen" && line["kind"] == *kind);
    told.map(|line| usize::try_from(line["count"].as_u64().unwrap()).unwrap())
        .sum()
}

fn assert_counts(events: &Events, expected: [(&str, usize); 5]) {
    for (kind, count) in expected {
        assert_eq!(events.of(kind).len(), count, "{kind}: {}", events.stderr);
    }
}

/// No life is longer than the trace, and none is another's: each socket has one, and its ends are right.
fn assert_no_false_life(events: &Events, port: u16) {
    let times = events.all.iter().filter_map(|event| event["time_ns"].as_u64());
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    for event in &events.all {
        for duration in ["lifetime_ns", "handshake_ns", "accept_wait_ns"] {
            assert!(event[duration].as_u64().is_none_or(|ns| ns <= last - first), "{event}");
        }
    }
    for connected in events.of("connected") {
        assert_eq!(connected["rport"], port, "{connected}");
    }
    for kind in ["connected", "established", "closed"] {
        let told = events.of(kind);
        let sockets: HashSet<_> = told.iter().map(|event| event["cookie"].as_u64().unwrap()).collect();
        assert_eq!(sockets.len(), told.len(), "{kind}: once for each socket");
    }
}

/// So many ends that nobody saw, and no more. There are kernels that do not always run a program, and such a run proves
/// nothing.
fn assert_unseen_ends(events: &Events, expected: usize) {
    let told = unseen(events, &Value::Null);
    if told > expected {
        note_skipped();
    }
    assert_eq!(told, expected, "{}", events.stderr);
}

/// Nothing is left in the namespace but what is in TIME_WAIT.
fn is_over() -> bool {
    ["tcp", "tcp6"].iter().all(|table| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        let mut states = text.lines().skip(1).map(|line| line.split_ascii_whitespace().nth(3));
        states.all(|state| state == Some("06"))
    })
}

fn trace(class: Class, blind: &str, work: impl FnOnce() -> Vec<u16> + Send + 'static) -> (Events, Vec<u16>) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", LIFE, "--blind", blind]);
    let ports = namespace.run(work);
    // One that is there at the end has not ended.
    assert!(until(PATIENCE, || namespace.run(is_over)));
    let events = tracer.stop();
    assert!(events.status.success(), "{}", events.stderr);
    assert!(!events.stderr.contains("none lost"), "{}", events.stderr);
    (events, ports)
}

/// Ends for which no program runs are told when they are found, and counted; the next socket at the address begins anew.
pub fn ends(class: Class) {
    let (events, ports) = trace(class, "end:3", || both(PORT));
    // A port may come twice, once in each family.
    let blind: Vec<u16> = ports.iter().copied().filter(|port| port % 3 == 0).collect();
    assert!(!blind.is_empty());
    assert_counts(
        &events,
        [
            ("connect", COUNT),
            ("connected", COUNT),
            ("established", COUNT),
            ("accepted", COUNT),
            ("closed", 2 * COUNT),
        ],
    );
    assert_unseen_ends(&events, blind.len());
    assert_no_false_life(&events, PORT);
    let closed = events.of("closed");
    let (late, seen): (Vec<&Value>, Vec<&Value>) = closed.iter().partition(|event| event["seen"] == false);
    assert_eq!(late.len(), blind.len(), "{}", events.stderr);
    for event in late {
        let port = u16::try_from(event["lport"].as_u64().unwrap()).unwrap();
        assert!(blind.contains(&port), "{event}");
        assert!(event["lifetime_ns"].is_null() && event["bytes_in"].is_null(), "{event}");
    }
    assert!(seen.iter().all(|event| event["lifetime_ns"].is_u64()));
    let said = format!("{} ends unseen", blind.len());
    assert!(events.stderr.contains(&said), "{}", events.stderr);
}

/// A socket that is given back without having been seen to close tells what was counted of it.
pub fn states(class: Class) {
    let (events, ports) = trace(class, "state:3", || both(PORT));
    let blind = ports.iter().filter(|port| *port % 3 == 0).count();
    assert_unseen_ends(&events, blind);
    let closed = events.of("closed");
    assert_eq!(closed.len(), 2 * COUNT, "{}", events.stderr);
    let late: Vec<_> = closed.iter().filter(|event| event["seen"] == false).collect();
    assert_eq!(late.len(), blind);
    assert!(
        late.iter().all(|event| event["segs_out"].as_u64() > Some(2)),
        "{late:?}"
    );
    assert_no_false_life(&events, PORT);
}

/// Handshakes that nobody saw end are counted by kind when a later change tells of them.
pub fn handshakes(class: Class) {
    let (events, ports) = trace(class, "handshake:3", || both(PORT));
    let blind = ports.iter().filter(|port| *port % 3 == 0).count();
    assert_unseen_ends(&events, 0);
    assert_counts(
        &events,
        [
            ("connect", COUNT),
            ("connected", COUNT - blind),
            ("established", COUNT),
            ("accepted", COUNT),
            ("closed", 2 * COUNT),
        ],
    );
    assert_eq!(unseen(&events, &"connected".into()), blind, "{}", events.stderr);
    assert_no_false_life(&events, PORT);
}

/// Children that nobody saw made the kernel's own counters tell of.
pub fn children(class: Class) {
    let (events, _) = trace(class, &format!("begin:{PORT}"), || both(PORT));
    assert_unseen_ends(&events, 0);
    assert_counts(
        &events,
        [
            ("connect", COUNT),
            ("connected", COUNT),
            ("established", 0),
            ("accepted", COUNT),
            ("closed", 2 * COUNT),
        ],
    );
    assert_eq!(unseen(&events, &"established".into()), COUNT, "{}", events.stderr);
    assert_eq!(unseen(&events, &"closed".into()), 0, "{}", events.stderr);
    let said = format!("PassiveOpens 0 counted, the kernel says {COUNT}");
    assert!(events.stderr.contains(&said), "{}", events.stderr);
    assert_no_false_life(&events, PORT);
}

/// Short connections beside busy CPUs: what was sent is what came and what is told as lost, by kind, and the kernel agrees.
pub fn storm() {
    let count = if emulated() { 701 } else { 10_007 };
    let namespace = Namespace::new();
    let mut command = socklife();
    command.args([
        "trace",
        "-o",
        "json",
        "--sample",
        "0",
        "--netns",
        &namespace.inode.to_string(),
    ]);
    let tracer = Tracer::spawn(command);
    let end = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let end = Arc::clone(&end);
            thread::spawn(move || while !end.load(Relaxed) {})
        })
        .collect();
    let opens = namespace.run(move || {
        let before = Netstat::now();
        connections(([127, 0, 0, 1], PORT).into(), count);
        let after = Netstat::now();
        [
            after.since(&before, "ActiveOpens"),
            after.since(&before, "PassiveOpens"),
        ]
    });
    end.store(true, Relaxed);
    busy.into_iter().for_each(|busy| busy.join().unwrap());
    let events = tracer.stop();
    assert!(events.status.success(), "{}", events.stderr);
    assert_eq!(opens, [count as u64; 2], "the kernel's own counts");
    for (kind, sent) in [
        ("connect", count),
        ("connected", count),
        ("syn_queued", count),
        ("accept_queued", count),
        ("established", count),
        ("accepted", count),
        ("closed", 2 * count),
    ] {
        let lines = events.of("lost").into_iter().filter(|line| line["kind"] == kind);
        let lost: u64 = lines.map(|line| line["count"].as_u64().unwrap()).sum();
        let told = events.of(kind).len() as u64 + lost;
        assert_eq!(told, sent as u64, "{kind}: {}", events.stderr);
    }
    assert_no_false_life(&events, PORT);
}
