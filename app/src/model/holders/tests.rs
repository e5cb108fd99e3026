use bytemuck::Zeroable as _;
use socklife_abi::{
    event::{
        Accepted, Bound, Closed, Connect, EXECUTED_WORDS, Envelope, Executed, Exited, FdClosed, FdOpened, FdsClosed,
        Forked, HAS_TASK, HandedOff, Kind, LastClose, Listening, NO_FD, Queues, Touched, UNKNOWN, UNKNOWN_DEPTH,
        UNKNOWN_FD, finding, handoff, how, touch,
    },
    program::Program,
};

use super::{Asked, Before, Detail, Event, Holders, Look};

const LISTENER: u64 = 3;
const CONNECTION: u64 = 7;
const SERVER: u32 = 41;
const CHILD: u32 = 57;
const SECOND: u64 = 1_000_000_000;

fn listening(fd: i32) -> Listening {
    Listening {
        backlog_asked: 1,
        asked_known: 1,
        backlog: 1,
        fd,
    }
}

fn closed() -> Detail {
    Detail::Closed(Closed::zeroed())
}

fn connect(fd: i32) -> Detail {
    Detail::Connect(Connect {
        inode: 99,
        fd,
        reserved: 0,
    })
}

/// A model that is fed step by step; each step is a millisecond.
struct Told {
    model: Holders,
    now: u64,
    made: Vec<Event>,
    last: Option<Event>,
    via: u16,
    /// The other end's port, where it is another than usual.
    dport: Option<u16>,
}

impl Told {
    fn new() -> Self {
        Self {
            model: Holders::new(97),
            now: 0,
            made: Vec::new(),
            last: None,
            via: 0,
            dport: None,
        }
    }

    fn tell(&mut self, pid: u32, cookie: u64, detail: Detail) -> Look {
        self.now += 1_000_000;
        let mut comm = [0; 16];
        comm[..3].copy_from_slice(b"srv");
        let mut event = Event {
            envelope: Envelope {
                time_ns: self.now,
                cookie,
                family: if cookie == 0 { 0 } else { 4 },
                sport: 8080,
                dport: self.dport.unwrap_or(if cookie == LISTENER { 0 } else { 53_114 }),
                via: self.via,
                flags: HAS_TASK,
                pid,
                tid: pid,
                comm,
                ..Envelope::zeroed()
            },
            detail,
        };
        let look = self.model.see(&mut event, &mut self.made);
        self.last = Some(event);
        look
    }

    /// A server that listens and has accepted one connection as descriptor 5.
    fn serving() -> Self {
        let mut told = Self::new();
        told.tell(SERVER, LISTENER, Detail::Listening(listening(4)));
        told.accept(SERVER, 5);
        told
    }

    fn accept(&mut self, pid: u32, fd: i32) {
        let queues = Queues {
            listener: LISTENER,
            ..Queues::UNKNOWN
        };
        self.tell(
            pid,
            CONNECTION,
            Detail::Accepted(Accepted {
                queues,
                dead_ns: UNKNOWN,
                fd,
                ..Accepted::zeroed()
            }),
        );
    }

    fn open(&mut self, pid: u32, cookie: u64, fd: i32) -> Option<u32> {
        let opened = FdOpened { fd, how: 0, inode: 0 };
        if self.tell(pid, cookie, Detail::FdOpened(opened)) == Look::Old {
            return None;
        }
        match self.last.map(|event| event.detail) {
            Some(Detail::FdOpened(opened)) => Some(opened.how),
            _ => None,
        }
    }

    /// How many are left; `None` where nothing was told.
    fn close(&mut self, pid: u32, cookie: u64, fd: i32) -> Option<u32> {
        let closed = FdClosed {
            fd,
            left: UNKNOWN_DEPTH,
            inode: 0,
        };
        if self.tell(pid, cookie, Detail::FdClosed(closed)) == Look::Old {
            return None;
        }
        match self.last.map(|event| event.detail) {
            Some(Detail::FdClosed(closed)) => Some(closed.left),
            _ => None,
        }
    }

    fn read(&mut self, pid: u32) {
        let touched = Touched {
            what: touch::READ,
            fd: UNKNOWN_FD,
            inode: 99,
        };
        self.tell(pid, CONNECTION, Detail::Touched(touched));
    }

