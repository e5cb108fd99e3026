//! `skb_dropped` and `rcvq_full`.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use socklife::scene::{
    data::{established, set_buffer},
    peer::{self, Peer},
    queues::{listener, sysctl},
};

use super::{
    LOOPBACKS, assert_reason, ended, has_drop_reasons, has_reset_reasons, ioctl, kernel_knows, kernel_names_the_socket,
    start,
};
use crate::harness::{Class, Namespace, PATIENCE, Tracer, socklife, until};

/// What receives TCP.
fn receiver(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "tcp_v4_rcv" } else { "tcp_v6_rcv" }
}

fn assert_ends(event: &Value, local: SocketAddr, remote: SocketAddr) {
    assert_eq!(
        (&event["laddr"], &event["lport"], &event["raddr"], &event["rport"]),
        (
            &local.ip().to_string().into(),
            &local.port().into(),
            &remote.ip().to_string().into(),
            &remote.port().into()
        ),
        "{event}"
    );
}

/// A port where nobody listens: one SYN dropped for each connect, one RST sent and one received.
pub fn closed_port(class: Class) {
    const COUNT: usize = 13;
    let (namespace, tracer) = start(class, "skb_dropped,reset_sent,reset_received,connect");
    let ports = namespace.run(|| {
        LOOPBACKS.map(|ip| {
            let server = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
            for _ in 0..COUNT {
                let error = TcpStream::connect(server).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            server
        })
    });
    tracer.wait_for("reset_received", 2 * COUNT);
    let events = ended(tracer);
    let clients: Vec<_> = events.of("connect");
    assert_eq!(clients.len(), 2 * COUNT);
    let dropped = events.of("skb_dropped");
    assert_eq!(dropped.len(), 2 * COUNT, "{dropped:#?}");
    let sent = events.of("reset_sent");
    let silent = class == Class::Tracepoint && !has_reset_reasons();
    assert_eq!(sent.len(), if silent { 0 } else { 2 * COUNT }, "{sent:#?}");
    let received = events.of("reset_received");
    assert_eq!(received.len(), 2 * COUNT);
    for (i, (event, client)) in dropped.iter().zip(&clients).enumerate() {
        let server = ports[i / COUNT];
        let client = SocketAddr::new(server.ip(), u16::try_from(client["lport"].as_u64().unwrap()).unwrap());
        assert_ends(event, server, client);
        assert_reason(event, "NO_SOCKET");
        assert_eq!(event["location"], receiver(server.ip()), "{event}");
        assert_eq!(
            (&event["direction"], &event["tcp_flags"], &event["len"]),
            (&"in".into(), &"SYN".into(), &0.into()),
            "{event}"
        );
        assert!(
            event["state"].is_null() && event["cookie"].is_null() && event["pid"].is_null(),
            "{event}"
        );
        assert_ends(received[i], client, server);
        assert_eq!(received[i]["state"], "SYN_SENT");
        assert_eq!(received[i]["cookie"], clients[i]["cookie"]);
        if !silent {
            assert_ends(sent[i], server, client);
            assert_eq!(sent[i]["answers"], true);
            assert!(sent[i]["state"].is_null(), "{}", sent[i]);
            let reason = sent[i]["reason"].as_str();
            assert_eq!(reason, has_reset_reasons().then_some("NO_SOCKET"), "{}", sent[i]);
        }
    }
}

/// `skb --drops` counts them in the kernel: by reason and place, to the last one.
pub fn summary(class: Class) {
    const COUNT: usize = 17;
    let namespace = Namespace::new();
    let mut command = socklife();
    command.args([
        "skb",
        "--drops",
        "-o",
        "json",
        "--interval",
        "60",
        "--hooks",
        class.name(),
    ]);
    command.args(["--netns", &namespace.inode.to_string()]);
    let tracer = Tracer::spawn(command);
    namespace.run(|| {
        for ip in LOOPBACKS {
            let server = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
            for _ in 0..COUNT {
                let error = TcpStream::connect(server).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        }
    });
    let events = ended(tracer);
    let rows = events.of("drops");
    assert_eq!(
        (rows.len(), events.all.len()),
        (2, 2),
        "one block, at the end: {:#?}",
        events.all
    );
    for (row, location) in rows.iter().zip(["tcp_v4_rcv", "tcp_v6_rcv"]) {
        assert_reason(row, "NO_SOCKET");
        assert_eq!(row["location"], location, "{row}");
        assert_eq!(
            (&row["segments"], &row["in_interval"]),
            (&COUNT.into(), &COUNT.into()),
            "{row}"
        );
        assert_eq!((&row["bytes"], &row["direction"]), (&0.into(), &"in".into()), "{row}");
    }
}

/// Drops everything (`BPF_RET | BPF_K`, 0).
fn refuse_all(socket: &impl AsFd) {
    let mut instruction = libc::sock_filter {
        code: 6,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut instruction,
    };
    // SAFETY: a program of one instruction, copied by the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).unwrap(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Segments that a socket filter refuses, and segments whose checksum is wrong: each is told, and none arrives.
pub fn refused_segments(class: Class) {
    const COUNT: u32 = 5;
    let (namespace, tracer) = start(class, "skb_dropped");
    let ends = namespace.run(|| {
        LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let (filtered, mut server) = established(&listener, 1).unwrap();
            refuse_all(&server);
            for _ in 0..COUNT {
                filtered.data(0, b"filtered").unwrap();
            }
            server.set_nonblocking(true).unwrap();
            assert_eq!(server.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            let (corrupted, mut server) = established(&listener, 2).unwrap();
            for _ in 0..COUNT {
                corrupted.corrupted(0, b"corrupt").unwrap();
            }
            server.set_nonblocking(true).unwrap();
            assert_eq!(server.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            let ends = (listener.local_addr().unwrap(), filtered.local, corrupted.local);
            corrupted.reset().unwrap();
            ends
        })
    });
    tracer.wait_for("skb_dropped", 4 * COUNT as usize);
    let events = ended(tracer);
    let with_data: Vec<_> = events
        .of("skb_dropped")
        .into_iter()
        .filter(|event| event["len"] != 0)
        .collect();
    assert_eq!(with_data.len(), 4 * COUNT as usize, "{:#?}", events.all);
    for (server, filtered, corrupted) in ends {
        for (peer, reason, len) in [(filtered, "SOCKET_FILTER", 8), (corrupted, "TCP_CSUM", 7)] {
            let of_peer = with_data.iter().filter(|event| {
                event["raddr"] == peer.ip().to_string() && event["rport"] == peer.port() && event["len"] == len
            });
            let of_peer: Vec<_> = of_peer.collect();
            assert_eq!(of_peer.len(), COUNT as usize, "{peer}: {:#?}", events.all);
            for event in of_peer {
                assert_ends(event, server, peer);
                assert_reason(event, reason);
                assert_eq!(event["location"], receiver(server.ip()), "{event}");
                assert_eq!(event["tcp_flags"], "PSH,ACK", "{event}");
            }
        }
    }
}

/// SYNs that a listener's filter refuses: the listener is named, where the kernel says so.
pub fn at_a_listener(class: Class) {
    const COUNT: u16 = 3;
    let (namespace, tracer) = start(class, "skb_dropped,listening");
    let ends = namespace.run(|| {
        LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            refuse_all(&listener);
            let server = listener.local_addr().unwrap();
            let peers = (0..COUNT).map(|number| {
                let peer = Peer::new(server, number).unwrap();
                peer.syn().unwrap();
                peer.local
            });
            (server, peers.collect::<Vec<_>>())
        })
    });
    tracer.wait_for("skb_dropped", 2 * usize::from(COUNT));
    let events = ended(tracer);
    let dropped = events.of("skb_dropped");
    assert_eq!(dropped.len(), 2 * usize::from(COUNT), "{:#?}", events.all);
    let sent = ends
        .iter()
        .flat_map(|(server, peers)| peers.iter().map(|peer| (*server, *peer)));
    for (event, (server, peer)) in dropped.into_iter().zip(sent) {
        assert_ends(event, server, peer);
        assert_reason(event, "SOCKET_FILTER");
        assert_eq!(event["tcp_flags"], "SYN", "{event}");
        if kernel_names_the_socket() {
            let listening = events.of("listening");
            let listener = listening
                .iter()
                .find(|listener| listener["lport"] == server.port())
                .unwrap();
            assert_eq!(
                (&event["state"], &event["cookie"]),
                (&"LISTEN".into(), &listener["cookie"]),
                "{event}"
            );
        } else {
            assert!(event["state"].is_null() && event["cookie"].is_null(), "{event}");
        }
    }
}

/// `tc qdisc replace dev lo root pfifo limit 0`: a queue that holds nothing.
fn queue_nothing() {
    const RTM_NEWQDISC: u16 = 36;
    const TC_H_ROOT: u32 = u32::MAX;
    const TCA_KIND: u16 = 1;
    const TCA_OPTIONS: u16 = 2;
    // `struct nlmsghdr`, `struct tcmsg`, two attributes; the last is `struct tc_fifo_qopt`.
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut message = Vec::new();
    message.extend(56_u32.to_ne_bytes());
    message.extend(RTM_NEWQDISC.to_ne_bytes());
    message.extend(u16::try_from(flags).unwrap().to_ne_bytes());
    message.extend([0; 8]);
    for word in [0, 1, 0, TC_H_ROOT, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend([10_u16.to_ne_bytes(), TCA_KIND.to_ne_bytes()].concat());
    message.extend(b"pfifo\0\0\0");
    message.extend([8_u16.to_ne_bytes(), TCA_OPTIONS.to_ne_bytes()].concat());
    message.extend(0_u32.to_ne_bytes());
    assert_eq!(message.len(), 56);
    let mut answer = [0_u8; 64];
    // SAFETY: plain socket calls with buffers of the sizes that are named.
    let errno = unsafe {
        let socket = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        );
        assert!(socket >= 0);
        assert_eq!(libc::send(socket, message.as_ptr().cast(), message.len(), 0), 56);
        assert!(libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0) >= 20);
        libc::close(socket);
        i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]])
    };
    assert_eq!(errno, 0, "{}", std::io::Error::from_raw_os_error(-errno));
}

