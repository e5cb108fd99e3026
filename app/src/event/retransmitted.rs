use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::{Retransmitted, resend};

use super::{
    Describe, FieldDoc,
    names::{Errno, TcpFlags, numbered, state},
};

impl Describe for Retransmitted {
    const MEANING: &'static str = "A segment was sent again.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[
        ("seq", "its sequence number"),
        ("len", "bytes of data in it"),
        ("tcp_flags", "flags of its header: `SYN`, `PSH,ACK`, …"),
        (
            "cause",
            "`timeout` (RTO), `after_timeout` (what was sent before it as well), `fast` (later data was acknowledged), \
             `tail_loss_probe` (RFC 8985), `syn_data_not_acked` (TCP Fast Open: the data of the SYN), `path_mtu` (packets of \
             that size do not get through), `challenge_ack` (a SYN: the peer takes it for one of an older connection), or \
             `unknown`",
        ),
        (
            "timeouts",
            "how many in a row, this one included; absent where there was none",
        ),
        ("state", "of the socket: `SYN_SENT` where it is a SYN"),
        (
            "errno",
            "why it could not be sent; absent where it was (6.17 and later tell)",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("len", &self.len)?;
        map.serialize_entry("tcp_flags", &TcpFlags(self.tcp_flags))?;
        map.serialize_entry("cause", numbered(&resend::NAMES, self.cause))?;
        if self.timeouts != 0 {
            map.serialize_entry("timeouts", &self.timeouts)?;
        }
        map.serialize_entry("state", state(self.state))?;
        if self.errno != 0 {
            map.serialize_entry("errno", &Errno(self.errno))?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(numbered(&resend::NAMES, self.cause))?;
        match self.timeouts {
            0 => {}
            n => write!(out, " {n}")?,
        }
        let flags = TcpFlags(self.tcp_flags);
        write!(
            out,
            ": {flags}, {} bytes, seq {} in {}",
            self.len,
            self.seq,
            state(self.state)
        )?;
        match self.errno {
            0 => Ok(()),
            errno => write!(out, ", not sent: {}", Errno(errno)),
        }
    }
}