    fn fork(&mut self, parent: u32, child: u32) -> Look {
        self.tell(parent, 0, Detail::Forked(Forked { child, shared: 0 }))
    }

    /// Of the first descriptors these are open.
    fn exec(&mut self, pid: u32, fds: &[i32]) {
        let mut open = [0; EXECUTED_WORDS];
        for fd in fds {
            open[*fd as usize / 64] |= 1 << (fd % 64);
        }
        self.tell(pid, 0, Detail::Executed(Executed { open }));
    }

    fn exit(&mut self, pid: u32) {
        self.tell(pid, 0, Detail::Exited(Exited { status: 0, reserved: 0 }));
    }

    fn last_close(&mut self, pid: u32) {
        self.tell(pid, CONNECTION, Detail::LastClose(LastClose {}));
    }

    /// So much time goes by.
    fn wait(&mut self, ns: u64) {
        self.now += ns;
        self.model.of_ended(false);
        self.model.tick(self.now, false, &mut self.made);
    }

    /// What /proc is asked for, once.
    fn asked(&mut self) -> Vec<Asked> {
        self.model.unsure(64, self.now)
    }

    /// These are the process's sockets, by descriptor and inode.
    fn has_only(&mut self, asked: &Asked, sockets: &[(i32, u64)]) {
        let sockets = sockets.iter().copied().collect();
        self.model.has_only(asked, &sockets, self.now, &mut self.made);
    }

    /// The descriptors that were told to be closed: number, and how many are left.
    fn closed(&mut self) -> Vec<(i32, u32)> {
        let taken = std::mem::take(&mut self.made);
        let closed = taken.iter().filter_map(|event| match event.detail {
            Detail::FdClosed(closed) => Some((closed.fd, closed.left)),
            _ => None,
        });
        closed.collect()
    }

    fn handed(&mut self) -> Vec<HandedOff> {
        let taken = std::mem::take(&mut self.made);
        let handed = taken.iter().filter_map(|event| match event.detail {
            Detail::HandedOff(handed) => Some(handed),
            _ => None,
        });
        handed.collect()
    }

    /// What, whose, and whose before.
    fn findings(&mut self) -> Vec<(u32, u32, u32)> {
        let taken = std::mem::take(&mut self.made);
        let found = taken.iter().filter_map(|event| match event.detail {
            Detail::Finding(finding) => Some((finding.what, finding.holder.pid, finding.other.pid)),
            _ => None,
        });
        found.collect()
    }
}

#[test]
fn a_fork_server_hands_off_and_nothing_is_wrong() {
    let mut told = Told::serving();
    assert_eq!(told.fork(SERVER, CHILD), Look::Tell);
    let inherited: Vec<_> = told
        .made
        .drain(..)
        .filter_map(|event| match event.detail {
            Detail::Inherited(inherited) => {
                Some((event.envelope.cookie, inherited.child, inherited.fd, inherited.holders))
            }
            _ => None,
        })
        .collect();
    assert_eq!(inherited, [(LISTENER, CHILD, 4, 2), (CONNECTION, CHILD, 5, 2)]);
    assert_eq!(told.close(SERVER, CONNECTION, 5), Some(1));
    assert_eq!(told.close(CHILD, LISTENER, 4), Some(1));
    assert!(told.handed().is_empty(), "nobody has used it yet");
    told.read(CHILD);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!((handed[0].from.pid, handed[0].from.fd), (SERVER, 5));
    assert_eq!((handed[0].to.pid, handed[0].to.fd), (CHILD, 5));
    assert_eq!(
        (handed[0].how, handed[0].first, handed[0].inode),
        (handoff::FORK, touch::READ, 99)
    );
    assert_eq!((handed[0].held_ns, handed[0].first_ns), (1_000_000, 3_000_000));
    assert_eq!(handed[0].accepted, 1);
    told.wait(2 * SECOND);
    assert_eq!(told.close(CHILD, CONNECTION, 5), Some(0));
    told.last_close(CHILD);
    told.exit(CHILD);
    told.wait(2 * SECOND);
    assert_eq!(told.findings(), []);
    assert_eq!(told.model.sockets.len(), 1, "the listener");
    assert_eq!(told.model.processes.len(), 1, "the server");
}

