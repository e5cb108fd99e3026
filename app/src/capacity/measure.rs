//! What a connection takes of memory here: idle connections and idle tasks are made, and the kernel is asked.
//!
//! Each measurement makes a first batch, which fills the slabs that have room, and then counts what a second batch adds.
//! All of it happens in a network namespace of its own where that may be made, otherwise on loopback.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Model, host,
    memory::{Memory, Task},
    reading::{Reading, Root, number},
};
use crate::netns;

/// Connections of the two batches, at most.
const CONNECTIONS: (usize, usize) = (64, 256);
/// Fewer say nothing.
const ENOUGH: usize = 16;
/// Tasks of the two batches.
const TASKS: (usize, usize) = (16, 32);
/// The kernel's stack alone takes that of a task (`THREAD_SIZE`, on every architecture); bytes.
const STACK: u64 = 8192;
/// A `struct tcp_sock` alone takes that on every 64-bit kernel since 4.0; bytes.
const SOCKET: u64 = 2048;
/// What others do meanwhile can hide what is measured: then it is measured again.
const ATTEMPTS: u32 = 5;
/// Descriptors that are left alone.
const SPARE: u64 = 8;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The objects that the kernel keeps for a connection that somebody has accepted, by their slabs.
const SLABS: [&str; 3] = ["sock_inode_cache", "filp", "dentry"];

/// Measures what a connection of this model takes.
pub fn measure(root: &Root, model: Model, ipv6: bool) -> Memory {
    let in_namespace = |measure: Box<dyn FnOnce() -> Memory + Send>| {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Without the privilege, loopback serves.
                let _ = netns::enter_new();
                measure()
            });
            thread.join().unwrap_or_else(|_| Memory {
                socket: Reading::unknown("the measurement failed: please report this".to_owned(), "measured"),
                task: None,
            })
        })
    };
    let slabs = of_slabs(root, if ipv6 { "TCPv6" } else { "TCP" });
    in_namespace(Box::new(move || {
        let socket = slabs.unwrap_or_else(|| {
            reading(again(|| sockets(ipv6)), |count| {
                format!("{count} connections made, Slab in /proc/meminfo")
            })
        });
        let task = match (model, socket.known()) {
            (Model::Event, _) => None,
            (_, None) => Some(Reading::unknown("see the connection".to_owned(), "measured")),
            (Model::Fork, Some(socket)) => Some(reading(again(|| children(*socket)), |count| {
                format!("{count} children of `socklife serve`, /proc/PID/smaps_rollup and /proc/meminfo")
            })),
            (Model::Thread, _) => Some(reading(again(threads), |count| {
                format!("{count} threads made, /proc/self/smaps_rollup and /proc/meminfo")
            })),
        };
        Memory { socket, task }
    }))
}

/// The first measurement that says something, or why the last did not.
fn again<T>(measure: impl Fn() -> Result<T>) -> Result<T> {
    let mut measured = measure();
    for _ in 1..ATTEMPTS {
        if measured.is_ok() {
            break;
        }
        measured = measure();
    }
    measured
}

fn reading<T>(measured: Result<(T, usize)>, at: impl FnOnce(usize) -> String) -> Reading<T> {
    match measured {
        Ok((value, count)) => Reading::new(value, &at(count)),
        Err(error) => Reading::unknown(format!("could not be measured: {error:#}"), "measured"),
    }
}

/// By the size of objects, where slabs may be looked at: with what each leaves unused of its pages.
fn of_slabs(root: &Root, sock: &str) -> Option<Reading<u64>> {
    let at = "/proc/slabinfo";
    let text = root.text(at).ok()?;
    let names = [&[sock], &SLABS[..]].concat();
    let sizes: Option<Vec<u64>> = names.iter().map(|name| slab(&text, name, host::page())).collect();
    Some(Reading::new(
        sizes?.into_iter().sum(),
        &format!("{at}: {}", names.join(", ")),
    ))
}

/// `name active_objs num_objs objsize objperslab pagesperslab …`
fn slab(text: &str, name: &str, page: u64) -> Option<u64> {
    let mut words = super::reading::field(text, name)?.skip(3);
    let objects: u64 = words.next()?.parse().ok()?;
    let pages: u64 = words.next()?.parse().ok()?;
    pages.checked_mul(page)?.checked_div(objects)
}

/// What the kernel keeps in slabs, stacks of tasks and page tables, and for each CPU; bytes.
fn kernel() -> Result<u64> {
    // Counters lag behind on each CPU until they are asked for, or a second has passed (`vm.stat_interval`).
    if fs::read("/proc/sys/vm/stat_refresh").is_err() {
        thread::sleep(Duration::from_millis(1100));
    }
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let parts = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let kib: u64 = parts.iter().filter_map(|key| number::<u64>(&text, key)).sum();
    Ok(kib.saturating_mul(1024))
}