/// One SYN, from this port, and no other: its sender gives up at once.
fn syn_unanswered(to: SocketAddr) -> u16 {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let under_way = socket.connect(&to.into()).unwrap_err();
    assert_eq!(under_way.raw_os_error(), Some(libc::EINPROGRESS));
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

/// What a qdisc drops: one line each, by the qdisc's own reason where the kernel has such (7.1 on), and never a bare number.
pub fn qdisc(class: Class) {
    const COUNT: usize = 7;
    let (namespace, tracer) = start(class, "skb_dropped");
    let sent = namespace.run(|| {
        queue_nothing();
        let each = LOOPBACKS.iter().flat_map(|ip| [*ip; COUNT]);
        each.map(|ip| syn_unanswered(SocketAddr::new(ip, 9)))
            .collect::<Vec<_>>()
    });
    tracer.wait_for("skb_dropped", sent.len());
    let events = ended(tracer);
    let dropped = events.of("skb_dropped");
    assert_eq!(dropped.len(), sent.len(), "{:#?}", events.all);
    let expected: &[&str] = if kernel_knows("QDISC_DROP_OVERLIMIT") {
        &["QDISC_DROP_GENERIC", "QDISC_DROP_OVERLIMIT"]
    } else if kernel_knows("SKB_DROP_REASON_QDISC_OVERLIMIT") {
        &["QDISC_OVERLIMIT", "QDISC_DROP"]
    } else if kernel_knows("SKB_DROP_REASON_QDISC_DROP") {
        &["QDISC_DROP"]
    } else {
        &[]
    };
    for (event, peer) in dropped.into_iter().zip(sent) {
        assert_eq!(event["tcp_flags"], "SYN", "{event}");
        let ports = [&event["lport"], &event["rport"]];
        assert!(ports.contains(&&peer.into()), "{event}");
        match event["reason"].as_str() {
            Some(reason) if has_drop_reasons() => {
                assert!(expected.is_empty() || expected.contains(&reason), "{event}");
            }
            reason => assert!(reason.is_none(), "{event}"),
        }
    }
}

/// A packet that no router may pass on any more.
pub fn last_hop(class: Class) {
    const COUNT: u16 = 7;
    let (namespace, tracer) = start(class, "skb_dropped");
    let sent = namespace.run(|| {
        for setting in ["ip_forward", "conf/all/rp_filter", "conf/lo/rp_filter"] {
            sysctl(setting, u32::from(setting == "ip_forward")).unwrap();
        }
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let targets: [SocketAddr; 2] = ["192.0.2.200:9", "[2001:db8::c8]:9"].map(|target| target.parse().unwrap());
        let each = targets
            .iter()
            .flat_map(|target| (0..COUNT).map(|number| (*target, number)));
        each.map(|(target, number)| {
            let peer = Peer::new(target, number).unwrap();
            peer.last_hop().unwrap();
            (target, peer.local)
        })
        .collect::<Vec<_>>()
    });
    tracer.wait_for("skb_dropped", sent.len());
    let events = ended(tracer);
    assert_eq!(events.all.len(), sent.len(), "{:#?}", events.all);
    for (event, (target, peer)) in events.of("skb_dropped").iter().zip(sent) {
        assert_ends(event, target, peer);
        assert_reason(event, "IP_INHDR");
        let router = if target.is_ipv4() { "ip_forward" } else { "ip6_forward" };
        assert_eq!(event["location"], router, "{event}");
        assert_eq!(event["tcp_flags"], "SYN");
    }
}

/// A receiver with no room: as many segments dropped as were sent in vain, and each says what the socket holds.
///
/// By addresses, not by namespace: before 6.11 the kernel does not say which socket it was, and TCP has taken device and
/// route away by then.
pub fn full_receiver(class: Class) {
    const NETWORKS: [&str; 2] = ["192.0.2.0/24", "2001:db8::/64"];
    for (ip, network) in LOOPBACKS.into_iter().zip(NETWORKS) {
        let namespace = Namespace::new();
        namespace.run(|| peer::prepare().unwrap());
        let mut command = socklife();
        command.args(["trace", "-o", "json", "--hooks", class.name(), "--addr", network]);
        command.args(["--event", "skb_dropped,rcvq_full"]);
        full(ip, &namespace, Tracer::spawn(command));
    }
}

fn full(ip: IpAddr, namespace: &Namespace, tracer: Tracer) {
    const COUNT: u32 = 5;
    const LEN: u32 = 512;
    let (server, peer, taken) = namespace.run(move || {
        let listener = listener(ip, 8).unwrap();
        set_buffer(&listener, libc::SO_RCVBUF, 1).unwrap();
        let (peer, server) = established(&listener, 3).unwrap();
        let mut taken = 0;
        // In order, until one is refused.
        loop {
            peer.data(taken, &[0; LEN as usize]).unwrap();
            let unread = u32::try_from(ioctl(&server, libc::FIONREAD)).unwrap();
            if unread == taken {
                break;
            }
            taken = unread;
        }
        for _ in 1..COUNT {
            peer.data(taken, &[0; LEN as usize]).unwrap();
            assert_eq!(ioctl(&server, libc::FIONREAD), u64::from(taken));
        }
        peer.reset().unwrap();
        (listener.local_addr().unwrap(), peer.local, taken)
    });
    if has_drop_reasons() {
        tracer.wait_for("rcvq_full", COUNT as usize);
    }
    let events = ended(tracer);
    assert!(taken > 0);
    let of = |kind: &str| {
        let all = events.of(kind).into_iter();
        all.filter(|event| event["len"] == LEN).collect::<Vec<_>>()
    };
    let (dropped, full) = (of("skb_dropped"), of("rcvq_full"));
    // Before there were reasons, TCP dropped without a word (`tcp_drop`).
    let count = if has_drop_reasons() { COUNT as usize } else { 0 };
    assert_eq!((dropped.len(), full.len()), (count, count), "{:#?}", events.all);
    for (dropped, full) in dropped.iter().zip(full) {
        assert_ends(dropped, server, peer);
        assert_ends(full, server, peer);
        assert_eq!(full["reason"], dropped["reason"]);
        // From 6.11 on the kernel says which socket it was.
        assert_eq!(full["cookie"].is_u64(), kernel_names_the_socket(), "{full}");
        if full["cookie"].is_u64() {
            assert_eq!(full["netns"], namespace.inode);
            assert_eq!(dropped["state"], "ESTABLISHED");
            assert_eq!(full["unread"], taken, "{full}");
            assert!(full["rmem_alloc"].as_u64() >= Some(u64::from(taken)), "{full}");
            assert!(full["rcvbuf"].is_u64(), "{full}");
        } else {
            assert!(full["netns"].is_null() && full["unread"].is_null(), "{full}");
            assert!(dropped["state"].is_null(), "{dropped}");
        }
    }
}

/// `proc_pid_net(5)`: local port and state.
fn is_in_fin_wait2(port: u16) -> bool {
    let sockets =
        ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap());
    sockets.iter().flat_map(|table| table.lines()).any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && words.nth(1) == Some("05")
    })
}

