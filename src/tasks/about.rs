//! One customer: is anything of them left, and which copy opens until when?
//!
//! The stores are asked now; what became of copies is what the newest certificate of each of the customer's requests says, and what
//! still keeps its run from being final. Rows that retention removed are attributed to nobody, so nothing is said of them.

use std::collections::{BTreeMap, HashSet};

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::Serialize;

use crate::certify::codes::{BackupState, CopyState};
use crate::certify::statement::{Predicate, Target};
use crate::certify::verify;
use crate::control::{CertificateRow, RequestRow, RunRow, Tx};
use crate::erase::planner::subject_lookup;
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::keys::cell::pseudonym;
use crate::plan::Subject;

use super::certify::{FINAL, SHREDDED};
use super::erasure::RunBody;
use super::finality::{Residual, ResidualCode};
use super::request::{every_form, look_up, request_name};
use super::{Result, TaskError};

/// How much is left of a customer, as the weakest of everything that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// A store could not be read: nobody knows.
    Unknown,
    /// Registered stores have rows of them.
    Present,
    /// Absent from the live stores; the keys of what backups hold are not destroyed yet, or nobody asked for that.
    ShredPending,
    /// The keys are destroyed; copies remain that have dates, or none, of their own.
    Shredded,
    /// The keys are destroyed, and the date of every copy that is known is past.
    Final,
    /// No store has rows of them, and no erasure of them is known.
    NothingKnown,
}

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// A table of a registered store, asked now.
    Live,
    /// The backups of it.
    Backups,
    /// A declared further copy of the store.
    Copy,
    /// Something else from which it could be brought back: see `residual`.
    Residual,
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceState {
    /// Nobody looked, or nobody could.
    Unknown,
    /// It is there, or still opens; `until` says how long, if that is known.
    There,
    /// It is gone, or does not open any more. Of a declared copy: by its declared date.
    Gone,
}

/// One place where the customer's data is or was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Place {
    /// What it is.
    pub kind: PlaceKind,
    /// `store/collection`, `store/copy`; empty where a residual has no name.
    pub name: String,
    /// Which residual, where it is one.
    pub residual: Option<ResidualCode>,
    /// What is there.
    pub state: PlaceState,
    /// Rows that are there now, of a live table.
    pub rows: Option<u64>,
    /// The last day on which it may be there; none where nobody knows one.
    pub until: Option<NaiveDate>,
}

/// A request of the customer.
#[derive(Debug, Clone)]
pub struct TheirRequest {
    /// The request.
    pub request: RequestRow,
    /// The state of its run.
    pub run_state: Option<String>,
    /// The newest certificate about it.
    pub certificate: Option<CertificateRow>,
}

/// What is known of one customer.
#[derive(Debug, Clone)]
pub struct About {
    /// How much is left.
    pub left: Left,
    /// The day after which nothing that is known opens any more; none where something has no date, or nothing is left.
    pub gone_after: Option<NaiveDate>,
    /// The places, live tables first.
    pub places: Vec<Place>,
    /// Stores that could not be read, with the reason.
    pub unread: Vec<(String, String)>,
    /// Holds on them that are in force, by id.
    pub holds: Vec<String>,
    /// Their requests, oldest first.
    pub requests: Vec<TheirRequest>,
}

/// Everything that is known of a customer; the look is logged before.
///
/// # Errors
/// When the control database or the log fails, or a record is damaged; stores that cannot be read are named in the answer.
pub async fn about(installation: &Installation, subject: &Subject) -> Result<About> {
    let look = Operation { name: "certificate.about", object: "customer", outcome: "success", ..Operation::default() };
    installation.log_look(Operation { subject: Some(subject), ..look }).await?;
    let forms = every_form(installation, subject).await?;
    let card = look_up(installation, subject).await?;
    let today = installation.clock.now().date_naive();
    let mut places: BTreeMap<(PlaceKind, String, Option<ResidualCode>), Place> = BTreeMap::new();
    for (store, collection, rows) in &card.rows {
        let state = if *rows > 0 { PlaceState::There } else { PlaceState::Gone };
        put(&mut places, Place { rows: Some(*rows), ..place(PlaceKind::Live, format!("{store}/{collection}"), state) });
    }
    let mut tx = installation.control.begin().await?;
    let lookup = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    tx.commit().await?;
    let lookups: HashSet<[u8; 32]> = forms.iter().map(|form| subject_lookup(&lookup, form)).collect();
    let reference = |form: &Subject| hex::encode(pseudonym(&key, "certificate", &[form.dangerous_text().as_bytes()]));
    let references: HashSet<String> = forms.iter().map(reference).collect();

    let mut tx = installation.control.read().await?;
    let holds = tx.holds(true).await?.into_iter().filter(|hold| hold.subject.is_some_and(|of| lookups.contains(&of)));
    let holds = holds.map(|hold| hold.id).collect();
    let mut known = Known::default();
    let mut requests = Vec::new();
    let runs = tx.runs(None).await?;
    for request in tx.requests(None).await?.into_iter().filter(|request| lookups.contains(&request.lookup)) {
        let (mut run_state, mut certificate) = (None, None);
        // One that waited was carried out more than once, and each time left copies of its own.
        for run in runs.iter().filter(|run| run.request == Some(request.number)) {
            certificate = add_run(&mut places, installation, &mut tx, (run, &references), today, &mut known).await?;
            run_state = Some(run.state.clone());
        }
        // Somebody ended it: that came last.
        if let Some(refused) = tx.newest_certificate_of(&request_name(request.number)).await? {
            certified(installation, &refused, &references)?;
            certificate = Some(refused);
        }
        requests.push(TheirRequest { request, run_state, certificate });
    }
    // What was backed up and then removed by somebody else, or came back behind an erasure, opens all the same.
    for lookup in &lookups {
        for store in tx.stores_of_subject(lookup).await? {
            known.states.push(SEALED.to_owned());
            let is_of_store = |place: &Place| place.name.split_once('/').is_some_and(|(of, _)| of == store);
            let is_told = |place: &Place| place.kind == PlaceKind::Backups && place.state == PlaceState::There;
            if !places.values().any(|place| is_told(place) && is_of_store(place)) {
                put(&mut places, place(PlaceKind::Backups, store, PlaceState::There));
            }
        }
    }
    let is_unread = !card.unread.is_empty();
    let places: Vec<Place> = places.into_values().collect();
    let left = left_of(is_unread, !card.is_empty(), &known.states);
    let gone_after = gone_after(left, known.is_whole, &places);
    Ok(About { left, gone_after, places, unread: card.unread, holds, requests })
}

