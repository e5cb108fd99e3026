use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Closed, END_UNSEEN, FIN_RECEIVED, UNCOUNTED, state, timer};

use super::{
    Describe, FieldDoc, Millis, known,
    names::{Errno, numbered},
};

/// `net/ipv4/tcp.c` reports these when it gives up by itself.
const ETIMEDOUT: u32 = 110;
const EHOSTUNREACH: u32 = 113;
const ENETUNREACH: u32 = 101;

/// Who ended the connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Local,
    Remote,
    /// The peer did not answer any more.
    Timeout,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Timeout => "timeout",
        }
    }
}

/// The last state tells which FIN was first (RFC 9293, figure 5); from ESTABLISHED there was none, so somebody aborted.
fn first(closed: &Closed) -> Option<By> {
    match closed.oldstate {
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING => Some(By::Local),
        state::CLOSE_WAIT | state::LAST_ACK => Some(By::Remote),
        state::ESTABLISHED | state::SYN_RECV => Some(match closed.errno {
            // The kernel's own close: the program's, or `ss -K`.
            0 | 103 => By::Local,
            ETIMEDOUT | EHOSTUNREACH | ENETUNREACH => By::Timeout,
            _ => By::Remote,
        }),
        _ => None,
    }
}

/// Payload bytes that the peer sent: the kernel counts its FIN as one more (`tcp_rcv_nxt_update`).
fn bytes_in(closed: &Closed) -> u64 {
    closed
        .bytes_received
        .saturating_sub(u64::from(closed.flags & FIN_RECEIVED))
}

/// Payload bytes that we sent, each once.
fn bytes_out(closed: &Closed) -> u64 {
    closed.bytes_sent.saturating_sub(closed.bytes_retrans)
}

impl Describe for Closed {
    const MEANING: &'static str = "The connection is over for this end: its socket is in CLOSE (what may remain is a \
                                   timewait sock). Once for each end, and only for what was a connection.";
    const TASK: Option<&'static str> = Some(
        "the one in whose call the socket got to CLOSE: by close(2), or because the end came in while that call held the socket; absent where it came in softirq",
    );
    const FIELDS: &'static [FieldDoc] = &[
        (
            "lifetime_ns",
            "since `connect` or `established`, or since `accept_queued` where no `established` was told (with TCP Fast Open it \
             may end before its handshake); absent for a connection that is older than the trace",
        ),
        ("bytes_in", "payload received"),
        ("bytes_out", "payload sent, each byte once"),
        ("segs_in", "segments received"),
        ("segs_out", "segments sent"),
        ("retransmits", "segments sent again"),
        (
            "srtt_us",
            "smoothed round-trip time in microseconds; absent without a measurement",
        ),
        (
            "closed_by",
            "who ended it first: `local`, `remote`, or `timeout` when the peer did not answer any more",
        ),
        (
            "seen",
            "`false` where nobody saw when and how it ended: it was found later, so `lifetime_ns` and `closed_by` are absent, \
             and so is what was counted unless the socket was still there",
        ),
        (
            "timer",
            "which of the kernel's timers gave up: `keepalive` (nothing was in flight, and probes were not answered), \
             `retransmission` (what was sent again and again was not acknowledged), `window_probe` (the peer's window was \
             closed, and probes of it were not answered), `user_timeout` (one of the first two, for as long as \
             TCP_USER_TIMEOUT says)",
        ),
        (
            "errno",
            "the socket's error by name, if it has one: `ECONNRESET`, `EPIPE`, `ETIMEDOUT`, …",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if let Some(ns) = known(self.lifetime_ns) {
            map.serialize_entry("lifetime_ns", &ns)?;
        }
        if self.flags & END_UNSEEN != 0 {
            map.serialize_entry("seen", &false)?;
        }
        if self.flags & UNCOUNTED != 0 {
            return Ok(());
        }
        map.serialize_entry("bytes_in", &bytes_in(self))?;
        map.serialize_entry("bytes_out", &bytes_out(self))?;
        map.serialize_entry("segs_in", &self.segs_in)?;
        map.serialize_entry("segs_out", &self.segs_out)?;
        map.serialize_entry("retransmits", &self.retransmits)?;
        if self.srtt_us8 != 0 {
            map.serialize_entry("srtt_us", &(self.srtt_us8 >> 3))?;
        }
        if let Some(by) = first(self) {
            map.serialize_entry("closed_by", by.name())?;
        }
        if self.timer != timer::NONE {
            map.serialize_entry("timer", numbered(&timer::NAMES, self.timer))?;
        }
        if self.errno != 0 {
            map.serialize_entry("errno", &Errno(self.errno))?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.flags & END_UNSEEN != 0 {
            out.write_str("end not seen, found later")?;
            if self.flags & UNCOUNTED != 0 {
                return Ok(());
            }
            return write!(out, ", in {} B, out {} B", bytes_in(self), bytes_out(self));
        }
        match known(self.lifetime_ns) {
            Some(ns) => write!(out, "{}", Millis(ns))?,
            None => out.write_str("age unknown")?,
        }
        write!(out, ", in {} B, out {} B", bytes_in(self), bytes_out(self))?;
        if self.retransmits != 0 {
            write!(out, ", {} retransmits", self.retransmits)?;
        }
        if self.srtt_us8 != 0 {
            write!(out, ", rtt {}", Millis(u64::from(self.srtt_us8 >> 3) * 1000))?;
        }
        match first(self) {
            Some(By::Timeout) if self.timer == timer::NONE => out.write_str(", timed out")?,
            Some(By::Timeout) | None => {}
            Some(by) => write!(out, ", by {}", by.name())?,
        }
        out.write_str(match self.timer {
            timer::KEEPALIVE => ", keepalive was not answered",
            timer::RETRANSMISSION => ", retransmissions were not answered",
            timer::WINDOW_PROBE => ", probes of the peer's window were not answered",
            timer::USER_TIMEOUT => ", TCP_USER_TIMEOUT ran out",
            _ => "",
        })?;
        if self.errno != 0 {
            write!(out, ", {}", Errno(self.errno))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::{By, Closed, FIN_RECEIVED, bytes_in, bytes_out, first, state};

    fn ended(oldstate: u32, errno: u32) -> Option<By> {
        first(&Closed {
            oldstate,
            errno,
            ..Closed::zeroed()
        })
    }

    #[test]
    fn the_last_state_tells_who_closed_first() {
        assert_eq!(ended(state::FIN_WAIT2, 0), Some(By::Local));
        assert_eq!(ended(state::FIN_WAIT1, 104), Some(By::Local), "a reset after our FIN");
        assert_eq!(ended(state::CLOSING, 0), Some(By::Local));
        assert_eq!(ended(state::LAST_ACK, 0), Some(By::Remote));
        assert_eq!(ended(state::CLOSE_WAIT, 32), Some(By::Remote));
        assert_eq!(ended(state::ESTABLISHED, 0), Some(By::Local), "an abort");
        assert_eq!(ended(state::ESTABLISHED, 104), Some(By::Remote), "a reset");
        assert_eq!(ended(state::ESTABLISHED, 110), Some(By::Timeout));
        assert_eq!(ended(state::LISTEN, 0), None);
    }

    #[test]
    fn the_fin_is_no_payload_and_retransmitted_bytes_count_once() {
        let closed = Closed {
            bytes_received: 11,
            bytes_sent: 30,
            bytes_retrans: 10,
            flags: FIN_RECEIVED,
            ..Closed::zeroed()
        };
        assert_eq!(bytes_in(&closed), 10);
        assert_eq!(bytes_out(&closed), 20);
    }
}
