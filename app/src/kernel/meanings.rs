//! What the kernel's reasons mean, in words that its users know. The names are the kernel's: `enum skb_drop_reason`
//! (include/net/dropreason-core.h), `enum qdisc_drop_reason`, `enum sk_rst_reason` (include/net/rstreason.h).

/// What some reasons mean.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// Their names, without the enumeration's prefix.
    pub names: &'static [&'static str],
    /// A few words, for a line.
    pub words: &'static str,
    /// What to do, or where to look; Markdown, and empty where there is nothing to do.
    pub remedy: &'static str,
}

const fn meaning(names: &'static [&'static str], words: &'static str, remedy: &'static str) -> Meaning {
    Meaning { names, words, remedy }
}

/// Why a segment was dropped.
pub const DROPS: &[Meaning] = &[
    meaning(
        &["NO_SOCKET"],
        "nobody listens on that port, or the connection is gone",
        "is the server up, and bound to this address?",
    ),
    meaning(
        &[
            "SOCKET_RCVBUFF",
            "TCP_ZEROWINDOW",
            "TCP_OVERWINDOW",
            "TCP_INVALID_END_SEQUENCE",
        ],
        "the receiver has no room",
        "its process does not read: `rcvq_full` tells how much it holds; `net.ipv4.tcp_rmem`",
    ),
    meaning(
        &["PROTO_MEM"],
        "TCP's memory is used up",
        "`net.ipv4.tcp_mem`, `/proc/net/sockstat`",
    ),
    meaning(
        &["SOCKET_BACKLOG"],
        "the receiver's process had the socket locked, and too much waited already",
        "`net.core.rmem_max`, a busy receiver",
    ),
    meaning(
        &["TCP_OLD_DATA", "TCP_OLD_SEQUENCE"],
        "it arrived before",
        "the sender was too impatient, or an ACK was lost: look at `retransmitted` of the other end",
    ),
    meaning(
        &["TCP_OFOMERGE", "TCP_OFO_DROP"],
        "its data is there already, received out of order",
        "loss or reordering on the way",
    ),
    meaning(
        &["TCP_OFO_QUEUE_PRUNE"],
        "received out of order, and given up for room",
        "loss on the way, and a receiver short of memory: `net.ipv4.tcp_rmem`",
    ),
    meaning(
        &["TCP_LISTEN_OVERFLOW"],
        "the accept queue is full",
        "`accept_refused` names the listener: [queues.md](queues.md)",
    ),
    meaning(
        &["TCP_RFC7323_PAWS", "TCP_RFC7323_PAWS_ACK", "TCP_RFC7323_TW_PAWS"],
        "its timestamp is too old, or answers none that was sent (PAWS)",
        "clients behind one NAT address; `net.ipv4.tcp_timestamps`",
    ),
    meaning(
        &["TCP_RFC7323_TSECR"],
        "its timestamp answers none that was sent",
        "a middlebox, or a forged segment",
    ),
    meaning(
        &[
            "TCP_INVALID_SEQUENCE",
            "TCP_INVALID_ACK_SEQUENCE",
            "TCP_ACK_UNSENT_DATA",
        ],
        "its numbers do not fit the connection",
        "an old connection of this four-tuple, a middlebox, or a forged segment",
    ),
    meaning(
        &["TCP_OLD_ACK", "TCP_TOO_OLD_ACK"],
        "an ACK that later ones have overtaken",
        "reordering on the way",
    ),
    meaning(
        &["TCP_FLAGS"],
        "its TCP flags mean nothing here",
        "a scan, or a middlebox",
    ),
    meaning(
        &["TCP_INVALID_SYN"],
        "a SYN in the middle of a connection",
        "the peer began anew: it lost its state, or a port is used again",
    ),
    meaning(
        &["TCP_RESET"],
        "a RST that is obeyed, or one that does not fit",
        "`reset_received` tells which",
    ),
    meaning(&["TCP_CLOSE"], "its socket is closed", ""),
    meaning(&["SOCKET_CLOSE", "QUEUE_PURGE"], "its queue went with its socket", ""),
    meaning(
        &["TCP_ABORT_ON_DATA"],
        "data for a socket that nobody reads any more",
        "the peer still sends after this end closed",
    ),
    meaning(
        &["TCP_FASTOPEN"],
        "a TCP Fast Open child takes none before its handshake is done",
        "",
    ),
    meaning(
        &["TCP_MINTTL"],
        "its TTL is below what the socket asks for (IP_MINTTL)",
        "GTSM, RFC 5082: who is that far away?",
    ),
    meaning(
        &["TCP_CSUM", "IP_CSUM", "SKB_CSUM"],
        "damaged, or its checksum is computed wrongly",
        "`ethtool -k`, cables, tunnels",
    ),
    meaning(
        &[
            "TCP_AUTH_HDR",
            "TCP_MD5NOTFOUND",
            "TCP_MD5UNEXPECTED",
            "TCP_MD5FAILURE",
            "TCP_AONOTFOUND",
            "TCP_AOUNEXPECTED",
            "TCP_AOKEYNOTFOUND",
            "TCP_AOFAILURE",
        ],
        "not signed as the socket asks",
        "keys of both ends (RFC 2385, RFC 5925)",
    ),
    meaning(
        &["SOCKET_FILTER"],
        "a BPF filter on the socket refused it",
        "who set `SO_ATTACH_FILTER`, or runs a cgroup program?",
    ),
    meaning(
        &["NETFILTER_DROP"],
        "a rule of nftables or iptables",
        "`nft monitor trace` shows which",
    ),
    meaning(
        &["BPF_CGROUP_EGRESS"],
        "a cgroup's BPF program refused it",
        "`bpftool cgroup tree`",
    ),
    meaning(
        &["SECURITY_HOOK"],
        "SELinux, AppArmor or another security module refused it",
        "the audit log",
    ),
    meaning(
        &["XFRM_POLICY"],
        "IPsec's policy refuses it",
        "`ip xfrm policy`, `/proc/net/xfrm_stat`",
    ),
    meaning(
        &["PSP_INPUT", "PSP_OUTPUT"],
        "PSP encryption is wanted, and it has none or the wrong one",
        "keys of both ends",
    ),
    meaning(&["XDP"], "an XDP program dropped it", "`ip link show`, `bpftool net`"),
    meaning(
        &[
            "TC_INGRESS",
            "TC_EGRESS",
            "TC_COOKIE_ERROR",
            "TC_CHAIN_NOTFOUND",
            "TC_RECLASSIFY_LOOP",
        ],
        "a filter of tc dropped it",
        "`tc -s filter show`",
    ),
    meaning(
        &[
            "QDISC_DROP",
            "QDISC_BURST_DROP",
            "QDISC_DROP_GENERIC",
            "QDISC_DROP_UNSPEC",
        ],
        "a qdisc dropped it",
        "`tc -s qdisc`",
    ),
    meaning(
        &[
            "QDISC_OVERLIMIT",
            "QDISC_DROP_OVERLIMIT",
            "FQ_FLOW_LIMIT",
            "QDISC_DROP_FLOW_LIMIT",
            "FQ_BAND_LIMIT",
            "QDISC_DROP_BAND_LIMIT",
            "QDISC_DROP_MAXFLOWS",
        ],
        "a queue of this machine is full",
        "`tc -s qdisc` shows whose limit it was",
    ),
    meaning(
        &[
            "QDISC_CONGESTED",
            "QDISC_DROP_CONGESTED",
            "CAKE_FLOOD",
            "QDISC_DROP_FLOOD_PROTECTION",
            "DUALPI2_STEP_DROP",
            "QDISC_DROP_L4S_STEP_NON_ECN",
        ],
        "a qdisc asks the sender to slow down",
        "`tc -s qdisc`: more is sent than the link takes",
    ),
    meaning(
        &["FQ_HORIZON_LIMIT", "QDISC_DROP_HORIZON_LIMIT"],
        "it was to be sent too far in the future",
        "fq's horizon, `SO_TXTIME`, pacing",
    ),
    meaning(
        &["CPU_BACKLOG"],
        "the queue of packets of a CPU is full",
        "`/proc/net/softnet_stat`, `net.core.netdev_max_backlog`",
    ),
    meaning(
        &[
            "FULL_RING",
            "TAP_FILTER",
            "TAP_TXFILTER",
            "MACVLAN_BROADCAST_BACKLOG",
            "IPVLAN_MULTICAST_BACKLOG",
        ],
        "a device's queue is full, or its filter refused it",
        "`ethtool -S`, `ip -s link`",
    ),
    meaning(
        &[
            "DEV_READY",
            "DEV_HDR",
            "NO_TX_TARGET",
            "BRIDGE_INGRESS_STP_STATE",
            "RECURSION_LIMIT",
        ],
        "the device cannot send or take it",
        "`ip link`: is it up?",
    ),
    meaning(
        &["IP_OUTNOROUTES", "IP_INNOROUTES", "IP_INADDRERRORS", "IPV6DISABLED"],
        "no route for it",
        "`ip route get`, `ip rule`",
    ),
    meaning(
        &["IP_RPFILTER"],
        "its sender is not reachable where it came in",
        "`net.ipv4.conf.*.rp_filter`, asymmetric routes",
    ),
    meaning(
        &[
            "IP_LOCAL_SOURCE",
            "IP_INVALID_SOURCE",
            "IP_LOCALNET",
            "IP_INVALID_DEST",
            "UNICAST_IN_L2_MULTICAST",
        ],
        "an address that may not come in there",
        "spoofed, or a route that leads back: `net.ipv4.conf.*.route_localnet`, `accept_local`",
    ),
    meaning(
        &["OTHERHOST", "MAC_INVALID_SOURCE", "LOCAL_MAC"],
        "for, or from, another hardware address",
        "a bridge, or a promiscuous device",
    ),
    meaning(
        &[
            "NEIGH_CREATEFAIL",
            "NEIGH_FAILED",
            "NEIGH_QUEUEFULL",
            "NEIGH_DEAD",
            "NEIGH_HH_FILLFAIL",
            "ARP_PVLAN_DISABLE",
        ],
        "the next hop's hardware address is unknown",
        "`ip neigh`: does it answer ARP?",
    ),
    meaning(
        &["IP_INHDR"],
        "its TTL is used up, or its header is malformed",
        "a routing loop",
    ),
    meaning(
        &["PKT_TOO_BIG", "SKB_GSO_SEG", "SKB_BAD_GSO"],
        "too large for the device",
        "`ip link` shows the MTU; `ethtool -k`",
    ),
    meaning(
        &["DUP_FRAG", "FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"],
        "fragments that cannot be put together",
        "the MTU on the way; `net.ipv4.ipfrag_*`",
    ),
    meaning(
        &[
            "PKT_TOO_SMALL",
            "HDR_TRUNC",
            "IPV6_BAD_EXTHDR",
            "IPV6_TOO_MANY_EXTHDRS",
            "INVALID_PROTO",
            "IP_NOPROTO",
            "UNHANDLED_PROTO",
            "MAC_IEEE_MAC_CONTROL",
        ],
        "its headers are malformed, or of no protocol that is known here",
        "a capture shows it",
    ),
    meaning(
        &[
            "IP_TUNNEL_ECN",
            "TUNNEL_TXINFO",
            "VXLAN_INVALID_HDR",
            "VXLAN_VNI_NOT_FOUND",
            "VXLAN_ENTRY_EXISTS",
        ],
        "the tunnel does not take it",
        "`ip -d link`",
    ),
    meaning(
        &["PFMEMALLOC", "NOMEM", "SKB_UCOPY_FAULT", "PACKET_SOCK_ERROR"],
        "no memory for it, or it could not be copied",
        "`dmesg`, `/proc/pressure/memory`",
    ),
    meaning(&["NOT_SPECIFIED"], "the kernel gives no reason", ""),
];

