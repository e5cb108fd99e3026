//! `cargo xtask rungs`: writes tests/rungs.txt, which rung each kernel takes in each class.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::{
    build_ebpf, cache,
    integration::{self, Choice},
    kernels, output, qemu,
    toolchain::Choice as Compiler,
    workspace,
};

const FILE: &str = "tests/rungs.txt";
const HEAD: &str = "\
# Which rung each part of a socket's life is seen by: row | class | kernels | rung.
# Made by `cargo xtask rungs`; look at what it changes. `doctor` of tests/src/cases/rungs.rs goes by it.
";

/// Runs the task: asks each kernel in a VM.
pub fn run() -> Result<()> {
    qemu::provision()?;
    let content = integration::build(build_ebpf::check(Compiler::Auto)?)?;
    let choice = Choice {
        arguments: vec!["::doctor".to_owned()],
        environment: vec!["SOCKLIFE_RUNGS=1".to_owned()],
        ..Choice::default()
    };
    // By row, class and rung: the kernels, oldest first.
    let mut found: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for series in kernels::SERIES {
        let kernel = kernels::provision(series)?;
        let mut lines = Vec::new();
        let run = integration::in_vm(&kernel, &content, &choice, |line| {
            if let Some((_, rung)) = line.split_once("rung: ") {
                lines.push(rung.to_owned());
            } else {
                output::line(format!("{series} | {line}"));
            }
        })?;
        run.outcome?;
        ensure!(!lines.is_empty(), "{series} told no rung");
        for line in lines {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [row, class, kernel, rung] = parts[..] else {
                anyhow::bail!("{series} told {line}");
            };
            found
                .entry((row.to_owned(), class.to_owned(), rung.to_owned()))
                .or_default()
                .push(kernel.to_owned());
        }
    }
    let mut text = HEAD.to_owned();
    for ((row, class, rung), kernels) in found {
        text += &format!("{row} | {class} | {} | {rung}\n", kernels.join(" "));
    }
    cache::write(&workspace::root().join(FILE), text.as_bytes())?;
    output::line(FILE);
    Ok(())
}
