//! The program: parse, log, run, exit with the code.

use std::process::ExitCode;

fn main() -> ExitCode {
    wangchuan::cli::run()
}
