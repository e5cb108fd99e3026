//! Connections in a network namespace of their own: what `doctor` proves its hooks with, and `demo` shows.

pub mod data;
mod holders;
pub mod peer;
pub mod queues;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

pub use holders::holders;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that a connection can meet, in a namespace of one's own, over IPv4.
pub fn all() -> Result<()> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    connection(loopback, loopback)?;
    holders(loopback)?;
    refused()?;
    peer::prepare()?;
    queues::full_accept_queue(loopback)?;
    queues::cookies(loopback)?;
    queues::deferred_accept(loopback)?;
    queues::synack_again(loopback)?;
    data::no_room(loopback)?;
    data::timers(loopback)
}

/// One connection from bind to close, with a line each way; the client closes first.
pub fn connection(listen: IpAddr, connect: IpAddr) -> Result<()> {
    let listener =
        TcpListener::bind(SocketAddr::new(listen, 0)).with_context(|| format!("cannot listen on {listen}"))?;
    let port = listener.local_addr().context("the listener has no address")?.port();
    let mut client = TcpStream::connect(SocketAddr::new(connect, port)).context("cannot connect")?;
    let (mut server, _) = listener.accept().context("cannot accept")?;
    client.write_all(b"hello, listener\n").context("cannot send")?;
    let mut line = [0; 16];
    server.read_exact(&mut line).context("cannot receive")?;
    server.write_all(b"hello, client\n").context("cannot answer")?;
    client
        .read_exact(&mut line[..14])
        .context("cannot receive the answer")?;
    drop(client);
    // The client's FIN.
    server.read_to_end(&mut Vec::new()).context("cannot receive the end")?;
    Ok(())
}

/// A client of an IPv4 server that is about to listen: a line there and back.
pub fn client(server: SocketAddrV4) -> Result<()> {
    const LINE: &[u8] = b"hello, child\n";
    let begun = Instant::now();
    while !listens(server)? {
        ensure!(begun.elapsed() < PATIENCE, "nobody listens on {server}");
        thread::sleep(Duration::from_millis(2));
    }
    let mut client = TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
    client.write_all(LINE).context("cannot send")?;
    let mut line = [0; LINE.len()];
    client.read_exact(&mut line).context("cannot receive")?;
    Ok(())
}

/// Whether somebody listens there, in this thread's namespace (`proc_pid_net(5)`: the address as it lies in memory, and
/// state 0A).
fn listens(address: SocketAddrV4) -> Result<bool> {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").context("cannot read /proc/net/tcp")?;
    let ip = u32::from_ne_bytes(address.ip().octets());
    let listener = format!(" {ip:08X}:{:04X} 00000000:0000 0A ", address.port());
    Ok(sockets.lines().any(|line| line.contains(&listener)))
}

/// A connect that nobody answers for.
pub fn refused() -> Result<()> {
    // Of a port that was free a moment ago, in a namespace that is ours.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("cannot find a free port")?
        .port();
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error).context("the connect was to be refused"),
        Ok(_) => bail!("the connect was to be refused, and it was not"),
    }
}

/// Whether this kernel has IPv6 (`if_inet6` lists addresses, loopback's among them).
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}
