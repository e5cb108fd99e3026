//! Listeners and handshakes of other kinds: each step once, and the right listener.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
};

use socket2::{Domain, Socket, Type};
use socklife::scene::{
    peer::Peer,
    queues::{listener, set_backlog, set_option, sysctl},
};

use super::*;
use crate::cases::data::kernel_knows;
use crate::harness::{Class, PATIENCE, helper::cookie, netstat::Netstat, say, tcp_info, until};

/// TCP Fast Open: the child is queued at the SYN, once, and was never half-open.
pub fn fastopen(class: Class) {
    const COUNT: usize = 3;
    let (namespace, tracer) = start(class);
    let clients = namespace.run(|| {
        // Client and server, no cookie asked, every listener.
        sysctl("tcp_fastopen", 0x607).unwrap();
        let listener = listener(V4, 8).unwrap();
        let SocketAddr::V4(server) = listener.local_addr().unwrap() else {
            panic!("IPv4")
        };
        let to = crate::harness::helper::sockaddr(SocketAddr::V4(server));
        (0..COUNT)
            .map(|_| {
                // SAFETY: a new socket, owned by a stream, and an address and data of the sizes that are named.
                let client = unsafe {
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
                    let sent = libc::sendto(
                        fd,
                        b"hello".as_ptr().cast(),
                        5,
                        libc::MSG_FASTOPEN,
                        (&raw const to).cast(),
                        16,
                    );
                    assert_eq!(sent, 5, "{}", std::io::Error::last_os_error());
                    TcpStream::from_raw_fd(fd)
                };
                let (_server, from) = listener.accept().unwrap();
                drop(client);
                from
            })
            .collect::<Vec<_>>()
    });
    tracer.wait_for("accepted", COUNT);
    let events = ended(tracer);
    for client in clients {
        let mut story = story(&events, client);
        // The callback that shows the SYN-ACK comes in front of the queue, or behind it.
        story.sort_by_key(|event| match event["event"].as_str().unwrap() {
            "synack_sent" => 0,
            "accept_queued" => 1,
            _ => 2,
        });
        assert_eq!(kinds(&story), ["synack_sent", "accept_queued", "accepted"]);
        assert_eq!(story[1]["by"], "fastopen");
        assert_eq!(story[1]["accept_queue"], 1, "{}", story[1]);
        assert!(story[1]["half_open_ns"].is_null(), "{}", story[1]);
        assert!(story[1]["listener"].is_u64() && story[1]["listener"] == story[2]["listener"]);
    }
    assert_eq!(events.all.len(), 3 * COUNT, "{:#?}", events.all);
}

