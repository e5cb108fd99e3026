//! `socklife sockets --queues`: what each queue holds, exactly, held against what the sockets' owner asks the kernel, and
//! what `/proc/net/tcp` and `ss` print.

pub mod dwell;

use std::{
    io::{Error, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use socklife::scene::{
    data::{Stalled, established, set_buffer},
    has_ipv6,
    peer::{self, Peer},
    queues::listener,
};

use super::sockets::{V4, V6, inode, lines, proc_net_tcp, queued};
use crate::harness::{Namespace, PATIENCE, socklife, until};

/// Prime numbers.
const UNREAD: usize = 12_347;
const READ: usize = 1009;
const PIECE: usize = 101;
/// Segments before the first ACK (RFC 6928).
const PIECES: usize = 10;
/// As many of a queue as are looked at, and more.
const MOST: u64 = 256;
const MANY: u32 = 307;

/// `SIOCOUTQNSD`: bytes that are written and not sent.
const UNSENT: libc::Ioctl = 0x894b;

fn families() -> Vec<IpAddr> {
    if has_ipv6() { vec![V4, V6] } else { vec![V4] }
}

/// The line of a socket of this process.
fn line(namespace: u32, socket: &TcpStream) -> Value {
    let inode = inode(socket);
    let all = lines(namespace, &["--queues"]);
    all.into_iter()
        .find(|line| line["inode"] == inode)
        .expect("it is shown")
}

/// Number, bytes and memory of a queue, and whether there are more.
fn held(line: &Value, queue: &str) -> (u64, u64, u64, bool) {
    let queue = &line["queues"][queue];
    let number = |name: &str| queue[name].as_u64().unwrap();
    (
        number("skbs"),
        number("bytes"),
        number("truesize"),
        queue["at_least"] == true,
    )
}

fn number(line: &Value, name: &str) -> u64 {
    line["queues"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {line}"))
}

/// What the kernel tells the owner of a socket: unread, not acknowledged, not sent.
fn witness(socket: &TcpStream) -> [u64; 3] {
    [libc::TIOCINQ, libc::TIOCOUTQ, UNSENT].map(|what| queued(socket, what).try_into().unwrap())
}

/// The same, as it is shown.
fn shown(line: &Value) -> [u64; 3] {
    let (recv_q, send_q) = (line["recv_q"].as_u64().unwrap(), line["send_q"].as_u64().unwrap());
    assert_eq!(number(line, "unsent") + number(line, "in_flight"), send_q, "{line}");
    [recv_q, send_q, number(line, "unsent")]
}

/// Each of these is shown as its owner sees it, and as the kernel prints it.
fn agree(namespace: &Namespace, sockets: &[&TcpStream]) {
    for socket in sockets {
        let mut difference = None;
        // A probe of a closed window may come between two looks.
        until(PATIENCE, || {
            difference = differs(namespace, socket);
            difference.is_none()
        });
        assert_eq!(difference, None);
    }
}

/// What is not the same.
fn differs(namespace: &Namespace, socket: &TcpStream) -> Option<String> {
    let line = line(namespace.inode, socket);
    let (ours, theirs) = (shown(&line), witness(socket));
    if ours != theirs {
        return Some(format!("{ours:?} {theirs:?}: {line}"));
    }
    let ours = format!(" {} {} {}", line["recv_q"], line["send_q"], inode(socket));
    let theirs = namespace.run(proc_net_tcp);
    if !theirs.iter().any(|line| line.ends_with(&ours)) {
        return Some(format!("{ours}: {theirs:?}"));
    }
    let theirs = skmem(namespace)?;
    let ours = format!(
        "{} {} {} {} r{},rb{},t{},tb{},f{},w{},d{}",
        line["recv_q"],
        line["send_q"],
        socket.local_addr().unwrap(),
        socket.peer_addr().unwrap(),
        number(&line, "rmem_alloc"),
        number(&line, "rcvbuf"),
        number(&line, "wmem_alloc"),
        number(&line, "sndbuf"),
        line["queues"]["forward_alloc"],
        number(&line, "wmem_queued"),
        number(&line, "drops")
    );
    (!theirs.contains(&ours)).then(|| format!("{ours}\n{theirs:#?}"))
}

/// `ss -tmn`, where there is one: the queues, both ends and the memory of each connection.
fn skmem(namespace: &Namespace) -> Option<Vec<String>> {
    let output = namespace.run(|| Command::new("ss").args(["-tmnHO"]).output()).ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let memory = words[5].strip_prefix("skmem:(").unwrap().trim_end_matches(')');
        let wanted: Vec<_> = memory
            .split(',')
            .filter(|word| !word.starts_with('o') && !word.starts_with("bl"))
            .collect();
        format!(
            "{} {} {} {} {}",
            words[1],
            words[2],
            words[3],
            words[4],
            wanted.join(",")
        )
    });
    Some(lines.collect())
}

/// A connection over loopback; the first is its client.
fn pair(ip: IpAddr) -> (TcpStream, TcpStream) {
    let listener = listener(ip, 8).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A receiver that does not read, then one that reads a part.
pub fn unread() {
    for ip in families() {
        let namespace = Namespace::new();
        let (mut client, mut server) = namespace.run(move || pair(ip));
        client.write_all(&vec![b'x'; UNREAD]).unwrap();
        assert!(until(PATIENCE, || witness(&client)[1] == 0));
        agree(&namespace, &[&client, &server]);
        let line = line(namespace.inode, &server);
        let (skbs, bytes, truesize, at_least) = held(&line, "receive_queue");
        assert!(skbs > 0 && !at_least, "{line}");
        assert_eq!(
            (line["recv_q"].as_u64(), bytes),
            (Some(UNREAD as u64), UNREAD as u64),
            "{line}"
        );
        // Nothing else is charged for what was received.
        assert_eq!(truesize, number(&line, "rmem_alloc"), "{line}");
        for queue in ["out_of_order_queue", "backlog", "write_queue", "retransmit_queue"] {
            assert_eq!(held(&line, queue), (0, 0, 0, false), "{line}");
        }
        assert!(line["queues"]["window_closed"].is_null(), "{line}");
        assert_eq!(line["holders"][0]["fd"], server.as_raw_fd(), "{line}");
        server.read_exact(&mut [0; READ]).unwrap();
        agree(&namespace, &[&client, &server]);
        let line = self::line(namespace.inode, &server);
        assert_eq!(line["recv_q"], UNREAD - READ, "{line}");
        assert!(held(&line, "receive_queue").1 >= (UNREAD - READ) as u64, "{line}");
    }
}

/// A receiver that does not read, until its sender may send no more.
pub fn window_closed() {
    for ip in families() {
        let namespace = Namespace::new();
        let stalled = namespace.run(move || Stalled::new(ip).unwrap());
        let (sender, receiver) = (&stalled.sender, &stalled.receiver);
        let look = || [sender, receiver].map(|socket| line(namespace.inode, socket));
        assert!(
            until(PATIENCE, || look()[0]["queues"]["peer_window_closed"] == true),
            "{:?}",
            look()
        );
        agree(&namespace, &[sender, receiver]);
        let [of_sender, of_receiver] = look();
        // Each byte is at one end or at the other.
        let (send_q, recv_q) = (&of_sender["send_q"], &of_receiver["recv_q"]);
        assert_eq!(
            send_q.as_u64().unwrap() + recv_q.as_u64().unwrap(),
            stalled.written as u64,
            "{of_sender} {of_receiver}"
        );
        let (skbs, bytes, truesize, at_least) = held(&of_sender, "write_queue");
        assert!(skbs > 0 && !at_least && truesize > bytes, "{of_sender}");
        assert_eq!(bytes, number(&of_sender, "unsent"), "{of_sender}");
        assert_eq!(number(&of_sender, "send_window"), 0, "{of_sender}");
        assert_eq!(of_sender["queues"]["limited_by"], "rwnd", "{of_sender}");
        assert_eq!(of_receiver["queues"]["window_closed"], true, "{of_receiver}");
        assert_eq!(number(&of_receiver, "receive_window"), 0, "{of_receiver}");
        assert!(of_receiver["queues"]["peer_window_closed"].is_null(), "{of_receiver}");
        text(&namespace, sender, receiver);
    }
}

/// The same as text, in columns that line up.
fn text(namespace: &Namespace, sender: &TcpStream, receiver: &TcpStream) {
    let args = ["sockets", "--queues", "--netns", &namespace.inode.to_string()];
    let output = socklife().args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for title in [
        "RPORT",
        "RECV-Q",
        "OOO",
        "RMEM/RCVBUF",
        "SEND-Q",
        "UNSENT",
        "AGE",
        "WMEM/SNDBUF",
    ] {
        let end = lines[1].find(title).unwrap() + title.len();
        assert!(
            lines[1..]
                .iter()
                .all(|line| line.as_bytes()[end - 1] != b' ' && line.as_bytes()[end] == b' '),
            "{title}: {text}"
        );
    }
    for (socket, note) in [
        (sender, "the peer's window is closed"),
        (receiver, "its window is closed"),
    ] {
        let holder = format!("[{}] fd {}; {note}", std::process::id(), socket.as_raw_fd());
        assert!(lines.iter().any(|line| line.contains(&holder)), "{holder}: {text}");
    }
}

/// Sends a piece that the next is not appended to.
fn send_piece(socket: &TcpStream, bytes: &[u8]) {
    // SAFETY: bytes of the length that is named.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_EOR | libc::MSG_DONTWAIT,
        )
    };
    assert_eq!(sent, bytes.len().cast_signed(), "{}", Error::last_os_error());
}

