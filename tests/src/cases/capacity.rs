//! `socklife capacity`: limits that are set here, and what the kernel says of them.

use std::{
    fs,
    io::Error,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Command, Output},
};

use serde_json::Value;

use crate::harness::{Namespace, socklife};

/// Prime, and less than anything else allows.
const DESCRIPTORS: u64 = 113;

fn finished(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&finished(command.args(["-o", "json"])).stdout).unwrap()
}

fn capacity(args: &[&str]) -> Command {
    let mut command = socklife();
    command.arg("capacity").args(args);
    command
}

/// The limit of this name; there is one.
fn limit<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut found = report["limits"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|limit| limit["limit"] == name);
    let limit = found.next().unwrap_or_else(|| panic!("no {name}: {report}"));
    assert!(found.next().is_none(), "{name} twice: {report}");
    limit
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// With few descriptors, those bind: all but standard input, output and error, and one to listen.
pub fn descriptors() {
    let few = |args: &[&str]| {
        let mut command = capacity(args);
        // SAFETY: the child makes plain system calls only.
        unsafe {
            command.pre_exec(|| {
                for fd in 3..1024 {
                    // What we have open is no matter of the program's. No error: most are not open.
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                }
                let limit = libc::rlimit {
                    rlim_cur: DESCRIPTORS,
                    rlim_max: DESCRIPTORS,
                };
                match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(Error::last_os_error()),
                }
            });
        }
        command
    };
    let report = json(&mut few(&[]));
    let nofile = limit(&report, "rlimit_nofile_soft");
    assert_eq!(
        (&nofile["value"], &nofile["used"]),
        (&113.into(), &3.into()),
        "{report}"
    );
    assert_eq!(nofile["where"], "/proc/self/limits");
    assert_eq!(report["binds_first"]["limit"], "rlimit_nofile_soft", "{report}");
    assert_eq!(report["binds_first"]["connections"], 113 - 3 - 1, "{report}");
    let memory = &report["memory"]["socket_bytes"];
    assert!(
        (1024..65536).contains(&memory.as_u64().unwrap()),
        "measured with what is left: {report}"
    );
    let text = String::from_utf8(finished(&mut few(&[])).stdout).unwrap();
    let sentence =
        "At 109 connections RLIMIT_NOFILE (soft) of a process started here binds first; raise it with `ulimit -n";
    assert!(text.contains(sentence), "{text}");
    let marked: Vec<_> = text.lines().filter(|line| line.starts_with('→')).collect();
    assert!(
        matches!(marked[..], [line] if line.contains("RLIMIT_NOFILE (soft)")),
        "{text}"
    );
    // Each connection is a child's: none of them is the parent's.
    let fork = json(&mut few(&["--model", "fork"]));
    assert_eq!(limit(&fork, "rlimit_nofile_soft")["any"], true, "{fork}");
    assert_ne!(fork["binds_first"]["limit"], "rlimit_nofile_soft", "{fork}");
}

/// Four-tuples are client addresses times ports; text and JSON say the same of every limit.
pub fn clients() {
    // Where nobody else listens, or has set ports aside.
    let namespace = Namespace::new();
    let args = ["--listen", "192.0.2.7:80", "--clients", "10.0.0.0/30"];
    let report = namespace.run(move || json(&mut capacity(&args)));
    let tuples = limit(&report, "four_tuples");
    assert_eq!(tuples["connections"], 4 * 65_535, "{report}");
    assert_eq!((&tuples["laddr"], &tuples["lport"]), (&"192.0.2.7".into(), &80.into()));
    assert!(tuples.get("used").is_none() && report["listeners"] == Value::Array(Vec::new()));
    let text = namespace.run(move || String::from_utf8(finished(&mut capacity(&args)).stdout).unwrap());
    assert!(text.contains("4 client addresses × 65,535 ports"), "{text}");
    for (name, shown) in [
        ("four_tuples", "four-tuples of 192.0.2.7:80"),
        ("rlimit_nofile_soft", "RLIMIT_NOFILE (soft)"),
        ("nr_open", "fs.nr_open"),
    ] {
        let count = grouped(limit(&report, name)["connections"].as_u64().unwrap());
        let mut rows = text.lines().map(|line| line.trim_start_matches(['→', ' ']));
        let row = rows.find(|row| row.starts_with(shown));
        assert!(
            row.is_some_and(|row| row.contains(&format!(" {count} "))),
            "{count}: {text}"
        );
    }
    // Clients here have the ports of connect(2) only.
    let range = namespace.run(|| fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap());
    let range: Vec<u64> = range.split_whitespace().map(|port| port.parse().unwrap()).collect();
    let ports = range[1] - range[0] + 1;
    let args = ["--listen", "127.0.0.1:80", "--clients", "127.0.0.0/29"];
    let report = namespace.run(move || json(&mut capacity(&args)));
    assert_eq!(report["outgoing"]["connections_per_destination"], ports, "{report}");
    assert_eq!(limit(&report, "four_tuples")["connections"], 8 * ports, "{report}");
}

/// A listener in a namespace, its address, and the ends of its connections.
fn listener(namespace: &Namespace, count: usize) -> (TcpListener, SocketAddr, Vec<(TcpStream, TcpStream)>) {
    namespace.run(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: a listener of ours, whose backlog is set anew.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 31) }, 0);
        let address = listener.local_addr().unwrap();
        let connections = (0..count)
            .map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0))
            .collect();
        (listener, address, connections)
    })
}

