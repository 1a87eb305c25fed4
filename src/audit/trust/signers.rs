//! Keys that sign certificates, with their times, for whoever checks signatures. Pure.

use chrono::{DateTime, Utc};

use super::super::key_history::Ended;
use super::super::stamp::StampTrust;
use super::{Trust, Window};
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::log::cosignature::Quorum;

/// Keys that sign certificates, with the times for which they are good.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signers {
    /// The keys, the one in use first.
    pub keys: Vec<(PublicKey, Window)>,
    /// How those of them ended that did, by the id of the key.
    pub ended: Vec<(String, Ended)>,
}

impl From<TrustedKeys> for Signers {
    /// Keys of which no time is known.
    fn from(keys: TrustedKeys) -> Self {
        let keys = keys.iter().map(|key| (key.clone(), Window::default())).collect();
        Self { keys, ended: Vec::new() }
    }
}

impl Signers {
    /// The keys alone, for checking signatures.
    #[must_use]
    pub fn keys(&self) -> TrustedKeys {
        self.keys.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Whether a certificate that says when it was signed says that its key had ended by then.
    #[must_use]
    pub fn is_after_end(&self, key_id: &str, said: DateTime<Utc>) -> bool {
        self.ended.iter().any(|(id, _)| id == key_id)
            && self.keys.iter().all(|(key, window)| key.key_id() != key_id || window.end.is_some_and(|end| end < said))
    }

    /// Trust in these keys, and in nobody else yet.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let (signers, ended) = (self.keys.clone(), self.ended.clone());
        let (quorum, stamps) = (Quorum::default(), StampTrust::default());
        let (logs, operation_logs) = (Vec::new(), Vec::new());
        let acknowledgers = TrustedKeys::default();
        Trust { signers, ended, logs, acknowledgers, operation_logs, quorum, stamps, stamp_chains: Vec::new() }
    }
}
