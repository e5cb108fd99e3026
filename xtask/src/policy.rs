//! Which trials run where, and which may be skipped there: two tables in docs/kernels.md.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;

use crate::doc_table::DocTable;

/// What a kernel is to prove.
#[derive(Debug)]
pub struct Policy {
    /// Which trials run on a kernel; `None` for all.
    cells: Option<DocTable>,
    /// Which of them may be skipped.
    skips: DocTable,
}

impl Policy {
    /// Reads the tables; with `all` every trial runs on every kernel.
    pub fn load(all: bool) -> Result<Self> {
        Ok(Self {
            cells: (!all).then(|| DocTable::load("cells")).transpose()?,
            skips: DocTable::load("allowed-skips")?,
        })
    }

    /// The policy of these tables.
    #[cfg(test)]
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self {
            cells: Some(DocTable::parse("cells", text)?),
            skips: DocTable::parse("allowed-skips", text)?,
        })
    }

    /// Of these trials, those that run on a kernel that has these names. A kernel that the table does not know runs all.
    pub fn chosen(&self, kernels: &[&str], trials: &[String]) -> BTreeSet<String> {
        let cells = self.cells.as_ref().filter(|cells| cells.knows(kernels));
        trials
            .iter()
            .filter(|trial| cells.is_none_or(|cells| cells.has(kernels, trial)))
            .cloned()
            .collect()
    }

    /// Whether this trial may be skipped on a kernel that has these names.
    pub fn allows_skip(&self, kernels: &[&str], trial: &str) -> bool {
        self.skips.has(kernels, trial)
    }
}

/// The names under which docs/kernels.md may speak of this machine.
pub fn native_names() -> Vec<&'static str> {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let locked = lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]");
    let kprobes = Path::new("/sys/bus/event_source/devices/kprobe").exists();
    if locked || !kprobes {
        vec!["native", "native-locked"]
    } else {
        vec!["native"]
    }
}
