//! Anonymises the rows of a chunk within its transaction, and tells which rows are still as that left them.
//!
//! What a row is left with is read back inside the transaction, and its keyed digest stands in the ledger before the commit: so a
//! crash cannot hide whether a row was anonymised, nor a random value be taken for an old one.

use std::collections::{HashMap, HashSet};

use super::batch::Work;
use super::neutral::neutral_value;
use super::referrers::{references_to, referred_to, still_refer};
use super::surrogate::{nobody, surrogate_number, surrogate_text};
use super::survey::Shape;
use super::{EraseError, Site};
use crate::control::Left;
use crate::keys::Key;
use crate::plan::anonymise::{Anonymise, Change, How};
use crate::plan::decide::{Candidate, End};
use crate::plan::digest::{erased_content_mac, left_mac, row_mac};
use crate::plan::model::Collection;
use crate::policy::anonymise::{coarser_date, coarser_number, coarser_place};
use crate::policy::mask::{HIDDEN, Profile, mask_value};
use crate::random::Random;
use crate::stores::{Batch, Column, ColumnKind, ColumnRef, Engine, Filter, RowQuery, Snapshot};
use crate::value::{RowKey, Value, encode_values};

/// Keys asked for at once.
const KEYS: usize = 500;
/// How often another random value is tried for one that is taken.
const TRIES: usize = 32;

