//! Progress of a command with several steps: alive on a terminal, plain lines elsewhere, always on standard error.
//!
//! A terminal shows the running step with a spinner and a count and keeps one line for each finished step. A log or pipe
//! gets a line when a step begins and one when it ends, and nothing in between.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lang::{Lang, say};
use super::screen::{Emphasis, Screen, harmless};
use super::table::grouped;

/// Where a command is. A step that is not finished when this is dropped is marked as stopped.
pub struct Progress {
    sink: Box<dyn Write + Send>,
    screen: Screen,
    lang: Lang,
    of: usize,
    at: usize,
    running: Option<Running>,
}

struct Running {
    words: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress of `of` steps on standard error.
    #[must_use]
    pub fn on_stderr(lang: Lang, of: usize) -> Self {
        Self::to(Box::new(std::io::stderr()), Screen::stderr(), lang, of)
    }

    /// Says nothing: for commands within commands.
    #[must_use]
    pub fn silent() -> Self {
        Self::to(Box::new(std::io::sink()), Screen::PLAIN, Lang::En, 0)
    }

    /// Progress to any sink; a live display appears only when `screen` is a terminal, and then on standard error.
    #[must_use]
    pub fn to(sink: Box<dyn Write + Send>, screen: Screen, lang: Lang, of: usize) -> Self {
        Self { sink, screen, lang, of, at: 0, running: None }
    }

    /// Begins the next step; ends the running one, if it was not finished.
    pub fn step(&mut self, words: &str) {
        self.done("");
        self.at += 1;
        let words = harmless(words);
        let bar = self.screen.terminal.then(|| spinner(&self.label(&words)));
        if bar.is_none() {
            self.line(&format!("{} …", self.label(&words)));
        }
        self.running = Some(Running { words, bar });
    }

    /// How far the running step is, in items, out of how many if known. Shown on a terminal only.
    pub fn advance(&self, items: u64, of: Option<u64>) {
        let Some(bar) = self.running.as_ref().and_then(|running| running.bar.as_ref()) else { return };
        let count = of.map_or_else(|| grouped(items), |of| format!("{} / {}", grouped(items), grouped(of)));
        bar.set_message(count);
    }

    /// What is to be said of the running step now and then: behind the spinner on a terminal, elsewhere a line of its own.
    pub fn tell(&mut self, words: &str) {
        let words = harmless(words);
        let Some(running) = &self.running else { return };
        let Some(bar) = &running.bar else {
            let line = format!("{}: {words}", self.label(&running.words));
            return self.line(&line);
        };
        bar.set_message(words);
    }

    /// Whether the display is live, so that it may be told of every change.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.screen.terminal
    }

    /// Finishes the running step with its outcome in a few words (may be empty). Does nothing when no step runs.
    pub fn done(&mut self, outcome: &str) {
        let Some(running) = self.running.take() else { return };
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
        }
        let mark = self.screen.emphasise(Emphasis::Green, "✓");
        let outcome = if outcome.is_empty() { String::new() } else { format!(": {}", harmless(outcome)) };
        self.line(&format!("{} {mark}{outcome}", self.label(&running.words)));
    }

    fn label(&self, words: &str) -> String {
        format!("[{}/{}] {words}", self.at, self.of.max(self.at))
    }

    /// Progress that cannot be shown is no reason to stop the work, so a failed write is let go.
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.sink, "{line}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
        }
        let stopped = self.screen.emphasise(Emphasis::Red, say(self.lang, "✗ stopped", "✗ 中断"));
        self.line(&format!("{} {stopped}", self.label(&running.words)));
    }
}

fn spinner(label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_prefix(label.to_owned());
    // The template is a constant; should it ever be malformed, the default style does too.
    if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::super::testing::Sink;
    use super::*;

    fn plain(sink: &Sink, lang: Lang, of: usize) -> Progress {
        Progress::to(Box::new(sink.clone()), Screen::PLAIN, lang, of)
    }

    #[test]
    fn a_pipe_gets_two_lines_a_step_and_what_is_told_between() {
        let sink = Sink::default();
        let mut progress = plain(&sink, Lang::En, 2);
        progress.step("taking a snapshot");
        progress.advance(5, Some(10));
        progress.tell("5 of 12 rows");
        progress.done("12 rows");
        progress.tell("too late");
        progress.step("deleting");
        progress.done("");
        progress.done("twice");
        drop(progress);
        assert_eq!(
            sink.text(),
            "[1/2] taking a snapshot …\n[1/2] taking a snapshot: 5 of 12 rows\n[1/2] taking a snapshot ✓: 12 rows\n[2/2] deleting …\n[2/2] deleting ✓\n"
        );
    }

    #[test]
    fn an_unfinished_step_is_marked_as_stopped() {
        let sink = Sink::default();
        plain(&sink, Lang::Zh, 1).step("删除");
        assert_eq!(sink.text(), "[1/1] 删除 …\n[1/1] 删除 ✗ 中断\n");
    }

    #[test]
    fn a_terminal_keeps_one_coloured_line_a_step() {
        let sink = Sink::default();
        let screen = Screen { terminal: true, width: Some(80), colour: true };
        let mut progress = Progress::to(Box::new(sink.clone()), screen, Lang::En, 1);
        progress.step("signing");
        progress.advance(1, None);
        progress.done("1 certificate");
        drop(progress);
        assert_eq!(sink.text(), "[1/1] signing \u{1b}[32m✓\u{1b}[0m: 1 certificate\n");
    }

    #[test]
    fn surplus_steps_and_silence_are_harmless() {
        let sink = Sink::default();
        let mut progress = plain(&sink, Lang::En, 0);
        progress.step("a\u{1b}[2Jb");
        progress.done("x\ny");
        assert_eq!(sink.text(), "[1/1] a�[2Jb …\n[1/1] a�[2Jb ✓: x y\n");
        Progress::silent().step("nothing to see");
    }
}
