//! `retransmitted`.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use socklife::scene::{
    data::established,
    peer::Peer,
    queues::{listener, set_option, sysctl},
};

use super::{LOOPBACKS, ended, start};
use crate::harness::{Class, PATIENCE, netstat::Netstat, tcp_info, until};

fn total(socket: &TcpStream) -> u32 {
    tcp_info(socket).tcpi_total_retrans
}

/// Data that is never acknowledged: as many events as the kernel counts, of the same bytes, by timeouts that are numbered.
pub fn unanswered(class: Class) {
    const BYTES: usize = 17;
    let (namespace, tracer) = start(class, "retransmitted,accepted");
    let counted = namespace.run(|| {
        LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let (peer, mut server) = established(&listener, 4).unwrap();
            server.write_all(&[1; BYTES]).unwrap();
            assert!(until(PATIENCE, || total(&server) >= 3));
            peer.reset().unwrap();
            // Nothing is sent any more.
            (peer.local, total(&server))
        })
    });
    tracer.wait_for("retransmitted", counted.iter().map(|(_, total)| *total as usize).sum());
    let events = ended(tracer);
    for (peer, total) in counted {
        let of = |kind: &str| {
            let all = events.of(kind).into_iter();
            let its = all.filter(|event| event["raddr"] == peer.ip().to_string() && event["rport"] == peer.port());
            its.collect::<Vec<_>>()
        };
        let again = of("retransmitted");
        assert_eq!(again.len(), total as usize, "{:#?}", events.all);
        let mut timeouts = 0;
        for event in again {
            assert_eq!(event["cookie"], of("accepted")[0]["cookie"]);
            assert_eq!((&event["len"], &event["state"]), (&BYTES.into(), &"ESTABLISHED".into()));
            assert_eq!(event["tcp_flags"], "PSH,ACK", "{event}");
            assert!(event["errno"].is_null() && event["pid"].is_null(), "{event}");
            if event["cause"] == "timeout" {
                timeouts += 1;
                assert_eq!(event["timeouts"], timeouts, "{event}");
            } else {
                // Before the first timeout.
                assert_eq!(
                    (event["cause"].as_str(), timeouts),
                    (Some("tail_loss_probe"), 0),
                    "{event}"
                );
            }
        }
        assert!(timeouts >= 2, "{:#?}", events.all);
    }
}

/// A SYN and a FIN that nobody answers: no byte of data is sent again.
pub fn without_data(class: Class) {
    let (namespace, tracer) = start(class, "connect,retransmitted");
    let (syns, fins) = namespace.run(|| {
        let each = LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let (peer, server) = established(&listener, 4).unwrap();
            let again = || total(&server) >= 1;
            server.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(until(PATIENCE, again));
            peer.reset().unwrap();
            // Nobody is there, and nobody says so.
            let nobody = Peer::new(listener.local_addr().unwrap(), 5).unwrap().local;
            let patience = Duration::from_millis(1500);
            let given_up = TcpStream::connect_timeout(&nobody, patience).unwrap_err();
            assert_eq!(given_up.kind(), ErrorKind::TimedOut);
            (nobody.port(), (peer.local.port(), total(&server)))
        });
        (each.map(|(syn, _)| syn), each.map(|(_, fin)| fin))
    });
    tracer.wait_for(
        "retransmitted",
        2 + fins.iter().map(|(_, total)| *total as usize).sum::<usize>(),
    );
    let events = ended(tracer);
    let again = events.of("retransmitted");
    assert!(again.iter().all(|event| event["len"] == 0), "{again:#?}");
    let of = |port: u16, flags: &str, state: &str| {
        let all = again.iter().filter(|event| event["rport"] == port);
        let its = all.filter(|event| event["tcp_flags"] == flags && event["state"] == state);
        its.count()
    };
    for port in syns {
        assert_eq!(of(port, "SYN", "SYN_SENT"), 2, "one over each protocol: {again:#?}");
    }
    let total: u32 = fins.iter().map(|(_, total)| total).sum();
    assert_eq!(of(fins[0].0, "FIN,ACK", "FIN_WAIT1"), total as usize, "{again:#?}");
}

