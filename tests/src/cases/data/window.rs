//! `window_stalled` and `sndbuf_limited`: a receiver that does not read.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsRawFd as _,
    thread,
};

use serde_json::Value;
use socklife::scene::data::Stalled;

use super::{LOOPBACKS, ended, ioctl, start};
use crate::harness::{Class, Events};

/// Bytes that were written and not sent (`include/uapi/linux/sockios.h`).
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

fn sndbuf(socket: &TcpStream) -> i32 {
    let mut bytes = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&bytes)).unwrap();
    // SAFETY: a place of the size that is named.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw mut bytes).cast(),
            &raw mut len,
        )
    };
    assert_eq!(done, 0);
    bytes
}

/// Of the end that has this port.
fn of<'a>(events: &'a Events, kind: &str, lport: u16) -> Vec<&'a Value> {
    events
        .of(kind)
        .into_iter()
        .filter(|event| event["lport"] == lport)
        .collect()
}

/// The window closes with so many bytes waiting as the kernel says, and a writer that does not wait is told to come again.
pub fn stalled(class: Class) {
    let (namespace, tracer) = start(class, "window_stalled,sndbuf_limited");
    let (stalls, ends): (Vec<_>, Vec<_>) = namespace
        .run(|| LOOPBACKS.map(|ip| Stalled::new(ip).unwrap()))
        .into_iter()
        .map(|stalled| {
            let port = stalled.sender.local_addr().unwrap().port();
            let sndbuf = sndbuf(&stalled.sender);
            let limited = stalled.limited;
            (stalled, (port, sndbuf, limited))
        })
        .unzip();
    // A probe of each, at least.
    tracer.wait_for("window_stalled", 4);
    // What is on its way changes no more once the window is closed.
    let unsent: Vec<_> = stalls
        .iter()
        .map(|stalled| ioctl(&stalled.sender, SIOCOUTQNSD))
        .collect();
    let events = ended(tracer);
    for ((port, sndbuf, writes), unsent) in ends.into_iter().zip(unsent) {
        let stalled = of(&events, "window_stalled", port);
        let last = stalled.last().unwrap_or_else(|| panic!("{:#?}", events.all));
        assert_eq!(last["unsent"], unsent, "{stalled:#?}");
        assert!(unsent > 0 && last["window"].as_u64() < Some(unsent), "{last}");
        let limited = of(&events, "sndbuf_limited", port);
        if class == Class::Tracepoint {
            assert!(limited.is_empty());
            continue;
        }
        assert_eq!(limited.len(), writes, "{:#?}", events.all);
        for event in limited {
            assert_eq!((&event["errno"], &event["sndbuf"]), (&"EAGAIN".into(), &sndbuf.into()));
            assert_eq!(event["pid"], std::process::id());
        }
    }
}

/// A writer that waits until the receiver reads.
pub fn waits(class: Class) {
    const BYTES: usize = 65_537;
    let (namespace, tracer) = start(class, "sndbuf_limited");
    let (port, read, writes) = namespace.run(|| {
        let Stalled {
            mut sender,
            mut receiver,
            written,
            limited,
        } = Stalled::new(LOOPBACKS[0]).unwrap();
        let port = sender.local_addr().unwrap().port();
        sender.set_nonblocking(false).unwrap();
        let writer = thread::spawn(move || sender.write_all(&[1; BYTES]));
        let mut all = vec![0; written + BYTES];
        receiver.read_exact(&mut all).unwrap();
        writer.join().unwrap().unwrap();
        (port, all.iter().filter(|byte| **byte == 1).count(), limited)
    });
    assert_eq!(read, BYTES);
    if class != Class::Tracepoint {
        tracer.wait_for("sndbuf_limited", writes + 1);
    }
    let events = ended(tracer);
    let limited = of(&events, "sndbuf_limited", port);
    if class == Class::Tracepoint {
        assert!(limited.is_empty());
        return;
    }
    // Some were told to come again; then somebody waited, and there was room.
    let waited: Vec<_> = limited.iter().filter(|event| event["errno"].is_null()).collect();
    assert_eq!(limited.len(), waited.len() + writes, "{limited:#?}");
    assert!(!waited.is_empty(), "{limited:#?}");
    for event in waited {
        assert!(event["waited_ns"].as_u64() > Some(0), "{event}");
        assert_eq!(event["pid"], std::process::id(), "{event}");
    }
}
