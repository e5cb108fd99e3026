//! What we counted of a network namespace, and what the kernel counted, at nearly one time.

/// Ours twice, with the kernel's in between: its counters are read one file after the other while all of them move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled<T, const N: usize> {
    /// Ours, before.
    pub before: T,
    /// The kernel's; `None` for one that this kernel lacks.
    pub kernel: [Option<u64>; N],
    /// Ours, after.
    pub after: T,
}
