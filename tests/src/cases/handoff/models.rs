//! Servers of every model: whoever says that it served a connection is the one that socklife says has it.

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, Tracer,
    models::{AFTER_EXEC, Model, Served},
};

const COUNT: usize = 7;
const KINDS: &str = "listening,accepted,inherited,handed_off,fd_opened,fd_closed,last_close,finding";

/// What happened with a model, and who says to have served.
struct Story {
    model: u32,
    served: Vec<Served>,
    events: Events,
}

impl Story {
    fn of(class: Class, model: &'static str) -> Self {
        let namespace = Namespace::new();
        let tracer = Tracer::start(class, &namespace, &["-e", KINDS]);
        let (model, served, pid) = namespace.run(move || {
            let mut model = Model::start(model);
            let address = model.address;
            let served: Vec<_> = (0..COUNT).map(|_| model.ask(address)).collect();
            let pid = model.pid();
            (model, served, pid)
        });
        // Both ends of each.
        tracer.wait_for("last_close", 2 * COUNT);
        model.stop();
        let events = tracer.stop();
        events.assert_whole();
        Self {
            model: pid,
            served,
            events,
        }
    }

    /// Of the server's end.
    fn of_kind(&self, kind: &str, served: &Served) -> Vec<&Value> {
        let of_socket = self.events.of_socket(served.cookie);
        of_socket.filter(|event| event["event"] == kind).collect()
    }

    fn one(&self, kind: &str, served: &Served) -> &Value {
        let events = self.of_kind(kind, served);
        assert_eq!(events.len(), 1, "{kind} of {served:?}: {events:?}");
        events[0]
    }

    /// The one that accepts serves, too, and nothing changes hands.
    fn keeps(&self) {
        assert_eq!(self.served.len(), COUNT);
        for served in &self.served {
            assert_eq!(self.one("accepted", served)["pid"], served.pid, "{served:?}");
            assert_eq!(self.one("last_close", served)["pid"], served.pid, "{served:?}");
            let handed = self.of_kind("handed_off", served);
            assert!(handed.is_empty(), "{handed:?}");
        }
        self.is_right();
    }

    /// The one that accepts gives it away, and this is how.
    fn hands_off(&self, how: &str) {
        assert_eq!(self.served.len(), COUNT);
        for served in &self.served {
            assert_eq!(self.one("accepted", served)["pid"], self.model);
            let handed = self.one("handed_off", served);
            assert_eq!(handed["how"], how, "{handed}");
            assert_eq!(handed["from"]["pid"], self.model, "{handed}");
            assert_eq!(
                (&handed["to"]["pid"], &handed["to"]["fd"]),
                (&served.pid.into(), &served.fd.into()),
                "{handed}"
            );
            assert_eq!(handed["first"], "read");
            assert_eq!(handed["pid"], served.pid);
            let comm = if how == "exec" { AFTER_EXEC } else { "exe" };
            assert_eq!(handed["to"]["comm"], comm, "{handed}");
            let closed = self.of_kind("fd_closed", served);
            let ends: Vec<_> = closed.iter().filter(|event| event["left"] == 0).collect();
            // What is under way in a message is held by nobody.
            assert!(ends.len() == 1 || how == "fd_passing", "{closed:?}");
            // Between giving up a descriptor and letting go of the file a task can be overtaken.
            let last = self.one("last_close", served);
            assert!(
                closed.iter().any(|event| event["pid"] == last["pid"]),
                "{last}: {closed:?}"
            );
        }
        self.is_right();
    }

