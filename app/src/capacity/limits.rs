//! From limits to connections: arithmetic on what was read, and nothing else.
//!
//! Each limit allows the connections that are there already, and as many more as there is room for. What a model does not
//! touch is left out.

use std::{collections::HashSet, net::SocketAddr};

use super::{
    Model,
    cgroup::Quota,
    clients::Population,
    host::Host,
    memory::Memory,
    process::{Process, Rlimit},
    reading::Reading,
};

/// What is computed from.
pub struct Subject<'a> {
    /// What a connection takes.
    pub model: Model,
    /// The host.
    pub host: &'a Host,
    /// The processes.
    pub processes: &'a [Process],
    /// The listeners in question.
    pub places: &'a [Place],
    /// What a connection takes of memory.
    pub memory: &'a Memory,
}

/// A listener that is there, or may be started.
pub struct Place {
    /// Its address; port 0 is any.
    pub address: SocketAddr,
    /// Who may connect.
    pub population: Population,
    /// The process that holds it or would, by index; none where it cannot be seen.
    pub process: Option<usize>,
    /// Connections it has; none where it does not exist.
    pub connections: Option<u64>,
    /// Of them, those that accept(2) took.
    pub held: Option<u64>,
    /// Of them, those that the process itself holds: others are its children's, or its siblings'.
    pub own: Option<u64>,
}

/// How many connections a limit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allows {
    /// So many.
    Connections(u128),
    /// Any number: connections do not count against it here.
    Any,
    /// Nobody knows, and why.
    Unknown(String),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Four-tuples.
    Connections,
    /// Descriptors, open files, tasks, entries, mappings.
    Things,
    /// Bytes.
    Bytes,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For programs: `rlimit_nofile_soft`.
    pub id: &'static str,
    /// For people: `RLIMIT_NOFILE (soft)`.
    pub name: String,
    /// The process it is a limit of, by index.
    pub process: Option<usize>,
    /// The listener it is a limit of.
    pub listener: Option<SocketAddr>,
    /// How many connections there can be.
    pub allows: Allows,
    /// The limit, where known.
    pub value: Option<u128>,
    /// What of it is in use.
    pub used: Option<u64>,
    /// What value and use count.
    pub unit: Unit,
    /// What one connection takes of it, where known.
    pub each: Option<u64>,
    /// Where it was read.
    pub at: String,
    /// What raises it.
    pub remedy: String,
}

/// Connections that there are, and those that there is room for. Of those that there are only as many count as can be in
/// what is used: not every connection is, one on loopback may not be tracked.
pub fn room(value: u128, used: u64, each: u64, now: u64) -> u128 {
    let each = each.max(1);
    let free = value.saturating_sub(used.into());
    (free / u128::from(each)).saturating_add(now.min(used / each).into())
}

/// Every limit, the one that binds first at the front; then those that allow any number, then the unknown ones.
pub fn all(subject: &Subject<'_>) -> Vec<Limit> {
    let mut limits: Vec<Limit> = subject.places.iter().map(four_tuples).collect();
    for place in subject.places.iter().filter(|place| place.process.is_none()) {
        limits.push(hidden(place));
    }
    for index in 0..subject.processes.len() {
        limits.extend(subject.descriptors(index));
        limits.extend(subject.tasks(index));
        limits.extend(subject.cgroup_memory(index));
    }
    limits.extend(subject.of_the_host());
    // Several processes may be in one control group.
    let mut groups = HashSet::new();
    limits.retain(|limit| !limit.id.starts_with("cgroup_") || groups.insert(limit.at.clone()));
    limits.sort_by_key(|limit| match limit.allows {
        Allows::Connections(count) => (0, count),
        Allows::Any => (1, 0),
        Allows::Unknown(_) => (2, 0),
    });
    limits
}

/// The limit that binds first, where one does.
pub fn first(limits: &[Limit]) -> Option<(&Limit, u128)> {
    limits.first().and_then(|limit| match limit.allows {
        Allows::Connections(count) => Some((limit, count)),
        _ => None,
    })
}

