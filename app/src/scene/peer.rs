//! A TCP client that no kernel stands behind: it sends what it is told, and nothing else. So a SYN stays without its
//! final ACK, an ACK comes when it is due, and a forged one comes at all.
//!
//! For a namespace of one's own: its address is routed to loopback, where answers to it are thrown away; a tap reads them.

use std::{
    io::{self, Error},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const TCP: u8 = 6;
const WINDOW: u16 = 0xffff;
/// What our sequence numbers begin with.
const ISN: u32 = 1_000_003;

/// Addresses for documentation (RFC 5737, RFC 3849), which no host has.
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

/// The client.
pub struct Peer {
    /// Its address.
    pub local: SocketAddr,
    server: SocketAddr,
    raw: OwnedFd,
    tap: OwnedFd,
    /// Sends to itself.
    echo: UdpSocket,
    /// The server's first sequence number, once its SYN-ACK came.
    server_isn: Option<u32>,
}

/// Any other route to loopback becomes a reject route (`fib6_is_reject`).
const RTF_ANYCAST: u32 = 0x0010_0000;

/// `struct in6_rtmsg` (`include/uapi/linux/ipv6_route.h`).
#[derive(Default)]
#[repr(C)]
struct Route6 {
    dst: [u8; 16],
    src: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    dst_len: u16,
    src_len: u16,
    metric: u32,
    info: u64,
    flags: u32,
    ifindex: i32,
}

/// Routes the addresses of peers in the namespace of this thread, and keeps the thread on the CPU that it is on: what it
/// sends over loopback then arrives in order.
pub fn prepare() -> Result<()> {
    stay().context("cannot stay on one CPU")?;
    let lo = loopback()?;
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).context("cannot make a socket")?;
    let mut name = *b"lo\0";
    // SAFETY: all zeroes is a value of the structure.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = v4_address(V4);
    route.rt_genmask = v4_address(Ipv4Addr::new(255, 255, 255, 0));
    route.rt_flags = libc::RTF_UP;
    route.rt_dev = name.as_mut_ptr().cast();
    // SAFETY: the route and the name that it points to outlive the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    ensure!(
        done == 0 || Error::last_os_error().kind() == io::ErrorKind::AlreadyExists,
        "cannot route {V4}/24 to loopback: {}",
        Error::last_os_error()
    );
    if !super::has_ipv6() {
        return Ok(());
    }
    let socket = self::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).context("cannot make a socket")?;
    let route = Route6 {
        dst: V6.octets(),
        dst_len: 64,
        metric: 1,
        flags: u32::from(libc::RTF_UP) | RTF_ANYCAST,
        ifindex: lo,
        ..Route6::default()
    };
    // SAFETY: the route outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    ensure!(
        done == 0 || Error::last_os_error().kind() == io::ErrorKind::AlreadyExists,
        "cannot route {V6}/64 to loopback: {}",
        Error::last_os_error()
    );
    Ok(())
}

