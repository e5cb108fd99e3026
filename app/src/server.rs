//! The reference server: one process for each connection. An ordinary program with one thread, which forks before
//! anything else of socklife runs: it has no runtime and no BPF maps that a child could inherit.

mod attended;
mod child;
mod signals;

pub use attended::Attended;

use std::{
    collections::HashSet,
    io::{self, Error, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::output::say;
use signals::Signals;

/// How the server is.
pub struct Options {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What listen(2) is asked for.
    pub backlog: i32,
    /// How many children there may be at a time.
    pub max_children: u32,
    /// How long a child waits for its client.
    pub idle_timeout: Duration,
    /// How long a child works on an answer.
    pub work: Duration,
    /// What it does wrong.
    pub mistakes: Mistakes,
    /// Another process began it, says when to start, and takes it along at its end.
    pub attended: bool,
}

/// What servers of this kind do wrong.
pub struct Mistakes {
    /// Accepts late.
    pub accept_delay: Duration,
    /// Children hold the listeners.
    pub leak_listener: bool,
    /// The parent holds the connections.
    pub leak_connection: bool,
    /// Nobody waits for children.
    pub no_reap: bool,
}

/// Listens, accepts, forks and reaps, until a signal ends it.
pub fn run(options: &Options) -> Result<()> {
    name().context("cannot take a name")?;
    if options.attended && !attended::wait_for_start()? {
        return Ok(());
    }
    let signals = Signals::block().context("cannot take signals by descriptor")?;
    let listeners = options
        .listen
        .iter()
        .map(|address| listen(*address, options.backlog))
        .collect::<Result<Vec<_>>>()?;
    for listener in &listeners {
        let address = listener.local_addr().context("a listener has no address")?;
        say(&format!("listening on {address}"))?;
    }
    let mut server = Server {
        options,
        listeners,
        signals,
        children: HashSet::new(),
        leaked: Vec::new(),
        served: 0,
    };
    while server.step()? {}
    server.drain()?;
    say!("socklife: served {} connections", server.served);
    Ok(())
}

/// What /proc and every tracer call it; the program's own name is that of the tool.
fn name() -> io::Result<()> {
    // SAFETY: a string that ends with a zero.
    if unsafe { libc::prctl(libc::PR_SET_NAME, c"serve".as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

/// A line for whoever started it.
fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "serve[{}] {line}", std::process::id())
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

fn listen(address: SocketAddr, backlog: i32) -> Result<TcpListener> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Several processes may look for a connection that one of them gets.
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket)
    };
    let socket = open().map_err(|error| {
        let remedy = remedy(&error, address);
        anyhow!(error).context(format!("cannot listen on {address}{remedy}"))
    })?;
    Ok(socket.into())
}

/// What to do about an address that cannot be listened on.
fn remedy(error: &Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            format!(" (another program has the port: `ss -tlnp 'sport = :{port}'` tells which; take another port)")
        }
        Some(libc::EADDRNOTAVAIL) => {
            " (this network namespace has no such address: `ip address` lists them; 0.0.0.0 and [::] are all of them)"
                .to_owned()
        }
        Some(libc::EACCES) => {
            " (ports below net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE: run it as root, or take a port \
             above)"
                .to_owned()
        }
        Some(libc::EAFNOSUPPORT) => " (IPv6 is off here: take an IPv4 address)".to_owned(),
        Some(libc::EINVAL) if address.is_ipv6() => {
            " (a link-local address needs its device: [fe80::1%2]:8080, where 2 is the device's number)".to_owned()
        }
        _ => String::new(),
    }
}

struct Server<'a> {
    options: &'a Options,
    listeners: Vec<TcpListener>,
    signals: Signals,
    /// Those that were not waited for.
    children: HashSet<libc::pid_t>,
    /// Connections that the parent should have closed.
    leaked: Vec<TcpStream>,
    served: u64,
}

