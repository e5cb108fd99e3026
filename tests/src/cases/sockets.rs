//! `socklife sockets`: each socket of a namespace, exactly, held against what its owners know and what the kernel prints.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Error, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    process::Command,
};

use serde_json::Value;
use socklife::scene::{
    has_ipv6,
    peer::{self, Peer},
    queues::{begin, listener},
};

use crate::harness::{Namespace, PATIENCE, helper::cookie, socklife, until};

pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

const BACKLOG: u64 = 8;
const ACCEPTED: usize = 7;
const WAITING: u64 = 3;
const HALF_OPEN: u64 = 2;
/// Bytes that nobody reads, and bytes that nobody acknowledges.
const UNREAD: usize = 1234;
const UNACKNOWLEDGED: usize = 777;

/// A socket, as its owner knows it or as it was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    state: String,
    mapped: bool,
    in_accept_queue: bool,
    inode: Option<u64>,
    uid: Option<u64>,
    recv_q: u64,
    send_q: u64,
    syn_queue: Option<(u64, u64)>,
    accept_queue: Option<(u64, u64)>,
    listener: Option<u64>,
    /// Process and descriptor.
    holders: Vec<(u64, u64)>,
}

impl Known {
    fn new(state: &str, local: SocketAddr, remote: Option<SocketAddr>) -> Self {
        Self {
            local: Some(canonical(local)),
            remote: remote.map(canonical),
            state: state.to_owned(),
            mapped: [Some(local), remote]
                .into_iter()
                .flatten()
                .any(|address| matches!(address, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some())),
            ..Self::default()
        }
    }

    /// A connection that this process has.
    fn held(state: &str, socket: &TcpStream) -> Self {
        Self {
            inode: Some(inode(socket)),
            uid: Some(0),
            holders: vec![holder(socket)],
            ..Self::new(state, socket.local_addr().unwrap(), socket.peer_addr().ok())
        }
    }

    fn shown(line: &Value) -> Self {
        let address = |ip: &str, port: &str| {
            let ip: IpAddr = line[ip].as_str()?.parse().unwrap();
            Some(SocketAddr::new(ip, line[port].as_u64().unwrap().try_into().unwrap()))
        };
        let queue = |depth: &str, limit: &str| Some((line[depth].as_u64()?, line[limit].as_u64().unwrap()));
        let holders = line["holders"].as_array().into_iter().flatten();
        Self {
            local: address("laddr", "lport"),
            remote: address("raddr", "rport"),
            state: line["state"].as_str().unwrap().to_owned(),
            mapped: line["mapped"] == true,
            in_accept_queue: line["in_accept_queue"] == true,
            inode: line["inode"].as_u64(),
            uid: line["uid"].as_u64(),
            recv_q: line["recv_q"].as_u64().unwrap(),
            send_q: line["send_q"].as_u64().unwrap(),
            syn_queue: queue("syn_queue", "syn_queue_limit"),
            accept_queue: queue("accept_queue", "accept_queue_limit"),
            listener: line["listener"].as_u64(),
            holders: holders
                .map(|holder| (holder["pid"].as_u64().unwrap(), holder["fd"].as_u64().unwrap()))
                .collect(),
        }
    }

    fn port(&self) -> u16 {
        self.local.unwrap().port()
    }

    fn rport(&self) -> u16 {
        self.remote.map_or(0, |remote| remote.port())
    }

    fn is_v4(&self) -> bool {
        self.local.unwrap().is_ipv4()
    }
}

/// v4-mapped as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub fn inode(socket: &impl AsRawFd) -> u64 {
    // SAFETY: all zeroes is a value of the structure, and the call fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor that is open, and a place for the answer.
    assert_eq!(unsafe { libc::fstat(socket.as_raw_fd(), &raw mut stat) }, 0);
    stat.st_ino
}

fn holder(socket: &impl AsRawFd) -> (u64, u64) {
    (std::process::id().into(), socket.as_raw_fd().try_into().unwrap())
}

/// A listener with all that there can be of it.
struct Scene {
    listener: TcpListener,
    server: SocketAddr,
    /// Client and server of each.
    accepted: Vec<(TcpStream, TcpStream)>,
    waiting: Vec<TcpStream>,
    half_open: Vec<Peer>,
    /// This end and the other of the socket in TIME_WAIT.
    time_wait: (SocketAddr, SocketAddr),
}