/// Bytes for one socket, and how many connections were made.
fn sockets(ipv6: bool) -> Result<(u64, usize)> {
    let (first, second) = batches(descriptors_left()?)?;
    let ip = if ipv6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    };
    let listener = TcpListener::bind(SocketAddr::new(ip, 0)).context("cannot listen")?;
    let address = listener.local_addr().context("the listener has no address")?;
    let connect = |count| -> Result<Vec<(TcpStream, TcpStream)>> {
        (0..count)
            .map(|_| {
                let client = TcpStream::connect(address).context("cannot connect")?;
                Ok((client, listener.accept().context("cannot accept")?.0))
            })
            .collect()
    };
    let filled = connect(first)?;
    let before = kernel()?;
    let measured = connect(second)?;
    let grown = kernel()?.saturating_sub(before);
    drop((filled, measured));
    // Both ends are here.
    each(grown, second * 2, SOCKET).map(|bytes| (bytes, second))
}

fn descriptors_left() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits")?;
    let soft = number::<u64>(&limits, "Max open files").unwrap_or(u64::MAX);
    let open = fs::read_dir("/proc/self/fd")
        .context("cannot read /proc/self/fd")?
        .count();
    Ok(soft.saturating_sub(u64::try_from(open).unwrap_or(u64::MAX)))
}

/// How many connections fit into so many descriptors, one at each end.
fn batches(descriptors: u64) -> Result<(usize, usize)> {
    let room = usize::try_from(descriptors.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX);
    let first = CONNECTIONS.0.min(room / 5);
    let second = CONNECTIONS.1.min(room - first);
    ensure!(
        second >= ENOUGH,
        "too few descriptors are left ({descriptors}): raise `ulimit -n`"
    );
    Ok((first, second))
}

/// What one of them takes, which is known not to be less than this.
fn each(bytes: u64, count: usize, least: u64) -> Result<u64> {
    let each = bytes / u64::try_from(count.max(1)).unwrap_or(u64::MAX);
    ensure!(
        each >= least,
        "the kernel's memory hardly grew: others released some meanwhile; try again"
    );
    Ok(each)
}

/// What an idle child of the reference server takes, and how many there were.
fn children(socket: u64) -> Result<(Task, usize)> {
    let mut server = Server::start()?;
    let measured = server.measure(socket);
    server.stop();
    measured
}

struct Server {
    child: Child,
    address: SocketAddr,
    clients: Vec<TcpStream>,
}

impl Server {
    fn start() -> Result<Self> {
        let most = (TASKS.0 + TASKS.1).to_string();
        let mut child = Command::new("/proc/self/exe")
            .args(["serve", "--listen", "127.0.0.1:0", "--max-children", &most])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `socklife serve`")?;
        let mut line = String::new();
        let out = child.stdout.take().context("it has no standard output")?;
        let read = BufReader::new(out).read_line(&mut line);
        let address = line.trim().rsplit(' ').next().and_then(|word| word.parse().ok());
        let Some(address) = address.filter(|_| read.is_ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(anyhow!("`socklife serve` did not start"));
        };
        Ok(Self {
            child,
            address,
            clients: Vec::new(),
        })
    }

    fn measure(&mut self, socket: u64) -> Result<(Task, usize)> {
        self.connect(TASKS.0)?;
        let before = kernel()?;
        let pids = self.connect(TASKS.1)?;
        // The sockets at both ends are counted elsewhere.
        let sockets = socket.saturating_mul(2 * TASKS.1 as u64);
        let kernels = each(
            kernel()?.saturating_sub(before).saturating_sub(sockets),
            pids.len(),
            STACK,
        )?;
        let own: Result<Vec<u64>> = pids.iter().map(|pid| private(&format!("/proc/{pid}"))).collect();
        let own = each(own?.into_iter().sum(), pids.len(), 1)?;
        let task = Task {
            bytes: kernels.saturating_add(own),
            mappings: 0,
        };
        Ok((task, pids.len()))
    }

    /// Connects so many more, each to a child that has answered and waits; their PIDs.
    fn connect(&mut self, count: usize) -> Result<Vec<u64>> {
        (0..count)
            .map(|_| {
                let mut client = TcpStream::connect_timeout(&self.address, PATIENCE).context("cannot connect")?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.write_all(b"GET / HTTP/1.1\r\n\r\n").context("cannot ask")?;
                let mut answer = Vec::new();
                let mut buffer = [0; 1024];
                while !answer.ends_with(b"}\n") {
                    let length = client.read(&mut buffer).context("a child did not answer")?;
                    ensure!(length > 0, "a child hung up");
                    answer.extend_from_slice(&buffer[..length]);
                }
                self.clients.push(client);
                let body = answer.iter().position(|byte| *byte == b'{').unwrap_or(0);
                let says: serde_json::Value = serde_json::from_slice(&answer[body..]).context("not JSON")?;
                says["pid"].as_u64().context("a child without a PID")
            })
            .collect()
    }

