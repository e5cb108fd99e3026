//! A connection whose descriptors come and go.

use std::{
    io::Error,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::IntoRawFd as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// A descriptor is duplicated, and closed again, one way and the other; and a process that holds the connection makes
/// another, which runs a program and ends.
pub fn holders(address: IpAddr) -> Result<()> {
    let listener =
        TcpListener::bind(SocketAddr::new(address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    let there = listener.local_addr().context("the listener has no address")?;
    let client = TcpStream::connect(there).context("cannot connect")?;
    let (server, _) = listener.accept().context("cannot accept")?;
    drop(server.try_clone().context("cannot duplicate a descriptor")?);
    let copy = server
        .try_clone()
        .context("cannot duplicate a descriptor")?
        .into_raw_fd();
    let copy = u32::try_from(copy).context("a negative descriptor")?;
    // SAFETY: closes a descriptor that nothing owns any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, copy, copy, 0) };
    ensure!(closed == 0, "cannot close a range: {}", Error::last_os_error());
    let ended = Command::new("/proc/self/exe")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run a program")?;
    ensure!(ended.success(), "the program ended with {ended}");
    drop((client, server));
    Ok(())
}
