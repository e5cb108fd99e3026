//! What /proc says of one process, and the thread that looks: the one that empties the ring buffer must not.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use socklife_abi::event::UNKNOWN_FD;

use crate::{
    clock::boot_ns,
    holders,
    model::holders::{Asked, Ended, Held},
    pids,
};

/// Questions that wait, at most.
const ROOM: usize = 128;

/// What the model cannot know from events.
#[derive(Debug)]
pub enum Question {
    /// Which sockets a process has.
    Holds(Asked),
    /// Which of these descriptors are not what they are believed to be.
    NotHeld {
        /// When that was asked.
        asked_ns: u64,
        /// What is believed.
        held: Vec<Held>,
    },
    /// Which of these are zombies.
    Zombies(Vec<Ended>),
}

/// What /proc said, and when.
#[derive(Debug)]
pub enum Answer {
    /// Descriptors with inodes; `None` where the process is gone.
    Holds {
        /// What was asked.
        asked: Asked,
        /// What there is.
        sockets: Option<HashMap<i32, u64>>,
        /// When.
        time_ns: u64,
    },
    /// Those that are not.
    NotHeld {
        /// When that was asked.
        asked_ns: u64,
        /// Which.
        not_held: Vec<Held>,
        /// When.
        time_ns: u64,
    },
    /// Those that are, with their parents.
    Zombies {
        /// Which.
        zombies: Vec<(Ended, u32)>,
        /// When.
        time_ns: u64,
    },
}

impl Answer {
    /// When /proc was looked at.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Holds { time_ns, .. } | Self::NotHeld { time_ns, .. } | Self::Zombies { time_ns, .. } => *time_ns,
        }
    }
}

/// The thread that looks. It ends with this end of the channel.
pub struct Looker {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
    /// Questions that have no answer yet.
    waiting: usize,
}

impl Looker {
    /// Starts it, with the rights of the calling thread.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn start() -> io::Result<Self> {
        let (questions, asked) = sync_channel(ROOM);
        let (answered, answers) = channel();
        let look = move || looks(&asked, &answered);
        thread::Builder::new().name("proc".to_owned()).spawn(look)?;
        Ok(Self {
            questions,
            answers,
            waiting: 0,
        })
    }

    /// How many questions it takes now.
    pub fn room(&self) -> usize {
        ROOM - self.waiting
    }

    /// It has questions.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    /// Asks, and does not wait. False where there is no room.
    pub fn ask(&mut self, question: Question) -> bool {
        let asked = self.questions.try_send(question).is_ok();
        self.waiting += usize::from(asked);
        asked
    }

    /// What was answered by now, in order.
    pub fn answers(&mut self) -> Vec<Answer> {
        let answers: Vec<_> = self.answers.try_iter().collect();
        self.waiting -= answers.len();
        answers
    }
}

fn looks(asked: &Receiver<Question>, answered: &Sender<Answer>) {
    for question in asked {
        if answered.send(answer(question)).is_err() {
            break;
        }
    }
}

/// Looks.
pub fn answer(question: Question) -> Answer {
    let time_ns = boot_ns();
    match question {
        Question::Holds(asked) => Answer::Holds {
            // A number that is used again tells nothing of its former process.
            sockets: if is_since(asked.pid, asked.time_ns) {
                socket_descriptors(asked.pid)
            } else {
                None
            },
            asked,
            time_ns,
        },
        Question::NotHeld { asked_ns, mut held } => {
            held.retain(|held| holds(held) == Some(false));
            Answer::NotHeld {
                asked_ns,
                not_held: held,
                time_ns,
            }
        }
        Question::Zombies(ended) => {
            let zombies = ended.into_iter().filter(|ended| is_since(ended.pid, ended.since_ns));
            Answer::Zombies {
                zombies: zombies.filter_map(|ended| Some((ended, zombie(ended.pid)?))).collect(),
                time_ns,
            }
        }
    }
}

/// Whether the process was there at that time already.
fn is_since(pid: u32, time_ns: u64) -> bool {
    static TICK_NS: LazyLock<u64> = LazyLock::new(|| {
        // SAFETY: takes a number.
        let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        u64::try_from(hz).map_or(0, |hz| 1_000_000_000 / hz.max(1))
    });
    // `starttime`, which is rounded down.
    field(pid, 22).is_some_and(|ticks| ticks.saturating_mul(*TICK_NS) <= time_ns)
}

