//! A network namespace for one case.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
};

use super::shared;

/// A thread in a network namespace of its own, with loopback up. What it runs, and every process that it starts, is in
/// there; the namespace ends with the last of them.
#[derive(Clone)]
pub struct Namespace {
    pub inode: u32,
    inside: Arc<Inside>,
}

struct Inside {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Namespace {
    /// A new one; where the case may share a tracer, one that this tracer knew before anything happened there.
    pub fn new() -> Self {
        shared::namespace().unwrap_or_else(Self::made)
    }

    /// A new one.
    pub fn made() -> Self {
        let (ready, entered) = channel();
        let (jobs, todo) = channel::<Job>();
        let thread = std::thread::spawn(move || {
            ready.send(socklife::netns::enter_new().unwrap()).unwrap();
            for job in todo {
                job();
            }
        });
        Self {
            inode: entered.recv().expect("a namespace"),
            inside: Arc::new(Inside {
                jobs: Mutex::new(Some(jobs)),
                thread: Mutex::new(Some(thread)),
            }),
        }
    }

    /// Runs something inside and waits for it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.inside
            .jobs
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .send(job)
            .expect("the namespace's thread lives");
        result.recv().expect("it did not panic")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Ok(jobs) = self.jobs.get_mut() {
            drop(jobs.take());
        }
        if let Ok(Some(thread)) = self.thread.get_mut().map(Option::take) {
            let _ = thread.join();
        }
    }
}
