//! The survey: reads, in one read-only view, every due row of a store and what refers to it. Writes nothing.

use chrono::{DateTime, Utc};

use super::EraseError;
use super::referrers::{PARENTS, referring};
use crate::plan::anonymise::Anonymise;
use crate::plan::decide::{Candidate, End, Reference, ReferringRow};
use crate::plan::model::{Child, Collection, Governed, Model, Reach};
use crate::plan::{CollectionCounts, PlannedRow, Reason, Subject};
use crate::policy::calendar::{Bias, Period, bucket_of, end_of_period, latest_due_start};
use crate::policy::start::{StartEvent, StartKind, read_start};
use crate::policy::statute::{DecidedBy, Earliest, bounds};
use crate::stores::{ColumnKind, ColumnRef, Engine, Filter, Hop, RowQuery, Snapshot, Table, Threshold};
use crate::value::{Row, RowKey, Value, encode_values};

/// The period of rows whose start event is not known, or that no policy governs.
pub const OPEN: &str = "open";

/// Rows that a query returns unless it says otherwise.
const PAGE: u32 = 1000;

/// What is being looked for.
#[derive(Debug, Clone)]
pub enum Target {
    /// Rows whose retention is over.
    Retention,
    /// Rows of one subject.
    Request(Subject),
}

/// Tells which hold, if any, covers a row of a collection and a subject.
pub type HeldBy<'a> = &'a (dyn Fn(Option<&Subject>, &str) -> Option<String> + Send + Sync);

/// What the survey of a store found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Due rows.
    pub candidates: Vec<Candidate>,
    /// What refers to them.
    pub references: Vec<Reference>,
    /// Totals by collection, in the model's order.
    pub counts: Vec<CollectionCounts>,
}

/// Surveys a store at a fixed cutoff.
pub struct Surveyor<'a> {
    /// The store's model.
    pub model: &'a Model,
    /// Its engine.
    pub engine: Engine,
    /// The cutoff of the run.
    pub cutoff: DateTime<Utc>,
    /// The hold check.
    pub held_by: HeldBy<'a>,
}