/// Why a RST was sent.
pub const RESETS: &[Meaning] = &[
    meaning(
        &["TCP_ABORT_ON_CLOSE"],
        "closed with data that was not read",
        "the process closes before it has read all: the peer loses what was sent to it as well",
    ),
    meaning(
        &["TCP_STATE"],
        "thrown away: SO_LINGER 0, disconnected, its listener closed, or ss --kill",
        "look at who did it, and in which state",
    ),
    meaning(
        &["TCP_ABORT_ON_LINGER"],
        "closed, and TCP_LINGER2 gives the peer no time to close too",
        "",
    ),
    meaning(
        &["TCP_ABORT_ON_DATA"],
        "data for a socket that nobody reads any more",
        "the peer still sends after this end closed",
    ),
    meaning(
        &["TCP_DISCONNECT_WITH_DATA"],
        "disconnected with data that was not sent",
        "",
    ),
    meaning(
        &["TCP_ABORT_ON_MEMORY"],
        "no memory, or too many orphans",
        "`net.ipv4.tcp_mem`, `net.ipv4.tcp_max_orphans`, `/proc/net/sockstat`",
    ),
    meaning(
        &["TCP_KEEPALIVE_TIMEOUT"],
        "the peer answered no keepalive",
        "is the peer there? TCP_KEEPIDLE, TCP_KEEPCNT",
    ),
    meaning(
        &["NO_SOCKET"],
        "nobody listens on that port, or the connection is gone",
        "is the server up, and bound to this address?",
    ),
    meaning(&["TCP_TIMEWAIT_SOCKET"], "for a connection in TIME_WAIT", ""),
    meaning(
        &["INVALID_SYN"],
        "a SYN for a connection whose handshake is not done",
        "the peer began anew: it lost its state, or a port is used again",
    ),
    meaning(
        &[
            "TCP_INVALID_ACK_SEQUENCE",
            "TCP_ACK_UNSENT_DATA",
            "TCP_OLD_ACK",
            "TCP_TOO_OLD_ACK",
        ],
        "an ACK that does not fit the connection",
        "an old connection of this four-tuple, or a middlebox",
    ),
    meaning(
        &["TCP_RFC7323_PAWS"],
        "its timestamp answers none that was sent",
        "an old connection of this four-tuple",
    ),
    meaning(
        &["TCP_FLAGS"],
        "its TCP flags mean nothing here",
        "a scan, or a middlebox",
    ),
    meaning(
        &["MPTCP_RST_EUNSPEC", "MPTCP_RST_EMPTCP"],
        "an MPTCP subflow ends",
        "RFC 8684, section 3.6",
    ),
    meaning(&["MPTCP_RST_ERESOURCE"], "MPTCP: no resources for this subflow", ""),
    meaning(
        &["MPTCP_RST_EPROHIBIT"],
        "MPTCP: this subflow is forbidden",
        "`ip mptcp limits`",
    ),
    meaning(
        &["MPTCP_RST_EWQ2BIG"],
        "MPTCP: too much is in flight on this subflow",
        "",
    ),
    meaning(&["MPTCP_RST_EBADPERF"], "MPTCP: this subflow is too slow", ""),
    meaning(&["MPTCP_RST_EMIDDLEBOX"], "MPTCP: a middlebox interferes", ""),
    meaning(&["ERROR"], "an error in the kernel", ""),
    meaning(&["NOT_SPECIFIED"], "the kernel gives no reason", ""),
];

/// What a name means, if the table has it.
pub fn of(table: &'static [Meaning], name: &str) -> Option<&'static str> {
    let meaning = table.iter().find(|meaning| meaning.names.contains(&name));
    meaning.map(|meaning| meaning.words)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{DROPS, RESETS, of};

    #[test]
    fn a_name_has_one_meaning() {
        for table in [DROPS, RESETS] {
            let names = table.iter().flat_map(|meaning| meaning.names);
            let mut known = HashSet::new();
            for name in names {
                assert!(known.insert(name), "{name} stands there twice");
            }
        }
        assert_eq!(of(DROPS, "NETFILTER_DROP"), Some("a rule of nftables or iptables"));
        assert_eq!(of(RESETS, "NETFILTER_DROP"), None);
    }
}
