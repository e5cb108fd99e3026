//! Which rung is taken, and that each of them works.

use std::{
    net::{TcpListener, TcpStream},
    process::Output,
};

use serde_json::Value;
use socklife_abi::event::Kind;

use super::data::kernel_names_the_socket;
use crate::{
    harness::{Class, Namespace, Tracer, socklife, view},
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
    events.assert_whole();
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
