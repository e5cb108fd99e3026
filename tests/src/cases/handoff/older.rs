//! What was there before the trace.

use std::{net::TcpStream, os::fd::AsRawFd as _};

use super::{KINDS, connect, of};
use crate::harness::{
    Class, Namespace, Tracer,
    helper::cookie,
    serve::{Serve, ask},
};

/// A connection that a child serves already, and a server that waits in accept(2).
pub fn connections(class: Class) {
    let namespace = Namespace::new();
    let server = Serve::start(&namespace, &["127.0.0.1:0"], &[]);
    let (address, parent) = (server.addresses[0], server.pid());
    let (client, old, number) = namespace.run(move || {
        let mut client = TcpStream::connect(address).unwrap();
        let says = ask(&mut client);
        let number = cookie(client.as_raw_fd());
        (client, says, number)
    });
    let (idle, killed) = namespace.run(move || {
        let mut idle = TcpStream::connect(address).unwrap();
        let says = ask(&mut idle);
        (idle, says)
    });
    let tracer = Tracer::start(class, &namespace, &["-e", &format!("{KINDS},exited")]);
    let fd = client.as_raw_fd();
    // The child that serves it sees the end, and ends; no event told of it before.
    let child = i32::try_from(killed["pid"].as_u64().unwrap()).unwrap();
    let new = namespace.run(move || {
        drop(client);
        // SAFETY: a child of the server, which holds a connection and so has not ended.
        unsafe { libc::kill(child, libc::SIGKILL) };
        drop(idle);
        connect(address)
    });
    // Both ends of each.
    tracer.wait_for("last_close", 6);
    let events = tracer.stop();
    server.stop();
    events.assert_whole();

    for kind in ["accepted", "inherited", "handed_off", "finding"] {
        let told = of(&events, kind, &old);
        assert!(told.is_empty(), "{told:?}");
    }
    let closed = of(&events, "fd_closed", &old);
    let last = closed.last().unwrap();
    assert_eq!(
        (&last["pid"], &last["fd"], &last["left"]),
        (&old["pid"], &old["fd"], &0.into())
    );
    let ours: Vec<_> = events
        .of("fd_closed")
        .into_iter()
        .filter(|event| event["cookie"] == number)
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(
        (&ours[0]["pid"], &ours[0]["fd"], &ours[0]["left"]),
        (&std::process::id().into(), &fd.into(), &0.into())
    );
    // No event told of this process before: it was found at the start.
    let exits = events
        .of("exited")
        .into_iter()
        .filter(|event| event["pid"] == killed["pid"]);
    assert_eq!(exits.count(), 1, "{:?}", events.of("exited"));
    assert_eq!(of(&events, "last_close", &killed).len(), 1);
    let ended = of(&events, "last_close", &old);
    assert_eq!(ended.len(), 1, "{ended:?}");
    for event in closed.iter().chain(&ours).chain(&ended) {
        assert_eq!(event["born"], "before", "{event}");
    }
    for field in ["inode", "laddr", "lport", "raddr", "rport"] {
        assert_eq!(last[field], old[field], "{field}: {last}");
    }

    let handed = of(&events, "handed_off", &new);
    assert_eq!(handed.len(), 1, "{handed:?}");
    assert_eq!(
        (
            &handed[0]["from"]["pid"],
            &handed[0]["to"]["pid"],
            &handed[0]["to"]["fd"]
        ),
        (&parent.into(), &new["pid"], &new["fd"])
    );
    for kind in ["accepted", "inherited", "handed_off", "fd_closed", "last_close"] {
        let told = of(&events, kind, &new);
        assert!(
            !told.is_empty() && told.iter().all(|event| event["born"].is_null()),
            "{kind}: {told:?}"
        );
    }
}
