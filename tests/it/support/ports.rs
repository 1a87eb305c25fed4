//! Ports of the loopback for servers that are told theirs and so cannot ask for any free one, as private servers and services that
//! have to come back at the same place.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems take the ports of outgoing connections (32768 and more on Linux, 49152 elsewhere): a port that
/// was free stays free until its server takes it, however many connections are made meanwhile.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

/// The next port to try, less one process's start: no port is given twice by one process.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nobody listens, and that nobody else in this process is given.
pub fn free_port() -> u16 {
    let span = u32::from(LAST - FIRST) + 1;
    // Processes that run side by side begin far from each other.
    let start = std::process::id().wrapping_mul(7_919) % span;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + step) % span).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