fn scene(listen: IpAddr, connect: IpAddr, server_closes_first: bool) -> Scene {
    let listener = listener(listen, BACKLOG.try_into().unwrap()).unwrap();
    let server = SocketAddr::new(connect, listener.local_addr().unwrap().port());
    let pair = || {
        let client = TcpStream::connect(server).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let accepted: Vec<_> = (0..ACCEPTED).map(|_| pair()).collect();
    let (client, other) = pair();
    let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let ends_of_other = (other.local_addr().unwrap(), other.peer_addr().unwrap());
    let (mut second, time_wait) = if server_closes_first {
        drop(other);
        (client, ends_of_other)
    } else {
        drop(client);
        (other, ends)
    };
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    drop(second);
    let waiting = (0..WAITING).map(|_| TcpStream::connect(server).unwrap()).collect();
    let numbers = 1..=HALF_OPEN.try_into().unwrap();
    let half_open = numbers.map(|number| Peer::half_open(server, number).unwrap()).collect();
    Scene {
        listener,
        server,
        accepted,
        waiting,
        half_open,
        time_wait,
    }
}

impl Scene {
    /// Each socket of it.
    fn known(&self) -> Vec<Known> {
        let listener = Known {
            inode: Some(inode(&self.listener)),
            uid: Some(0),
            recv_q: WAITING,
            send_q: BACKLOG,
            syn_queue: Some((HALF_OPEN, BACKLOG)),
            accept_queue: Some((WAITING, BACKLOG)),
            holders: vec![holder(&self.listener)],
            ..Known::new("LISTEN", self.listener.local_addr().unwrap(), None)
        };
        let clients = self.accepted.iter().map(|(client, _)| client).chain(&self.waiting);
        let servers = self.accepted.iter().map(|(_, server)| server);
        let held = clients.chain(servers).map(|socket| Known::held("ESTABLISHED", socket));
        let waiting = self.waiting.iter().map(|client| Known {
            in_accept_queue: true,
            mapped: self.is_mapped(),
            ..Known::new("ESTABLISHED", self.server, client.local_addr().ok())
        });
        let half_open = self.half_open.iter().map(|peer| Known {
            mapped: self.is_mapped(),
            listener: Some(cookie(self.listener.as_raw_fd())),
            ..Known::new("NEW_SYN_RECV", self.server, Some(peer.local))
        });
        let time_wait = Known::new("TIME_WAIT", self.time_wait.0, Some(self.time_wait.1));
        held.chain(waiting)
            .chain(half_open)
            .chain([listener, time_wait])
            .collect()
    }

    fn is_mapped(&self) -> bool {
        self.server.is_ipv4() && self.listener.local_addr().unwrap().is_ipv6()
    }
}

/// What is not plain, with what is to be shown of it.
struct Extras {
    known: Vec<Known>,
    /// Sockets that live as long as this.
    _sockets: Vec<TcpStream>,
    child: Child,
}

/// Changes some of the connections of an IPv4 scene, and their entries in `known`.
fn extras(scene: &mut Scene, known: &mut [Known]) -> Extras {
    let mut sockets = Vec::new();
    let mut more = Vec::new();
    // Bytes that nobody reads.
    let (client, server) = &scene.accepted[0];
    (&*client).write_all(&vec![b'x'; UNREAD]).unwrap();
    assert!(until(PATIENCE, || queued(client, libc::TIOCOUTQ) == 0));
    entry(known, server).recv_q = UNREAD.try_into().unwrap();
    // The peer is done sending: its FIN is a byte to ss.
    let (client, server) = &scene.accepted[1];
    client.shutdown(Shutdown::Write).unwrap();
    entry(known, client).state = "FIN_WAIT2".to_owned();
    close_wait(known, server);
    // The peer closed: what remains of it has no socket.
    let (client, server) = scene.accepted.remove(2);
    let orphan = Known::new("FIN_WAIT2", client.local_addr().unwrap(), client.peer_addr().ok());
    *entry(known, &client) = orphan;
    drop(client);
    close_wait(known, &server);
    sockets.push(server);
    // The same file twice.
    let (_, server) = &scene.accepted[2];
    let twice = server.try_clone().unwrap();
    let holders = &mut entry(known, server).holders;
    holders.push(holder(&twice));
    holders.sort_unstable();
    sockets.push(twice);
    // A child that has it too.
    let (_, server) = &scene.accepted[3];
    let child = Child::with(server);
    let fd = holder(server).1;
    let holders = &mut entry(known, server).holders;
    holders.push((child.pid.cast_unsigned().into(), fd));
    holders.sort_unstable();
    // Bytes that nobody acknowledges.
    let server = to_nobody();
    more.push(Known {
        send_q: UNACKNOWLEDGED.try_into().unwrap(),
        ..Known::held("ESTABLISHED", &server)
    });
    sockets.push(server);
    // A SYN that nobody answers, which is a byte to ss.
    let nobody = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 99), 9));
    let connecting = begin(nobody).unwrap();
    more.push(Known {
        send_q: 1,
        remote: Some(nobody),
        ..Known::held("SYN_SENT", &connecting)
    });
    sockets.push(connecting);
    Extras {
        known: more,
        _sockets: sockets,
        child,
    }
}

