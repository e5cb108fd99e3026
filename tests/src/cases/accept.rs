//! accept(2) in its varieties.

use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use crate::harness::{
    Class, Namespace, PATIENCE, Tracer,
    helper::{Server, client, cookie},
    say, until,
};

/// Threads that wait in accept(2) when the tracer attaches: their first accept counts like any other.
pub fn waiting_already(class: Class) {
    const COUNT: usize = 7;
    let namespace = Namespace::new();
    let server = namespace.run(|| Server::start(&["127.0.0.1:0", "[::1]:0"], COUNT));
    let pid = server.pid();
    let both_wait = until(PATIENCE, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let waiting = tasks.filter(|task| {
            let call = std::fs::read_to_string(task.as_ref().unwrap().path().join("syscall")).unwrap_or_default();
            let number = call.split(' ').next().and_then(|number| number.parse().ok());
            number == Some(libc::SYS_accept4) || number == Some(libc::SYS_accept)
        });
        waiting.count() == 2
    });
    assert!(both_wait, "the server does not wait");
    let tracer = Tracer::start(class, &namespace, &["--event", "established,accepted"]);
    for address in server.addresses.clone() {
        namespace.run(move || (0..COUNT).for_each(|_| _ = client(address, 3)));
    }
    tracer.wait_for("accepted", 2 * COUNT);
    let served = server.finish();
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("established").len(), 2 * COUNT);
    let accepted = events.of("accepted");
    assert_eq!(accepted.len(), 2 * COUNT);
    for seen in &served {
        let mut of_it = accepted.iter().filter(|event| event["cookie"] == seen.cookie);
        let event = of_it.next().unwrap();
        assert_eq!(event["pid"], pid, "{event}");
        assert!(of_it.next().is_none(), "{event}");
    }
}

/// An accept(2) that finds nobody is no event.
pub fn would_block(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "accepted"]);
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        for _ in 0..11 {
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(until(PATIENCE, || listener.accept().is_ok()));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
    tracer.wait_for("accepted", 1);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.one("accepted")["pid"], std::process::id());
}

/// MPTCP's own socket is no TCP socket: what is seen are its subflows, each once.
pub fn mptcp(class: Class) {
    const COUNT: usize = 5;
    // SAFETY: a socket that is closed at once.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        say(&format!(
            "note: {}::mptcp: this kernel has no MPTCP; a TCP server stands in",
            class.name()
        ));
    } else {
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
    let kind = if fd < 0 { "server" } else { "mptcp-server" };
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["--event", "established,accepted,closed,state"]);
    let server = namespace.run(move || Server::start_with(kind, &["127.0.0.1:0"], COUNT));
    let (pid, address) = (server.pid(), server.addresses[0]);
    let clients = namespace.run(move || (0..COUNT).map(|i| client(address, i)).collect::<Vec<_>>());
    tracer.wait_for("closed", 2 * COUNT);
    server.finish();
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(events.of("established").len(), COUNT);
    assert_eq!(events.of("closed").len(), 2 * COUNT);
    let accepted = events.of("accepted");
    assert_eq!(accepted.len(), COUNT, "{accepted:#?}");
    for (event, client) in accepted.iter().zip(&clients) {
        assert_eq!(event["pid"], pid, "{event}");
        assert_eq!(event["rport"], client.local.port(), "{event}");
    }
    // A TCP client against it is one socket with one end.
    let ends = events
        .of("state")
        .iter()
        .filter(|event| event["oldstate"] == "LAST_ACK")
        .count();
    assert_eq!(ends, COUNT);
}

/// A listener that is older than the trace, and that nobody asked for its cookie: its accepts name it all the same.
pub fn old_listener() {
    // Where the kernel cannot list its sockets, only trampolines can make an old socket's cookie.
    let listable = sock_diag();
    for class in Class::ALL.into_iter().filter(|class| class.refused().is_none()) {
        let namespace = Namespace::new();
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let tracer = Tracer::start(class, &namespace, &["--event", "accepted"]);
        let listener = namespace.run(move || {
            for _ in 0..3 {
                let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                listener.accept().unwrap();
            }
            listener
        });
        tracer.wait_for("accepted", 3);
        let events = tracer.stop();
        events.assert_whole();
        assert_eq!(events.of("accepted").len(), 3);
        let cookie = cookie(listener.as_raw_fd());
        for event in events.of("accepted") {
            if listable {
                assert_eq!(event["listener"], cookie, "{class:?}: {event}");
            } else {
                assert!(
                    event["listener"].is_null() || event["listener"] == cookie,
                    "{class:?}: {event}"
                );
            }
        }
    }
}

/// Whether this kernel lists TCP sockets for `ss`.
fn sock_diag() -> bool {
    // A dump of TCP over IPv4 through NETLINK_SOCK_DIAG: without a handler the first answer is an error.
    let mut request = [0_u8; 72];
    request[0] = 72;
    request[4] = 20;
    request[6..8].copy_from_slice(&0x301_u16.to_ne_bytes());
    request[16] = 2;
    request[17] = 6;
    request[20..24].fill(0xff);
    let mut answer = [0_u8; 8192];
    // SAFETY: a socket that is closed here, and buffers of the sizes that are named.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 4);
        if fd < 0 {
            return false;
        }
        libc::send(fd, request.as_ptr().cast(), request.len(), 0);
        let read = libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0);
        libc::close(fd);
        // NLMSG_ERROR
        read > 6 && answer[4] != 2
    }
}