impl Surveyor<'_> {
    /// Reads everything the decision needs.
    ///
    /// # Errors
    /// When the store cannot be read; then nothing may be concluded about it.
    pub async fn run(&self, view: &mut dyn Snapshot, target: &Target) -> Result<Survey, EraseError> {
        let mut survey = Survey::default();
        for (index, collection) in self.model.collections.iter().enumerate() {
            let mut counts = CollectionCounts {
                store: self.model.spec.name.clone(),
                collection: collection.table.name.clone(),
                policy: collection.governed.as_ref().map(|governed| governed.policy.id.clone()),
                changes: collection.anonymise.iter().flat_map(Anonymise::techniques).collect(),
                ..CollectionCounts::default()
            };
            let shape = Shape::of(collection);
            let before = survey.candidates.len();
            if let Some(filter) = self.filter(collection, target)? {
                let rows = read_all(view, shape.query(collection, filter)).await?;
                let found = rows
                    .into_iter()
                    .filter_map(|row| self.candidate(index, collection, &shape, row, target).transpose());
                survey.candidates.extend(found.collect::<Result<Vec<_>, _>>()?);
            }
            let due = survey.candidates.len() - before;
            self.count_all(view, (collection, &shape), (target, due as u64), &mut counts).await?;
            survey.counts.push(counts);
        }
        survey.references = self.references(view, &survey.candidates).await?;
        Ok(survey)
    }

    /// How many rows there are, and how many without a start event. Of a table that is too large to be read from end to end, rows are counted
    /// only until it is clear that the due ones are not above the share of their cap.
    async fn count_all(
        &self,
        view: &mut dyn Snapshot,
        (collection, shape): (&Collection, &Shape),
        (target, due): (&Target, u64),
        counts: &mut CollectionCounts,
    ) -> Result<(), EraseError> {
        // Parents are unique, so joining them changes no count.
        let all = RowQuery { path: Vec::new(), columns: Vec::new(), ..shape.query(collection, Filter::All) };
        let percent = collection.governed.as_ref().map_or(100, |governed| u64::from(governed.policy.max.percent));
        // A cap of 0 % is passed by one row of however many.
        let enough = (due * 100).checked_div(percent).unwrap_or(0) + 1;
        let most = enough.max(self.model.spec.budget.scan_rows.saturating_add(1));
        counts.total = view.count_up_to(&all, most).await?;
        counts.at_least = counts.total == most;
        let (Target::Retention, Some(governed)) = (target, &collection.governed) else { return Ok(()) };
        if counts.at_least {
            if let Some(parts) = self.without_start(collection, governed) {
                for part in parts {
                    counts.unknown_start += view.count(&shape.query(collection, part)).await?;
                }
                return Ok(());
            }
            counts.total = view.count(&all).await?;
            counts.at_least = false;
        }
        let started = Filter::Before(governed.start.column.clone(), self.threshold_now());
        counts.unknown_start = counts.total.saturating_sub(view.count(&shape.query(collection, started)).await?);
        Ok(())
    }

    /// The rows without a start event that has come, as conditions that exclude each other and that an index on the start event serves. None
    /// where there are no such conditions: texts, SQLite, and rows that may lead to no ancestor.
    fn without_start(&self, collection: &Collection, governed: &Governed) -> Option<Vec<Filter>> {
        let start = &governed.start;
        let is_time =
            matches!(start.kind, ColumnKind::Date | ColumnKind::LocalTime | ColumnKind::Instant | ColumnKind::Integer);
        if !is_time || self.engine == Engine::Sqlite {
            return None;
        }
        let later = Filter::NotBefore(start.column.clone(), self.threshold_now());
        let mut missing = vec![Filter::IsNull(start.column.clone())];
        if let Some(last) = start.path.last() {
            if !self.always_leads(&collection.table, &start.path) {
                return None;
            }
            // With this the engine need not look for rows without a parent.
            let level = start.path.len();
            let own = last.parent_columns.iter().map(|column| ColumnRef { hop: level, column: column.clone() });
            missing.extend(own.map(Filter::IsNotNull));
        }
        Some(vec![later, Filter::And(missing)])
    }

    /// Whether a foreign key that may not be NULL leads from every row to the next ancestor, all the way.
    fn always_leads(&self, table: &Table, path: &[Hop]) -> bool {
        let mut table = table;
        for hop in path {
            let is_kept = table.foreign_keys.iter().any(|key| {
                key.parent == hop.parent && key.columns == hop.columns && key.parent_columns == hop.parent_columns
            });
            let is_filled = hop
                .columns
                .iter()
                .all(|name| table.columns.iter().any(|column| column.name == *name && !column.nullable));
            let parent = self.model.collections.iter().find(|found| found.table.name == hop.parent);
            let Some(parent) = parent.filter(|_| is_kept && is_filled) else { return false };
            table = &parent.table;
        }
        true
    }

    fn threshold_now(&self) -> Threshold {
        Threshold { instant: self.cutoff, local: self.cutoff.with_timezone(&self.model.spec.timezone).naive_local() }
    }

    /// The predicate of due rows; the same one is repeated inside the DELETE. `None` when nothing can be due.
    ///
    /// # Errors
    /// When the cutoff lies outside the supported years.
    pub fn filter(&self, collection: &Collection, target: &Target) -> Result<Option<Filter>, EraseError> {
        match target {
            Target::Retention => {
                let Some(governed) = &collection.governed else { return Ok(None) };
                let bound = latest_due_start(self.cutoff, governed.policy.retention, self.model.spec.timezone)?;
                let threshold = Threshold { instant: bound.instant, local: bound.local };
                Ok(Some(Filter::Before(governed.start.column.clone(), threshold)))
            }
            Target::Request(subject) => Ok(owned_by(collection, self.engine, subject)),
        }
    }

    fn candidate(
        &self,
        index: usize,
        collection: &Collection,
        shape: &Shape,
        row: Row,
        target: &Target,
    ) -> Result<Option<Candidate>, EraseError> {
        let read = shape.read(row);
        if matches!(target, Target::Request(_)) && read.subject.is_none() {
            return Err(spelled_otherwise(self.model, collection));
        }
        let zone = self.model.spec.timezone;
        let start = collection.governed.as_ref().zip(read.start.as_ref());
        let event =
            start.map(|(governed, value)| read_start(value, start_kind(governed.start.kind), zone, self.cutoff));
        if let (Target::Retention, Some(governed)) = (target, &collection.governed) {
            let Some(StartEvent::At(at)) = event else { return Ok(None) };
            if end_of_period(at, governed.policy.retention, zone, Bias::Minimum)? > self.cutoff {
                return Ok(None);
            }
        }
        let keep = (self.held_by)(read.subject.as_ref(), &collection.table.name).map(Reason::Hold);
        let keep = match (keep, &collection.governed) {
            (None, Some(governed)) => self.statutory(governed, event)?,
            (keep, _) => keep,
        };
        let period = match (event, &collection.governed) {
            (Some(StartEvent::At(at)), Some(governed)) => bucket_of(at, governed.policy.bucket, zone)?.to_string(),
            _ => OPEN.to_owned(),
        };
        let follows = read.anchor.and_then(|key| {
            let anchor = collection.governed.as_ref()?.follows.as_ref()?;
            Some((self.model.collection(anchor)?.0, encode_values(&key)))
        });
        let row = PlannedRow { key: read.key, subject: read.subject, start: read.start, period };
        let end = if collection.anonymise.is_some() { End::Anonymise } else { End::Erase };
        Ok(Some(Candidate { collection: index, row, end, keep, follows }))
    }

    /// The statutory minimum that still binds a row, if any. A bound row without a usable start event stays.
    fn statutory(&self, governed: &Governed, event: Option<StartEvent>) -> Result<Option<Reason>, EraseError> {
        if governed.statutes.is_empty() {
            return Ok(None);
        }
        let Some(StartEvent::At(at)) = event else { return Ok(Some(Reason::UnknownStart)) };
        let nothing = Period { months: 0, days: 0 };
        let found = bounds(at, nothing, &governed.statutes, self.model.spec.timezone)?;
        let contradicts = found.conflict();
        Ok(match (found.decided_by, found.latest) {
            _ if found.earliest <= Earliest::At(self.cutoff) => None,
            (DecidedBy::Statute(minimum), Some((_, maximum))) if contradicts => {
                Some(Reason::Restricted { minimum: minimum.key.clone(), maximum: maximum.key.clone() })
            }
            (DecidedBy::Statute(minimum), _) => Some(Reason::Statute(minimum.key.clone())),
            (DecidedBy::Policy, _) => None,
        })
    }

    async fn references(
        &self,
        view: &mut dyn Snapshot,
        candidates: &[Candidate],
    ) -> Result<Vec<Reference>, EraseError> {
        let mut references = Vec::new();
        for (index, collection) in self.model.collections.iter().enumerate() {
            let parents: Vec<&Candidate> = candidates
                .iter()
                .filter(|candidate| candidate.collection == index && candidate.keep.is_none())
                .collect();
            if parents.is_empty() {
                continue;
            }
            for child in &collection.children {
                for page in parents.chunks(PARENTS) {
                    references.extend(self.references_of(view, (index, collection), child, page).await?);
                }
            }
        }
        Ok(references)
    }

    async fn references_of(
        &self,
        view: &mut dyn Snapshot,
        (index, collection): (usize, &Collection),
        child: &Child,
        parents: &[&Candidate],
    ) -> Result<Vec<Reference>, EraseError> {
        let keys: Vec<RowKey> = parents.iter().map(|parent| parent.row.key.clone()).collect();
        let mut query = referring(collection, child, &keys);
        let Some((at, registered)) = child.registered.and_then(|at| Some((at, self.model.collections.get(at)?))) else {
            let leads = collection.is_led_over(child, self.model);
            return unregistered_references(view, (index, collection), (child, leads), &keys).await;
        };
        let leads = collection.is_led_over(child, self.model);
        let is_cut = registered.anonymise.as_ref().is_some_and(|changes| changes.cut == child.columns);
        query.key.clone_from(&registered.key);
        query.columns.extend(registered.key.iter().map(|column| ColumnRef::own(column)));
        let rows = read_all(view, query).await?;
        let found = rows.into_iter().map(|mut row| {
            let own_key = row.split_off(collection.key.len());
            Reference {
                parent: (index, encode_values(&row)),
                child: ReferringRow::Registered(at, encode_values(&own_key)),
                leads,
                is_cut,
            }
        });
        Ok(found.collect())
    }
}

