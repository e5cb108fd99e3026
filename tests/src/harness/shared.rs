//! One tracer for many cases: it stays attached, and each case has a view of it: the events of its own namespace, of the
//! kinds that it asks for, from the moment that it begins until it stops.

use std::{
    collections::HashSet,
    fs::File,
    os::{fd::AsRawFd as _, unix::process::ExitStatusExt as _},
    process::ExitStatus,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Class, Events, Namespace, PATIENCE,
    lines::{self, Lines},
    socklife,
    tracer::Process,
};

/// What one tracer has for many cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(&'static str);

/// What happens to sockets and segments; not the steps of packets, of which there are too many.
pub const SOCKETS: Kinds = Kinds(
    "bound,listening,connect,connected,connect_failed,established,accepted,state,closed,\
                     syn_queued,synack_sent,synack_retransmitted,cookie_sent,cookie_accepted,cookie_rejected,syn_refused,\
                     half_open_ended,accept_deferred,accept_queued,accept_refused,never_accepted,\
                     skb_dropped,retransmitted,reset_sent,reset_received,rcvq_full,sndbuf_limited,window_stalled,\
                     accept_failed,listener",
);

/// Who holds them.
pub const HOLDERS: Kinds = Kinds(
    "bound,listening,connect,connected,established,accept_queued,accepted,never_accepted,closed,\
                     inherited,handed_off,fd_opened,fd_closed,last_close,finding",
);

/// Cases that are tried again take a namespace each time.
const SPARE: usize = 8;

/// Ports that a view binds a socket to when it begins and when it stops: what lies between is its own, for the tracer tells
/// of one namespace in order. A namespace may have the number of one that ended, of which something is still on its way.
const BEGIN: u16 = 1;
const END: u16 = 2;

/// The case that runs, where it may share a tracer.
static SHARING: Mutex<Option<String>> = Mutex::new(None);
static SHARED: Mutex<Option<Shared>> = Mutex::new(None);
/// How many runs of programs the kernel skipped under shared tracers, and how many of them a case was told of.
static SKIPPED: AtomicU64 = AtomicU64::new(0);
static SKIPPED_TOLD: AtomicU64 = AtomicU64::new(0);

struct Shared {
    class: Class,
    kinds: Kinds,
    process: Process,
    views: Arc<Mutex<Vec<Route>>>,
    /// They were there before the tracer, which compares its counts with the kernel's in each of them at its end.
    fresh: Vec<Namespace>,
    /// Those that cases had, and which. Kept until the end, so that the kernel's counts can be read.
    taken: Vec<(Namespace, String)>,
}

/// Where the events of a namespace go.
struct Route {
    netns: String,
    kinds: HashSet<String>,
    begun: bool,
    to: Arc<Lines>,
}