#[test]
fn an_idle_child_is_the_owner_after_a_second() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.wait(SECOND / 2);
    assert!(told.handed().is_empty());
    told.wait(SECOND);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(
        (handed[0].to.pid, handed[0].first, handed[0].first_ns),
        (CHILD, touch::NONE, UNKNOWN)
    );
    told.read(CHILD);
    assert!(told.handed().is_empty(), "told once");
}

#[test]
fn descriptors_are_counted_one_by_one() {
    let mut told = Told::serving();
    assert_eq!(told.open(SERVER, CONNECTION, 5), None, "known");
    assert_eq!(told.open(SERVER, CONNECTION, 6), Some(how::DUPLICATED));
    assert_eq!(told.close(SERVER, CONNECTION, 5), Some(1));
    assert_eq!(told.close(SERVER, CONNECTION, 5), None, "gone already");
    assert_eq!(told.close(SERVER, CONNECTION, 6), Some(0));
    // dup2() over the connection: its own close finds it gone.
    let mut told = Told::serving();
    told.open(SERVER, CONNECTION, 6);
    told.via = Program::DupKprobe as u16;
    assert_eq!(told.open(SERVER, LISTENER, 5), Some(how::DUPLICATED));
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), Some(1));
    assert_eq!(told.close(SERVER, LISTENER, 4), Some(1));
    assert_eq!(told.close(SERVER, CONNECTION, 6), Some(0));
    // That another took its number shows that it was closed.
    let mut told = Told::serving();
    assert_eq!(told.open(SERVER, LISTENER, 5), Some(how::DUPLICATED));
    assert_eq!(told.closed(), [(5, 0)]);
}

#[test]
fn which_of_several_was_closed_is_not_known_and_counted() {
    let mut told = Told::serving();
    told.open(SERVER, CONNECTION, 6);
    told.open(SERVER, CONNECTION, 7);
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), Some(2));
    assert_eq!(told.close(SERVER, CONNECTION, 6), Some(1));
    // Which it was execve(2) shows: 5 is closed, and was told.
    told.exec(SERVER, &[4, 7]);
    assert_eq!(told.closed(), []);
    assert_eq!(told.close(SERVER, CONNECTION, 7), Some(0));
    // Or nothing does.
    let mut told = Told::serving();
    told.open(SERVER, CONNECTION, 6);
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), Some(1));
    told.fork(SERVER, CHILD);
    told.made.clear();
    told.exit(SERVER);
    assert_eq!(told.closed(), [(UNKNOWN_FD, 1), (4, 1)]);
    assert_eq!(told.close(CHILD, CONNECTION, 6), Some(0));
}

/// Its number is beyond what is looked at.
#[test]
fn a_number_that_nobody_knows_proc_tells() {
    let mut told = Told::new();
    told.tell(SERVER, CONNECTION, connect(UNKNOWN_FD));
    for child in [CHILD, CHILD + 1] {
        told.fork(SERVER, child);
    }
    let range = Detail::FdsClosed(FdsClosed { first: 3, last: 999 });
    assert_eq!(told.tell(CHILD, 0, range), Look::Tell);
    told.exec(CHILD + 1, &[0, 1, 2]);
    told.made.clear();
    let mut asked = told.asked();
    asked.sort_by_key(|asked| asked.pid);
    assert_eq!(
        asked.iter().map(|asked| asked.pid).collect::<Vec<_>>(),
        [CHILD, CHILD + 1]
    );
    assert!(told.asked().is_empty(), "once");
    told.has_only(&asked[0], &[(1, 98)]);
    assert_eq!(told.closed(), [(UNKNOWN_FD, 2)]);
    told.has_only(&asked[1], &[(300, 99)]);
    assert_eq!(told.closed(), [], "it has it still");
    assert_eq!(told.close(SERVER, CONNECTION, 299), Some(1));
    // What it got after it was asked, and what stands at the number now, are not judged.
    let mut told = Told::serving();
    told.tell(SERVER, 11, connect(UNKNOWN_FD));
    told.tell(SERVER, 0, Detail::FdsClosed(FdsClosed { first: 6, last: 9 }));
    let asked = told.asked();
    told.close(SERVER, CONNECTION, 5);
    told.accept(SERVER, 5);
    told.has_only(&asked[0], &[(4, 98), (300, 99)]);
    assert_eq!(told.closed(), []);
}