impl Server<'_> {
    /// Waits for a signal or a connection, and does what is to be done; false at the end.
    fn step(&mut self) -> Result<bool> {
        let room = self.children.len() < self.options.max_children as usize;
        let mut watched = vec![self.signals.fd()];
        if room {
            watched.extend(self.listeners.iter().map(|listener| listener.as_raw_fd()));
        }
        let ready = wait(&watched).context("cannot wait for connections")?;
        if ready.contains(&self.signals.fd()) {
            let seen = self.signals.take().context("cannot read signals")?;
            if seen.child {
                self.reap()?;
            }
            if seen.end {
                return Ok(false);
            }
        }
        for index in 0..self.listeners.len() {
            if ready.contains(&self.listeners[index].as_raw_fd()) {
                self.accept(index)?;
            }
        }
        Ok(true)
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        thread::sleep(self.options.mistakes.accept_delay);
        if self.children.len() >= self.options.max_children as usize {
            return Ok(());
        }
        match self.listeners[index].accept() {
            Ok((connection, _)) => self.fork(connection),
            Err(error) => match error.raw_os_error() {
                // Gone before we came, or taken by another.
                Some(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => Ok(()),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    say!("socklife: cannot accept: {error}; trying again");
                    thread::sleep(Duration::from_millis(100));
                    Ok(())
                }
                _ => Err(error).context("cannot accept"),
            },
        }
    }

    /// Gives the connection to a child of its own.
    fn fork(&mut self, connection: TcpStream) -> Result<()> {
        // SAFETY: this process has one thread, so the child may do what any program may.
        match unsafe { libc::fork() } {
            -1 => {
                say!(
                    "socklife: cannot fork: {}; a connection is closed",
                    Error::last_os_error()
                );
                thread::sleep(Duration::from_millis(100));
            }
            0 => {
                let mistakes = &self.options.mistakes;
                if mistakes.leak_listener {
                    // Open until the child ends.
                    mem::take(&mut self.listeners).into_iter().for_each(mem::forget);
                } else {
                    self.listeners.clear();
                }
                // Of other children's connections.
                self.leaked.clear();
                let code = match self
                    .signals
                    .restore()
                    .and_then(|()| child::serve(connection, self.options))
                {
                    Ok(()) => 0,
                    Err(error) => {
                        say!("socklife: serve[{}]: {error}", std::process::id());
                        1
                    }
                };
                // SAFETY: ends the child without running what is the parent's to run at its end.
                unsafe { libc::_exit(code) };
            }
            child => {
                self.served += 1;
                self.children.insert(child);
                if self.options.mistakes.leak_connection {
                    self.leaked.push(connection);
                }
            }
        }
        Ok(())
    }

    /// Waits for every child that has ended.
    fn reap(&mut self) -> Result<()> {
        if self.options.mistakes.no_reap {
            return Ok(());
        }
        loop {
            // SAFETY: asks for no status.
            let child = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
            match child {
                0 => return Ok(()),
                -1 => {
                    let error = Error::last_os_error();
                    ensure!(
                        error.raw_os_error() == Some(libc::ECHILD),
                        "cannot wait for children: {error}"
                    );
                    return Ok(());
                }
                _ => _ = self.children.remove(&child),
            }
        }
    }

    /// No more connections; those that there are, are served to their end, or to another signal.
    fn drain(&mut self) -> Result<()> {
        self.listeners.clear();
        self.leaked.clear();
        self.reap()?;
        if self.options.mistakes.no_reap {
            return Ok(());
        }
        if self.options.attended {
            self.end_children();
        }
        while !self.children.is_empty() {
            wait(&[self.signals.fd()]).context("cannot wait for children")?;
            let seen = self.signals.take().context("cannot read signals")?;
            self.reap()?;
            if seen.end {
                self.end_children();
            }
        }
        Ok(())
    }

    fn end_children(&self) {
        for child in &self.children {
            // SAFETY: a child that was not waited for.
            unsafe { libc::kill(*child, libc::SIGTERM) };
        }
    }
}

/// Waits until one of these can be read.
fn wait(fds: &[RawFd]) -> io::Result<Vec<RawFd>> {
    let mut watched: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: *fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let count = libc::nfds_t::try_from(watched.len()).map_err(Error::other)?;
    // SAFETY: as many descriptors as are said.
    if unsafe { libc::poll(watched.as_mut_ptr(), count, -1) } < 0 {
        let error = Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted {
            Ok(Vec::new())
        } else {
            Err(error)
        };
    }
    let ready = watched.iter().filter(|watched| watched.revents != 0);
    Ok(ready.map(|watched| watched.fd).collect())
}

#[cfg(test)]
mod tests {
    use super::listen;

    #[test]
    fn what_to_do_fits_what_is_wrong() {
        let error = |address: &str| {
            let listened = listen(address.parse().expect("an address"), 1);
            format!("{:#}", listened.expect_err("it cannot listen"))
        };
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = taken.local_addr().map(|address| (address, taken)).expect("an address");
        let said = error(&taken.0.to_string());
        assert!(
            said.contains("another program has the port") && said.contains("ss -tlnp"),
            "{said}"
        );
        let said = error("192.0.2.1:8080");
        assert!(
            said.contains("no such address") && !said.contains("another program"),
            "{said}"
        );
    }
}
