//! Servers of every model, each in processes of its own: this binary, started again. Whoever serves a connection says so on
//! standard output, before the client has its answer: the independent witness.

use std::{
    io::{BufRead as _, BufReader, Error, Read as _, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, RawFd},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use super::helper::{FLAG, cookie, sockaddr};

/// How this binary is told to be one of them.
pub const PREFIX: &str = "model-";

/// What a server is called once it runs by execve(2).
pub const AFTER_EXEC: &str = "after-exec";

/// How many children the storm is.
pub const STORM: usize = 5003;

/// A server of some model.
pub struct Model {
    child: Child,
    out: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

/// What somebody said that served a connection.
#[derive(Debug)]
pub struct Served {
    pub pid: u64,
    pub fd: i64,
    pub cookie: u64,
}

impl Model {
    /// Starts it in the namespace of the calling thread.
    pub fn start(model: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .args([FLAG, &format!("{PREFIX}{model}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap();
        Self { child, out, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One connection from the client's end; the next line says who served it.
    pub fn ask(&mut self, address: SocketAddr) -> Served {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"?").unwrap();
        let served = self.served();
        let mut answer = [0; 1];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"!");
        served
    }

    fn served(&mut self) -> Served {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("pid, descriptor, cookie");
        Served {
            pid: word().parse().unwrap(),
            fd: word().parse().unwrap(),
            cookie: word().parse().unwrap(),
        }
    }

    /// One connection on which three bytes are sent, and who says to have read, in order.
    pub fn ask_twice(&mut self, address: SocketAddr) -> [Served; 2] {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"???").unwrap();
        let served = [self.served(), self.served()];
        client.read_exact(&mut [0; 1]).unwrap();
        served
    }

    /// Lets it end, with all its processes.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // Of a case that failed; one that was waited for takes no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A model's `main`.
pub fn run(args: &[String]) -> ExitCode {
    let fd = |index: usize| args[index].parse::<RawFd>().unwrap();
    match args[0].strip_prefix(PREFIX).unwrap() {
        "prefork" => prefork(),
        "fd-passing" => fd_passing(),
        "double-fork-exec" => double_fork_exec(),
        "threads" => threads(),
        "inetd" => inetd(),
        "activation" => activation(),
        "helper-keeps" => helper_keeps(),
        "pid-reuse" => pid_reuse(),
        "untouched-copy" => untouched_copy(),
        "handed-back" => handed_back(),
        "bound-then-forked" => bound_then_forked(),
        "child-without-it" => child_without_it(),
        "idle" => {
            name();
            until_let_go(&[]);
        }
        "storm" => storm(),
        "serve" => {
            name();
            answer(fd(1), fd(1), 1);
        }
        "serve-inetd" => {
            name();
            answer(0, 1, fd(1));
        }
        "accept" => {
            name();
            // SAFETY: a listener that whoever started this left here.
            let listener = unsafe { TcpListener::from_raw_fd(fd(1)) };
            loop {
                let (connection, _) = listener.accept().unwrap();
                serve(connection);
            }
        }
        other => panic!("no model {other}"),
    }
    ExitCode::SUCCESS
}

/// A name of its own after execve(2).
fn name() {
    let name = std::ffi::CString::new(AFTER_EXEC).unwrap();
    // SAFETY: a string that ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    tell(1, &format!("{}", listener.local_addr().unwrap()));
    listener
}

/// A line in one piece: several processes write to one pipe.
fn tell(fd: RawFd, line: &str) {
    let line = format!("{line}\n");
    // SAFETY: as many bytes as there are.
    let written = unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len().cast_signed());
}

/// Reads the question, says who it is, answers.
fn answer(input: RawFd, output: RawFd, witness: RawFd) {
    let mut question = [0_u8; 1];
    // SAFETY: a place for one byte, and one byte to write.
    unsafe {
        assert_eq!(libc::read(input, question.as_mut_ptr().cast(), 1), 1);
        tell(witness, &format!("{} {input} {}", std::process::id(), cookie(input)));
        assert_eq!(libc::write(output, b"!".as_ptr().cast(), 1), 1);
    }
}

fn serve(connection: TcpStream) {
    answer(connection.as_raw_fd(), connection.as_raw_fd(), 1);
}

/// The child's part, which ends the child; its PID in the parent.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: called from processes of one thread only.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", Error::last_os_error()),
        0 => {
            child();
            // SAFETY: without what is the parent's to do at its end.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    }
}

fn wait_for(pid: libc::pid_t) {
    // SAFETY: asks for no status.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
}

/// Until the test lets go of it; then its children end.
fn until_let_go(children: &[libc::pid_t]) {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    for child in children {
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(*child, libc::SIGKILL) };
        wait_for(*child);
    }
}

/// This binary, as something else.
fn exec(args: &[&str]) -> ! {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new("/proc/self/exe").arg(FLAG).args(args).exec();
    panic!("{error}")
}

fn keep_over_exec(fd: RawFd) {
    // SAFETY: clears close-on-exec.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
}

/// Accepts until the test lets go of it.
fn accepting(listener: &TcpListener, mut each: impl FnMut(TcpStream)) {
    let mut fds = [
        libc::pollfd {
            fd: 0,
            events: libc::POLLIN,
            revents: 0,
        },
        libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        },
    ];
    loop {
        // SAFETY: two descriptors.
        assert!(unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } > 0);
        if fds[0].revents != 0 {
            return;
        }
        each(listener.accept().unwrap().0);
    }
}

/// Several processes accept from one listener.
fn prefork() {
    let listener = listen();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            fork(|| {
                loop {
                    serve(listener.accept().unwrap().0);
                }
            })
        })
        .collect();
    until_let_go(&workers);
}

