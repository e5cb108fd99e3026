//! Sockets that are older than the trace: the kernel makes a socket's cookie when somebody asks for it, and a list by
//! `sock_diag(7)` asks for all of them (`sock_diag_save_cookie`). What it answers is thrown away.

use super::namespaces::{self, Namespace};
use crate::sock_diag;

/// Sees to it that every TCP socket of these namespaces has a cookie. Best effort: without it, what is older
/// than the trace may have no cookie in `kprobe` and `tracepoint`, and unknown is shown as unknown.
pub fn ask(namespaces: &[Namespace]) {
    let visits = namespaces.iter().map(|namespace| (namespace, ()));
    let _ = namespaces::visit(visits.collect(), |_, ()| {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let _ = sock_diag::dump(family, u32::MAX, |_| {});
        }
        Ok(())
    });
}
