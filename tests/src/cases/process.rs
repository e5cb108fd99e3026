//! How the program begins and ends, and what it shows.

use std::{
    collections::HashSet,
    ffi::CString,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use socklife_abi::program::Program;

use crate::harness::{Events, Namespace, PATIENCE, Tracer, helper::connections, socklife, until};

fn trace(namespace: &Namespace, args: &[&str]) -> Command {
    let mut command = socklife();
    command
        .args(["trace", "--netns", &namespace.inode.to_string()])
        .args(args);
    command
}

pub fn count_and_duration() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(
        &namespace,
        &["-o", "json", "--event", "accepted", "--count", "7"],
    ));
    namespace.run(|| connections(11));
    let events = tracer.wait();
    assert_eq!(events.of("accepted").len(), 7);
    assert!(events.status.success());

    let before = Instant::now();
    let events = Tracer::spawn(trace(&namespace, &["-o", "json", "--duration", "300ms"])).wait();
    assert!(events.status.success(), "{}", events.stderr);
    assert!(before.elapsed() >= Duration::from_millis(300));
}

pub fn signals() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let namespace = Namespace::new();
        let tracer = Tracer::spawn(trace(&namespace, &["-o", "json", "--event", "accepted"]));
        namespace.run(|| connections(5));
        tracer.signal(signal);
        let events = tracer.wait();
        events.assert_whole();
        assert_eq!(
            events.of("accepted").len(),
            5,
            "what happened before the signal is told"
        );
        assert!(events.stderr.contains("socklife: 5 events in "), "{}", events.stderr);
    }
}

/// `socklife trace | head -1`, and nothing happens after that: it ends all the same, without complaint.
pub fn closed_pipe() {
    let namespace = Namespace::new();
    let mut child = trace(&namespace, &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = until(PATIENCE, || child.try_wait().unwrap().is_some());
    assert!(ended, "it goes on");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.to_lowercase().contains("pipe"), "{said}");
}

/// The programs of ours that are in the kernel, by number.
pub fn loaded() -> HashSet<u32> {
    let ours: HashSet<_> = Program::ALL.iter().map(|program| program.symbol()).collect();
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|info| {
            info.name_as_str()
                .is_some_and(|name| ours.iter().any(|symbol| symbol.starts_with(name)))
        })
        .map(|info| info.id())
        .collect()
}

pub fn kill_leaves_nothing() {
    let before = loaded();
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(&namespace, &[]));
    let during = loaded();
    assert!(
        during.difference(&before).count() > 5,
        "they are in the kernel: {during:?}"
    );
    tracer.signal(libc::SIGKILL);
    assert!(!tracer.wait().status.success());
    // The kernel frees them when their last use is over.
    assert!(until(PATIENCE, || loaded().is_subset(&before)), "{:?}", loaded());
}

/// A process names itself with a command to the terminal.
pub fn hostile_comm() {
    let namespace = Namespace::new();
    let tracer = |format| Tracer::spawn(trace(&namespace, &["-o", format, "--event", "accepted"]));
    let (text, json) = (tracer("text"), tracer("json"));
    namespace.run(|| {
        let set = |name: &str| {
            let name = CString::new(name).unwrap();
            // SAFETY: a string that the kernel copies.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        };
        set("\u{1b}[2J\"\u{9b}31m\n");
        connections(1);
        set("namespace");
    });
    for tracer in [text, json] {
        until(PATIENCE, || tracer.count("127.0.0.1") > 0);
        let events: Events = tracer.stop();
        let line = events
            .all
            .iter()
            .find(|line| line.to_string().contains("127.0.0.1"))
            .unwrap();
        let shown = line["comm"].as_str().or(line.as_str()).unwrap();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.contains("\\u{1b}[2J"), "{shown:?}");
    }
}

/// Every line has its columns where the header has them.
pub fn columns() {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(trace(&namespace, &["--event", "connect,established,accepted,closed"]));
    namespace.run(|| connections(3));
    until(PATIENCE, || tracer.count("closed") >= 6);
    let lines: Vec<_> = tracer
        .stop()
        .all
        .iter()
        .map(|line| line.as_str().unwrap().to_owned())
        .collect();
    let (header, lines) = lines.split_first().unwrap();
    assert_eq!(lines.len(), 15, "{lines:#?}");
    let words: Vec<_> = header.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "TIME", "EVENT", "PID", "COMM", "LADDR", "LPORT", "RADDR", "RPORT", "DETAIL"
        ]
    );
    let (laddr, raddr) = (header.find("LADDR").unwrap(), header.find("RADDR").unwrap());
    for line in lines {
        assert!(
            line[laddr..].starts_with("127.0.0.1 ") && line[raddr..].starts_with("127.0.0.1 "),
            "{line}"
        );
        assert_eq!(line.trim_end(), line);
    }
}
