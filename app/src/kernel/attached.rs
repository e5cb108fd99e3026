//! Programs that are attached, and taking them away: to detach is to wait for RCU, so all of them wait at the same time.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use aya::Ebpf;

use super::{ladder, tracepoints::Kept};

/// A thread waits in most of its time.
const THREADS: usize = 32;

/// Detaches every program when it is dropped.
pub struct Attached {
    /// The programs.
    pub ebpf: Ebpf,
    /// Closed after them.
    _tracepoints: Option<Kept>,
}

impl Attached {
    /// With the tracepoints that they stand at.
    pub fn new(ebpf: Ebpf, tracepoints: Option<Kept>) -> Self {
        Self {
            ebpf,
            _tracepoints: tracepoints,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let loaded: Vec<_> = self
            .ebpf
            .programs_mut()
            .map(|(_, program)| program)
            .filter(|program| program.fd().is_ok())
            .collect();
        let threads = loaded.len().min(THREADS);
        let rest = Mutex::new(loaded.into_iter());
        let work = || {
            loop {
                let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(program) = next else { break };
                ladder::unload(program);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where there is no room for a thread the others do it.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }
}