/// A field of `/proc/PID/stat` by its number, of those behind the name.
fn field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses, and ends with the last one.
    let fields = stat.rsplit_once(") ")?.1;
    fields.split(' ').nth(number - 3)?.parse().ok()
}

/// Its descriptors that are sockets, with their inodes; `None` where it is gone or about to be, or may not be looked at.
pub fn socket_descriptors(pid: u32) -> Option<HashMap<i32, u64>> {
    if !pids::proc_is_initial() {
        return None;
    }
    let entries: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().collect();
    // Who ends has no table any more.
    if entries.is_empty() {
        return None;
    }
    let sockets = entries.iter().filter_map(|entry| holders::socket(&entry.path()));
    Some(
        sockets
            .filter_map(|(fd, inode)| Some((i32::try_from(fd).ok()?, inode)))
            .collect(),
    )
}

/// Whether a descriptor is what it is believed to be; `None` where nobody can say.
pub fn holds(held: &Held) -> Option<bool> {
    let process = PathBuf::from(format!("/proc/{}", held.pid));
    if held.inode == 0 || !pids::proc_is_initial() || !Path::exists(&process) {
        return None;
    }
    if held.fd == UNKNOWN_FD {
        return Some(!holders::held_by(held.pid, &HashSet::from([held.inode])).is_empty());
    }
    let found = holders::socket(&process.join(format!("fd/{}", held.fd)));
    Some(found.is_some_and(|(_, inode)| inode == held.inode))
}

/// The parent of a process that has ended and was not waited for; `None` for any other.
pub fn zombie(pid: u32) -> Option<u32> {
    if !pids::proc_is_initial() {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses, and ends with the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? != "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _, process::Command};

    use super::{
        Answer, Asked, Held, Looker, Question, UNKNOWN_FD, boot_ns, holds, is_since, socket_descriptors, zombie,
    };

    #[test]
    fn our_own_sockets_are_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let file = std::fs::File::open("/proc/self/stat").expect("a file");
        let found = socket_descriptors(std::process::id()).expect("our own");
        assert!(found.contains_key(&socket.as_raw_fd()));
        assert!(!found.contains_key(&file.as_raw_fd()));
        assert!(socket_descriptors(u32::MAX).is_none());
        let held = Held {
            pid: std::process::id(),
            cookie: 1,
            fd: socket.as_raw_fd(),
            inode: found[&socket.as_raw_fd()],
        };
        assert_eq!(holds(&held), Some(true));
        assert_eq!(holds(&Held { fd: UNKNOWN_FD, ..held }), Some(true));
        let another = held.inode + 1;
        assert_eq!(holds(&Held { inode: another, ..held }), Some(false));
        assert_eq!(
            holds(&Held {
                fd: file.as_raw_fd(),
                ..held
            }),
            Some(false)
        );
        assert_eq!(holds(&Held { pid: u32::MAX, ..held }), None);
        assert_eq!(holds(&Held { inode: 0, ..held }), None);
        drop(socket);
        assert_eq!(holds(&held), Some(false));
    }

    #[test]
    fn another_thread_looks() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut looker = Looker::start().expect("a thread");
        assert!(!looker.is_busy());
        let pid = std::process::id();
        for pid in [pid, u32::MAX] {
            let asked = Asked {
                pid,
                time_ns: boot_ns(),
                held: Vec::new(),
            };
            assert!(looker.ask(Question::Holds(asked)));
        }
        let mut answers = Vec::new();
        while answers.len() < 2 {
            answers.extend(looker.answers());
        }
        assert!(!looker.is_busy());
        let Answer::Holds {
            sockets: Some(ours), ..
        } = &answers[0]
        else {
            panic!("{answers:?}");
        };
        assert!(ours.contains_key(&socket.as_raw_fd()));
        assert!(matches!(answers[1], Answer::Holds { sockets: None, .. }), "{answers:?}");
        assert!(is_since(pid, boot_ns()) && !is_since(pid, 1));
    }

    #[test]
    fn a_child_is_a_zombie_until_it_is_waited_for() {
        let mut child = Command::new("/proc/self/exe")
            .arg("--help")
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a child");
        let pid = child.id();
        let mut found = None;
        for _ in 0..1000 {
            found = zombie(pid);
            if found.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(found, Some(std::process::id()));
        child.wait().expect("it ends");
        assert_eq!(zombie(pid), None);
        assert_eq!(zombie(std::process::id()), None);
    }
}
