//! `traceparent` of a filing (W3C Trace Context): what an operator of the service finds in its own traces.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

use crate::log::tree::sha256;

/// Tries of this process so far: two at one instant are two spans.
static TRIES: AtomicU64 = AtomicU64::new(0);

/// The header of a try to file a certificate: the trace is the certificate's, whose random id has its size, the span that of the try. Not
/// sampled, for nothing here records it.
#[must_use]
pub fn traceparent(certificate: &str, at: DateTime<Utc>) -> String {
    let digits: String = certificate.chars().filter(|sign| *sign != '-').collect();
    let is_id = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let trace = if is_id { digits } else { hex::encode(&sha256(certificate.as_bytes())[..16]) };
    let of_try = format!("{trace} {} {}", at.timestamp_micros(), TRIES.fetch_add(1, Ordering::Relaxed));
    let span = hex::encode(&sha256(of_try.as_bytes())[..8]);
    format!("00-{trace}-{span}-00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_trace_and_a_try_a_span() {
        let (id, at) = ("0190a1b2-c3d4-7abc-8def-0123456789ab", DateTime::UNIX_EPOCH);
        let (one, two) = (traceparent(id, at), traceparent(id, at));
        assert!(one.starts_with("00-0190a1b2c3d47abc8def0123456789ab-") && one.ends_with("-00"), "{one}");
        assert_eq!(one.len(), 55);
        assert_ne!(one, two, "two tries at one instant");
        assert_eq!(one[..36], two[..36], "of one trace");
        assert_ne!(traceparent("x", at)[..36], traceparent("y", at)[..36]);
    }
}
