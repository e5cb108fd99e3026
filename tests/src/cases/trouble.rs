//! One clear sentence with a remedy, and the right exit code.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use crate::harness::{socklife, view};

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
