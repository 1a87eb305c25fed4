//! The port to keys that the agent did not make: an application seals single fields with them in a key service, and the agent
//! destroys them when their time is over.
//!
//! An adapter never opens or seals anything with such a key, and needs no right to. The name of a key may identify a person,
//! so no error and no record of this module holds one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::slot::{ClaimSentence, Shortcoming, SlotClaim, SlotClass, SlotError, SlotKind};
use crate::policy::registry::SecretText;

/// What a key service tells of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// The newest version.
    pub latest_version: u64,
    /// The lowest version that can still be used.
    pub lowest_version: u64,
    /// When versions were made, in the service's own words, by number. What is stored has the newest only.
    pub made: BTreeMap<u64, String>,
    /// Whether the key can be exported. A switch that only goes one way: off means that it always was.
    pub exportable: bool,
    /// Whether it can be backed up in clear; goes one way too.
    pub plaintext_backup: bool,
    /// Whether it was brought in from outside of the service, where a copy may be.
    pub imported: bool,
    /// Where in a service of many accounts it is; only there its absence means anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When the service deletes it, if that is ordered already and can still be called off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}

impl KeyFacts {
    /// What is remembered of it: enough to know the key again.
    #[must_use]
    pub fn remembered(mut self) -> Self {
        let newest = self.latest_version;
        self.made.retain(|version, _| *version == newest);
        self.deleted_at = None;
        self
    }

    /// Whether `now` is this key at a later time, and not another one of the same name. Where that cannot be told it is not.
    #[must_use]
    pub fn is_continued_by(&self, now: &Self) -> bool {
        if now.latest_version < self.latest_version {
            return false;
        }
        match (self.made.get(&self.latest_version), now.made.get(&self.latest_version)) {
            (Some(then), Some(now)) => then == now,
            // The version that was the newest then is trimmed away: numbers go on only within one key.
            (Some(_), None) => now.lowest_version > self.latest_version,
            (None, _) => false,
        }
    }

    /// Whether the key may lie outside of the service.
    #[must_use]
    pub fn may_have_left(&self) -> bool {
        self.exportable || self.plaintext_backup || self.imported
    }
}

/// A step of a destruction, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideStep {
    /// The switch that lets a key be deleted was turned on.
    DeletionAllowed,
    /// The service was told to delete the key with all its versions.
    KeyDeleted,
    /// The service was told to delete the key at a later date.
    DeletionScheduled,
}

/// How it was read back that a key is gone, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideCheck {
    /// The service answers for the place of the key, and says that there is no such key.
    KeyAbsent,
    /// Right before its end the service said that the key could never be exported nor backed up in clear, and was made there.
    NeverExportable,
}

impl OutsideCheck {
    /// Its code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::KeyAbsent => "key-absent",
            Self::NeverExportable => "never-exportable",
        }
    }
}

/// What a call of [`OutsideKeys::destroy`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutsideDone {
    /// What was done, in order; empty when there was nothing to do.
    pub steps: Vec<OutsideStep>,
    /// When the key is gone, if not now: until then somebody else can call that off.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What was written down about the end of a key, for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideEvidence {
    /// What may be claimed for it.
    pub claim: SlotClaim,
    /// What the service said of the key right before its end; none when it was gone before.
    pub before: Option<KeyFacts>,
    /// What was done, in order; empty when an earlier, interrupted call had done it, or somebody else.
    pub steps: Vec<OutsideStep>,
    /// What was read back; never empty.
    pub checks: Vec<OutsideCheck>,
    /// From when on its deletion could not be called off any more, where it could be before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irrevocable_at: Option<DateTime<Utc>>,
}

impl OutsideEvidence {
    /// The evidence of a key that is read back as gone. Without the service's word, from right before, that the key never could
    /// leave it, nothing more than a logical removal is claimed; so for a key that somebody else destroyed.
    #[must_use]
    pub fn new(claim: SlotClaim, before: Option<KeyFacts>, steps: Vec<OutsideStep>) -> Self {
        let mut evidence = Self { claim, before, steps, checks: vec![OutsideCheck::KeyAbsent], irrevocable_at: None };
        if evidence.before.as_ref().is_some_and(|facts| !facts.may_have_left()) {
            evidence.checks.push(OutsideCheck::NeverExportable);
        } else {
            evidence.claim.class = SlotClass::D;
            evidence.claim.sentence = ClaimSentence::LogicalRemovalOnly;
        }
        evidence
    }
}

