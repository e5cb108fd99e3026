//! A connection is its four-tuple: a listener can have as many as its clients have addresses and ports.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::host::Host;
use crate::{output::Grouped, scene};

/// A port has 16 bits, and 0 is none.
const PORTS: u64 = 65_535;

/// Unicast addresses of IPv4: all but 0/8, 127/8, 224/4 (multicast) and 240/4 (reserved).
const IPV4_UNICAST: u128 = 222 << 24;

/// Those of IPv6 are more than can be counted here: all but ff00::/8, with ports more than 128 bits.
const IPV6_UNICAST: u128 = u128::MAX - u128::MAX / 256;

/// Who may connect to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Addresses of other hosts, each with all ports.
    pub remote: u128,
    /// Addresses of this host, each with the ports that connect(2) takes.
    pub local: u128,
    /// How many those are; none where that cannot be read.
    pub local_ports: Option<u64>,
}

impl Population {
    /// The clients in these networks (none: anywhere) that reach a listener on this address.
    pub fn new(clients: &[IpNet], listener: SocketAddr, host: &Host, is_local: impl Fn(&IpNet) -> bool) -> Self {
        let local_ports = host.ports.known().map(|ports| ports.count());
        let (v4, v6) = families(listener.ip(), host.bindv6only);
        let mut population = Self {
            local_ports,
            ..Self::default()
        };
        if clients.is_empty() {
            match listener.ip().to_canonical() {
                // Nobody else reaches these.
                IpAddr::V4(address) if address.is_loopback() => population.local = 1 << 24,
                IpAddr::V6(Ipv6Addr::LOCALHOST) => population.local = 1,
                _ if v6 => population.remote = IPV6_UNICAST,
                _ => population.remote = IPV4_UNICAST,
            }
            return population;
        }
        for network in IpNet::aggregate(&clients.to_vec()) {
            let (reaches, bits) = match network {
                IpNet::V4(_) => (v4, 32 - u32::from(network.prefix_len())),
                IpNet::V6(_) => (v6, 128 - u32::from(network.prefix_len())),
            };
            if !reaches {
                continue;
            }
            let addresses = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
            let side = if is_local(&network) {
                &mut population.local
            } else {
                &mut population.remote
            };
            *side = side.saturating_add(addresses);
        }
        population
    }

    /// Four-tuples; none where the ports of this host's own clients are unknown.
    pub fn connections(self) -> Option<u128> {
        let local = match (self.local, self.local_ports) {
            (0, _) => 0,
            (addresses, Some(ports)) => addresses.saturating_mul(ports.into()),
            (_, None) => return None,
        };
        Some(self.remote.saturating_mul(PORTS.into()).saturating_add(local))
    }
}

/// What was multiplied.
impl fmt::Display for Population {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides = [
            (self.remote, Some(PORTS), ""),
            (self.local, self.local_ports, " of this host"),
        ];
        let mut and = "";
        for (addresses, ports, of) in sides.into_iter().filter(|(addresses, ..)| *addresses > 0) {
            match u64::try_from(addresses) {
                Ok(1) => write!(f, "{and}1 client address{of}")?,
                Ok(addresses) => write!(f, "{and}{} client addresses{of}", Grouped(addresses))?,
                Err(_) => write!(f, "{and}client addresses of IPv6{of}")?,
            }
            match ports {
                Some(ports) => write!(f, " × {} ports", Grouped(ports))?,
                None => f.write_str(" × unknown ports")?,
            }
            and = " and ";
        }
        if and.is_empty() {
            f.write_str("none of these clients can reach it")?;
        }
        Ok(())
    }
}

/// Whether IPv4 and IPv6 clients reach a listener on this address.
fn families(address: IpAddr, bindv6only: bool) -> (bool, bool) {
    match address {
        IpAddr::V4(_) => (true, false),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (!bindv6only, true),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(_) => (true, false),
            None => (false, true),
        },
    }
}

/// Where a listener would stand for these clients, if nobody says where.
pub fn wildcards(clients: &[IpNet]) -> Vec<SocketAddr> {
    let v4 = clients.is_empty() || clients.iter().any(|network| matches!(network, IpNet::V4(_)));
    let v6 = clients.iter().any(|network| matches!(network, IpNet::V6(_))) || (clients.is_empty() && scene::has_ipv6());
    let v4 = v4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    v4.into_iter().chain(v6).map(|address| (address, 0).into()).collect()
}

/// Whether a network is this host: loopback, or an address that can be bound.
pub fn is_local(network: &IpNet) -> bool {
    let loopback = match network {
        IpNet::V4(v4) => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).contains(v4),
        IpNet::V6(v6) => *v6 == Ipv6Net::from(Ipv6Addr::LOCALHOST),
    };
    let single = network.prefix_len() == network.max_prefix_len();
    loopback || (single && !network.addr().is_unspecified() && UdpSocket::bind((network.addr(), 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::{Population, is_local};
    use crate::capacity::{host::Host, reading::fixture::Fixture};

    fn count(clients: &[&str], listener: &str) -> Option<u128> {
        let fixture = Fixture::new(&[("proc/sys/net/ipv4/ip_local_port_range", "1000\t1016\n")]);
        let clients: Vec<IpNet> = clients.iter().map(|text| text.parse().expect("a network")).collect();
        let listener = listener.parse().expect("an address");
        Population::new(&clients, listener, &Host::read(&fixture.root), is_local).connections()
    }

    #[test]
    fn addresses_times_ports() {
        assert_eq!(count(&["10.0.0.0/30"], "0.0.0.0:80"), Some(4 * 65_535));
        assert_eq!(count(&["192.0.2.7/32"], "0.0.0.0:80"), Some(65_535));
        assert_eq!(
            count(&["10.0.0.0/30", "10.0.0.1/32"], "0.0.0.0:80"),
            Some(4 * 65_535),
            "none twice"
        );
        assert_eq!(count(&["10.0.0.0/30", "192.0.2.7/32"], "0.0.0.0:80"), Some(5 * 65_535));
        assert_eq!(count(&["0.0.0.0/0"], "0.0.0.0:80"), Some((1 << 32) * 65_535));
        assert_eq!(count(&["2001:db8::/125"], "[::]:80"), Some(8 * 65_535));
        assert_eq!(count(&["::/0"], "[::]:80"), Some(u128::MAX), "and no overflow");
    }

    #[test]
    fn the_family_must_fit() {
        assert_eq!(count(&["2001:db8::/125"], "0.0.0.0:80"), Some(0));
        assert_eq!(count(&["10.0.0.0/30"], "[2001:db8::1]:80"), Some(0));
        assert_eq!(count(&["10.0.0.0/30", "2001:db8::/125"], "[::]:80"), Some(12 * 65_535));
    }

    #[test]
    fn clients_of_this_host_have_the_ports_of_connect() {
        assert_eq!(count(&["127.0.0.0/30"], "0.0.0.0:80"), Some(4 * 17));
        assert_eq!(
            count(&["127.0.0.1/32", "10.0.0.0/31"], "0.0.0.0:80"),
            Some(17 + 2 * 65_535)
        );
        assert_eq!(count(&[], "127.0.0.1:80"), Some((1 << 24) * 17));
        assert_eq!(count(&[], "[::1]:80"), Some(17));
    }

    #[test]
    fn anywhere_is_all_unicast_addresses() {
        assert_eq!(count(&[], "0.0.0.0:80"), Some(3_724_541_952 * 65_535));
        assert_eq!(count(&[], "[::]:80"), Some(u128::MAX));
    }
}
