//! What a connection takes of memory.

use super::reading::Reading;

/// Measured on this host.
pub struct Memory {
    /// An idle connection: the kernel's objects for its socket and its descriptor. Bytes.
    pub socket: Reading<u64>,
    /// What the model adds: a child or a thread.
    pub task: Option<Reading<Task>>,
}

/// An idle task for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its own pages and what the kernel keeps for it, bytes.
    pub bytes: u64,
    /// Mappings that a thread adds to its process; 0 of a child.
    pub mappings: u64,
}

impl Memory {
    /// Bytes for each connection.
    ///
    /// # Errors
    ///
    /// Why it is unknown.
    pub fn each(&self) -> Result<u64, String> {
        let task = match &self.task {
            Some(task) => task.value.clone()?.bytes,
            None => 0,
        };
        Ok(self.socket.value.clone()?.saturating_add(task))
    }
}
