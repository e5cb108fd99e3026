//! What becomes of the data: dropped, sent again, reset, held up; each made on purpose.

pub mod drops;
pub mod reasons;
pub mod resent;
pub mod resets;
pub mod window;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd as _},
    sync::Mutex,
};

use serde_json::Value;
use socklife::scene::peer;

use crate::harness::{Class, Events, Namespace, Tracer};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A namespace whose peers are routed, and a tracer of these kinds.
fn start(class: Class, kinds: &str) -> (Namespace, Tracer) {
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let tracer = Tracer::start(class, &namespace, &["--event", kinds]);
    (namespace, tracer)
}

/// Ends it: it lost nothing.
fn ended(tracer: Tracer) -> Events {
    let events = tracer.stop();
    events.assert_whole();
    events
}

/// A figure of a socket that ioctl(2) tells.
fn ioctl(socket: &impl AsFd, request: libc::c_ulong) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: these requests write one int.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut bytes) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    u64::try_from(bytes).unwrap()
}

/// Whether a type or a constant of this name is in the kernel's BTF, which is looked through once for each.
pub fn kernel_knows(name: &'static str) -> bool {
    static KNOWN: Mutex<BTreeMap<&str, bool>> = Mutex::new(BTreeMap::new());
    *KNOWN.lock().unwrap().entry(name).or_insert_with(|| {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        btf.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
    })
}

/// The kernel says why it drops a segment (5.17 and later).
fn has_drop_reasons() -> bool {
    kernel_knows("SKB_DROP_REASON_NO_SOCKET")
}

/// The kernel says which socket a dropped segment was for (6.11 and later).
pub fn kernel_names_the_socket() -> bool {
    kernel_knows("rx_sk")
}

/// The kernel says why it sends a RST, and says it also where there is no socket (6.10 and later).
fn has_reset_reasons() -> bool {
    kernel_knows("SK_RST_REASON_NO_SOCKET")
}

/// Each is what the kernel says, or absent where it says nothing.
fn assert_reason(event: &Value, reason: &str) {
    if has_drop_reasons() {
        assert_eq!(event["reason"], reason, "{event}");
    } else {
        assert!(event["reason"].is_null(), "{event}");
    }
}
