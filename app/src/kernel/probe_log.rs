//! What the programs log. Only those of `cargo xtask build-ebpf --log` log anything.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::output::say;

/// The map that aya-log writes to; the shipped object has none.
const MAP: &str = "AYA_LOGS";

/// To standard error, as everything that is not an event.
pub struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        say!("socklife: probe: {}", record.args());
    }

    fn flush(&self) {}
}

/// The log of these programs, if they keep one.
pub fn open(ebpf: &mut Ebpf) -> Option<EbpfLogger<Stderr>> {
    ebpf.map(MAP)?;
    EbpfLogger::init_with_logger(ebpf, Stderr).ok()
}
