//! `undo`: takes an erasure back within its grace (rule of dying 5).
//!
//! Rows go back from their pre-images, parents first, each chunk in transactions of its own, and those that went together in
//! one, together; then the ledger entries are reversed, the keys that were marked live on, and a superseding certificate says so. A living row is never overwritten.
//! The run is `undoing` meanwhile, so that no shred counts on it; a crash anywhere is cured by going on.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::certify::codes::RefusalReason;
use crate::control::{ChunkRow, Left, RunRow, Tx};
use crate::crash_point;
use crate::erase::Ground;
use crate::erase::chunk::place_of;
use crate::erase::pre_image::{PreImage, open_image};
use crate::erase::put_back::{Place, PutBack, put_back, put_back_together};
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::plan::digest::row_mac;
use crate::stores::{ColumnRef, Filter, RowQuery};
use crate::value::{RowKey, encode_values};

use super::erasure::{RunBody, forget_markers};
use super::request::{WAITING, cancel};
use super::shred::held;
use super::{Result, TaskError};

/// What an undo did; all counts are rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UndoReport {
    /// The run that was undone.
    pub run: String,
    /// Rows that are as they were before the run.
    pub restored: u64,
    /// Rows left alone, because a newer row with their key lives, a later run erased them again, or the stripped row was
    /// changed or removed since.
    pub superseded: u64,
    /// Rows that could not be put back; the undo can be repeated within grace.
    pub refused: u64,
    /// Why not, without values.
    pub notes: Vec<String>,
}

impl UndoReport {
    /// The same with what the undo of an older run did.
    fn and(mut self, older: &Self) -> Self {
        self.restored += older.restored;
        self.superseded += older.superseded;
        self.refused += older.refused;
        self.notes.extend(older.notes.iter().cloned());
        self
    }
}

/// Undoes a run that is in grace.
///
/// # Errors
/// Refused when grace is over, the run had none, or it is not far enough; otherwise what failed: the undo goes on at the next
/// start then.
pub async fn undo_run(installation: &Installation, run: &RunRow) -> Result<UndoReport> {
    check_undoable(installation, run).await?;
    let ground = installation.ground()?;
    for chunk in chunks_of(installation, run).await? {
        place_of(&ground, &chunk)?;
    }
    installation.log_operation("run.undo", &run.id, "intent").await?;
    let mut run = run.clone();
    let from = std::mem::replace(&mut run.state, "undoing".to_owned());
    let mut tx = installation.control.begin().await?;
    if !tx.step_run(&run, &from).await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state {from} any more", run.id)));
    }
    tx.commit().await?;
    crash_point::reached("undo.begun");
    go_on(installation, run).await
}

