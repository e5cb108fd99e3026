//! A running `socklife trace`, and its events.

use std::{
    cell::OnceCell,
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Class, Namespace, PATIENCE,
    lines::Lines,
    shared::{self, View},
    skips_programs, socklife, until,
};

/// A tracer that is attached.
pub struct Tracer(Kind);

enum Kind {
    Own(Process),
    /// A part of one that others use, too.
    View(View),
}

/// A process of its own.
pub struct Process {
    child: Child,
    lines: Arc<Lines>,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process says on standard error.
#[derive(Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

/// What a tracer said.
pub struct Events {
    pub all: Vec<Value>,
    pub stderr: String,
    pub status: ExitStatus,
    /// Where the events of each socket are.
    by_cookie: OnceCell<HashMap<u64, Vec<usize>>>,
}

impl Tracer {
    /// Traces a namespace in JSON with one class of hooks. Where the case may share a tracer, nothing happened in the namespace
    /// yet, and nothing is asked for but kinds of events that the shared one has, it is a view of that.
    pub fn start(class: Class, namespace: &Namespace, args: &[&str]) -> Self {
        if let Some(view) = shared::view(namespace, args) {
            return Self(Kind::View(view));
        }
        let mut command = socklife();
        command.args(["trace", "-o", "json", "--hooks", class.name()]);
        command.args(["--netns", &namespace.inode.to_string()]).args(args);
        Self::spawn(command)
    }

    /// Waits until the tracer says that it is attached.
    pub fn spawn(command: Command) -> Self {
        Self(Kind::Own(Process::spawn(command, Arc::default(), |lines, line| {
            lines.push(line);
        })))
    }

    pub fn pid(&self) -> u32 {
        match &self.0 {
            Kind::Own(process) => process.child.id(),
            Kind::View(_) => panic!("no process of its own"),
        }
    }

    pub fn stderr(&self) -> String {
        match &self.0 {
            Kind::Own(process) => process.stderr(),
            Kind::View(view) => view.stderr(),
        }
    }

    fn lines(&self) -> &Lines {
        match &self.0 {
            Kind::Own(process) => &process.lines,
            Kind::View(view) => &view.lines,
        }
    }

    /// How many lines hold this text so far.
    pub fn count(&self, text: &str) -> usize {
        self.lines().count(text)
    }

    /// The last event of a kind so far.
    pub fn last(&self, kind: &str) -> Value {
        let line = self.lines().last(kind).unwrap_or_else(|| panic!("no {kind}"));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for so many events of a kind; more than that, or fewer, shows at the end.
    pub fn wait_for(&self, kind: &str, count: usize) {
        self.lines().wait_for(kind, count, PATIENCE);
    }

    pub fn signal(&self, signal: i32) {
        match &self.0 {
            Kind::Own(process) => process.signal(signal),
            Kind::View(_) => panic!("no process of its own"),
        }
    }

    /// Ends it as Ctrl-C does, and reads what is left.
    pub fn stop(self) -> Events {
        match self.0 {
            Kind::Own(process) => {
                process.signal(libc::SIGINT);
                process.wait()
            }
            Kind::View(view) => view.stop(),
        }
    }

    /// Waits for its end, and reads what is left.
    pub fn wait(self) -> Events {
        match self.0 {
            Kind::Own(process) => process.wait(),
            Kind::View(_) => panic!("it does not end by itself"),
        }
    }
}

impl Process {
    /// Waits until it says that it is attached; `take` gets each line.
    pub fn spawn(mut command: Command, lines: Arc<Lines>, take: impl Fn(&Lines, String) + Send + 'static) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<Said>::default();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (to_lines, to_said) = (Arc::clone(&lines), Arc::clone(&said));
        let readers = vec![
            std::thread::spawn(move || {
                for line in stdout.lines() {
                    take(&to_lines, line.unwrap());
                }
                to_lines.end();
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    to_said.text.lock().unwrap().push_str(&text);
                    to_said.more.notify_all();
                }
            }),
        ];
        let process = Self {
            child,
            lines,
            said,
            readers,
        };
        assert!(process.is_attached(), "not attached: {}", process.stderr());
        process
    }