/// TCP Fast Open with room for two, and peers that never send their ACK: what is refused for its queue, the SYN-ACK that a
/// child sends again, one that is reset before its handshake is done, and one that is accepted and closed before.
pub fn fastopen_early(class: Class) {
    const ROOM: i32 = 2;
    const REFUSED: usize = 3;
    const DATA: &[u8] = b"hello";
    let (namespace, tracer) = start_with(class, FASTOPEN_KINDS);
    let mut ends = Vec::new();
    for ip in [V4, V6] {
        let (peers, overflow) = namespace.run(move || {
            // The server's side, no cookie asked.
            sysctl("tcp_fastopen", 0x203).unwrap();
            let before = Netstat::now();
            let listener = listener(ip, 8).unwrap();
            set_option(&listener, libc::TCP_FASTOPEN, ROOM).unwrap();
            let server = listener.local_addr().unwrap();
            let peers: Vec<_> = (0..6).map(|number| Peer::new(server, number).unwrap()).collect();
            peers[..5].iter().for_each(|peer| peer.syn_with(DATA).unwrap());
            // This one does not ask for it.
            peers[5].syn().unwrap();
            peers[0].reset_behind(5).unwrap();
            let (_dead, dead) = listener.accept().unwrap();
            let (early, accepted) = listener.accept().unwrap();
            assert_eq!((dead, accepted), (peers[0].local, peers[1].local));
            assert!(until(PATIENCE, || tcp_info(&early).tcpi_total_retrans > 0));
            assert_eq!(tcp_info(&early).tcpi_state, 3, "SYN_RECV");
            drop(early);
            let overflow = Netstat::now().since(&before, "TCPFastOpenListenOverflow");
            (peers.iter().map(|peer| peer.local).collect::<Vec<_>>(), overflow)
        });
        assert_eq!(overflow, REFUSED as u64, "the kernel's own count");
        ends.push(peers);
    }
    tracer.wait_for("listener", 2);
    let events = ended(tracer);
    for peers in &ends {
        let kinds_of = |peer: usize| {
            let mut story = story(&events, peers[peer]);
            // The callback that shows the SYN-ACK comes in front of the queue, or behind it.
            story.sort_by_key(|event| match event["event"].as_str().unwrap() {
                "synack_sent" => 0,
                "accept_queued" => 1,
                _ => 2,
            });
            story
        };
        let reset = kinds_of(0);
        assert_eq!(kinds(&reset), ["synack_sent", "accept_queued", "closed", "accepted"]);
        assert_eq!(reset[2]["errno"], "ECONNRESET", "{}", reset[2]);
        assert_eq!(reset[3]["dead"], true, "{}", reset[3]);
        let early = kinds_of(1);
        assert_eq!(
            kinds(&early),
            [
                "synack_sent",
                "accept_queued",
                "accepted",
                "synack_retransmitted",
                "closed"
            ]
        );
        let again = early[3];
        assert_eq!(
            (&again["by"], &again["retransmit"]),
            (&"fastopen".into(), &1.into()),
            "{again}"
        );
        assert_eq!(again["listener"], early[1]["listener"]);
        for event in &early[1..] {
            assert_eq!(event["cookie"], early[1]["cookie"], "the child: {event}");
        }
        assert!(
            ns(early[4], "lifetime_ns") >= ns(again, "half_open_ns"),
            "{} {again}",
            early[4]
        );
        assert!(
            ns(again, "half_open_ns") >= ns(early[2], "accept_wait_ns"),
            "{again} {}",
            early[2]
        );
        for peer in 2..6 {
            assert_eq!(kinds(&kinds_of(peer))[..2], ["synack_sent", "syn_queued"], "{peer}");
        }
    }
    for listener in events.of("listener") {
        assert_eq!(listener["fastopen_refused_total"], REFUSED, "{listener}");
        assert_eq!(listener["dead_in_queue_total"], 1, "{listener}");
    }
}

const FASTOPEN_KINDS: &str = "syn_queued,synack_sent,synack_retransmitted,accept_queued,accepted,closed,listener";

/// `TCP_DEFER_ACCEPT`: the bare final ACK is dropped, which is no refusal and no loss. Data ends the deferral at once, or
/// the first SYN-ACK that is sent again does.
pub fn defer_accept(class: Class) {
    const COUNT: usize = 3;
    let (namespace, tracer) = start(class);
    let (spoke, silent, dropped) = namespace.run(|| {
        let before = Netstat::now();
        let listeners: Vec<_> = [V4, V6]
            .into_iter()
            .map(|ip| {
                let listener = listener(ip, 8).unwrap();
                // One timeout of a SYN-ACK.
                set_option(&listener, libc::TCP_DEFER_ACCEPT, 1).unwrap();
                listener
            })
            .collect();
        let mut spoke = Vec::new();
        for listener in &listeners {
            spoke.extend((0..COUNT).map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.write_all(b"hello").unwrap();
                listener.accept().unwrap().1
            }));
        }
        let clients: Vec<_> = listeners
            .iter()
            .map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
            .collect();
        let silent: Vec<_> = listeners.iter().map(|listener| listener.accept().unwrap().1).collect();
        drop(clients);
        (spoke, silent, Netstat::now().since(&before, "TCPDeferAcceptDrop"))
    });
    let deferred = spoke.len() + silent.len();
    assert_eq!(dropped, deferred as u64, "the kernel's own count");
    tracer.wait_for("accepted", deferred);
    let events = ended(tracer);
    assert_eq!(events.of("accept_deferred").len(), deferred);
    for (client, waited) in spoke
        .iter()
        .map(|client| (client, false))
        .chain(silent.iter().map(|client| (client, true)))
    {
        let story = story(&events, *client);
        let mut expected = vec![
            "syn_queued",
            "synack_sent",
            "accept_deferred",
            "accept_queued",
            "accepted",
        ];
        if waited {
            expected.insert(3, "synack_retransmitted");
            assert_eq!(story[3]["deferred"], true, "{}", story[3]);
        }
        assert_eq!(kinds(&story), expected);
        let (came, queued) = (story[2], story[expected.len() - 2]);
        assert_eq!(came["timeouts"], 1, "{came}");
        // Both were measured from the same SYN, the second in microseconds.
        let handshake = ns(queued, "half_open_ns") - ns(queued, "deferred_ns");
        assert_eq!(handshake / 1000, ns(came, "half_open_ns") / 1000, "{came} {queued}");
        let since = if waited {
            ns(story[3], "half_open_ns")
        } else {
            handshake
        };
        assert!(ns(queued, "half_open_ns") >= since, "{came} {queued}");
    }
    assert_eq!(events.all.len(), 5 * deferred + silent.len(), "{:#?}", events.all);
}

