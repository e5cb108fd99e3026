//! SYN cookies: sent, brought back, forged, and brought back in vain.

use std::{net::TcpStream, os::fd::AsRawFd as _};

use socklife::scene::{
    peer::Peer,
    queues::{listener, sysctl},
};

use super::{super::data::kernel_names_the_socket, *};
use crate::harness::{Class, helper::cookie, netstat::Netstat};

/// The SYN queue is full, and cookies take its place.
pub fn syn_queue_full_cookies(class: Class) {
    let (namespace, tracer) = start(class);
    let (sent, mode, drops) = namespace.run(|| {
        sysctl("tcp_syncookies", 1).unwrap();
        let before = Netstat::now();
        both(|ip| {
            let listener = listener(ip, 2).unwrap();
            for number in 0..11 {
                Peer::new(listener.local_addr().unwrap(), number)
                    .unwrap()
                    .syn()
                    .unwrap();
            }
        });
        let after = Netstat::now();
        (
            after.since(&before, "SyncookiesSent"),
            after.since(&before, "TCPReqQFullDoCookies"),
            after.since(&before, "ListenDrops"),
        )
    });
    tracer.wait_for("cookie_sent", usize::try_from(sent).unwrap());
    let events = ended(tracer);
    assert!(sent > 0 && sent == mode && drops == 0, "{sent}, {mode}, {drops}");
    assert_eq!(events.of("cookie_sent").len() as u64, sent);
    assert_eq!(events.of("syn_queued").len() as u64, 22 - sent);
    assert_eq!(events.of("synack_sent").len() as u64, 22 - sent);
    assert_eq!(events.of("syn_refused").len(), 0);
}

/// Always cookies: no connection stands in the SYN queue.
pub fn cookies(class: Class) {
    const COUNT: usize = 5;
    let (namespace, tracer) = start(class);
    let clients = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        let mut clients = Vec::new();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            for _ in 0..COUNT {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, from) = listener.accept().unwrap();
                clients.push((from, cookie(server.as_raw_fd()), cookie(listener.as_raw_fd())));
                drop(client);
            }
        });
        let after = Netstat::now();
        let count = 2 * COUNT as u64;
        assert_eq!(after.since(&before, "SyncookiesSent"), count);
        assert_eq!(after.since(&before, "SyncookiesRecv"), count);
        clients
    });
    tracer.wait_for("accepted", 2 * COUNT);
    let events = ended(tracer);
    assert_eq!(events.all.len(), 4 * 2 * COUNT, "{:#?}", events.all);
    for (client, child, listener) in clients {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["cookie_sent", "cookie_accepted", "accept_queued", "accepted"]
        );
        assert!(story.iter().all(|event| event["listener"] == listener), "{story:#?}");
        assert!(story[0]["cookie"].is_null(), "nothing was queued: {}", story[0]);
        for event in &story[1..] {
            assert_eq!(event["cookie"], child, "{event}");
        }
        assert_eq!(story[2]["by"], "cookie");
        assert!(story[2]["half_open_ns"].is_null(), "{}", story[2]);
        assert!(ns(story[3], "accept_wait_ns") > 0);
    }
}

/// Whether this kernel, with this class of hooks, shows an ACK whose SYN cookie is not valid.
fn sees_cookie_acks(class: Class) -> bool {
    // The tracepoint at dropped segments names the receiver from 6.12 on.
    class != Class::Tracepoint || kernel_names_the_socket()
}

/// ACKs that claim to bring back a cookie.
pub fn forged_cookie(class: Class) {
    const COUNT: u16 = 3;
    let (namespace, tracer) = start(class);
    let failed = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        both(|ip| {
            let listener = listener(ip, 64).unwrap();
            let server = listener.local_addr().unwrap();
            Peer::new(server, 98).unwrap().syn().unwrap();
            for number in 0..COUNT {
                Peer::new(server, number).unwrap().forged_ack().unwrap();
            }
        });
        Netstat::now().since(&before, "SyncookiesFailed")
    });
    let seen = if sees_cookie_acks(class) {
        usize::try_from(failed).unwrap()
    } else {
        0
    };
    tracer.wait_for("cookie_rejected", seen);
    tracer.wait_for("cookie_sent", 2);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(failed, 2 * u64::from(COUNT), "the kernel's own count");
    if sees_cookie_acks(class) {
        events.assert_reconciled();
    } else {
        // A difference is said, with both numbers.
        let difference = "SyncookiesFailed 0 counted, the kernel says 6";
        assert!(events.stderr.contains(difference), "{}", events.stderr);
    }
    assert_eq!(events.of("cookie_rejected").len(), seen);
    assert_eq!(events.all.len(), 2 + seen, "{:#?}", events.all);
    for event in events.of("cookie_rejected") {
        assert!((20_000..20_000 + COUNT).contains(&port(event, "rport")), "{event}");
        assert!(event["listener"].is_u64(), "{event}");
    }
}

/// A valid cookie meets a full accept queue.
pub fn cookie_overflow(class: Class) {
    let (namespace, tracer) = start(class);
    let (peers, _listener) = namespace.run(|| {
        sysctl("tcp_syncookies", 2).unwrap();
        let before = Netstat::now();
        let (listener, peers) = squeezed(V4, 2);
        peers[0].ack().unwrap();
        peers[1].ack().unwrap();
        let after = Netstat::now();
        assert_eq!(after.since(&before, "SyncookiesSent"), 2);
        assert_eq!(after.since(&before, "SyncookiesRecv"), 2);
        assert_eq!(after.since(&before, "ListenOverflows"), 1);
        (peers.iter().map(|peer| peer.local).collect::<Vec<_>>(), listener)
    });
    let seen = usize::from(sees_cookie_acks(class));
    tracer.wait_for("accept_refused", seen);
    tracer.wait_for("accept_queued", 1);
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(
        kinds(&story(&events, peers[0])),
        ["cookie_sent", "cookie_accepted", "accept_queued"]
    );
    let second = story(&events, peers[1]);
    assert_eq!(kinds(&second), ["cookie_sent", "accept_refused"][..=seen].to_vec());
    if seen == 1 {
        assert_eq!(
            (&second[1]["answer"], &second[1]["by"]),
            (&"ignored".into(), &"cookie".into())
        );
    }
}
