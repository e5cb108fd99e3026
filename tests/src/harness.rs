//! What the cases stand on: a namespace, a traced workload, and what came out.

pub mod helper;
mod lines;
pub mod memory;
pub mod models;
mod namespace;
pub mod netstat;
pub mod privilege;
pub mod serve;
pub mod shared;
mod tracer;
pub mod uring;
pub mod view;

use std::{
    io::Write as _,
    net::TcpStream,
    os::fd::AsRawFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

pub use namespace::Namespace;
pub use tracer::{Events, Tracer, kernel_skipped, note_skipped};

/// A class of hooks, as `--hooks` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Fentry,
    Kprobe,
    Tracepoint,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Why this kernel cannot be traced with this class, in the kernel's words. Of all commands this starts the fastest;
    /// where the kernel refuses no more than something else of the class, its trials fail.
    pub fn refused(self) -> Option<String> {
        let trace = socklife()
            .args([
                "trace",
                "--hooks",
                self.name(),
                "--event",
                "closed",
                "--duration",
                "1ms",
            ])
            .output()
            .unwrap();
        if trace.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&trace.stderr);
        let mut lines = said.lines().map(str::trim);
        let reason = lines
            .by_ref()
            .find(|line| line.ends_with("this kernel admits no hook for:"))
            .and_then(|_| lines.nth(1));
        assert!(reason.is_some(), "{said}");
        reason.map(str::to_owned)
    }
}

/// How often the binary under test was started.
static STARTS: AtomicU32 = AtomicU32::new(0);

/// The same, since this was asked last.
pub fn starts() -> u32 {
    STARTS.swap(0, Relaxed)
}

/// The binary under test.
pub fn socklife() -> Command {
    STARTS.fetch_add(1, Relaxed);
    let path = std::env::var_os("SOCKLIFE_BIN").expect("SOCKLIFE_BIN names the binary: run `cargo xtask test`");
    Command::new(path)
}

/// To standard output, past the test harness.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Waits for a fact; false when it did not come true in time.
pub fn until(patience: Duration, mut fact: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if fact() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Moves the thread to one CPU, or lets it go to each.
pub fn run_on(cpu: Option<usize>) {
    // SAFETY: all zeroes is a set of no CPUs, and the calls read and write no more than that set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for each in 0..std::thread::available_parallelism().map_or(1, |cpus| cpus.get().max(64)) {
            if cpu.is_none_or(|cpu| cpu == each) {
                libc::CPU_SET(each, &mut set);
            }
        }
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
}

/// Whether every instruction is emulated, and takes ten times as long.
pub fn emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG")
}

/// Which preemption the kernel of a VM has, from its first process.
pub const PREEMPTION: &str = "INTEGRATION_PREEMPTION";

/// Whether this kernel may not run a program at all, because it was in one: preempted there, or in a softirq on top of it.
pub fn skips_programs() -> bool {
    let preemption = std::env::var(PREEMPTION).unwrap_or_default();
    !emulated() || preemption.contains("(full)") || preemption.contains("(lazy)")
}

/// How long anything may take: VMs run without hardware support.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Closes with a RST (`SO_LINGER` with no time).
pub fn reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap();
    // SAFETY: an option of that type.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len,
        )
    };
    assert_eq!(done, 0);
    drop(socket);
}

/// What the kernel says of a connection (`TCP_INFO`).
pub fn tcp_info(socket: &TcpStream) -> libc::tcp_info {
    // SAFETY: all zeroes is a value of the structure; the kernel writes no more than its size.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut size = libc::socklen_t::try_from(size_of_val(&info)).unwrap();
        let done = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        );
        assert_eq!(done, 0);
        info
    }
}
