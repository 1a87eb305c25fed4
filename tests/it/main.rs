//! The tests that use the program from outside. One binary, because linking costs more than running.

mod suites;
mod support;