impl Work<'_> {
    fn changes(&self) -> Result<&Anonymise, EraseError> {
        self.collection.anonymise.as_ref().ok_or_else(|| {
            EraseError::Inconsistent(format!(
                "{}.{} is to be anonymised, and its policy does not say how",
                self.chunk.store, self.chunk.collection
            ))
        })
    }

    /// Anonymises the locked rows over which nothing leads to its subject any more. Returns those that it did, and a note.
    pub(super) async fn anonymise(
        &self,
        batch: &mut dyn Batch,
        doomed: &[RowKey],
    ) -> Result<(Vec<RowKey>, Option<String>), EraseError> {
        let changes = self.changes()?;
        let (blocked, note) = self.led_over(batch, doomed).await?;
        let keys: Vec<RowKey> =
            doomed.iter().filter(|key| !blocked.contains(&encode_values(&key.0))).cloned().collect();
        if keys.is_empty() {
            return Ok((keys, note));
        }
        let before = self.values(batch, &changes.columns(), &keys).await?;
        let mut changed: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for key in &keys {
            let id = encode_values(&key.0);
            let old = before.get(&id).ok_or_else(|| self.swallowed())?;
            let mut set = Vec::new();
            for (at, (change, value)) in changes.changes.iter().zip(old).enumerate() {
                let new = self.new_value(batch, change, value).await?;
                if !is_same(change, value, &new) {
                    set.push((change.column.name.clone(), new));
                    changed.entry(id.clone()).or_default().push(at);
                }
            }
            let one = Filter::In(self.collection.key.clone(), vec![key.clone()]);
            if !set.is_empty() && batch.update(&self.collection.table.name, &set, &one).await? != 1 {
                return Err(self.swallowed());
            }
        }
        let after = self.values(batch, &changes.columns(), &keys).await?;
        let mut left = Vec::new();
        for key in &keys {
            let id = encode_values(&key.0);
            let (Some(old), Some(new)) = (before.get(&id), after.get(&id)) else { return Err(self.swallowed()) };
            if changed.get(&id).into_iter().flatten().any(|at| old.get(*at) == new.get(*at)) {
                return Err(self.swallowed());
            }
            let digest = left_mac(&self.keys.certificate, &changes.columns(), new);
            left.push((self.mac(key), Left { columns: changes.columns(), digest, lookup: Vec::new() }));
        }
        let mut tx = self.ground.control.begin().await?;
        tx.intend_left(self.run, self.chunk.number, &left).await?;
        tx.commit().await?;
        Ok((keys, note))
    }

    fn swallowed(&self) -> EraseError {
        EraseError::Inconsistent(format!(
            "{}.{}: a row is not as its anonymisation should have left it; a trigger or rule may swallow the UPDATE",
            self.chunk.store, self.chunk.collection
        ))
    }

    /// Keeps the keyed digests of whole rows as a change has left them, before that is committed: so a crash cannot hide them.
    pub(super) async fn intend_after(&self, batch: &mut dyn Batch, keys: &[RowKey]) -> Result<(), EraseError> {
        if keys.is_empty() {
            return Ok(());
        }
        let columns: Vec<String> = self.collection.table.columns.iter().map(|column| column.name.clone()).collect();
        let values = self.values(batch, &columns, keys).await?;
        let left = keys.iter().filter_map(|key| {
            let values = values.get(&encode_values(&key.0))?;
            Some((self.mac(key), erased_content_mac(&self.keys.certificate, values)))
        });
        let left: Vec<([u8; 16], [u8; 32])> = left.collect();
        let mut tx = self.ground.control.begin().await?;
        tx.intend_after(&self.run.id, self.chunk.number, &left).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Columns of rows, locked, by encoded key.
    async fn values(
        &self,
        batch: &mut dyn Batch,
        columns: &[String],
        keys: &[RowKey],
    ) -> Result<HashMap<Vec<u8>, Vec<Value>>, EraseError> {
        let key = &self.collection.key;
        let query = RowQuery {
            table: self.collection.table.name.clone(),
            path: Vec::new(),
            columns: key.iter().chain(columns).map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::In(key.clone(), keys.to_vec()),
            key: key.clone(),
            after: None,
            limit: u32::MAX,
        };
        let rows = batch.read_for_update(&query).await?;
        Ok(rows
            .into_iter()
            .map(|mut row| (row.split_off(key.len()), row))
            .map(|(values, key)| (encode_values(&key), values))
            .collect())
    }

    /// Of these rows, those over which a row that is not anonymised leads to its subject, and a sentence that says so.
    async fn led_over(
        &self,
        batch: &mut dyn Batch,
        keys: &[RowKey],
    ) -> Result<(HashSet<Vec<u8>>, Option<String>), EraseError> {
        let (collection, model) = (self.collection, &self.site.model);
        let (mut blocked, mut note) = (HashSet::new(), None);
        for child in collection.children.iter().filter(|child| collection.is_led_over(child, model)) {
            let before = blocked.len();
            match child.registered.and_then(|at| model.collections.get(at)) {
                None => blocked.extend(referred_to(batch, collection, child, keys).await?),
                Some(referrer) => {
                    let references = references_to(batch, collection, (child, referrer), keys).await?;
                    let mac = |key: &RowKey| row_mac(&self.keys.suppression, &self.chunk.store, &child.table, key);
                    let macs: Vec<[u8; 16]> = references.iter().map(|(_, key)| mac(key)).collect();
                    let known = self.ground.control.read().await?.erasures_in(&self.chunk.store, Some(&macs)).await?;
                    let is_done =
                        |mac| known.get(mac).and_then(|all| all.last()).is_some_and(|last| last.left.is_some());
                    let living = references.iter().zip(&macs).filter(|(_, mac)| !is_done(*mac));
                    blocked.extend(living.map(|((parent, _), _)| parent.clone()));
                }
            }
            if blocked.len() > before {
                note = Some(still_refer(child, collection));
            }
        }
        Ok((blocked, note))
    }

    async fn new_value(&self, batch: &mut dyn Batch, change: &Change, old: &Value) -> Result<Value, EraseError> {
        let engine = self.site.store.engine();
        if !matches!(change.how, How::Surrogate(_) | How::Nobody) {
            return settled_value(change, old, engine);
        }
        // Of nothing a surrogate is nothing, too.
        if *old == Value::Null || *old == Value::Text(String::new()) {
            return Ok(old.clone());
        }
        for _ in 0..TRIES {
            let new = random_value(change, old, engine, self.ground.random)?;
            let is_free = !(change.is_unique || change.how == How::Nobody) || self.is_free(batch, change, &new).await?;
            if new != *old && is_free {
                return Ok(new);
            }
        }
        Err(EraseError::Unsupported {
            what: format!(
                "column {}.{}: no random value of the same form is free; allow NULL and write \"null\", or widen the column",
                self.chunk.collection, change.column.name
            ),
        })
    }

    async fn is_free(&self, batch: &mut dyn Batch, change: &Change, value: &Value) -> Result<bool, EraseError> {
        let query = RowQuery {
            table: self.collection.table.name.clone(),
            path: Vec::new(),
            columns: self.collection.key.iter().map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::Equals(ColumnRef::own(&change.column.name), value.clone()),
            key: self.collection.key.clone(),
            after: None,
            limit: 1,
        };
        Ok(batch.count(&query).await? == 0)
    }

    /// Of the chunk's rows, those that are as an attempt of this run was about to leave them.
    pub(super) async fn left(&self, batch: &mut dyn Batch) -> Result<HashSet<Vec<u8>>, EraseError> {
        let left = self.ground.control.read().await?.left_by_run(&self.run.id).await?;
        let keys: Vec<RowKey> = self.items.iter().map(|item| item.row.key.clone()).collect();
        let columns = self.changes()?.columns();
        let values = self.values(batch, &columns, &keys).await?;
        let is_left = |key: &&RowKey| {
            let (Some(values), Some(left)) = (values.get(&encode_values(&key.0)), left.get(&self.mac(key))) else {
                return false;
            };
            is_as_left(&self.keys.certificate, left, |name| {
                values.get(columns.iter().position(|column| column == name)?)
            })
        };
        Ok(keys.iter().filter(is_left).map(|key| encode_values(&key.0)).collect())
    }
}