#[test]
fn a_range_is_closed() {
    let mut told = Told::serving();
    let range = |first, last| Detail::FdsClosed(FdsClosed { first, last });
    assert_eq!(told.tell(SERVER, 0, range(6, u32::MAX)), Look::Old, "nothing there");
    assert_eq!(told.tell(SERVER, 0, range(5, u32::MAX)), Look::Tell);
    assert_eq!(told.made.len(), 1);
    assert_eq!(told.close(SERVER, LISTENER, 4), Some(0), "outside");
}

#[test]
fn exec_and_double_fork() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.fork(CHILD, 58);
    told.exit(CHILD);
    told.made.clear();
    told.exec(58, &[0, 1, 2, 5]);
    let closed: Vec<_> = told
        .made
        .iter()
        .map(|event| (event.envelope.cookie, event.detail))
        .collect();
    assert!(
        matches!(closed[..], [(LISTENER, Detail::FdClosed(FdClosed { fd: 4, .. }))]),
        "close-on-exec: {closed:?}"
    );
    assert!(told.asked().is_empty());
    told.close(SERVER, CONNECTION, 5);
    told.read(58);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(
        (handed[0].from.pid, handed[0].to.pid, handed[0].how),
        (SERVER, 58, handoff::EXEC)
    );
    assert_eq!(handed[0].through.pid, CHILD, "who forked it");
    // One process, another program.
    told.exec(58, &[5]);
    told.read(58);
    let handed = told.handed();
    assert_eq!(
        (handed[0].from.pid, handed[0].to.pid, handed[0].how),
        (58, 58, handoff::EXEC)
    );
}

#[test]
fn descriptors_are_passed() {
    let mut told = Told::serving();
    assert_eq!(told.open(77, CONNECTION, 9), Some(how::RECEIVED));
    assert_eq!(told.close(SERVER, CONNECTION, 5), Some(1));
    told.read(77);
    let handed = told.handed();
    assert_eq!((handed[0].from.pid, handed[0].to.pid, handed[0].to.fd), (SERVER, 77, 9));
    assert_eq!((handed[0].how, handed[0].through.pid), (handoff::FD_PASSING, 0));
    assert_eq!(told.open(78, 1234, 9), Some(how::UNKNOWN), "a socket that nobody knew");
}

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.read(CHILD);
    told.handed();
    // Its end was missed; the new one has what the server has now.
    assert_eq!(told.close(SERVER, CONNECTION, 5), Some(1));
    told.fork(SERVER, CHILD);
    assert!(
        told.made
            .iter()
            .any(|event| matches!(event.detail, Detail::FdClosed(FdClosed { fd: 5, left: 0, .. }))),
        "what the former one held is closed"
    );
    assert_eq!(
        told.model.processes[&CHILD].holds.keys().collect::<Vec<_>>(),
        [&LISTENER]
    );
}

#[test]
fn a_shared_table_is_one_holder() {
    let mut told = Told::serving();
    let shares = Detail::Forked(Forked {
        child: CHILD,
        shared: 1,
    });
    told.tell(SERVER, 0, shares);
    told.read(CHILD);
    assert!(told.handed().is_empty(), "one table, one holder");
    told.exit(SERVER);
    assert_eq!(
        told.close(CHILD, CONNECTION, 5),
        Some(0),
        "the table outlives who made it"
    );
}

