//! Aligned columns, as the field has them: TIME EVENT PID COMM LADDR LPORT RADDR RPORT, then what the event says.

use std::{fmt::Write as _, io::Write as _};

use anyhow::Result;

use crate::{clock::Clock, comm::Comm, event::Event};

/// `255.255.255.255`
const ADDR: usize = 15;
/// `synack_retransmitted`
const EVENT: usize = 20;

/// Writes columns. An address column grows with the widest address it met.
pub struct Text {
    laddr: usize,
    raddr: usize,
    line: String,
    addr: String,
    headed: bool,
}

impl Text {
    pub fn new() -> Self {
        Self {
            laddr: ADDR,
            raddr: ADDR,
            line: String::new(),
            addr: String::new(),
            headed: false,
        }
    }

    /// Appends the header, once.
    pub fn header(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if !self.headed {
            self.headed = true;
            writeln!(
                out,
                "{:<15} {:<EVENT$} {:>7} {:<15} {:<la$} {:>5} {:<ra$} {:>5} DETAIL",
                "TIME",
                "EVENT",
                "PID",
                "COMM",
                "LADDR",
                "LPORT",
                "RADDR",
                "RPORT",
                la = self.laddr,
                ra = self.raddr,
            )?;
        }
        Ok(())
    }

    /// Appends the line of an event.
    pub fn event(&mut self, event: &Event, clock: &mut Clock, out: &mut Vec<u8>) -> Result<()> {
        self.header(out)?;
        self.line.clear();
        clock.time_of_day(event.envelope.time_ns, &mut self.line);
        write!(self.line, " {:<EVENT$} ", event.kind().name())?;
        match event.task() {
            Some(task) => write!(self.line, "{:>7} {:<15} ", task.pid, Comm(task.comm))?,
            None => write!(self.line, "{:>7} {:<15} ", "-", "-")?,
        }
        self.ends(event)?;
        event.detail.text(&mut self.line)?;
        if event.born_before() {
            self.line.push_str(" (older than the trace)");
        }
        if let Some(life) = event.life() {
            write!(self.line, " (life {life} of the socket)")?;
        }
        out.extend_from_slice(self.line.trim_end().as_bytes());
        out.push(b'\n');
        Ok(())
    }

    /// The four-tuple, where there is one.
    fn ends(&mut self, event: &Event) -> Result<()> {
        // An event about a process is about no one socket.
        if event.envelope.family == 0 {
            let (la, ra) = (self.laddr, self.raddr);
            write!(self.line, "{:<la$} {:>5} {:<ra$} {:>5} ", "-", "-", "-", "-")?;
            return Ok(());
        }
        self.addr.clear();
        write!(self.addr, "{}", event.laddr())?;
        self.laddr = self.laddr.max(self.addr.len());
        write!(
            self.line,
            "{:<w$} {:>5} ",
            self.addr,
            event.envelope.sport,
            w = self.laddr
        )?;
        let raddr = event.raddr();
        if event.envelope.dport == 0 && raddr.is_unspecified() {
            write!(self.line, "{:<w$} {:>5} ", "-", "-", w = self.raddr)?;
        } else {
            self.addr.clear();
            write!(self.addr, "{raddr}")?;
            self.raddr = self.raddr.max(self.addr.len());
            write!(
                self.line,
                "{:<w$} {:>5} ",
                self.addr,
                event.envelope.dport,
                w = self.raddr
            )?;
        }
        Ok(())
    }
}
