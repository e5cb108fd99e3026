//! `reset_sent` and `reset_received` of connections.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use socklife::scene::data::established;

use super::{LOOPBACKS, ended, has_reset_reasons, start};
use crate::harness::{Class, netstat::Netstat, reset};

/// One end gives up: the other had bytes that it did not read.
pub fn aborted(class: Class) {
    const COUNT: usize = 7;
    const BYTES: usize = 11;
    let (namespace, tracer) = start(class, "connected,reset_sent,reset_received,skb_dropped");
    let before = namespace.run(Netstat::now);
    namespace.run(|| {
        for ip in LOOPBACKS {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            for _ in 0..COUNT {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, _) = listener.accept().unwrap();
                client.write_all(&[1; BYTES]).unwrap();
                reset(client);
                drop(server);
            }
        }
    });
    tracer.wait_for("reset_received", 2 * COUNT);
    let events = ended(tracer);
    let out = namespace.run(Netstat::now).since(&before, "OutRsts");
    let (answers, sent): (Vec<_>, Vec<_>) = events
        .of("reset_sent")
        .into_iter()
        .partition(|sent| sent["answers"] == true);
    let received = events.of("reset_received");
    assert_eq!(
        (sent.len(), received.len()),
        (2 * COUNT, 2 * COUNT),
        "{:#?}",
        events.all
    );
    // A RST that is obeyed is used up. An ACK of the bytes may be on its way, and meet nobody: it is dropped, and answered.
    let (late, dropped) = (out - sent.len() as u64, events.of("skb_dropped"));
    assert!(
        answers.len() as u64 <= late && dropped.len() as u64 <= late,
        "the kernel sent {out} RSTs: {:#?}",
        events.all
    );
    let clients = events.of("connected");
    for ((sent, received), client) in sent.iter().zip(received).zip(clients) {
        assert_eq!(sent["cookie"], client["cookie"]);
        assert_eq!((&sent["lport"], &sent["rport"]), (&client["lport"], &client["rport"]));
        assert_eq!(sent["pid"], std::process::id(), "{sent}");
        // docs/trouble.md tells what SO_LINGER without time is called.
        let reason = has_reset_reasons().then_some("TCP_STATE");
        assert_eq!(sent["reason"].as_str(), reason, "{sent}");
        assert_eq!(
            (&received["lport"], &received["rport"]),
            (&client["rport"], &client["lport"])
        );
        assert_eq!(received["state"], "ESTABLISHED", "{received}");
        assert_eq!(
            (&received["unread"], &received["unacknowledged"]),
            (&BYTES.into(), &0.into())
        );
    }
}

/// The keepalive timer gives up, on whatever CPU and in whosever time: nobody did it.
pub fn by_timer(class: Class) {
    const COUNT: u16 = 3;
    let (namespace, tracer) = start(class, "established,reset_sent");
    let sockets: Vec<_> = namespace.run(|| {
        let peers = LOOPBACKS.iter().flat_map(|ip| {
            let listener = TcpListener::bind((*ip, 0)).unwrap();
            (0..COUNT).map(move |number| {
                let (peer, socket) = established(&listener, number).unwrap();
                let often = TcpKeepalive::new().with_time(Duration::from_secs(1));
                let often = often.with_interval(Duration::from_secs(1)).with_retries(1);
                SockRef::from(&socket).set_tcp_keepalive(&often).unwrap();
                (socket, peer.local.port())
            })
        });
        peers.collect()
    });
    // Whoever computes there is interrupted.
    let done = AtomicBool::new(false);
    let events = thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        tracer.wait_for("reset_sent", sockets.len());
        done.store(true, Relaxed);
        ended(tracer)
    });
    let sent = events.of("reset_sent");
    assert_eq!(sent.len(), sockets.len(), "{:#?}", events.all);
    for (_, port) in &sockets {
        let sent: Vec<_> = sent.iter().filter(|event| event["rport"] == *port).collect();
        assert_eq!(sent.len(), LOOPBACKS.len(), "{:#?}", events.all);
        for event in sent {
            assert!(event["pid"].is_null() && event["comm"].is_null(), "{event}");
            assert_eq!(
                (&event["answers"], &event["state"]),
                (&false.into(), &"ESTABLISHED".into())
            );
        }
    }
}