#[test]
fn findings_name_who_is_to_blame() {
    // The child holds the listener.
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.read(CHILD);
    told.wait(SECOND / 2);
    assert_eq!(told.findings(), [], "it may close it yet");
    told.wait(SECOND);
    told.exit(CHILD);
    told.wait(1);
    assert_eq!(told.findings(), [(finding::LISTENER_HELD, CHILD, SERVER)]);
    told.wait(5 * SECOND);
    assert_eq!(told.findings(), [], "told once");

    // The parent never closes.
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(CHILD, LISTENER, 4);
    told.read(CHILD);
    told.exit(CHILD);
    told.wait(SECOND / 2);
    assert_eq!(told.findings(), [], "it may yet");
    told.wait(SECOND);
    assert_eq!(told.findings(), [(finding::NEVER_CLOSED, SERVER, CHILD)]);
    told.wait(5 * SECOND);
    assert_eq!(told.findings(), [], "told once");

    // A helper keeps it open.
    let mut told = Told::serving();
    told.read(SERVER);
    told.fork(SERVER, CHILD);
    told.exec(CHILD, &[5]);
    told.close(SERVER, CONNECTION, 5);
    told.wait(2 * SECOND);
    assert_eq!(told.findings(), [(finding::KEPT_OPEN, CHILD, SERVER)]);
}

#[test]
fn a_worker_that_accepts_may_hold_the_listener() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.read(CHILD);
    told.handed();
    let queues = Queues {
        listener: LISTENER,
        ..Queues::UNKNOWN
    };
    let accepted = Accepted {
        queues,
        dead_ns: UNKNOWN,
        fd: 8,
        ..Accepted::zeroed()
    };
    told.tell(CHILD, 11, Detail::Accepted(accepted));
    told.wait(2 * SECOND);
    assert_eq!(told.findings(), []);
}

#[test]
fn children_that_ended_are_asked_for_once() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.exit(CHILD);
    assert!(told.model.ended(told.now).is_empty(), "it may be waited for yet");
    let later = told.now + SECOND;
    let ended = told.model.ended(later);
    assert_eq!(ended.iter().map(|ended| ended.pid).collect::<Vec<_>>(), [CHILD]);
    assert!(told.model.zombie(&ended[0], 1, later).is_none(), "an orphan");
    let event = told.model.zombie(&ended[0], SERVER, later);
    told.made.extend(event);
    assert_eq!(told.findings(), [(finding::ZOMBIE, CHILD, SERVER)]);
    assert!(told.model.ended(later + SECOND).is_empty());
}

#[test]
fn what_is_older_is_known() {
    let mut told = Told::new();
    let comm = *b"old\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let envelope = Envelope {
        cookie: CONNECTION,
        family: 4,
        ..Envelope::zeroed()
    };
    let held = |pid, fd| Before { pid, comm, fd };
    told.model
        .before(envelope, 97, false, &[held(SERVER, 5), held(SERVER, 6), held(CHILD, 5)]);
    assert_eq!(told.close(SERVER, CONNECTION, 6), Some(2));
    told.read(CHILD);
    assert!(told.handed().is_empty(), "nobody knows who used it before");
    assert_eq!(told.close(CHILD, CONNECTION, 5), Some(1));
}

/// As a shell does: the number of a socket that connects nobody tells.
#[test]
fn a_duplicate_is_not_the_number_that_nobody_knew() {
    let mut told = Told::new();
    told.tell(SERVER, CONNECTION, connect(UNKNOWN_FD));
    assert_eq!(told.open(SERVER, CONNECTION, 1), Some(how::DUPLICATED));
    assert_eq!(told.close(SERVER, CONNECTION, 1), Some(1));
    told.fork(SERVER, CHILD);
    assert_eq!(told.open(CHILD, CONNECTION, 0), Some(how::DUPLICATED));
    assert_eq!(
        told.close(CHILD, CONNECTION, 3),
        Some(2),
        "the one that came without a number"
    );
    told.exec(CHILD, &[0, 1, 2]);
    told.read(CHILD);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(
        (handed[0].how, handed[0].from.pid, handed[0].to.pid),
        (handoff::EXEC, SERVER, CHILD)
    );
    assert_eq!(handed[0].accepted, 0);
    assert_eq!(told.close(CHILD, CONNECTION, 0), Some(1));
    assert_eq!(told.close(SERVER, CONNECTION, 3), Some(0));
}

