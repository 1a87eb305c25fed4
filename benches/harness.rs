//! What the benchmarks share: processor time, medians, tables.
//!
//! Processor seconds instead of wall time, so that other work on the machine counts as little as it can; medians of many
//! repetitions, so that a disturbed one does not count at all.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How a measured function ends.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

const REPETITIONS: usize = 31;
/// How long one repetition should last at least; shorter ones are repeated inside it.
const REPETITION: Duration = Duration::from_millis(3);

/// The processor time of this process so far, of all its threads.
pub fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The median.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The median processor time of one call, in nanoseconds. The function gets the number of the call.
pub fn nanoseconds(mut work: impl FnMut(u64) -> Outcome) -> Result<f64, Box<dyn std::error::Error>> {
    let mut number = 0;
    let mut repeat = |calls: u64| -> Result<Duration, Box<dyn std::error::Error>> {
        let before = cpu_time();
        for _ in 0..calls {
            number += 1;
            work(number)?;
        }
        Ok(cpu_time().saturating_sub(before))
    };
    let mut calls = 1;
    while repeat(calls)? < REPETITION {
        calls *= 2;
    }
    let all: Result<Vec<f64>, _> =
        (0..REPETITIONS).map(|_| Ok(repeat(calls)?.as_nanos() as f64 / calls as f64)).collect();
    all.map(median)
}

/// A line of a table.
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figures.
    pub cells: Vec<String>,
}

/// A table that goes into `benches/README.md` as it is.
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// An empty table with its headings.
    pub fn new(name: &str, headings: &[&str]) -> Self {
        let cells = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { rows: vec![Row { name: name.to_owned(), cells }] }
    }

    /// Adds a line.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints it as Markdown.
    pub fn print(&self) {
        println!();
        for (number, row) in self.rows.iter().enumerate() {
            println!("| {} | {} |", row.name, row.cells.join(" | "));
            if number == 0 {
                println!("|---|{}", "--:|".repeat(row.cells.len()));
            }
        }
    }
}
