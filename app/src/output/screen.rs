//! A terminal on which a view is drawn again in place.

use std::{ffi::OsStr, io::IsTerminal as _};

/// The other screen, without a cursor: what stood on the terminal comes back afterwards.
pub const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// Back.
pub const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// What stands to the right of the cursor goes.
const CLEAR_LINE: &str = "\x1b[K";
/// What stands below it goes.
const CLEAR_REST: &str = "\x1b[J";

/// Lines and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// The terminal that standard output is, as large as it is now; `None` if it is something else, or draws nothing.
pub fn size() -> Option<Size> {
    if !draws(std::env::var_os("TERM").as_deref()) || !std::io::stdout().is_terminal() {
        return None;
    }
    // SAFETY: all zeroes is a value of the structure, and the call fills it.
    let mut window: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor that is open, and a place for the answer.
    let asked = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut window) };
    let known = asked == 0 && window.ws_row > 0 && window.ws_col > 0;
    // A serial line does not know.
    let (height, width) = if known {
        (window.ws_row, window.ws_col)
    } else {
        (24, 80)
    };
    Some(Size {
        height: height.into(),
        width: width.into(),
    })
}

/// Whether a terminal of this name takes commands to its cursor.
fn draws(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Draws what fits: the head, then the lines, and at the foot how many there are more; below it what is to be said.
pub fn draw(head: &[String], lines: &[String], foot: &[String], size: Size) -> String {
    let room = size.height.saturating_sub(head.len() + foot.len());
    let (shown, more) = if lines.len() <= room {
        (lines, None)
    } else {
        let shown = &lines[..room.saturating_sub(1)];
        (shown, Some(format!("… {} more", lines.len() - shown.len())))
    };
    let all = head.iter().chain(shown).chain(more.as_ref()).chain(foot);
    let mut out = String::from(HOME);
    let mut drawn = 0;
    for line in all.take(size.height) {
        if drawn > 0 {
            out.push_str("\r\n");
        }
        // First: after a line of full width the cursor still stands on its last column.
        out.push_str(CLEAR_LINE);
        out.extend(line.chars().take(size.width));
        drawn += 1;
    }
    if drawn < size.height {
        out.push_str("\r\n");
        out.push_str(CLEAR_REST);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Size, draw, draws};

    #[test]
    fn a_dumb_terminal_draws_nothing() {
        let drawn = |term: &str| draws(Some(term.as_ref()));
        assert!(drawn("xterm-256color") && drawn("linux"));
        assert!(!drawn("dumb") && !drawn("") && !draws(None));
    }

    fn drawn(lines: usize, height: usize, width: usize) -> Vec<String> {
        let of = |what: &str, count: usize| (0..count).map(|index| format!("{what} {index}")).collect::<Vec<_>>();
        let text = draw(
            &of("head", 1),
            &of("line", lines),
            &of("foot", 1),
            Size { height, width },
        );
        let text = text.strip_prefix("\x1b[H").expect("from the corner");
        // What was there before goes.
        let rest = text.strip_suffix("\r\n\x1b[J");
        let lines: Vec<_> = rest
            .unwrap_or(text)
            .split("\r\n")
            .map(|line| line.strip_prefix("\x1b[K").expect("of an older line").to_owned())
            .collect();
        assert_eq!(rest.is_some(), lines.len() < height);
        lines
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(drawn(2, 4, 80), ["head 0", "line 0", "line 1", "foot 0"]);
        assert_eq!(drawn(3, 4, 80), ["head 0", "line 0", "… 2 more", "foot 0"]);
        assert_eq!(drawn(1, 24, 3), ["hea", "lin", "foo"]);
        assert_eq!(drawn(9, 3, 80), ["head 0", "… 9 more", "foot 0"]);
        assert_eq!(drawn(9, 1, 80), ["head 0"], "never more than fits");
        assert_eq!(drawn(0, 24, 80), ["head 0", "foot 0"]);
    }
}
