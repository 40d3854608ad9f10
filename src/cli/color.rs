//! Colors of the command line. `anstream` leaves them out where output is no terminal, or `NO_COLOR` is set.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// What went well.
pub(super) fn good(text: impl Display) -> impl Display {
    painted(AnsiColor::Green, text)
}

/// What went wrong.
pub(super) fn bad(text: impl Display) -> impl Display {
    painted(AnsiColor::Red, text)
}

/// What deserves a second look.
pub(super) fn notable(text: impl Display) -> impl Display {
    painted(AnsiColor::Yellow, text)
}

fn painted(color: AnsiColor, text: impl Display) -> impl Display {
    let style = Style::new().fg_color(Some(color.into())).bold();
    format!("{style}{text}{style:#}")
}