/// Undoes what was carried out of a request: all its runs that are in grace, the newest first.
///
/// # Errors
/// As [`undo_run`], for the newest, when none of them can be undone; refused also when the request has no run.
pub async fn undo_request(installation: &Installation, number: i64) -> Result<UndoReport> {
    let mut tx = installation.control.read().await?;
    let request = tx.request(number).await?.ok_or_else(|| TaskError::Unknown {
        what: format!("there is no request {number}"),
        advice: "see `wangchuan request list`".to_owned(),
    })?;
    let runs = tx.runs_of_request(number).await?;
    drop(tx);
    let (mut undone, mut refused): (Option<UndoReport>, Option<TaskError>) = (None, None);
    for run in runs.iter().rev() {
        match undo_run(installation, run).await {
            Ok(report) => undone = Some(undone.map_or_else(|| report.clone(), |newer| newer.and(&report))),
            Err(error @ TaskError::Refused { .. }) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let Some(report) = undone else {
        return Err(refused.unwrap_or_else(|| {
            let what = format!("request {number} is {} and erased nothing", request.state);
            TaskError::refused(what, "see `wangchuan request show`")
        }));
    };
    let now = installation.control.read().await?.request(number).await?;
    // Asked for again since, it is still open.
    if now.is_some_and(|request| request.state == "received") {
        cancel(installation, number, RefusalReason::Withdrawn).await?;
    }
    Ok(report)
}

/// Why a run cannot be undone, if it cannot.
async fn check_undoable(installation: &Installation, run: &RunRow) -> Result<()> {
    let refuse = |why: String, advice: &str| Err(TaskError::refused(format!("run {} {why}", run.id), advice));
    match run.state.as_str() {
        "shred-pending" | "undone" => {}
        "undoing" => return refuse("is being undone already".to_owned(), "`wangchuan agent --once` goes on with it"),
        "approved" | "deleted" | "verified" => {
            return refuse("is not finished".to_owned(), "`wangchuan agent --once` finishes it; undo it then");
        }
        state => return refuse(format!("is {state}; what is gone stays gone"), "nothing can be done"),
    }
    let mut tx = installation.control.begin().await?;
    let has_images = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, &run.id).await?.is_some();
    drop(tx);
    if let Some(number) = run.request
        && installation.control.read().await?.request(number).await?.is_some_and(|request| request.state == "running")
    {
        return refuse(
            format!("cannot be undone now: request {number} is being carried out again"),
            "`wangchuan agent --once` finishes it; undo its runs then",
        );
    }
    let is_in_grace = run.grace_until.is_some_and(|until| until > installation.clock.now());
    if has_images && (is_in_grace || held(installation, run).await?.is_some()) {
        return Ok(());
    }
    if run.state == "undone" && !has_images {
        return refuse("was undone already".to_owned(), "nothing is left to do");
    }
    let why = match (run.grace_until, run.verified_at) {
        (Some(until), Some(verified)) if until > verified => {
            format!("its grace ended at {}", until.format("%Y-%m-%d %H:%M"))
        }
        _ => "its policies have no grace, so nothing was kept to put back".to_owned(),
    };
    refuse(
        format!("cannot be undone: {why}"),
        "what was erased cannot be brought back; a longer `grace` in the policy keeps this possible for longer",
    )
}

async fn chunks_of(installation: &Installation, run: &RunRow) -> Result<Vec<ChunkRow>> {
    let mut tx = installation.control.read().await?;
    let chunks = tx.chunks(run.plan.as_deref().unwrap_or_default()).await?;
    Ok(chunks.into_iter().filter(ChunkRow::is_work).collect())
}

/// Goes on with an undo that was begun.
///
/// # Errors
/// What failed; it can be gone on with again.
pub async fn go_on(installation: &Installation, mut run: RunRow) -> Result<UndoReport> {
    let ground = installation.ground()?;
    forget_markers(&ground, &run).await?;
    let mut tx = installation.control.begin().await?;
    let key = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, &run.id).await?;
    let key =
        key.ok_or_else(|| TaskError::Inconsistent(format!("run {}: the key of its pre-images is gone", run.id)))?;
    let suppression = installation.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
    let certificate = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let left = tx.left_by_run(&run.id).await?;
    tx.commit().await?;
    let undo = Undo { installation, ground: &ground, run: &run, key, suppression, certificate, left };
    let mut report = UndoReport { run: run.id.clone(), ..UndoReport::default() };
    // What was deleted last goes back first: parents before their children.
    let chunks = chunks_of(installation, &run).await?;
    let mut begun = HashSet::new();
    for chunk in chunks.iter().rev() {
        if !begun.insert(chunk.number) {
            continue;
        }
        let _whole = installation.begin_piece()?;
        // What went together comes back together.
        let others = chunks.iter().rev().filter(|other| chunk.knot.is_some() && other.knot == chunk.knot);
        let together: Vec<&ChunkRow> = others.filter(|other| begun.insert(other.number)).collect();
        let together: Vec<&ChunkRow> = std::iter::once(chunk).chain(together).collect();
        undo.chunks(&together, &mut report).await?;
        crash_point::reached("undo.chunk-restored");
    }
    end(installation, &mut run, &mut report).await?;
    forget_markers(&ground, &run).await?;
    let outcome = if report.refused == 0 { "success" } else { "failure" };
    installation.log_operation("run.undo", &run.id, outcome).await?;
    installation.note_bulk("run.undo", &run.id, report.restored).await;
    Ok(report)
}

struct Undo<'a> {
    installation: &'a Installation,
    ground: &'a Ground<'a>,
    run: &'a RunRow,
    key: Key,
    suppression: Key,
    certificate: Key,
    /// What anonymised rows were left with.
    left: HashMap<[u8; 16], Left>,
}

/// The rows of a chunk that are to come back.
struct Part<'a> {
    place: Place<'a>,
    image: PreImage,
}

