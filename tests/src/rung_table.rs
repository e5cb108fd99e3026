//! Which rung each part of a socket's life is seen by, on each kernel and in each class: `tests/rungs.txt`, made by
//! `cargo xtask rungs` and read by whoever changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Class, say};

/// `row | class | kernels | rung`, the kernels with spaces between.
const TABLE: &str = include_str!("../rungs.txt");

/// Set where the table is made: each rung is told instead of compared.
const MAKE: &str = "SOCKLIFE_RUNGS";

/// The series of this kernel, where it is one of those that the table has.
fn series() -> Option<String> {
    // On other machines a kernel of that series may be built otherwise.
    std::env::var_os("SOCKLIFE_VM")?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.');
    Some(format!("{}.{}", numbers.next()?, numbers.next()?))
}

/// The rows of a class on a kernel.
fn expected(class: Class, series: &str) -> BTreeMap<&'static str, &'static str> {
    let mut rows = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [row, of_class, kernels, rung] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("row | class | kernels | rung: {line}");
        };
        if of_class == class.name() && kernels.split(' ').any(|kernel| kernel == series) {
            assert!(rows.insert(row, rung).is_none(), "twice in the table: {line}");
        }
    }
    rows
}

/// Each row of a report takes the rung of the table; another is told with what the kernel says of the one expected.
pub fn check(class: Class, hooks: &[Value]) {
    let Some(series) = series() else { return };
    let text = |value: &Value| value.as_str().unwrap_or("(not seen)").to_owned();
    let taken: BTreeMap<String, String> = hooks
        .iter()
        .map(|row| (text(&row["name"]), text(&row["chosen"])))
        .collect();
    assert_eq!(taken.len(), hooks.len(), "names of rows are their own");
    if std::env::var_os(MAKE).is_some() {
        for (row, rung) in taken {
            say(&format!("rung: {row} | {} | {series} | {rung}", class.name()));
        }
        return;
    }
    let expected = expected(class, &series);
    if expected.is_empty() && !TABLE.lines().any(|line| line.contains(&format!(" {series} "))) {
        say(&format!("note: tests/rungs.txt has no kernel {series}"));
        return;
    }
    let rows: BTreeSet<&str> = taken
        .keys()
        .map(String::as_str)
        .chain(expected.keys().copied())
        .collect();
    let mut wrong = Vec::new();
    for row in rows {
        let (got, expected) = (taken.get(row).map(String::as_str), expected.get(row).copied());
        if got == expected {
            continue;
        }
        let refused = hooks.iter().find(|hook| hook["name"] == row).and_then(|hook| {
            let mut refused = hook["refused"].as_array()?.iter();
            refused.find(|refused| refused["hook"].as_str() == expected)
        });
        wrong.push(format!(
            "{row} ({}, {series}): expected {}, got {}{}",
            class.name(),
            expected.unwrap_or("no such row"),
            got.unwrap_or("no such row"),
            refused.map_or(String::new(), |refused| format!(
                "; the kernel refused the one expected: {}",
                refused["reason"]
            ))
        ));
    }
    assert!(
        wrong.is_empty(),
        "{}\n(if that is right: `cargo xtask rungs`, and look at what it changed)",
        wrong.join("\n")
    );
}