/// Parents that some row of an unregistered table refers to. Counted, because such a table may have no key to read by.
async fn unregistered_references(
    view: &mut dyn Snapshot,
    (index, collection): (usize, &Collection),
    (child, leads): (&Child, bool),
    parents: &[RowKey],
) -> Result<Vec<Reference>, EraseError> {
    let mut found = Vec::new();
    if view.count(&referring(collection, child, parents)).await? == 0 {
        return Ok(found);
    }
    for parent in parents {
        if view.count(&referring(collection, child, std::slice::from_ref(parent))).await? > 0 {
            let parent = (index, encode_values(&parent.0));
            let child = ReferringRow::Unregistered(child.table.clone());
            found.push(Reference { parent, child, leads, is_cut: false });
        }
    }
    Ok(found)
}

/// Which columns a candidate is read with, and where they are in the row.
pub struct Shape {
    path: Vec<Hop>,
    columns: Vec<ColumnRef>,
    key_length: usize,
    owner_at: Option<usize>,
    /// Where columns stand that say whose id the owner's is, and what must be in them.
    when: Vec<(usize, Vec<String>)>,
    start_at: Option<usize>,
    anchor: std::ops::Range<usize>,
}

/// A row read through a [`Shape`].
pub struct ReadRow {
    /// Its key.
    pub key: RowKey,
    /// Its subject.
    pub subject: Option<Subject>,
    /// Its start event as stored.
    pub start: Option<Value>,
    /// The key of the row it follows.
    pub anchor: Option<Vec<Value>>,
}