impl Peer {
    /// A peer of that server, told from others by its number.
    pub fn new(server: SocketAddr, number: u16) -> Result<Self> {
        let port = 20_000 + number % 40_000;
        let host = 1 + number / 40_000;
        let local = match server.ip() {
            IpAddr::V4(_) => {
                let [a, b, c, _] = V4.octets();
                let host = u8::try_from(host)?;
                SocketAddr::from((Ipv4Addr::new(a, b, c, host), port))
            }
            IpAddr::V6(_) => {
                let mut segments = V6.segments();
                segments[7] = host;
                SocketAddr::from((Ipv6Addr::from(segments), port))
            }
        };
        // Both take whole packets.
        let raw = match server {
            SocketAddr::V4(_) => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
            SocketAddr::V6(_) => socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW),
        };
        Ok(Self {
            local,
            server,
            raw: raw.context("cannot make a raw socket (CAP_NET_RAW)")?,
            tap: tap().context("cannot tap loopback (CAP_NET_RAW)")?,
            echo: echo().context("cannot send datagrams over loopback")?,
            server_isn: None,
        })
    }

    /// Sends a SYN.
    pub fn syn(&self) -> Result<()> {
        self.send(SYN, ISN, 0)
    }

    /// Sends a SYN with data: TCP Fast Open, where the server asks for no cookie.
    pub fn syn_with(&self, data: &[u8]) -> Result<()> {
        self.put(&packet_of(self.local, self.server, SYN, ISN, 0, data))?;
        self.settle()
    }

    /// Waits for a SYN-ACK.
    pub fn synack(&mut self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(isn) = self.receive()? {
                self.server_isn = Some(isn);
                return Ok(());
            }
        }
        bail!("no SYN-ACK came for {} in {patience:?}", self.local)
    }

    /// The SYN, and its SYN-ACK: half-open from here on.
    pub fn half_open(server: SocketAddr, number: u16) -> Result<Self> {
        let mut peer = Self::new(server, number)?;
        peer.syn()?;
        peer.synack(Duration::from_secs(10))?;
        Ok(peer)
    }

    /// The final ACK.
    pub fn ack(&self) -> Result<()> {
        let isn = self.server_isn.context("no SYN-ACK came yet")?;
        self.send(ACK, ISN + 1, isn.wrapping_add(1))
    }

    /// An ACK of a SYN-ACK that never was.
    pub fn forged_ack(&self) -> Result<()> {
        self.send(ACK, ISN + 1, 0x1234_5678)
    }

    /// Data, so many bytes behind the first that it may send.
    pub fn data(&self, offset: u32, data: &[u8]) -> Result<()> {
        self.put(&self.segment(offset, data)?)?;
        self.settle()
    }

    /// The same with a checksum that is wrong.
    pub fn corrupted(&self, offset: u32, data: &[u8]) -> Result<()> {
        let mut packet = self.segment(offset, data)?;
        let sum = packet.len() - data.len() - HEADER + CHECKSUM;
        packet[sum] ^= 0xff;
        self.put(&packet)?;
        self.settle()
    }

    /// A SYN for somebody else that no router may pass on any more (IPv4's TTL, IPv6's hop limit). It arrives as if it came
    /// from outside: what is sent over loopback is taken for what it is.
    pub fn last_hop(&self) -> Result<()> {
        let mut packet = packet(self.local, self.server, SYN, ISN, 0);
        let protocol = if self.server.is_ipv4() {
            // No layer below fills these in.
            let length = u16::try_from(packet.len())?.to_be_bytes();
            packet[2..4].copy_from_slice(&length);
            packet[8] = 1;
            let sum = checksum(&packet[..20]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            libc::ETH_P_IP
        } else {
            packet[7] = 1;
            libc::ETH_P_IPV6
        };
        // SAFETY: all zeroes is a value of the structure.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET)?;
        to.sll_protocol = u16::try_from(protocol)?.to_be();
        to.sll_ifindex = loopback()?;
        // SAFETY: a packet and an address of the sizes that are named.
        let sent = unsafe {
            libc::sendto(
                self.tap.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                libc::socklen_t::try_from(size_of_val(&to))?,
            )
        };
        ensure!(sent >= 0, "cannot send a packet: {}", Error::last_os_error());
        self.settle()
    }

    fn segment(&self, offset: u32, data: &[u8]) -> Result<Vec<u8>> {
        let isn = self.server_isn.context("no SYN-ACK came yet")?;
        let seq = (ISN + 1).wrapping_add(offset);
        let ack = isn.wrapping_add(1);
        Ok(packet_of(self.local, self.server, PSH | ACK, seq, ack, data))
    }

    /// A reset of the half-open connection.
    pub fn reset(&self) -> Result<()> {
        self.reset_behind(0)
    }

    /// A reset, behind so much data.
    pub fn reset_behind(&self, offset: u32) -> Result<()> {
        self.send(RST, ISN + 1 + offset, 0)
    }

    /// A router's word that the peer cannot be reached (ICMP, IPv4 only): it quotes the SYN-ACK.
    pub fn unreachable(&self) -> Result<()> {
        let isn = self.server_isn.context("no SYN-ACK came yet")?;
        let (IpAddr::V4(from), IpAddr::V4(to)) = (self.local.ip(), self.server.ip()) else {
            bail!("only for IPv4");
        };
        let quoted = packet(self.server, self.local, SYN | ACK, isn, ISN + 1);
        // Destination unreachable: host.
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend(&quoted[..28]);
        // The receiver reads the length of what is quoted.
        icmp[8 + 2..8 + 4].copy_from_slice(&40_u16.to_be_bytes());
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(icmp);
        self.put(&packet)?;
        self.settle()
    }

    fn send(&self, flags: u8, seq: u32, ack: u32) -> Result<()> {
        self.put(&packet(self.local, self.server, flags, seq, ack))?;
        self.settle()
    }

    /// Waits until the kernel has dealt with what was sent. It may do so later, in ksoftirqd; but a CPU takes what arrives
    /// over loopback in order, so when a datagram is there, what was sent before it has been looked at.
    fn settle(&self) -> Result<()> {
        let mut byte = [0];
        self.echo.send(&byte).context("cannot send a datagram over loopback")?;
        self.echo
            .recv(&mut byte)
            .context("a datagram over loopback does not arrive")?;
        Ok(())
    }

    fn put(&self, packet: &[u8]) -> Result<()> {
        let sent = match self.server {
            SocketAddr::V4(server) => {
                let to = v4_address(*server.ip());
                // SAFETY: a packet and an address of the sizes that are named.
                unsafe {
                    libc::sendto(
                        self.raw.as_raw_fd(),
                        packet.as_ptr().cast(),
                        packet.len(),
                        0,
                        &raw const to,
                        libc::socklen_t::try_from(size_of_val(&to))?,
                    )
                }
            }
            SocketAddr::V6(server) => {
                // SAFETY: all zeroes is a value of the structure.
                let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                to.sin6_family = u16::try_from(libc::AF_INET6)?;
                to.sin6_addr.s6_addr = server.ip().octets();
                // SAFETY: as above.
                unsafe {
                    libc::sendto(
                        self.raw.as_raw_fd(),
                        packet.as_ptr().cast(),
                        packet.len(),
                        0,
                        (&raw const to).cast(),
                        libc::socklen_t::try_from(size_of_val(&to))?,
                    )
                }
            }
        };
        ensure!(sent >= 0, "cannot send a packet: {}", Error::last_os_error());
        Ok(())
    }

    /// The sequence number of a SYN-ACK for us, if one is the next that the tap has.
    fn receive(&self) -> Result<Option<u32>> {
        let mut bytes = [0_u8; 2048];
        // SAFETY: all zeroes is a value of the structure.
        let mut about: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut about_len = libc::socklen_t::try_from(size_of_val(&about))?;
        // SAFETY: places of the sizes that are named.
        let read = unsafe {
            libc::recvfrom(
                self.tap.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                0,
                (&raw mut about).cast(),
                &raw mut about_len,
            )
        };
        let Ok(read) = usize::try_from(read) else {
            let error = Error::last_os_error();
            // The tap waits for a moment only.
            return if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                Ok(None)
            } else {
                Err(error).context("cannot read the tap")
            };
        };
        // Loopback shows each packet twice: as it leaves, and as it arrives.
        if about.sll_pkttype != libc::PACKET_OUTGOING {
            return Ok(None);
        }
        Ok(synack(&bytes[..read.min(bytes.len())], self.server, self.local))
    }
}

