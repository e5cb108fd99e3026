//! Connects that fail.

use std::{
    io::{Error, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::harness::{Class, Namespace, Tracer, helper::sockaddr};

const KINDS: &str = "connect,connected,connect_failed,closed";

/// A port of loopback where nobody listens.
fn closed_port(address: &str) -> SocketAddr {
    TcpListener::bind(address).unwrap().local_addr().unwrap()
}

pub fn refused(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    let ports = namespace.run(|| {
        ["127.0.0.1:0", "[::1]:0"].map(|address| {
            let address = closed_port(address);
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            address
        })
    });
    tracer.wait_for("connect_failed", ports.len());
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("connect").len(), ports.len());
    assert_eq!(events.of("connect_failed").len(), ports.len());
    assert_eq!(
        events.all.len(),
        2 * ports.len(),
        "neither connected nor closed: {:#?}",
        events.all
    );
    for (event, to) in events.of("connect_failed").iter().zip(ports) {
        assert_eq!(event["errno"], "ECONNREFUSED", "{event}");
        assert_eq!(event["cause"], "error", "{event}");
        assert_eq!(event["rport"], to.port(), "{event}");
        assert_eq!(event["raddr"], to.ip().to_string(), "{event}");
        assert_eq!(
            event["pid"],
            std::process::id(),
            "a blocking connect handles the answer itself: {event}"
        );
        assert!(event["elapsed_ns"].is_u64(), "{event}");
    }
}

/// A listener whose accept queue is full answers no SYN.
pub fn black_hole(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    let port = namespace.run(|| {
        // One second, then two: as short as the kernel goes.
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: a listener of ours; listen(2) again sets the backlog.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let _in_the_queue = TcpStream::connect(address).unwrap();
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        address.port()
    });
    tracer.wait_for("connect_failed", 1);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("connect").len(), 2);
    let failed = events.one("connect_failed");
    assert_eq!(failed["errno"], "ETIMEDOUT", "{failed}");
    assert_eq!(failed["cause"], "error", "{failed}");
    assert_eq!(failed["rport"], port);
    assert!(failed["pid"].is_null(), "a timer did it: {failed}");
    assert!(failed["elapsed_ns"].as_u64().unwrap() > 1_000_000_000, "{failed}");
}

/// A non-blocking connect that is given up by close(2), and one by connect(AF_UNSPEC).
pub fn closed_early(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: a listener of ours; listen(2) again sets the backlog.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let _in_the_queue = TcpStream::connect(address).unwrap();
        drop(start_connect(address));
        let socket = start_connect(address);
        let nowhere = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as u16,
            sa_data: [0; 14],
        };
        // SAFETY: an address of that size.
        assert_eq!(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, 16) }, 0);
    });
    tracer.wait_for("connect_failed", 2);
    let events = tracer.stop();
    events.assert_whole();
    let failed = events.of("connect_failed");
    let causes: Vec<_> = failed.iter().map(|event| event["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["closed_by_caller", "disconnected"]);
    for event in failed {
        assert!(event["errno"].is_null(), "{event}");
        assert_eq!(event["pid"], std::process::id(), "{event}");
    }
}

/// A connect that is under way.
fn start_connect(to: SocketAddr) -> OwnedFd {
    let address = sockaddr(to);
    // SAFETY: plain socket calls with an address of the right size.
    unsafe {
        let fd = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        );
        assert!(fd >= 0);
        assert_eq!(libc::connect(fd, (&raw const address).cast(), 16), -1);
        assert_eq!(Error::last_os_error().raw_os_error(), Some(libc::EINPROGRESS));
        OwnedFd::from_raw_fd(fd)
    }
}

/// No SYN is sent to where no route leads.
pub fn no_route(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", KINDS]);
    let to: [SocketAddr; 3] =
        ["192.0.2.1:81", "[2001:db8::1]:82", "[::ffff:192.0.2.1]:83"].map(|to| to.parse().unwrap());
    namespace.run(move || {
        for to in to {
            let error = TcpStream::connect(to).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{to}");
        }
    });
    tracer.wait_for("connect_failed", to.len());
    let events = tracer.stop();
    events.assert_whole();
    let seen: Vec<_> = events
        .all
        .iter()
        .map(|event| {
            assert_eq!(event["event"], "connect_failed", "{event}");
            assert_eq!(event["errno"], "ENETUNREACH", "{event}");
            assert_eq!(event["cause"], "local", "{event}");
            assert_eq!(event["pid"], std::process::id(), "{event}");
            (
                event["raddr"].as_str().unwrap(),
                event["rport"].as_u64().unwrap(),
                event["mapped"] == true,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("192.0.2.1", 81, false),
            ("2001:db8::1", 82, false),
            ("192.0.2.1", 83, true)
        ]
    );
}
