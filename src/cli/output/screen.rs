//! What the place we write to can do: whether it is a terminal, how wide, with or without colour.

use std::fs::File;
use std::io::IsTerminal;
use std::process::{Command, Stdio};

/// Abilities of one output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Screen {
    /// Whether a person looks at it live.
    pub terminal: bool,
    /// Columns, if known. Never set for files and pipes, whose lines must not depend on a window.
    pub width: Option<u16>,
    /// Whether colour and bold are welcome.
    pub colour: bool,
}

/// Emphasis that a terminal shows and a file does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    /// Headings.
    Bold,
    /// Good news.
    Green,
    /// What needs attention.
    Yellow,
    /// What went wrong.
    Red,
}

impl Screen {
    /// A file or pipe: no window, no colour.
    pub const PLAIN: Self = Self { terminal: false, width: None, colour: false };

    /// Decides from facts: `NO_COLOR` set to anything but nothing (no-color.org) and `TERM=dumb` turn colour off; `COLUMNS`
    /// beats the window's own width.
    #[must_use]
    pub fn decide(terminal: bool, env: impl Fn(&str) -> Option<String>, window: impl FnOnce() -> Option<u16>) -> Self {
        if !terminal {
            return Self::PLAIN;
        }
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        let no_colour = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        let told = env("COLUMNS").and_then(|columns| columns.parse().ok());
        let width = told.or_else(window).filter(|columns| *columns >= 20);
        Self { terminal: !dumb, width, colour: !dumb && !no_colour }
    }

    /// Standard output of this process.
    #[must_use]
    pub fn stdout() -> Self {
        Self::decide(std::io::stdout().is_terminal(), |name| std::env::var(name).ok(), window_width)
    }

    /// Standard error of this process.
    #[must_use]
    pub fn stderr() -> Self {
        Self::decide(std::io::stderr().is_terminal(), |name| std::env::var(name).ok(), window_width)
    }

    /// The text with emphasis, where that is welcome.
    #[must_use]
    pub fn emphasise(self, emphasis: Emphasis, text: &str) -> String {
        let code = match emphasis {
            Emphasis::Bold => "1",
            Emphasis::Green => "32",
            Emphasis::Yellow => "33",
            Emphasis::Red => "31",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Asks `stty` for the window's columns, because the standard library cannot and no crate of ours does.
fn window_width() -> Option<u16> {
    let terminal = File::open("/dev/tty").ok()?;
    let answer = Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output().ok()?;
    parse_stty_size(&String::from_utf8_lossy(&answer.stdout))
}

/// Reads `ROWS COLUMNS`; 0 columns means that the window's size is unknown.
fn parse_stty_size(answer: &str) -> Option<u16> {
    answer.split_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
}

/// Text from elsewhere, fit for a terminal: control characters (escape sequences among them) become `�`, line breaks and tabs
/// a space.
#[must_use]
pub fn harmless(text: &str) -> String {
    let replace = |letter: char| match letter {
        '\n' | '\r' | '\t' => ' ',
        // Bidirectional overrides can make a line read as something else (CVE-2021-42574).
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(terminal: bool, set: &[(&str, &str)], window: Option<u16>) -> Screen {
        let env = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Screen::decide(terminal, env, || window)
    }

    #[test]
    fn files_are_plain_whatever_the_environment_says() {
        assert_eq!(decided(false, &[("COLUMNS", "90"), ("TERM", "xterm")], Some(80)), Screen::PLAIN);
    }

    #[test]
    fn a_terminal_has_colour_unless_told_otherwise() {
        assert!(decided(true, &[], None).colour);
        assert!(decided(true, &[("NO_COLOR", "")], None).colour);
        assert!(!decided(true, &[("NO_COLOR", "1")], None).colour);
        let dumb = decided(true, &[("TERM", "dumb")], None);
        assert!(!dumb.colour && !dumb.terminal);
    }

    #[test]
    fn width_comes_from_columns_then_the_window() {
        assert_eq!(decided(true, &[("COLUMNS", "90")], Some(80)).width, Some(90));
        assert_eq!(decided(true, &[("COLUMNS", "wide")], Some(80)).width, Some(80));
        assert_eq!(decided(true, &[], Some(3)).width, None);
        assert_eq!(parse_stty_size("24 132\n"), Some(132));
        assert_eq!(parse_stty_size("0 0\n"), None);
        assert_eq!(parse_stty_size(""), None);
    }

    #[test]
    fn emphasis_is_only_for_colour() {
        let colourful = Screen { terminal: true, width: None, colour: true };
        assert_eq!(colourful.emphasise(Emphasis::Red, "no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(Screen::PLAIN.emphasise(Emphasis::Red, "no"), "no");
    }

    #[test]
    fn control_characters_do_not_get_through() {
        assert_eq!(harmless("a\u{1b}[31mb\nc\u{7}\u{202e}客户"), "a�[31mb c��客户");
    }
}