/// A listener that exists has its process's limits, and its connections are counted.
pub fn live_listener() {
    let namespace = Namespace::new();
    let (_listener, address, _connections) = listener(&namespace, 7);
    let ask = || {
        let address = address.to_string();
        namespace.run(move || json(&mut capacity(&["--listen", &address])))
    };
    let open = || fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let before = open();
    let report = ask();
    assert_eq!(limit(&report, "four_tuples")["used"], 7, "{report}");
    let serving = &report["listeners"][0];
    assert_eq!(
        (&serving["connections"], &serving["accept_queue"]),
        (&7.into(), &0.into())
    );
    assert_eq!(serving["pid"], std::process::id(), "{report}");
    // Without tcp_diag nobody tells.
    if let Some(limit) = serving.get("accept_queue_limit") {
        assert_eq!(limit, 31);
    }
    let nofile = limit(&report, "rlimit_nofile_soft");
    assert_eq!(nofile["pid"], std::process::id(), "ours, not the program's: {report}");
    let number = |name: &str| nofile[name].as_u64().unwrap();
    // Pipes to the program are open while it looks.
    assert!(
        (before - 1..=before + 3).contains(&number("used")),
        "{before}: {report}"
    );
    assert_eq!(number("connections"), number("value") - number("used") + 7, "{report}");
    // Two that nobody accepts.
    let _waiting: Vec<_> = namespace.run(move || (0..2).map(|_| TcpStream::connect(address).unwrap()).collect());
    let report = ask();
    assert_eq!(limit(&report, "four_tuples")["used"], 9, "{report}");
    assert_eq!(report["listeners"][0]["accept_queue"], 2, "{report}");
}

/// The host's own limits are what /proc/sys says, bursts and outgoing connections among them.
pub fn sysctls() {
    let namespace = Namespace::new();
    let (report, bursts) = namespace.run(|| {
        let number = |path: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{path}")).unwrap();
            text.trim().parse::<u64>().unwrap()
        };
        fs::write("/proc/sys/net/core/somaxconn", "211").unwrap();
        fs::write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "307").unwrap();
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40009 40127").unwrap();
        let report = json(&mut capacity(&["--model", "fork"]));
        let rows = ["pid_max", "threads_max", "nr_open", "file_max"];
        let paths = ["kernel/pid_max", "kernel/threads-max", "fs/nr_open", "fs/file-max"];
        for (row, path) in rows.into_iter().zip(paths) {
            let limit = limit(&report, row);
            assert_eq!(limit["value"], number(path), "{limit}");
            assert_eq!(limit["where"], format!("/proc/sys/{path}"));
        }
        let bursts = report["bursts"].clone();
        (report, bursts)
    });
    assert_eq!(
        (&bursts["somaxconn"], &bursts["max_syn_backlog"]),
        (&211.into(), &307.into())
    );
    assert_eq!(
        report["outgoing"]["connections_per_destination"],
        40_127 - 40_009 + 1,
        "{report}"
    );
}

/// Where each connection has a task, tasks are limits, and a task was measured.
pub fn models() {
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let pid_max: u64 = pid_max.trim().parse().unwrap();
    let event = json(&mut capacity(&[]));
    assert!(event["memory"].get("task_bytes").is_none(), "{event}");
    assert!(!event.to_string().contains("\"pid_max\""), "{event}");
    for model in ["fork", "thread"] {
        let report = json(&mut capacity(&["--model", model]));
        let row = limit(&report, "pid_max");
        assert_eq!(row["value"], pid_max, "{report}");
        assert_eq!(
            row["connections"].as_u64().unwrap(),
            pid_max - row["used"].as_u64().unwrap(),
            "{report}"
        );
        let memory = limit(&report, "memory");
        let socket = report["memory"]["socket_bytes"].as_u64().unwrap();
        match report["memory"]["task_bytes"].as_u64() {
            Some(task) => {
                assert!((1..8 << 20).contains(&task), "{report}");
                assert_eq!(memory["each_bytes"], socket + task, "{report}");
            }
            // Threads share pages, and what others do meanwhile may hide them.
            None => assert!(model == "thread" && memory["unknown"].is_string(), "{report}"),
        }
    }
}

/// Without root: what cannot be read is unknown, and the rest is known.
pub fn without_root() {
    let namespace = Namespace::new();
    let (_listener, address, _connections) = listener(&namespace, 7);
    // The binary's folder may be closed to others.
    let copy = std::env::temp_dir().join(format!("socklife-capacity-{}", std::process::id()));
    fs::copy(std::env::var_os("SOCKLIFE_BIN").unwrap(), &copy).unwrap();
    let program = copy.clone();
    let report = namespace.run(move || {
        let mut command = Command::new(program);
        command.args(["capacity", "--listen", &address.to_string()]);
        json(command.uid(65_534).gid(65_534))
    });
    fs::remove_file(copy).unwrap();
    let nofile = limit(&report, "rlimit_nofile_soft");
    assert!(nofile["unknown"].as_str().unwrap().contains("sudo"), "{report}");
    assert!(
        nofile.get("connections").is_none() && nofile.get("pid").is_none(),
        "{report}"
    );
    assert_eq!(limit(&report, "four_tuples")["used"], 7, "{report}");
    let socket = report["memory"]["socket_bytes"].as_u64().unwrap();
    assert!((1024..65536).contains(&socket), "measured with connections: {report}");
}

/// What is wrong on the command line is said with an example.
pub fn usage() {
    for (args, words) in [
        (["--clients", "10.0.0.0/33"], ["10.0.0.0/33", "10.0.0.0/8"]),
        (["--listen", "10.0.0.1"], ["10.0.0.1:80", "port is missing"]),
        (["--listen", "10.0.0.1:0"], ["10.0.0.1:0", "0.0.0.0:80"]),
        (["--model", "prefork"], ["prefork", "event"]),
    ] {
        let output = capacity(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
