//! Tables in docs/kernels.md that the tasks go by: of trials, by kernel.
//!
//! A table stands between `<!-- name -->` and `<!-- /name -->` and has the columns kernel, trials and why. A kernel is a
//! series, `native`, `native-locked` (this machine where it is locked down) or `*`, or several with commas between; trials
//! are names in which `*` stands for anything, with commas between; `!` before one leaves it out.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// Where the tables are.
pub const FILE: &str = "docs/kernels.md";

/// The rows of a table.
#[derive(Debug)]
pub struct DocTable(Vec<Row>);

#[derive(Debug)]
struct Row {
    kernel: String,
    trials: String,
}

impl DocTable {
    /// Reads the table of this name.
    pub fn load(name: &str) -> Result<Self> {
        let path = workspace::root().join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(name, &text).with_context(|| format!("cannot read the table {name} in {FILE}"))
    }

    /// Whether a row of a kernel that has these names has this trial.
    pub fn has(&self, kernels: &[&str], trial: &str) -> bool {
        let (mut named, mut left_out) = (false, false);
        for row in self.0.iter().filter(|row| row.is_of(kernels)) {
            match row.trials.strip_prefix('!') {
                Some(pattern) => left_out |= glob(pattern, trial),
                None => named |= glob(&row.trials, trial),
            }
        }
        named && !left_out
    }

    /// Whether there is a row of a kernel that has these names.
    pub fn knows(&self, kernels: &[&str]) -> bool {
        self.0.iter().any(|row| row.is_of(kernels))
    }

    /// Reads the table of this name in a text.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
        let table = text
            .split_once(&begin)
            .and_then(|(_, rest)| rest.split_once(&end))
            .map(|(table, _)| table)
            .with_context(|| format!("there is no table between {begin} and {end}"))?;
        let mut rows = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let header = rows.next().map(cells).unwrap_or_default();
        ensure!(
            header == ["kernel", "trials", "why"],
            "the table's header is not | kernel | trials | why |"
        );
        let mut all = Vec::new();
        // The line under the header.
        for line in rows.skip(1) {
            match cells(line).as_slice() {
                [kernels, trials, why] if !why.is_empty() => {
                    for kernel in words(kernels) {
                        all.extend(words(trials).map(|trials| Row {
                            kernel: kernel.clone(),
                            trials,
                        }));
                    }
                }
                _ => bail!("this row needs a kernel, trials and a reason: {line}"),
            }
        }
        Ok(Self(all))
    }
}

impl Row {
    fn is_of(&self, kernels: &[&str]) -> bool {
        self.kernel == "*" || kernels.contains(&self.kernel.as_str())
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

fn words(cell: &str) -> impl Iterator<Item = String> {
    cell.split(',').map(|word| word.trim().trim_matches('`').to_owned())
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
        | 5.10, 5.15 | `fentry::late_*`, `any::x` | the hook is younger |\n\
        | `*` | any::black_hole | needs a network |\n\
        <!-- /allowed-skips -->\n| 6.1 | * | not in the table |\n";

    fn table(text: &str) -> Result<DocTable> {
        DocTable::parse("allowed-skips", text)
    }

    #[test]
    fn rows_name_kernels_and_trials() {
        let table = table(TEXT).expect("a table");
        assert!(table.has(&["native", "native-locked"], "kprobe::a"));
        assert!(!table.has(&["native"], "kprobe::a"));
        assert!(!table.has(&["native-locked"], "fentry::a"));
        assert!(table.has(&["5.10"], "fentry::late_a"));
        assert!(table.has(&["5.15"], "fentry::late_a"));
        assert!(table.has(&["5.15"], "any::x"));
        assert!(!table.has(&["5.10"], "fentry::a"));
        assert!(table.has(&["6.1"], "any::black_hole"));
        assert!(!table.has(&["6.1"], "any::a"));
    }

    #[test]
    fn what_is_left_out_is_left_out_whichever_row_names_it() {
        let table = table(&TEXT.replace(
            "| native-locked | `kprobe::*`",
            "| native-locked | `kprobe::*`, `!*::filters`",
        ));
        let table = table.expect("a table");
        assert!(table.has(&["native-locked"], "kprobe::a"));
        assert!(!table.has(&["native-locked"], "kprobe::filters"));
    }

    #[test]
    fn a_row_without_reason_is_an_error() {
        let text = TEXT.replace("no kprobes", "");
        assert!(table(&text).is_err());
        assert!(table("no table").is_err());
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("*", ""));
        assert!(glob("a*c", "abbc"));
        assert!(!glob("a*c", "abb"));
        assert!(glob("*::x", "fentry::x"));
    }
}