fn four_tuples(place: &Place) -> Limit {
    let count = place.population.connections();
    Limit {
        id: "four_tuples",
        name: match place.address {
            SocketAddr::V4(v4) if v4.port() == 0 => "four-tuples, IPv4 listener".to_owned(),
            SocketAddr::V6(v6) if v6.port() == 0 => "four-tuples, IPv6 listener".to_owned(),
            address => format!("four-tuples of {address}"),
        },
        process: None,
        listener: (place.address.port() != 0).then_some(place.address),
        allows: count.map_or_else(
            || Allows::Unknown("ip_local_port_range cannot be read".to_owned()),
            Allows::Connections,
        ),
        value: count,
        used: place.connections,
        unit: Unit::Connections,
        each: Some(1),
        at: place.population.to_string(),
        remedy: "another port to listen on (or more client addresses: --clients)".to_owned(),
    }
}

fn hidden(place: &Place) -> Limit {
    let reason = "the process that listens cannot be seen: run socklife as root (sudo)".to_owned();
    Limit {
        listener: Some(place.address),
        allows: Allows::Unknown(reason),
        ..limit(
            "rlimit_nofile_soft",
            format!("RLIMIT_NOFILE for {}", place.address),
            "/proc/*/fd",
        )
    }
}

/// One about which nothing is known yet.
fn limit(id: &'static str, name: String, at: &str) -> Limit {
    Limit {
        id,
        name,
        process: None,
        listener: None,
        allows: Allows::Any,
        value: None,
        used: None,
        unit: Unit::Things,
        each: None,
        at: at.to_owned(),
        remedy: String::new(),
    }
}

impl Limit {
    /// With the value, its use, what each connection takes, and how many connections there are.
    fn counted(mut self, value: &Reading<u64>, used: &Reading<u64>, each: Result<u64, String>, now: u64) -> Self {
        self.value = value.known().copied().map(u128::from);
        self.used = used.known().copied();
        self.each = each.as_ref().ok().copied();
        self.allows = match (&value.value, &used.value, &each) {
            // u64::MAX is how an rlimit says that it is none.
            (Ok(u64::MAX), _, _) => {
                self.value = None;
                Allows::Any
            }
            (Ok(value), Ok(used), Ok(each)) => Allows::Connections(room((*value).into(), *used, *each, now)),
            (Err(reason), _, _) => Allows::Unknown(reason.clone()),
            (_, Err(reason), _) => Allows::Unknown(format!("{}: {reason}", used.at)),
            (_, _, Err(reason)) => Allows::Unknown(reason.clone()),
        };
        self
    }

    fn remedied(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    fn of(mut self, process: usize) -> Self {
        self.process = Some(process);
        self
    }

    /// As long as there is room for a moment's few.
    fn any_if_room(mut self) -> Self {
        if matches!(self.allows, Allows::Connections(count) if count > 0) {
            self.allows = Allows::Any;
        }
        self.each = None;
        self
    }
}

impl Subject<'_> {
    fn held(&self, of: impl Fn(&Place) -> bool) -> u64 {
        let places = self.places.iter().filter(|place| of(place));
        places.filter_map(|place| place.held).fold(0, u64::saturating_add)
    }

    /// Connections of a process that have a descriptor.
    fn held_by(&self, index: usize) -> u64 {
        self.held(|place| place.process == Some(index))
    }

    /// Of a process: RLIMIT_NOFILE, and how far it can be raised.
    fn descriptors(&self, index: usize) -> Vec<Limit> {
        let process = &self.processes[index];
        // One that does not listen yet needs a descriptor for each listener.
        let to_come = self
            .places
            .iter()
            .filter(|place| place.process == Some(index) && place.connections.is_none() && place.address.port() != 0)
            .count();
        let to_come = match u64::try_from(to_come).unwrap_or(u64::MAX) {
            0 => u64::from(process.own),
            count => count,
        };
        let mut used = process.descriptors.clone();
        used.value = used.value.map(|used| used.saturating_add(to_come));
        let rlimit = |pick: fn(&Rlimit) -> u64| Reading {
            value: process.nofile.value.as_ref().map(pick).map_err(Clone::clone),
            at: process.nofile.at.clone(),
        };
        let places = self.places.iter().filter(|place| place.process == Some(index));
        let now = places.filter_map(|place| place.own).fold(0, u64::saturating_add);
        let row = |id, name: &str, value: &Reading<u64>, remedy: String| {
            let row = limit(id, name.to_owned(), &value.at).of(index).remedied(remedy);
            let row = row.counted(value, &used, Ok(1), now);
            let row = Limit {
                // What is open, not what will be.
                used: process.descriptors.known().copied(),
                ..row
            };
            // The parent holds a connection until it has forked.
            if self.model == Model::Fork {
                row.any_if_room()
            } else {
                row
            }
        };
        let raise = if process.own {
            "`ulimit -n N`, or LimitNOFILE=N in its systemd unit".to_owned()
        } else {
            format!(
                "`prlimit --pid {} --nofile=N:N`, or LimitNOFILE=N in its systemd unit",
                process.pid
            )
        };
        vec![
            row(
                "rlimit_nofile_soft",
                "RLIMIT_NOFILE (soft)",
                &rlimit(|limit| limit.soft),
                raise.clone(),
            ),
            row(
                "rlimit_nofile_hard",
                "RLIMIT_NOFILE (hard)",
                &rlimit(|limit| limit.hard),
                raise,
            ),
            row(
                "nr_open",
                "fs.nr_open",
                &self.host.nr_open,
                "`sysctl fs.nr_open=N`, and then RLIMIT_NOFILE".to_owned(),
            ),
        ]
    }

