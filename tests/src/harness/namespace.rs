//! A network namespace for one case.

use std::{
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

/// A thread in a network namespace of its own, with loopback up. What it runs, and every process that it starts, is in
/// there; the namespace ends with the last of them.
pub struct Namespace {
    pub inode: u32,
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub fn new() -> Self {
        let (ready, entered) = channel();
        let (jobs, todo) = channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || {
            ready.send(socklife::netns::enter_new().unwrap()).unwrap();
            for job in todo {
                job();
            }
        });
        Self {
            inode: entered.recv().expect("a namespace"),
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Runs something inside and waits for it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs
            .as_ref()
            .unwrap()
            .send(job)
            .expect("the namespace's thread lives");
        result.recv().expect("it did not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
