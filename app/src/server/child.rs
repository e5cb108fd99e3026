//! What a child does with its connection.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Result, Write as _},
    net::{IpAddr, TcpStream},
    os::fd::{AsRawFd as _, BorrowedFd},
    thread,
};

use serde::Serialize;
use socket2::SockRef;

use super::Options;

/// A longer line is sent back in pieces; a longer header is passed over.
const LINE: u64 = 8192;

/// What the child knows of its connection.
#[derive(Serialize)]
struct Witness {
    pid: u32,
    ppid: u32,
    fd: i32,
    inode: u64,
    cookie: u64,
    family: u8,
    laddr: IpAddr,
    lport: u16,
    raddr: IpAddr,
    rport: u16,
}

/// Serves the client to its end; one that is gone, or says nothing any more, is no error.
pub fn serve(connection: TcpStream, options: &Options) -> Result<()> {
    // Inherited from the listener on some systems, and no use to a process that has one connection.
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(options.idle_timeout))?;
    connection.set_write_timeout(Some(options.idle_timeout))?;
    match talk(&connection, options) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn talk(connection: &TcpStream, options: &Options) -> Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(request) = Request::parse(&line) else {
            thread::sleep(options.work);
            (&*connection).write_all(&line)?;
            continue;
        };
        let keep = keeps_alive(&mut reader, request)?;
        thread::sleep(options.work);
        answer(connection, request, keep)?;
        if !keep {
            return Ok(());
        }
    }
}

/// The first line of an HTTP request, as far as it matters here.
#[derive(Clone, Copy)]
struct Request {
    /// HEAD wants no body.
    head: bool,
    /// HTTP/1.1 keeps the connection unless it says otherwise.
    http11: bool,
}

impl Request {
    /// `GET /… HTTP/1.1`; anything else is a line to send back.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let mut words = line.split(' ');
        let (method, _, version, None) = (words.next()?, words.next()?, words.next()?, words.next()) else {
            return None;
        };
        if !matches!(method, "GET" | "HEAD") || !version.starts_with("HTTP/1.") {
            return None;
        }
        Some(Self {
            head: method == "HEAD",
            http11: version == "HTTP/1.1",
        })
    }
}

/// Reads the headers to their end.
fn keeps_alive(reader: &mut BufReader<&TcpStream>, request: Request) -> Result<bool> {
    let mut keep = request.http11;
    let mut header = Vec::new();
    loop {
        header.clear();
        if reader.take(LINE).read_until(b'\n', &mut header)? == 0 {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&header).trim().to_ascii_lowercase();
        if text.is_empty() {
            return Ok(keep);
        }
        if let Some(value) = text.strip_prefix("connection:") {
            keep = match value.trim() {
                "close" => false,
                "keep-alive" => true,
                _ => keep,
            };
        }
    }
}

fn answer(connection: &TcpStream, request: Request, keep: bool) -> Result<()> {
    let mut body = serde_json::to_string(&Witness::of(connection)?)?;
    body.push('\n');
    let mut text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        body.len(),
        if keep { "keep-alive" } else { "close" }
    );
    if !request.head {
        text.push_str(&body);
    }
    (&*connection).write_all(text.as_bytes())
}

impl Witness {
    fn of(connection: &TcpStream) -> Result<Self> {
        let (local, remote) = (connection.local_addr()?, connection.peer_addr()?);
        // What is on the wire, as socklife shows it.
        let (laddr, raddr) = (local.ip().to_canonical(), remote.ip().to_canonical());
        Ok(Self {
            pid: std::process::id(),
            ppid: std::os::unix::process::parent_id(),
            fd: connection.as_raw_fd(),
            inode: inode(connection)?,
            cookie: SockRef::from(connection).cookie()?,
            family: if raddr.is_ipv4() { 4 } else { 6 },
            laddr,
            lport: local.port(),
            raddr,
            rport: remote.port(),
        })
    }
}

/// The number in `/proc/PID/fd`, by fstat(2).
fn inode(connection: &TcpStream) -> Result<u64> {
    use std::os::{fd::AsFd as _, unix::fs::MetadataExt as _};
    let fd: BorrowedFd<'_> = connection.as_fd();
    let file = std::fs::File::from(fd.try_clone_to_owned()?);
    Ok(file.metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn a_request_is_told_from_a_line() {
        let parse = |line: &str| Request::parse(line.as_bytes()).map(|request| (request.head, request.http11));
        assert_eq!(parse("GET / HTTP/1.1\r\n"), Some((false, true)));
        assert_eq!(parse("HEAD /x HTTP/1.0\n"), Some((true, false)));
        assert_eq!(parse("hello\n"), None);
        assert_eq!(parse("GET some bread please\n"), None);
        assert_eq!(parse("GET / HTTP/2\r\n"), None);
    }
}
