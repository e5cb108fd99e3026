//! `socklife queues`: rows of listeners, right from the first line on.

use std::{net::TcpStream, os::fd::AsRawFd as _, process::Command};

use serde_json::Value;
use socklife::scene::{
    peer::{self, Peer},
    queues::{begin, listener},
};

use super::queues::waiting::connecting;
use crate::harness::{
    Events, Namespace, PATIENCE, Tracer,
    helper::cookie,
    say, socklife, until,
    uring::{Accept, Uring},
};

fn queues(namespace: &Namespace, args: &[&str]) -> Command {
    let mut command = socklife();
    command.arg("queues").args(args);
    command.args(["--netns", &namespace.inode.to_string()]);
    command
}

/// The last row of a listener, and all rows of it.
fn rows(events: &Events, cookie: u64) -> Vec<&Value> {
    events
        .of("queues")
        .into_iter()
        .filter(|row| row["listener"] == cookie)
        .collect()
}

/// A listener that is older than the trace, with a half-open connection and two that wait: known at once. Then what
/// happens to it is counted, and named.
pub fn rows_of_a_listener() {
    let namespace = Namespace::new();
    let (listener, mut clients, peer) = namespace.run(|| {
        peer::prepare().unwrap();
        let listener = listener([127, 0, 0, 1].into(), 3).unwrap();
        let server = listener.local_addr().unwrap();
        let peer = Peer::half_open(server, 1).unwrap();
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(server).unwrap()).collect();
        (listener, clients, peer)
    });
    let number = cookie(listener.as_raw_fd());
    let server = listener.local_addr().unwrap();
    let tracer = Tracer::spawn(queues(&namespace, &["1", "-o", "json"]));
    tracer.wait_for("queues", 1);
    let listener = namespace.run(move || {
        let accepted = listener.accept().unwrap();
        clients.extend((0..3).map(|_| TcpStream::connect(server).unwrap()));
        peer::settle().unwrap();
        // Four wait where three are the limit: the fifth finds it full.
        let refused = begin(server).unwrap();
        peer.reset().unwrap();
        (listener, accepted, clients, refused)
    });
    let rows_so_far = tracer.count("\"event\":\"queues\"");
    tracer.wait_for("queues", rows_so_far + 2);
    drop(listener);
    let events = tracer.stop();
    assert!(events.status.success(), "{}", events.stderr);
    let rows = rows(&events, number);
    let first = rows[0];
    assert_eq!(
        (&first["laddr"], &first["lport"]),
        (&"127.0.0.1".into(), &server.port().into())
    );
    assert_eq!(
        (&first["syn_queue"], &first["accept_queue"]),
        (&1.into(), &2.into()),
        "{first}"
    );
    assert_eq!(
        (&first["accept_queue_limit"], &first["born"]),
        (&3.into(), &"before".into()),
        "{first}"
    );
    assert_eq!(first["pid"], std::process::id(), "the owner of its socket: {first}");
    let last = rows
        .iter()
        .rfind(|row| row["accepted_total"] == 1 && row["closed"].is_null())
        .unwrap_or_else(|| panic!("{:#?}", events.all));
    assert_eq!(
        (&last["syn_queue"], &last["accept_queue"]),
        (&0.into(), &4.into()),
        "{last}"
    );
    assert_eq!(last["syn_queued_total"], 3, "{last}");
    assert_eq!(last["acceptors"][0]["pid"], std::process::id(), "{last}");
    assert_eq!(last["half_open_ended_total"]["reset"], 1, "{last}");
    assert!(
        last["syn_refused_total"]["accept_queue_full"].as_u64().unwrap() >= 1,
        "{last}"
    );
    events.assert_reconciled();
    assert!(
        events
            .stderr
            .contains("counts agree with the kernel's: ListenOverflows"),
        "{}",
        events.stderr
    );
}

/// What was asked, what became of it, and who made it so.
pub fn backlog() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(queues(&namespace, &["0.2"]));
    let _listener = namespace.run(|| {
        std::fs::write("/proc/sys/net/core/somaxconn", "5").unwrap();
        listener([127, 0, 0, 1].into(), 100).unwrap()
    });
    let note = "5 (asked 100: net.core.somaxconn)";
    assert!(until(PATIENCE, || tracer.count(note) > 0), "{}", tracer.stderr());
    assert!(tracer.stop().status.success());
}

/// What nobody saw leave the accept queue does not wait: the depth is the listener's own. Nor does what no listener made.
pub fn unseen() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(queues(&namespace, &["0.2", "-o", "json", "--hooks", "tracepoint"]));
    let Some((_open, number)) = namespace.run(|| {
        let ring = Uring::new()?;
        let listener = listener([127, 0, 0, 1].into(), 8).unwrap();
        ring.slots(2);
        let clients: Vec<_> = (0..2)
            .map(|slot| {
                ring.accept(listener.as_raw_fd(), Accept::Direct(slot));
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                ring.result().ok().map(|_| client)
            })
            .collect::<Option<_>>()?;
        let waits = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let number = cookie(listener.as_raw_fd());
        Some(((ring, listener, clients, waits), number))
    }) else {
        say("no direct descriptors of io_uring here");
        return;
    };
    let itself = namespace.run(|| {
        let itself = std::net::SocketAddr::new([127, 0, 0, 1].into(), 4001);
        connecting(itself, itself)
    });
    let unseen = || tracer.count("\"accept_unseen_total\":2") > 0;
    assert!(until(PATIENCE, unseen), "{}", tracer.stderr());
    drop(itself);
    let so_far = tracer.count("\"event\":\"queues\"");
    tracer.wait_for("queues", so_far + 2);
    let events = tracer.stop();
    let last = *rows(&events, number).last().unwrap();
    assert_eq!(
        (&last["accept_queue"], &last["accepted_total"]),
        (&1.into(), &0.into()),
        "{last}"
    );
    assert!(last["oldest_wait_ns"].is_u64(), "the third waits: {last}");
    assert!(
        events.of("queues").iter().all(|row| row["listener"] == number),
        "{:#?}",
        events.all
    );
}

/// Blocks of text in a pipe: one at once, and as many as wanted.
pub fn blocks() {
    let namespace = Namespace::new();
    let _listener = namespace.run(|| listener([127, 0, 0, 1].into(), 7).unwrap());
    let output = queues(&namespace, &["0.3", "3"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let blocks: Vec<_> = text.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
    assert_eq!(blocks.len(), 4, "{text}");
    for block in blocks {
        let (head, row) = (block.lines().nth(2).unwrap(), block.lines().nth(3).unwrap());
        // A column begins where its name does, or ends where it ends.
        let at = head.find("PID").unwrap() + 3;
        assert!(row[..at].ends_with(&std::process::id().to_string()), "{block}");
        assert!(row.contains(" 0/7 "), "{block}");
    }
    assert!(!text.contains('\x1b'), "no terminal: {text}");
}

/// A filter that the kernel's counters do not know.
pub fn reconcile_needs_whole_namespaces() {
    let output = socklife()
        .args(["queues", "1", "1", "--lport", "80", "--reconcile"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("every filter but --netns"),
        "{said}"
    );
}