/// What a value becomes that is not random: the same for the same value.
///
/// # Errors
/// When the value cannot be read as what it should be, and its column has room for nothing else.
pub fn settled_value(change: &Change, old: &Value, engine: Engine) -> Result<Value, EraseError> {
    let column = &change.column;
    let text = match old {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Blob(_) => Some(String::new()),
    };
    let Some(text) = text else { return Ok(Value::Null) };
    let new = match &change.how {
        How::Null => return Ok(Value::Null),
        How::Fixed(fixed) => value_of(fixed, column, engine),
        How::Mask(kind) => Some(Value::Text(mask_value(*kind, old, Profile::Strict))),
        How::Date(level) => coarser_date(&text, *level).map(Value::Text),
        How::Place(level) => coarser_place(&text, *level).map(Value::Text),
        How::Number(step) => coarser_number(&text, *step).and_then(|number| value_of(&number, column, engine)),
        How::Surrogate(_) | How::Nobody => None,
    };
    new.map_or_else(|| without_content(column, engine), Ok)
}

/// Whether a value is another only in the form in which engines print it: 1000 as 1000.00, midnight with its fraction, padded text.
fn is_same(change: &Change, old: &Value, new: &Value) -> bool {
    let (Value::Text(old), Value::Text(new)) = (old, new) else { return old == new };
    let is_number = matches!(change.column.kind, Some(ColumnKind::Integer | ColumnKind::Real | ColumnKind::Decimal));
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| is_number && number.is_finite());
    let is_midnight = |rest: &str| rest.chars().all(|letter| matches!(letter, ' ' | '.' | ':' | '0'));
    match change.how {
        How::Number(_) | How::Fixed(_) if is_number => {
            old == new || number(old).zip(number(new)).is_some_and(|(old, new)| old.to_bits() == new.to_bits())
        }
        How::Date(_) => old.strip_prefix(new.as_str()).is_some_and(is_midnight),
        _ => old.trim_end() == new.trim_end(),
    }
}

/// What stands for a value that could not be read.
fn without_content(column: &Column, engine: Engine) -> Result<Value, EraseError> {
    if !column.nullable && column.kind == Some(ColumnKind::Text) {
        return Ok(Value::Text(HIDDEN.to_owned()));
    }
    neutral_value(column, engine, None).ok_or_else(|| EraseError::Unsupported {
        what: format!(
            "column {} is NOT NULL and its type {} has no neutral value for what cannot be made coarser; allow NULL",
            column.name, column.type_name
        ),
    })
}

fn random_value(change: &Change, old: &Value, engine: Engine, random: &dyn Random) -> Result<Value, EraseError> {
    let is_number = change.column.kind == Some(ColumnKind::Integer);
    let new = match (&change.how, old) {
        (How::Nobody, _) => nobody(is_number, random)?,
        (_, Value::Integer(number)) => surrogate_number(&number.to_string(), random)?,
        (_, Value::Text(text)) if is_number => surrogate_number(text, random)?,
        (How::Surrogate(kind), Value::Text(text)) => surrogate_text(*kind, text, random)?,
        _ => return without_content(&change.column, engine),
    };
    value_of(&new, &change.column, engine).map_or_else(|| without_content(&change.column, engine), Ok)
}

/// A text as a value of its column.
fn value_of(text: &str, column: &Column, engine: Engine) -> Option<Value> {
    let number = matches!(column.kind, Some(ColumnKind::Integer | ColumnKind::Real | ColumnKind::Decimal));
    if engine != Engine::Sqlite || !number {
        return Some(Value::Text(text.to_owned()));
    }
    text.parse().map(Value::Integer).or_else(|_| text.parse().map(Value::Real)).ok()
}

/// Whether the columns that an anonymisation changed still hold what it left there.
#[must_use]
pub fn is_as_left<'v>(certificate: &Key, left: &Left, value: impl Fn(&str) -> Option<&'v Value>) -> bool {
    let values: Option<Vec<Value>> = left.columns.iter().map(|name| value(name).cloned()).collect();
    values.is_some_and(|values| left_mac(certificate, &left.columns, &values) == left.digest)
}

/// The keys with which rows are told.
#[derive(Clone, Copy)]
pub(super) struct Telling<'k> {
    pub(super) suppression: &'k Key,
    pub(super) certificate: &'k Key,
}

