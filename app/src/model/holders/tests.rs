use std::collections::HashMap;

use bytemuck::Zeroable as _;
use socklife_abi::event::{
    Accepted, Connect, EXECUTED_WORDS, Envelope, Executed, Exited, FdClosed, FdOpened, FdsClosed, Forked, HAS_TASK,
    HandedOff, Kind, LastClose, Listening, Queues, Touched, UNKNOWN, UNKNOWN_DEPTH, UNKNOWN_FD, finding, handoff, how,
    touch,
};

use super::{Before, Detail, Event, Holders, Look};

const LISTENER: u64 = 3;
const CONNECTION: u64 = 7;
const SERVER: u32 = 41;
const CHILD: u32 = 57;
const SECOND: u64 = 1_000_000_000;

/// A model that is fed step by step; each step is a millisecond.
struct Told {
    model: Holders,
    now: u64,
    made: Vec<Event>,
    last: Option<Event>,
}

impl Told {
    fn new() -> Self {
        Self {
            model: Holders::new(97),
            now: 0,
            made: Vec::new(),
            last: None,
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
                dport: if cookie == LISTENER { 0 } else { 53_114 },
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
        told.tell(
            SERVER,
            LISTENER,
            Detail::Listening(Listening {
                backlog_asked: 1,
                asked_known: 1,
                backlog: 1,
                fd: 4,
            }),
        );
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
                accept_wait_ns: 0,
                dead_ns: UNKNOWN,
                fd,
                dead: 0,
                errno: 0,
                reserved: 0,
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
            reserved: 0,
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
        self.model.of_ended(false, &mut self.made);
        self.model.tick(self.now, &mut self.made);
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
fn an_idle_child_is_the_owner_after_a_second_or_at_its_end() {
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

    let mut told = Told::serving();
    told.fork(SERVER, CHILD);
    told.close(SERVER, CONNECTION, 5);
    told.close(CHILD, CONNECTION, 5);
    assert_eq!(
        told.handed().iter().map(|handed| handed.to.pid).collect::<Vec<_>>(),
        [CHILD]
    );
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
    assert_eq!(told.open(SERVER, LISTENER, 5), Some(how::DUPLICATED));
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), None);
    assert_eq!(told.close(SERVER, LISTENER, 4), Some(1));
}

#[test]
fn which_of_several_was_closed_the_process_shows() {
    let mut told = Told::serving();
    told.open(SERVER, CONNECTION, 6);
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), None);
    assert_eq!(told.model.unsure(None), [SERVER]);
    let now = told.now;
    told.model
        .has_only(SERVER, &HashMap::from([(4, 98), (6, 99)]), now, &mut told.made);
    let closed: Vec<_> = told.made.iter().map(|event| event.detail).collect();
    assert!(
        matches!(closed[..], [Detail::FdClosed(FdClosed { fd: 5, left: 1, .. })]),
        "{closed:?}"
    );
}

#[test]
fn a_number_that_nobody_knew_is_kept_while_the_process_has_the_socket() {
    let mut told = Told::new();
    told.tell(SERVER, CONNECTION, Detail::Connect(Connect {}));
    told.open(SERVER, CONNECTION, 1);
    told.read(SERVER);
    assert_eq!(told.close(SERVER, CONNECTION, UNKNOWN_FD), None);
    let now = told.now;
    told.model
        .has_only(SERVER, &HashMap::from([(3, 99)]), now, &mut told.made);
    let closed: Vec<_> = told.made.drain(..).map(|event| event.detail).collect();
    assert!(
        matches!(closed[..], [Detail::FdClosed(FdClosed { fd: 1, left: 1, .. })]),
        "{closed:?}"
    );
    told.model
        .has_only(SERVER, &HashMap::from([(3, 98)]), now, &mut told.made);
    let closed: Vec<_> = told.made.iter().map(|event| event.detail).collect();
    assert!(
        matches!(closed[..], [Detail::FdClosed(FdClosed { left: 0, .. })]),
        "another socket: {closed:?}"
    );
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
    assert!(told.model.unsure(None).is_empty());
    told.close(SERVER, CONNECTION, 5);
    told.read(58);
    let handed = told.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(
        (handed[0].from.pid, handed[0].to.pid, handed[0].how),
        (SERVER, 58, handoff::EXEC)
    );
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
    assert_eq!(handed[0].how, handoff::FD_PASSING);
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
    told.exit(CHILD);
    told.wait(1);
    assert_eq!(told.findings(), [(finding::LISTENER_HELD, CHILD, SERVER)]);

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
        accept_wait_ns: 0,
        dead_ns: UNKNOWN,
        fd: 8,
        dead: 0,
        errno: 0,
        reserved: 0,
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
    let event = told.model.zombie(&ended[0], SERVER, later);
    told.made.push(event);
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
    told.tell(SERVER, CONNECTION, Detail::Connect(Connect {}));
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
        told.tell(SERVER, cookie, Detail::Connect(Connect {}));
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
    told.exit(CHILD);
    told.model.of_ended(true, &mut told.made);
    told.wait(1);
    assert_eq!(told.findings(), []);
}