/// So many SYNs to an IPv4 listener, each from another peer, and never a word more: a SYN flood.
pub fn flood(server: SocketAddr, count: u32) -> Result<()> {
    const PORTS: u32 = 50_000;
    const BURST: u32 = 256;
    let first = Peer::new(server, 0)?;
    let [a, b, c, _] = V4.octets();
    for number in 0..count {
        let host = u8::try_from(1 + number / PORTS).context("a flood has at most 12 million SYNs")?;
        let port = u16::try_from(10_000 + number % PORTS)?;
        let from = SocketAddr::from((Ipv4Addr::new(a, b, c, host), port));
        first.put(&packet(from, server, SYN, ISN, 0))?;
        // A CPU drops what it has no time for (`net.core.netdev_max_backlog`).
        if number % BURST == BURST - 1 {
            first.settle()?;
        }
    }
    first.settle()
}

/// Waits until the kernel has dealt with what this thread sent over loopback. It may do so later, in ksoftirqd; but a CPU
/// takes what arrives in order, so when a datagram is there, what was sent before it has been looked at.
pub fn settle() -> Result<()> {
    through(&echo().context("cannot send datagrams over loopback")?)
}

fn through(echo: &UdpSocket) -> Result<()> {
    let mut byte = [0];
    echo.send(&byte).context("cannot send a datagram over loopback")?;
    echo.recv(&mut byte)
        .context("a datagram over loopback does not arrive")?;
    Ok(())
}

