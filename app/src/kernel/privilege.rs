//! What this process may do, and giving up what it no longer needs.

use anyhow::{Context as _, Result, ensure};
use caps::{CapSet, Capability, CapsHashSet};

/// The capabilities that matter here.
#[derive(Clone, Debug)]
pub struct Privileges(CapsHashSet);

impl Privileges {
    /// Of this process.
    pub fn of_this_process() -> Result<Self> {
        let set = caps::read(None, CapSet::Effective).context("cannot read this process's capabilities")?;
        Ok(Self(set))
    }

    /// Loading programs, reading kernel memory with them, attaching them to cgroups.
    const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

    /// The needed capabilities that are not there. `CAP_SYS_ADMIN` stands for all of them.
    pub fn lacking(&self) -> Vec<Capability> {
        if self.0.contains(&Capability::CAP_SYS_ADMIN) {
            return Vec::new();
        }
        Self::NEEDED.into_iter().filter(|cap| !self.0.contains(cap)).collect()
    }

    /// Whether it has less than root has: what is refused may be for want of a right.
    pub fn are_few(&self) -> bool {
        !self.0.contains(&Capability::CAP_SYS_ADMIN)
    }

    /// An error with its remedy, unless this process may trace.
    pub fn check(&self) -> Result<()> {
        let lacking = self.lacking();
        let names: Vec<_> = lacking.iter().map(ToString::to_string).collect();
        ensure!(
            lacking.is_empty(),
            "not permitted: {} is missing; run socklife as root (sudo), or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
            names.join(", ")
        );
        Ok(())
    }
}

/// What it takes to see which descriptors a process of another user has.
pub const LOOK_AT_OTHERS: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Once everything is attached only the reading of counters needs a privilege, and what else the caller says. Nothing that
/// this process might run from here on gets one either.
pub fn drop_all_but_bpf(and: &[Capability]) -> Result<()> {
    // SAFETY: numbers only; the other arguments must be zero.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    ensure!(
        done == 0,
        "cannot set no_new_privs: {}",
        std::io::Error::last_os_error()
    );
    empty_bounding_set();
    let keep: CapsHashSet = caps::read(None, CapSet::Permitted)
        .context("cannot read this process's capabilities")?
        .into_iter()
        .filter(|cap| *cap == Capability::CAP_BPF || and.contains(cap))
        .collect();
    caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::clear(None, CapSet::Inheritable))
        .and_then(|()| caps::set(None, CapSet::Effective, &keep))
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep))
        .context("cannot give up capabilities")
}

/// It takes `CAP_SETPCAP`; who lacks that keeps the set, which is of no use with `no_new_privs`.
fn empty_bounding_set() {
    // The kernel says where they end: it may know more than we do.
    for capability in 0.. {
        // SAFETY: numbers only.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } {
            0 => {}
            1 => {
                // SAFETY: numbers only.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
            _ => return,
        }
    }
}
