//! A SYN flood: events are held back, nothing is miscounted, memory stays as it is.

use serde_json::Value;
use socklife::scene::{
    peer,
    queues::{listener, sysctl},
};

use crate::harness::{Namespace, Tracer, emulated, memory::resident, netstat::Netstat, socklife};

/// A machine without an emulator in between takes so many in a few seconds.
const SYNS: u32 = 200_000;
/// One that is emulated takes a tenth.
const EMULATED: u32 = 20_000;
/// So many at a time, where it goes on until something was seen.
const PORTION: u32 = 500;
/// How many of them a second are shown one by one.
const SAMPLE: u64 = 1_000;

/// Half of it with SYN cookies off, half with them on.
pub fn syn_flood() {
    let count = if emulated() { EMULATED } else { SYNS };
    let namespace = Namespace::new();
    let mut trace = socklife();
    trace.args(["trace", "-o", "json", "--netns", &namespace.inode.to_string()]);
    trace.args(["--event", "syn_queued,syn_refused,cookie_sent,listener"]);
    trace.args(["--sample", &SAMPLE.to_string()]);
    let tracer = Tracer::spawn(trace);
    let before = resident(tracer.pid());
    let (refused, cookies) = namespace.run(move || {
        peer::prepare().unwrap();
        let before = Netstat::now();
        for syncookies in [0, 1] {
            sysctl("tcp_syncookies", syncookies).unwrap();
            let listener = listener([127, 0, 0, 1].into(), 64).unwrap();
            peer::flood(listener.local_addr().unwrap(), count / 2).unwrap();
        }
        let after = Netstat::now();
        (
            after.since(&before, "ListenDrops"),
            after.since(&before, "SyncookiesSent"),
        )
    });
    // A listener tells its totals when it is closed.
    tracer.wait_for("listener", 2);
    let after = resident(tracer.pid());
    let events = tracer.stop();
    assert!(events.status.success(), "{}: {}", events.status, events.stderr);
    assert!(events.stderr.contains("none lost"), "{}", events.stderr);

    let mut last: Vec<&Value> = Vec::new();
    for event in events.of("listener") {
        last.retain(|old| old["cookie"] != event["cookie"]);
        last.push(event);
    }
    assert_eq!(last.len(), 2);
    let sum = |figure: &dyn Fn(&Value) -> u64| last.iter().map(|event| figure(event)).sum::<u64>();
    let queued = sum(&|event| event["syn_queued_total"].as_u64().unwrap());
    let sent = sum(&|event| event["cookie_sent_total"].as_u64().unwrap());
    let all_refused = sum(&|event| {
        let causes = event["syn_refused_total"].as_object().unwrap();
        causes.values().map(|count| count.as_u64().unwrap()).sum()
    });
    assert!(refused > 0 && cookies > 0);
    assert_eq!((all_refused, sent), (refused, cookies), "the kernel's own counts");
    assert_eq!(queued + all_refused + sent, u64::from(count));

    let mut held = 0;
    for (kind, total) in [
        ("syn_queued", queued),
        ("syn_refused", all_refused),
        ("cookie_sent", sent),
    ] {
        let counted: u64 = events
            .of("lost")
            .iter()
            .filter(|line| line["kind"] == kind)
            .map(|line| {
                assert_eq!(line["stage"], "sampled", "{line}");
                line["count"].as_u64().unwrap()
            })
            .sum();
        assert_eq!(events.of(kind).len() as u64 + counted, total, "{kind}");
        held += counted;
    }
    assert!(held > 0, "a flood of {count} was shown one by one");
    // The ring buffer's pages are touched for the first time, and nothing grows with the flood.
    assert!(
        after < before + (16 << 10) && after < 72 << 10,
        "{before} KiB, then {after} KiB"
    );
}

/// `socklife queues` goes on showing what is counted while a flood lasts, and has it all at its end.
pub fn queues_go_on() {
    const ROWS: usize = 5;
    let namespace = Namespace::new();
    let mut queues = socklife();
    queues.args(["queues", "0.1", "-o", "json", "--netns", &namespace.inode.to_string()]);
    let tracer = Tracer::spawn(queues);
    let (listener, before) = namespace.run(|| {
        peer::prepare().unwrap();
        sysctl("tcp_syncookies", 0).unwrap();
        (listener([127, 0, 0, 1].into(), 64).unwrap(), Netstat::now())
    });
    let address = listener.local_addr().unwrap();
    // It lasts for as long as it takes for so many rows to come, and is bounded.
    let rows = || tracer.count("\"event\":\"queues\"");
    let (first, mut sent) = (rows(), 0);
    while rows() < first + ROWS && sent < SYNS {
        namespace.run(move || peer::flood(address, PORTION).unwrap());
        sent += PORTION;
    }
    assert!(rows() >= first + ROWS, "{sent} SYNs, and nothing was shown");
    let drops = namespace.run(move || Netstat::now().since(&before, "ListenDrops"));
    let so_far = rows();
    tracer.wait_for("queues", so_far + 2);
    let events = tracer.stop();
    assert!(events.status.success(), "{}", events.stderr);
    events.assert_reconciled();
    let mut totals: Vec<_> = events
        .of("queues")
        .iter()
        .map(|row| row["syn_refused_total"]["syn_queue_full"].as_u64().unwrap_or(0))
        .collect();
    assert!(totals.is_sorted(), "{totals:?}: {:#?}", events.of("queues"));
    assert_eq!(totals.last(), Some(&drops), "the kernel's own count");
    totals.dedup();
    assert!(totals.len() >= 3, "it stood still: {totals:?}");
}
