//! What waits, what only seems to, and accept(2) that fails.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
};

use serde_json::json;
use socklife::scene::{
    peer::{self, Peer},
    queues::{failing_accept, listener},
};

use super::*;
use crate::harness::{
    Class, PATIENCE,
    helper::{cookie, sockaddr},
    netstat::Netstat,
    reset, until,
};

/// accept(2) by the descriptor, with a place for the address; its errno where it fails.
fn accept(listener: &TcpListener, address: usize) -> Result<TcpStream, i32> {
    let mut len: libc::socklen_t = 16;
    // SAFETY: the address is null or none; a new descriptor is owned by a stream.
    unsafe {
        let fd = libc::accept(listener.as_raw_fd(), address as *mut _, &raw mut len);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
        }
        Ok(TcpStream::from_raw_fd(fd))
    }
}

/// So many descriptors, and not one more, while this runs.
fn with_descriptors<T>(most: libc::rlim_t, act: impl FnOnce() -> T) -> T {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a limit of this process, read and written.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let less = libc::rlimit {
            rlim_cur: most,
            ..limit
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const less), 0);
        let done = act();
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        done
    }
}

/// accept(2) that fails is told each time, with its errno, and counted; one that finds nobody is neither.
pub fn accept_fails(class: Class) {
    const EMFILE: usize = 13;
    let (namespace, tracer) = start_with(class, "accept_failed,accepted,listener");
    let servers = namespace.run(|| {
        let mut servers = Vec::new();
        both(|ip| {
            let listener = listener(ip, 8).unwrap();
            let server = listener.local_addr().unwrap();
            listener.set_nonblocking(true).unwrap();
            for _ in 0..11 {
                assert_eq!(accept(&listener, 0).err(), Some(libc::EAGAIN));
            }
            let _client = TcpStream::connect(server).unwrap();
            with_descriptors(3, || {
                for _ in 0..EMFILE {
                    assert_eq!(accept(&listener, 0).err(), Some(libc::EMFILE));
                }
            });
            for _ in 0..3 {
                failing_accept(&listener).unwrap();
            }
            // An address that is none: the connection is accepted, and closed.
            let mut failed = None;
            let fails = || {
                failed = accept(&listener, 8).err();
                failed != Some(libc::EAGAIN)
            };
            assert!(until(PATIENCE, fails));
            assert_eq!(failed, Some(libc::EFAULT));
            servers.push((server, listener.as_raw_fd(), cookie(listener.as_raw_fd())));
        });
        servers
    });
    tracer.wait_for("listener", 2);
    let events = ended(tracer);
    for (server, fd, number) in servers {
        let failed: Vec<_> = events
            .of("accept_failed")
            .into_iter()
            .filter(|event| event["lport"] == server.port() && event["laddr"] == server.ip().to_string())
            .collect();
        let mut errnos: Vec<_> = failed.iter().map(|event| event["errno"].as_str().unwrap()).collect();
        errnos.dedup();
        assert_eq!(
            (failed.len(), &errnos[..]),
            (EMFILE + 4, &["EMFILE", "EINVAL", "EFAULT"][..])
        );
        for event in &failed {
            assert_eq!(
                (&event["cookie"], &event["listener"], &event["pid"], &event["fd"]),
                (&number.into(), &number.into(), &std::process::id().into(), &fd.into()),
                "{event}"
            );
            let limit = if event["errno"] == "EMFILE" {
                json!(3)
            } else {
                Value::Null
            };
            assert_eq!(event["limit"], limit, "{event}");
            let waits = u64::from(event["errno"] != "EFAULT");
            assert_eq!(event["accept_queue"], waits, "{event}");
        }
        let counted = events
            .of("listener")
            .into_iter()
            .find(|event| event["cookie"] == number);
        assert_eq!(
            counted.unwrap()["accept_failed_total"],
            json!({"EMFILE": EMFILE, "EINVAL": 3, "EFAULT": 1})
        );
    }
}

