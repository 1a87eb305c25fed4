//! What is wrong with a text file, said so that it can be mended without a manual: file, line, column, the line itself
//! with a caret, what is wrong, what to do.
//!
//! Invariant: an excerpt never shows a secret. A line is shown whole only when the fault concerns a value of a key known
//! to be harmless; otherwise everything after the key is cut off, also for misspelt keys, which might be passwords.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use unicode_width::UnicodeWidthStr;

/// A place in a text; both numbers begin at 1 and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The line at fault, with secrets cut off, and where its caret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: String,
    caret_from: usize,
    caret_width: usize,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, if it is about a place in it.
    pub position: Option<Position>,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
    excerpt: Option<Excerpt>,
}

impl Fault {
    /// The line that it is about, as far as it may be shown.
    #[must_use]
    pub fn line(&self) -> Option<&str> {
        self.excerpt.as_ref().map(|excerpt| excerpt.line.trim())
    }

    /// A fault of the file as a whole.
    #[must_use]
    pub fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), position: None, what: what.into(), advice: None, excerpt: None }
    }

    /// A fault at the bytes `span` of `text`; the line is shown as far as `showing` permits.
    pub(super) fn at(file: &Path, text: &str, span: Range<usize>, showing: Showing, what: impl Into<String>) -> Self {
        let (position, excerpt) = locate(text, span, showing);
        Self { file: file.to_owned(), position: Some(position), what: what.into(), advice: None, excerpt }
    }

    /// Adds what to do.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, ":{}:{}", position.line, position.column)?;
        }
        write!(f, ": {}", self.what)?;
        let number = self.position.map_or(0, |position| position.line).to_string();
        if let Some(excerpt) = &self.excerpt {
            let margin = " ".repeat(number.len());
            write!(f, "\n {margin} |\n {number} | {}\n {margin} | ", excerpt.line)?;
            write!(f, "{}{}", " ".repeat(excerpt.caret_from), "^".repeat(excerpt.caret_width))?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n {} = do: {advice}", " ".repeat(if self.excerpt.is_some() { number.len() } else { 0 }))?;
        }
        Ok(())
    }
}

/// Everything wrong with the files that were read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// How much of a line may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Showing {
    /// The whole line, unless a word on it smells of a secret.
    Value,
    /// Keys and table headers only.
    KeyOnly,
    /// Keys that are known and table headers only: in a broken line the first word may be half of a secret.
    KnownKeyOnly,
}

/// The keys of job files; those of the configuration stand in its template.
const JOB_KEYS: [&str; 9] =
    ["task", "schedule", "timezone", "missed", "missed_grace", "timeout", "stores", "policies", "targets"];

fn is_known_key(word: &str) -> bool {
    let key_of = |line: &'static str| line.trim_start_matches('#').split_once(" = ").map(|(key, _)| key);
    JOB_KEYS.contains(&word) || super::TEMPLATE.lines().filter_map(key_of).any(|key| key == word)
}

/// Words whose appearance on a line hides its values. `@` and `://` catch addresses with passwords under any key.
const SECRET_SIGNS: [&str; 9] = ["url", "token", "secret", "pass", "access_key", "credential", "state", "://", "@"];

fn locate(text: &str, span: Range<usize>, showing: Showing) -> (Position, Option<Excerpt>) {
    let start = floor_char_boundary(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let before = &text[line_start..start.min(line_start + line.len())];
    let position = Position { line: text[..line_start].matches('\n').count() + 1, column: before.chars().count() + 1 };
    // A secret may span several lines only inside a multi-line string: then no line of the file is safe to show.
    if text.contains("\"\"\"") || text.contains("'''") {
        return (position, None);
    }
    let lower = line.to_ascii_lowercase();
    let is_whole = showing == Showing::Value && !SECRET_SIGNS.iter().any(|sign| lower.contains(sign));
    let shown = match showing {
        _ if is_whole => line.to_owned(),
        Showing::KnownKeyOnly => cut_values(line, is_known_key),
        Showing::Value | Showing::KeyOnly => cut_values(line, |_| true),
    };
    let shown = shown.replace('\t', " ");
    let caret_from = before.replace('\t', " ").width();
    let end = floor_char_boundary(text, span.end).clamp(start, (line_start + line.len()).max(start));
    let room = shown.width();
    // A value that was cut off is pointed at by its ellipsis.
    let is_cut_off = shown.ends_with('…') && caret_from + 2 >= room - 1;
    let caret_from = if is_cut_off { room - 1 } else { caret_from.min(room) };
    let caret_width = text[start..end].width().clamp(1, room.saturating_sub(caret_from).max(1));
    (position, Some(Excerpt { line: shown, caret_from, caret_width }))
}

/// The line without anything that could be a value: a table header, or the key before the first sign of a value.
fn cut_values(line: &str, may_show: impl Fn(&str) -> bool) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-. []".contains(c);
    let trimmed = line.trim();
    if trimmed.is_empty() || (trimmed.starts_with('[') && trimmed.ends_with(']') && trimmed.chars().all(is_plain)) {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start().len();
    let word = line[indent..].find(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)));
    let key_end = indent + word.unwrap_or(line.len() - indent);
    let rest = line[key_end..].trim_start();
    if !may_show(&line[indent..key_end]) {
        return format!("{}…", &line[..indent]);
    }
    let sign = if rest.starts_with('=') { " = …" } else { " …" };
    if rest.is_empty() { line.to_owned() } else { format!("{}{sign}", &line[..key_end]) }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known word nearest to a mistyped one, if any is near.
pub(crate) fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typed, &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// `did you mean …?` if something near is known, else the list of what is known.
pub(crate) fn suggest(typed: &str, known: &[&str]) -> String {
    match nearest(typed, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("use one of: {}", known.join(", ")),
    }
}