/// A socket that is connected to itself.
fn echo() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

fn stay() -> io::Result<()> {
    // SAFETY: all zeroes is a value of the set, and the calls are given its size.
    unsafe {
        let cpu = libc::sched_getcpu();
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(cpu).map_err(Error::other)?, &mut set);
        if libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0 {
            Ok(())
        } else {
            Err(Error::last_os_error())
        }
    }
}

/// A segment without payload, in its packet.
fn packet(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    packet_of(from, to, flags, seq, ack, &[])
}

/// Where the checksum stands in a segment, and how long its header is.
const CHECKSUM: usize = 16;
const HEADER: usize = 20;

fn packet_of(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(HEADER + data.len());
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([5 << 4, flags]);
    tcp.extend(WINDOW.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(data);
    let length = u16::try_from(tcp.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut pseudo = Vec::new();
    let mut packet = Vec::with_capacity(60);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
            // The kernel fills in the length, the number and the checksum.
            packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, TCP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (from, to) => {
            let octets = |ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            pseudo.extend(octets(from));
            pseudo.extend(octets(to));
            packet.extend([0x60, 0, 0, 0, length[0], length[1], TCP, 64]);
            packet.extend(octets(from));
            packet.extend(octets(to));
        }
    }
    pseudo.extend([0, TCP, length[0], length[1]]);
    let sum = checksum(&[pseudo, tcp.clone()].concat());
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The sequence number of a SYN-ACK from one to the other.
fn synack(packet: &[u8], from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let (source, destination, tcp) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let header = usize::from(packet[0] & 15) * 4;
            (address(12)?, address(16)?, packet.get(header..)?)
        }
        6 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let fits = (source, port(0)?) == (from.ip(), from.port()) && (destination, port(2)?) == (to.ip(), to.port());
    if !fits || tcp.get(13)? & (SYN | ACK | RST) != SYN | ACK {
        return None;
    }
    Some(u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?))
}

fn v4_address(ip: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data.
    unsafe { std::mem::transmute(address) }
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: a new descriptor that `OwnedFd` closes.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn loopback() -> Result<i32> {
    // SAFETY: a string that lives long enough.
    let index = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    ensure!(index != 0, "there is no loopback: {}", Error::last_os_error());
    Ok(i32::try_from(index)?)
}

/// What leaves through loopback, packet by packet.
fn tap() -> Result<OwnedFd> {
    let everything = u16::try_from(libc::ETH_P_ALL)?.to_be();
    let socket = socket(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from(everything))?;
    // SAFETY: all zeroes is a value of the structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = everything;
    address.sll_ifindex = loopback()?;
    let wait = libc::timeval {
        tv_sec: 0,
        tv_usec: 100_000,
    };
    // SAFETY: an address and an option of the sizes that are named.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of_val(&address))?,
        ) | libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const wait).cast(),
            libc::socklen_t::try_from(size_of_val(&wait))?,
        )
    };
    ensure!(done == 0, Error::last_os_error());
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::{ACK, SYN, checksum, packet, synack};

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    #[test]
    fn a_synack_is_told_from_the_rest() {
        for (server, client) in [("127.0.0.1:80", "192.0.2.1:9"), ("[::1]:80", "[2001:db8::1]:9")] {
            let (server, client) = (server.parse().expect("it"), client.parse().expect("it"));
            let answer = packet(server, client, SYN | ACK, 77, 1);
            assert_eq!(synack(&answer, server, client), Some(77));
            assert_eq!(synack(&answer, client, server), None);
            assert_eq!(synack(&packet(server, client, ACK, 77, 1), server, client), None);
            assert_eq!(synack(&answer[..30], server, client), None);
        }
    }
}