    /// Its children end with their clients, and it ends with them.
    fn stop(mut self) {
        self.clients.clear();
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a child that was not waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let end = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What an idle thread takes, and how many there were.
fn threads() -> Result<(Task, usize)> {
    let maps = || -> Result<usize> { Ok(fs::read_to_string("/proc/self/maps")?.lines().count()) };
    let _filled = Idle::start(TASKS.0)?;
    let (kernel_before, own_before, maps_before) = (kernel()?, private("/proc/self")?, maps()?);
    let _measured = Idle::start(TASKS.1)?;
    let kernels = each(kernel()?.saturating_sub(kernel_before), TASKS.1, STACK)?;
    let own = private("/proc/self")?.saturating_sub(own_before) / TASKS.1 as u64;
    let mappings = maps()?.saturating_sub(maps_before).div_ceil(TASKS.1);
    let task = Task {
        bytes: kernels.saturating_add(own),
        mappings: u64::try_from(mappings).unwrap_or(u64::MAX),
    };
    Ok((task, TASKS.1))
}

/// Threads that wait. They are plain ones of pthread_create(3): those of std have a stack for signals besides.
struct Idle {
    gate: Arc<Gate>,
    /// The gate's other end.
    open: Option<PipeWriter>,
    threads: Vec<libc::pthread_t>,
}

/// What a thread waits at: it reads from the pipe until nobody can write to it.
struct Gate {
    arrived: AtomicUsize,
    wait: PipeReader,
}

extern "C" fn idle(gate: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the gate lives until all its threads have ended, and threads may share it.
    let gate = unsafe { &*gate.cast::<Gate>() };
    gate.arrived.fetch_add(1, Relaxed);
    let _ = (&gate.wait).read(&mut [0]);
    std::ptr::null_mut()
}

impl Idle {
    /// Starts them, and waits until all of them run.
    fn start(count: usize) -> Result<Self> {
        let (wait, open) = std::io::pipe().context("cannot make a pipe")?;
        let gate = Arc::new(Gate {
            arrived: AtomicUsize::new(0),
            wait,
        });
        let mut all = Self {
            gate,
            open: Some(open),
            threads: Vec::new(),
        };
        for _ in 0..count {
            let mut thread = MaybeUninit::uninit();
            let gate = Arc::as_ptr(&all.gate).cast_mut().cast();
            // SAFETY: a function that takes the gate, which outlives the thread: `drop` waits for it.
            let error = unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), idle, gate) };
            ensure!(
                error == 0,
                "cannot start threads: {}",
                std::io::Error::from_raw_os_error(error)
            );
            // SAFETY: filled, as there was no error.
            all.threads.push(unsafe { thread.assume_init() });
        }
        let end = Instant::now() + PATIENCE;
        while all.gate.arrived.load(Relaxed) < count {
            ensure!(Instant::now() < end, "threads do not run");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(all)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.open.take());
        for thread in &self.threads {
            // SAFETY: a thread that was not waited for.
            unsafe { libc::pthread_join(*thread, std::ptr::null_mut()) };
        }
    }
}

/// Pages that a process has for itself, bytes (`proc_pid_smaps(5)`).
fn private(folder: &str) -> Result<u64> {
    let path = format!("{folder}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let parts = ["Private_Clean:", "Private_Dirty:"];
    let kib: Option<u64> = parts.iter().map(|key| number::<u64>(&text, key)).sum();
    Ok(kib.context("smaps_rollup without Private")?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::ensure;

    use super::{again, batches, each, of_slabs, slab};
    use crate::capacity::reading::fixture::Fixture;

    const SLABS: &str = "slabinfo - version: 2.1\n\
        TCPv6                 78    130   2496   13    8 : tunables    0    0    0 : slabdata     10     10      0\n\
        TCP                  130    182   2368   13    8 : tunables    0    0    0 : slabdata     14     14      0\n\
        sock_inode_cache     253    304    832   19    4 : tunables    0    0    0 : slabdata     16     16      0\n\
        filp                 476    483    192   21    1 : tunables    0    0    0 : slabdata     23     23      0\n";

    #[test]
    fn objects_have_their_share_of_pages() {
        assert_eq!(slab(SLABS, "TCP", 4096), Some(2520));
        assert_eq!(slab(SLABS, "TCPv6", 4096), Some(2520));
        assert_eq!(slab(SLABS, "sock_inode_cache", 4096), Some(862));
        assert_eq!(slab(SLABS, "TC", 4096), None);
        let fixture = Fixture::new(&[("proc/slabinfo", SLABS)]);
        assert_eq!(of_slabs(&fixture.root, "TCP"), None, "without dentry it is not all");
    }

    #[test]
    fn noise_is_measured_again_but_not_for_ever() {
        let tries = Cell::new(0);
        let third = || {
            tries.set(tries.get() + 1);
            ensure!(tries.get() == 3, "noise");
            Ok(tries.get())
        };
        assert_eq!(again(third).ok(), Some(3));
        tries.set(3);
        assert!(again(third).is_err());
        assert_eq!(tries.get(), 3 + 5);
    }

    #[test]
    fn batches_fit_into_what_is_left() {
        assert_eq!(batches(u64::MAX).ok(), Some((64, 256)));
        assert_eq!(batches(109).ok(), Some((10, 40)));
        assert_eq!(batches(50).ok(), Some((4, 17)));
        assert!(batches(43).is_err() && batches(0).is_err());
        assert!(each(0, 7, 1).is_err());
        assert_eq!(each(7919, 7, 1131).ok(), Some(1131));
        assert!(each(7919, 7, 1132).is_err());
    }
}
