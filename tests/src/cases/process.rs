//! How the program begins and ends, and what it shows.

use std::{
    collections::HashSet,
    ffi::CString,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
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
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
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

/// `2>&1 | head -1`: nobody reads what is said, and the exit code is what it would be.
pub fn closed_stderr() {
    let own = std::process::id().to_string();
    for (args, code) in [
        (&["trace", "--duration", "100ms"][..], 0),
        (&["queues", "--duration", "100ms"], 0),
        (&["sockets", "--pid", &own], 0),
        (&["trace", "--netns", "/no/such"], 1),
        (&["trace", "--port", "0"], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = socklife().args(args).stdout(Stdio::null()).stderr(writer).status();
        assert_eq!(status.unwrap().code(), Some(code), "{args:?}");
    }
    // Both in one pipe, of which one line is read.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut trace = socklife();
    trace.arg("trace").stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = trace.spawn().unwrap();
    drop(trace);
    reader.read_exact(&mut [0; 9]).unwrap();
    drop(reader);
    let mut status = None;
    until(PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.expect("it goes on").code(), Some(0));
}

/// Somebody holds the other end of both pipes, and never reads: it ends all the same, and what was not taken is counted.
pub fn unread_output() {
    const COUNT: usize = 503;
    let namespace = Namespace::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = trace(&namespace, &["-o", "json", "--event", "accepted"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("attached") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    namespace.run(|| connections(COUNT));
    // SAFETY: a child that was not waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    let mut lines = String::new();
    reader.read_to_string(&mut lines).unwrap();
    let shown = lines.lines().count();
    assert!(lines.ends_with("}\n") && shown > 0 && shown < COUNT, "{shown}");
    let lost = COUNT - shown;
    let summary = format!("socklife: {shown} events in ");
    let counted = format!(", {lost} lost, {lost} of them because the output took no more");
    assert!(said.contains(&summary) && said.contains(&counted), "{said}");
}

/// There is always more to read: signals, the end and the second's report get their turn.
pub fn storm() {
    let namespace = Namespace::new();
    let args = ["-o", "json", "--duration", "2s", "--ring-buffer", "256"];
    let tracer = Tracer::spawn(trace(&namespace, &args));
    let over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let storms: Vec<_> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            namespace.run(move || {
                // In the namespace of the thread that begins it.
                std::thread::spawn(move || {
                    while !over.load(Relaxed) && begun.elapsed() < 3 * PATIENCE {
                        connections(10);
                    }
                })
            })
        })
        .collect();
    let events = tracer.wait();
    let ended = begun.elapsed();
    over.store(true, Relaxed);
    for storm in storms {
        storm.join().unwrap();
    }
    assert!(events.status.success(), "{}", events.stderr);
    assert!(ended < 3 * PATIENCE, "it ended with the storm");
    assert!(events.stderr.contains(" in 2.0 s, "), "{}", events.stderr);
}

/// What a process may still do once it is attached: what it needs to go on, and nothing that it might run either.
pub fn privileges() {
    const BPF: u64 = 1 << 39;
    const LOOK: u64 = 1 << 2 | 1 << 19;
    const ENTER: u64 = 1 << 21;
    for (args, keeps) in [
        (&["trace"][..], BPF | LOOK),
        (&["queues"], BPF),
        (&["sockets", "--queues", "--interval", "1"], BPF | LOOK | ENTER),
        (&["skb", "--count", "0"], BPF),
        (&["skb", "--allocs"], BPF),
        (&["skb", "--drops"], BPF),
    ] {
        let mut child = socklife()
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let of = |name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| u64::from_str_radix(value.trim(), 16).unwrap())
        };
        // The last that it gives up.
        let given_up = until(3 * PATIENCE, || of("CapPrm") == Some(keeps));
        let found = ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs"].map(of);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(given_up, "{args:?}: {found:x?}");
        let expected = [keeps, keeps, 0, 0, 0, 1].map(Some);
        assert_eq!(found, expected, "{args:?}");
    }
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
