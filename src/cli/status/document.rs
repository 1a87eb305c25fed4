//! The JSON of `status`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::media::WaitingMediumEntry;
use super::super::output::shapes::{DoomedOutsideKeyEntry, DoomedRootEntry, SecondPlace, Time};
use super::super::output::{Document, Outcome};
use super::next_step;
use crate::tasks::finality::FinalitySummary;
use crate::tasks::status::{Overdue, Status};

/// The state of an installation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusDocument {
    /// `complete` when nothing needs a person, otherwise `partial` with exit code 5.
    result: Outcome,
    /// The process that works, by its pid.
    working: Option<i64>,
    /// Since when all destruction is held; null when it is not.
    #[schemars(extend("format" = "date-time"))]
    held_since: Option<String>,
    /// How many requests are in each state.
    request_states: BTreeMap<String, u64>,
    /// How many runs are in each state.
    run_states: BTreeMap<String, u64>,
    /// How many runs are final, and what the shredded ones wait for.
    finality: FinalitySummary,
    /// Holds in force.
    active_holds: u64,
    /// Certificates and their filing.
    filing: FilingCounts,
    /// The last restore drill.
    last_drill: Option<LastDrill>,
    /// The newest state record in the second place; null while there is none.
    second_place: Option<SecondPlace>,
    /// Old root keys that open nothing any more and are irrevocably gone only at a date.
    doomed_roots: Vec<DoomedRootEntry>,
    /// Applications' keys that open nothing any more and are irrevocably gone only at a date.
    doomed_outside_keys: Vec<DoomedOutsideKeyEntry>,
    /// Records of destroyed and lost media that wait for something.
    waiting_media: Vec<WaitingMediumEntry>,
    /// The stores that are backed up, with their newest snapshot.
    stores: Vec<BackedUpStore>,
    /// What needs a person.
    overdue: Vec<OverdueEntry>,
}

impl Document for StatusDocument {
    const OF: &'static [&'static str] = &["status"];
}

/// Certificates by what became of them.
#[derive(Debug, Serialize, JsonSchema)]
struct FilingCounts {
    /// Issued.
    issued: u64,
    /// Of them filed, with a verified receipt.
    receipted: u64,
    /// Of them waiting to be filed.
    waiting: u64,
    /// Of them refused by the audit service.
    quarantined: u64,
}

/// The last restore drill.
#[derive(Debug, Serialize, JsonSchema)]
struct LastDrill {
    /// When it began.
    at: Time,
    /// Whether it passed.
    passed: bool,
}

/// A store that is backed up.
#[derive(Debug, Serialize, JsonSchema)]
struct BackedUpStore {
    /// Its name.
    store: String,
    /// When its newest snapshot began; null when there is none.
    newest_at: Option<Time>,
    /// Rows in that snapshot.
    rows: i64,
}

/// Something that needs a person.
#[derive(Debug, Serialize, JsonSchema)]
struct OverdueEntry {
    /// What it is, for scripts: `no-snapshot`, `request-overdue`, …
    code: String,
    /// One sentence, without personal data.
    what: String,
    /// Since when, or when it was due.
    since: Option<Time>,
    /// The command that helps.
    r#do: String,
}

impl OverdueEntry {
    fn of(item: &Overdue) -> Self {
        let (_, advice) = next_step(item.code);
        Self {
            code: item.code.to_owned(),
            what: item.what.clone(),
            since: item.since.map(Time::from),
            r#do: advice.to_owned(),
        }
    }
}

impl StatusDocument {
    /// Of what was read.
    pub fn of(result: Outcome, status: &Status) -> Self {
        let [issued, receipted, waiting, quarantined] = status.certificates;
        let store = |(store, newest, rows): &(String, Option<_>, i64)| BackedUpStore {
            store: store.clone(),
            newest_at: newest.map(Time::from),
            rows: *rows,
        };
        Self {
            result,
            working: status.working,
            held_since: status.held_since.clone(),
            request_states: status.requests.iter().cloned().collect(),
            run_states: status.runs.iter().cloned().collect(),
            finality: status.finality.clone(),
            active_holds: status.holds,
            filing: FilingCounts { issued, receipted, waiting, quarantined },
            last_drill: status.last_drill.map(|(at, passed)| LastDrill { at: at.into(), passed }),
            second_place: status.second_place.clone().map(|(record, generation, at)| SecondPlace {
                record,
                generation,
                at,
            }),
            doomed_roots: status.doomed.iter().map(DoomedRootEntry::of).collect(),
            doomed_outside_keys: status.doomed_outside_keys.iter().map(DoomedOutsideKeyEntry::of).collect(),
            waiting_media: status.waiting_media.iter().map(WaitingMediumEntry::of).collect(),
            stores: status.snapshots.iter().map(store).collect(),
            overdue: status.overdue.iter().map(OverdueEntry::of).collect(),
        }
    }
}
