//! `retransmitted`.

use std::{io::Write as _, net::TcpStream, os::fd::AsRawFd as _};

use socklife::scene::{data::established, queues::listener};

use super::{LOOPBACKS, ended, start};
use crate::harness::{Class, PATIENCE, until};

/// `tcp_info.tcpi_total_retrans`.
fn total(socket: &TcpStream) -> u32 {
    const OFFSET: usize = 100;
    let mut info = [0_u8; 104];
    let mut len = libc::socklen_t::try_from(info.len()).unwrap();
    // SAFETY: a place of the size that is named.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!((done, len as usize), (0, info.len()));
    u32::from_ne_bytes(info[OFFSET..OFFSET + 4].try_into().unwrap())
}

/// Data that is never acknowledged: as many events as the kernel counts, of the same bytes, by timeouts that are numbered.
pub fn unanswered(class: Class) {
    const BYTES: usize = 17;
    let (namespace, tracer) = start(class, "retransmitted,accepted");
    let counted = namespace.run(|| {
        LOOPBACKS.map(|ip| {
            let listener = listener(ip, 8).unwrap();
            let (peer, mut server) = established(&listener, 4).unwrap();
            server.write_all(&[1; BYTES]).unwrap();
            assert!(until(PATIENCE, || total(&server) >= 3));
            peer.reset().unwrap();
            // Nothing is sent any more.
            (peer.local, total(&server))
        })
    });
    tracer.wait_for("retransmitted", counted.iter().map(|(_, total)| *total as usize).sum());
    let events = ended(tracer);
    for (peer, total) in counted {
        let of = |kind: &str| {
            let all = events.of(kind).into_iter();
            let its = all.filter(|event| event["raddr"] == peer.ip().to_string() && event["rport"] == peer.port());
            its.collect::<Vec<_>>()
        };
        let again = of("retransmitted");
        assert_eq!(again.len(), total as usize, "{:#?}", events.all);
        let mut timeouts = 0;
        for event in again {
            assert_eq!(event["cookie"], of("accepted")[0]["cookie"]);
            assert_eq!((&event["len"], &event["state"]), (&BYTES.into(), &"ESTABLISHED".into()));
            assert!(event["errno"].is_null() && event["pid"].is_null(), "{event}");
            if event["cause"] == "timeout" {
                timeouts += 1;
                assert_eq!(event["timeouts"], timeouts, "{event}");
            } else {
                // Before the first timeout.
                assert_eq!(
                    (event["cause"].as_str(), timeouts),
                    (Some("tail_loss_probe"), 0),
                    "{event}"
                );
            }
        }
        assert!(timeouts >= 2, "{:#?}", events.all);
    }
}
