//! Where a command's words and its one JSON document go.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

use super::error_report::UserError;
use super::lang::{Lang, Words, say};
use super::screen::{Emphasis, Screen};
use super::table::Grid;

/// Why output did not come out. Retrying does not help.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The stream is closed or full.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
    /// The result is no JSON value, for example a map with keys that are no text.
    #[error("the result cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// A command tried to print a second document.
    #[error("a second JSON document was about to be printed")]
    SecondDocument,
}

impl OutputError {
    /// Whether the reader has gone, as `head` does; a command then ends without another word.
    #[must_use]
    pub fn reader_gone(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A JSON document of the published interface. `src/cli/schemas.rs` lists them all; only such a document can be printed.
pub trait Document: Serialize + JsonSchema {
    /// The commands that print it, as they are typed; `agent --once` names an option that changes the document.
    const OF: &'static [&'static str];
}

/// The output of one command.
pub struct Output {
    json: bool,
    lang: Lang,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_screen: Screen,
    err_screen: Screen,
    documents: Documents,
}

/// What was printed as JSON so far.
#[derive(PartialEq, Eq)]
enum Documents {
    None,
    One,
    Stream,
}

impl Output {
    /// Standard output and standard error of this process.
    #[must_use]
    pub fn standard(json: bool, lang: Lang) -> Self {
        Self::to(json, lang, (Box::new(io::stdout()), Screen::stdout()), (Box::new(io::stderr()), Screen::stderr()))
    }

    /// Any two sinks with their abilities, for tests.
    #[must_use]
    pub fn to(
        json: bool,
        lang: Lang,
        (out, out_screen): (Box<dyn Write + Send>, Screen),
        (err, err_screen): (Box<dyn Write + Send>, Screen),
    ) -> Self {
        Self { json, lang, out, err, out_screen, err_screen, documents: Documents::None }
    }

    /// Whether the command was asked for JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }

    /// The language of words.
    #[must_use]
    pub fn lang(&self) -> Lang {
        self.lang
    }

    /// One of two texts, by the language.
    #[must_use]
    pub fn say_in<'t>(&self, en: &'t str, zh: &'t str) -> &'t str {
        super::lang::say(self.lang, en, zh)
    }

    /// What the place of [`Output::line`] can do.
    #[must_use]
    pub fn screen(&self) -> Screen {
        if self.json { self.err_screen } else { self.out_screen }
    }

    /// A line of the result for people: on standard output, or on standard error beside a JSON document.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn line(&mut self, line: &str) -> Result<(), OutputError> {
        let sink = if self.json { &mut self.err } else { &mut self.out };
        writeln!(sink, "{line}").map_err(OutputError::Write)
    }

