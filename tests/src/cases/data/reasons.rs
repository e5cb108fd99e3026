//! The kernel's reasons, and what they mean.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use socklife::{
    kernel::meanings::{self, DROPS, Meaning, RESETS},
    scene::queues::set_option,
};

use super::{LOOPBACKS, ended, has_reset_reasons, start};
use crate::harness::{Class, PATIENCE, reset, tcp_info, until};

/// As TCP_INFO has it.
const FIN_WAIT2: u8 = 5;

/// What no TCP segment meets, and what is no reason.
const OTHERS: [&str; 9] = [
    "UNIX_",
    "CAN",
    "UDP_CSUM",
    "ICMP_CSUM",
    "IPV6_NDISC_",
    "SUBSYS",
    "MAX",
    "QDISC_DROP_REASON",
    "QDISC_DROP_MAX",
];

/// Each reason that this kernel has is explained.
pub fn explained() {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let words: Vec<_> = btf
        .split(|byte| *byte == 0)
        .filter_map(|word| str::from_utf8(word).ok())
        .collect();
    let unexplained = |prefix: &str, kept: &str, table: &'static [Meaning]| {
        let names = words
            .iter()
            .filter_map(|word| word.strip_prefix(prefix))
            .map(|name| format!("{kept}{name}"));
        let names = names.filter(|name| !OTHERS.iter().any(|other| name.starts_with(other)));
        let (known, unknown): (Vec<_>, Vec<_>) = names.partition(|name| meanings::of(table, name).is_some());
        assert!(unknown.is_empty(), "nothing tells what these mean: {unknown:?}");
        known.len()
    };
    let drops = unexplained("SKB_DROP_REASON_", "", DROPS);
    let resets = unexplained("SK_RST_REASON_", "", RESETS);
    unexplained("QDISC_DROP_", "QDISC_DROP_", DROPS);
    // As many as there are where there are any.
    assert!(drops == 0 || drops > 50, "{drops}");
    assert!(resets == 0 || resets > 20, "{resets}");
}

/// A way to give a connection up, and what that is called.
type GivenUp = (fn(&TcpListener), &'static str, &'static str);

const THROWN_AWAY: &str = "thrown away: SO_LINGER 0, disconnected, its listener closed, or ss --kill";

const WAYS: [GivenUp; 5] = [
    (unread, "TCP_ABORT_ON_CLOSE", "closed with data that was not read"),
    (no_linger, "TCP_STATE", THROWN_AWAY),
    (disconnected, "TCP_STATE", THROWN_AWAY),
    (left_by_its_listener, "TCP_STATE", THROWN_AWAY),
    (
        no_linger2,
        "TCP_ABORT_ON_LINGER",
        "closed, and TCP_LINGER2 gives the peer no time to close too",
    ),
];

/// Each way to give a connection up has its name, and that its meaning.
pub fn given_up(class: Class) {
    let (namespace, tracer) = start(class, "reset_sent");
    namespace.run(|| {
        for (give_up, ..) in WAYS {
            LOOPBACKS.iter().for_each(|ip| give_up(&listening(*ip)));
        }
    });
    tracer.wait_for("reset_sent", WAYS.len() * LOOPBACKS.len());
    let events = ended(tracer);
    // An ACK may be on its way, and meet nobody any more: that is answered.
    let mut sent = events.of("reset_sent");
    sent.retain(|event| event["answers"] == false);
    assert_eq!(sent.len(), WAYS.len() * LOOPBACKS.len(), "{:#?}", events.all);
    let expected = WAYS.iter().flat_map(|way| LOOPBACKS.iter().map(move |_| way));
    for (event, (_, reason, means)) in sent.iter().zip(expected) {
        let told = has_reset_reasons();
        assert_eq!(event["reason"].as_str(), told.then_some(*reason), "{event}");
        assert_eq!(event["means"].as_str(), told.then_some(*means), "{event}");
    }
}

fn listening(ip: IpAddr) -> TcpListener {
    TcpListener::bind((ip, 0)).unwrap()
}

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn unread(listener: &TcpListener) {
    let (mut client, server) = pair(listener);
    client.write_all(&[1; 13]).unwrap();
    assert_eq!(server.peek(&mut [0; 13]).unwrap(), 13);
    drop(server);
}

fn no_linger(listener: &TcpListener) {
    let (_client, server) = pair(listener);
    reset(server);
}

/// connect(2) with `AF_UNSPEC`.
fn disconnected(listener: &TcpListener) {
    let (client, _server) = pair(listener);
    // SAFETY: all zeroes is a value of it.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let len = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap();
    // SAFETY: an address of that size, for a socket that is open.
    let done = unsafe { libc::connect(client.as_raw_fd(), &raw const nowhere, len) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// One that waits in the accept queue when its listener is closed.
fn left_by_its_listener(listener: &TcpListener) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // SAFETY: a listener that is open; its descriptor stays.
    assert_eq!(unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) }, 0);
    assert!(client.read(&mut [0; 1]).is_err());
}

/// Closed before the peer is.
fn no_linger2(listener: &TcpListener) {
    let (mut client, server) = pair(listener);
    set_option(&server, libc::TCP_LINGER2, -1).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    // Its FIN is acknowledged: FIN_WAIT2.
    let acknowledged = || tcp_info(&server).tcpi_state == FIN_WAIT2;
    assert!(until(PATIENCE, acknowledged));
    drop(server);
}
