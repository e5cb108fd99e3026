//! Many forks.

use crate::harness::{
    Namespace, Tracer,
    memory::resident,
    models::{Model, STORM},
    socklife,
};

/// 5,003 children of a process that holds a listener and a connection: each is told, none is left over, and the connection is
/// whose it was.
pub fn forks() {
    let namespace = Namespace::new();
    let kinds = "accepted,forked,exited,inherited,handed_off,last_close,finding";
    let mut trace = socklife();
    trace.args([
        "trace",
        "-o",
        "json",
        "-e",
        kinds,
        "--netns",
        &namespace.inode.to_string(),
    ]);
    let tracer = Tracer::spawn(trace);
    let before = resident(tracer.pid());
    let (model, served, pid) = namespace.run(|| {
        let mut model = Model::start("storm");
        let address = model.address;
        let served = model.ask(address);
        let pid = model.pid();
        (model, served, pid)
    });
    tracer.wait_for("exited", STORM);
    tracer.wait_for("last_close", 2);
    let after = resident(tracer.pid());
    model.stop();
    let events = tracer.stop();
    events.assert_whole();
    assert_eq!(served.pid, u64::from(pid));
    let by = |kind: &str| events.of(kind).into_iter().filter(|event| event["pid"] == pid).count();
    assert_eq!((by("forked"), by("inherited")), (STORM, 2 * STORM));
    let ended = events
        .of("exited")
        .into_iter()
        .filter(|event| event["pid"] != pid)
        .count();
    assert_eq!(ended, STORM);
    for kind in ["handed_off", "finding"] {
        assert!(events.of(kind).is_empty(), "{:?}", events.of(kind));
    }
    let last: Vec<_> = events
        .of("last_close")
        .into_iter()
        .filter(|event| event["cookie"] == served.cookie)
        .collect();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(last[0]["pid"], pid);
    assert!(after < before + (32 << 10), "{before} KiB, then {after} KiB");
}