    /// Of a process: its user's tasks and its control group's, and the mappings of its threads.
    fn tasks(&self, index: usize) -> Vec<Limit> {
        if self.model == Model::Event {
            return Vec::new();
        }
        let process = &self.processes[index];
        let now = self.held_by(index);
        let mut limits = Vec::new();
        if let Some(used) = &process.tasks_of_user {
            let value = Reading {
                value: process
                    .nproc
                    .value
                    .as_ref()
                    .map(|limit| limit.soft)
                    .map_err(Clone::clone),
                at: process.nproc.at.clone(),
            };
            let row = limit("rlimit_nproc", "RLIMIT_NPROC (soft)".to_owned(), &value.at)
                .of(index)
                .counted(&value, used, Ok(1), now)
                .remedied("`ulimit -u N`, or LimitNPROC=N in its systemd unit");
            limits.push(if process.beyond_nproc {
                Limit {
                    name: "RLIMIT_NPROC (not for root)".to_owned(),
                    allows: Allows::Any,
                    each: None,
                    ..row
                }
            } else {
                row
            });
        }
        if let Some(quota) = &process.pids {
            let (value, used) = split(quota);
            limits.push(
                limit("cgroup_pids_max", "pids.max of the cgroup".to_owned(), &value.at)
                    .of(index)
                    .counted(&value, &used, Ok(1), now)
                    .remedied("TasksMax=N in its systemd unit, or a larger number in that file"),
            );
        }
        if let Some(task) = self.memory.task.as_ref().filter(|_| self.model == Model::Thread) {
            // How many mappings there are now is not asked: there are few beside those of the threads.
            let none = Reading::new(0, "");
            let each = task.value.clone().map(|task| task.mappings);
            if each != Ok(0) {
                limits.push(
                    limit(
                        "max_map_count",
                        "vm.max_map_count".to_owned(),
                        &self.host.max_map_count.at,
                    )
                    .of(index)
                    .counted(&self.host.max_map_count, &none, each, 0)
                    .remedied("`sysctl vm.max_map_count=N`"),
                );
                if let Some(row) = limits.last_mut() {
                    row.used = None;
                }
            }
        }
        limits
    }

    fn cgroup_memory(&self, index: usize) -> Option<Limit> {
        let (value, used) = split(self.processes[index].memory.as_ref()?);
        let row = limit("cgroup_memory_max", "memory.max of the cgroup".to_owned(), &value.at)
            .of(index)
            .counted(&value, &used, self.memory.each(), self.held_by(index))
            .remedied("MemoryMax=N in its systemd unit, or a larger number in that file");
        Some(Limit {
            unit: Unit::Bytes,
            ..row
        })
    }