/// A connection to a peer that does not speak again, to which we wrote. Its listener is gone.
fn to_nobody() -> TcpStream {
    let listener = listener(V4, 1).unwrap();
    let peer = Peer::half_open(listener.local_addr().unwrap(), 9).unwrap();
    peer.ack().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(&vec![b'y'; UNACKNOWLEDGED]).unwrap();
    server
}

fn close_wait(known: &mut [Known], socket: &TcpStream) {
    let entry = entry(known, socket);
    entry.state = "CLOSE_WAIT".to_owned();
    entry.recv_q = 1;
}

fn entry<'a>(known: &'a mut [Known], socket: &TcpStream) -> &'a mut Known {
    let inode = Some(inode(socket));
    known.iter_mut().find(|entry| entry.inode == inode).unwrap()
}

pub fn queued(socket: &TcpStream, what: libc::Ioctl) -> i32 {
    let mut bytes = 0;
    // SAFETY: a descriptor that is open, and a place for the answer.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut bytes) }, 0);
    bytes
}

/// A forked process that holds one descriptor, and does nothing.
struct Child {
    pid: i32,
}

impl Child {
    fn with(socket: &TcpStream) -> Self {
        let keep = socket.as_raw_fd();
        let mut pipe = [0; 2];
        // SAFETY: a place for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: the child calls close, prctl and pause only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the child's own descriptors; the pipe goes last, for its end tells that all are closed.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for fd in (0..4096).filter(|fd| *fd != keep && *fd != pipe[1]) {
                    libc::close(fd);
                }
                libc::close(pipe[1]);
                loop {
                    libc::pause();
                }
            }
        }
        assert!(pid > 0, "{}", Error::last_os_error());
        // SAFETY: both are ours.
        let [mut read, write] = pipe.map(|fd| unsafe { File::from(OwnedFd::from_raw_fd(fd)) });
        drop(write);
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        Self { pid }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child that was not waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

pub fn lines(namespace: u32, args: &[&str]) -> Vec<Value> {
    let output = socklife()
        .args(["sockets", "-o", "json", "--netns", &namespace.to_string()])
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert_eq!(
            (&line["v"], &line["event"], &line["netns"]),
            (&1.into(), &"socket".into(), &namespace.into()),
            "{line}"
        );
        let v4 = line["laddr"].as_str().unwrap().parse::<IpAddr>().unwrap().is_ipv4();
        assert_eq!(line["family"], if v4 { 4 } else { 6 }, "{line}");
    }
    lines
}

fn shown(namespace: u32, args: &[&str]) -> Vec<Known> {
    let mut shown: Vec<_> = lines(namespace, args).iter().map(Known::shown).collect();
    shown.sort_unstable();
    shown
}