#[test]
fn room_is_limited_and_that_is_counted() {
    let mut told = Told::new();
    for cookie in 1..=101 {
        told.tell(SERVER, cookie, connect(UNKNOWN_FD));
    }
    assert_eq!((told.model.sockets.len(), told.model.full()), (97, 4));
    told.fork(SERVER, CHILD);
    let told_of: Vec<_> = told
        .made
        .iter()
        .filter(|event| event.kind() == Kind::Inherited)
        .collect();
    assert_eq!(told_of.len(), 16, "the rest is a number");
    told.exit(CHILD);
    told.exit(SERVER);
    assert!(told.model.processes.is_empty());
}

#[test]
fn the_only_holder_of_what_is_older_hands_it_off() {
    let mut told = Told::new();
    let comm = *b"old\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let envelope = Envelope {
        time_ns: 5_000_000,
        cookie: CONNECTION,
        family: 4,
        ..Envelope::zeroed()
    };
    let held = |pid| Before { pid, comm, fd: 5 };
    told.model.before(envelope, 97, false, &[held(SERVER)]);
    // It was forked a moment before we looked, and that event comes now.
    told.model.before(
        Envelope {
            cookie: LISTENER,
            ..envelope
        },
        98,
        true,
        &[held(CHILD)],
    );
    told.fork(SERVER, CHILD);
    assert!(told.made.is_empty(), "known, and nothing was closed: {:?}", told.made);
    told.now = 5_000_000;
    told.fork(SERVER, CHILD + 1);
    told.read(CHILD + 1);
    let handed: Vec<_> = told
        .made
        .iter()
        .filter(|event| event.kind() == Kind::HandedOff)
        .collect();
    assert_eq!(handed.len(), 1);
    assert!(handed[0].born_before());
    let Detail::HandedOff(handed) = &handed[0].detail else {
        unreachable!()
    };
    assert_eq!((handed.from.pid, handed.to.pid, handed.inode), (SERVER, CHILD + 1, 99));
    assert_eq!(
        (handed.how, handed.held_ns),
        (handoff::FORK, UNKNOWN),
        "nobody knows since when it was used"
    );
}

#[test]
fn nobody_is_blamed_for_what_the_kernel_skipped() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.read(CHILD);
    told.made.clear();
    // While it lives /proc can be asked.
    let later = told.now + 2 * SECOND;
    let accused = told.model.accused(later);
    let listeners: Vec<_> = accused.iter().map(|held| (held.pid, held.cookie, held.fd)).collect();
    assert_eq!(listeners, [(CHILD, LISTENER, 4)]);
    let mut acquitted = told.model.accused(later);
    told.model.acquit(&acquitted.remove(0), later, &mut told.made);
    assert!(told.model.accused(later).is_empty());
    told.wait(2 * SECOND);
    assert_eq!(told.findings(), []);
    // Of one that ended nothing is said.
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.read(CHILD);
    told.now += 2 * SECOND;
    told.exit(CHILD);
    told.model.of_ended(true);
    told.wait(SECOND);
    told.wait(SECOND);
    assert_eq!(told.findings(), []);
}

/// A parent whose child executes another program with the descriptor close-on-exec; a shell that runs one.
#[test]
fn a_copy_that_is_closed_untouched_is_no_hand_off() {
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.fork(CHILD, 58);
    told.exec(58, &[0, 1, 2]);
    told.fork(CHILD, 59);
    told.exit(59);
    assert!(told.handed().is_empty());
    told.read(CHILD);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!((handed[0].from.pid, handed[0].to.pid), (SERVER, CHILD));
    assert_eq!((handed[0].how, handed[0].through.pid), (handoff::FORK, SERVER));
    // Nobody ever does anything with it.
    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.close(CHILD, CONNECTION, 5);
    told.last_close(CHILD);
    told.wait(2 * SECOND);
    assert!(told.handed().is_empty());
    assert_eq!(told.model.holds, 2, "the listener, in both");
}

#[test]
fn it_is_handed_back() {
    let mut told = Told::serving();
    told.read(SERVER);
    told.fork(SERVER, CHILD);
    told.read(CHILD);
    told.exit(CHILD);
    told.handed();
    told.read(SERVER);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!((handed[0].from.pid, handed[0].to.pid), (CHILD, SERVER));
    assert_eq!((handed[0].how, handed[0].through.pid), (handoff::ACCEPTED, 0));
    assert_eq!((handed[0].held_ns, handed[0].first_ns), (UNKNOWN, UNKNOWN));
    assert_eq!(handed[0].first, touch::READ);
    // A helper keeps it after that.
    told.fork(SERVER, 58);
    told.close(SERVER, CONNECTION, 5);
    told.wait(2 * SECOND);
    assert_eq!(told.findings(), [(finding::KEPT_OPEN, 58, SERVER)]);
}

