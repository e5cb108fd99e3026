//! One clear sentence with a remedy, and the right exit code.

use std::{
    fs::File,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use crate::harness::{Namespace, PATIENCE, Tracer, helper::connections, privilege, socklife, until, view};

/// Exit code, what was said, and that it is no more than a few lines.
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("attached"), "{said}");
    assert!(said.lines().count() < 12, "{said}");
}

fn run(args: &[&str]) -> Output {
    socklife().args(args).output().unwrap()
}

pub fn usage() {
    assert_fails(
        &run(&["trace", "--event", "nonsense"]),
        2,
        &["nonsense", "connect_failed"],
    );
    assert_fails(
        &run(&["trace", "--addr", "10.0.0.0/33"]),
        2,
        &["10.0.0.0/33", "10.0.0.0/8"],
    );
    assert_fails(&run(&["trace", "--port", "70000"]), 2, &["70000", "65535"]);
    assert_fails(&run(&["trace", "--duration", "soon"]), 2, &["soon", "10s"]);
    assert_fails(&run(&["trace", "-4", "-6"]), 2, &["cannot be used with"]);
    assert_fails(&run(&["nonsense"]), 2, &["nonsense"]);
    assert_fails(&run(&["trace", "--ring-buffer", "12"]), 1, &["power of two", "16"]);
    assert_fails(&run(&["trace", "--netns", "/no/such"]), 1, &["/no/such", "/run/netns"]);
    assert_fails(
        &run(&["trace", "--netns", "/proc/self/ns/mnt"]),
        1,
        &["of another kind", "/proc/PID/ns/net"],
    );
    assert_fails(&run(&["trace", "--netns", "/dev/null"]), 1, &["is no namespace"]);
    assert_fails(
        &run(&["trace", "--netns", "4294967295"]),
        1,
        &["no network namespace", "lsns -t net"],
    );
    assert_fails(&run(&["queues", "--port", "80,443"]), 2, &["80,443", "one port only"]);
    for (kind, meant) in [("accept", "accepted"), ("listen", "listening"), ("close", "closed")] {
        assert_fails(&run(&["trace", "-e", kind]), 2, &[&format!("did you mean {meant}?")]);
    }
    let serve = |args: &[&str]| run(&[&["trace", "--serve", "127.0.0.1:8099"], args].concat());
    assert_fails(&serve(&["--lport", "80"]), 1, &["--lport 80", "leave --lport out"]);
    let elsewhere = Namespace::new();
    assert_fails(
        &serve(&["--netns", &elsewhere.inode.to_string()]),
        1,
        &["--serve", "--netns", "ip netns exec"],
    );
    // A process that was there and is gone.
    let mut child = Command::new("/proc/self/exe")
        .arg("--list")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    child.wait().unwrap();
    assert_fails(&run(&["trace", "--pid", &pid]), 1, &["--pid", &pid, "no such process"]);
    assert_fails(&run(&["trace", "--netns", &pid]), 1, &["--netns", &pid]);
    let help = run(&["trace", "--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

/// The reference server cannot start, or dies: the trace ends with it, and says so.
pub fn server_gone() {
    let namespace = Namespace::new();
    // Of a documentation network: nobody has it.
    let output = namespace.run(|| run(&["trace", "--serve", "192.0.2.1:8080"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no such address") && !said.contains("another program"),
        "{said}"
    );
    assert!(said.contains("the reference server has ended"), "{said}");

    let mut trace = socklife();
    trace.args(["trace", "--serve", "127.0.0.1:0", "-e", "listening"]);
    let tracer = namespace.run(move || Tracer::spawn(trace));
    assert!(
        until(PATIENCE, || tracer.count("listening") == 1),
        "{}",
        tracer.stderr()
    );
    let children = format!("/proc/{0}/task/{0}/children", tracer.pid());
    let server: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    // SAFETY: a child of the trace, which has not waited for it.
    unsafe { libc::kill(server, libc::SIGKILL) };
    let events = tracer.wait();
    assert_eq!(events.status.code(), Some(1), "{}", events.stderr);
    assert!(
        events.stderr.contains("the reference server has ended (signal: 9"),
        "{}",
        events.stderr
    );
    assert!(events.stderr.contains("socklife: 1 events in "), "{}", events.stderr);
}

/// With the capabilities that the README asks for and no others: what is not seen for want of a right is told first, and
/// `doctor` tries what it can.
pub fn three_capabilities() {
    const ASKED: u64 = 1 << 39 | 1 << 38 | 1 << 12;
    let with_few = |args: &[&str]| {
        let mut command = socklife();
        command.args(args);
        // SAFETY: the child calls prctl and capset only.
        unsafe { command.pre_exec(|| privilege::bound_to(ASKED)) };
        command
    };
    let namespace = Namespace::new();
    let inode = namespace.inode.to_string();
    let tracer = Tracer::spawn(with_few(&[
        "trace",
        "-o",
        "json",
        "--netns",
        &inode,
        "-e",
        "accepted,fd_closed",
    ]));
    namespace.run(|| connections(7));
    until(PATIENCE, || tracer.count("\"accepted\"") >= 7);
    tracer.signal(libc::SIGINT);
    let events = tracer.wait();
    assert_eq!(events.of("accepted").len(), 7, "{}", events.stderr);
    let (before, _) = events.stderr.split_once("socklife: attached").unwrap();
    assert!(
        before.contains("CAP_SYS_PTRACE") || before.contains("CAP_SYS_ADMIN"),
        "{before}"
    );
    if events.of("fd_closed").len() < 14 {
        assert!(before.contains("not permitted, so not seen: "), "{before}");
        assert!(before.contains("which process closes its copy of a socket"), "{before}");
    }

    let output = with_few(&["doctor", "-o", "json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    let fired = |event: &serde_json::Value| event["fired"] == true;
    let events = report["events"].as_array().unwrap();
    if report["not_tried"].is_null() {
        assert!(
            events.iter().filter(|event| event["required"] == true).all(fired),
            "{events:#?}"
        );
        assert!(events.len() > 20, "{events:#?}");
    } else {
        assert!(events.is_empty(), "{report:#}");
    }
}

pub fn no_root() {
    let output = socklife().arg("trace").uid(65_534).gid(65_534).output();
    // The binary's folder may be closed to others; then a copy serves.
    let output = output.unwrap_or_else(|_| {
        let copy = std::env::temp_dir().join(format!("socklife-{}", std::process::id()));
        std::fs::copy(std::env::var_os("SOCKLIFE_BIN").unwrap(), &copy).unwrap();
        let output = Command::new(&copy).arg("trace").uid(65_534).gid(65_534).output();
        std::fs::remove_file(&copy).unwrap();
        output.unwrap()
    });
    assert_fails(&output, 1, &["sudo", "CAP_BPF"]);
}

pub fn no_btf() {
    let mut trace = socklife();
    trace.arg("trace");
    view::with_sys_kernel(&mut trace, &[]);
    assert_fails(
        &trace.output().unwrap(),
        1,
        &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
    );
}

/// Whoever tells `sk_buff`s by who allocated them must know where that is, and says so before it attaches anything.
pub fn hidden_addresses() {
    for args in [
        &["trace", "-e", "skb_alloc"][..],
        &["skb", "--allocs"],
        &["skb", "--allocs", "--each"],
    ] {
        let mut command = socklife();
        command.args(args).args(["--hooks", "tracepoint", "--duration", "1"]);
        view::without_addresses(&mut command);
        assert_fails(
            &command.output().unwrap(),
            1,
            &["__alloc_skb", "/proc/kallsyms", "kernel.kptr_restrict=1"],
        );
    }
    // A place without a name is its address.
    let namespace = Namespace::new();
    let mut command = socklife();
    command.args([
        "trace",
        "-o",
        "json",
        "-e",
        "skb_dropped",
        "--netns",
        &namespace.inode.to_string(),
    ]);
    view::without_addresses(&mut command);
    let tracer = Tracer::spawn(command);
    namespace.run(|| assert!(TcpStream::connect(("127.0.0.1", 7)).is_err()));
    tracer.wait_for("skb_dropped", 1);
    let events = tracer.stop();
    events.assert_whole();
    let location = events.one("skb_dropped")["location"].as_str().unwrap();
    assert!(location.starts_with("0x"), "{location}");
}

pub fn full_disk() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = socklife()
        .args(["trace", "--duration", "5"])
        .stdout(full)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot write to standard output") && said.contains("No space left"),
        "{said}"
    );
    // A file that is not open for writing.
    let closed = File::open("/dev/null").unwrap();
    let output = socklife()
        .args(["trace", "--duration", "5"])
        .stdout(closed)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
}
