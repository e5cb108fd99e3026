//! A running `socklife serve`, and what its children say of themselves.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
};

use serde_json::Value;

use super::{Namespace, socklife};

/// A running server.
pub struct Serve {
    child: Child,
    pub addresses: Vec<SocketAddr>,
}

impl Serve {
    pub fn start(namespace: &Namespace, listen: &[&str], args: &[&str]) -> Self {
        let mut command = socklife();
        command.arg("serve");
        for address in listen {
            command.args(["--listen", address]);
        }
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.run(move || command.spawn().unwrap());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let addresses = listen
            .iter()
            .map(|_| {
                let mut line = String::new();
                out.read_line(&mut line).unwrap();
                line.trim().rsplit(' ').next().unwrap().parse().unwrap()
            })
            .collect();
        Self { child, addresses }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its children, with their states as /proc has them.
    pub fn children(&self) -> Vec<(u32, char)> {
        let pids = fs::read_dir("/proc").unwrap();
        let pids = pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit(") ").next()?.split(' ');
            let state = fields.next()?.chars().next()?;
            (fields.next()?.parse() == Ok(self.pid())).then_some((pid, state))
        })
        .collect()
    }

    /// Ends it as a service manager does.
    pub fn stop(mut self) -> String {
        // SAFETY: a child that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Of a case that failed; one that was waited for takes no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the child on the other end what it knows.
pub fn ask(client: &mut TcpStream) -> Value {
    client.write_all(b"GET / HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
    let mut reader = BufReader::new(client);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}