/// Nothing is dropped where nothing went wrong, however the kernel frees what is used up.
pub fn nothing_dropped(class: Class) {
    const COUNT: usize = 101;
    let (namespace, tracer) = start(
        class,
        "skb_dropped,retransmitted,reset_sent,reset_received,rcvq_full,closed",
    );
    namespace.run(|| {
        for ip in LOOPBACKS {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            for _ in 0..COUNT {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                client.write_all(&[1; 1009]).unwrap();
                let mut bytes = [0; 1009];
                server.read_exact(&mut bytes).unwrap();
                server.write_all(&bytes).unwrap();
                client.read_exact(&mut bytes).unwrap();
                drop(client);
                assert_eq!(server.read(&mut bytes).unwrap(), 0);
            }
            // The client's end is a timewait sock by the time the server closes.
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let port = client.local_addr().unwrap().port();
            drop(client);
            assert!(until(PATIENCE, || is_in_fin_wait2(port)));
            drop(server);
        }
    });
    const CLOSED: usize = 4 * (COUNT + 1);
    tracer.wait_for("closed", CLOSED);
    let events = ended(tracer);
    assert_eq!(events.of("closed").len(), CLOSED);
    // On a machine that is slow, TCP sends again what was only late; that it came twice is a drop.
    let again = events.of("retransmitted").len();
    let twice = |event: &Value| {
        event["event"] == "skb_dropped" && event["len"] == 1009 && (event["reason"] == "TCP_OLD_DATA" || again > 0)
    };
    let expected = |event: &Value| event["event"] == "closed" || event["event"] == "retransmitted" || twice(event);
    let trouble: Vec<_> = events.all.iter().filter(|event| !expected(event)).collect();
    assert!(trouble.is_empty(), "{trouble:#?}");
    assert!(
        events.of("skb_dropped").len() <= again,
        "{:#?}",
        events.of("skb_dropped")
    );
}