/// The state of what backups hold under keys that exist, whether or not an erasure is known.
const SEALED: &str = "sealed";

/// What is known of the erasures of a customer.
struct Known {
    /// The states of their runs.
    states: Vec<String>,
    /// Whether every one that is shredded was certified and looked at for what is left: only then is a last date one.
    is_whole: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self { states: Vec::new(), is_whole: true }
    }
}

fn place(kind: PlaceKind, name: String, state: PlaceState) -> Place {
    Place { kind, name, residual: None, state, rows: None, until: None }
}

/// Of what two erasures say of one place, what is left longer counts.
fn put(places: &mut BTreeMap<(PlaceKind, String, Option<ResidualCode>), Place>, new: Place) {
    let key = (new.kind, new.name.clone(), new.residual);
    let known = places.entry(key).or_insert_with(|| new.clone());
    if new.state < known.state {
        *known = new;
    } else if new.state == known.state && known.until.is_some() {
        known.until = new.until.and_then(|until| known.until.map(|other| other.max(until)));
    }
}

/// The copies that an erasure of the customer left; returns the newest certificate about it.
async fn add_run(
    places: &mut BTreeMap<(PlaceKind, String, Option<ResidualCode>), Place>,
    installation: &Installation,
    tx: &mut Tx,
    (run, references): (&RunRow, &HashSet<String>),
    today: NaiveDate,
    known: &mut Known,
) -> Result<Option<CertificateRow>> {
    let body = RunBody::of(run)?;
    // Written when the keys were marked; before that, the request alone tells whose run it is.
    if body.subject_ref.as_ref().is_some_and(|of| !references.contains(of)) {
        let id = &run.id;
        return Err(TaskError::Inconsistent(format!("run {id} and its request are about different people")));
    }
    let certificate = tx.newest_certificate_of(&run.id).await?;
    if let Some(row) = &certificate {
        for found in of_certificate(&certified(installation, row, references)?, today) {
            put(places, found);
        }
    }
    known.states.push(run.state.clone());
    known.is_whole &= run.state != SHREDDED || (certificate.is_some() && body.residuals.is_some());
    let is_copy =
        |residual: &&Residual| matches!(residual.code, ResidualCode::DeclaredCopy | ResidualCode::UndatedCopy);
    let residuals = body.residuals.as_deref().unwrap_or_default();
    for residual in residuals.iter().filter(|residual| run.state == SHREDDED && !is_copy(residual)) {
        let name = residual.of.clone().unwrap_or_default();
        let state = match residual.until {
            Some(until) if until < today => PlaceState::Gone,
            _ => PlaceState::There,
        };
        let found = place(PlaceKind::Residual, name, state);
        put(places, Place { residual: Some(residual.code), until: residual.until, ..found });
    }
    Ok(certificate)
}

/// What a stored certificate says, which must be this one and about this customer.
fn certified(installation: &Installation, row: &CertificateRow, references: &HashSet<String>) -> Result<Predicate> {
    let wrong = |what: String| TaskError::Proof(format!("certificate {}: {what}", row.id));
    let verified = verify(&row.envelope, installation.signer.trusted()).map_err(|error| wrong(error.to_string()))?;
    if verified.id() != row.id {
        return Err(wrong("another one lies in its place".to_owned()));
    }
    let Some(statement) = verified.into_erasure() else {
        return Err(wrong("a roll-up lies in its place".to_owned()));
    };
    let said = statement.predicate;
    let is_theirs = |of: &String| of.rsplit(':').next().is_some_and(|digest| references.contains(digest));
    if !said.scope.subject_refs.iter().all(is_theirs) {
        return Err(wrong("it is about somebody else".to_owned()));
    }
    Ok(said)
}