/// One process accepts and sends connections to another.
fn fd_passing() {
    let mut pair = [0; 2];
    // SAFETY: a place for two descriptors.
    let made = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            pair.as_mut_ptr(),
        )
    };
    assert_eq!(made, 0);
    let receiver = fork(|| {
        loop {
            // SAFETY: a descriptor that was just received.
            serve(unsafe { TcpStream::from_raw_fd(receive(pair[1])) });
        }
    });
    // After the fork, or the receiver would hold the listener.
    accepting(&listen(), |connection| send(pair[0], connection.as_raw_fd()));
    until_let_go(&[receiver]);
}

/// Room for one control message with one descriptor, aligned as the kernel wants it.
type Control = [u64; 4];

fn message(byte: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = byte;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes a size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
    message
}

/// A descriptor over a Unix socket.
pub fn send(socket: RawFd, fd: RawFd) {
    let (mut byte, mut control) = ([0_u8; 1], Control::default());
    let mut iovec = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let message = message(&mut iovec, &mut control);
    // SAFETY: the control message has room for one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        assert_eq!(libc::sendmsg(socket, &raw const message, 0), 1);
    }
}

/// The same, at the other end.
pub fn receive(socket: RawFd) -> RawFd {
    let (mut byte, mut control) = ([0_u8; 1], Control::default());
    let mut iovec = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut message = message(&mut iovec, &mut control);
    // SAFETY: as above; what came is one descriptor.
    unsafe {
        assert_eq!(libc::recvmsg(socket, &raw mut message, 0), 1);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()
    }
}

/// The grandchild serves, in another program, and nobody waits for it.
fn double_fork_exec() {
    accepting(&listen(), |connection| {
        keep_over_exec(connection.as_raw_fd());
        let child = fork(|| {
            fork(|| exec(&[&format!("{PREFIX}serve"), &connection.as_raw_fd().to_string()]));
        });
        wait_for(child);
    });
}

/// Threads serve what one of them accepts.
fn threads() {
    let (send, connections) = std::sync::mpsc::channel();
    let connections = Arc::new(Mutex::new(connections));
    for _ in 0..3 {
        let connections = Arc::clone(&connections);
        thread::spawn(move || {
            loop {
                let next = connections.lock().unwrap().recv();
                let Ok(connection) = next else { return };
                serve(connection);
            }
        });
    }
    accepting(&listen(), |connection| send.send(connection).unwrap());
}

/// A child has the connection as its standard input and output, and becomes another program.
fn inetd() {
    accepting(&listen(), |connection| {
        let child = fork(|| {
            const WITNESS: RawFd = 9;
            let fd = connection.into_raw_fd();
            // SAFETY: descriptors of this process.
            unsafe {
                assert_eq!(libc::dup2(1, WITNESS), WITNESS);
                assert_eq!((libc::dup2(fd, 0), libc::dup2(fd, 1)), (0, 1));
                libc::close(fd);
            }
            exec(&[&format!("{PREFIX}serve-inetd"), &WITNESS.to_string()]);
        });
        wait_for(child);
    });
}

/// One process listens, another accepts, in another program.
fn activation() {
    let listener = listen();
    let child = fork(|| {
        // SAFETY: descriptors of this process.
        assert_eq!(unsafe { libc::dup2(listener.as_raw_fd(), 20) }, 20);
        exec(&[&format!("{PREFIX}accept"), "20"]);
    });
    until_let_go(&[child]);
}

/// A helper inherits each connection, and never touches it.
fn helper_keeps() {
    let mut helpers = Vec::new();
    accepting(&listen(), |connection| {
        helpers.push(fork(|| {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }));
        serve(connection);
    });
    until_let_go(&helpers);
}

