//! Says which suites do not run here, so that a green `cargo test` never hides what it left out.

use crate::support::announce::{SUITES, announce_not_run, switched_on};

#[test]
fn suites_left_out_are_announced() {
    for (variable, suite) in SUITES {
        if switched_on(variable).is_none() {
            announce_not_run(suite);
        }
    }
}

/// `tests/run` must set what the suites look for.
#[test]
fn the_test_runner_sets_every_variable() {
    let runner =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run")).expect("tests/run is readable");
    for (variable, _) in SUITES {
        assert!(runner.contains(&format!("export {variable}=")), "tests/run does not set {variable}");
    }
}