/// `/proc/net/tcp` and `tcp6` of the calling thread's namespace, a line each: state, both ends, what waits to be read and
/// what is not acknowledged, and the inode.
pub fn proc_net_tcp() -> Vec<String> {
    let files = ["tcp", "tcp6"].map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")));
    let files = files.map(Result::unwrap_or_default);
    let lines = files.iter().flat_map(|text| text.lines().skip(1));
    let mut all: Vec<_> = lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (tx, rx) = words[4].split_once(':').unwrap();
            let queue = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
            let state = [
                "",
                "ESTABLISHED",
                "SYN_SENT",
                "SYN_RECV",
                "FIN_WAIT1",
                "FIN_WAIT2",
                "TIME_WAIT",
                "CLOSE",
            ]
            .into_iter()
            .chain(["CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"])
            .nth(queue(words[3]).try_into().unwrap());
            format!(
                "{} {} {} {} {} {}",
                state.unwrap(),
                hex_address(words[1]),
                hex_address(words[2]),
                queue(rx),
                queue(tx),
                words[9]
            )
        })
        .collect();
    all.sort_unstable();
    all
}

/// `0100007F:1F90`
fn hex_address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let bytes: Vec<u8> = (0..ip.len() / 8)
        .flat_map(|word| {
            u32::from_str_radix(&ip[word * 8..word * 8 + 8], 16)
                .unwrap()
                .to_ne_bytes()
        })
        .collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()),
    };
    canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap()))
}

/// What was shown, as [`proc_net_tcp`] has it.
fn as_proc(known: &[Known]) -> Vec<String> {
    let mut all: Vec<_> = known
        .iter()
        .map(|known| {
            let local = known.local.unwrap();
            let nobody = SocketAddr::new(
                if known.is_v4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    ANY
                },
                0,
            );
            let (state, send_q) = match known.state.as_str() {
                "NEW_SYN_RECV" => ("SYN_RECV", known.send_q),
                // The kernel prints no limit here.
                "LISTEN" => ("LISTEN", 0),
                state => (state, known.send_q),
            };
            let remote = known.remote.unwrap_or(nobody);
            let inode = known.inode.unwrap_or(0);
            format!("{state} {local} {remote} {} {send_q} {inode}", known.recv_q)
        })
        .collect();
    all.sort_unstable();
    all
}

/// Everything at once, held against its owners, against the kernel's own list, and against `ss` where there is one.
pub fn exactly() {
    let namespace = Namespace::new();
    let (scenes, mut known, extras) = namespace.run(|| {
        peer::prepare().unwrap();
        let mut scenes = vec![scene(V4, V4, false)];
        if has_ipv6() {
            scenes.push(scene(V6, V6, false));
            scenes.push(scene(ANY, V4, true));
        }
        let mut known: Vec<_> = scenes.iter().flat_map(Scene::known).collect();
        let extras = extras(&mut scenes[0], &mut known);
        known.extend(extras.known.iter().cloned());
        // FINs are acknowledged.
        assert!(until(PATIENCE, || {
            let list = proc_net_tcp();
            let of = |state: &str| list.iter().filter(|line| line.starts_with(state)).count();
            of("FIN_WAIT2 ") == 2 && of("TIME_WAIT ") == scenes.len()
        }));
        (scenes, known, extras)
    });
    known.sort_unstable();
    let all = lines(namespace.inode, &[]);
    let mut shown: Vec<_> = all.iter().map(Known::shown).collect();
    shown.sort_unstable();
    assert_eq!(shown, known);
    assert_eq!(as_proc(&shown), namespace.run(proc_net_tcp));
    compare_with_ss(&namespace, &all);
    filters(&namespace, &scenes, &known, extras.child.pid);
    text(&namespace, &known, extras.child.pid);
    cookies(&scenes, &all);
}

/// A cookie is the one that its owner is told. Takes what waits out of the accept queues: then it has an owner.
fn cookies(scenes: &[Scene], all: &[Value]) {
    // By both ends: what waits has no inode yet.
    let shown: BTreeMap<_, _> = all
        .iter()
        .map(|line| (Known::shown(line), line["cookie"].as_u64()))
        .map(|(known, cookie)| ((known.local, known.remote), cookie))
        .collect();
    for scene in scenes {
        let accepted: Vec<_> = (0..WAITING).map(|_| scene.listener.accept().unwrap().0).collect();
        let held = scene.accepted.iter().flat_map(|(client, server)| [client, server]);
        let mut seen = 0;
        for socket in held.chain(&scene.waiting).chain(&accepted) {
            let ends = (socket.local_addr(), socket.peer_addr());
            // One whose peer is gone has no address of it for its owner, but is shown with it.
            let (Ok(local), Ok(remote)) = ends else { continue };
            let shown = shown[&(Some(canonical(local)), Some(canonical(remote)))];
            // A kernel without `inet_diag` gives a cookie to an owner that asks, and only then.
            if shown.is_some() || has_inet_diag() {
                assert_eq!(shown, Some(cookie(socket.as_raw_fd())), "{socket:?}");
            }
            seen += 1;
        }
        assert!(seen >= 2 * (ACCEPTED - 1) + accepted.len());
        let local = canonical(scene.listener.local_addr().unwrap());
        assert_eq!(shown[&(Some(local), None)], Some(cookie(scene.listener.as_raw_fd())));
    }
    for line in all.iter().filter(|line| line["inode"].is_null()) {
        let timewait = line["state"] == "TIME_WAIT" || line["state"] == "FIN_WAIT2";
        assert!(!timewait || line["cookie"].is_null(), "{line}");
    }
}

