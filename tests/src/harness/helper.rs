//! Processes of their own, with PIDs of their own: this binary, started again.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    process::{Child, Command, ExitCode, Stdio},
};

use super::say;

/// How this binary is told to be a helper.
pub const FLAG: &str = "--be";

/// The helper that computes on one CPU.
pub const SPIN: &str = "spin";

/// A connection as its own process knows it: the independent witness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub cookie: u64,
    pub fd: i32,
    pub received: u64,
}

/// A server process: accepts `count` connections one after the other on each of its addresses, answers each with as many
/// bytes as it got, twice, and tells what it saw.
pub struct Server {
    pub child: Child,
    pub addresses: Vec<SocketAddr>,
    pub listeners: Vec<u64>,
    out: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Starts it in the namespace of the calling thread. `count` connections for each address.
    pub fn start(addresses: &[&str], count: usize) -> Self {
        Self::start_with("server", addresses, count)
    }

    pub fn start_with(what: &str, addresses: &[&str], count: usize) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .args([FLAG, what, &count.to_string()])
            .args(addresses)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut bound = Vec::new();
        let mut listeners = Vec::new();
        for _ in addresses {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let (address, cookie) = line.trim().split_once(' ').expect("an address and a cookie");
            bound.push(address.parse().unwrap());
            listeners.push(cookie.parse().unwrap());
        }
        Self {
            child,
            addresses: bound,
            listeners,
            out,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and takes its log.
    pub fn finish(mut self) -> Vec<Witness> {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text.lines().map(parse).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of a case that failed; one that was waited for takes no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Witness {
    let words: HashMap<_, _> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
    Witness {
        local: words["local"].parse().unwrap(),
        remote: words["remote"].parse().unwrap(),
        cookie: words["cookie"].parse().unwrap(),
        fd: words["fd"].parse().unwrap(),
        received: words["received"].parse().unwrap(),
    }
}

/// `SO_COOKIE` of a socket.
pub fn cookie(fd: i32) -> u64 {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap();
    // SAFETY: a place of the size that `len` says.
    let done = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    assert_eq!(done, 0, "SO_COOKIE: {}", std::io::Error::last_os_error());
    cookie
}

/// One connection after the other, accepted and closed, from one thread.
pub fn connections(count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..count {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap();
        drop((client, server));
    }
}

/// An IPv4 address as the socket calls take it.
pub fn sockaddr(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = address else {
        panic!("IPv4 only")
    };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*v4.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// Listens, whatever the address; `mptcp` as protocol where asked.
fn listen(address: SocketAddr, protocol: i32) -> TcpListener {
    if protocol == 0 {
        return TcpListener::bind(address).unwrap();
    }
    let name = sockaddr(address);
    // SAFETY: plain socket calls with an address of the right size.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::bind(fd, (&raw const name).cast(), 16), 0);
        assert_eq!(libc::listen(fd, 64), 0);
        TcpListener::from_raw_fd(fd)
    }
}

/// A helper's `main`.
pub fn run(args: &[String]) -> ExitCode {
    if args[0] == SPIN {
        spin(args[1].parse().unwrap());
    }
    let (what, count) = (args[0].as_str(), args[1].parse().unwrap());
    let protocol = if what == "mptcp-server" { libc::IPPROTO_MPTCP } else { 0 };
    let listeners: Vec<_> = args[2..]
        .iter()
        .map(|address| listen(address.parse().unwrap(), protocol))
        .collect();
    let mut log = String::new();
    std::thread::scope(|scope| {
        let servers: Vec<_> = listeners
            .iter()
            .map(|listener| {
                say(&format!(
                    "{} {}",
                    listener.local_addr().unwrap(),
                    cookie(listener.as_raw_fd())
                ));
                scope.spawn(move || serve(listener, count))
            })
            .collect();
        for server in servers {
            log.push_str(&server.join().unwrap());
        }
    });
    say(log.trim_end());
    ExitCode::SUCCESS
}

/// Until it is killed, or its parent ends.
fn spin(cpu: usize) -> ! {
    // SAFETY: a plain call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    super::run_on(Some(cpu));
    loop {
        std::hint::spin_loop();
    }
}

fn serve(listener: &TcpListener, count: usize) -> String {
    let mut log = String::new();
    for _ in 0..count {
        let (mut socket, remote) = listener.accept().unwrap();
        let mut received = Vec::new();
        let (local, fd) = (socket.local_addr().unwrap(), socket.as_raw_fd());
        socket.read_to_end(&mut received).unwrap();
        socket.write_all(&received).unwrap();
        socket.write_all(&received).unwrap();
        log.push_str(&format!(
            "local={local} remote={remote} cookie={} fd={fd} received={}\n",
            cookie(fd),
            received.len()
        ));
    }
    log
}

/// A client of [`Server`]: sends `bytes`, shuts down, reads the answer, closes.
pub fn client(server: SocketAddr, bytes: usize) -> Witness {
    let mut socket = TcpStream::connect(server).unwrap();
    let (local, remote) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    socket.write_all(&vec![b'x'; bytes]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    Witness {
        local,
        remote,
        cookie: cookie(socket.as_raw_fd()),
        fd: socket.as_raw_fd(),
        received: answer.len() as u64,
    }
}
