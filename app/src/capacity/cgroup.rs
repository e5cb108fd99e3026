//! What the control groups of a process leave it: `pids.max` and `memory.max` of its group and of each one above, in
//! version 2 (`Documentation/admin-guide/cgroup-v2.rst`) and in version 1.

use super::reading::{Reading, Root, number, why};

/// A limit of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// In tasks or bytes.
    pub max: u64,
    /// Of it in use. Page cache that nobody needs at once (`inactive_file`) does not count as such.
    pub used: u64,
}

/// A controller, with the names of its files.
#[derive(Clone, Copy)]
pub struct Controller {
    name: &'static str,
    /// Limit and use in version 2.
    v2: [&'static str; 2],
    /// The same in version 1.
    v1: [&'static str; 2],
    /// What is reclaimable is in `memory.stat` under this key, by version.
    reclaimable: Option<[&'static str; 2]>,
}

/// Tasks.
pub const PIDS: Controller = Controller {
    name: "pids",
    v2: ["pids.max", "pids.current"],
    v1: ["pids.max", "pids.current"],
    reclaimable: None,
};

/// Bytes; the kernel's for sockets and tasks are among them.
pub const MEMORY: Controller = Controller {
    name: "memory",
    v2: ["memory.max", "memory.current"],
    v1: ["memory.limit_in_bytes", "memory.usage_in_bytes"],
    reclaimable: Some(["inactive_file", "total_inactive_file"]),
};

/// In version 1 no limit is the largest number of whole pages (`PAGE_COUNTER_MAX`).
const NO_LIMIT: u64 = i64::MAX as u64 - 65_535;

/// The group that leaves least, of the process in this folder; none where no group limits it.
pub fn tightest(root: &Root, folder: &str, controller: Controller) -> Option<Reading<Quota>> {
    let path = format!("{folder}/cgroup");
    let groups = match root.text(&path) {
        Ok(groups) => groups,
        // A kernel without control groups.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Reading::unknown(why(&error), &path)),
    };
    let mounts = root.text("/proc/self/mountinfo").unwrap_or_default();
    let mut quotas = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|name| name == controller.name) {
            continue;
        }
        let Some(mount) = mount(&mounts, (!v2).then_some(controller.name)) else {
            continue;
        };
        for folder in mount.upwards(group) {
            quotas.extend(quota(root, &folder, controller, v2));
        }
    }
    // Unknown is looked at first: it may be the one that binds.
    quotas
        .into_iter()
        .min_by_key(|quota| quota.known().map(|quota| quota.max.saturating_sub(quota.used)))
}

/// The limit of one group; none where it has none.
fn quota(root: &Root, folder: &str, controller: Controller, v2: bool) -> Option<Reading<Quota>> {
    let [max, used] = if v2 { controller.v2 } else { controller.v1 };
    let at = format!("{folder}/{max}");
    let text = match root.text(&at) {
        Ok(text) => text,
        // The controller is not enabled here, or this is the root.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Reading::unknown(why(&error), &at)),
    };
    // `max` is no number.
    let max = text.trim().parse::<u64>().ok().filter(|max| *max < NO_LIMIT)?;
    let used = root.number(&format!("{folder}/{used}"));
    let used = match used.value {
        Ok(used) => used,
        Err(reason) => return Some(Reading::unknown(reason, &used.at)),
    };
    let reclaimable = controller.reclaimable.map_or(0, |keys| {
        let stat = root.text(&format!("{folder}/memory.stat")).unwrap_or_default();
        number(&stat, keys[usize::from(!v2)]).unwrap_or(0)
    });
    let used = used.saturating_sub(reclaimable);
    Some(Reading::new(Quota { max, used }, &at))
}

/// A mounted hierarchy.
struct Mount<'a> {
    /// The group that is mounted.
    root: &'a str,
    /// Where.
    point: &'a str,
}

impl Mount<'_> {
    /// The folder of a group, and of each group above it that the mount shows.
    fn upwards(&self, group: &str) -> Vec<String> {
        let below = if self.root == "/" {
            group
        } else {
            // A group outside of what is mounted: what is mounted is as near as one gets.
            group.strip_prefix(self.root).unwrap_or("")
        };
        let mut below = below.trim_end_matches('/');
        let mut folders = vec![format!("{}{below}", self.point)];
        while let Some((above, _)) = below.rsplit_once('/') {
            folders.push(format!("{}{above}", self.point));
            below = above;
        }
        folders
    }
}

/// The mount of a controller of version 1, or of version 2 (`proc_pid_mountinfo(5)`).
fn mount<'a>(mounts: &'a str, controller: Option<&str>) -> Option<Mount<'a>> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut filesystem = filesystem.split(' ');
        let fits = match (filesystem.next()?, controller) {
            ("cgroup2", None) => true,
            ("cgroup", Some(controller)) => filesystem.nth(1)?.split(',').any(|option| option == controller),
            _ => false,
        };
        fits.then_some(Mount { root, point })
    })
}

#[cfg(test)]
mod tests {
    use super::{MEMORY, PIDS, Quota, tightest};
    use crate::capacity::reading::fixture::Fixture;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let fixture = Fixture::new(&[
            ("proc/41/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/b/pids.max", "max\n"),
            ("sys/fs/cgroup/a/b/pids.current", "7\n"),
            ("sys/fs/cgroup/a/pids.max", "211\n"),
            ("sys/fs/cgroup/a/pids.current", "13\n"),
            ("sys/fs/cgroup/a/b/memory.max", "104857600\n"),
            ("sys/fs/cgroup/a/b/memory.current", "1000003\n"),
            ("sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 400009\n"),
        ]);
        let pids = tightest(&fixture.root, "/proc/41", PIDS).expect("a limit");
        assert_eq!(pids.at, "/sys/fs/cgroup/a/pids.max");
        assert_eq!(pids.value, Ok(Quota { max: 211, used: 13 }));
        let memory = tightest(&fixture.root, "/proc/41", MEMORY).expect("a limit");
        assert_eq!(
            memory.value,
            Ok(Quota {
                max: 104_857_600,
                used: 599_994
            })
        );
    }

    #[test]
    fn version_one_has_a_mount_for_each_controller() {
        let fixture = Fixture::new(&[
            ("proc/41/cgroup", "8:cpu,pids:/x/y\n4:memory:/x\n0::/\n"),
            (
                "proc/self/mountinfo",
                "1 2 0:3 / /c/cpu rw - cgroup cgroup rw,cpu,pids\n2 2 0:4 /x /c/memory rw shared:1 - cgroup cgroup rw,memory\n",
            ),
            ("c/cpu/x/y/pids.max", "101\n"),
            ("c/cpu/x/y/pids.current", "103\n"),
            ("c/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let pids = tightest(&fixture.root, "/proc/41", PIDS).expect("a limit");
        assert_eq!(pids.at, "/c/cpu/x/y/pids.max");
        assert_eq!(pids.value, Ok(Quota { max: 101, used: 103 }));
        assert_eq!(tightest(&fixture.root, "/proc/41", MEMORY), None, "that is no limit");
        assert_eq!(tightest(&fixture.root, "/proc/43", PIDS), None);
    }
}
