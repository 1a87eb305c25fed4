//! What a request waits for whose rows stay: the release of holds, the day on which the statutes that keep them end, or other
//! rules.
//!
//! Kept as JSON beside the request. It names hold ids, one date, the rules and keyed digests of rows, nothing of the person.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::batch::RunKeys;
use super::chunk::{ChunkItem, open_items, place_of};
use super::survey::start_kind;
use super::{EraseError, Ground};
use crate::control::ChunkRow;
use crate::plan::digest::row_mac;
use crate::plan::model::{Governed, Model};
use crate::policy::calendar::Period;
use crate::policy::start::{StartEvent, read_start};
use crate::policy::statute::{Earliest, bounds};

/// What a request waits for. Any of it is enough to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Holds that cover rows of it, by id, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// The first day on which a statute that keeps rows of it ends, or at once when rows changed under the run's hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Digest of the policies, statutes and registry by which they stay: under others they may go, or for other reasons stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Keyed digests of the rows that stay, hex, sorted: when the request goes on by itself it takes no others. The same person may
    /// have come back meanwhile, and nobody asked for that to be erased. None in what was stored before they were noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<String>>,
    /// The collections (`store.table`) in which `rows` were looked for, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<Vec<String>>,
    /// When what could not be carried out is tried again by itself; by hand it can be at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<DateTime<Utc>>,
    /// Stores that no run of the request could look into yet, sorted: whatever is the customer's there is its business.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// Stands in the place of what a request waits for when the same person asked again while it was carried out.
pub const ASKED_AGAIN: &str = "{}";
/// When a request that could not be carried out whole is tried again by itself.
const TRIED_AGAIN: TimeDelta = TimeDelta::days(1);

/// What is left of a request whose run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// What it waits for.
    pub waits: Waits,
    /// Rows that are not its business: they came after it.
    pub later: i64,
    /// The collections that those lie in.
    pub later_places: BTreeSet<String>,
    /// Keyed digests of all rows that the run met, hex.
    pub seen: BTreeSet<String>,
}

impl Rest {
    /// Takes over what the run of a request that waited did not settle: rows in stores that failed, which are tried again; rows of
    /// collections that are registered no more, or under other names; rows in collections that are registered since, of which nobody
    /// knows whether they came after it. Returns whether there are any: the request waits on then.
    pub fn carry_over(&mut self, before: &Waits, is_whole: bool) -> bool {
        let unmet: Vec<String> =
            before.rows.iter().flatten().filter(|row| !self.seen.contains(*row)).cloned().collect();
        let places = before.places.as_deref().unwrap_or_default();
        let now_places = self.waits.places.as_deref().unwrap_or_default();
        let is_moved = !unmet.is_empty() && places.iter().any(|place| !now_places.contains(place));
        let is_unclear = before.places.is_some() && self.later_places.iter().any(|place| !places.contains(place));
        // Of a store that no run could look into, and that is registered no more, nobody knows what it holds.
        let is_there = |store: &String| now_places.iter().any(|place| is_in(place, store));
        let lost: Vec<String> = before.unread.iter().filter(|store| !is_there(store)).cloned().collect();
        if is_whole && !is_moved && !is_unclear && lost.is_empty() {
            // What was not met was looked for where it had been, and is gone: somebody else deleted it.
            return false;
        }
        let rows = self.waits.rows.get_or_insert_default();
        rows.extend(unmet);
        rows.sort_unstable();
        rows.dedup();
        let first_seen = now_places.iter().filter(|place| before.unread.iter().any(|store| is_in(place, store)));
        let places = before.places.as_ref().map(|places| {
            let all: BTreeSet<&String> = places.iter().chain(first_seen).collect();
            all.into_iter().cloned().collect()
        });
        self.waits.places = places;
        self.waits.unread = lost;
        true
    }
}

impl Waits {
    /// Has it tried again what failed, and looked into the stores that were `skipped` when the run was planned, as far as no run of the
    /// request did before.
    pub fn try_again(&mut self, before: Option<&Waits>, skipped: &[String], now: DateTime<Utc>) {
        let is_new = |store: &&String| before.is_none_or(|before| before.unread.contains(store));
        self.unread.extend(skipped.iter().filter(is_new).cloned());
        self.unread.sort_unstable();
        self.unread.dedup();
        let again = now + TRIED_AGAIN;
        // Not at once: what fails now fails again.
        self.until = self.until.filter(|until| *until > again);
        self.again = Some(again);
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty() && self.until.is_none() && self.again.is_none()
    }

