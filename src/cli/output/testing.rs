//! A sink that tests can read while somebody else owns it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Lang, Output, Screen};

/// Clones share one buffer.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

/// A plain English output with the sinks it writes to: standard output, standard error.
pub fn output(json: bool) -> (Output, Sink, Sink) {
    let (out, err) = (Sink::default(), Sink::default());
    let (first, second) = (Box::new(out.clone()), Box::new(err.clone()));
    (Output::to(json, Lang::En, (first, Screen::PLAIN), (second, Screen::PLAIN)), out, err)
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
