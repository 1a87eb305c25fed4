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
