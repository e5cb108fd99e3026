//! What can happen to a connection in a listener's two queues, each on purpose. In a namespace of one's own: sysctls are
//! set there.

use std::{
    fs,
    io::{Error, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(10);

/// A listener with that backlog: its accept queue holds one more.
pub fn listener(ip: IpAddr, backlog: i32) -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::new(ip, 0)).with_context(|| format!("cannot listen on {ip}"))?;
    set_backlog(&listener, backlog)?;
    Ok(listener)
}

/// Gives a listener another backlog.
pub fn set_backlog(listener: &TcpListener, backlog: i32) -> Result<()> {
    // SAFETY: a descriptor that is open.
    let done = unsafe { libc::listen(listener.as_raw_fd(), backlog) };
    ensure!(done == 0, "cannot listen: {}", Error::last_os_error());
    Ok(())
}

/// Sets a sysctl of the namespace's TCP.
pub fn sysctl(name: &str, value: u32) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    fs::write(&path, value.to_string()).with_context(|| format!("cannot write {path}"))
}

/// Begins to connect and does not wait for it.
pub fn begin(server: SocketAddr) -> Result<TcpStream> {
    let family = if server.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: a new descriptor, owned below, and addresses of the sizes that are named.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        ensure!(fd >= 0, "cannot make a socket: {}", Error::last_os_error());
        let socket = TcpStream::from_raw_fd(fd);
        let done = match server {
            SocketAddr::V4(v4) => {
                let to = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*v4.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
                libc::connect(fd, (&raw const to).cast(), libc::socklen_t::try_from(size_of_val(&to))?)
            }
            SocketAddr::V6(v6) => {
                let mut to: libc::sockaddr_in6 = std::mem::zeroed();
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = v6.port().to_be();
                to.sin6_addr.s6_addr = v6.ip().octets();
                libc::connect(fd, (&raw const to).cast(), libc::socklen_t::try_from(size_of_val(&to))?)
            }
        };
        let error = Error::last_os_error();
        ensure!(
            done == 0 || error.raw_os_error() == Some(libc::EINPROGRESS),
            "cannot connect: {error}"
        );
        Ok(socket)
    }
}

/// A SYN-ACK that must be sent again, and then the peer resets.
pub fn synack_again(ip: IpAddr) -> Result<()> {
    let listener = listener(ip, 8)?;
    let mut peer = Peer::half_open(listener.local_addr()?, 1)?;
    peer.synack(PATIENCE)?;
    peer.reset()
}

/// A connection by SYN cookie, and an ACK that forges one.
pub fn cookies(ip: IpAddr) -> Result<()> {
    sysctl("tcp_syncookies", 2)?;
    let listener = listener(ip, 8)?;
    let server = listener.local_addr()?;
    let client = TcpStream::connect(server).context("cannot connect")?;
    let accepted = listener.accept().context("cannot accept")?;
    Peer::new(server, 2)?.forged_ack()?;
    drop((client, accepted));
    sysctl("tcp_syncookies", 1)
}

/// Sets an option of tcp(7) that is a number.
pub fn set_option(socket: &impl AsRawFd, name: libc::c_int, value: libc::c_int) -> Result<()> {
    // SAFETY: a value of the size that is named.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value))?,
        )
    };
    ensure!(done == 0, "cannot set option {name} of TCP: {}", Error::last_os_error());
    Ok(())
}

/// A listener that waits for data (`TCP_DEFER_ACCEPT`), and data.
pub fn deferred_accept(ip: IpAddr) -> Result<()> {
    let listener = listener(ip, 8)?;
    set_option(&listener, libc::TCP_DEFER_ACCEPT, 1)?;
    let mut client = TcpStream::connect(listener.local_addr()?).context("cannot connect")?;
    client.write_all(b"hello, listener\n").context("cannot send")?;
    listener.accept().context("cannot accept")?;
    Ok(())
}

/// accept(2) fails: it is asked for what it does not know.
pub fn failing_accept(listener: &TcpListener) -> Result<()> {
    // SAFETY: no place for an address.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::O_APPEND,
        )
    };
    let error = Error::last_os_error();
    ensure!(
        fd < 0 && error.raw_os_error() == Some(libc::EINVAL),
        "accept was to fail: {error}"
    );
    Ok(())
}

/// An accept queue that holds one: a SYN that finds it full, a final ACK that does, and the one that waits there when
/// the listener is closed.
pub fn full_accept_queue(ip: IpAddr) -> Result<()> {
    let listener = listener(ip, 8)?;
    let server = listener.local_addr()?;
    let (first, second) = (Peer::half_open(server, 3)?, Peer::half_open(server, 4)?);
    // From the start so small a backlog would limit the SYN queue as well.
    set_backlog(&listener, 0)?;
    first.ack()?;
    second.ack()?;
    Peer::new(server, 5)?.syn()?;
    failing_accept(&listener)?;
    second.reset()
}