/// IPv4 peers of an IPv6 listener: IPv4 on the wire, and said so from the SYN on.
pub fn mapped(class: Class) {
    let (namespace, tracer) = start(class);
    let peers = namespace.run(|| {
        let listener = listener(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 64).unwrap();
        let server = SocketAddr::new(V4, listener.local_addr().unwrap().port());
        let peers: Vec<_> = (0..3).map(|number| Peer::half_open(server, number).unwrap()).collect();
        set_backlog(&listener, 0).unwrap();
        peers[0].ack().unwrap();
        peers[1].ack().unwrap();
        Peer::new(server, 7).unwrap().syn().unwrap();
        peers[2].reset().unwrap();
        peers.iter().map(|peer| peer.local).collect::<Vec<_>>()
    });
    tracer.wait_for("never_accepted", 1);
    tracer.wait_for("half_open_ended", 1);
    let events = ended(tracer);
    for event in &events.all {
        assert_eq!(
            (&event["family"], &event["mapped"]),
            (&4.into(), &true.into()),
            "{event}"
        );
        assert_eq!(event["laddr"], "127.0.0.1", "{event}");
    }
    let ends = ["never_accepted", "accept_refused", "half_open_ended"];
    for (peer, end) in peers.iter().zip(ends) {
        assert!(kinds(&story(&events, *peer)).contains(&end), "{end}: {:#?}", events.all);
    }
    assert_eq!(events.one("syn_refused")["cause"], "accept_queue_full");
}

/// Several listeners on one address: each event names the one that it is of.
pub fn reuseport(class: Class) {
    const COUNT: usize = 23;
    let (namespace, tracer) = start(class);
    let accepted = namespace.run(|| {
        let group: Vec<_> = (0..3).map(|_| group_member()).collect();
        assert!(
            group
                .iter()
                .all(|listener| listener.local_addr().unwrap().port() == GROUP_PORT)
        );
        let mut accepted = Vec::new();
        for _ in 0..COUNT {
            let client = TcpStream::connect((V4, GROUP_PORT)).unwrap();
            let taken = || {
                group.iter().find_map(|listener| {
                    let (server, from) = listener.accept().ok()?;
                    Some((from, cookie(server.as_raw_fd()), cookie(listener.as_raw_fd())))
                })
            };
            let mut found = None;
            assert!(until(PATIENCE, || {
                found = taken();
                found.is_some()
            }));
            accepted.push(found.unwrap());
            drop(client);
        }
        accepted
    });
    tracer.wait_for("accepted", COUNT);
    let events = ended(tracer);
    assert_eq!(events.all.len(), 4 * COUNT);
    for (client, child, listener) in accepted {
        let story = story(&events, client);
        assert_eq!(
            kinds(&story),
            ["syn_queued", "synack_sent", "accept_queued", "accepted"]
        );
        for event in story {
            assert_eq!(
                (&event["cookie"], &event["listener"]),
                (&child.into(), &listener.into()),
                "{event}"
            );
        }
    }
}

