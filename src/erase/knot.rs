//! A knot: chunks of collections whose rows refer to each other, done as one transaction.
//!
//! Rows go in the order of their references, those that refer first. Where they form a circle, its checks are put off to the
//! commit, or columns that may be NULL are emptied just before their rows go, in the same transaction: so no row is ever seen
//! with a reference that was taken from it, unless somebody deletes it anyway.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::batch::{ChunkOutcome, Gone, Locked, RunKeys, Terms, Work, since};
use super::chunk::{ChunkItem, open_items, place_of};
use super::pace::Took;
use super::referrers::{references_to, referred_to, still_refer};
use super::survey::Target;
use super::{EraseError, Ground};
use crate::control::{ChunkRow, RunRow};
use crate::crash_point;
use crate::plan::graph::{Leaving, Link, Untie, leaving};
use crate::plan::model::Child;
use crate::stores::{Batch, BatchMarker, Engine, Filter, Hop};
use crate::value::{RowKey, Value, encode_values};

/// Runs the chunks of one knot: intents, one transaction with a marker each, outcomes. Those that are done already are left
/// alone; those left `running` by a crash are settled by their markers.
///
/// # Errors
/// When the control database fails, or the store fails before anything was changed.
pub async fn run_knot(
    ground: &Ground<'_>,
    (run, token): (&RunRow, i64),
    chunks: &[&ChunkRow],
    keys: &RunKeys,
    target: &Target,
) -> Result<Vec<(i64, ChunkOutcome)>, EraseError> {
    let plan = run.plan.as_deref().unwrap_or_default();
    let mut items: Vec<Vec<ChunkItem>> = Vec::new();
    for chunk in chunks {
        items.push(open_items(&keys.plan, plan, chunk.number, &chunk.sealed)?);
    }
    let mut works = Vec::new();
    for (chunk, items) in chunks.iter().zip(&items).filter(|(chunk, _)| chunk.state != "done") {
        let (site, collection) = place_of(ground, chunk)?;
        works.push(Work { ground, site, collection, run, chunk, keys, items, token });
    }
    let mut outcomes = Vec::new();
    if let Some(first) = works.iter().find(|work| work.chunk.state == "running") {
        for work in &works {
            if let Some(marker) = first.site.store.batch_outcome(&run.id, work.chunk.number).await? {
                outcomes.push((work.chunk.number, work.settle(&marker).await?));
            }
        }
        // One transaction wrote all the markers, or none.
        if !outcomes.is_empty() {
            return Ok(outcomes);
        }
    }
    for work in &works {
        work.intend().await?;
    }
    crash_point::reached("batch.intended");
    let begun = ground.clock.now();
    match transaction(ground, run, &works, target).await {
        Ok((done, note, commit)) => {
            let took = Some(Took::new(since(ground, begun), commit));
            crash_point::reached("batch.committed");
            for (work, (marker, gone)) in works.iter().zip(done) {
                let recorded = work.record(&marker, &gone, note.clone()).await?;
                outcomes.push((work.chunk.number, ChunkOutcome { took, ..recorded }));
            }
        }
        Err(error) => fail(&works, error, &mut outcomes).await?,
    }
    Ok(outcomes)
}

/// Nothing was committed: every chunk fails for the same reason, unless it goes away by itself.
async fn fail(
    works: &[Work<'_>],
    error: EraseError,
    outcomes: &mut Vec<(i64, ChunkOutcome)>,
) -> Result<(), EraseError> {
    let mut error = Some(error);
    let mut why = String::new();
    for work in works {
        let error = error.take().unwrap_or_else(|| EraseError::Inconsistent(why.clone()));
        why = error.to_string();
        outcomes.push((work.chunk.number, work.fail(error).await?));
    }
    Ok(())
}

/// A row that is to go: the work that it is part of, and its key.
struct Row {
    work: usize,
    key: RowKey,
}

/// A reference between two of them, with its foreign key and the work of the parent that has it.
struct Tie<'m> {
    link: Link,
    child: &'m Child,
}

