//! The signals that end a command: each as the others do.

use std::{mem, ptr};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for them, from when it is made.
pub struct Ending {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// None where somebody said beforehand that it shall not end us: nohup(1).
    hangup: Option<Signal>,
}

impl Ending {
    /// Must be called in a runtime.
    pub fn watch() -> Result<Self> {
        let watch = |kind, name| signal(kind).with_context(|| format!("cannot watch for {name}"));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt(), "SIGINT")?,
            terminate: watch(SignalKind::terminate(), "SIGTERM")?,
            quit: watch(SignalKind::quit(), "SIGQUIT")?,
            hangup: if is_ignored(libc::SIGHUP) {
                None
            } else {
                Some(watch(SignalKind::hangup(), "SIGHUP")?)
            },
        })
    }

    /// Waits for one.
    pub async fn comes(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.quit.recv() => {}
            _ = hangup => {}
        }
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeroes is a value of the structure.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks, and changes nothing.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}