/// Candidates that an earlier run anonymised as fully as today's policy wants, and that are still as that left them.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn mark_settled(
    view: &mut dyn Snapshot,
    site: &Site,
    candidates: &mut [Candidate],
    ledger: &HashMap<[u8; 16], Left>,
    keys: Telling<'_>,
) -> Result<(), EraseError> {
    let mut settled = HashSet::new();
    for (index, collection) in site.model.collections.iter().enumerate() {
        let Some(changes) = &collection.anonymise else { continue };
        let (store, table) = (&site.model.spec.name, &collection.table.name);
        let own = candidates.iter().filter(|candidate| candidate.collection == index);
        let known = own.filter_map(|candidate| {
            let left = ledger.get(&row_mac(keys.suppression, store, table, &candidate.row.key))?;
            Some((candidate.row.key.clone(), left))
        });
        let known: Vec<(RowKey, &Left)> = known.collect();
        let wanted = Some((changes, site.store.engine()));
        let found = rows_as_left(view, collection, &known, keys.certificate, wanted).await?;
        settled.extend(found.into_iter().map(|key| (index, key)));
    }
    for candidate in candidates {
        if settled.contains(&(candidate.collection, encode_values(&candidate.row.key.0))) {
            candidate.end = End::Settled;
        }
    }
    Ok(())
}

/// Whether an earlier anonymisation went as far as today's rules: it changed every column that they change, and what it left is not made
/// coarser by them. A mask of a mask is another one, and a random value says nothing, so of those only the column counts.
pub(super) fn is_far_enough<'v>(
    changes: &Anonymise,
    engine: Engine,
    left: &Left,
    value: impl Fn(&str) -> Option<&'v Value>,
) -> bool {
    changes.changes.iter().all(|change| {
        let is_told = matches!(change.how, How::Mask(_) | How::Surrogate(_) | How::Nobody);
        let is_coarse = |now: &Value| settled_value(change, now, engine).is_ok_and(|new| is_same(change, now, &new));
        left.columns.contains(&change.column.name) && (is_told || value(&change.column.name).is_some_and(is_coarse))
    })
}

/// The encoded keys of those rows that are still as their anonymisation left them; with `wanted` of those that today's rules would
/// leave so, too.
pub(super) async fn rows_as_left(
    view: &mut dyn Snapshot,
    collection: &Collection,
    rows: &[(RowKey, &Left)],
    certificate: &Key,
    wanted: Option<(&Anonymise, Engine)>,
) -> Result<HashSet<Vec<u8>>, EraseError> {
    let columns: Vec<&str> = collection.table.columns.iter().map(|column| column.name.as_str()).collect();
    let mut found = HashSet::new();
    for part in rows.chunks(KEYS) {
        let left: HashMap<Vec<u8>, &Left> = part.iter().map(|(key, left)| (encode_values(&key.0), *left)).collect();
        let shape = Shape::of(collection);
        let keys = part.iter().map(|(key, _)| key.clone()).collect();
        let mut query = shape.query(collection, Filter::In(collection.key.clone(), keys));
        query.limit = part.len() as u32 + 1;
        query.columns.extend(columns.iter().map(|column| ColumnRef::own(column)));
        for mut row in view.read(&query).await? {
            let values = row.split_off(shape.width());
            let id = encode_values(&shape.read(row).key.0);
            let value = |name: &str| values.get(columns.iter().position(|column| *column == name)?);
            let is_settled = |left: &&Left| {
                let is_enough = wanted.is_none_or(|(changes, engine)| is_far_enough(changes, engine, left, value));
                is_enough && is_as_left(certificate, left, value)
            };
            if left.get(&id).is_some_and(is_settled) {
                found.insert(id);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::anonymise::Level;

    #[test]
    fn another_form_of_a_value_is_no_other_value() {
        let text = |text: &str| Value::Text(text.to_owned());
        let change = |kind, how| {
            let (name, type_name) = ("c".to_owned(), "t".to_owned());
            let (kind, default) = (Some(kind), None);
            let column = Column { name, type_name, kind, nullable: true, default, generated: false, numbered: false };
            Change { column, how, is_unique: false }
        };
        let thousand = change(ColumnKind::Decimal, How::Number(1000));
        let year = change(ColumnKind::LocalTime, How::Date(Level::Year));
        let dash = change(ColumnKind::Text, How::Fixed("-".to_owned()));
        let random = change(ColumnKind::Integer, How::Surrogate(None));
        for (change, old, new, expected) in [
            (&thousand, text("1000.00"), text("1000"), true),
            (&thousand, text("1000.50"), text("1000"), false),
            (&year, text("1990-01-01 00:00:00.000000"), text("1990-01-01 00:00:00"), true),
            (&year, text("1990-01-01 00:00:00.5"), text("1990-01-01 00:00:00"), false),
            (&dash, text("-    "), text("-"), true),
            (&dash, text("0.0"), text("0"), false),
            (&random, text("9007199254740993"), text("9007199254740992"), false),
            (&dash, Value::Null, Value::Null, true),
            (&dash, Value::Integer(1), Value::Null, false),
        ] {
            assert_eq!(is_same(change, &old, &new), expected);
        }
    }
}