    /// Whether something of it has come, with these holds and rules in force now.
    #[must_use]
    pub fn is_over(&self, active: &[String], policy: &str, now: DateTime<Utc>) -> bool {
        [self.until, self.again].into_iter().flatten().any(|at| at <= now)
            || self.holds.iter().any(|hold| !active.contains(hold))
            || self.policy.as_ref().is_some_and(|known| known != policy)
    }

    /// The stored form.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn text(&self) -> Result<String, EraseError> {
        serde_json::to_string(self)
            .map_err(|_| EraseError::Inconsistent("what a request waits for cannot be written as JSON".to_owned()))
    }

    /// Reads what [`Waits::text`] wrote. What cannot be read waits for nothing, so that the request is looked at.
    #[must_use]
    pub fn of(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn by(&mut self, until: DateTime<Utc>) {
        self.until = Some(self.until.map_or(until, |known| known.min(until)));
    }
}

/// What the request of a run waits for, from the run's lists and what became of them. Rows that stay because a row of
/// somebody else needs them wait for nothing. `erased` are the digests of those that the run took.
///
/// # Errors
/// When a list does not open, or its store cannot be reached.
pub fn waits_of(
    ground: &Ground<'_>,
    plan: &str,
    (chunks, erased): (&[ChunkRow], &BTreeSet<[u8; 16]>),
    keys: &RunKeys,
    cutoff: DateTime<Utc>,
) -> Result<Rest, EraseError> {
    let (mut waits, mut rows, mut later) = (Waits::default(), Vec::new(), 0);
    let (mut later_places, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for chunk in chunks {
        // They were to go, but changed or were put on hold meanwhile: the next plan will say what they wait for.
        if chunk.verdict == "settled" {
            continue;
        }
        if chunk.is_work() && chunk.counts.kept > 0 {
            waits.by(ground.clock.now());
        }
        let (site, collection) = place_of(ground, chunk)?;
        for item in open_items(&keys.plan, plan, chunk.number, &chunk.sealed)? {
            let is_kept = chunk.verdict == "keep";
            let mac = row_mac(&keys.suppression, &chunk.store, &chunk.collection, &item.row.key);
            seen.insert(hex::encode(mac));
            if is_kept && item.reason.as_deref() == Some("later") {
                later += 1;
                later_places.insert(place_name(&chunk.store, &chunk.collection));
                continue;
            }
            if !erased.contains(&mac) {
                rows.push(hex::encode(mac));
            }
            if !is_kept {
                continue;
            }
            let reason = item.reason.as_deref().unwrap_or_default();
            if let Some(hold) = reason.strip_prefix("hold:") {
                waits.holds.push(hold.to_owned());
            } else if (reason.starts_with("statute:") || reason.starts_with("restricted:"))
                && let Some(governed) = &collection.governed
                && let Some(until) = end_of_statutes(governed, &item, site.model.spec.timezone, cutoff)?
            {
                waits.by(until);
            }
        }
    }
    waits.holds.sort_unstable();
    waits.holds.dedup();
    rows.sort_unstable();
    waits.rows = Some(rows);
    waits.policy = Some(ground.policy_digest.to_owned());
    waits.places = Some(places(ground));
    Ok(Rest { waits, later, later_places, seen })
}

/// The collections that can be read, sorted.
fn places(ground: &Ground<'_>) -> Vec<String> {
    let mut places: Vec<String> = ground.sites.iter().flat_map(|site| place_names(&site.model)).collect();
    places.sort_unstable();
    places
}

fn place_names(model: &Model) -> impl Iterator<Item = String> + '_ {
    model.collections.iter().map(|collection| place_name(&model.spec.name, &collection.table.name))
}

/// Whether a collection, by its name in [`Waits::places`], is one of this store.
fn is_in(place: &str, store: &str) -> bool {
    place.strip_prefix(store).is_some_and(|rest| rest.starts_with('.'))
}

/// What a collection is called in [`Waits::places`].
#[must_use]
pub fn place_name(store: &str, table: &str) -> String {
    format!("{store}.{table}")
}

