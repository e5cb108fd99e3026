//! `socklife serve`: what its children say of themselves, against /proc.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::harness::{
    Namespace, PATIENCE,
    helper::cookie,
    serve::{Serve, ask},
    until,
};

fn sockets_of(pid: u32) -> HashSet<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    fds.filter_map(|fd| Some(fs::read_link(fd.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter(|link| link.starts_with("socket:"))
        .collect()
}

/// Each connection has a child of its own, which knows what /proc and the client know; none is left over.
pub fn witness() {
    const COUNT: usize = 37;
    let namespace = Namespace::new();
    let server = Serve::start(&namespace, &["127.0.0.1:0", "[::]:0"], &["--max-children", "200"]);
    let (v4, v6) = (server.addresses[0], server.addresses[1].port());
    let parent = server.pid();
    let mut seen = HashSet::new();
    let mut clients = namespace.run(move || {
        let connect = |to: &str, port: u16| {
            (0..COUNT)
                .map(|_| TcpStream::connect((to, port)).unwrap())
                .collect::<Vec<_>>()
        };
        let all = [
            connect("127.0.0.1", v4.port()),
            connect("127.0.0.1", v6),
            connect("::1", v6),
        ];
        all.into_iter().flatten().collect::<Vec<_>>()
    });
    for client in &mut clients {
        let says = ask(client);
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(says["ppid"], parent, "{says}");
        assert!(
            seen.insert(says["pid"].as_u64().unwrap()),
            "one child, one connection: {says}"
        );
        assert_eq!(
            (&says["raddr"], &says["rport"]),
            (&local.ip().to_string().into(), &local.port().into())
        );
        assert_eq!(
            (&says["laddr"], &says["lport"]),
            (&peer.ip().to_string().into(), &peer.port().into())
        );
        assert_eq!(says["family"], if local.is_ipv4() { 4 } else { 6 }, "{says}");
        let link = fs::read_link(format!("/proc/{}/fd/{}", says["pid"], says["fd"])).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", says["inode"]), "{says}");
        // The child has this connection and nothing else of the server's, and the parent has it no more.
        let pid = u32::try_from(says["pid"].as_u64().unwrap()).unwrap();
        assert_eq!(sockets_of(pid).len(), 1, "{says}");
        // Or will have no more in a moment: the child may be faster.
        let link = link.to_str().unwrap();
        assert!(until(PATIENCE, || !sockets_of(parent).contains(link)), "{says}");
        assert!(
            says["cookie"].as_u64().unwrap() > 0 && says["cookie"] != cookie(std::os::fd::AsRawFd::as_raw_fd(client))
        );
    }
    assert_eq!(server.children().len(), 3 * COUNT);
    drop(clients);
    assert!(
        until(PATIENCE, || server.children().is_empty()),
        "{:?}",
        server.children()
    );
    let said = server.stop();
    assert!(said.contains(&format!("served {} connections", 3 * COUNT)), "{said}");
}

/// At the limit nobody is accepted until a child has ended; lines come back as they are; an idle client is given up.
pub fn limits() {
    let namespace = Namespace::new();
    let args = ["--max-children", "2", "--idle-timeout", "6s"];
    let server = Serve::start(&namespace, &["127.0.0.1:0"], &args);
    let address = server.addresses[0];
    let mut clients: Vec<_> = namespace.run(move || (0..3).map(|_| TcpStream::connect(address).unwrap()).collect());
    for client in &mut clients[..2] {
        client.write_all(b"a line\n").unwrap();
        let mut back = [0; 7];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"a line\n");
    }
    clients[2].write_all(b"another\n").unwrap();
    assert_eq!(server.children().len(), 2, "the third waits in the accept queue");
    // The first two say nothing more, are given up, and the third gets its turn.
    let mut back = [0; 8];
    clients[2].read_exact(&mut back).unwrap();
    assert_eq!(&back, b"another\n");
    assert_eq!(clients[0].read(&mut back).unwrap(), 0, "the child hung up");
    drop(clients);
    server.stop();
}

/// Each mistake on purpose does what it says, and the server without any does none of it (`witness`).
pub fn mistakes() {
    let namespace = Namespace::new();
    let listening = |server: &Serve| {
        let one = sockets_of(server.pid());
        assert_eq!(one.len(), 1, "the listener: {one:?}");
        one.into_iter().next().unwrap()
    };
    let connect = |server: &Serve| {
        let address = server.addresses[0];
        let mut client = namespace.run(move || TcpStream::connect(address).unwrap());
        let says = ask(&mut client);
        (client, u32::try_from(says["pid"].as_u64().unwrap()).unwrap(), says)
    };

    let server = Serve::start(&namespace, &["127.0.0.1:0"], &["--leak-listener"]);
    let listener = listening(&server);
    let (client, child, _) = connect(&server);
    assert!(sockets_of(child).contains(&listener));
    drop(client);
    server.stop();

    let server = Serve::start(&namespace, &["127.0.0.1:0"], &["--leak-connection"]);
    let (client, _, says) = connect(&server);
    drop(client);
    assert!(until(PATIENCE, || server.children().is_empty()));
    let connection = format!("socket:[{}]", says["inode"]);
    assert!(sockets_of(server.pid()).contains(&connection), "{connection}");
    server.stop();

    let server = Serve::start(&namespace, &["127.0.0.1:0"], &["--no-reap"]);
    let (client, child, _) = connect(&server);
    drop(client);
    assert!(
        until(PATIENCE, || server.children() == [(child, 'Z')]),
        "{:?}",
        server.children()
    );
    server.stop();
}