/// A part of a tracer that others use, too.
pub struct View {
    pub lines: Arc<Lines>,
    views: Arc<Mutex<Vec<Route>>>,
    namespace: File,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before a case that may share a tracer of this class with as many others.
pub fn allow(class: Class, kinds: Kinds, cases: usize, case: &str) {
    *locked(&SHARING) = None;
    let usable = |shared: &Shared| shared.class == class && shared.kinds == kinds && !shared.process.has_ended();
    if !locked(&SHARED).as_ref().is_some_and(usable) {
        finish();
        let shared = Shared::start(class, kinds, cases);
        *locked(&SHARED) = Some(shared);
    }
    *locked(&SHARING) = Some(case.to_owned());
}

/// Before a case that may not: nobody else traces while it runs.
pub fn forbid() {
    *locked(&SHARING) = None;
    finish();
}

/// Ends the shared tracer, if there is one: it ends well, lost nothing but what the kernel skipped, and counted what the
/// kernel counted.
pub fn finish() {
    let Some(shared) = locked(&SHARED).take() else { return };
    shared.process.signal(libc::SIGINT);
    let events = shared.process.wait();
    if events.assert_whole_but_skipped() > 0 || events.perhaps_skipped() {
        return;
    }
    assert!(events.stderr.contains("none lost"), "{}", events.stderr);
    // On a machine that others use there are other namespaces, too.
    let differs = |(namespace, case): &(Namespace, String)| {
        let of_it = format!("netns {}: ", namespace.inode);
        let line = events
            .stderr
            .lines()
            .find(|line| line.contains(&of_it) && line.contains("the kernel says"));
        line.map(|line| format!("{case}: {line}"))
    };
    let different: Vec<_> = shared.taken.iter().filter_map(differs).collect();
    assert!(different.is_empty(), "{}\n{}", different.join("\n"), events.stderr);
}

/// A namespace for the case that runs, where it shares a tracer.
pub fn namespace() -> Option<Namespace> {
    let case = locked(&SHARING).clone()?;
    let mut shared = locked(&SHARED);
    let shared = shared.as_mut()?;
    let namespace = shared.fresh.pop()?;
    shared.taken.push((namespace.clone(), case));
    Some(namespace)
}

/// A tracer tells once a second what the kernel skipped, and each ten seconds what it finds without that.
const TOLD_WITHIN: Duration = Duration::from_millis(2500);
const FOUND_WITHIN: Duration = Duration::from_millis(12_500);

/// Whether the kernel skipped a program lately: waits until that is told, or would have been; a case asks that failed.
pub fn skipped_lately() -> bool {
    let news = || SKIPPED.load(Relaxed) > SKIPPED_TOLD.load(Relaxed);
    let told = if locked(&SHARED).is_some() {
        super::until(
            if super::skips_programs() {
                FOUND_WITHIN
            } else {
                TOLD_WITHIN
            },
            news,
        )
    } else {
        news()
    };
    SKIPPED_TOLD.store(SKIPPED.load(Relaxed), Relaxed);
    told
}

/// A view of the shared tracer; `None` where a case needs one of its own.
pub fn view(namespace: &Namespace, args: &[&str]) -> Option<View> {
    let ["--event" | "-e", kinds] = args else { return None };
    let kinds: HashSet<String> = kinds.split(',').map(str::to_owned).collect();
    locked(&SHARING).as_ref()?;
    let mut shared = locked(&SHARED);
    let shared = shared.as_mut()?;
    let known: HashSet<&str> = shared.kinds.0.split(',').collect();
    let is_known = shared.taken.iter().any(|(taken, _)| taken.inode == namespace.inode);
    if !is_known || !kinds.iter().all(|kind| known.contains(&**kind)) || !namespace.run(has_no_sockets) {
        return None;
    }
    let lines = Arc::<Lines>::default();
    shared.views.lock().unwrap().push(Route {
        netns: format!("\"netns\":{},", namespace.inode),
        kinds,
        begun: false,
        to: Arc::clone(&lines),
    });
    let view = View {
        lines,
        views: Arc::clone(&shared.views),
        namespace: namespace.run(|| File::open("/proc/thread-self/ns/net").unwrap()),
    };
    view.mark(BEGIN);
    let begun = || {
        let views = view.views.lock().unwrap();
        views
            .iter()
            .any(|route| route.begun && Arc::ptr_eq(&route.to, &view.lines))
    };
    assert!(
        super::until(PATIENCE, begun),
        "the shared tracer does not see a view begin"
    );
    Some(view)
}

/// Nothing happened in the namespace of the calling thread that a tracer of its own would find there.
fn has_no_sockets() -> bool {
    let count = |table: &str| {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        text.map_or(0, |text| text.lines().skip(1).count())
    };
    count("tcp") + count("tcp6") == 0
}

impl Shared {
    fn start(class: Class, kinds: Kinds, cases: usize) -> Self {
        let mut command = socklife();
        command.args(["trace", "-o", "json", "--hooks", class.name(), "--event", kinds.0]);
        let views = Arc::<Mutex<Vec<Route>>>::default();
        let to = Arc::clone(&views);
        let fresh = (0..SPARE + cases).map(|_| Namespace::made()).collect();
        Self {
            class,
            kinds,
            process: Process::spawn(command, Arc::default(), move |lost, line| route(&to, lost, line)),
            views,
            fresh,
            taken: Vec::new(),
        }
    }
}

/// Gives a line to whom it belongs; what nobody asked for is not looked at any further.
fn route(views: &Mutex<Vec<Route>>, lost: &Lines, line: String) {
    let kind = lines::kind(&line).unwrap_or_default();
    let mut views = views.lock().unwrap();
    if kind == "lost" {
        if line.contains("\"program_busy\"") || (line.contains("\"unseen\"") && super::skips_programs()) {
            let count = lines::member(&line, "\"count\":", '}').and_then(|count| count.split(',').next()?.parse().ok());
            SKIPPED.fetch_add(count.unwrap_or(1), Relaxed);
        }
        for view in views.iter().filter(|view| view.begun) {
            view.to.push(line.clone());
        }
        lost.push(line);
        return;
    }
    // A zombie's: it has no socket any more. Whoever looks on is told.
    if kind == "finding" && !line.contains("\"netns\":") {
        for view in views.iter().filter(|view| view.begun && view.kinds.contains(kind)) {
            view.to.push(line.clone());
        }
        return;
    }
    let mut ended = None;
    for (index, view) in views
        .iter_mut()
        .enumerate()
        .filter(|(_, view)| line.contains(&view.netns))
    {
        let mark = mark(&line);
        if mark.is_some() {
            // Only the bind counts, whatever else is told of that socket.
            view.begun |= kind == "bound" && mark == Some(BEGIN);
            if kind == "bound" && mark == Some(END) && view.begun {
                ended = Some(index);
            }
        } else if view.begun && view.kinds.contains(kind) {
            view.to.push(line.clone());
        }
    }
    if let Some(index) = ended {
        views.remove(index).to.end();
    }
}

/// Of which mark a line tells.
fn mark(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("\"laddr\":\"0.0.0.0\",\"lport\":")?;
    let (port, _) = rest.split_once(',')?;
    [BEGIN, END].into_iter().find(|mark| port == mark.to_string())
}

impl View {
    pub fn stderr(&self) -> String {
        let lost = self.lines.count("\"event\":\"lost\"");
        if lost == 0 {
            "none lost".to_owned()
        } else {
            format!("{lost} lines of the shared tracer tell of losses")
        }
    }

    /// Takes what there is; all that was caused before is.
    pub fn stop(self) -> Events {
        self.mark(END);
        assert!(
            self.lines.wait_for_end(PATIENCE),
            "the shared tracer does not see a view end"
        );
        Events::new(&self.lines, self.stderr(), ExitStatus::from_raw(0))
    }

    /// Binds a socket in the namespace.
    fn mark(&self, port: u16) {
        let namespace = self.namespace.try_clone().unwrap();
        let marked = std::thread::spawn(move || {
            let name = super::helper::sockaddr((std::net::Ipv4Addr::UNSPECIFIED, port).into());
            // SAFETY: a thread that ends with this, and plain socket calls with an address of the right size.
            unsafe {
                assert_eq!(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET), 0);
                let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
                assert_eq!(
                    libc::bind(fd, (&raw const name).cast(), 16),
                    0,
                    "{}",
                    std::io::Error::last_os_error()
                );
                libc::close(fd);
            }
        });
        marked.join().unwrap();
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Of a case that failed; one that stopped is gone.
        if let Ok(mut views) = self.views.lock() {
            views.retain(|route| !Arc::ptr_eq(&route.to, &self.lines));
        }
    }
}
