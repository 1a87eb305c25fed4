//! The randomness port. Keys, ids and nonces come from here, so that the pure core stays repeatable in tests.

use thiserror::Error;

/// The operating system gave no random bytes. Nothing may be sealed or signed then; try again later.
#[derive(Debug, Error)]
#[error("the operating system's random number generator gave no bytes")]
pub struct RandomUnavailable;

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `out` completely.
    ///
    /// # Errors
    /// When the source cannot deliver; `out` must then be treated as unset.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable>;
}

/// The operating system's generator, through the crypto provider.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the host")]
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        aws_lc_rs::rand::fill(out).map_err(|_| RandomUnavailable)
    }
}

/// A UUID version 7 (RFC 9562) of this instant: sortable, and without any meaning.
///
/// # Errors
/// When no randomness is to be had.
pub fn uuid7(now: chrono::DateTime<chrono::Utc>, random: &dyn Random) -> Result<String, RandomUnavailable> {
    let mut bytes = [0; 10];
    random.fill(&mut bytes)?;
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string())
}
