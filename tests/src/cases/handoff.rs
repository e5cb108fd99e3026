//! Who holds a connection: `accepted`, `inherited`, `handed_off`, `fd_closed`, `last_close`, and the findings.

pub mod findings;
pub mod models;
pub mod older;
pub mod storm;

use std::{
    net::{SocketAddr, TcpStream},
    sync::Mutex,
    thread,
};

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, PATIENCE, Tracer, emulated,
    serve::{Serve, ask},
    until,
};

const KINDS: &str = "listening,accepted,inherited,handed_off,fd_closed,last_close,finding";

/// By the server's end of the connection.
fn of<'a>(events: &'a Events, kind: &str, says: &Value) -> Vec<&'a Value> {
    let of_socket = events.of_socket(says["cookie"].as_u64().unwrap());
    of_socket.filter(|event| event["event"] == kind).collect()
}

fn connect(address: SocketAddr) -> Value {
    let mut client = TcpStream::connect(address).unwrap();
    let says = ask(&mut client);
    // The child sees the end, and ends.
    drop(client);
    says
}

/// 503 connections (101 where every instruction is emulated), one at a time and 64 at a time: what socklife says of each is what its child says of itself, and
/// nothing is wrong with a server that does it right.
pub fn served_503(class: Class) {
    // A prime number in all. An emulated machine takes a quarter of a second for each fork.
    let (alone, together) = if emulated() { (31, 70) } else { (251, 252) };
    const CLIENTS: usize = 64;
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["-e", KINDS]);
    let server = Serve::start(&namespace, &["127.0.0.1:0", "[::]:0"], &["--max-children", "300"]);
    let parent = server.pid();
    let addresses = [
        server.addresses[0],
        SocketAddr::new("::1".parse().unwrap(), server.addresses[1].port()),
    ];
    let mut all: Vec<Value> = namespace.run(move || (0..alone).map(|i| connect(addresses[i % 2])).collect());
    all.extend(namespace.run(move || {
        let left = Mutex::new(0..together);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut says = Vec::new();
                        loop {
                            let Some(i) = left.lock().unwrap().next() else { break };
                            says.push(connect(addresses[i % 2]));
                        }
                        says
                    })
                })
                .collect();
            clients
                .into_iter()
                .flat_map(|client| client.join().unwrap())
                .collect::<Vec<_>>()
        })
    }));
    assert_eq!(all.len(), alone + together);
    assert!(
        until(PATIENCE, || server.children().is_empty()),
        "no zombie: {:?}",
        server.children()
    );
    // Of both ends.
    tracer.wait_for("last_close", 2 * (alone + together));
    // A finding takes a second, and is looked for once a second.
    thread::sleep(std::time::Duration::from_millis(2100));
    let events = tracer.stop();
    server.stop();
    // There are so many closes that a kernel which skips programs at tracepoints skips some.
    let skipped = match class {
        Class::Tracepoint => events.assert_whole_but_skipped(),
        Class::Fentry | Class::Kprobe => {
            events.assert_whole();
            0
        }
    };
    assert!(events.of("finding").is_empty(), "{:?}", events.of("finding"));

    let mut by_child = 0;
    let mut unseen = 0;
    for says in &all {
        let accepted = of(&events, "accepted", says);
        assert_eq!(accepted.len(), 1, "{says}");
        assert_eq!(accepted[0]["pid"], parent);
        let handed = of(&events, "handed_off", says);
        assert_eq!(handed.len(), 1, "{says}: {handed:?}");
        let handed = handed[0];
        for field in ["inode", "family", "laddr", "lport", "raddr", "rport"] {
            assert_eq!(handed[field], says[field], "{field} of {says}: {handed}");
        }
        assert_eq!(
            (&handed["from"]["pid"], &handed["to"]["pid"]),
            (&says["ppid"], &says["pid"])
        );
        assert_eq!((&handed["to"]["fd"], &handed["from"]["fd"]), (&says["fd"], &says["fd"]));
        assert_eq!((&handed["how"], &handed["first"]), (&"fork".into(), &"read".into()));
        assert_eq!(handed["accepted"], true, "{handed}");
        assert_eq!((&handed["pid"], &handed["comm"]), (&says["pid"], &"serve".into()));
        assert!(handed["held_ns"].is_u64() && handed["first_ns"].is_u64(), "{handed}");
        let inherited = of(&events, "inherited", says);
        let by_its_child = |event: &&Value| {
            (&event["child"], &event["fd"], &event["holders"]) == (&says["pid"], &says["fd"], &2.into())
        };
        let last = of(&events, "last_close", says);
        assert_eq!(last.len(), 1, "{says}");
        let closed = of(&events, "fd_closed", says);
        let by = |pid: &Value| closed.iter().filter(|event| event["pid"] == *pid).count();
        // The parent's close is not the end where the child has it still; a parent that is slow may be the last.
        let ends = closed.iter().filter(|event| event["left"] == 0).count();
        // Between giving up a descriptor and letting go of the file a task can be overtaken.
        let right = inherited.len() == 1
            && inherited.iter().all(by_its_child)
            && by(&says["ppid"]) == 1
            && ends == 1
            && by(&last[0]["pid"]) > 0;
        assert!(right || skipped > 0, "{inherited:?} {last:?} {closed:?}");
        unseen += u64::from(!right);
        by_child += usize::from(last[0]["pid"] == says["pid"]);
        assert!(
            closed
                .iter()
                .all(|event| event["time_ns"].as_u64() <= last[0]["time_ns"].as_u64()),
            "{closed:?}"
        );
    }
    assert!(unseen <= skipped, "{unseen} closes unseen, {skipped} runs skipped");
    assert!(
        by_child > alone / 2,
        "{by_child} connections ended at their child's close"
    );
    assert_eq!(events.of("accepted").len(), all.len());
    assert_eq!(events.of("handed_off").len(), all.len());
}
