//! A running `socklife trace`, and its events.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use super::{Class, Namespace, PATIENCE, socklife, until};

/// A tracer that is attached.
pub struct Tracer {
    pub child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// What a tracer said.
pub struct Events {
    pub all: Vec<Value>,
    pub stderr: String,
    pub status: ExitStatus,
}

impl Tracer {
    /// Traces a namespace in JSON with one class of hooks.
    pub fn start(class: Class, namespace: &Namespace, args: &[&str]) -> Self {
        let mut command = socklife();
        command.args(["trace", "-o", "json", "--hooks", class.name()]);
        command.args(["--netns", &namespace.inode.to_string()]).args(args);
        Self::spawn(command)
    }

    /// Waits until the tracer says that it is attached.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(Mutex::new(String::new()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (to_lines, to_said) = (Arc::clone(&lines), Arc::clone(&said));
        let readers = vec![
            std::thread::spawn(move || {
                for line in stdout.lines() {
                    to_lines.lock().unwrap().push(line.unwrap());
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                    to_said
                        .lock()
                        .unwrap()
                        .push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
            }),
        ];
        let tracer = Self {
            child,
            lines,
            said,
            readers,
        };
        let attached = until(PATIENCE, || tracer.stderr().contains("socklife: attached"));
        assert!(attached, "not attached: {}", tracer.stderr());
        tracer
    }

    pub fn stderr(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// How many lines hold this text so far.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// The last event of a kind so far.
    pub fn last(&self, kind: &str) -> Value {
        let text = format!("\"event\":\"{kind}\"");
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().rfind(|line| line.contains(&text));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no {kind}"))).unwrap()
    }

    /// Waits for so many events of a kind; more than that, or fewer, shows at the end.
    pub fn wait_for(&self, kind: &str, count: usize) {
        let text = format!("\"event\":\"{kind}\"");
        until(PATIENCE, || self.count(&text) >= count);
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Ends it as Ctrl-C does, and reads what is left.
    pub fn stop(self) -> Events {
        self.signal(libc::SIGINT);
        self.wait()
    }

    /// Waits for its end, and reads what is left.
    pub fn wait(mut self) -> Events {
        let mut status = None;
        until(PATIENCE + Duration::from_secs(30), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("it does not end: {}", self.stderr()));
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let all = self.lines.lock().unwrap();
        let all = all
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or(Value::String(line.clone())));
        Events {
            all: all.collect(),
            stderr: self.stderr(),
            status,
        }
    }
}

/// Whether a case failed for no other reason than that the kernel skipped a program.
static SKIPPED: AtomicBool = AtomicBool::new(false);

/// The same, told once.
pub fn kernel_skipped() -> bool {
    SKIPPED.swap(false, Relaxed)
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Of a case that failed; one that was waited for takes no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Events {
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
        SKIPPED.store(skipped > 0, Relaxed);
        assert!(skipped == 0, "{:?}\n{}", self.of("lost"), self.stderr);
        assert!(self.stderr.contains("none lost"), "{}", self.stderr);
    }

    /// It ended well, and lost nothing but runs of programs that the kernel skipped: how many.
    pub fn assert_whole_but_skipped(&self) -> u64 {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        let lost = self.of("lost");
        let all_skipped = lost.iter().all(|event| event["stage"] == "program_busy");
        assert!(all_skipped, "{lost:?}\n{}", self.stderr);
        lost.iter().filter_map(|event| event["count"].as_u64()).sum()
    }
}