impl Shape {
    /// The shape for a collection.
    #[must_use]
    pub fn of(collection: &Collection) -> Self {
        let mut columns: Vec<ColumnRef> = collection.key.iter().map(|column| ColumnRef::own(column)).collect();
        let key_length = columns.len();
        let mut path: Vec<Hop> = Vec::new();
        let mut add = |reach: &Reach, columns: &mut Vec<ColumnRef>| {
            // Owner path and start path run along the same chain of parents, so one is the beginning of the other.
            if reach.path.len() > path.len() {
                path.clone_from(&reach.path);
            }
            columns.push(reach.column.clone());
            columns.len() - 1
        };
        let owner_at = collection.owner.as_ref().map(|owner| add(owner, &mut columns));
        let mut when = Vec::new();
        for beside in collection.owner.iter().flat_map(|owner| &owner.when) {
            when.push((columns.len(), beside.values.clone()));
            columns.push(beside.column.clone());
        }
        let start_at = collection.governed.as_ref().map(|governed| add(&governed.start, &mut columns));
        let first = columns.len();
        if let Some(governed) = collection.governed.as_ref().filter(|governed| governed.follows.is_some())
            && let Some(hop) = governed.start.path.last()
        {
            let level = governed.start.path.len();
            columns.extend(hop.parent_columns.iter().map(|column| ColumnRef { hop: level, column: column.clone() }));
        }
        let anchor = first..columns.len();
        Self { path, columns, key_length, owner_at, when, start_at, anchor }
    }

    /// The query that reads it.
    #[must_use]
    pub fn query(&self, collection: &Collection, filter: Filter) -> RowQuery {
        RowQuery {
            table: collection.table.name.clone(),
            path: self.path.clone(),
            columns: self.columns.clone(),
            filter,
            key: collection.key.clone(),
            after: None,
            limit: PAGE,
        }
    }