#[test]
fn the_user_of_a_listener_is_who_accepts() {
    let mut told = Told::new();
    let bound = Bound {
        inode: 98,
        fd: 4,
        reserved: 0,
    };
    told.tell(SERVER, LISTENER, Detail::Bound(bound));
    for worker in [CHILD, 58, 59] {
        told.fork(SERVER, worker);
        told.tell(worker, LISTENER, Detail::Listening(listening(4)));
    }
    assert!(told.handed().is_empty());
    let accept = |told: &mut Told, pid, cookie| {
        let queues = Queues {
            listener: LISTENER,
            ..Queues::UNKNOWN
        };
        let accepted = Accepted {
            queues,
            fd: 8,
            ..Accepted::zeroed()
        };
        told.tell(pid, cookie, Detail::Accepted(accepted));
    };
    accept(&mut told, CHILD, 11);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(
        (handed[0].from.pid, handed[0].to.pid, handed[0].to.fd),
        (SERVER, CHILD, 4)
    );
    assert_eq!((handed[0].how, handed[0].first), (handoff::FORK, touch::ACCEPT));
    // Others accept, too, and one after the other ends.
    accept(&mut told, 58, 12);
    told.exit(CHILD);
    accept(&mut told, 58, 13);
    told.exit(58);
    told.wait(2 * SECOND);
    assert_eq!(told.close(SERVER, LISTENER, 4), Some(1));
    told.wait(2 * SECOND);
    assert!(told.handed().is_empty(), "who lets go hands it to nobody");
    // The one that is left does what the others did.
    accept(&mut told, 59, 14);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!((handed[0].from.pid, handed[0].to.pid), (58, 59));
    assert_eq!((handed[0].how, handed[0].through.pid), (handoff::FORK, SERVER));
    assert_eq!(told.close(59, LISTENER, 4), Some(0));
}