/// A child that has a number of our choice, which must be free.
fn fork_as(pid: libc::pid_t, child: impl FnOnce()) {
    // SAFETY: all zeroes is a value.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = (&raw const pid) as u64;
    args.set_tid_size = 1;
    // SAFETY: called from a process of one thread, and like fork(2) without a stack.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
        0 => {
            child();
            // SAFETY: without what is the parent's to do at its end.
            unsafe { libc::_exit(0) }
        }
        made => assert_eq!(made, i64::from(pid), "{}", Error::last_os_error()),
    }
}

/// Each connection has a child with the number of the one before.
fn pid_reuse() {
    let listener = listen();
    let mut number = None;
    accepting(&listener, |connection| {
        let child = || {
            // SAFETY: the child's copy.
            unsafe { libc::close(listener.as_raw_fd()) };
            answer(connection.as_raw_fd(), connection.as_raw_fd(), 1);
        };
        let pid = match number {
            None => fork(child),
            Some(pid) => {
                fork_as(pid, child);
                pid
            }
        };
        number = Some(pid);
        drop(connection);
        wait_for(pid);
    });
}

/// Forks as fast as it can between the question and the answer.
fn storm() {
    accepting(&listen(), |connection| {
        for _ in 0..STORM {
            wait_for(fork(|| {}));
        }
        serve(connection);
    });
}

/// The child that serves runs another program first, which gets a copy only to close it.
fn untouched_copy() {
    accepting(&listen(), |connection| {
        let child = fork(|| {
            // Descriptors are close-on-exec.
            let mut command = Command::new("/proc/self/exe");
            command.args([FLAG, &format!("{PREFIX}idle")]).stdin(Stdio::piped());
            let mut program = command.spawn().unwrap();
            answer(connection.as_raw_fd(), connection.as_raw_fd(), 1);
            drop(program.stdin.take());
            assert!(program.wait().unwrap().success());
        });
        drop(connection);
        wait_for(child);
    });
}

/// It reads, its child reads, and it reads again and answers.
fn handed_back() {
    let read = |connection: &TcpStream| assert_eq!((&mut &*connection).read(&mut [0; 1]).unwrap(), 1);
    accepting(&listen(), |connection| {
        let fd = connection.as_raw_fd();
        read(&connection);
        wait_for(fork(|| {
            read(&connection);
            tell(1, &format!("{} {fd} {}", std::process::id(), cookie(fd)));
        }));
        read(&connection);
        tell(1, &format!("{} {fd} {}", std::process::id(), cookie(fd)));
        (&connection).write_all(b"!").unwrap();
    });
}

/// Two children listen on what it has bound, one after the other ends, and it closes last.
fn bound_then_forked() {
    // SAFETY: plain calls with an address of the right size.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let name = sockaddr("127.0.0.1:0".parse().unwrap());
        assert_eq!(libc::bind(fd, (&raw const name).cast(), 16), 0);
        fd
    };
    for _ in 0..2 {
        // SAFETY: a descriptor of this process.
        wait_for(fork(|| assert_eq!(unsafe { libc::listen(fd, 9) }, 0)));
    }
    // SAFETY: likewise.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    tell(1, &format!("{}", listener.local_addr().unwrap()));
    drop(listener);
    until_let_go(&[]);
}

/// It connects to itself, and has children that do not get the descriptor: by execve(2), and by close_range(2).
fn child_without_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for by_exec in [true, false] {
        let connection = TcpStream::connect(address).unwrap();
        let mut pair = [0; 2];
        // SAFETY: a place for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        let child = fork(|| {
            // SAFETY: descriptors of this process.
            unsafe { libc::dup2(pair[0], 0) };
            if by_exec {
                exec(&[&format!("{PREFIX}idle")]);
            }
            // SAFETY: likewise.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
            until_let_go(&[]);
        });
        let sockets = || {
            let fds = std::fs::read_dir(format!("/proc/{child}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            links
                .filter(|link| link.to_string_lossy().starts_with("socket:"))
                .count()
        };
        // execve(2) is over when it has its new name: what it closes is told then.
        let comm = || std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        let is_ready = || sockets() == 0 && (!by_exec || comm().trim_end() == AFTER_EXEC);
        assert!(super::until(super::PATIENCE, is_ready));
        // SAFETY: it ends with the last writer.
        unsafe { libc::close(pair[0]) };
        drop(connection);
        // SAFETY: likewise.
        unsafe { libc::close(pair[1]) };
        wait_for(child);
    }
    drop(listener);
    tell(1, &format!("{address}"));
    until_let_go(&[]);
}
