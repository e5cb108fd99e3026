//! Which trials may be skipped where: the table in docs/kernels.md.
//!
//! The table stands between `<!-- allowed-skips -->` and `<!-- /allowed-skips -->` and has the
//! columns kernel, trials and why. A kernel is a series, `native`, `native-locked` (this machine
//! where it is locked down) or `*`, or several with commas between; trials are a name in which `*`
//! stands for anything.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

const BEGIN: &str = "<!-- allowed-skips -->";
const END: &str = "<!-- /allowed-skips -->";
const FILE: &str = "docs/kernels.md";

/// The rows of the table.
#[derive(Debug)]
pub struct AllowedSkips(Vec<Row>);

#[derive(Debug)]
struct Row {
    kernel: String,
    trials: String,
}

impl AllowedSkips {
    /// Reads the table.
    pub fn load() -> Result<Self> {
        let path = workspace::root().join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot read the skips in {FILE}"))
    }

    /// Whether this trial may be skipped on a kernel that has these names.
    pub fn allow(&self, kernels: &[&str], trial: &str) -> bool {
        self.0
            .iter()
            .any(|row| (row.kernel == "*" || kernels.contains(&row.kernel.as_str())) && glob(&row.trials, trial))
    }

    /// Reads the table in a text.
    pub fn parse(text: &str) -> Result<Self> {
        let table = text
            .split_once(BEGIN)
            .and_then(|(_, rest)| rest.split_once(END))
            .map(|(table, _)| table)
            .with_context(|| format!("there is no table between {BEGIN} and {END}"))?;
        let mut rows = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let header = rows.next().map(cells).unwrap_or_default();
        ensure!(
            header == ["kernel", "trials", "why"],
            "the table's header is not | kernel | trials | why |"
        );
        let mut allowed = Vec::new();
        // The line under the header.
        for line in rows.skip(1) {
            match cells(line).as_slice() {
                [kernel, trials, why] if !why.is_empty() => {
                    allowed.extend(kernel.split(',').map(|kernel| Row {
                        kernel: kernel.trim().to_owned(),
                        trials: trials.clone(),
                    }));
                }
                _ => bail!("this row needs a kernel, trials and a reason: {line}"),
            }
        }
        Ok(Self(allowed))
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

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().trim_matches('`').to_owned())
        .collect()
}

/// Whether `text` fits a pattern in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| glob(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Kernels\n<!-- allowed-skips -->\n\n\
        | kernel | trials | why |\n|---|---|---|\n\
        | native-locked | `kprobe::*` | no kprobes |\n\
        | 5.10, 5.15 | fentry::late_* | the hook is younger |\n\
        | `*` | any::black_hole | needs a network |\n\
        <!-- /allowed-skips -->\n| 6.1 | * | not in the table |\n";

    #[test]
    fn rows_name_kernels_and_trials() {
        let allowed = AllowedSkips::parse(TEXT).expect("a table");
        assert!(allowed.allow(&["native", "native-locked"], "kprobe::a"));
        assert!(!allowed.allow(&["native"], "kprobe::a"));
        assert!(!allowed.allow(&["native-locked"], "fentry::a"));
        assert!(allowed.allow(&["5.10"], "fentry::late_a"));
        assert!(allowed.allow(&["5.15"], "fentry::late_a"));
        assert!(!allowed.allow(&["5.10"], "fentry::a"));
        assert!(allowed.allow(&["6.1"], "any::black_hole"));
        assert!(!allowed.allow(&["6.1"], "any::a"));
    }

    #[test]
    fn a_row_without_reason_is_an_error() {
        let text = TEXT.replace("no kprobes", "");
        assert!(AllowedSkips::parse(&text).is_err());
        assert!(AllowedSkips::parse("no table").is_err());
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("*", ""));
        assert!(glob("a*c", "abbc"));
        assert!(!glob("a*c", "abb"));
        assert!(glob("*::x", "fentry::x"));
    }
}
