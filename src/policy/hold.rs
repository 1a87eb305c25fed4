//! Holds: what must not be destroyed for the time being, whatever a policy or a request says.
//!
//! The same pure match is used when a plan is made and again inside each batch and before each shred.
//! When in doubt a hold applies: it counts from the moment it is known (its time of placing is only shown), and a row whose
//! owners cannot be told is held by any hold on a subject.

use std::collections::HashMap;
use std::fmt;

use chrono::{DateTime, Utc};

/// A subject as the hold knows it: a digest under a key of the control database. Equal digests are the same subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectDigest(pub [u8; 32]);

impl fmt::Debug for SubjectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectDigest(…)")
    }
}

/// What a hold covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldScope {
    /// Every row of one subject, in every store.
    Subject(SubjectDigest),
    /// Every row of one collection.
    Collection {
        /// The store's name.
        store: String,
        /// The collection's name.
        collection: String,
    },
    /// Every row of one store.
    Store(String),
    /// Everything.
    Everything,
}

/// A suspension of deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id, as people refer to it.
    pub id: String,
    /// What it covers.
    pub scope: HoldScope,
    /// When it ends by itself; `None` means only by release.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was released, if it was.
    pub released_at: Option<DateTime<Utc>>,
}

impl Hold {
    /// Whether it still holds at `now`: up to, not including, its end or release.
    #[must_use]
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        let over = |end: Option<DateTime<Utc>>| end.is_some_and(|end| end <= now);
        !over(self.expires_at) && !over(self.released_at)
    }
}

/// The owners of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners<'a> {
    /// These; empty for a row that belongs to nobody.
    Known(&'a [SubjectDigest]),
    /// They cannot be told, for example because a parent row is missing.
    Unknown,
}

/// The active holds of one moment, arranged for asking about many rows.
#[derive(Debug, Default)]
pub struct ActiveHolds {
    everything: Option<String>,
    any_subject: Option<String>,
    stores: HashMap<String, String>,
    collections: HashMap<(String, String), String>,
    subjects: HashMap<SubjectDigest, String>,
}

impl ActiveHolds {
    /// Those of `holds` that are active at `now`. Of several with the same scope the first id in order is reported.
    #[must_use]
    pub fn at(holds: &[Hold], now: DateTime<Utc>) -> Self {
        let mut active: Vec<&Hold> = holds.iter().filter(|hold| hold.is_active(now)).collect();
        active.sort_by(|a, b| a.id.cmp(&b.id));
        let mut found = Self::default();
        for hold in active {
            let id = hold.id.clone();
            match &hold.scope {
                HoldScope::Everything => {
                    found.everything.get_or_insert(id);
                }
                HoldScope::Store(store) => {
                    found.stores.entry(store.clone()).or_insert(id);
                }
                HoldScope::Collection { store, collection } => {
                    found.collections.entry((store.clone(), collection.clone())).or_insert(id);
                }
                HoldScope::Subject(subject) => {
                    found.any_subject.get_or_insert_with(|| id.clone());
                    found.subjects.entry(*subject).or_insert(id);
                }
            }
        }
        found
    }

    /// The id of a hold on a whole collection: one on everything, on its store, or on itself.
    #[must_use]
    pub fn on_collection(&self, store: &str, collection: &str) -> Option<&str> {
        let whole = self.everything.as_ref().or_else(|| self.stores.get(store));
        whole.or_else(|| self.collections.get(&(store.to_owned(), collection.to_owned()))).map(String::as_str)
    }

    /// The id of a hold on a subject, in whatever store: one on everything, or on the subject.
    #[must_use]
    pub fn on_subject(&self, subject: SubjectDigest) -> Option<&str> {
        self.everything.as_ref().or_else(|| self.subjects.get(&subject)).map(String::as_str)
    }

