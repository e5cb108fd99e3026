//! The root file system of a VM: the test binary as `/init`, the program under test, and the
//! libraries that both need.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::{cache, cmd, cpio::Archive};

/// The program under test, inside the VM.
const PROGRAM: &str = "/bin/socklife";
/// An eBPF object other than the embedded one, inside the VM.
const OBJECT: &str = "/lib/socklife.bpf.o";

/// The names of the trials that run, inside the VM.
const TRIALS: &str = "/etc/integration.trials";

/// What goes into the file system.
#[derive(Clone)]
pub struct Content {
    /// The integration test binary.
    pub init: PathBuf,
    /// The program under test.
    pub socklife: PathBuf,
    /// The eBPF object to test where it is not the embedded one.
    pub object: Option<PathBuf>,
}

impl Content {
    /// The archive; `arguments` and `variables` are for the test binary, which runs `trials` where they are given.
    pub fn archive(
        &self,
        arguments: &[String],
        variables: &[String],
        trials: Option<&BTreeSet<String>>,
    ) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for directory in ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp"] {
            archive.directory(directory);
        }
        // Without it the kernel gives /init no standard output.
        archive.character_device("/dev/console", 0o600, 5, 1);
        archive.file("/init", 0o755, &without_debug(&self.init)?);
        archive.file(PROGRAM, 0o755, &without_debug(&self.socklife)?);

        let mut libraries = libraries(&self.init)?;
        libraries.append(&mut self::libraries(&self.socklife)?);
        for library in &libraries {
            archive.file(&library.to_string_lossy(), 0o755, &read(library)?);
        }

        let mut environment = format!("SOCKLIFE_BIN={PROGRAM}\nSOCKLIFE_VM=1\nRUST_BACKTRACE=1\nPATH=/bin\n");
        if let Some(object) = &self.object {
            archive.file(OBJECT, 0o644, &read(object)?);
            environment += &format!("SOCKLIFE_OBJECT={OBJECT}\n");
        }
        environment.extend(variables.iter().map(|variable| format!("{variable}\n")));
        if let Some(trials) = trials {
            let names: String = trials.iter().map(|name| format!("{name}\n")).collect();
            archive.file(TRIALS, 0o644, names.as_bytes());
            environment += &format!("SOCKLIFE_TRIALS={TRIALS}\n");
        }
        archive.file("/etc/integration.env", 0o644, environment.as_bytes());
        let arguments: String = arguments.iter().map(|argument| format!("{argument}\n")).collect();
        archive.file("/etc/integration.args", 0o644, arguments.as_bytes());
        Ok(archive.finish())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A program without its debug sections, which are most of it; whole where `strip` is missing.
fn without_debug(program: &Path) -> Result<Vec<u8>> {
    if cmd::find_on_path("strip").is_none() {
        return read(program);
    }
    // Several kernels' archives are made at the same time, also by several runs.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let stripped = cache::dir("vm")?.join(format!("{name}.{}.{number}", std::process::id()));
    cmd::output(
        Command::new("strip")
            .args(["--strip-debug", "-o"])
            .arg(&stripped)
            .arg(program),
    )?;
    let bytes = read(&stripped);
    fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
    bytes
}

/// The shared libraries of a program, its loader among them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env("LC_ALL", "C");
    let output = ldd
        .output()
        .with_context(|| format!("cannot run {}", cmd::show(&ldd)))?;
    // ldd fails on a static program, which needs none.
    parse_ldd(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} names a library that is missing", cmd::show(&ldd)))
}

fn parse_ldd(text: &str) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        anyhow::ensure!(!place.starts_with("not found"), "{line}");
        // The rest is the kernel's own, or says that there is nothing.
        if let Some(path) = place.split_whitespace().next().filter(|path| path.starts_with('/')) {
            libraries.insert(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_paths_and_the_loader() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse_ldd(text).expect("libraries");
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from).into());
        assert!(parse_ldd("\tstatically linked\n").expect("none").is_empty());
        assert!(parse_ldd("\tlibx.so => not found\n").is_err());
    }
}