/// Whether `sock_diag(7)` knows TCP here: natively it does, in a VM its module is missing.
fn has_inet_diag() -> bool {
    Command::new("ss").arg("-V").output().is_ok()
}

/// Each filter shows what it is to let through, and nothing else.
fn filters(namespace: &Namespace, scenes: &[Scene], known: &[Known], child: i32) {
    let port = scenes[0].server.port();
    let (port_text, child_text) = (port.to_string(), child.to_string());
    let child = u64::from(child.cast_unsigned());
    let loopback = |known: &Known| {
        let remote = known.remote.map(|remote| remote.ip());
        [known.local.map(|local| local.ip()), remote].contains(&Some(V6))
    };
    let is_in = |states: &'static [&str]| move |known: &Known| states.contains(&known.state.as_str());
    type Passes<'a> = Box<dyn Fn(&Known) -> bool + 'a>;
    let table: Vec<(Vec<&str>, Passes<'_>)> = vec![
        (vec!["--lport", &port_text], Box::new(|known| known.port() == port)),
        (vec!["--rport", &port_text], Box::new(|known| known.rport() == port)),
        (
            vec!["--port", &port_text],
            Box::new(|known| known.port() == port || known.rport() == port),
        ),
        (vec!["-4"], Box::new(Known::is_v4)),
        (vec!["-6"], Box::new(|known| !known.is_v4())),
        (vec!["--addr", "::1"], Box::new(loopback)),
        (vec!["--addr", "10.0.0.0/8"], Box::new(|_| false)),
        (vec!["--state", "listen"], Box::new(is_in(&["LISTEN"]))),
        (
            vec!["--state", "listen,time-wait"],
            Box::new(is_in(&["LISTEN", "TIME_WAIT"])),
        ),
        (vec!["--state", "FIN_WAIT2"], Box::new(is_in(&["FIN_WAIT2"]))),
        (vec!["--state", "syn-recv"], Box::new(is_in(&["NEW_SYN_RECV"]))),
        (
            vec!["--pid", &child_text],
            Box::new(|known| known.holders.iter().any(|(pid, _)| *pid == child)),
        ),
        (
            vec!["--lport", &port_text, "--state", "established"],
            Box::new(|known| known.port() == port && known.state == "ESTABLISHED"),
        ),
    ];
    for (args, passes) in table {
        let expected: Vec<_> = known.iter().filter(|known| passes(known)).cloned().collect();
        assert_eq!(shown(namespace.inode, &args), expected, "{args:?}");
    }
    assert!(shown(Namespace::new().inode, &[]).is_empty(), "another namespace");
}

/// The same as text: a listener first, and columns that line up.
fn text(namespace: &Namespace, known: &[Known], child: i32) {
    let output = socklife()
        .args(["sockets", "--netns", &namespace.inode.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), known.len() + 1, "{text}");
    let end = lines[0].find("COOKIE").unwrap() + "COOKIE".len();
    for line in &lines {
        assert_eq!(line[..end].split_whitespace().count(), 12, "{line}\n{text}");
        assert_eq!(line.as_bytes()[end], b' ', "{line}\n{text}");
    }
    for title in [
        "RECV-Q", "SEND-Q", "SYN-Q", "LPORT", "RPORT", "NETNS", "UID", "INODE", "COOKIE",
    ] {
        let end = lines[0].find(title).unwrap() + title.len();
        assert!(
            lines.iter().all(|line| line.as_bytes()[end - 1] != b' '),
            "{title}: {text}"
        );
    }
    assert!(lines[1].starts_with("LISTEN "), "{text}");
    let held = lines
        .iter()
        .filter(|line| line.contains(&format!("[{child}] fd ")))
        .count();
    assert_eq!(held, 1, "{text}");
    let waiting = lines.iter().filter(|line| line.ends_with(" (in the accept queue)"));
    let in_queue = known.iter().filter(|known| known.in_accept_queue);
    assert_eq!(waiting.count(), in_queue.count(), "{text}");
}