/// What is sent again though no timeout was waited for: a SYN that meets the server's end of an older connection, and the
/// data of a SYN that TCP Fast Open does not take.
pub fn hurried(class: Class) {
    const DATA: &[u8] = b"hello";
    let (namespace, tracer) = start(class, "connect,retransmitted");
    let (syns, datas, failed) = namespace.run(|| {
        let before = Netstat::now();
        let syns = LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let server = listener.local_addr().unwrap();
            let old = TcpStream::connect(server).unwrap();
            let (_held, client) = listener.accept().unwrap();
            // Its end closes without a word to the other.
            set_option(&old, libc::TCP_REPAIR, 1).unwrap();
            drop(old);
            let again = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
            again.set_reuse_address(true).unwrap();
            again.bind(&client.into()).unwrap();
            again.connect(&server.into()).unwrap();
            client.port()
        });
        // The client's side, without a cookie.
        sysctl("tcp_fastopen", 0x5).unwrap();
        let datas = LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let server = listener.local_addr().unwrap();
            let client = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
            let sent = client.send_to_with_flags(DATA, &server.into(), libc::MSG_FASTOPEN);
            assert_eq!(sent.unwrap(), DATA.len());
            let (mut accepted, client) = listener.accept().unwrap();
            let mut came = [0; DATA.len()];
            accepted.read_exact(&mut came).unwrap();
            assert_eq!(came, DATA);
            client.port()
        });
        let failed = Netstat::now().since(&before, "TCPFastOpenActiveFail");
        (syns, datas, failed)
    });
    assert_eq!(failed, 2, "the kernel's own count");
    tracer.wait_for("retransmitted", syns.len() + datas.len());
    let events = ended(tracer);
    let again = events.of("retransmitted");
    assert_eq!(again.len(), syns.len() + datas.len(), "{again:#?}");
    let one = |port: u16| {
        let its = again.iter().filter(|event| event["lport"] == port);
        let [event] = its.collect::<Vec<_>>()[..] else {
            panic!("{again:#?}")
        };
        let figures = (event["len"].as_u64().unwrap(), event["tcp_flags"].as_str().unwrap());
        (event["cause"].as_str().unwrap(), figures)
    };
    for port in syns {
        assert_eq!(one(port), ("challenge_ack", (0, "SYN")));
    }
    for port in datas {
        assert_eq!(one(port), ("syn_data_not_acked", (DATA.len() as u64, "PSH,ACK")));
    }
}

/// A peer vanishes: which timer gave up is told.
pub fn timers(class: Class) {
    const TIMERS: [&str; 3] = ["keepalive", "user_timeout", "retransmission"];
    let (namespace, tracer) = start(class, "closed");
    let mut sockets = namespace.run(|| {
        sysctl("tcp_retries2", 2).unwrap();
        let of_each = LOOPBACKS.iter().flat_map(|ip| {
            let listener = TcpListener::bind((*ip, 0)).unwrap();
            TIMERS.iter().enumerate().map(move |(number, timer)| {
                let (peer, mut socket) = established(&listener, number as u16).unwrap();
                let often = TcpKeepalive::new().with_time(Duration::from_secs(1));
                let often = often.with_interval(Duration::from_secs(1)).with_retries(1);
                match *timer {
                    "keepalive" => SockRef::from(&socket).set_tcp_keepalive(&often).unwrap(),
                    "user_timeout" => {
                        let most = Some(Duration::from_millis(700));
                        SockRef::from(&socket).set_tcp_user_timeout(most).unwrap();
                    }
                    _ => {}
                }
                if *timer != "keepalive" {
                    socket.write_all(b"hello").unwrap();
                }
                (*timer, peer, socket)
            })
        });
        of_each.collect::<Vec<_>>()
    });
    thread::scope(|scope| {
        for (timer, _, socket) in &mut sockets {
            scope.spawn(move || {
                let gone = socket.read(&mut [0]).unwrap_err();
                assert_eq!(gone.kind(), ErrorKind::TimedOut, "{timer}");
            });
        }
    });
    tracer.wait_for("closed", sockets.len());
    let events = ended(tracer);
    assert_eq!(events.of("closed").len(), sockets.len(), "{:#?}", events.all);
    for (timer, peer, _) in sockets {
        let its = |event: &&&serde_json::Value| {
            event["rport"] == peer.local.port() && event["raddr"] == peer.local.ip().to_string()
        };
        let closed = events.of("closed");
        let closed = closed.iter().find(its).unwrap();
        assert_eq!(
            (&closed["timer"], &closed["errno"], &closed["closed_by"]),
            (&timer.into(), &"ETIMEDOUT".into(), &"timeout".into()),
            "{closed}"
        );
        assert!(closed["pid"].is_null(), "{closed}");
    }
}