    /// The id of a hold on a row, the widest first. A row is held when any of its owners is.
    #[must_use]
    pub fn on_row(&self, store: &str, collection: &str, owners: Owners<'_>) -> Option<&str> {
        self.on_collection(store, collection).or_else(|| match owners {
            Owners::Known(subjects) => subjects.iter().find_map(|subject| self.on_subject(*subject)),
            Owners::Unknown => self.any_subject.as_deref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const ALICE: SubjectDigest = SubjectDigest([1; 32]);
    const BOB: SubjectDigest = SubjectDigest([2; 32]);

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn hold(id: &str, scope: HoldScope) -> Hold {
        Hold { id: id.to_owned(), scope, expires_at: None, released_at: None }
    }

    fn orders() -> HoldScope {
        HoldScope::Collection { store: "shop".to_owned(), collection: "orders".to_owned() }
    }

    #[test]
    fn each_scope_holds_exactly_its_rows() {
        let only = |scope| ActiveHolds::at(&[hold("h1", scope)], now());
        let alice = Owners::Known(&[ALICE]);
        let holds = only(HoldScope::Subject(ALICE));
        assert_eq!(holds.on_row("shop", "orders", alice), Some("h1"));
        assert_eq!(holds.on_row("crm", "calls", Owners::Known(&[BOB, ALICE])), Some("h1"), "a shared row stays");
        assert_eq!(holds.on_row("shop", "orders", Owners::Known(&[BOB])), None);
        assert_eq!(holds.on_row("shop", "products", Owners::Known(&[])), None);
        assert_eq!(holds.on_row("shop", "orders", Owners::Unknown), Some("h1"), "it may be hers");
        assert_eq!(holds.on_collection("shop", "orders"), None);
        let holds = only(orders());
        assert_eq!(holds.on_row("shop", "orders", alice), Some("h1"));
        assert_eq!(holds.on_row("shop", "order_lines", alice), None);
        assert_eq!(holds.on_row("archive", "orders", alice), None);
        assert_eq!(holds.on_row("shop", "order_lines", Owners::Unknown), None);
        let holds = only(HoldScope::Store("shop".to_owned()));
        assert_eq!(holds.on_row("shop", "products", Owners::Known(&[])), Some("h1"));
        assert_eq!(holds.on_row("archive", "orders", alice), None);
        let holds = only(HoldScope::Everything);
        assert_eq!(holds.on_row("archive", "orders", Owners::Unknown), Some("h1"));
        assert_eq!(holds.on_subject(BOB), Some("h1"));
    }

    #[test]
    fn holds_end_at_their_expiry_or_release() {
        let later = now() + TimeDelta::seconds(1);
        let cases = [
            (None, None, true),
            (Some(later), None, true),
            (Some(now()), None, false),
            (None, Some(later), true),
            (None, Some(now()), false),
            (Some(later), Some(now()), false),
        ];
        for (expires_at, released_at, active) in cases {
            let hold = Hold { expires_at, released_at, ..hold("h1", orders()) };
            assert_eq!(hold.is_active(now()), active);
            assert_eq!(ActiveHolds::at(&[hold], now()).on_collection("shop", "orders").is_some(), active);
        }
    }

    #[test]
    fn releasing_one_of_two_holds_keeps_the_rows_held() {
        let released = Hold { released_at: Some(now()), ..hold("h1", HoldScope::Subject(ALICE)) };
        let holds = ActiveHolds::at(&[hold("h2", HoldScope::Subject(ALICE)), released], now());
        assert_eq!(holds.on_subject(ALICE), Some("h2"));
    }

    #[test]
    fn debug_shows_no_digest() {
        let shown = format!("{:?}", hold("h1", HoldScope::Subject(SubjectDigest([171; 32]))));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    }

    fn any_scope() -> impl Strategy<Value = HoldScope> {
        prop_oneof![
            (0..3_u8).prop_map(|n| HoldScope::Subject(SubjectDigest([n; 32]))),
            (0..2_u8, 0..2_u8)
                .prop_map(|(s, c)| HoldScope::Collection { store: format!("s{s}"), collection: format!("c{c}") }),
            (0..2_u8).prop_map(|s| HoldScope::Store(format!("s{s}"))),
            Just(HoldScope::Everything),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn the_arranged_holds_agree_with_the_plain_rule(
            scopes in proptest::collection::vec((any_scope(), -2..3_i64), 0..4),
            store in 0..2_u8, collection in 0..2_u8, owners in proptest::collection::vec(0..3_u8, 0..3),
        ) {
            let holds: Vec<Hold> = scopes
                .into_iter()
                .enumerate()
                .map(|(n, (scope, end))| Hold {
                    expires_at: Some(now() + TimeDelta::seconds(end)),
                    ..hold(&format!("h{n}"), scope)
                })
                .collect();
            let (store, collection) = (format!("s{store}"), format!("c{collection}"));
            let owners: Vec<SubjectDigest> = owners.into_iter().map(|n| SubjectDigest([n; 32])).collect();
            let expected = holds.iter().any(|hold| {
                hold.expires_at > Some(now())
                    && match &hold.scope {
                        HoldScope::Everything => true,
                        HoldScope::Store(held) => *held == store,
                        HoldScope::Collection { store: s, collection: c } => *s == store && *c == collection,
                        HoldScope::Subject(subject) => owners.contains(subject),
                    }
            });
            let active = ActiveHolds::at(&holds, now());
            prop_assert_eq!(active.on_row(&store, &collection, Owners::Known(&owners)).is_some(), expected);
        }
    }
}