/// Keys in one place of a key service. Every call is idempotent: after a crash the same call is made again.
#[async_trait]
pub trait OutsideKeys: Send + Sync {
    /// The kind of service.
    fn kind(&self) -> SlotKind;

    /// What may be claimed, at best, after a destruction here.
    fn claim(&self) -> SlotClaim;

    /// What the service says of a key, of which `known` was remembered; `None` only when it answers for the place and says that
    /// there is no such key. An unreachable service, or another place than that of the known key, is an error. A service whose
    /// answers may be late is asked again when it seems to have forgotten an order to delete the key.
    async fn look(&self, key: &SecretText, known: Option<&KeyFacts>) -> Result<Option<KeyFacts>, SlotError>;

    /// Destroys a key with all its versions, or orders that for a date; nothing there is not an error. What was done is only a
    /// word: ask [`OutsideKeys::look`] afterwards.
    async fn destroy(&self, key: &SecretText) -> Result<OutsideDone, SlotError>;

    /// Takes back what a destruction that did not get to its end has prepared.
    async fn spare(&self, key: &SecretText) -> Result<(), SlotError>;

    /// Whether a stored value looks like one that a key of this service sealed.
    fn is_sealed(&self, value: &[u8]) -> bool;

    /// What is wrong or doubtful with the agent's rights on a key; for `doctor`.
    async fn shortcomings(&self, key: &SecretText) -> Result<Vec<Shortcoming>, SlotError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(latest: u64, lowest: u64, made: &[(u64, &str)]) -> KeyFacts {
        KeyFacts {
            latest_version: latest,
            lowest_version: lowest,
            made: made.iter().map(|(version, at)| (*version, (*at).to_owned())).collect(),
            exportable: false,
            plaintext_backup: false,
            imported: false,
            place: None,
            deleted_at: None,
        }
    }

    #[test]
    fn a_key_is_known_again_and_another_of_its_name_is_not() {
        let then = facts(2, 1, &[(1, "a"), (2, "b")]).remembered();
        assert_eq!(then.made.len(), 1);
        for (now, same) in [
            (facts(2, 1, &[(1, "a"), (2, "b")]), true),
            (facts(4, 2, &[(2, "b"), (3, "c"), (4, "d")]), true),
            (facts(5, 4, &[(4, "d"), (5, "e")]), true),
            (facts(1, 1, &[(1, "z")]), false),
            (facts(2, 1, &[(1, "y"), (2, "z")]), false),
            (facts(3, 1, &[(1, "x"), (3, "z")]), false),
        ] {
            assert_eq!(then.is_continued_by(&now), same, "{now:?}");
        }
        assert!(!facts(2, 1, &[]).is_continued_by(&then));
    }

    #[test]
    fn only_a_key_that_never_could_leave_is_more_than_removed() {
        let claim = SlotClaim {
            kind: SlotKind::Transit,
            class: SlotClass::B,
            sentence: ClaimSentence::DestroyedInLiveService,
            residuals: Vec::new(),
            residual_days: Some(7),
        };
        let good = facts(1, 1, &[(1, "a")]);
        let kept = OutsideEvidence::new(claim.clone(), Some(good.clone()), vec![OutsideStep::KeyDeleted]);
        assert_eq!((kept.claim.class, kept.checks.len()), (SlotClass::B, 2));
        for before in [
            None,
            Some(KeyFacts { exportable: true, ..good.clone() }),
            Some(KeyFacts { plaintext_backup: true, ..good.clone() }),
            Some(KeyFacts { imported: true, ..good }),
        ] {
            let lower = OutsideEvidence::new(claim.clone(), before, Vec::new());
            assert_eq!(lower.claim.class, SlotClass::D, "{lower:?}");
            assert_eq!(lower.claim.sentence, ClaimSentence::LogicalRemovalOnly);
            assert_eq!(lower.checks, [OutsideCheck::KeyAbsent]);
        }
    }
}
