//! The compiler, the source of `core` and the linker that make the eBPF object.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};

use crate::{bpf_linker, cmd, debian_web, output, rust_src, workspace};

/// Which compiler builds the eBPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// rustc, or Debian's pair where no source of rustc's version can be had.
    Auto,
    /// rustc, or an error.
    Rustc,
    /// Debian's pair rustc-web and rust-web-src.
    DebianWeb,
}

/// All that building the object takes.
pub struct Toolchain {
    /// The compiler.
    pub rustc: Rustc,
    /// The source of `core` of the same version.
    pub source: Source,
    /// The directory of the bpf-linker program.
    pub linker_dir: PathBuf,
}

/// A rustc and what it says of itself.
pub struct Rustc {
    /// The program.
    pub program: PathBuf,
    /// `LD_LIBRARY_PATH` for it and for bpf-linker, which uses its LLVM.
    pub library_path: OsString,
    /// Its version: `1.95.0`.
    pub release: String,
    /// Its commit, empty if the builder did not say.
    pub commit: String,
    /// Its LLVM: `22.1.2`.
    pub llvm: String,
    /// Where it looks for its libraries.
    pub sysroot: PathBuf,
}

/// The source of `core`.
pub struct Source {
    /// The directory `library`.
    pub library: PathBuf,
    /// How it was come by; goes into the record.
    pub kind: &'static str,
}

impl Toolchain {
    /// Finds or fetches everything, saying each step.
    pub fn provision(choice: Choice) -> Result<Self> {
        let (rustc, source) = compiler(choice)?;
        source.verify(&rustc)?;
        let linker_dir = bpf_linker::provision(&rustc)?;
        Ok(Self {
            rustc,
            source,
            linker_dir,
        })
    }
}

/// Finds or fetches the compiler and the source of `core`.
pub fn compiler(choice: Choice) -> Result<(Rustc, Source)> {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock();
    match choice {
        Choice::DebianWeb => debian_web::provision(),
        Choice::Rustc => with_rustc(),
        Choice::Auto => with_rustc().or_else(|error| {
            output::step(format!("{error:#}"));
            output::step("falling back to Debian's rustc-web, for the eBPF object only");
            debian_web::provision().with_context(|| format!("{error:#}"))
        }),
    }
}

fn with_rustc() -> Result<(Rustc, Source)> {
    let rustc = Rustc::ambient()?;
    bpf_linker::check_llvm(&rustc)?;
    let source = rust_src::provision(&rustc)?;
    Ok((rustc, source))
}

impl Rustc {
    /// The rustc that cargo would use in this workspace.
    pub fn ambient() -> Result<Self> {
        let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut rustc = Self::query(program.into(), OsString::new())?;
        rustc.library_path = rustc.sysroot.join("lib").into();
        Ok(rustc)
    }

    /// Asks a rustc what it is.
    pub fn query(program: PathBuf, library_path: OsString) -> Result<Self> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            if !library_path.is_empty() {
                command.env("LD_LIBRARY_PATH", &library_path);
            }
            cmd::output(command.args(arguments).current_dir(workspace::root()))
        };
        let version = ask(&["-vV"])?;
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let release = field("release").with_context(|| format!("{} -vV names no release", program.display()))?;
        let llvm = field("LLVM version").with_context(|| format!("{} -vV names no LLVM version", program.display()))?;
        let commit = field("commit-hash")
            .filter(|hash| hash != "unknown")
            .unwrap_or_default();
        let sysroot = ask(&["--print", "sysroot"])?.trim().into();
        Ok(Self {
            program,
            library_path,
            release,
            commit,
            llvm,
            sysroot,
        })
    }
}

impl Source {
    /// Refuses a source whose directory tells another version than the compiler's.
    fn verify(&self, rustc: &Rustc) -> Result<()> {
        let core = self.library.join("core/Cargo.toml");
        ensure!(
            core.is_file(),
            "{} is missing: the source of core is not whole",
            core.display()
        );
        if let Some(version) = version_in_path(&self.library) {
            ensure!(
                version == rustc.release,
                "the source of core in {} is {version}, but {} is {}: install the source of the \
                 same version (rustup component add rust-src, or the distribution's package)",
                self.library.display(),
                rustc.program.display(),
                rustc.release
            );
        }
        Ok(())
    }
}

/// The version in a path with a part like `rustc-1.95.0`, as distributions have it.
fn version_in_path(library: &Path) -> Option<String> {
    let real = library.canonicalize().ok()?;
    real.iter().find_map(|part| {
        let part = part.to_str()?;
        let version = ["rustc-web-", "rustc-", "rust-src-"]
            .iter()
            .find_map(|prefix| part.strip_prefix(prefix))?;
        version
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| version.to_owned())
    })
}
