//! The first process of a VM: mounts what a system has, runs the trials, reports, and switches the machine off.

use std::{
    ffi::CString,
    fs,
    process::{Command, ExitCode},
};

use crate::harness;

/// What to mount where.
const MOUNTS: [(&str, &str); 5] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];

/// Written by `cargo xtask` into the initramfs.
const ARGS: &str = "/etc/integration.args";
const ENV: &str = "/etc/integration.env";

/// Never returns to the kernel, which would panic.
pub fn run() -> ExitCode {
    for (kind, target) in MOUNTS {
        mount(kind, target);
    }
    mount("cgroup2", "/sys/fs/cgroup");
    mount("tracefs", "/sys/kernel/tracing");
    // A child of ours, so that the tests see a process table with somebody who waits.
    let mut tests = Command::new("/proc/self/exe");
    tests.args(lines(ARGS));
    tests.env(harness::PREEMPTION, preemption());
    for line in lines(ENV) {
        if let Some((name, value)) = line.split_once('=') {
            tests.env(name, value);
        }
    }
    let code = match tests.status() {
        Ok(status) => status.code().unwrap_or(1),
        Err(error) => {
            eprintln!("cannot run the tests: {error}");
            1
        }
    };
    harness::say(&format!("integration: exit {code}"));
    // SAFETY: the end of the machine; the console is synchronous.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
    ExitCode::FAILURE
}

/// Which preemption the kernel has, as it marks it: `none voluntary (full)`. Nothing where it has no choice.
fn preemption() -> String {
    const DEBUGFS: &str = "/tmp/debugfs";
    mount("debugfs", DEBUGFS);
    let text = fs::read_to_string(format!("{DEBUGFS}/sched/preempt")).unwrap_or_default();
    // SAFETY: a string that is terminated. With it, tracefs would be where trials hide it.
    unsafe { libc::umount(c"/tmp/debugfs".as_ptr()) };
    text.trim().to_owned()
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What fails here fails visibly in the tests.
fn mount(kind: &str, target: &str) {
    let _ = fs::create_dir_all(target);
    let (kind, target) = (CString::new(kind).unwrap(), CString::new(target).unwrap());
    // SAFETY: strings that live long enough.
    unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
}