    fn of_the_host(&self) -> Vec<Limit> {
        let host = self.host;
        let held = self.held(|_| true);
        let mut limits = Vec::new();
        let files = limit("file_max", "fs.file-max".to_owned(), &host.file_max.at)
            .counted(&host.file_max, &host.files, Ok(1), held)
            .remedied("`sysctl fs.file-max=N`");
        // With CAP_SYS_ADMIN one may open more.
        limits.push(
            if !self.processes.is_empty() && self.processes.iter().all(|process| process.beyond_file_max) {
                Limit {
                    name: "fs.file-max (not for root)".to_owned(),
                    allows: Allows::Any,
                    each: None,
                    ..files
                }
            } else {
                files
            },
        );
        if self.model != Model::Event {
            for (id, name, value) in [
                ("pid_max", "kernel.pid_max", &host.pid_max),
                ("threads_max", "kernel.threads-max", &host.threads_max),
            ] {
                limits.push(
                    limit(id, name.to_owned(), &value.at)
                        .counted(value, &host.tasks, Ok(1), held)
                        .remedied(format!("`sysctl {name}=N`")),
                );
            }
        }
        if let Some(conntrack) = &host.conntrack {
            let now = self.places.iter().filter_map(|place| place.connections).sum();
            limits.push(
                limit("nf_conntrack_max", "nf_conntrack_max".to_owned(), &conntrack.max.at)
                    .counted(&conntrack.max, &conntrack.count, Ok(1), now)
                    .remedied("`sysctl net.netfilter.nf_conntrack_max=N`, or a NOTRACK rule for this port"),
            );
        }
        let memory = &host.memory;
        let part = |pick: fn(&super::host::Memory) -> u64| Reading {
            value: memory.value.as_ref().map(pick).map_err(Clone::clone),
            at: memory.at.clone(),
        };
        let total = part(|memory| memory.total);
        let used = part(|memory| memory.total.saturating_sub(memory.available));
        let row = limit("memory", "memory".to_owned(), &memory.at)
            .counted(&total, &used, self.memory.each(), held)
            .remedied("more memory, or less of it for each connection");
        limits.push(Limit {
            unit: Unit::Bytes,
            ..row
        });
        limits
    }
}

fn split(quota: &Reading<Quota>) -> (Reading<u64>, Reading<u64>) {
    let part = |pick: fn(&Quota) -> u64| Reading {
        value: quota.value.as_ref().map(pick).map_err(Clone::clone),
        at: quota.at.clone(),
    };
    (part(|quota| quota.max), part(|quota| quota.used))
}

#[cfg(test)]
mod tests {
    use super::{Allows, Limit, Place, Subject, all, first, room};
    use crate::capacity::{
        Model,
        clients::Population,
        host::Host,
        memory::{Memory, Task},
        process::Process,
        reading::{Reading, fixture::Fixture},
    };

