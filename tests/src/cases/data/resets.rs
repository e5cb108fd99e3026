//! `reset_sent` and `reset_received` of connections.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
};

use super::{LOOPBACKS, ended, has_reset_reasons, start};
use crate::harness::{Class, reset};

/// One end gives up: the other had bytes that it did not read.
pub fn aborted(class: Class) {
    const COUNT: usize = 7;
    const BYTES: usize = 11;
    let (namespace, tracer) = start(class, "connected,reset_sent,reset_received,skb_dropped");
    namespace.run(|| {
        for ip in LOOPBACKS {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            for _ in 0..COUNT {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, _) = listener.accept().unwrap();
                client.write_all(&[1; BYTES]).unwrap();
                reset(client);
                drop(server);
            }
        }
    });
    tracer.wait_for("reset_received", 2 * COUNT);
    let events = ended(tracer);
    let (sent, received) = (events.of("reset_sent"), events.of("reset_received"));
    assert_eq!(
        (sent.len(), received.len()),
        (2 * COUNT, 2 * COUNT),
        "{:#?}",
        events.all
    );
    assert!(events.of("skb_dropped").is_empty(), "a RST that is obeyed is used up");
    let clients = events.of("connected");
    for ((sent, received), client) in sent.iter().zip(received).zip(clients) {
        assert_eq!(sent["cookie"], client["cookie"]);
        assert_eq!((&sent["lport"], &sent["rport"]), (&client["lport"], &client["rport"]));
        assert_eq!(sent["answers"], false, "{sent}");
        assert_eq!(sent["pid"], std::process::id(), "{sent}");
        assert_eq!(sent["reason"].is_string(), has_reset_reasons(), "{sent}");
        assert_eq!(
            (&received["lport"], &received["rport"]),
            (&client["rport"], &client["lport"])
        );
        assert_eq!(received["state"], "ESTABLISHED", "{received}");
        assert_eq!(
            (&received["unread"], &received["unacknowledged"]),
            (&BYTES.into(), &0.into())
        );
    }
}
