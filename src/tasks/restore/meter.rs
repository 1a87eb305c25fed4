//! How far a restore is, for who watches it from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::value::{Row, Value};

/// Counts what a restore has put in; looked at while it works.
#[derive(Debug, Default)]
pub struct Meter {
    rows: AtomicU64,
    of: AtomicU64,
    bytes: AtomicU64,
    collection: Mutex<String>,
}

/// Where a restore is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The collection that is being filled; empty before the first row, and when all rows are there.
    pub collection: String,
    /// Rows put in so far.
    pub rows: u64,
    /// Rows that the snapshot counts; `None` where it does not count what is wanted of it.
    pub of: Option<u64>,
    /// Bytes of their values.
    pub bytes: u64,
}

impl Meter {
    /// Where it is now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let of = self.of.load(Ordering::Relaxed);
        Standing {
            collection: self.collection.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            rows: self.rows.load(Ordering::Relaxed),
            of: (of > 0).then_some(of),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn awaits(&self, rows: u64) {
        self.of.store(rows, Ordering::Relaxed);
    }

    pub(super) fn enter(&self, collection: &str) {
        let mut current = self.collection.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != collection {
            collection.clone_into(&mut current);
        }
    }

    pub(super) fn add(&self, rows: &[Row]) {
        let bytes: usize = rows.iter().flatten().map(bytes_of).sum();
        self.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

impl Standing {
    /// How long the rest takes at the pace of `elapsed`, in seconds; `None` while that cannot be told.
    #[must_use]
    pub fn remaining(&self, elapsed: std::time::Duration) -> Option<u64> {
        let of = self.of.filter(|of| self.rows > 0 && *of >= self.rows)?;
        let left = (of - self.rows) as f64;
        Some((elapsed.as_secs_f64() / self.rows as f64 * left).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_what_is_put_in_and_says_how_long_the_rest_takes() {
        let meter = Meter::default();
        assert_eq!(meter.standing().of, None);
        assert_eq!(meter.standing().remaining(Duration::from_secs(5)), None, "nothing is known yet");
        meter.awaits(40);
        meter.enter("orders");
        meter
            .add(&[vec![Value::Integer(1), Value::Text("abc".to_owned())], vec![Value::Null, Value::Blob(vec![1, 2])]]);
        for _ in 0..8 {
            meter.add(&[vec![Value::Null]]);
        }
        let standing = meter.standing();
        assert_eq!(standing, Standing { collection: "orders".to_owned(), rows: 10, of: Some(40), bytes: 13 });
        assert_eq!(standing.remaining(Duration::from_secs(5)), Some(15));
        // Stubs are rows beyond those that were counted.
        assert_eq!(Standing { rows: 41, ..standing }.remaining(Duration::from_secs(5)), None);
    }
}
