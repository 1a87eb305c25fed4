//! The built program, run as a user runs it: in a directory, with arguments, perhaps with input, and never for longer than a
//! limit.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No command of a test may take longer.
const LONGEST: Duration = Duration::from_mins(3);
/// How often a waiting test looks.
const LOOK: Duration = Duration::from_millis(10);

/// The program in a working directory.
#[derive(Debug, Clone)]
pub struct Program {
    directory: PathBuf,
    environment: Vec<(String, String)>,
    input: Vec<u8>,
    /// What is run instead, with the program as its next argument (`faketime …`).
    through: Vec<String>,
}

impl Program {
    /// The program in this directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), environment: Vec::new(), input: Vec::new(), through: Vec::new() }
    }

    /// A file of that directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The same with a variable set.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// The same with something on standard input.
    pub fn reading(mut self, input: &str) -> Self {
        self.input = input.as_bytes().to_vec();
        self
    }

    /// The same started by another program.
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut child = self.spawn(arguments);
        let input = self.input.clone();
        let mut stdin = child.stdin.take();
        let writer = thread::spawn(move || {
            if let Some(stdin) = &mut stdin {
                // A program that does not read its input closes the pipe, which is its right.
                let _ = stdin.write_all(&input);
            }
        });
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        let status = wait(&mut child, LONGEST);
        let _ = writer.join();
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        let outcome = Outcome {
            command: format!("wangchuan {}", arguments.join(" ")),
            status: status.unwrap_or_default(),
            out: String::from_utf8_lossy(&out).into_owned(),
            err: String::from_utf8_lossy(&err).into_owned(),
        };
        assert!(status.is_some(), "{outcome}\nwas stopped after {} s", LONGEST.as_secs());
        outcome
    }

    /// Runs with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Outcome {
        self.run(&[arguments, &["--json"]].concat())
    }

    /// Starts without waiting for the end.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut running = self.start_unanswered(arguments);
        drop(running.child.stdin.take());
        running
    }

    /// The same with a standard input on which nothing ever comes, as somebody who does not answer.
    pub fn start_unanswered(&self, arguments: &[&str]) -> Running {
        let mut child = self.spawn(arguments);
        let said = Arc::new(Mutex::new(Vec::new()));
        let out = listen(child.stdout.take(), said.clone());
        let err = listen(child.stderr.take(), said.clone());
        Running { child, said, listeners: vec![out, err] }
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let program = env!("CARGO_BIN_EXE_wangchuan");
        let mut words: Vec<&OsStr> = self.through.iter().map(OsStr::new).collect();
        words.push(OsStr::new(program));
        words.extend(arguments.iter().map(OsStr::new));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.directory).env("HOME", &self.directory);
        for variable in ["CONFIG", "CRASH_AT", "PAUSE_AT", "RESTORE_TO"] {
            command.env_remove(format!("WANGCHUAN_{variable}"));
        }
        command.env_remove("RUST_LOG").env_remove("XDG_CONFIG_HOME");
        command.env_remove("LC_ALL").env_remove("LC_MESSAGES").env("LANG", "en_US.UTF-8").env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", words[0].to_string_lossy()))
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn listen(stream: Option<impl Read + Send + 'static>, said: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines()) {
            let Ok(line) = line else { return };
            said.lock().unwrap().push(line);
        }
    })
}

/// Waits for the end; kills the child when it takes too long.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(LOOK);
    }
}

/// How a command ended, and what it said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line.
    pub command: String,
    status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {} -> {}\n--- standard output\n{}--- standard error\n{}",
            self.command, self.status, self.out, self.err
        )
    }
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether the process was killed.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// Requires this exit code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "\n{self}");
        self
    }

    /// Requires that each of these texts was said, on either stream.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.out.contains(text) || self.err.contains(text), "nothing said of `{text}`\n{self}");
        }
        self
    }

    /// Requires that this was said on neither stream.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(!self.out.contains(text) && !self.err.contains(text), "`{text}` must not be said\n{self}");
        self
    }

    /// Requires an error of the form that DESIGN §7 promises: what happened naming these things, and what to do.
    #[track_caller]
    pub fn refuses(self, code: i32, naming: &[&str]) -> Self {
        let outcome = self.ends(code).says(naming);
        let with_advice = outcome.err.contains("do: ") || outcome.out.contains("\"do\": \"");
        assert!(with_advice, "it does not say what to do\n{outcome}");
        if let Ok(document) = serde_json::from_str::<Value>(&outcome.out)
            && document["code"].is_string()
        {
            for field in ["result", "what", "do"] {
                let text = document[field].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "the error has no `{field}`\n{outcome}");
            }
            assert!(document["retry"].is_boolean(), "the error has no `retry`\n{outcome}");
        }
        outcome
    }

    /// The JSON document on standard output.
    #[track_caller]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON document ({error})\n{self}"))
    }

    /// A whole number of the JSON document.
    #[track_caller]
    pub fn number(&self, name: &str) -> i64 {
        self.document()[name].as_i64().unwrap_or_else(|| panic!("no number `{name}`\n{self}"))
    }

    /// A text of the JSON document.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        let document = self.document();
        document[name].as_str().unwrap_or_else(|| panic!("no text `{name}`\n{self}")).to_owned()
    }

    /// A list of the JSON document.
    #[track_caller]
    pub fn list(&self, name: &str) -> Vec<Value> {
        let document = self.document();
        document[name].as_array().unwrap_or_else(|| panic!("no list `{name}`\n{self}")).clone()
    }
}

/// A program that was started and runs on; killed when the test drops it.
pub struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything said so far, line by line.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a line contains this text.
    #[track_caller]
    pub fn wait_for(&self, text: &str, limit: Duration) {
        let begun = Instant::now();
        while !self.said().iter().any(|line| line.contains(text)) {
            assert!(begun.elapsed() < limit, "nothing said of `{text}` within {limit:?}:\n{}", self.said().join("\n"));
            thread::sleep(LOOK);
        }
    }

    /// Waits until it stands still at the point where it was told to pause; whether it came there before its end.
    #[must_use]
    pub fn comes_to_a_halt(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        let place = format!("/proc/{}/stat", self.pid());
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit, "it never paused nor ended:\n{}", self.said().join("\n"));
            // After the name in brackets comes the state; T is stopped by a signal.
            let state = std::fs::read_to_string(&place).unwrap_or_default();
            if state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')) {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// Sends a signal by its name.
    #[track_caller]
    pub fn send(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// Sends a signal by its name (`TERM`, `KILL`) and waits for the end: the exit code, and everything said.
    #[track_caller]
    pub fn signal(self, name: &str, limit: Duration) -> (Option<i32>, String) {
        self.send(name);
        self.end(limit)
    }

    /// Waits for the end: the exit code, and everything said.
    #[track_caller]
    pub fn end(mut self, limit: Duration) -> (Option<i32>, String) {
        let status = wait(&mut self.child, limit);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        let said = self.said().join("\n");
        let status = status.unwrap_or_else(|| panic!("it did not end within {limit:?}:\n{said}"));
        (status.code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