/// Natively there may be `ss` (iproute2): the same sockets, states, queues, holders, inodes and cookies.
fn compare_with_ss(namespace: &Namespace, all: &[Value]) {
    let Ok(output) = namespace.run(|| Command::new("ss").args(["-tanepH"]).output()) else {
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let mut theirs: Vec<_> = text.lines().map(ss_line).collect();
    let mut ours: Vec<_> = all
        .iter()
        .map(|line| {
            let known = Known::shown(line);
            let state = match known.state.as_str() {
                "NEW_SYN_RECV" => "SYN_RECV",
                state => state,
            };
            let end =
                |address: Option<SocketAddr>| address.map_or_else(|| "*".to_owned(), |address| address.to_string());
            let cookie = line["cookie"].as_u64().unwrap_or(0);
            let (local, remote) = (end(known.local), end(known.remote));
            format!(
                "{state} {} {} {local} {remote} {} {cookie} {:?}",
                known.recv_q,
                known.send_q,
                known.inode.unwrap_or(0),
                known.holders
            )
        })
        .collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, theirs, "{text}");
}

fn ss_line(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let state = match words[0] {
        "ESTAB" => "ESTABLISHED".to_owned(),
        "FIN-WAIT-1" => "FIN_WAIT1".to_owned(),
        "FIN-WAIT-2" => "FIN_WAIT2".to_owned(),
        state => state.replace('-', "_"),
    };
    let end = |text: &str| {
        let text = text.replacen("*:", "[::]:", 1);
        match text.parse::<SocketAddr>() {
            Ok(address) => canonical(address).to_string(),
            // `0.0.0.0:*`
            Err(_) => "*".to_owned(),
        }
    };
    let after = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let inode = after("ino:").unwrap_or("0");
    // In TIME_WAIT a cookie is made for ss, and is nobody's.
    let cookie = match (state.as_str(), inode) {
        ("TIME_WAIT" | "FIN_WAIT2", "0") => 0,
        _ => u64::from_str_radix(after("sk:").unwrap(), 16).unwrap(),
    };
    let mut holders: Vec<(u64, u64)> = line
        .split("pid=")
        .skip(1)
        .map(|rest| {
            let (pid, rest) = rest.split_once(",fd=").unwrap();
            (pid.parse().unwrap(), rest.split_once(')').unwrap().0.parse().unwrap())
        })
        .collect();
    holders.sort_unstable();
    let (local, remote) = (end(words[3]), end(words[4]));
    format!(
        "{state} {} {} {local} {remote} {inode} {cookie} {holders:?}",
        words[1], words[2]
    )
}

/// More than the kernel hands out at a time: each is there, once.
pub fn many() {
    // A prime number.
    const COUNT: usize = 401;
    let namespace = Namespace::new();
    let (listener, pairs) = namespace.run(|| {
        let listener = TcpListener::bind((V4, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let pairs: Vec<_> = (0..COUNT)
            .map(|_| (TcpStream::connect(server).unwrap(), listener.accept().unwrap().0))
            .collect();
        (listener, pairs)
    });
    let inodes = |args: &[&str]| {
        let mut inodes: Vec<_> = lines(namespace.inode, args)
            .iter()
            .map(|line| line["inode"].as_u64().unwrap())
            .collect();
        inodes.sort_unstable();
        inodes
    };
    let mut expected: Vec<_> = pairs
        .iter()
        .flat_map(|(client, server)| [inode(client), inode(server)])
        .collect();
    expected.sort_unstable();
    assert_eq!(inodes(&["--state", "established"]), expected);
    assert_eq!(inodes(&["--state", "listen"]), [inode(&listener)]);
}