    fn is_right(&self) {
        let found = self.events.of("finding");
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Three processes accept from one listener.
pub fn prefork(class: Class) {
    let story = Story::of(class, "prefork");
    story.keeps();
    let listener = &story.events.one("listening")["cookie"];
    let inherited = story.events.of("inherited");
    let workers = inherited.iter().filter(|event| event["cookie"] == *listener);
    assert_eq!(workers.count(), 3, "{inherited:?}");
}

/// One process, three threads.
pub fn threads(class: Class) {
    let story = Story::of(class, "threads");
    story.keeps();
    assert!(story.served.iter().all(|served| served.pid == u64::from(story.model)));
}

/// Over a Unix socket.
pub fn fd_passing(class: Class) {
    let story = Story::of(class, "fd-passing");
    story.hands_off("fd_passing");
    for served in &story.served {
        let opened = story.of_kind("fd_opened", served);
        let received: Vec<_> = opened.iter().filter(|event| event["pid"] == served.pid).collect();
        assert_eq!(received.len(), 1, "{opened:?}");
        assert_eq!(
            (&received[0]["fd"], &received[0]["how"]),
            (&served.fd.into(), &"received".into())
        );
    }
}

/// To a grandchild that runs another program.
pub fn double_fork_exec(class: Class) {
    Story::of(class, "double-fork-exec").hands_off("exec");
}

/// To a child that has it as its standard input and output.
pub fn inetd(class: Class) {
    let story = Story::of(class, "inetd");
    story.hands_off("exec");
    for served in &story.served {
        assert_eq!(served.fd, 0);
        let closed = story.of_kind("fd_closed", served);
        let by_child = closed.iter().filter(|event| event["pid"] == served.pid).count();
        assert_eq!(by_child, 3, "0, 1 and the one it came as: {closed:?}");
    }
}

/// One listens, another accepts.
pub fn activation(class: Class) {
    let story = Story::of(class, "activation");
    story.keeps();
    assert!(story.served.iter().all(|served| served.pid != u64::from(story.model)));
    let listener = &story.events.one("listening")["cookie"];
    let closed = story.events.of("fd_closed");
    let on_exec: Vec<_> = closed
        .iter()
        .filter(|event| event["cookie"] == *listener && event["pid"] == story.served[0].pid && event["fd"] != 20)
        .collect();
    assert_eq!(on_exec.len(), 1, "the copy marked close-on-exec: {on_exec:?}");
}

/// A child that has the number of one that ended before is not taken for it.
pub fn pid_reuse(class: Class) {
    let story = Story::of(class, "pid-reuse");
    story.hands_off("fork");
    let pid = story.served[0].pid;
    assert!(
        story.served.iter().all(|served| served.pid == pid),
        "{:?}",
        story.served
    );
    let forks = story.events.of("inherited");
    let of_connections = forks.iter().filter(|event| event["raddr"].is_string());
    assert_eq!(of_connections.count(), COUNT, "{forks:?}");
}

/// Who closes a copy untouched was handed nothing.
pub fn untouched_copy(class: Class) {
    Story::of(class, "untouched-copy").hands_off("fork");
}

/// It comes back to the one that gave it away.
pub fn handed_back(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["-e", KINDS]);
    let (model, served, pid) = namespace.run(|| {
        let mut model = Model::start("handed-back");
        let address = model.address;
        let served: Vec<_> = (0..COUNT).map(|_| model.ask_twice(address)).collect();
        let pid = model.pid();
        (model, served, pid)
    });
    tracer.wait_for("last_close", 2 * COUNT);
    model.stop();
    let story = Story {
        model: pid,
        served: Vec::new(),
        events: tracer.stop(),
    };
    story.events.assert_whole();
    for [child, parent] in &served {
        assert_eq!(parent.pid, u64::from(story.model));
        let handed = story.of_kind("handed_off", child);
        let ways: Vec<_> = handed
            .iter()
            .map(|event| {
                (
                    &event["from"]["pid"],
                    &event["to"]["pid"],
                    &event["how"],
                    &event["first"],
                )
            })
            .collect();
        let (parent, child) = (&parent.pid.into(), &child.pid.into());
        assert_eq!(
            ways,
            [
                (parent, child, &"fork".into(), &"read".into()),
                (child, parent, &"accepted".into(), &"read".into())
            ]
        );
        assert_eq!(handed[0]["through"]["pid"], *parent);
        assert_eq!(handed[1]["through"], Value::Null);
    }
    story.is_right();
}

/// What is bound, and does not listen yet, is followed; who listens on it later got it by fork(2).
pub fn bound_then_forked(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(
        class,
        &namespace,
        &["-e", "bound,listening,inherited,handed_off,fd_closed,last_close"],
    );
    let model = namespace.run(|| Model::start("bound-then-forked"));
    tracer.wait_for("last_close", 1);
    let pid = model.pid();
    model.stop();
    let events = tracer.stop();
    events.assert_whole();
    let bound = events.one("bound");
    assert_eq!(bound["pid"], pid);
    let inherited: Vec<_> = events
        .of("inherited")
        .into_iter()
        .map(|event| (&event["cookie"], &event["fd"], &event["holders"]))
        .collect();
    assert_eq!(inherited, [(&bound["cookie"], &bound["fd"], &2.into()); 2]);
    assert_eq!(events.of("listening").len(), 2);
    let left: Vec<_> = events.of("fd_closed").into_iter().map(|event| &event["left"]).collect();
    assert_eq!(left, [1, 1, 0]);
    assert_eq!(events.one("last_close")["pid"], pid);
    assert!(events.of("handed_off").is_empty(), "{:?}", events.of("handed_off"));
}

/// Children that do not get a connection do not hold it.
pub fn child_without_it(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(
        class,
        &namespace,
        &["-e", "connect,handed_off,fd_closed,last_close,finding"],
    );
    let model = namespace.run(|| Model::start("child-without-it"));
    // Of the listener, and of both its connections, which nobody accepted.
    tracer.wait_for("last_close", 3);
    let pid = model.pid();
    model.stop();
    let events = tracer.stop();
    events.assert_whole();
    let connects = events.of("connect");
    assert_eq!(connects.len(), 2);
    for connect in connects {
        let closed: Vec<_> = events
            .of("fd_closed")
            .into_iter()
            .filter(|event| event["cookie"] == connect["cookie"])
            .collect();
        // The descriptor is gone from /proc a moment before its close is told: the parent may be first.
        let left: Vec<_> = closed.iter().map(|event| &event["left"]).collect();
        assert_eq!(left, [1, 0], "{connect}");
        let by_parent = closed.iter().filter(|event| event["pid"] == pid).count();
        assert_eq!(by_parent, 1, "{closed:?}");
    }
    for kind in ["handed_off", "finding"] {
        assert!(events.of(kind).is_empty(), "{:?}", events.of(kind));
    }
}
