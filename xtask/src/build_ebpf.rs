//! `cargo xtask build-ebpf`: the eBPF object from source, the same bytes wherever it is built.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cache,
    cargo::{self, Metadata},
    cmd, object_file, output,
    record::{Record, sha256},
    rustc_wrapper, stack,
    toolchain::{self, Choice, Toolchain},
    workspace,
};

/// The file name of the object.
pub const OBJECT_NAME: &str = "socklife.bpf.o";

const PACKAGE: &str = "socklife-ebpf";
const BINARY: &str = "socklife-bpf";
const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";

/// Arguments of `build-ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Compare with the checked-in object instead of replacing it.
    #[arg(long)]
    check: bool,
    /// Build the variant whose probes log, into the cache, and print its path.
    #[arg(long, conflicts_with = "check")]
    log: bool,
    /// Write the object to this file instead.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// The compiler.
    #[arg(long, value_enum, default_value = "auto", hide = true)]
    compiler: Choice,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        check(args.compiler)?;
        return Ok(());
    }
    let fresh = Fresh::build(args.compiler, args.log)?;
    let target = match &args.out {
        Some(file) => file.clone(),
        None if args.log => fresh.dir.join("socklife-log.bpf.o"),
        None => workspace::object(),
    };
    cache::write(&target, &fresh.object)?;
    fresh.record.write(&target.with_extension("json"))?;
    output::step(format!("{} bytes, {}", fresh.object.len(), fresh.record));
    output::line(target.display().to_string());
    Ok(())
}

/// Whether [`check`] will compare bytes: the tools at hand are those that made the object.
pub fn comparable(compiler: Choice) -> Result<bool> {
    let record = Record::read(&workspace::record())?;
    let (rustc, source) = toolchain::compiler(compiler)?;
    Ok(record.made_by(&rustc, &source))
}

/// Rebuilds the object and compares it with the one that is checked in.
///
/// Returns the fresh object's path if another toolchain made it and it differs: it is what tests
/// must run on then.
pub fn check(compiler: Choice) -> Result<Option<PathBuf>> {
    let path = workspace::object();
    let remedy = "run `cargo xtask build-ebpf` and commit app-ebpf/socklife.bpf.*";
    let ours = fs::read(&path).with_context(|| format!("cannot read {}: {remedy}", path.display()))?;
    let record = Record::read(&workspace::record()).context(remedy)?;
    ensure!(
        record.sha256 == sha256(&ours),
        "{} is not the object that {} describes: {remedy}",
        path.display(),
        workspace::record().display()
    );

    let fresh = Fresh::build(compiler, false)?;
    if fresh.object == ours {
        output::step("the checked-in eBPF object is what its source gives, byte for byte");
        return Ok(None);
    }
    let cached = fresh.dir.join(OBJECT_NAME);
    cache::write(&cached, &fresh.object)?;
    if record.same_toolchain(&fresh.record) {
        bail!(
            "the checked-in eBPF object is not what its source gives: {remedy}\n\
             checked in: sha256 {}\nfresh:      sha256 {} ({})",
            record.sha256,
            fresh.record.sha256,
            cached.display()
        );
    }
    output::step("the checked-in eBPF object was made by another toolchain, so bytes tell nothing:");
    output::step(format!("  checked in: {record}"));
    output::step(format!("  here:       {}", fresh.record));
    output::step(format!("  tests take the fresh object {}", cached.display()));
    Ok(Some(cached))
}

/// An object just built, stripped.
struct Fresh {
    /// The bytes.
    object: Vec<u8>,
    /// What made it.
    record: Record,
    /// The cache directory of this workspace and compiler.
    dir: PathBuf,
}

impl Fresh {
    fn build(compiler: Choice, log: bool) -> Result<Self> {
        let toolchain = Toolchain::provision(compiler)?;
        let metadata = Metadata::load()?;
        let dir = build_dir(&toolchain)?;
        output::step(format!(
            "building the eBPF object with rustc {}",
            toolchain.rustc.release
        ));
        let mut command = command("build", &toolchain, &metadata, &dir.join("target"))?;
        if log {
            command.args(["--features", "log"]);
        }
        let file = cargo::executable(&mut command, BINARY)?;
        let object = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let object = object_file::strip(&object).with_context(|| format!("cannot strip {}", file.display()))?;
        stack::check(&object)?;
        let aya_ebpf = metadata.version_of("aya-ebpf").context("Cargo.lock has no aya-ebpf")?;
        let record = Record::new(&toolchain, aya_ebpf, &object);
        Ok(Self { object, record, dir })
    }
}

/// Where objects of this workspace and this compiler are built.
fn build_dir(toolchain: &Toolchain) -> Result<PathBuf> {
    let rustc = &toolchain.rustc;
    let root = workspace::root();
    let id = format!("{}\0{}\0{}", root.display(), rustc.release, rustc.commit);
    cache::dir(Path::new("ebpf").join(&sha256(id.as_bytes())[..16]))
}

/// Lints the package for the eBPF target.
pub fn lint() -> Result<()> {
    let toolchain = Toolchain::provision(Choice::Auto)?;
    let target_dir = build_dir(&toolchain)?.join("target");
    // The machine's clippy is of the machine's rustc, and reads no other compiler's output.
    let tool = if toolchain.source.kind == "debian-web" {
        "check"
    } else {
        "clippy"
    };
    output::step(format!("{tool} for {TARGET}"));
    let mut command = command(tool, &toolchain, &Metadata::load()?, &target_dir)?;
    if tool == "clippy" {
        command.args(["--", "-Dwarnings"]);
    }
    cmd::run(&mut command)
}

fn command(tool: &str, toolchain: &Toolchain, metadata: &Metadata, target_dir: &Path) -> Result<Command> {
    let mut path = vec![toolchain.linker_dir.clone()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path).context("a directory in PATH holds a colon")?;

    let mut command = cargo::command();
    command
        .args([tool, "--quiet", "--locked", "--package", PACKAGE, "--bin", BINARY])
        .args(["--target", TARGET, "--profile", PROFILE, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        // build-std is unstable; nothing else here is.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain, metadata)?)
        .env("PATH", path)
        // bpf-linker loads the libLLVM of the compiler.
        .env("LD_LIBRARY_PATH", &toolchain.rustc.library_path)
        .env("RUSTC", &toolchain.rustc.program);
    rustc_wrapper::wrap(&mut command, TARGET)?;
    if toolchain.source.kind != "sysroot" {
        // The only way to have build-std's source elsewhere than in the sysroot.
        command.env("__CARGO_TESTS_ONLY_SRC_ROOT", &toolchain.source.library);
    }
    Ok(command)
}

/// The flags for the eBPF target; with the remaps no path of this machine reaches the object.
fn rustflags(toolchain: &Toolchain, metadata: &Metadata) -> Result<OsString> {
    let mut flags: Vec<OsString> = ["-Clinker=bpf-linker", "-Clink-arg=--btf", "-Cdebuginfo=2"]
        .map(OsString::from)
        .into();
    let cache = cache::root()?;
    let root = workspace::root();
    // The last that fits counts. A registry's directory is named after its host.
    let mut remaps = vec![(cache.as_path(), "/cache"), (root.as_path(), "/socklife")];
    remaps.extend(metadata.registry_dirs().into_iter().map(|dir| (dir, "/crates")));
    remaps.push((&toolchain.source.library, "/rust/library"));
    for (from, to) in remaps {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join("\x1f".as_ref()))
}
