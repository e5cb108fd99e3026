//! Which rung is taken, and that each of them works.

use std::{
    net::{TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use socklife_abi::event::Kind;

use super::data::kernel_names_the_socket;
use crate::{
    harness::{
        Class, Namespace, PATIENCE, Tracer,
        models::{receive, send},
        note_skipped, run_on, socklife, until, view,
    },
    rung_table,
};

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// With one class alone, every part of a socket's life has a rung and every event fires.
pub fn doctor(class: Class) {
    let output = socklife()
        .args(["doctor", "-o", "json", "--hooks", class.name()])
        .output()
        .unwrap();
    let report = report(&output);
    for row in report["hooks"].as_array().unwrap() {
        assert!(row["chosen"].is_string(), "{row:#}");
    }
    rung_table::check(class, report["hooks"].as_array().unwrap());
    let events = report["events"].as_array().unwrap();
    // Three are made of others, and close_range(2) tells of itself only where no descriptor does.
    // That a writer waits no tracepoint tells.
    assert_eq!(events.len(), Kind::ALL.len() - 4);
    let told = |kind: &str| events.iter().any(|event| event["event"] == kind);
    let elsewhere = ["fds_closed", "sndbuf_limited"].map(told);
    assert_eq!(elsewhere, [class == Class::Tracepoint, class != Class::Tracepoint]);
    let rows = report["hooks"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["name"] == "a SYN cookie that comes back")
        .unwrap();
    let blind = row["chosen"] == "(nothing)";
    for event in events {
        if blind && event["event"] == "cookie_rejected" {
            assert_eq!(class, Class::Tracepoint);
            assert!(
                row["cannot_tell"][0].as_str().unwrap().contains("cookie_rejected"),
                "{row}"
            );
            assert_eq!(event["fired"], false, "{event}");
            continue;
        }
        // Without its socket it has no namespace, and doctor looks at one.
        if event["event"] == "rcvq_full" && !kernel_names_the_socket() {
            assert_eq!(event["fired"], false, "{event}");
            continue;
        }
        assert_eq!(event["fired"], true, "{event}");
        let via = event["via"].as_str().unwrap();
        let fitting: &[&str] = match (class, event["event"].as_str().unwrap()) {
            (Class::Fentry, "skb_free") => &["fentry:", "kprobe:"],
            (_, "last_close") => &["cgroup:"],
            (Class::Fentry | Class::Kprobe, "fd_opened" | "fd_closed") => &["kprobe:"],
            (Class::Fentry, _) => &["fentry:", "fexit:", "tp_btf:", "raw_tp:", "sock_ops"],
            (Class::Kprobe, _) => &["kprobe:", "kretprobe:", "raw_tp:", "sock_ops"],
            (Class::Tracepoint, _) => &["tp:", "tp_btf:", "raw_tp:", "sock_ops", "cgroup:"],
        };
        assert!(fitting.iter().any(|start| via.starts_with(start)), "{event}");
    }
    assert_eq!(report["ok"], true);
    assert!(output.status.success());
}

/// The same for people.
pub fn doctor_text() {
    let mut shown = 0;
    for class in Class::ALL.into_iter().filter(|class| class.refused().is_none()) {
        let text = socklife().args(["doctor", "--hooks", class.name()]).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("✓ accepted") && !text.contains('✗'), "{text}");
        shown += 1;
    }
    assert!(shown > 0, "no class works here");
}

/// What was done to sockets, and where the tracer must have seen it: on IPv4, then on IPv6.
pub fn via(class: Class) {
    let namespace = Namespace::new();
    let kinds = "bound,listening,accepted,connect_failed,fd_opened,fd_closed";
    let tracer = Tracer::start(class, &namespace, &["--event", kinds]);
    let replaced = namespace.run(|| {
        let mut copies = Vec::new();
        for (local, unreachable) in [("127.0.0.1:0", "192.0.2.1:81"), ("[::1]:0", "[2001:db8::1]:82")] {
            let listener = TcpListener::bind(local).unwrap();
            let to = listener.local_addr().unwrap();
            let clients = [(); 2].map(|()| TcpStream::connect(to).unwrap());
            // The standard library calls accept4(2).
            let (server, _) = listener.accept().unwrap();
            let other = call(libc::SYS_accept, [listener.as_raw_fd(), 0, 0]);
            TcpStream::connect(unreachable).unwrap_err();
            let fd = server.as_raw_fd();
            let (pair, peer) = UnixStream::pair().unwrap();
            send(pair.as_raw_fd(), fd);
            let received = receive(peer.as_raw_fd());
            let dup = call(libc::SYS_dup, [fd, 0, 0]);
            let fcntl = call(libc::SYS_fcntl, [fd, libc::F_DUPFD_CLOEXEC, 700]);
            for from in [fd, other] {
                call(libc::SYS_dup2, [from, 801, 0]);
                call(libc::SYS_dup3, [from, 802, 0]);
            }
            for fd in [received, dup, fcntl, 801, 802, other] {
                call(libc::SYS_close, [fd, 0, 0]);
            }
            copies.extend([801, 802, received, dup, fcntl, 801, 802, other]);
            drop((clients, server));
        }
        copies
    });
    tracer.wait_for("fd_closed", 2 * 12);
    let events = tracer.stop();
    events.assert_whole();
    let seen = |kind: &str| {
        let mut all = events.of(kind);
        all.sort_by_key(|event| event["time_ns"].as_u64());
        all.into_iter()
            .map(|event| (event["fd"].as_i64(), event["via"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let vias = |kind: &str| seen(kind).into_iter().map(|(_, via)| via).collect::<Vec<_>>();
    let kprobes = class != Class::Tracepoint;
    let function = |name: &str| match class {
        Class::Fentry => format!("fexit:{name}"),
        Class::Kprobe => format!("kretprobe:{name}"),
        Class::Tracepoint => unreachable!(),
    };
    let call = |name: &str| format!("tp:syscalls:{name}");
    if kprobes {
        assert_eq!(vias("bound"), ["__inet_bind", "__inet6_bind"].map(function));
        assert_eq!(vias("accepted"), ["inet_csk_accept"; 4].map(function));
        assert_eq!(
            vias("connect_failed"),
            ["tcp_v4_connect", "tcp_v6_connect"].map(function)
        );
        let listening = vias("listening");
        let names = ["__inet_listen_sk", "inet_listen"].map(function);
        assert!(
            listening.len() == 2 && listening[0] == listening[1] && names.contains(&listening[0]),
            "{listening:?}"
        );
        let installed = ["fd_install"; 5];
        let each = [&installed[..], &["do_dup2"; 4]].concat();
        let opened = [&each[..], &each[..]].concat();
        assert_eq!(
            vias("fd_opened"),
            opened.iter().map(|name| format!("kprobe:{name}")).collect::<Vec<_>>()
        );
        let closed = vias("fd_closed");
        let names = ["kprobe:filp_flush", "kprobe:filp_close"];
        assert!(
            closed
                .iter()
                .all(|via| *via == closed[0] && names.contains(&via.as_str())),
            "{closed:?}"
        );
    } else {
        assert_eq!(vias("bound"), ["cgroup:post_bind4", "cgroup:post_bind6"]);
        assert_eq!(vias("listening"), ["sys_exit_listen"; 2].map(call));
        let accepts = ["sys_exit_accept4", "sys_exit_accept"];
        assert_eq!(
            vias("accepted"),
            [accepts, accepts].concat().into_iter().map(call).collect::<Vec<_>>()
        );
        assert_eq!(vias("connect_failed"), ["sys_exit_connect"; 2].map(call));
        let each =
            ["recvmsg", "dup", "fcntl", "dup2", "dup3", "dup2", "dup3"].map(|name| call(&format!("sys_exit_{name}")));
        assert_eq!(vias("fd_opened"), [&each[..], &each[..]].concat());
        let each = ["dup2", "dup3", "close", "close", "close", "close", "close", "close"];
        let each = each.map(|name| call(&format!("sys_enter_{name}")));
        let expected: Vec<_> = replaced
            .iter()
            .map(|fd| Some(i64::from(*fd)))
            .zip([&each[..], &each[..]].concat())
            .collect();
        let mut closed = seen("fd_closed");
        // The listener, the clients and the server go by close(2) as well.
        let others = closed.len() - expected.len();
        assert_eq!(others, 2 * 4, "{closed:?}");
        let mut at = 0;
        closed.retain(|one| {
            let next = expected.get(at) == Some(one);
            at += usize::from(next);
            next || one.1 != call("sys_enter_close")
        });
        assert_eq!(closed, expected);
    }
}

/// A system call that succeeds.
fn call(number: libc::c_long, arguments: [i32; 3]) -> i32 {
    let [a, b, c] = arguments.map(i64::from);
    // SAFETY: calls on descriptors, with no address but null.
    let result = unsafe { libc::syscall(number, a, b, c) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    i32::try_from(result).unwrap()
}

/// While both CPUs are busy with the very calls that are traced, and a task may be preempted in a program: nothing is
/// missed, with tracepoints alone.
pub fn busy_cpus() {
    const COUNT: usize = 211;
    let elsewhere = Namespace::new();
    let namespace = Namespace::new();
    let tracer = Tracer::start(
        Class::Tracepoint,
        &namespace,
        &["--event", "accepted,listening,connect_failed,fd_opened,fd_closed"],
    );
    let done = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicUsize::new(0));
    // One on each CPU: of three at once at one place the kernel runs the programs for two (docs/limitations.md).
    let load: Vec<_> = (0..std::thread::available_parallelism().unwrap().get())
        .map(|cpu| {
            let (done, begun) = (Arc::clone(&done), Arc::clone(&begun));
            let listener = elsewhere.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
            listener.set_nonblocking(true).unwrap();
            std::thread::spawn(move || {
                run_on(Some(cpu));
                let mut calls = 0_u64;
                while !done.load(Relaxed) {
                    assert!(listener.accept().is_err());
                    drop(listener.try_clone().unwrap());
                    if calls == 0 {
                        begun.fetch_add(1, Relaxed);
                    }
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    assert!(until(PATIENCE, || begun.load(Relaxed) == load.len()));
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..COUNT {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Whoever sleeps takes the CPU away from the load when it wakes.
            std::thread::sleep(Duration::from_micros(50));
            let (server, _) = listener.accept().unwrap();
            std::thread::sleep(Duration::from_micros(50));
            let fd = call(libc::SYS_dup, [server.as_raw_fd(), 0, 0]);
            std::thread::sleep(Duration::from_micros(50));
            call(libc::SYS_close, [fd, 0, 0]);
            TcpStream::connect("192.0.2.1:81").unwrap_err();
            call(libc::SYS_listen, [listener.as_raw_fd(), 64, 0]);
            drop((client, server));
        }
    });
    tracer.wait_for("fd_closed", 3 * COUNT + 1);
    done.store(true, Relaxed);
    assert!(load.into_iter().all(|load| load.join().unwrap() > 0));
    let events = tracer.stop();
    let counts =
        ["accepted", "listening", "connect_failed", "fd_opened", "fd_closed"].map(|kind| events.of(kind).len());
    assert_eq!(
        counts,
        [COUNT, COUNT + 1, COUNT, COUNT, 3 * COUNT + 1],
        "{:?}\n{}",
        events.of("lost"),
        events.stderr
    );
    assert!(
        events
            .of("listening")
            .iter()
            .all(|event| event["backlog_asked"].is_i64())
    );
    assert!(events.of("accepted").iter().all(|event| event["listener"].is_u64()));
    events.assert_whole_but_skipped();
}

/// The rungs that were chosen, by row.
fn chosen(report: &Value, name: &str) -> String {
    let rows = report["hooks"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("no row {name}: {report:#}"));
    row["chosen"].as_str().unwrap_or_default().to_owned()
}

/// Where tracefs cannot be had, accept(2) is seen at every system call's exit and listen(2) by `sock_ops`.
pub fn without_tracefs() {
    const HIDE: &[&str] = &["btf"];
    let mut doctor = socklife();
    doctor.args(["doctor", "-o", "json", "--hooks", "tracepoint"]);
    view::with_sys_kernel(&mut doctor, HIDE);
    let output = doctor.output().unwrap();
    let report = report(&output);
    assert_eq!(chosen(&report, "accept()"), "tp_btf:sys_exit", "{report:#}");
    assert_eq!(chosen(&report, "listen()"), "sock_ops");
    assert_eq!(
        chosen(&report, "connect() refused before the SYN"),
        "",
        "an optional row"
    );
    assert!(output.status.success(), "{report:#}");

    let namespace = Namespace::new();
    let mut trace = socklife();
    trace.args([
        "trace",
        "-o",
        "json",
        "--hooks",
        "tracepoint",
        "--netns",
        &namespace.inode.to_string(),
    ]);
    trace.args(["--event", "listening,accepted"]);
    view::with_sys_kernel(&mut trace, HIDE);
    let tracer = Tracer::spawn(trace);
    namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..17 {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            listener.accept().unwrap();
        }
    });
    tracer.wait_for("accepted", 17);
    let events = tracer.stop();
    // A program at every system call is skipped where it is preempted (7.2 on), mostly for others than these.
    if events.assert_whole_but_skipped() > 0 {
        note_skipped();
    }
    let listening = events.one("listening");
    assert_eq!(
        (&listening["accept_queue_limit"], &listening["backlog_asked"]),
        (&128.into(), &Value::Null)
    );
    let accepted = events.of("accepted");
    assert_eq!(accepted.len(), 17);
    for event in accepted {
        assert_eq!(event["pid"], std::process::id(), "{event}");
        assert_eq!(event["listener"], listening["cookie"], "{event}");
        assert!(event["fd"].is_u64(), "{event}");
    }
}

/// The root of cgroup2 is found without any mount of it.
pub fn without_cgroup_mount() {
    let mut doctor = socklife();
    doctor.args(["doctor", "-o", "json", "--hooks", "tracepoint"]);
    view::without_cgroups(&mut doctor);
    let output = doctor.output().unwrap();
    let report = report(&output);
    assert_eq!(chosen(&report, "connect()"), "sock_ops", "{report:#}");
    assert!(output.status.success(), "{report:#}");
}
