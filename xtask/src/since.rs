//! What a change can have touched: for the loop at the desk, on this machine's kernel alone.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{cmd, workspace};

/// Where the trials are, each with the module of its case.
const CASES: &str = "tests/src/cases.rs";

/// Files, by how their path begins, and what their trials' names contain; the first that fits counts. What stands in no
/// row may touch everything.
const TOUCHES: &[(&str, &[&str])] = &[
    ("docs/", &[]),
    (".ci/", &[]),
    ("xtask/", &[]),
    ("README.md", &[]),
    ("CONTRIBUTING.md", &[]),
    ("CHANGELOG.md", &[]),
    ("app/src/capacity", &["capacity"]),
    ("app/src/cli/capacity", &["capacity"]),
    ("app/src/view/capacity", &["capacity"]),
    ("app/src/server", &["serve", "handoff", "findings", "storm"]),
    ("app/src/cli/serve", &["serve", "handoff", "findings"]),
    ("app/src/cli/skb", &["skb_", "data_drops"]),
    ("app/src/model/segments", &["skb_"]),
    ("app/src/model/skbs", &["skb_allocs"]),
    ("app/src/model/dwell", &["sockets"]),
    ("app/src/cli/sockets", &["sockets"]),
    ("app/src/kernel/sockets", &["sockets"]),
    ("app/src/watch", &["sockets"]),
    ("app/src/cli/doctor", &["doctor", "rungs"]),
    ("app/src/scene", &["doctor", "rungs", "queues", "data"]),
    ("app/src/model/holders", &["handoff", "findings", "storm"]),
    ("app/src/stream/follow", &["handoff", "findings", "storm"]),
    ("app/src/cli/queues", &["queues"]),
    ("app/src/view/queues", &["queues"]),
];

/// What to run.
#[derive(Debug, Default, PartialEq)]
pub struct Touched {
    /// The packages whose unit tests run.
    pub packages: BTreeSet<&'static str>,
    /// Parts of the names of trials; `None` for all trials.
    trials: Option<BTreeSet<String>>,
}

impl Touched {
    /// By what changed since this revision, committed or not.
    pub fn since(revision: &str) -> Result<Self> {
        let git = |arguments: &[&str]| cmd::output(Command::new("git").args(arguments).current_dir(workspace::root()));
        let changed = git(&["diff", "--name-only", revision, "--"])?;
        let new = git(&["ls-files", "--others", "--exclude-standard"])?;
        let cases =
            fs::read_to_string(workspace::root().join(CASES)).with_context(|| format!("cannot read {CASES}"))?;
        Ok(Self::by(changed.lines().chain(new.lines()), &cases))
    }

    fn by<'a>(files: impl Iterator<Item = &'a str>, cases: &str) -> Self {
        let mut touched = Self {
            packages: BTreeSet::new(),
            trials: Some(BTreeSet::new()),
        };
        for file in files {
            if file.starts_with("xtask/") {
                touched.packages.insert("xtask");
            } else if file.starts_with("app/") || file.starts_with("app-ebpf/") {
                touched.packages.extend(["socklife", "socklife-ebpf"]);
            }
            match trials_of(file, cases) {
                Some(names) => touched
                    .trials
                    .iter_mut()
                    .for_each(|trials| trials.extend(names.clone())),
                None => touched.trials = None,
            }
        }
        touched
    }

    /// Whether it can have touched this trial.
    pub fn has(&self, trial: &str) -> bool {
        let Some(trials) = &self.trials else { return true };
        trials.iter().any(|part| trial.contains(part.as_str()))
    }
}

/// Parts of the names of the trials that a file can have touched; `None` for all.
fn trials_of(file: &str, cases: &str) -> Option<Vec<String>> {
    if let Some(module) = file.strip_prefix("tests/src/cases/") {
        let module = module.split(['/', '.']).next()?;
        let start = format!("{module}::");
        // ("name", module::function),
        let names = cases.lines().filter_map(|line| {
            let (name, case) = line.trim().strip_prefix("(\"")?.split_once("\", ")?;
            case.starts_with(&start).then(|| format!("::{name}"))
        });
        return Some(names.collect());
    }
    let (_, names) = TOUCHES.iter().find(|(start, _)| file.starts_with(start))?;
    Some(names.iter().map(|name| name.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &str = "    (\"mapped\", listen::mapped),\n    (\"refused\", connect::refused),\n";

    fn by(files: &[&str]) -> Touched {
        Touched::by(files.iter().copied(), CASES)
    }

    #[test]
    fn a_case_touches_its_own_trials() {
        let touched = by(&["tests/src/cases/listen.rs", "docs/kernels.md"]);
        assert!(touched.has("fentry::mapped") && !touched.has("fentry::refused") && touched.packages.is_empty());
    }

    #[test]
    fn what_nobody_knows_of_touches_everything() {
        assert!(by(&["app/src/event.rs"]).has("fentry::refused"));
        assert!(by(&["tests/src/harness/tracer.rs", "docs/a.md"]).has("fentry::refused"));
        let touched = by(&["app/src/capacity/limits.rs", "xtask/src/main.rs"]);
        assert!(touched.has("any::capacity_sysctls") && !touched.has("fentry::refused"));
        assert_eq!(touched.packages, ["socklife", "socklife-ebpf", "xtask"].into());
        assert!(!by(&[]).has("fentry::refused"));
    }
}