#[test]
fn a_listener_that_children_hold_is_told_once_with_their_number() {
    let mut told = Told::serving();
    for (child, cookie) in [(CHILD, CONNECTION), (58, 11), (59, 12)] {
        let queues = Queues {
            listener: LISTENER,
            ..Queues::UNKNOWN
        };
        let accepted = Accepted {
            queues,
            fd: 5,
            ..Accepted::zeroed()
        };
        told.close(SERVER, cookie, 5);
        told.tell(SERVER, cookie, Detail::Accepted(accepted));
        told.fork(SERVER, child);
        told.close(SERVER, cookie, 5);
        let touched = Touched {
            what: touch::WRITE,
            fd: 5,
            inode: cookie,
        };
        told.tell(child, cookie, Detail::Touched(touched));
    }
    told.made.clear();
    for _ in 0..4 {
        told.wait(SECOND);
    }
    let counts: Vec<_> = told
        .made
        .iter()
        .filter_map(|event| match event.detail {
            Detail::Finding(finding) => Some((finding.what, finding.holder.pid, finding.count)),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [(finding::LISTENER_HELD, CHILD, 3)]);
}

#[test]
fn what_is_not_known_is_unknown() {
    // It is known that it duplicated one, but not where that came from.
    let mut told = Told::serving();
    let opened = |how| Detail::FdOpened(FdOpened { fd: 9, how, inode: 0 });
    told.tell(77, CONNECTION, opened(how::DUPLICATED));
    told.read(77);
    assert_eq!(told.handed()[0].how, handoff::UNKNOWN);
    // Something was lost after the socket was there: perhaps the fork of this one.
    let mut told = Told::serving();
    told.model.lost(told.now);
    assert_eq!(told.open(77, CONNECTION, 9), Some(how::UNKNOWN));
    told.read(77);
    let handed = told.handed();
    assert_eq!((handed[0].how, handed[0].held_ns), (handoff::UNKNOWN, UNKNOWN));
    // Where the kernel says so, it is known all the same.
    told.tell(78, CONNECTION, opened(how::RECEIVED));
    told.read(78);
    assert_eq!(told.handed()[0].how, handoff::FD_PASSING);
}

#[test]
fn what_io_uring_keeps_is_not_inherited() {
    let mut told = Told::serving();
    // A direct descriptor has no number, and none comes.
    let accepted = Accepted {
        fd: UNKNOWN_FD,
        ..Accepted::zeroed()
    };
    told.tell(SERVER, 11, Detail::Accepted(accepted));
    told.tell(SERVER, 12, connect(NO_FD));
    told.fork(SERVER, CHILD);
    let inherited: Vec<_> = told
        .made
        .drain(..)
        .map(|event| (event.kind(), event.envelope.cookie))
        .collect();
    assert_eq!(inherited, [(Kind::Inherited, LISTENER), (Kind::Inherited, CONNECTION)]);
    let touched = Touched {
        what: touch::READ,
        fd: NO_FD,
        inode: 0,
    };
    told.tell(SERVER, 12, Detail::Touched(touched));
    assert!(told.handed().is_empty());
    assert!(!told.model.processes[&SERVER].holds.contains_key(&12));
}

#[test]
fn each_life_has_its_own_four_tuple() {
    let mut told = Told::new();
    told.tell(SERVER, CONNECTION, connect(5));
    told.dport = Some(0);
    told.tell(SERVER, CONNECTION, closed());
    let last = |told: &Told| told.last.map(|event| (event.envelope.dport, event.life()));
    assert_eq!(last(&told), Some((53_114, None)), "it has lost its peer by then");
    told.tell(SERVER, CONNECTION, Detail::Bound(Bound::zeroed()));
    assert_eq!(last(&told), Some((0, Some(2))));
    told.tell(SERVER, CONNECTION, Detail::Listening(listening(5)));
    assert_eq!(last(&told), Some((0, Some(2))), "one life");
    assert_eq!(told.close(SERVER, CONNECTION, 5), Some(0));
    assert_eq!(last(&told), Some((0, Some(2))));
    told.last_close(SERVER);
    told.tell(0, CONNECTION, closed());
    assert_eq!(last(&told), Some((0, Some(2))));
    told.wait(2 * SECOND);
    assert!(told.model.ghosts.is_empty());
}

#[test]
fn what_is_older_is_so_to_its_end() {
    let mut told = Told::new();
    let envelope = Envelope {
        cookie: CONNECTION,
        family: 4,
        ..Envelope::zeroed()
    };
    told.model.before(envelope, 97, false, &[]);
    told.last_close(SERVER);
    told.tell(0, CONNECTION, closed());
    assert!(told.last.is_some_and(|event| event.born_before()));
    told.tell(0, CONNECTION + 1, closed());
    assert!(told.last.is_some_and(|event| !event.born_before()));
}

/// Forks multiply what a process holds: there is an end to it, and that is said.
#[test]
fn copies_are_limited_and_that_is_counted() {
    let mut told = Told::new();
    for cookie in 1..=97 {
        told.tell(SERVER, cookie, connect(i32::try_from(cookie).expect("small")));
    }
    for child in 100..110 {
        told.fork(SERVER, child);
    }
    assert_eq!((told.model.holds, told.model.full()), (97 * 8, 3));
    assert_eq!(told.close(SERVER, 7, 7), Some(UNKNOWN_DEPTH));
    assert_eq!(told.close(109, 7, 7), Some(UNKNOWN_DEPTH), "one that is not followed");
    for pid in (100..107).chain([SERVER]) {
        told.exit(pid);
    }
    assert_eq!((told.model.holds, told.model.processes.len()), (0, 0));
}

/// So many that all of what each does must not be done for each.
#[test]
fn many_children_are_no_trouble() {
    const CHILDREN: u32 = 20_000;
    let mut told = Told::serving();
    told.model.room = 65_536;
    for child in 0..CHILDREN {
        told.fork(SERVER, 1000 + child);
    }
    told.made.clear();
    for child in 0..CHILDREN {
        told.exit(1000 + child);
    }
    assert_eq!(told.closed().last(), Some(&(5, 1)));
    assert_eq!(told.model.processes.len(), 1);
}
