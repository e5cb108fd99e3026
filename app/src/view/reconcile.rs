//! What was counted of a namespace by us and by the kernel, as one JSON line. In text it is a
//! [`Verdict`](crate::model::reconcile::Verdict).

use serde::{Serialize, Serializer};

use crate::{model::reconcile::Compared, output::Line};

#[derive(Serialize)]
struct Fields<'a> {
    netns: u32,
    agree: bool,
    #[serde(serialize_with = "ours")]
    counted: &'a [Compared],
    #[serde(serialize_with = "theirs")]
    kernel: &'a [Compared],
}

fn ours<S: Serializer>(compared: &[Compared], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(compared.iter().map(|compared| (compared.name, compared.ours.1)))
}

fn theirs<S: Serializer>(compared: &[Compared], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(compared.iter().map(|compared| (compared.name, compared.kernel)))
}

/// Appends the line of a namespace.
pub fn json(netns: u32, compared: &[Compared], line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let fields = Fields {
        netns,
        agree: compared.iter().all(Compared::agrees),
        counted: compared,
        kernel: compared,
    };
    line.write("reconcile", &fields, out)
}

#[cfg(test)]
mod tests {
    use super::{Compared, Line, json};

    #[test]
    fn both_sides_are_in_the_line() {
        let compared = |name, ours, kernel| Compared { name, ours, kernel };
        let counters = [
            compared("ListenDrops", (3, 4), 4),
            compared("SyncookiesSent", (1, 1), 2),
        ];
        let mut out = Vec::new();
        let line = Line { time_ns: 5, wall: "w" };
        json(7, &counters, line, &mut out).expect("JSON");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"v\":1,\"event\":\"reconcile\",\"time_ns\":5,\"wall\":\"w\",\"netns\":7,\"agree\":false,\
             \"counted\":{\"ListenDrops\":4,\"SyncookiesSent\":1},\
             \"kernel\":{\"ListenDrops\":4,\"SyncookiesSent\":2}}\n"
        );
    }
}