/// A peer that acknowledges nothing: what is sent waits in the retransmit queue, a tree, and what is more than may be sent
/// at first in the write queue.
pub fn not_acknowledged() {
    for ip in families() {
        let namespace = Namespace::new();
        let (_peer, server) = forged(&namespace, ip, 0);
        server.set_nodelay(true).unwrap();
        let began = Instant::now();
        for _ in 0..PIECES + 1 {
            send_piece(&server, &[b'y'; PIECE]);
        }
        agree(&namespace, &[&server]);
        let line = line(namespace.inode, &server);
        let (skbs, bytes, truesize, at_least) = held(&line, "retransmit_queue");
        assert_eq!(
            (skbs, bytes, at_least),
            (PIECES as u64, (PIECES * PIECE) as u64, false),
            "{line}"
        );
        let (unsent, unsent_bytes, unsent_truesize, _) = held(&line, "write_queue");
        assert_eq!((unsent, unsent_bytes), (1, PIECE as u64), "{line}");
        assert_eq!(truesize + unsent_truesize, number(&line, "wmem_queued"), "{line}");
        let oldest = &line["queues"]["retransmit_queue"]["oldest_ns"];
        assert!(oldest.as_u64().unwrap() <= nanos(began.elapsed()), "{line}");
        assert!(line["queues"]["write_queue"]["oldest_ns"].is_null(), "{line}");
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap()
}

/// A connection with a peer that no kernel stands behind, and room for so many bytes.
fn forged(namespace: &Namespace, ip: IpAddr, room: i32) -> (Peer, TcpStream) {
    namespace.run(move || {
        peer::prepare().unwrap();
        let listener = listener(ip, 8).unwrap();
        if room > 0 {
            set_buffer(&listener, libc::SO_RCVBUFFORCE, room).unwrap();
        }
        established(&listener, 1).unwrap()
    })
}

/// Segments that come before their turn wait in another tree, until the one that is missing comes.
pub fn out_of_order() {
    for ip in families() {
        let namespace = Namespace::new();
        let (peer, server) = forged(&namespace, ip, 0);
        // With holes between them: nothing is joined.
        let peer = namespace.run(move || {
            for number in [5, 1, 3] {
                peer.data(number * 100, &[b'z'; 50]).unwrap();
            }
            peer
        });
        agree(&namespace, &[&server]);
        let line = line(namespace.inode, &server);
        let (skbs, bytes, truesize, at_least) = held(&line, "out_of_order_queue");
        assert_eq!((skbs, bytes, at_least), (3, 150, false), "{line}");
        assert_eq!(truesize, number(&line, "rmem_alloc"), "{line}");
        assert_eq!(
            (&line["recv_q"], held(&line, "receive_queue").0),
            (&0.into(), 0),
            "{line}"
        );
        let text = namespaced_text(&namespace);
        assert!(text.contains("a segment is missing"), "{text}");
        let peer = namespace.run(move || {
            for (from, to) in [(0, 100), (150, 300), (350, 500)] {
                peer.data(from, &vec![b'z'; to - from as usize]).unwrap();
            }
            peer
        });
        let line = self::line(namespace.inode, &server);
        assert_eq!(
            (&line["recv_q"], held(&line, "out_of_order_queue").0),
            (&550.into(), 0),
            "{line}"
        );
        agree(&namespace, &[&server]);
        drop(peer);
    }
}

fn namespaced_text(namespace: &Namespace) -> String {
    let args = ["sockets", "--queues", "--netns", &namespace.inode.to_string()];
    String::from_utf8(socklife().args(args).output().unwrap().stdout).unwrap()
}

/// Queues that are longer than what is looked at: of a list the number is known all the same, of a tree the least.
pub fn long_queues() {
    let namespace = Namespace::new();
    let (peer, server) = forged(&namespace, V4, 4 << 20);
    let (peer, sender) = namespace.run(move || {
        for number in 1..=MANY {
            peer.data(number * 2, b"z").unwrap();
        }
        (peer, forged_sender())
    });
    let line = line(namespace.inode, &server);
    let (skbs, bytes, _, at_least) = held(&line, "out_of_order_queue");
    assert!(
        (MOST..=MANY.into()).contains(&skbs) && skbs == bytes && at_least,
        "{line}"
    );
    let (_other, sender) = sender;
    for _ in 0..MANY {
        send_piece(&sender, b"y");
    }
    let line = self::line(namespace.inode, &sender);
    let (sent, ..) = held(&line, "retransmit_queue");
    let (skbs, bytes, _, at_least) = held(&line, "write_queue");
    assert_eq!((sent + skbs, bytes, at_least), (MANY.into(), MOST, true), "{line}");
    assert_eq!(line["send_q"], MANY, "{line}");
    let text = namespaced_text(&namespace);
    assert!(text.contains("+ "), "{text}");
    drop(peer);
}

/// A connection whose peer acknowledges nothing.
fn forged_sender() -> (Peer, TcpStream) {
    let listener = listener(V4, 8).unwrap();
    let (peer, server) = established(&listener, 2).unwrap();
    server.set_nodelay(true).unwrap();
    set_buffer(&server, libc::SO_SNDBUFFORCE, 4 << 20).unwrap();
    (peer, server)
}

/// Where somebody wants to know when packets come, the age of what waits to be read is known.
pub fn age_of_unread() {
    let namespace = Namespace::new();
    let _wants = stamped();
    let began = Instant::now();
    let known = || {
        let (mut client, server) = namespace.run(|| pair(V4));
        client.write_all(b"x").unwrap();
        assert!(until(PATIENCE, || witness(&server)[0] == 1));
        let line = line(namespace.inode, &server);
        line["queues"]["receive_queue"]["oldest_ns"].as_u64()
    };
    // The kernel begins a moment later.
    let mut age = None;
    assert!(until(PATIENCE, || {
        age = known();
        age.is_some()
    }));
    assert!(age.unwrap() <= nanos(began.elapsed()), "{age:?}");
}

/// A socket that wants to know when packets come.
fn stamped() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let on: i32 = 1;
    // SAFETY: an option of the size that is named.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMP,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(done, 0);
    socket
}
