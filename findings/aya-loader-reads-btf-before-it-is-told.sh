#!/usr/bin/env bash
# aya 0.14.0: `EbpfLoader::new()` reads and parses the kernel's whole BTF at once, also where the caller then hands over
# BTF of its own, or none at all (`.btf(None)`, "disable BTF relocations entirely").
#
# A program that makes two loaders, or that has parsed the BTF for itself, pays for it each time: `Btf::from_sys_fs` is
# called in `new` (src/bpf.rs), not where the first relocation needs it.
#
# Seen on Linux 6.18: BTF of 5,515,646 bytes, and each of three loaders read 5,515,779 (the rest is this program's own look
# at /proc/self/io).
# Needs cargo, and a kernel with BTF; no root. Fails when aya behaves otherwise.
set -euo pipefail

btf=/sys/kernel/btf/vmlinux
[ -r $btf ] || { echo "no $btf here: this kernel has no BTF"; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"

cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "loader"
version = "0.0.0"
edition = "2021"

[dependencies]
aya = "=0.14.0"
TOML

cat >"$dir/src/main.rs" <<'RUST'
use aya::EbpfLoader;

/// Bytes that this process has read so far.
fn read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

fn main() {
    let size = std::fs::metadata("/sys/kernel/btf/vmlinux").unwrap().len();
    println!("/sys/kernel/btf/vmlinux has {size} bytes");
    for number in 1..=3 {
        let before = read();
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let bytes = read() - before;
        println!("loader {number}, told to use no BTF, read {bytes} bytes");
        assert!(bytes >= size, "it does not read the BTF any more");
    }
}
RUST

cargo run --quiet --manifest-path "$dir/Cargo.toml"
echo "as described: aya 0.14.0 reads the kernel's BTF for each loader, wanted or not"
