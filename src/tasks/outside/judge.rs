//! Whether a key may die now, and if not, why.
//!
//! From the first look that finds nothing relying on it the key waits as long as something that was erased until then can be put
//! back: rows that were erased later never relied on it. Undo must find the key.

use chrono::{DateTime, Utc};

use crate::config::{BoundTo, OutsideKey};
use crate::control::{OutsideKeyRow, Tx};
use crate::erase::Ground;
use crate::erase::batch::forms_of;
use crate::erase::planner::subject_lookup;
use crate::erase::waits::Waits;
use crate::keys::Key;
use crate::keys::outside::OutsideKeys;
use crate::plan::Subject;
use crate::policy::calendar::BucketPeriod;
use crate::policy::statute::{Earliest, bucket_due_with};

use super::super::Result;
use super::record::{Named, OutsideBody, OutsideWait, Waiting};
use super::rows::{Whose, find_rows};

/// What was found about a key whose time may be over.
pub(super) struct Judged {
    /// Why it must not die now.
    pub wait: Option<Waiting>,
    /// Whether nothing relies on it.
    pub is_ended: bool,
    /// When its period is due, for one that has a period.
    pub due_at: Option<DateTime<Utc>>,
}

impl Judged {
    fn in_use(code: OutsideWait, what: impl Into<String>) -> Self {
        Self { wait: Some(Waiting::new(code, what)), is_ended: false, due_at: None }
    }
}

/// Looks at stores and configuration; notes in `body` what was seen. Whoever reads `is_ended` asks [`what_stops`] next.
///
/// # Errors
/// When the control database fails or a date cannot be computed.
pub(super) async fn judge(
    ground: &Ground<'_>,
    spec: &OutsideKey,
    service: &dyn OutsideKeys,
    named: &Named,
    (row, body): (&OutsideKeyRow, &mut OutsideBody),
) -> Result<Judged> {
    let mut due_at = None;
    if let BoundTo::Policy { period, retired, .. } = &spec.bound {
        if let Some(period) = period {
            match period_due(ground, spec, *period)? {
                Ok(due) => due_at = Some(due),
                Err(waiting) => return Ok(Judged { wait: Some(waiting), is_ended: false, due_at: None }),
            }
        } else if !retired {
            return Ok(Judged::in_use(
                OutsideWait::NotRetired,
                "the application seals with it, as long as its entry does not say `retired = true`",
            ));
        }
    }
    let Some(whose) = whose_of(spec, named) else {
        return Ok(Judged::in_use(OutsideWait::Unregistered, "nothing says whose it is"));
    };
    if let Some(due) = due_at.filter(|due| *due > ground.clock.now()) {
        let waiting = Waiting::new(OutsideWait::PeriodNotDue, "rows of its period are not all due").until(due);
        return Ok(Judged { wait: Some(waiting), is_ended: false, due_at });
    }
    let found = match find_rows(ground, spec, service, whose).await? {
        Ok(found) => found,
        Err(waiting) => return Ok(Judged { wait: Some(waiting), is_ended: false, due_at }),
    };
    body.rows_seen |= found.relies;
    body.clear_seen |= found.in_clear;
    if found.relies {
        return Ok(Judged { due_at, ..Judged::in_use(OutsideWait::RowsRely, "living rows hold fields that it seals") });
    }
    if matches!(whose, Whose::Subject(_)) {
        body.request = request_of(&mut ground.control.read().await?, row).await?;
        if !body.rows_seen && body.request.is_none() {
            return Ok(Judged::in_use(
                OutsideWait::NeverUsed,
                "no row of its subject was ever seen, and no request of theirs was carried out since it was registered",
            ));
        }
    }
    Ok(Judged { wait: None, is_ended: true, due_at })
}

/// Whose rows rely on a key; `None` when nothing says whose it is.
pub(super) fn whose_of<'w>(spec: &'w OutsideKey, named: &'w Named) -> Option<Whose<'w>> {
    match (&spec.bound, &named.subject) {
        (BoundTo::Policy { policy, period, .. }, _) => Some(Whose::Policy(policy, *period)),
        (BoundTo::Subjects, Some(subject)) => Some(Whose::Subject(subject)),
        (BoundTo::Subjects, None) => None,
    }
}

