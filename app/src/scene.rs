//! Connections in a network namespace of their own: what `doctor` proves its hooks with, and `demo` shows.

pub mod peer;
pub mod queues;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result, bail};

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
