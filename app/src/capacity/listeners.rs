//! The listeners of this network namespace, and how many connections each has (`/proc/net/tcp`, `proc_net(5)`).

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::reading::Root;
use crate::holders::{self, Holders};

/// The listening sockets on one address: several with `SO_REUSEPORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What they are bound to.
    pub address: SocketAddr,
    /// Their inodes.
    pub sockets: Vec<u64>,
    /// Connections that are established, or that a process still holds.
    pub connections: u64,
    /// Of them, those that accept(2) took, by inode.
    pub held: HashSet<u64>,
    /// Connections that wait for accept(2).
    pub accept_queue: u64,
    /// How many may wait at all sockets together; none where that was not told.
    pub accept_queue_limit: Option<u64>,
}

/// States by number (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
/// FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING: the process may have closed them, or only one direction.
const CLOSING: [u8; 4] = [4, 5, 9, 11];

/// All of them, by port and address.
pub fn read(root: &Root) -> Vec<Listener> {
    let sockets: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|path| parse(&root.text(path).unwrap_or_default()))
        .collect();
    let mut listeners: Vec<Listener> = Vec::new();
    for socket in sockets.iter().filter(|socket| socket.state == LISTEN) {
        let at = listeners
            .iter()
            .position(|listener| listener.address == socket.local)
            .unwrap_or_else(|| {
                listeners.push(Listener {
                    address: socket.local,
                    sockets: Vec::new(),
                    connections: 0,
                    held: HashSet::new(),
                    accept_queue: 0,
                    accept_queue_limit: None,
                });
                listeners.len() - 1
            });
        listeners[at].sockets.push(socket.inode);
        listeners[at].accept_queue += socket.receive_queue;
    }
    for socket in &sockets {
        let open = matches!(socket.state, ESTABLISHED | CLOSE_WAIT);
        let held = socket.inode != 0 && (open || CLOSING.contains(&socket.state));
        if !open && !held {
            continue;
        }
        // As the kernel looks it up: the address before the wildcard, and a connection is of its listener's family.
        let mine = |listener: &&mut Listener| {
            listener.address.port() == socket.local.port() && listener.address.is_ipv4() == socket.local.is_ipv4()
        };
        let best = listeners
            .iter_mut()
            .filter(mine)
            .filter(|listener| listener.address.ip().is_unspecified() || same(listener.address.ip(), socket.local.ip()))
            .min_by_key(|listener| listener.address.ip().is_unspecified());
        if let Some(listener) = best {
            listener.connections += 1;
            if held {
                listener.held.insert(socket.inode);
            }
        }
    }
    listeners.sort_by_key(|listener| (listener.address.port(), listener.address));
    listeners
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

/// The listener that a connection to this address would reach; to a wildcard: the one that is bound to it.
pub fn serving(listeners: &[Listener], address: SocketAddr) -> Option<&Listener> {
    let bound = |ip: IpAddr| {
        listeners
            .iter()
            .find(|listener| listener.address.port() == address.port() && same(listener.address.ip(), ip))
    };
    let wildcard = || address.is_ipv4().then(|| bound(Ipv4Addr::UNSPECIFIED.into()))?;
    bound(address.ip())
        .or_else(wildcard)
        .or_else(|| bound(Ipv6Addr::UNSPECIFIED.into()))
}

/// Who holds them.
pub fn holders(listeners: &[Listener]) -> HashMap<u64, Holders> {
    let inodes: HashSet<u64> = listeners
        .iter()
        .flat_map(|listener| &listener.sockets)
        .copied()
        .collect();
    holders::find(&inodes).in_short()
}

struct Socket {
    local: SocketAddr,
    state: u8,
    receive_queue: u64,
    inode: u64,
}

fn parse(text: &str) -> Vec<Socket> {
    let sockets = text.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (_, receive) = words.get(4)?.split_once(':')?;
        Some(Socket {
            local: address(words.get(1)?)?,
            state: u8::from_str_radix(words.get(3)?, 16).ok()?,
            receive_queue: u64::from_str_radix(receive, 16).ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    });
    sockets.collect()
}

/// `0100007F:1F90`: each four bytes of the address as one number of this machine's.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{address, read, serving};
    use crate::capacity::reading::fixture::Fixture;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, receive: u32, inode: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:{receive:08X} 00:00000000 00000000     0        0 {inode} 1 0\n"
        )
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_words() {
        if cfg!(target_endian = "little") {
            assert_eq!(address("0100007F:1F90"), Some(at("127.0.0.1:8080")));
            let mapped = "0000000000000000FFFF00000100007F:0050";
            assert_eq!(address(mapped), Some(at("[::ffff:127.0.0.1]:80")));
        }
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("01007F:0050"), None);
    }

    #[test]
    fn connections_belong_to_the_nearest_listener_of_their_family() {
        let v4 = [
            line("00000000:0050", "0A", 3, 101),
            line("00000000:0050", "0A", 2, 103),
            line("01010101:0050", "0A", 0, 107),
            // Five at the wildcard: two of the accept queue, one half closed; not an orphan, TIME_WAIT or a half-open one.
            line("02020202:0050", "01", 0, 0),
            line("02020202:0050", "08", 0, 0),
            line("02020202:0050", "01", 0, 109),
            line("02020202:0050", "05", 0, 113),
            line("02020202:0050", "01", 0, 127),
            line("02020202:0050", "04", 0, 0),
            line("02020202:0050", "06", 0, 0),
            line("02020202:0050", "03", 0, 0),
            // One at the address, one at another port.
            line("01010101:0050", "01", 0, 131),
            line("01010101:0051", "01", 0, 137),
        ]
        .concat();
        let zero = "0".repeat(32);
        let v6 = [
            line(&format!("{zero}:0050"), "0A", 0, 139),
            line("0000000000000000FFFF000002020202:0050", "01", 0, 149),
        ]
        .concat();
        let fixture = Fixture::new(&[
            ("proc/net/tcp", &format!("{HEAD}{v4}")),
            ("proc/net/tcp6", &format!("{HEAD}{v6}")),
        ]);
        let listeners = read(&fixture.root);
        let counts: Vec<_> = listeners
            .iter()
            .map(|listener| {
                let address = listener.address.to_string();
                (
                    address,
                    listener.sockets.len(),
                    listener.connections,
                    listener.held.len(),
                )
            })
            .collect();
        let row = |address: &str, sockets, connections, held| (address.to_owned(), sockets, connections, held);
        assert_eq!(
            counts,
            [
                row("0.0.0.0:80", 2, 5, 3),
                row("1.1.1.1:80", 1, 1, 1),
                row("[::]:80", 1, 1, 1),
            ]
        );
        assert_eq!(listeners[0].accept_queue, 5);
        let reached = |text| serving(&listeners, at(text)).map(|listener| listener.address);
        assert_eq!(reached("1.1.1.1:80"), Some(at("1.1.1.1:80")));
        assert_eq!(reached("9.9.9.9:80"), Some(at("0.0.0.0:80")));
        assert_eq!(reached("[2001:db8::1]:80"), Some(at("[::]:80")));
        assert_eq!(reached("1.1.1.1:81"), None);
    }
}
