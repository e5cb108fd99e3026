//! What the host has: files, tasks, memory, ports and queues (`proc_sys(5)`, `Documentation/networking/ip-sysctl.rst`).

use super::reading::{Reading, Root, number};

/// The limits of the host, and what is used of them.
pub struct Host {
    /// `fs.file-max`: open files of all processes.
    pub file_max: Reading<u64>,
    /// Of them open, by `fs.file-nr`.
    pub files: Reading<u64>,
    /// `fs.nr_open`: up to where a process's RLIMIT_NOFILE can be raised.
    pub nr_open: Reading<u64>,
    /// `kernel.pid_max`: numbers for tasks.
    pub pid_max: Reading<u64>,
    /// `kernel.threads-max`: tasks.
    pub threads_max: Reading<u64>,
    /// Tasks that exist, by `/proc/loadavg`.
    pub tasks: Reading<u64>,
    /// `vm.max_map_count`: mappings of one process.
    pub max_map_count: Reading<u64>,
    /// Memory of the machine, and what of it can be had without swapping; bytes.
    pub memory: Reading<Memory>,
    /// Connections that are tracked, where tracking is loaded.
    pub conntrack: Option<Conntrack>,
    /// Ports that connect(2) takes.
    pub ports: Reading<Ports>,
    /// What listen(2)'s backlog is clamped to, `net.core.somaxconn`.
    pub somaxconn: Reading<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub max_syn_backlog: Reading<u64>,
    /// `net.ipv4.tcp_syncookies`: 0 never, 1 when the queue is full, 2 always.
    pub syncookies: Reading<u64>,
    /// Buffers of TCP.
    pub buffers: Reading<Buffers>,
    /// Whether a listener on `::` takes no IPv4 connections, `net.ipv6.bindv6only`.
    pub bindv6only: bool,
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`
    pub total: u64,
    /// `MemAvailable`
    pub available: u64,
}

/// Entries.
pub struct Conntrack {
    /// `nf_conntrack_max`
    pub max: Reading<u64>,
    /// `nf_conntrack_count`
    pub count: Reading<u64>,
}

/// Ephemeral ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Of those between, how many `ip_local_reserved_ports` keeps out.
    pub reserved: u64,
}

impl Ports {
    /// How many connect(2) may take.
    pub fn count(self) -> u64 {
        (u64::from(self.last) + 1)
            .saturating_sub(u64::from(self.first))
            .saturating_sub(self.reserved)
    }
}

/// Memory that TCP may take for data under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// The last number of `net.ipv4.tcp_mem`, in pages.
    pub max_pages: u64,
    /// Pages that are taken, by `/proc/net/sockstat`.
    pub used_pages: u64,
    /// Bytes of a page.
    pub page: u64,
    /// What each connection may have for receiving, whatever else is taken; bytes.
    pub rmem_min: u64,
    /// The same for sending.
    pub wmem_min: u64,
}

const IPV4: &str = "/proc/sys/net/ipv4";

impl Host {
    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        Self {
            file_max: root.number("/proc/sys/fs/file-max"),
            files: root.find("/proc/sys/fs/file-nr", |text| nth(text, 0)),
            nr_open: root.number("/proc/sys/fs/nr_open"),
            pid_max: root.number("/proc/sys/kernel/pid_max"),
            threads_max: root.number("/proc/sys/kernel/threads-max"),
            // running/all
            tasks: root.find("/proc/loadavg", |text| {
                text.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
            }),
            max_map_count: root.number("/proc/sys/vm/max_map_count"),
            memory: root.find("/proc/meminfo", |text| {
                let kib = |key| number::<u64>(text, key).map(|kib| kib.saturating_mul(1024));
                Some(Memory {
                    total: kib("MemTotal:")?,
                    available: kib("MemAvailable:")?,
                })
            }),
            conntrack: conntrack(root),
            ports: ports(root),
            somaxconn: root.number("/proc/sys/net/core/somaxconn"),
            max_syn_backlog: root.number(&format!("{IPV4}/tcp_max_syn_backlog")),
            syncookies: root.number(&format!("{IPV4}/tcp_syncookies")),
            buffers: buffers(root),
            bindv6only: root.number("/proc/sys/net/ipv6/bindv6only").value == Ok(1),
        }
    }
}

fn nth(text: &str, index: usize) -> Option<u64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

/// Bytes of a page.
pub fn page() -> u64 {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page).unwrap_or(4096)
}

fn conntrack(root: &Root) -> Option<Conntrack> {
    let folder = "/proc/sys/net/netfilter";
    let max = format!("{folder}/nf_conntrack_max");
    root.place(&max).exists().then(|| Conntrack {
        max: root.number(&max),
        count: root.number(&format!("{folder}/nf_conntrack_count")),
    })
}

fn ports(root: &Root) -> Reading<Ports> {
    let range = root.find(&format!("{IPV4}/ip_local_port_range"), |text| {
        let mut words = text.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    let reserved = root
        .text(&format!("{IPV4}/ip_local_reserved_ports"))
        .unwrap_or_default();
    Reading {
        value: range.value.map(|(first, last)| Ports {
            first,
            last,
            reserved: within(&reserved, first, last),
        }),
        at: range.at,
    }
}

/// How many ports of a list such as `8080,9000-9010` are in a range. The kernel prints it sorted and without overlaps.
fn within(list: &str, first: u16, last: u16) -> u64 {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse::<u16>().ok()?, to.parse::<u16>().ok()?))
    });
    ranges
        .map(|(from, to)| (u64::from(to.min(last)) + 1).saturating_sub(u64::from(from.max(first))))
        .sum()
}

fn buffers(root: &Root) -> Reading<Buffers> {
    let mem = root.find(&format!("{IPV4}/tcp_mem"), |text| nth(text, 2));
    let least = |name: &str| root.find(&format!("{IPV4}/{name}"), |text| nth(text, 0));
    let used = root.find("/proc/net/sockstat", |text| {
        let mut words = super::reading::field(text, "TCP:")?;
        words.find(|word| *word == "mem")?;
        words.next()?.parse().ok()
    });
    let all = || {
        Ok(Buffers {
            max_pages: mem.value?,
            used_pages: used.value?,
            page: page(),
            rmem_min: least("tcp_rmem").value?,
            wmem_min: least("tcp_wmem").value?,
        })
    };
    Reading {
        value: all(),
        at: mem.at,
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Memory, Ports, within};
    use crate::capacity::reading::fixture::Fixture;

    #[test]
    fn files_of_the_system_are_read() {
        let fixture = Fixture::new(&[
            ("proc/sys/fs/file-max", "9223372036854775807\n"),
            ("proc/sys/fs/file-nr", "1009\t0\t9223372036854775807\n"),
            ("proc/loadavg", "0.54 0.47 0.31 1/83 29796\n"),
            (
                "proc/meminfo",
                "MemTotal:  16411 kB\nMemFree: 1 kB\nMemAvailable:  7919 kB\n",
            ),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "8080,40000-40012\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65537\n"),
            ("proc/sys/net/ipv4/tcp_mem", "11\t13\t17\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            (
                "proc/net/sockstat",
                "sockets: used 10\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 5\n",
            ),
        ]);
        let host = Host::read(&fixture.root);
        assert_eq!(host.file_max.value, Ok(9_223_372_036_854_775_807));
        assert_eq!((host.files.value, host.tasks.value), (Ok(1009), Ok(83)));
        assert_eq!(
            host.memory.value,
            Ok(Memory {
                total: 16411 * 1024,
                available: 7919 * 1024
            })
        );
        let ports = Ports {
            first: 32768,
            last: 60999,
            reserved: 13,
        };
        assert_eq!((host.ports.value, ports.count()), (Ok(ports), 28_219));
        let conntrack = host.conntrack.expect("it is loaded");
        assert_eq!(conntrack.max.value, Ok(65537));
        assert!(conntrack.count.value.is_err());
        let buffers = host.buffers.value.expect("all of it");
        assert_eq!((buffers.max_pages, buffers.used_pages, buffers.wmem_min), (17, 5, 4096));
        assert!(host.nr_open.value.is_err());
    }

    #[test]
    fn reserved_ports_count_where_they_would_be_taken() {
        assert_eq!(within("\n", 1, 65535), 0);
        assert_eq!(within("1-100,200,65000-65535\n", 97, 65001), 4 + 1 + 2);
        let nothing = Ports {
            first: 9,
            last: 3,
            reserved: 7,
        };
        assert_eq!(nothing.count(), 0);
    }
}
