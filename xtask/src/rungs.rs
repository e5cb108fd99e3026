//! `cargo xtask rungs`: writes tests/rungs.txt, which rung each kernel takes in each class.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, bail, ensure};

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

/// Arguments of `rungs`.
#[derive(clap::Args)]
pub struct Args {
    /// Ask only kernels of these series; what the file says of others stays.
    series: Vec<String>,
}

/// By row, class and rung: the kernels.
type Rungs = BTreeMap<(String, String, String), Vec<String>>;

/// Takes in a line of the file.
fn add(rungs: &mut Rungs, line: &str) -> Result<()> {
    let parts: Vec<&str> = line.split(" | ").collect();
    let [row, class, kernels, rung] = parts[..] else {
        bail!("no rung: {line}");
    };
    rungs
        .entry((row.to_owned(), class.to_owned(), rung.to_owned()))
        .or_default()
        .extend(kernels.split(' ').map(str::to_owned));
    Ok(())
}

/// Runs the task: asks each kernel in a VM.
pub fn run(args: &Args) -> Result<()> {
    let all: Vec<String> = kernels::SERIES.iter().map(|series| series.to_string()).collect();
    let asked = if args.series.is_empty() { &all } else { &args.series };
    qemu::provision()?;
    let content = integration::build(build_ebpf::check(Compiler::Auto)?)?;
    let choice = Choice {
        arguments: ["fentry::doctor", "kprobe::doctor", "tracepoint::doctor", "--exact"]
            .map(str::to_owned)
            .into(),
        environment: vec!["SOCKLIFE_RUNGS=1".to_owned()],
        ..Choice::default()
    };
    let file = workspace::root().join(FILE);
    let mut rungs = Rungs::new();
    for line in fs::read_to_string(&file).unwrap_or_default().lines() {
        if !line.starts_with('#') {
            add(&mut rungs, line)?;
        }
    }
    for kernels in rungs.values_mut() {
        kernels.retain(|kernel| !asked.contains(kernel));
    }
    for series in asked {
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
            add(&mut rungs, &line)?;
        }
    }
    let mut text = HEAD.to_owned();
    for ((row, class, rung), mut kernels) in rungs {
        kernels.sort_by_key(|kernel| all.iter().position(|series| series == kernel));
        if !kernels.is_empty() {
            text += &format!("{row} | {class} | {} | {rung}\n", kernels.join(" "));
        }
    }
    cache::write(&file, text.as_bytes())?;
    output::line(FILE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Rungs, add, kernels};

    #[test]
    fn the_file_has_every_row_of_each_kernel_in_each_class_once() {
        let mut rungs = Rungs::new();
        let lines = include_str!("../../tests/rungs.txt").lines();
        for line in lines.filter(|line| !line.starts_with('#')) {
            add(&mut rungs, line).expect("a rung");
        }
        let rows: BTreeSet<&str> = rungs.keys().map(|(row, ..)| row.as_str()).collect();
        assert!(!rows.is_empty());
        for series in kernels::SERIES {
            for class in ["fentry", "kprobe", "tracepoint"] {
                let of_it = rungs
                    .iter()
                    .filter(|((_, of, _), kernels)| of == class && kernels.iter().any(|kernel| kernel == series));
                let mut named: Vec<&str> = of_it.map(|((row, ..), _)| row.as_str()).collect();
                named.sort_unstable();
                assert_eq!(named, rows.iter().copied().collect::<Vec<_>>(), "{series}, {class}");
            }
        }
    }
}
