//! The running kernel: its BTF is read once and parsed once, for whoever loads programs.

use std::fs;

use anyhow::{Context as _, Result};

use super::{
    attach_ids,
    btf::Btf,
    hooks::{At, TABLE},
    layout::Layout,
};

/// Where the running kernel keeps its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What must be known of a kernel to load programs into it.
pub struct Kernel {
    /// What the programs must know of it.
    pub(super) layout: Layout,
    /// Where typed programs attach, in the form that aya takes.
    pub(super) targets: aya::Btf,
}

impl Kernel {
    /// The one that runs.
    ///
    /// # Errors
    ///
    /// When it has no BTF, or lacks something that no hook can do without.
    pub fn running() -> Result<Self> {
        let data = fs::read(VMLINUX).with_context(|| {
            format!(
                "cannot read {VMLINUX}: socklife needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, and sysfs mounted at /sys"
            )
        })?;
        Self::of(data).with_context(|| format!("cannot use {VMLINUX}"))
    }

    /// The one that this BTF describes.
    pub fn of(data: Vec<u8>) -> Result<Self> {
        let targets = Targets::of_table();
        let mut names = Layout::names();
        names.functions.extend(targets.functions.iter().map(String::as_str));
        names.typedefs.extend(targets.typedefs.iter().map(String::as_str));
        let btf = Btf::parse(data, &names)?;
        let functions = targets
            .functions
            .iter()
            .filter_map(|name| Some((btf.function(name)?, name.as_str())));
        let typedefs = targets
            .typedefs
            .iter()
            .filter_map(|name| Some((btf.typedef(name)?, name.as_str())));
        Ok(Self {
            layout: Layout::of(&btf)?,
            targets: attach_ids::with(functions, typedefs)?,
        })
    }
}

/// The types whose numbers the kernel wants to hear when a typed program is loaded.
#[derive(Default)]
struct Targets {
    functions: Vec<String>,
    typedefs: Vec<String>,
}

impl Targets {
    fn of_table() -> Self {
        let mut targets = Self::default();
        // `sockets` runs its iterators by itself.
        targets.note(At::Iter("tcp"));
        for hook in TABLE.iter().flat_map(|row| row.rungs).flat_map(|rung| rung.hooks) {
            targets.note(hook.at);
        }
        for names in [&mut targets.functions, &mut targets.typedefs] {
            names.sort_unstable();
            names.dedup();
        }
        targets
    }

    fn note(&mut self, at: At) {
        match at {
            At::Fentry(function) | At::Fexit(function) => self.functions.push(function.to_owned()),
            At::TpBtf(name) | At::TpBtfNamed(name, _) => self.typedefs.push(format!("btf_trace_{name}")),
            At::Iter(target) => self.functions.push(format!("bpf_iter_{target}")),
            At::Kprobe(_)
            | At::Kretprobe(_)
            | At::RawTp(_)
            | At::RawTpNamed(..)
            | At::Tracepoint(..)
            | At::TracepointNamed(..)
            | At::SockOps
            | At::SockCreate
            | At::PostBind4
            | At::PostBind6
            | At::SockRelease => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Targets;

    #[test]
    fn each_target_is_looked_for_once() {
        let targets = Targets::of_table();
        for names in [&targets.functions, &targets.typedefs] {
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        }
        assert!(targets.functions.contains(&"bpf_iter_tcp".to_owned()));
        assert!(targets.functions.contains(&"tcp_connect".to_owned()));
        assert!(targets.typedefs.contains(&"btf_trace_inet_sock_set_state".to_owned()));
    }
}