/// When the last statute that binds a row ends; none when one never does, or the row's start event cannot be read.
fn end_of_statutes(
    governed: &Governed,
    item: &ChunkItem,
    zone: chrono_tz::Tz,
    cutoff: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, EraseError> {
    let start = item.row.start.as_ref().map(|value| read_start(value, start_kind(governed.start.kind), zone, cutoff));
    let Some(StartEvent::At(at)) = start else { return Ok(None) };
    Ok(match bounds(at, Period { months: 0, days: 0 }, &governed.statutes, zone)?.earliest {
        Earliest::At(end) => Some(end),
        Earliest::Never => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn any_of_what_is_waited_for_is_enough() {
        let holds = vec!["a".to_owned(), "b".to_owned()];
        let (policy, rows) = (Some("p".to_owned()), Some(vec!["00".to_owned()]));
        let waits = Waits { holds, until: Some(at(100)), policy, rows, ..Waits::default() };
        let both = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert!(!waits.is_over(&both, "p", at(99)));
        assert!(waits.is_over(&both, "p", at(100)));
        assert!(waits.is_over(&both[1..], "p", at(0)));
        assert!(waits.is_over(&both, "q", at(0)));
        assert!(!Waits::default().is_over(&[], "p", at(1_000)), "what waits for nothing never comes back");
        assert_eq!(Waits::of(Some(&waits.text().unwrap())), waits);
        assert!(Waits::of(Some("{")).is_empty() && Waits::of(None).is_empty());
    }

    #[test]
    fn rows_that_a_run_did_not_meet_are_carried_over_where_they_may_still_be() {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let before = Waits { rows: list(&["a", "b"]), places: list(&["shop.notes"]), ..Waits::default() };
        let rest = |places: &[&str]| Rest {
            waits: Waits { rows: list(&["a"]), places: list(places), ..Waits::default() },
            later: 0,
            later_places: BTreeSet::new(),
            seen: BTreeSet::from(["a".to_owned()]),
        };
        // Looked for and not there.
        let mut gone = rest(&["shop.notes", "shop.orders"]);
        assert!(!gone.carry_over(&before, true) && gone == rest(&["shop.notes", "shop.orders"]));
        // Under another name now: nobody can say.
        let mut moved = rest(&["shop.remarks"]);
        assert!(moved.carry_over(&before, true));
        assert_eq!((moved.waits.rows, moved.waits.until), (list(&["a", "b"]), None));
        // In a store that was away: tried again.
        let mut away = rest(&["shop.notes"]);
        assert!(away.carry_over(&before, false));
        assert_eq!((&away.waits.rows, away.waits.again), (&list(&["a", "b"]), None));
        away.waits.try_again(Some(&before), &["shop".to_owned()], at(0));
        assert_eq!(
            (away.waits.again, away.waits.unread.len()),
            (Some(at(86_400)), 0),
            "what it looked into once, it knows"
        );
        // Rows that nobody knows, in a collection of before and in one that is new.
        let later = |place: &str| Rest {
            seen: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            later_places: BTreeSet::from([place.to_owned()]),
            ..rest(&["shop.notes", "shop.orders"])
        };
        assert!(!later("shop.notes").carry_over(&before, true));
        let mut unclear = later("shop.orders");
        assert!(unclear.carry_over(&before, true));
        assert_eq!(unclear.waits.places, before.places, "it stays new");
    }

    #[test]
    fn a_store_that_no_run_looked_into_is_the_request_s_business_until_one_did() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let rest = |places: &[&str]| Rest {
            waits: Waits { rows: Some(Vec::new()), places: Some(names(places)), ..Waits::default() },
            later: 0,
            later_places: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        let mut first = rest(&["shop.orders"]).waits;
        assert!(first.is_empty());
        first.try_again(None, &names(&["crm", "calls"]), at(0));
        assert_eq!((first.unread.clone(), first.is_empty()), (names(&["calls", "crm"]), false));
        assert!(!first.is_over(&[], "p", at(86_399)) && first.is_over(&[], "p", at(86_400)));
        assert_eq!(Waits::of(Some(&first.text().unwrap())), first);
        // Taken out of the configuration, one of them is not forgotten: somebody has to decide.
        let mut lost = rest(&["shop.orders", "crm.people"]);
        assert!(lost.carry_over(&first, true) && lost.waits.is_empty());
        assert_eq!(lost.waits.unread, names(&["calls"]));
        assert!(!rest(&["calls.tickets", "crm.people"]).carry_over(&first, true), "all was looked into");
        // The next run finds one of the two, and another store away that the first had read.
        let mut second = rest(&["calls.tickets", "calls2.x"]);
        assert!(second.carry_over(&first, false));
        second.waits.try_again(Some(&first), &names(&["crm", "shop"]), at(0));
        assert_eq!(second.waits.unread, names(&["crm"]));
        assert_eq!(
            second.waits.places,
            Some(names(&["calls.tickets", "shop.orders"])),
            "what was read is known from now on"
        );
    }
}
