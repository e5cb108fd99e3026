//! Accepts by io_uring: seen like any other where a function is hooked or where they come with a descriptor, and counted
//! where they do not.

use std::{
    io::ErrorKind,
    net::TcpStream,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use socklife::scene::queues::listener;

use super::*;
use crate::harness::{
    Class,
    helper::cookie,
    say,
    uring::{Accept, Uring},
};

/// Once, without end, and into slots that are no descriptors.
pub fn accepts(class: Class) {
    const ONCE: usize = 3;
    const MULTISHOT: usize = 5;
    const DIRECT: u32 = 2;
    let (namespace, tracer) = start_with(class, "accept_queued,accepted,accept_failed,never_accepted,listener");
    let Some((seen, direct, number)) = namespace.run(|| {
        let ring = Uring::new()?;
        let listener = listener(V4, 16).unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // SAFETY: a new descriptor.
        let own = |fd: i32| unsafe { OwnedFd::from_raw_fd(fd) };
        let mut seen = Vec::new();
        for _ in 0..ONCE {
            ring.accept(listener.as_raw_fd(), Accept::Once);
            let client = connect();
            let server = own(ring.result().unwrap());
            seen.push((
                client.local_addr().unwrap(),
                server.as_raw_fd(),
                cookie(server.as_raw_fd()),
            ));
        }
        ring.slots(DIRECT as usize);
        let mut direct = Vec::new();
        for slot in 0..DIRECT {
            ring.accept(listener.as_raw_fd(), Accept::Direct(slot));
            let client = connect();
            match ring.result() {
                // 5.10 takes no notice of the slot.
                Ok(fd @ 3..) => drop(own(fd)),
                Ok(_) => direct.push(client.local_addr().unwrap()),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL)),
            }
        }
        // Another ring: this one may be asked until it ends.
        let ring = Uring::new()?;
        ring.accept(listener.as_raw_fd(), Accept::Multishot);
        for _ in 0..MULTISHOT {
            let client = connect();
            match ring.result() {
                Ok(fd) => {
                    let server = own(fd);
                    seen.push((client.local_addr().unwrap(), fd, cookie(fd)));
                    drop(server);
                }
                // Before 5.19.
                Err(error) if error.kind() == ErrorKind::InvalidInput => break,
                Err(error) => panic!("{error}"),
            }
        }
        Some((seen, direct, cookie(listener.as_raw_fd())))
    }) else {
        say("no io_uring here");
        return;
    };
    tracer.wait_for("listener", 1);
    let events = ended(tracer);
    assert!(seen.len() >= ONCE, "{seen:?}");
    for (client, fd, child) in seen {
        let story = story(&events, client);
        assert_eq!(kinds(&story), ["accept_queued", "accepted"]);
        let accepted = story[1];
        assert_eq!(
            (&accepted["cookie"], &accepted["listener"], &accepted["pid"]),
            (&child.into(), &number.into(), &std::process::id().into()),
            "{accepted}"
        );
        assert!(ns(accepted, "accept_wait_ns") > 0);
        if class == Class::Tracepoint {
            assert_eq!(accepted["fd"], fd, "{accepted}");
        }
    }
    let unseen = if class == Class::Tracepoint { direct.len() } else { 0 };
    for client in &direct {
        let expected: &[_] = if unseen > 0 {
            &["accept_queued"]
        } else {
            &["accept_queued", "accepted"]
        };
        assert_eq!(kinds(&story(&events, *client)), expected);
    }
    let counted = events.one("listener");
    assert_eq!(counted["accept_unseen_total"], unseen, "{counted}");
    let said = events
        .stderr
        .contains(&format!("{unseen} accepts were not seen: io_uring?"));
    assert_eq!(said, unseen > 0, "{}", events.stderr);
}