fn of_certificate(predicate: &Predicate, today: NaiveDate) -> Vec<Place> {
    predicate.targets.iter().flat_map(|target| of_target(target, today)).collect()
}

fn of_target(target: &Target, today: NaiveDate) -> Vec<Place> {
    let mut found = Vec::new();
    let until = target.backups.expires_by;
    let backups = match target.backups.state {
        BackupState::Erased => Some(PlaceState::Gone),
        BackupState::None => None,
        BackupState::Expires | BackupState::Chain | BackupState::ReplayedOnRestore => Some(PlaceState::There),
    };
    if let Some(state) = backups {
        let until = until.filter(|_| state == PlaceState::There);
        found.push(Place { until, ..place(PlaceKind::Backups, target.location.clone(), state) });
    }
    for copy in &target.copies {
        let state = match (copy.state, copy.dies_by) {
            (CopyState::Absent | CopyState::Destroyed, _) => PlaceState::Gone,
            (_, Some(dies)) if dies < today => PlaceState::Gone,
            (CopyState::Expires, _) => PlaceState::There,
            (CopyState::Unread, _) => PlaceState::Unknown,
        };
        let store = target.location.split_once('/').map_or(target.location.as_str(), |(store, _)| store);
        let name = format!("{store}/{}", copy.copy_ref);
        found.push(Place { until: copy.dies_by, ..place(PlaceKind::Copy, name, state) });
    }
    found
}

/// The weakest of what is known. A run that was undone left nothing gone, one that erased nothing says nothing.
fn left_of(is_unread: bool, has_rows: bool, states: &[String]) -> Left {
    if has_rows {
        return Left::Present;
    }
    if is_unread {
        return Left::Unknown;
    }
    let of = |state: &str| match state {
        FINAL => Some(Left::Final),
        SHREDDED => Some(Left::Shredded),
        "undone" | "undoing" | "failed" => None,
        _ => Some(Left::ShredPending),
    };
    states.iter().filter_map(|state| of(state)).min().unwrap_or(Left::NothingKnown)
}

/// The last date of what is left, when the keys are destroyed and everything that is left has one. Before that nobody knows what the slot and
/// the store's own files will leave.
fn gone_after(left: Left, is_whole: bool, places: &[Place]) -> Option<NaiveDate> {
    if left != Left::Shredded || !is_whole {
        return None;
    }
    let open = places.iter().filter(|place| place.state != PlaceState::Gone);
    open.map(|place| place.until).collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(of: &[&str]) -> Vec<String> {
        of.iter().map(|state| (*state).to_owned()).collect()
    }

    #[test]
    fn the_weakest_of_what_is_known_is_the_answer() {
        for (is_unread, has_rows, of, expected) in [
            (false, false, &[][..], Left::NothingKnown),
            (true, false, &[FINAL][..], Left::Unknown),
            (true, true, &[FINAL][..], Left::Present),
            (false, false, &[FINAL][..], Left::Final),
            (false, false, &[FINAL, SHREDDED][..], Left::Shredded),
            (false, false, &[FINAL, "shred-pending", SHREDDED][..], Left::ShredPending),
            (false, false, &[FINAL, "deleted"][..], Left::ShredPending),
            (false, false, &["undone", "failed"][..], Left::NothingKnown),
            (false, false, &[SEALED][..], Left::ShredPending),
            (false, false, &[FINAL, SEALED][..], Left::ShredPending),
        ] {
            assert_eq!(left_of(is_unread, has_rows, &states(of)), expected, "{of:?}");
        }
    }

    #[test]
    fn of_two_erasures_the_longer_date_counts_and_none_is_longest() {
        let day = |text: &str| Some(text.parse::<NaiveDate>().unwrap());
        let copy = |state, until| Place { until, ..place(PlaceKind::Copy, "shop/dump".to_owned(), state) };
        for (first, second, expected) in [
            ((PlaceState::There, day("2027-01-01")), (PlaceState::There, day("2027-03-01")), day("2027-03-01")),
            ((PlaceState::There, day("2027-03-01")), (PlaceState::There, day("2027-01-01")), day("2027-03-01")),
            ((PlaceState::There, None), (PlaceState::There, day("2027-01-01")), None),
            ((PlaceState::There, day("2027-01-01")), (PlaceState::There, None), None),
            ((PlaceState::Gone, day("2026-01-01")), (PlaceState::There, day("2027-01-01")), day("2027-01-01")),
            ((PlaceState::There, day("2027-01-01")), (PlaceState::Gone, day("2028-01-01")), day("2027-01-01")),
        ] {
            let mut places = BTreeMap::new();
            put(&mut places, copy(first.0, first.1));
            put(&mut places, copy(second.0, second.1));
            let found: Vec<Place> = places.into_values().collect();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].state, found[0].until), (PlaceState::There, expected), "{first:?} {second:?}");
            assert_eq!(gone_after(Left::Shredded, true, &found), expected);
        }
    }
}