/// The rows of a knot that are to go, and what ties them to each other.
#[derive(Default)]
struct Knot<'m> {
    rows: Vec<Row>,
    ties: Vec<Tie<'m>>,
    /// Rows that must stay because a row that stays refers to them.
    blocked: HashSet<usize>,
    note: Option<String>,
}

/// What became of each chunk, a note, and how long the commit took.
type Done = (Vec<(BatchMarker, Vec<Gone>)>, Option<String>, Duration);

async fn transaction(
    ground: &Ground<'_>,
    run: &RunRow,
    works: &[Work<'_>],
    target: &Target,
) -> Result<Done, EraseError> {
    let Some(first) = works.first() else { return Ok((Vec::new(), None, Duration::ZERO)) };
    let terms = Terms::read(ground, run).await?;
    let mut batch = first.site.store.begin_batch().await?;
    let mut locked = Vec::new();
    for work in works {
        locked.push(work.lock(batch.as_mut(), target, &terms).await?);
    }
    let knot = Knot::read(batch.as_mut(), works, &locked).await?;
    knot.undo(batch.as_mut(), works, &locked).await?;
    crash_point::reached("batch.deleted");
    let (mut done, mut commit) = (Vec::new(), Duration::ZERO);
    for (work, locked) in works.iter().zip(&locked) {
        let gone = work.absent(batch.as_mut(), locked).await?;
        done.push((work.marker(gone.len() as i64), gone));
    }
    if let Some(((last, _), others)) = done.split_last() {
        for (marker, _) in others {
            batch.mark(marker).await?;
        }
        commit = first.commit(batch, last).await?;
    }
    Ok((done, knot.note, commit))
}

impl<'m> Knot<'m> {
    /// Reads what ties the locked rows together, and what holds some of them.
    async fn read(batch: &mut dyn Batch, works: &[Work<'m>], locked: &[Locked]) -> Result<Self, EraseError> {
        let mut knot = Self::default();
        let mut index: HashMap<(&str, Vec<u8>), usize> = HashMap::new();
        for (number, (work, locked)) in works.iter().zip(locked).enumerate() {
            for key in &locked.doomed {
                index.insert((&work.collection.table.name, encode_values(&key.0)), knot.rows.len());
                knot.rows.push(Row { work: number, key: key.clone() });
            }
        }
        for (work, locked) in works.iter().zip(locked).filter(|(_, locked)| !locked.doomed.is_empty()) {
            let (collection, model) = (work.collection, &work.site.model);
            let place = |key: &Vec<u8>| index.get(&(collection.table.name.as_str(), key.clone())).copied();
            for child in &collection.children {
                let referrer = child.registered.and_then(|at| model.collections.get(at));
                let Some(referrer) = referrer.filter(|referrer| referrer.group == collection.group) else {
                    let held = referred_to(batch, collection, child, &locked.doomed).await?;
                    knot.block(held.iter().filter_map(place), || still_refer(child, collection));
                    continue;
                };
                for (parent, key) in references_to(batch, collection, (child, referrer), &locked.doomed).await? {
                    let Some(parent) = place(&parent) else { continue };
                    match index.get(&(child.table.as_str(), encode_values(&key.0))) {
                        Some(from) => {
                            let link = Link { parent, child: *from, untie: child.untie };
                            knot.ties.push(Tie { link, child });
                        }
                        None => knot.block([parent], || still_refer(child, collection)),
                    }
                }
            }
        }
        knot.spread();
        Ok(knot)
    }

    fn block(&mut self, rows: impl IntoIterator<Item = usize>, why: impl FnOnce() -> String) {
        let before = self.blocked.len();
        self.blocked.extend(rows);
        if self.blocked.len() > before {
            self.note = Some(why());
        }
    }

    /// A row that stays holds the rows that it refers to, which then stay too.
    fn spread(&mut self) {
        let mut parents: HashMap<usize, Vec<usize>> = HashMap::new();
        for Tie { link, .. } in &self.ties {
            parents.entry(link.child).or_default().push(link.parent);
        }
        let mut staying: Vec<usize> = self.blocked.iter().copied().collect();
        while let Some(row) = staying.pop() {
            for parent in parents.get(&row).into_iter().flatten() {
                if self.blocked.insert(*parent) {
                    staying.push(*parent);
                }
            }
        }
    }

    /// Deletes the rows that nothing holds.
    async fn undo(&self, batch: &mut dyn Batch, works: &[Work<'_>], locked: &[Locked]) -> Result<(), EraseError> {
        let free: Vec<usize> = (0..self.rows.len()).filter(|row| !self.blocked.contains(row)).collect();
        let place: HashMap<usize, usize> = free.iter().enumerate().map(|(at, row)| (*row, at)).collect();
        let mut ties = Vec::new();
        for tie in &self.ties {
            if let (Some(parent), Some(child)) = (place.get(&tie.link.parent), place.get(&tie.link.child)) {
                ties.push(Tie { link: Link { parent: *parent, child: *child, ..tie.link }, child: tie.child });
            }
        }
        let links: Vec<Link> = ties.iter().map(|tie| tie.link).collect();
        let mut order = leaving(free.len(), &links);
        if works.first().is_some_and(|work| work.site.store.engine() == Engine::Mysql) {
            // InnoDB refuses to delete a row that refers to itself.
            let own = |link: &Link| link.parent == link.child && link.untie == Untie::Empty;
            order.emptied.extend(links.iter().enumerate().filter(|(_, link)| own(link)).map(|(number, _)| number));
        }
        if order.put_off_from.is_some() {
            batch.put_off_checks().await?;
        }
        let row = |at: usize| free.get(at).and_then(|row| self.rows.get(*row));
        let emptied = self.empty(batch, works, (&order, &ties), row).await?;
        for rows in &order.steps {
            let mut by_work: BTreeMap<usize, Vec<RowKey>> = BTreeMap::new();
            for row in rows.iter().filter_map(|at| row(*at)) {
                by_work.entry(row.work).or_default().push(row.key.clone());
            }
            for (at, keys) in by_work {
                let (Some(work), Some(locked)) = (works.get(at), locked.get(at)) else { continue };
                let own = Filter::In(work.collection.key.clone(), keys.clone());
                // The predicate was asked when the rows were locked. It is asked again where nothing that happens here can
                // change its answer: no parent that goes too, and no reference that was emptied.
                let goes = |hop: &Hop| works.iter().any(|other| other.collection.table.name == hop.parent);
                let is_same = !locked.path.iter().any(goes) && order.put_off_from.is_none() && !emptied.contains(&at);
                let (path, filter) = if is_same {
                    (locked.path.as_slice(), Filter::And(vec![own, locked.predicate.clone()]))
                } else {
                    (&[][..], own)
                };
                let deleted = batch.delete(&work.collection.table.name, path, &filter).await?;
                work.check_gone(batch, &keys, deleted).await?;
            }
        }
        Ok(())
    }

    /// Empties the columns that have to be, and tells of which works.
    async fn empty<'r>(
        &self,
        batch: &mut dyn Batch,
        works: &[Work<'_>],
        (order, ties): (&Leaving, &[Tie<'_>]),
        row: impl Fn(usize) -> Option<&'r Row>,
    ) -> Result<HashSet<usize>, EraseError> {
        let mut keys: BTreeMap<(usize, &[String]), Vec<RowKey>> = BTreeMap::new();
        for tie in order.emptied.iter().filter_map(|number| ties.get(*number)) {
            if let Some(row) = row(tie.link.child) {
                keys.entry((row.work, &tie.child.emptiable)).or_default().push(row.key.clone());
            }
        }
        let mut emptied = HashSet::new();
        for ((at, columns), keys) in keys {
            let Some(work) = works.get(at) else { continue };
            let set: Vec<(String, Value)> = columns.iter().map(|column| (column.clone(), Value::Null)).collect();
            let filter = Filter::In(work.collection.key.clone(), keys);
            batch.update(&work.collection.table.name, &set, &filter).await?;
            emptied.insert(at);
        }
        Ok(emptied)
    }
}