/// Two of three are reset while they wait. accept(2) takes the first all the same; the listener is closed over the others.
pub fn dead(class: Class) {
    let (namespace, tracer) = start_with(class, "accept_queued,accepted,never_accepted,listener");
    let stories = namespace.run(|| {
        let mut stories = Vec::new();
        both(|ip| {
            let before = Netstat::now();
            let listener = listener(ip, 8).unwrap();
            let server = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(server).unwrap()).collect();
            peer::settle().unwrap();
            let ends: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
            let mut clients = clients.into_iter();
            for client in clients.by_ref().take(2) {
                reset(client);
            }
            let resets = || Netstat::now().since(&before, "EstabResets") >= 2;
            assert!(until(PATIENCE, resets));
            let accepted = accept(&listener, 0).unwrap();
            assert!(accepted.peer_addr().is_err(), "it was reset");
            stories.push((cookie(listener.as_raw_fd()), cookie(accepted.as_raw_fd()), ends));
            drop(listener);
        });
        stories
    });
    tracer.wait_for("listener", 2);
    let events = ended(tracer);
    for (listener, child, ends) in stories {
        let told: Vec<_> = ends.iter().map(|end| story(&events, *end)).collect();
        let kinds: Vec<_> = told.iter().map(|story| kinds(story)).collect();
        let never = ["accept_queued", "never_accepted"];
        assert_eq!(kinds, [&["accept_queued", "accepted"], &never, &never]);
        let accepted = told[0][1];
        assert_eq!(
            (&accepted["dead"], &accepted["errno"], &accepted["cookie"]),
            (&true.into(), &"ECONNRESET".into(), &child.into()),
            "{accepted}"
        );
        let (dead, waited) = (ns(accepted, "dead_for_ns"), ns(accepted, "accept_wait_ns"));
        assert!(dead > 0 && dead < waited, "{accepted}");
        for story in &told[1..] {
            assert_eq!(
                (&story[1]["listener"], &story[1]["pid"], &story[1]["cookie"]),
                (&listener.into(), &std::process::id().into(), &story[0]["cookie"]),
                "{story:#?}"
            );
            assert!(ns(story[1], "accept_wait_ns") > 0);
        }
        let counted = events
            .of("listener")
            .into_iter()
            .find(|event| event["cookie"] == listener);
        let of = |name: &str| counted.unwrap()[name].as_u64();
        let names = [
            "accept_queued_total",
            "accepted_total",
            "never_accepted_total",
            "dead_in_queue_total",
            "accept_unseen_total",
        ];
        assert_eq!(names.map(of), [3, 1, 2, 2, 0].map(Some), "{counted:?}");
    }
}

/// A socket bound to an address that begins to connect, and does not wait for it.
pub fn connecting(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let (from, to) = (sockaddr(from), sockaddr(to));
    // SAFETY: a new socket, owned by a stream, and addresses of the size that is named.
    unsafe {
        let fd = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        );
        let stream = TcpStream::from_raw_fd(fd);
        assert_eq!(libc::bind(fd, (&raw const from).cast(), 16), 0);
        libc::connect(fd, (&raw const to).cast(), 16);
        stream
    }
}

/// What connects to itself, or to a peer that connects at the same time, is nobody's child and in no queue.
pub fn no_child(class: Class) {
    let (namespace, tracer) = start_with(
        class,
        "connected,established,accept_queued,accepted,never_accepted,closed,finding",
    );
    let (itself, other) = namespace.run(|| {
        let itself = SocketAddr::new(V4, 4001);
        let stream = connecting(itself, itself);
        assert!(until(PATIENCE, || stream.peer_addr().is_ok()));
        let number = cookie(stream.as_raw_fd());
        drop(stream);
        let here = SocketAddr::new(V4, 4002);
        let mut peer = Peer::new(here, 1).unwrap();
        let stream = connecting(here, peer.local);
        peer.syn().unwrap();
        peer.synack(PATIENCE).unwrap();
        peer.ack().unwrap();
        assert!(until(PATIENCE, || stream.peer_addr().is_ok()));
        let other = cookie(stream.as_raw_fd());
        reset(stream);
        (number, other)
    });
    tracer.wait_for("closed", 2);
    let events = ended(tracer);
    let of = |cookie: u64| {
        let mut of_it: Vec<_> = events.all.iter().filter(|event| event["cookie"] == cookie).collect();
        of_it.sort_by_key(|event| event["time_ns"].as_u64());
        of_it
    };
    assert_eq!(kinds(&of(itself)), ["connected", "finding", "closed"]);
    assert_eq!(kinds(&of(other)), ["connected", "closed"]);
    let finding = events.one("finding");
    assert_eq!(finding["finding"], "connected_to_itself");
    // In softirq nobody is named.
    let holder = &finding["holder"]["pid"];
    assert!(holder.is_null() || *holder == std::process::id(), "{finding}");
    assert!(
        events
            .of("connected")
            .iter()
            .all(|event| event["handshake_ns"].is_u64())
    );
    assert_eq!(events.all.len(), 5, "{:#?}", events.all);
}
