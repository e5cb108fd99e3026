//! What is wrong is found, and who is to blame is named.

use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{
    Class, Events, Namespace, Tracer,
    models::Model,
    serve::{Serve, ask},
};

/// One connection to a server that makes this mistake: what the child said, and what was found.
fn mistake(class: Class, option: &str) -> (u32, Value, Events) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["-e", "finding,handed_off"]);
    let server = Serve::start(&namespace, &["127.0.0.1:0"], &[option]);
    let address = server.addresses[0];
    let (client, says) = namespace.run(move || {
        let mut client = TcpStream::connect(address).unwrap();
        let says = ask(&mut client);
        (client, says)
    });
    // What lasts shorter than a second is none; the others are seen when the child is done.
    let lasts = (option == "--leak-listener").then_some(client);
    tracer.wait_for("finding", 1);
    drop(lasts);
    let pid = server.pid();
    let events = tracer.stop();
    server.stop();
    events.assert_whole();
    (pid, says, events)
}

/// Each mistake of the reference server gives its finding, and no other.
pub fn of_serve(class: Class) {
    let (server, says, events) = mistake(class, "--leak-listener");
    let found = events.one("finding");
    assert_eq!(found["finding"], "listener_held", "{found}");
    assert_eq!(
        (&found["holder"]["pid"], &found["other"]["pid"]),
        (&says["pid"], &server.into())
    );
    assert_eq!(
        (&found["lport"], &found["raddr"]),
        (&says["lport"], &Value::Null),
        "{found}"
    );
    assert!(found["holder"]["fd"].is_u64(), "{found}");
    assert_eq!(found["count"], 1, "{found}");

    let (server, says, events) = mistake(class, "--leak-connection");
    let found = events.one("finding");
    assert_eq!(found["finding"], "never_closed", "{found}");
    assert_eq!(
        (&found["holder"]["pid"], &found["other"]["pid"]),
        (&server.into(), &says["pid"])
    );
    for field in ["cookie", "laddr", "lport", "raddr", "rport"] {
        assert_eq!(found[field], says[field], "{field}: {found}");
    }
    assert_eq!(found["holder"]["fd"], says["fd"]);

    let (server, says, events) = mistake(class, "--no-reap");
    let found = events.one("finding");
    assert_eq!(found["finding"], "zombie", "{found}");
    assert_eq!(
        (&found["holder"]["pid"], &found["other"]["pid"]),
        (&says["pid"], &server.into())
    );
}

/// A helper that never touches a connection keeps it open after its server closed it.
pub fn helper(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::start(class, &namespace, &["-e", "finding,inherited"]);
    let (model, served) = namespace.run(|| {
        let mut model = Model::start("helper-keeps");
        let address = model.address;
        let served = model.ask(address);
        (model, served)
    });
    tracer.wait_for("finding", 1);
    let server = model.pid();
    let events = tracer.stop();
    model.stop();
    events.assert_whole();
    let found = events.one("finding");
    assert_eq!(found["finding"], "kept_open", "{found}");
    assert_eq!(found["cookie"], served.cookie, "{found}");
    assert_eq!(found["other"]["pid"], server, "{found}");
    let inherited = events.of("inherited");
    let helper = inherited.iter().find(|event| event["cookie"] == served.cookie).unwrap();
    assert_eq!(
        (&found["holder"]["pid"], &found["holder"]["fd"]),
        (&helper["child"], &served.fd.into())
    );
}
