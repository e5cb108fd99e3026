//! What can happen to the data of a connection, each on purpose. In a namespace of one's own.

use std::{
    io::{Error, ErrorKind, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{peer::Peer, queues::listener};

/// Longer than TCP waits before it probes or sends again for the first time (`TCP_RTO_MIN`, twice).
const TIMERS: Duration = Duration::from_millis(500);
/// What no pair of buffers holds, in pieces.
const PIECES: usize = 4096;
const PIECE: [u8; 16_384] = [0; 16_384];

/// A connection whose receiver never reads, with buffers as small as they can be; the sender's writes do not wait.
pub struct Stalled {
    /// Who writes.
    pub sender: TcpStream,
    /// Who does not read.
    pub receiver: TcpStream,
    /// Bytes that the sender's socket took.
    pub written: usize,
    /// Writes that met a full buffer: the last, which took nothing, and those that took a part.
    pub limited: usize,
}

impl Stalled {
    /// Writes until no more is taken.
    pub fn new(ip: IpAddr) -> Result<Self> {
        let listener = listener(ip, 8)?;
        set_buffer(&listener, libc::SO_RCVBUF, 4096)?;
        let mut sender = TcpStream::connect(listener.local_addr()?).context("cannot connect")?;
        set_buffer(&sender, libc::SO_SNDBUF, 16_384)?;
        let (receiver, _) = listener.accept().context("cannot accept")?;
        sender.set_nonblocking(true)?;
        let (mut written, mut limited) = (0, 0);
        for _ in 0..PIECES {
            match sender.write(&PIECE) {
                Ok(bytes) => {
                    written += bytes;
                    limited += usize::from(bytes < PIECE.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Self {
                        sender,
                        receiver,
                        written,
                        limited: limited + 1,
                    });
                }
                Err(error) => return Err(error).context("cannot write"),
            }
        }
        bail!("{written} bytes were written, and nobody read one")
    }
}

/// Sets `SO_RCVBUF` or `SO_SNDBUF`; the kernel doubles it, and has its least.
pub fn set_buffer(socket: &impl AsFd, which: i32, bytes: i32) -> Result<()> {
    // SAFETY: an option of the size that is named, of a socket that is open.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            which,
            (&raw const bytes).cast(),
            libc::socklen_t::try_from(size_of_val(&bytes))?,
        )
    };
    ensure!(done == 0, "cannot set a buffer: {}", Error::last_os_error());
    Ok(())
}

/// A receiver that does not read, and what its sender does about it; data that is never acknowledged.
pub fn timers(ip: IpAddr) -> Result<()> {
    let stalled = Stalled::new(ip)?;
    let listener = listener(ip, 8)?;
    let (peer, mut server) = established(&listener, 6)?;
    server.write_all(b"hello?\n").context("cannot write")?;
    thread::sleep(TIMERS);
    drop(stalled);
    peer.reset()
}

/// More data than a receiver has room for, from a sender that does not care.
pub fn no_room(ip: IpAddr) -> Result<()> {
    let listener = listener(ip, 8)?;
    set_buffer(&listener, libc::SO_RCVBUF, 1)?;
    let (peer, _server) = established(&listener, 7)?;
    for i in 0..16 {
        peer.data(i * 512, &[0; 512])?;
    }
    peer.reset()
}

/// A connection with a peer that no kernel stands behind.
pub fn established(listener: &TcpListener, number: u16) -> Result<(Peer, TcpStream)> {
    let peer = Peer::half_open(listener.local_addr()?, number)?;
    peer.ack()?;
    let (server, _) = listener.accept().context("cannot accept")?;
    Ok((peer, server))
}