    /// The parents joined.
    #[must_use]
    pub fn path(&self) -> &[Hop] {
        &self.path
    }

    /// How many values the shape's columns take; further columns of a query follow.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Takes a row apart.
    #[must_use]
    pub fn read(&self, row: Row) -> ReadRow {
        let at = |index: Option<usize>| index.and_then(|index| row.get(index));
        let holds = |(at, values): &(usize, Vec<String>)| {
            let text = row.get(*at).and_then(Subject::of);
            text.is_some_and(|text| values.iter().any(|value| value == text.dangerous_text()))
        };
        let subject = at(self.owner_at).and_then(Subject::of).filter(|_| self.when.iter().all(holds));
        let start = at(self.start_at).cloned();
        let anchor = (!self.anchor.is_empty()).then(|| row.get(self.anchor.clone()).unwrap_or_default().to_vec());
        let mut key = row;
        key.truncate(self.key_length);
        ReadRow { key: RowKey(key), subject, start, anchor }
    }
}

/// Reads all rows of a query, in one statement: page by page the engine would have to find, or sort, what is left each time.
///
/// # Errors
/// When the store cannot be read.
pub async fn read_all(view: &mut dyn Snapshot, query: RowQuery) -> Result<Vec<Row>, EraseError> {
    Ok(view.read(&RowQuery { limit: u32::MAX, ..query }).await?)
}

/// The kind of start event a column can hold.
#[must_use]
pub fn start_kind(kind: ColumnKind) -> StartKind {
    match kind {
        ColumnKind::Integer => StartKind::Integer,
        ColumnKind::Date | ColumnKind::LocalTime => StartKind::Local,
        ColumnKind::Instant => StartKind::Instant,
        ColumnKind::Text | ColumnKind::Other => StartKind::Text,
        ColumnKind::Real | ColumnKind::Decimal | ColumnKind::Boolean | ColumnKind::Bytes => StartKind::Unsuitable,
    }
}

/// The rows of a collection that are a subject's; `None` when the column cannot hold such an id.
#[must_use]
pub fn owned_by(collection: &Collection, engine: Engine, subject: &Subject) -> Option<Filter> {
    let owner = collection.owner.as_ref()?;
    let own = Filter::Equals(owner.column.clone(), subject_value(subject, owner.kind, engine)?);
    if owner.when.is_empty() {
        return Some(own);
    }
    let mut all = vec![own];
    for beside in &owner.when {
        let values = beside.values.iter().filter_map(|value| subject_value(&Subject::new(value), beside.kind, engine));
        all.push(Filter::Or(values.map(|value| Filter::Equals(beside.column.clone(), value)).collect()));
    }
    Some(Filter::And(all))
}

/// A database that takes small and capital letters for one finds rows that the declaration does not name; to pass them over would leave
/// something of the customer.
fn spelled_otherwise(model: &Model, collection: &Collection) -> EraseError {
    let beside = collection.owner.iter().flat_map(|owner| &owner.when);
    let columns: Vec<&str> = beside.map(|beside| beside.column.column.as_str()).collect();
    EraseError::Refused {
        what: format!(
            "store {}: rows of {} are the customer's by `subject_when`, but what stands in {} is written in another way",
            model.spec.name,
            collection.table.name,
            columns.join(", ")
        ),
        advice: "name each way of writing it in `subject_when`: { column = [\"customer\", \"Customer\"] }".to_owned(),
    }
}

/// A subject's id as a value of its column; `None` when the column cannot hold such an id.
#[must_use]
pub fn subject_value(subject: &Subject, kind: ColumnKind, engine: Engine) -> Option<Value> {
    let text = subject.dangerous_text();
    match kind {
        ColumnKind::Integer => {
            let number: i64 = text.trim().parse().ok()?;
            Some(if engine == Engine::Sqlite { Value::Integer(number) } else { Value::Text(number.to_string()) })
        }
        ColumnKind::Text | ColumnKind::Other => Some(Value::Text(text.to_owned())),
        _ => None,
    }
}
