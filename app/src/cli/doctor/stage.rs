//! The connections in a process of their own, which needs no privilege to have a network namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns;

/// A process that waits to make the connections.
pub struct Stage {
    child: Child,
    go: ChildStdin,
}

impl Stage {
    /// Begins it, and says in which network namespace it is.
    pub fn begin() -> Result<(Self, u32)> {
        let mut child = Command::new("/proc/self/exe")
            .args(["doctor", "--play"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run a process for the connections")?;
        let go = child.stdin.take().context("no pipe to it")?;
        let mut said = BufReader::new(child.stdout.take().context("no pipe from it")?);
        let mut line = String::new();
        said.read_line(&mut line).context("cannot read from it")?;
        let stage = Self { child, go };
        match line.trim().parse() {
            Ok(netns) => Ok((stage, netns)),
            Err(_) => bail!(stage.words()?),
        }
    }

    /// Has it make the connections.
    pub fn play(mut self) -> Result<()> {
        self.go.write_all(b"\n").context("it has ended")?;
        let status = self.child.wait().context("cannot wait for it")?;
        ensure!(status.success(), self.words()?);
        Ok(())
    }

    /// What it said at its end.
    fn words(mut self) -> Result<String> {
        drop(self.go);
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut words).context("cannot read from it")?;
        }
        self.child.wait().context("cannot wait for it")?;
        Ok(words.trim().trim_start_matches("socklife: ").to_owned())
    }
}

/// In that process.
pub fn play() -> Result<()> {
    let netns = netns::enter_new_as_anybody()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{netns}")
        .and_then(|()| stdout.flush())
        .context("nobody waits")?;
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).context("nobody waits")? == 0 {
        return Ok(());
    }
    crate::scene::all()
}