    /// Waits for the word; false when it ends without, or takes too long.
    fn is_attached(&self) -> bool {
        let end = Instant::now() + STARTING;
        let mut text = self.said.text.lock().unwrap();
        loop {
            if text.contains("socklife: attached") {
                return true;
            }
            let left = end.checked_duration_since(Instant::now());
            // It ends its standard output when it fails, and says nothing more.
            if left.is_none() || self.readers[1].is_finished() {
                return false;
            }
            text = self.said.more.wait_timeout(text, Duration::from_millis(50)).unwrap().0;
        }
    }

    pub fn stderr(&self) -> String {
        self.said.text.lock().unwrap().clone()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&self) -> bool {
        self.lines.wait_for_end(Duration::ZERO)
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for its end, and reads what is left.
    pub fn wait(mut self) -> Events {
        // At its end it closes its standard output.
        let ended = self.lines.wait_for_end(PATIENCE + Duration::from_secs(30));
        let mut status = None;
        let ended = ended
            && until(PATIENCE, || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            });
        assert!(ended, "it does not end: {}", self.stderr());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Events::new(&self.lines, self.stderr(), status.unwrap())
    }
}

/// How long a start may take: several at once on an emulated machine that others use, too.
const STARTING: Duration = Duration::from_secs(180);

/// Whether a case failed for no other reason than that the kernel skipped a program.
static SKIPPED: AtomicBool = AtomicBool::new(false);

/// More went by unseen than a case arranged.
pub fn note_skipped() {
    SKIPPED.store(true, Relaxed);
}

/// Whether the kernel skipped a program in a case that failed; told once.
pub fn kernel_skipped() -> bool {
    SKIPPED.swap(false, Relaxed) | shared::skipped_lately()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of a case that failed; one that was waited for takes no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Events {
    pub fn new(lines: &Lines, stderr: String, status: ExitStatus) -> Self {
        let all = lines.all().into_iter();
        let all = all.map(|line| serde_json::from_str(&line).unwrap_or(Value::String(line)));
        Self::of_values(all.collect(), stderr, status)
    }

    pub fn of_values(all: Vec<Value>, stderr: String, status: ExitStatus) -> Self {
        Self {
            all,
            stderr,
            status,
            by_cookie: OnceCell::new(),
        }
    }

    /// The events of a socket, in order.
    pub fn of_socket(&self, cookie: u64) -> impl Iterator<Item = &Value> {
        let by_cookie = self.by_cookie.get_or_init(|| {
            let mut by_cookie = HashMap::<_, Vec<_>>::new();
            for (index, event) in self.all.iter().enumerate() {
                if let Some(cookie) = event["cookie"].as_u64() {
                    by_cookie.entry(cookie).or_default().push(index);
                }
            }
            by_cookie
        });
        let indices = by_cookie.get(&cookie).map(Vec::as_slice).unwrap_or_default();
        indices.iter().map(|index| &self.all[*index])
    }

    /// The events of a kind, in order.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.all.iter().filter(|event| event["event"] == kind).collect()
    }

    /// The one event of a kind.
    pub fn one(&self, kind: &str) -> &Value {
        let events = self.of(kind);
        assert_eq!(events.len(), 1, "{kind}: {:#?}", self.all);
        events[0]
    }

    /// What it counted is what the kernel counted.
    pub fn assert_reconciled(&self) {
        assert!(!self.stderr.contains("the kernel says"), "{}", self.stderr);
    }

    /// It ended well and lost nothing.
    pub fn assert_whole(&self) {
        let skipped = self.assert_whole_but_skipped();
        SKIPPED.store(skipped > 0 || self.perhaps_skipped(), Relaxed);
        assert!(skipped == 0, "{:?}\n{}", self.of("lost"), self.stderr);
        assert!(self.stderr.contains("none lost"), "{}", self.stderr);
    }

    /// More may be lost than is known: then a case that lacks something proves nothing.
    pub fn perhaps_skipped(&self) -> bool {
        let perhaps = self.stderr.contains(" more: busy CPUs");
        assert!(!perhaps || skips_programs(), "{}", self.stderr);
        perhaps
    }

    /// It ended well, and lost nothing but runs of programs that the kernel skipped, or what shows that it did: how many.
    pub fn assert_whole_but_skipped(&self) -> u64 {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        let lost = self.of("lost");
        // It says which it skipped. What it did not run shows later.
        let all_skipped = lost
            .iter()
            .all(|event| event["stage"] == "program_busy" || (event["stage"] == "unseen" && skips_programs()));
        assert!(all_skipped, "{lost:?}\n{}", self.stderr);
        lost.iter().filter_map(|event| event["count"].as_u64()).sum()
    }
}
