//! `socklife sockets --queues --interval`: how long data waits.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;

use super::{READ, families, pair, witness};
use crate::harness::{Namespace, PATIENCE, socklife, until};

/// `sockets --queues --interval`, line by line.
struct Watch {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watch {
    fn start(namespace: u32) -> Self {
        let mut child = socklife()
            .args(["sockets", "--queues", "--interval", "200ms", "--count", "300"])
            .args(["-o", "json", "--netns", &namespace.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> Value {
        let mut text = String::new();
        assert!(self.out.read_line(&mut text).unwrap() > 0, "it ended");
        serde_json::from_str(&text).unwrap()
    }

    /// The next line of a socket with how long its data waited.
    fn next(&mut self, end: SocketAddr) -> Value {
        loop {
            let line = self.line();
            if line["lport"] == end.port() && !line["dwell"].is_null() {
                return line;
            }
        }
    }

    /// Ctrl-C ends it well.
    fn end(mut self) {
        // SAFETY: our own child, which was not waited for.
        unsafe { libc::kill(self.child.id().try_into().unwrap(), libc::SIGINT) };
        let _ = self.out.read_to_string(&mut String::new());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What nobody reads stands still, and what moves is counted to the byte.
pub fn moving() {
    const MOVED: usize = 1_000_003;
    for ip in families() {
        let namespace = Namespace::new();
        let ((mut silent, ignored), (mut client, mut server)) = namespace.run(move || (pair(ip), pair(ip)));
        silent.write_all(&[b'x'; READ]).unwrap();
        assert!(until(PATIENCE, || witness(&silent)[1] == 0));
        let mut watch = Watch::start(namespace.inode);
        let end = ignored.local_addr().unwrap();
        let (first, second) = (watch.next(end), watch.next(end));
        for line in [&first, &second] {
            let receive = &line["dwell"]["receive"];
            assert_eq!(
                (&receive["left"], &receive["mean_bytes"]),
                (&0.into(), &READ.into()),
                "{line}"
            );
            assert!(
                receive["mean_ns"].is_null() && line["dwell"]["samples"].as_u64() > Some(0),
                "{line}"
            );
            for empty in ["unsent", "in_flight"] {
                assert!(line["dwell"][empty]["stalled_ns"].is_null(), "{line}");
            }
        }
        let stalled = |line: &Value| line["dwell"]["receive"]["stalled_ns"].as_u64().unwrap();
        assert!(stalled(&first) < stalled(&second), "{first} {second}");
        let reader = std::thread::spawn(move || {
            server.read_exact(&mut vec![0; MOVED]).unwrap();
            server
        });
        client.write_all(&vec![b'y'; MOVED]).unwrap();
        let server = reader.join().unwrap();
        // Of each queue that it went through: how much left it, and whether that is said to have waited.
        let ends = [("receive", server.local_addr()), ("in_flight", client.local_addr())];
        let mut seen = [(0, false); 2];
        while seen.iter().any(|(left, _)| *left < MOVED as u64) {
            let line = watch.line();
            for ((queue, end), (left, waited)) in ends.iter().zip(&mut seen) {
                let queue = &line["dwell"][queue];
                if line["inode"].is_u64() && line["lport"] == end.as_ref().unwrap().port() && !queue.is_null() {
                    *left += queue["left"].as_u64().unwrap();
                    *waited |= queue["mean_ns"].is_u64();
                }
            }
        }
        assert_eq!(seen, [(MOVED as u64, true); 2]);
        watch.end();
    }
}
