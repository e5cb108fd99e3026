//! Filters: what they let through, and that they let nothing else through.

use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use crate::harness::{
    Class, Namespace, Tracer,
    helper::{Server, client},
};

/// Each filter against the same three connections: IPv4 to one listener, IPv6 and v4-mapped to a dual-stack one.
pub fn each(class: Class) {
    let namespace = Namespace::new();
    let (one, dual) = namespace.run(|| {
        let one = TcpListener::bind("127.0.0.2:0").unwrap();
        let dual = TcpListener::bind("[::]:0").unwrap();
        (one, dual)
    });
    let ports = (one.local_addr().unwrap().port(), dual.local_addr().unwrap().port());
    let (p, d) = (ports.0.to_string(), ports.1.to_string());
    // Filter, and how many `connect` and `accepted` pass.
    let table: Vec<(Vec<&str>, usize, usize)> = vec![
        (vec![], 3, 3),
        (vec!["-4"], 2, 2),
        (vec!["-6"], 1, 1),
        (vec!["--port", &p], 1, 1),
        (vec!["--lport", &p], 0, 1),
        (vec!["--rport", &p], 1, 0),
        (vec!["--port", &d], 2, 2),
        (vec!["--port", &d, "-4"], 1, 1),
        (vec!["--addr", "127.0.0.2"], 1, 1),
        (vec!["--addr", "127.0.0.0/8"], 2, 2),
        (vec!["--addr", "::1"], 1, 1),
        (vec!["--addr", "0.0.0.0/0"], 2, 2),
        (vec!["--addr", "10.0.0.0/8"], 0, 0),
        (vec!["--event", "accepted"], 0, 3),
    ];
    // Several at once, over the same connections; the last in another namespace, which is another world.
    let other = Namespace::new();
    let (one, dual) = (Arc::new(one), Arc::new(dual));
    let mut cases: Vec<_> = table.into_iter().map(|case| (&namespace, case)).collect();
    cases.push((&other, (vec![], 0, 0)));
    for group in cases.chunks(4) {
        let tracers: Vec<_> = group
            .iter()
            .map(|(namespace, (filter, ..))| {
                let mut args = filter.clone();
                if !filter.contains(&"--event") {
                    args.extend(["--event", "connect,accepted"]);
                }
                Tracer::start(class, namespace, &args)
            })
            .collect();
        let (one, dual) = (Arc::clone(&one), Arc::clone(&dual));
        namespace.run(move || {
            for (to, listener) in [("127.0.0.2", &one), ("::1", &dual), ("127.0.0.1", &dual)] {
                let port = listener.local_addr().unwrap().port();
                let _client = TcpStream::connect((to, port)).unwrap();
                listener.accept().unwrap();
            }
        });
        tracers.iter().for_each(|tracer| tracer.signal(libc::SIGINT));
        for (tracer, (_, (filter, connects, accepts))) in tracers.into_iter().zip(group) {
            let events = tracer.wait();
            events.assert_whole();
            let seen = (
                events.of("connect").len(),
                events.of("accepted").len(),
                events.all.len(),
            );
            assert_eq!(
                seen,
                (*connects, *accepts, connects + accepts),
                "{filter:?}: {:#?}",
                events.all
            );
        }
    }
}

/// `--pid`: what the process does, and what then happens to it in softirq; nothing of its peers.
pub fn pid(class: Class) {
    const COUNT: usize = 5;
    let namespace = Namespace::new();
    let server = namespace.run(|| Server::start(&["127.0.0.1:0"], COUNT));
    let (pid, address) = (server.pid(), server.addresses[0]);
    let tracer = Tracer::start(
        class,
        &namespace,
        &["--pid", &pid.to_string(), "--event", "connect,accepted,closed"],
    );
    namespace.run(move || (0..COUNT).for_each(|i| _ = client(address, i)));
    tracer.wait_for("closed", COUNT);
    let served = server.finish();
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("connect").len(), 0);
    assert_eq!(events.of("accepted").len(), COUNT);
    assert_eq!(events.of("closed").len(), COUNT, "{:#?}", events.all);
    for event in &events.all {
        assert!(served.iter().any(|seen| event["cookie"] == seen.cookie), "{event}");
        assert!(event["pid"].is_null() || event["pid"] == pid, "{event}");
    }
}