impl<'a> Undo<'a> {
    /// Puts back a chunk, or those of one knot.
    async fn chunks(&self, chunks: &[&'a ChunkRow], report: &mut UndoReport) -> Result<()> {
        let mut parts = Vec::new();
        for chunk in chunks {
            parts.extend(self.part(chunk, report).await?);
        }
        let is_knot = chunks.iter().any(|chunk| chunk.knot.is_some());
        let all: Vec<(&Place<'_>, &PreImage)> = parts.iter().map(|part| (&part.place, &part.image)).collect();
        let mut together = if is_knot { put_back_together(&all).await? } else { None }.map(Vec::into_iter);
        for part in &parts {
            let done = match together.as_mut().and_then(Iterator::next) {
                Some(done) => done,
                None => put_back(&part.place, &part.image).await?,
            };
            self.settle(part, done, report).await?;
        }
        Ok(())
    }

    /// What of a chunk is to come back; none when nothing of it is gone.
    async fn part<'s>(&'s self, chunk: &'a ChunkRow, report: &mut UndoReport) -> Result<Option<Part<'s>>> {
        let (site, collection) = place_of(self.ground, chunk)?;
        let mut tx = self.installation.control.read().await?;
        let gone: HashSet<[u8; 16]> = tx.done_entries(&self.run.id, chunk.number).await?.into_iter().collect();
        // What a later run erased is not this one's to bring back: somebody asked for that, and every restore leaves it out.
        let again = tx.erased_again(&self.run.id, chunk.number).await?;
        let parts = tx.pre_images(&self.run.id, chunk.number).await?;
        drop(tx);
        if gone.is_empty() {
            return Ok(None);
        }
        let mut image = open_image(&self.key, (&self.run.id, chunk.number), &parts)?;
        image.rows.retain(|row| {
            let digest = self.digest(chunk, &row.key);
            gone.contains(&digest) && !again.contains(&digest)
        });
        // The others without an image were gone before the run read them: somebody else deleted them.
        report.superseded += (gone.len() - image.rows.len()) as u64;
        let left = image.rows.iter().filter_map(|row| {
            let left = self.left.get(&self.digest(chunk, &row.key))?;
            Some((encode_values(&row.key.0), left.clone()))
        });
        let left = left.collect();
        let (run, token, certificate) = (self.run, self.installation.token, &self.certificate);
        Ok(Some(Part { place: Place { site, collection, run, chunk, token, certificate, left }, image }))
    }

    fn digest(&self, chunk: &ChunkRow, key: &RowKey) -> [u8; 16] {
        row_mac(&self.suppression, &chunk.store, &chunk.collection, key)
    }

    /// Reads back what was put back, and reverses its entries.
    async fn settle(&self, Part { place, .. }: &Part<'_>, done: PutBack, report: &mut UndoReport) -> Result<()> {
        let chunk = place.chunk;
        report.superseded += done.superseded;
        report.refused += done.refused;
        report.notes.extend(done.why.map(|why| format!("{}.{}: {why}", chunk.store, chunk.collection)));
        crash_point::reached("undo.rows-stored");
        let missing = count_missing(place, &done.restored).await?;
        if missing > 0 {
            return Err(TaskError::Inconsistent(format!(
                "{}.{}: {missing} rows that were put back are not there; something removes them",
                chunk.store, chunk.collection
            )));
        }
        let macs: Vec<[u8; 16]> = done.restored.iter().map(|key| self.digest(chunk, key)).collect();
        let mut tx = self.installation.control.begin().await?;
        tx.reverse_entries(self.run, chunk, &macs, self.installation.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Rows that a session which did not write them cannot find.
async fn count_missing(place: &Place<'_>, keys: &[RowKey]) -> Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    let key = &place.collection.key;
    let query = RowQuery {
        table: place.collection.table.name.clone(),
        path: Vec::new(),
        columns: key.iter().map(|column| ColumnRef::own(column)).collect(),
        filter: Filter::In(key.clone(), keys.to_vec()),
        key: key.clone(),
        after: None,
        limit: u32::MAX,
    };
    let mut view = place.site.store.open_snapshot().await?;
    let found = view.count(&query).await?;
    view.close().await?;
    Ok((keys.len() as u64).saturating_sub(found))
}

/// One transaction: the marked keys live on, counts and states say what is so now, and without a rest the images are forgotten.
async fn end(installation: &Installation, run: &mut RunRow, report: &mut UndoReport) -> Result<()> {
    let mut body = RunBody::of(run)?;
    let mut tx = installation.control.begin().await?;
    body.recount(&tx.chunks(run.plan.as_deref().unwrap_or_default()).await?);
    report.restored = tx.undone_rows(&run.id).await? as u64;
    body.undone = Some(report.restored as i64);
    body.certified = None;
    body.pending = None;
    body.put(run)?;
    tx.revive_keys(&run.id).await?;
    if report.refused == 0 {
        tx.retire_pre_images(&run.id).await?;
    }
    if let Some(number) = run.request {
        withdraw(&mut tx, number, run, installation.clock.now()).await?;
    }
    "undone".clone_into(&mut run.state);
    if !tx.step_run(run, "undoing").await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state undoing any more", run.id)));
    }
    tx.commit().await?;
    crash_point::reached("undo.ended");
    Ok(())
}

/// The request of a run that is undone is withdrawn, unless the person asked for it again since.
async fn withdraw(tx: &mut Tx, number: i64, run: &RunRow, now: DateTime<Utc>) -> Result<()> {
    let request = tx.request(number).await?;
    if request.is_some_and(|request| request.state == "received" && request.waits.is_none()) {
        return Ok(());
    }
    // One that waited may be open again, with a plan of its own.
    for state in ["done", WAITING, "received", "partly-kept", "failed"] {
        tx.step_request(number, state, "cancelled", Some(&run.id), Some(now)).await?;
    }
    tx.void_plans("request", Some(number)).await?;
    // One that waited still knew whom it is about.
    tx.retire_work(Purpose::Request.name(), &number.to_string()).await?;
    Ok(())
}

/// Forgets the pre-images of runs whose grace is over, unless a hold covers what they erased. Their keys die with the next
/// change of keys.
///
/// # Errors
/// When the control database fails.
pub async fn expire_pre_images(installation: &Installation) -> Result<()> {
    let now = installation.clock.now();
    let mut tx = installation.control.read().await?;
    let mut over = Vec::new();
    for id in tx.runs_with_pre_images().await? {
        let run = tx.run(&id).await?;
        over.extend(run.filter(|run| run.state == "failed" || run.grace_until.is_some_and(|until| until <= now)));
    }
    drop(tx);
    for run in over {
        if run.state != "undoing" && held(installation, &run).await?.is_none() {
            let mut tx = installation.control.begin().await?;
            tx.retire_pre_images(&run.id).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}