/// When the whole period is due by today's policies and statutes, in the zones of all stores that hold its fields.
fn period_due(
    ground: &Ground<'_>,
    spec: &OutsideKey,
    period: BucketPeriod,
) -> Result<std::result::Result<DateTime<Utc>, Waiting>> {
    let mut latest = None;
    for (store, name) in spec.collections() {
        let site = ground.site(store);
        let governed = site.and_then(|site| site.model.collection(name)?.1.governed.as_ref());
        let (Some(site), Some(governed)) = (site, governed) else {
            let what = format!("{store}.{name} is not there, or no policy governs it");
            return Ok(Err(Waiting::new(OutsideWait::Unregistered, what)));
        };
        let statutes = &governed.statutes;
        let due = bucket_due_with(period, governed.policy.retention, statutes, site.model.spec.timezone);
        match due.map_err(crate::erase::EraseError::from)? {
            Earliest::At(due) => latest = latest.max(Some(due)),
            Earliest::Never => {
                let what = format!("a statute keeps the rows of {store}.{name} for ever");
                return Ok(Err(Waiting::new(OutsideWait::PeriodNotDue, what)));
            }
        }
    }
    let none = || Waiting::new(OutsideWait::Unregistered, "it seals no field of a registered collection");
    Ok(latest.ok_or_else(none))
}

/// The request of its subject that was carried out since the key was registered.
async fn request_of(tx: &mut Tx, row: &OutsideKeyRow) -> Result<Option<i64>> {
    let Some(lookup) = row.lookup else { return Ok(None) };
    let requests = tx.requests(None).await?.into_iter().filter(|request| request.lookup == lookup);
    let mut carried_out = requests.filter(|request| {
        let is_tried_again = || Waits::of(request.waits.as_deref()).again.is_some();
        let is_carried_out = match request.state.as_str() {
            "waiting" => !is_tried_again(),
            state => matches!(state, "done" | "partly-kept" | "nothing-found"),
        };
        is_carried_out && request.closed_at.is_some_and(|closed| closed >= row.registered_at)
    });
    Ok(carried_out.next_back().map(|request| request.number))
}

/// What forbids the end of a key on which nothing relies since `ended`. To be asked again in the transaction of the intent.
pub(super) async fn what_stops(
    ground: &Ground<'_>,
    tx: &mut Tx,
    lookup: &Key,
    (spec, subject): (&OutsideKey, Option<&Subject>),
    ended: DateTime<Utc>,
) -> Result<Option<Waiting>> {
    if let Some(hold) = covering_hold(ground, tx, lookup, (spec, subject), ended).await? {
        let what = format!("hold {hold} covers it until it is released");
        return Ok(Some(Waiting::new(OutsideWait::Hold, what)));
    }
    for state in ["approved", "deleted", "verified", "undoing"] {
        if let Some(run) = tx.runs(Some(state)).await?.first() {
            let what = format!("run {} is not finished", run.id);
            return Ok(Some(Waiting::new(OutsideWait::OtherRun, what)));
        }
    }
    let mut latest: Option<Waiting> = None;
    let mut last = DateTime::<Utc>::MIN_UTC;
    for id in tx.runs_with_pre_images().await? {
        let Some(run) = tx.run(&id).await? else { continue };
        // What it took may have relied on the key if it began before nothing did.
        if run.begun_at > ended {
            continue;
        }
        let until = run.grace_until.unwrap_or(ended).max(ended);
        if latest.is_none() || until > last {
            last = until;
            let what = format!("what run {id} erased can still be put back");
            latest = Some(Waiting::new(OutsideWait::Grace, what).until(until));
        }
    }
    Ok(latest)
}

/// The hold that covers the fields of a key, or its subject. A subject's covers a policy's key as long as rows that may have relied
/// on it wait for their shred: those of runs that began by `ended`, when nothing relied on the key any more. Which period a row was
/// of, nobody knows once it is gone; newer runs are left out, because one of them always waits.
pub(super) async fn covering_hold(
    ground: &Ground<'_>,
    tx: &mut Tx,
    lookup: &Key,
    (spec, subject): (&OutsideKey, Option<&Subject>),
    ended: DateTime<Utc>,
) -> Result<Option<String>> {
    let forms: Vec<[u8; 32]> = match subject {
        Some(subject) => forms_of(ground, subject).iter().map(|form| subject_lookup(lookup, form)).collect(),
        None => Vec::new(),
    };
    let collections = spec.collections();
    let mut is_pending = false;
    for (store, name) in collections.iter().filter(|_| subject.is_none()) {
        is_pending |= tx.has_pending_rows(store, name, ended).await?;
    }
    let covers = |hold: &crate::control::HoldRow| {
        let (store, name) = (hold.store.as_deref(), hold.collection.as_deref());
        match (hold.scope.as_str(), hold.subject) {
            // Whose rows they were, backups still know: it may be this subject.
            ("subject", Some(digest)) => is_pending || forms.contains(&digest),
            ("store", _) => collections.iter().any(|(known, _)| Some(*known) == store),
            ("collection", _) => collections.iter().any(|(known, own)| Some(*known) == store && Some(*own) == name),
            // An unknown scope holds everything: to keep too much can be mended.
            _ => true,
        }
    };
    Ok(tx.holds(true).await?.into_iter().find(covers).map(|hold| hold.id))
}
