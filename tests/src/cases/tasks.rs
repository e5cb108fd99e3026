//! Whom an event names: only whoever did it.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    thread,
};

use socklife::event::DOCUMENTED;

use super::data::kernel_names_the_socket;
use crate::harness::{Class, Tracer, helper, socklife};

/// Processes that compute, one on each CPU, and have nothing to do with any socket.
struct Bystanders(Vec<Child>);

impl Bystanders {
    fn on_every_cpu() -> Self {
        let count = thread::available_parallelism().unwrap().get();
        let spin = |cpu: usize| {
            Command::new("/proc/self/exe")
                .args([helper::FLAG, helper::SPIN, &cpu.to_string()])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self((0..count).map(spin).collect())
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every kind of event, while somebody else computes on every CPU: timers and softirqs interrupt them, and nobody names
/// them. A kind that is documented to name no task names none.
pub fn bystanders(class: Class) {
    const APART: &[&str] = &["skb_step", "skb_alloc", "skb_free", "finding", "listener"];
    let mut player = socklife()
        .args(["doctor", "--play"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut netns = String::new();
    let mut said = BufReader::new(player.stdout.take().unwrap());
    said.read_line(&mut netns).unwrap();
    let kinds: Vec<_> = DOCUMENTED
        .iter()
        .map(|documented| documented.kind.name())
        .filter(|kind| !APART.contains(kind))
        .collect();
    let mut trace = socklife();
    trace.args([
        "trace",
        "-o",
        "json",
        "--hooks",
        class.name(),
        "--netns",
        netns.trim(),
        "--event",
        &kinds.join(","),
    ]);
    let tracer = Tracer::spawn(trace);
    let bystanders = Bystanders::on_every_cpu();
    player.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(player.wait().unwrap().success());
    let strangers: BTreeSet<_> = bystanders.0.iter().map(|child| u64::from(child.id())).collect();
    drop(bystanders);
    let events = tracer.stop();
    events.assert_whole();
    for documented in DOCUMENTED {
        let mut named = events
            .of(documented.kind.name())
            .into_iter()
            .filter_map(|event| event["pid"].as_u64());
        if documented.task.is_none() {
            assert_eq!(named.next(), None, "{:?} names a task", documented.kind);
        } else if let Some(pid) = named.find(|pid| strangers.contains(pid)) {
            panic!("{:?} names {pid}, a bystander", documented.kind);
        }
    }
    let seen: BTreeSet<_> = events.all.iter().filter_map(|event| event["event"].as_str()).collect();
    let mut unseen = kinds;
    // Without its socket a segment has no namespace, and this looks at one; nor does a tracepoint tell of an ACK then.
    let nameless = |kind: &str| kind == "rcvq_full" || (kind == "cookie_rejected" && class == Class::Tracepoint);
    unseen.retain(|kind| !seen.contains(kind) && (kernel_names_the_socket() || !nameless(kind)));
    // Nothing is handed off there, and nobody ends who has a socket. No tracepoint tells of writers that wait; functions
    // tell of each descriptor that execve(2) and close_range(2) close, after which the process has none.
    let expected: &[&str] = match class {
        Class::Fentry | Class::Kprobe => &["fds_closed", "executed", "exited", "handed_off"],
        Class::Tracepoint => &["exited", "handed_off", "sndbuf_limited"],
    };
    assert_eq!(unseen, expected);
}
