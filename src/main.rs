//! The program: close its memory to others, then parse, log, run, exit with the code.

use std::process::ExitCode;

fn main() -> ExitCode {
    wangchuan::memory::protect();
    wangchuan::cli::run()
}
