//! What the limits of a process are (`getrlimit(2)`, by `/proc/PID/limits`), and what it uses of them.

use std::fs;

use super::{
    Model,
    cgroup::{self, Quota},
    reading::{Reading, Root, field, number, why},
};
use crate::holders;

/// A process.
#[derive(Clone)]
pub struct Process {
    /// Thread group.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub comm: [u8; 16],
    /// This process of ours, which stands for whatever is started from where it was.
    pub own: bool,
    /// Not bound by RLIMIT_NPROC (`copy_process()` in `kernel/fork.c`).
    pub beyond_nproc: bool,
    /// Not bound by fs.file-max (`alloc_empty_file()` in `fs/file_table.c`).
    pub beyond_file_max: bool,
    /// RLIMIT_NOFILE.
    pub nofile: Reading<Rlimit>,
    /// Descriptors that are open.
    pub descriptors: Reading<u64>,
    /// RLIMIT_NPROC.
    pub nproc: Reading<Rlimit>,
    /// Tasks of its user, which is what RLIMIT_NPROC counts; only where tasks are asked about.
    pub tasks_of_user: Option<Reading<u64>>,
    /// `pids.max` of its control group.
    pub pids: Option<Reading<Quota>>,
    /// `memory.max` of its control group.
    pub memory: Option<Reading<Quota>>,
}

/// A limit of a process; `u64::MAX` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What binds.
    pub soft: u64,
    /// Up to where the process may raise it.
    pub hard: u64,
}

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

impl Process {
    /// Reads it; `own` says that it is this one.
    pub fn read(root: &Root, pid: u32, own: bool, model: Model) -> Self {
        let folder = if own {
            "/proc/self".to_owned()
        } else {
            format!("/proc/{pid}")
        };
        let limits = |name: &'static str| root.find(&format!("{folder}/limits"), move |text| rlimit(text, name));
        let status = root.text(&format!("{folder}/status")).unwrap_or_default();
        // Capabilities of another user namespace do not count here.
        let initial = root
            .text(&format!("{folder}/uid_map"))
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        let uid = number::<u32>(&status, "Uid:");
        let capabilities = field(&status, "CapEff:")
            .and_then(|mut words| u64::from_str_radix(words.next()?, 16).ok())
            .filter(|_| initial)
            .unwrap_or(0);
        Self {
            pid,
            comm: holders::comm(&root.place(&folder)),
            own,
            beyond_nproc: (initial && uid == Some(0)) || capabilities & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0,
            beyond_file_max: capabilities & CAP_SYS_ADMIN != 0,
            nofile: limits("Max open files"),
            descriptors: descriptors(root, &folder, own),
            nproc: limits("Max processes"),
            tasks_of_user: (model != Model::Event).then(|| tasks_of(root, uid)),
            pids: cgroup::tightest(root, &folder, cgroup::PIDS),
            memory: cgroup::tightest(root, &folder, cgroup::MEMORY),
        }
    }
}

/// `Max open files            1024                 524288               files`
fn rlimit(text: &str, name: &str) -> Option<Rlimit> {
    let mut words = field(text, name)?;
    let mut next = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some(Rlimit {
        soft: next()?,
        hard: next()?,
    })
}

fn descriptors(root: &Root, folder: &str, own: bool) -> Reading<u64> {
    let at = format!("{folder}/fd");
    match fs::read_dir(root.place(&at)) {
        Ok(entries) => {
            let count = u64::try_from(entries.count()).unwrap_or(u64::MAX);
            // Ours has the one that is being read.
            Reading::new(count.saturating_sub(u64::from(own)), &at)
        }
        Err(error) => Reading::unknown(why(&error), &at),
    }
}

/// Threads of all processes of a user.
fn tasks_of(root: &Root, uid: Option<u32>) -> Reading<u64> {
    let at = "/proc/*/status";
    let Some(uid) = uid else {
        return Reading::unknown("whose process it is cannot be read".to_owned(), at);
    };
    let entries = match fs::read_dir(root.place("/proc")) {
        Ok(entries) => entries,
        Err(error) => return Reading::unknown(why(&error), at),
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let tasks = pids.filter_map(|pid| {
        let status = root.text(&format!("/proc/{pid}/status")).ok()?;
        (number::<u32>(&status, "Uid:")? == uid).then(|| number::<u64>(&status, "Threads:"))?
    });
    Reading::new(tasks.sum(), at)
}

#[cfg(test)]
mod tests {
    use super::{Process, Rlimit};
    use crate::capacity::{Model, reading::fixture::Fixture};

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max processes             1009                 unlimited            processes \n\
        Max open files            1021                 524287               files     \n";

    #[test]
    fn a_process_is_read_from_its_folder() {
        let status = "Name:\tnginx\nUid:\t33\t0\t0\t0\nThreads:\t3\nCapEff:\t0000000000200000\n";
        let fixture = Fixture::new(&[
            ("proc/41/limits", LIMITS),
            ("proc/41/comm", "nginx\n"),
            ("proc/41/status", status),
            ("proc/41/uid_map", "         0          0 4294967295\n"),
            ("proc/41/fd/0", ""),
            ("proc/41/fd/1", ""),
            ("proc/43/status", "Uid:\t33\t33\t33\t33\nThreads:\t11\n"),
            ("proc/47/status", "Uid:\t34\t33\t33\t33\nThreads:\t13\n"),
            ("proc/net/tcp", ""),
        ]);
        let process = Process::read(&fixture.root, 41, false, Model::Fork);
        assert_eq!(&process.comm[..6], b"nginx\0");
        assert_eq!(process.nofile.at, "/proc/41/limits");
        assert_eq!(
            process.nofile.value,
            Ok(Rlimit {
                soft: 1021,
                hard: 524_287
            })
        );
        assert_eq!(
            process.nproc.value,
            Ok(Rlimit {
                soft: 1009,
                hard: u64::MAX
            })
        );
        assert_eq!(process.descriptors.value, Ok(2));
        assert_eq!(process.tasks_of_user.expect("asked for").value, Ok(14));
        assert!(process.beyond_nproc && process.beyond_file_max, "CAP_SYS_ADMIN");
        assert_eq!((process.pids, process.memory), (None, None));
        let nobody = Process::read(&fixture.root, 43, false, Model::Event);
        assert!(nobody.nofile.value.is_err() && nobody.descriptors.value.is_err());
        assert!(!nobody.beyond_nproc && nobody.tasks_of_user.is_none());
    }
}
