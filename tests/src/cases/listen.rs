//! bind(2), listen(2), and dual-stack listeners.

use std::{
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use crate::harness::{Class, Namespace, Tracer, helper::cookie};

/// What is asked, what is clamped, and listen(2) again.
pub fn listening(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "bound,listening"]);
    let (ports, cookies) = namespace.run(|| {
        std::fs::write("/proc/sys/net/core/somaxconn", "1000").unwrap();
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        for backlog in [5, 70_000] {
            // SAFETY: a listener of ours.
            assert_eq!(unsafe { libc::listen(v4.as_raw_fd(), backlog) }, 0);
        }
        let both = [v4, v6];
        (
            both.each_ref().map(|listener| listener.local_addr().unwrap().port()),
            both.each_ref().map(|listener| cookie(listener.as_raw_fd())),
        )
    });
    tracer.wait_for("listening", 4);
    let events = tracer.stop();
    events.assert_whole();
    let bound = events.of("bound");
    let seen: Vec<_> = bound
        .iter()
        .map(|event| (event["laddr"].as_str().unwrap(), event["lport"].clone()))
        .collect();
    assert_eq!(seen, [("127.0.0.1", ports[0].into()), ("::1", ports[1].into())]);
    let listening = events.of("listening");
    let seen: Vec<_> = listening
        .iter()
        .map(|event| {
            let backlog = event["accept_queue_limit"].as_u64().unwrap();
            (
                event["lport"].as_u64().unwrap(),
                event["backlog_asked"].as_i64().unwrap(),
                backlog,
            )
        })
        .collect();
    let (v4, v6) = (u64::from(ports[0]), u64::from(ports[1]));
    // The standard library asks for 128.
    assert_eq!(seen, [(v4, 128, 128), (v6, 128, 128), (v4, 5, 5), (v4, 70_000, 1000)]);
    for event in bound.iter().chain(&listening) {
        assert_eq!(event["pid"], std::process::id(), "{event}");
        assert!(event["raddr"].is_null(), "{event}");
        let cookie = cookies[usize::from(event["laddr"] == "::1")];
        assert_eq!(event["cookie"], cookie, "{event}");
    }
}

/// An IPv4 client of an IPv6 listener: IPv4 on the wire, and said so.
pub fn mapped(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "connect,established,accepted,closed"]);
    let port = namespace.run(|| {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for to in ["127.0.0.1", "::ffff:127.0.0.1", "::1"] {
            let client = TcpStream::connect((to, port)).unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            drop(server);
        }
        port
    });
    tracer.wait_for("closed", 6);
    let events = tracer.stop();
    events.assert_whole();
    for (kind, expected) in [
        ("connect", [(4, false), (4, true), (6, false)]),
        ("established", [(4, true), (4, true), (6, false)]),
        ("accepted", [(4, true), (4, true), (6, false)]),
    ] {
        let seen: Vec<_> = events
            .of(kind)
            .iter()
            .map(|event| {
                let ip = if event["family"] == 4 { "127.0.0.1" } else { "::1" };
                assert_eq!((&event["laddr"], &event["raddr"]), (&ip.into(), &ip.into()), "{event}");
                let server = if kind == "connect" { "rport" } else { "lport" };
                assert_eq!(event[server], port, "{event}");
                (event["family"].as_u64().unwrap(), event["mapped"] == true)
            })
            .collect();
        assert_eq!(seen, expected, "{kind}");
    }
    assert_eq!(events.of("closed").len(), 6);
}