    const HOST: &[(&str, &str)] = &[
        ("proc/sys/fs/file-max", "100003\n"),
        ("proc/sys/fs/file-nr", "1009\t0\t100003\n"),
        ("proc/sys/fs/nr_open", "65537\n"),
        ("proc/sys/kernel/pid_max", "32771\n"),
        ("proc/sys/kernel/threads-max", "64007\n"),
        ("proc/sys/vm/max_map_count", "65537\n"),
        ("proc/loadavg", "0.54 0.47 0.31 1/83 29796\n"),
        ("proc/meminfo", "MemTotal:  16411 kB\nMemAvailable:  7919 kB\n"),
        (
            "proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        ),
        ("sys/fs/cgroup/a/pids.max", "211\n"),
        ("sys/fs/cgroup/a/pids.current", "13\n"),
        ("sys/fs/cgroup/a/memory.max", "1000003\n"),
        ("sys/fs/cgroup/a/memory.current", "600011\n"),
        ("proc/41/cgroup", "0::/a\n"),
        (
            "proc/41/limits",
            "Max processes             127                  131                  processes \n\
             Max open files            1021                 4099                 files     \n",
        ),
        (
            "proc/41/status",
            "Uid:\t33\t33\t33\t33\nThreads:\t11\nCapEff:\t0000000000000000\n",
        ),
    ];

    const DESCRIPTORS: [(&str, &str); 11] = [
        ("proc/41/fd/0", ""),
        ("proc/41/fd/1", ""),
        ("proc/41/fd/2", ""),
        ("proc/41/fd/3", ""),
        ("proc/41/fd/4", ""),
        ("proc/41/fd/5", ""),
        ("proc/41/fd/6", ""),
        ("proc/41/fd/7", ""),
        ("proc/41/fd/8", ""),
        ("proc/41/fd/9", ""),
        ("proc/41/fd/10", ""),
    ];

    /// A listener with seven connections, five of which are among the eleven descriptors of process 41.
    fn limits(model: Model, files: &[(&str, &str)]) -> Vec<Limit> {
        let fixture = Fixture::new(&[HOST, files].concat());
        let place = Place {
            address: "0.0.0.0:80".parse().expect("an address"),
            population: Population {
                remote: 3,
                ..Population::default()
            },
            process: Some(0),
            connections: Some(7),
            held: Some(7),
            own: Some(5),
        };
        let task = Task {
            bytes: 7919,
            mappings: 2,
        };
        all(&Subject {
            model,
            host: &Host::read(&fixture.root),
            processes: &[Process::read(&fixture.root, 41, false, model)],
            places: &[place],
            memory: &Memory {
                socket: Reading::new(3001, "measured"),
                task: (model != Model::Event).then(|| Reading::new(task, "measured")),
            },
        })
    }

    fn shown(limits: &[Limit]) -> Vec<(&'static str, Option<u128>)> {
        let count = |limit: &Limit| match limit.allows {
            Allows::Connections(count) => Some(count),
            Allows::Any | Allows::Unknown(_) => None,
        };
        limits.iter().map(|limit| (limit.id, count(limit))).collect()
    }

    #[test]
    fn room_is_what_is_there_and_what_fits() {
        assert_eq!(room(1021, 11, 1, 7), 1017);
        assert_eq!(room(1021, 11, 3, 2), 336 + 2);
        assert_eq!(room(1021, 11, 3, 7), 336 + 3, "no more of them are in what is used");
        assert_eq!(room(1021, 0, 1, 7), 1021);
        assert_eq!(room(11, 1021, 1, 7), 7, "over the limit already");
        assert_eq!(room(u128::MAX, 0, 0, u64::MAX), u128::MAX, "and no panic");
    }

    #[test]
    fn an_event_loop_is_limited_by_descriptors_and_memory() {
        let limits = limits(Model::Event, &DESCRIPTORS);
        assert_eq!(
            shown(&limits),
            [
                ("cgroup_memory_max", Some((1_000_003 - 600_011) / 3001 + 7)),
                ("rlimit_nofile_soft", Some(1021 - 11 + 5)),
                ("memory", Some(7919 * 1024 / 3001 + 7)),
                ("rlimit_nofile_hard", Some(4099 - 11 + 5)),
                ("nr_open", Some(65_537 - 11 + 5)),
                ("file_max", Some(100_003 - 1009 + 7)),
                ("four_tuples", Some(3 * 65_535)),
            ]
        );
        let (limit, count) = first(&limits).expect("one binds");
        assert_eq!((limit.id, count, limit.process), ("cgroup_memory_max", 140, Some(0)));
        assert_eq!(limit.at, "/sys/fs/cgroup/a/memory.max");
    }

    #[test]
    fn a_process_for_each_connection_is_limited_by_tasks() {
        let limits = limits(Model::Fork, &DESCRIPTORS);
        let shown = shown(&limits);
        assert_eq!(
            shown[..4],
            [
                ("cgroup_memory_max", Some(399_992 / 10_920 + 7)),
                ("rlimit_nproc", Some(127 - 11 + 7)),
                ("cgroup_pids_max", Some(211 - 13 + 7)),
                ("memory", Some(7919 * 1024 / 10_920 + 7)),
            ]
        );
        assert!(shown.contains(&("pid_max", Some(32_771 - 83 + 7))));
        assert!(shown.contains(&("threads_max", Some(64_007 - 83 + 7))));
        // The parent has closed its copy: it needs room for one at a time.
        let nofile = limits.iter().find(|limit| limit.id == "rlimit_nofile_soft");
        assert_eq!(nofile.map(|limit| &limit.allows), Some(&Allows::Any));
    }

    #[test]
    fn threads_need_descriptors_tasks_and_mappings() {
        let shown = shown(&limits(Model::Thread, &DESCRIPTORS));
        assert!(shown.contains(&("max_map_count", Some(65_537 / 2))));
        assert!(shown.contains(&("rlimit_nofile_soft", Some(1015))));
        assert!(shown.contains(&("rlimit_nproc", Some(123))));
    }

    #[test]
    fn what_is_unknown_stands_last_and_binds_nothing() {
        let limits = limits(Model::Event, &[]);
        let unknown: Vec<_> = limits.iter().skip(limits.len() - 3).map(|limit| limit.id).collect();
        assert_eq!(unknown, ["rlimit_nofile_soft", "rlimit_nofile_hard", "nr_open"]);
        let last = limits.last().expect("a limit");
        assert!(matches!(&last.allows, Allows::Unknown(reason) if reason.starts_with("/proc/41/fd: ")));
        assert_eq!(last.value, Some(65_537), "the limit is known, its use is not");
        assert!(first(&[]).is_none());
    }
}
