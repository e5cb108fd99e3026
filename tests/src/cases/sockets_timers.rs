//! Which timer of a connection runs, and how long nothing went over it: held against what the kernel prints.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use socklife::scene::{
    data::{Stalled, established},
    peer,
    queues::{listener, set_option},
};

use super::sockets::{V4, V6};
use crate::harness::{Namespace, PATIENCE, socklife, tcp_info, until};

/// Milliseconds that nothing goes over it before anybody looks.
const IDLE: u32 = 50;
/// Longer than TIME_WAIT, or the kernel keeps no sock for it.
const FIN_TIMEOUT: i32 = 100;

/// Four connections of this family, each with another timer, and one with none.
struct Scene {
    /// Ports of both ends, and the timer's name.
    timers: BTreeMap<(u16, u16), &'static str>,
    /// Nothing goes over it.
    idle: TcpStream,
    _rest: (TcpListener, Vec<TcpStream>, Stalled, peer::Peer),
}

impl Scene {
    fn new(ip: IpAddr, number: u16) -> Self {
        let listener = listener(ip, 8).unwrap();
        let pair = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            (client, server)
        };
        let ports = |socket: &TcpStream| (socket.local_addr().unwrap().port(), socket.peer_addr().unwrap().port());
        let (idle, idle_server) = pair();
        let (kept, kept_server) = pair();
        let hours = TcpKeepalive::new().with_time(Duration::from_secs(3600));
        SockRef::from(&kept).set_tcp_keepalive(&hours).unwrap();
        let (mut finished, finishing) = pair();
        set_option(&finishing, libc::TCP_LINGER2, FIN_TIMEOUT).unwrap();
        finishing.shutdown(Shutdown::Write).unwrap();
        assert_eq!(finished.read(&mut [0]).unwrap(), 0);
        let stalled = Stalled::new(ip).unwrap();
        let (silent, mut unanswered) = established(&listener, number).unwrap();
        unanswered.write_all(b"is anybody there?").unwrap();
        let timers = BTreeMap::from([
            (ports(&idle), "none"),
            (ports(&idle_server), "none"),
            (ports(&kept), "keepalive"),
            (ports(&kept_server), "none"),
            (ports(&finished), "none"),
            (ports(&finishing), "fin_wait2"),
            (ports(&stalled.sender), "window_probe"),
            (ports(&stalled.receiver), "none"),
            (ports(&unanswered), "retransmission"),
        ]);
        drop(finishing);
        Self {
            timers,
            idle,
            _rest: (
                listener,
                vec![idle_server, kept, kept_server, finished, unanswered],
                stalled,
                silent,
            ),
        }
    }

    /// Since anything went over it, as TCP_INFO has it, in milliseconds.
    fn idle_ms(&self) -> u32 {
        let info = tcp_info(&self.idle);
        info.tcpi_last_data_sent
            .min(info.tcpi_last_data_recv)
            .min(info.tcpi_last_ack_recv)
    }
}

/// Every timer, and none.
pub fn each() {
    let namespace = Namespace::new();
    let scenes = namespace.run(|| {
        peer::prepare().unwrap();
        [Scene::new(V4, 1), Scene::new(V6, 2)]
    });
    // The sender's window is closed, and probed for the first time, after what it has sent is acknowledged.
    let expected = scenes
        .iter()
        .flat_map(|scene| scene.timers.clone())
        .collect::<BTreeMap<_, _>>();
    assert!(
        until(PATIENCE, || namespace.run(printed) == expected),
        "{:?}",
        namespace.run(printed)
    );
    assert!(until(PATIENCE, || scenes.iter().all(|scene| scene.idle_ms() >= IDLE)));
    let before = scenes.each_ref().map(Scene::idle_ms);
    let mut command = socklife();
    command.args(["sockets", "-o", "json", "--netns", &namespace.inode.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = scenes.each_ref().map(Scene::idle_ms);
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let key = |line: &Value| Some((port(&line["lport"])?, port(&line["rport"])?));
    let shown: BTreeMap<_, _> = lines
        .iter()
        .filter_map(|line| Some((key(line)?, line["timer"].as_str()?)))
        .collect();
    assert_eq!(shown, expected);
    for ((scene, before), after) in scenes.iter().zip(before).zip(after) {
        let ports = scene.idle.local_addr().unwrap().port();
        let line = lines.iter().find(|line| line["lport"] == ports).unwrap();
        let idle_ns = line["idle_ns"].as_u64().unwrap();
        let between = u64::from(before) * 1_000_000..=u64::from(after) * 1_000_000;
        assert!(between.contains(&idle_ns), "{idle_ns} is not in {between:?}");
    }
    let listeners = lines.iter().filter(|line| line["state"] == "LISTEN");
    assert!(
        listeners
            .into_iter()
            .all(|line| line["timer"].is_null() && line["idle_ns"].is_null())
    );
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

/// The timers of this namespace's connections, as `/proc` has them (`get_tcp4_sock`).
fn printed() -> BTreeMap<(u16, u16), &'static str> {
    let mut all = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let port = |place: usize| u16::from_str_radix(words[place].rsplit(':').next().unwrap(), 16).unwrap();
            let timer = match (words[5].split(':').next().unwrap(), words[3]) {
                // A listener, and TIME_WAIT.
                (_, "0A" | "06") => continue,
                ("00", _) => "none",
                ("01", _) => "retransmission",
                ("02", "05") => "fin_wait2",
                ("02", _) => "keepalive",
                ("04", _) => "window_probe",
                other => panic!("{other:?}: {line}"),
            };
            all.insert((port(1), port(2)), timer);
        }
    }
    all
}