const GROUP_PORT: u16 = 7007;

/// A listener on the group's port that does not block.
fn group_member() -> TcpListener {
    let listener = group_member_at(SocketAddr::new(V4, GROUP_PORT));
    listener.set_nonblocking(true).unwrap();
    listener
}

fn group_member_at(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// What waits at a listener that is closed moves to another of its group: on its way it belongs to that one, with all the
/// time that it waited, and nothing ended.
pub fn migrated(class: Class) {
    const ACKS: u16 = 2;
    const TIMERS: u16 = 3;
    const MOVED: usize = (1 + ACKS + TIMERS) as usize;
    let (namespace, tracer) = start(class);
    // The sysctl is there in later releases of 5.10 as well, and does nothing.
    if !kernel_knows("reuseport_migrate_sock") {
        say("nothing moves in this kernel (5.14 and later)");
        return;
    }
    let accepted = namespace.run(|| {
        sysctl("tcp_migrate_req", 1).unwrap();
        let mut accepted = Vec::new();
        both(|ip| {
            let first = group_member_at(SocketAddr::new(ip, GROUP_PORT));
            let address = first.local_addr().unwrap();
            let before = Netstat::now();
            let waits = TcpStream::connect(address).unwrap();
            let mut peers: Vec<_> = (0..ACKS + TIMERS)
                .map(|number| Peer::half_open(address, number).unwrap())
                .collect();
            let second = group_member_at(address);
            drop(first);
            // The final ACK finds the other listener, or the timer of the SYN-ACK does.
            let (acks, timers) = peers.split_at_mut(ACKS.into());
            acks.iter().for_each(|peer| peer.ack().unwrap());
            for peer in timers.iter_mut() {
                peer.synack(PATIENCE).unwrap();
                peer.ack().unwrap();
            }
            for _ in 0..MOVED {
                let (server, from) = second.accept().unwrap();
                accepted.push((from, cookie(server.as_raw_fd()), cookie(second.as_raw_fd())));
            }
            let moved = Netstat::now().since(&before, "TCPMigrateReqSuccess");
            assert_eq!(moved, MOVED as u64, "the kernel's own count");
            let timers = timers.iter().map(|peer| peer.local);
            let rest = acks.iter().map(|peer| peer.local).chain([waits.local_addr().unwrap()]);
            let mut all: Vec<_> = timers.chain(rest).map(|local| local.port()).collect();
            let mut ports: Vec<_> = accepted
                .iter()
                .rev()
                .take(MOVED)
                .map(|(from, ..)| from.port())
                .collect();
            all.sort_unstable();
            ports.sort_unstable();
            assert_eq!(ports, all);
        });
        accepted
    });
    tracer.wait_for("accepted", 2 * MOVED);
    let events = ended(tracer);
    for kind in ["half_open_ended", "never_accepted", "syn_refused", "accept_refused"] {
        assert!(events.of(kind).is_empty(), "{:#?}", events.of(kind));
    }
    let again = events.of("synack_retransmitted").len();
    assert!(again >= 2 * usize::from(TIMERS), "{again}");
    assert_eq!(events.of("accepted").len(), 2 * MOVED);
    for (client, child, listener) in accepted {
        let story = story(&events, client);
        let of = |kind: &str| *story.iter().find(|event| event["event"] == kind).unwrap();
        let (queued, taken) = (of("accept_queued"), of("accepted"));
        assert_eq!((&queued["cookie"], &taken["cookie"]), (&child.into(), &child.into()));
        assert_eq!(taken["listener"], listener, "{taken}");
        // One waited in the accept queue already when it moved.
        let moved = client.port() >= 20_000 && client.port() < 20_000 + ACKS + TIMERS;
        assert_eq!(queued["listener"] == listener, moved, "{queued}");
        assert!(ns(queued, "half_open_ns") > 0 && ns(taken, "accept_wait_ns") > 0);
        assert!(ns(queued, "half_open_ns") <= ns(queued, "time_ns") - ns(of("syn_queued"), "time_ns"));
    }
}