    /// A line of the result in the language asked for.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn say(&mut self, words: &Words) -> Result<(), OutputError> {
        let line = words.in_lang(self.lang).to_owned();
        self.line(&line)
    }

    /// A heading.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn heading(&mut self, en: &str, zh: &str) -> Result<(), OutputError> {
        let line = self.screen().emphasise(Emphasis::Bold, say(self.lang, en, zh));
        self.line(&line)
    }

    /// A table for people.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn table(&mut self, grid: &Grid) -> Result<(), OutputError> {
        let shown = grid.render(self.screen());
        self.line(&shown)
    }

    /// A remark that is no part of the result (a warning, what to try next): always on standard error.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn note(&mut self, words: &Words) -> Result<(), OutputError> {
        writeln!(self.err, "{}", words.in_lang(self.lang)).map_err(OutputError::Write)
    }

    /// The command's one JSON document; nothing unless JSON was asked for.
    ///
    /// # Errors
    /// When there was a document already, the value has no JSON form, or the stream cannot be written.
    pub fn document<T: Document>(&mut self, document: &T) -> Result<(), OutputError> {
        if !self.json {
            return Ok(());
        }
        if self.documents != Documents::None {
            return Err(OutputError::SecondDocument);
        }
        let mut text = serde_json::to_string_pretty(document).map_err(OutputError::Encode)?;
        text.push('\n');
        self.documents = Documents::One;
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(OutputError::Write)
    }

    /// One line of a stream of JSON values (NDJSON); nothing unless JSON was asked for.
    ///
    /// # Errors
    /// As [`Output::document`].
    pub fn stream_item<T: Document>(&mut self, item: &T) -> Result<(), OutputError> {
        if !self.json {
            return Ok(());
        }
        if self.documents == Documents::One {
            return Err(OutputError::SecondDocument);
        }
        let mut text = serde_json::to_string(item).map_err(OutputError::Encode)?;
        text.push('\n');
        self.documents = Documents::Stream;
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(OutputError::Write)
    }

    /// Reports the error that ends the command: the JSON document if none was printed yet (in a stream its last line), and the
    /// lines for people on standard error, once.
    ///
    /// # Errors
    /// When a stream cannot be written.
    pub fn error(&mut self, error: &UserError) -> Result<(), OutputError> {
        match self.documents {
            Documents::None => self.document(&error.to_json(self.lang))?,
            Documents::Stream => self.stream_item(&error.to_json(self.lang))?,
            Documents::One => {}
        }
        writeln!(self.err, "{}", error.render(self.lang, self.err_screen)).map_err(OutputError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::super::testing::Sink;
    use super::*;
    use serde_json::json;

    #[derive(Serialize, JsonSchema)]
    struct Numbered {
        number: u8,
    }

    impl Document for Numbered {
        const OF: &'static [&'static str] = &[];
    }

    fn output(json: bool) -> (Output, Sink, Sink) {
        let (out, err) = (Sink::default(), Sink::default());
        let sinks = ((Box::new(out.clone()) as _, Screen::PLAIN), (Box::new(err.clone()) as _, Screen::PLAIN));
        (Output::to(json, Lang::Zh, sinks.0, sinks.1), out, err)
    }

    #[test]
    fn words_go_to_stdout_for_people() {
        let (mut output, out, err) = output(false);
        let mut grid = Grid::new(["store"]);
        grid.row(["shop"]);
        output.heading("Stores", "数据源").unwrap();
        output.table(&grid).unwrap();
        output.say(&Words::new("one store", "一个数据源")).unwrap();
        output.note(&Words::new("mind the gap", "注意")).unwrap();
        output.document(&Numbered { number: 1 }).unwrap();
        assert_eq!((out.text().as_str(), err.text().as_str()), ("数据源\nstore\nshop\n一个数据源\n", "注意\n"));
    }

    #[test]
    fn json_owns_stdout_alone() {
        let (mut output, out, err) = output(true);
        output.line("for people").unwrap();
        output.document(&Numbered { number: 1 }).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out.text()).unwrap(), json!({"number": 1}));
        assert_eq!(err.text(), "for people\n");
        assert!(matches!(output.document(&Numbered { number: 2 }), Err(OutputError::SecondDocument)));
        assert!(matches!(output.stream_item(&Numbered { number: 2 }), Err(OutputError::SecondDocument)));
    }

    #[test]
    fn a_stream_is_one_value_a_line() {
        let (mut output, out, _) = output(true);
        output.stream_item(&Numbered { number: 1 }).unwrap();
        output.stream_item(&Numbered { number: 2 }).unwrap();
        assert_eq!(out.text(), "{\"number\":1}\n{\"number\":2}\n");
        assert!(matches!(output.document(&Numbered { number: 2 }), Err(OutputError::SecondDocument)));
        output.error(&UserError::new(Exit::Failed, "X", Words::new("x", "x"))).unwrap();
        assert_eq!(out.text().lines().count(), 3);
    }

    #[test]
    fn an_error_is_the_document_unless_there_was_one() {
        let error = UserError::new(Exit::Refused, "HOLD", Words::new("a hold is in the way", "存在保留"));
        let (mut first, out, err) = output(true);
        first.error(&error).unwrap();
        let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!((&document["result"], &document["code"]), (&json!("refused"), &json!("HOLD")));
        assert!(err.text().contains("存在保留"));

        let (mut later, out, err) = output(true);
        later.document(&Numbered { number: 1 }).unwrap();
        later.error(&error).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out.text()).unwrap(), json!({"number": 1}));
        assert!(err.text().contains("存在保留"));
    }

    #[test]
    fn a_reader_that_left_is_told_from_other_failures() {
        assert!(OutputError::Write(io::ErrorKind::BrokenPipe.into()).reader_gone());
        assert!(!OutputError::Write(io::ErrorKind::StorageFull.into()).reader_gone());
        assert!(!OutputError::SecondDocument.reader_gone());
    }
}
