//! Which living rows rely on an outside key. A field that is NULL or empty relies on none, so a row that was stripped of it does
//! not keep the key; a row whose start event cannot be read does.

use chrono::{DateTime, NaiveDate, Utc};

use crate::config::OutsideKey;
use crate::erase::survey::{Shape, owned_by, start_kind};
use crate::erase::{Ground, Site};
use crate::keys::outside::OutsideKeys;
use crate::plan::Subject;
use crate::plan::model::Collection;
use crate::policy::calendar::{BucketPeriod, bucket_end, bucket_of};
use crate::policy::start::{StartEvent, read_start};
use crate::stores::{ColumnRef, Filter, RowQuery, Snapshot, StoreError, Threshold};
use crate::value::{RowKey, Value};

use super::super::Result;
use super::record::{OutsideWait, Waiting};

/// Whose rows count.
#[derive(Clone, Copy)]
pub(super) enum Whose<'w> {
    /// One subject's.
    Subject(&'w Subject),
    /// Those that a policy governs: of one period, or all.
    Policy(&'w str, Option<BucketPeriod>),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reliance {
    /// Whether a living row relies on the key.
    pub relies: bool,
    /// Whether one of its values is in clear.
    pub in_clear: bool,
}

/// Looks for living rows that rely on a key. Ends at the first page with one.
///
/// # Errors
/// The inner one says why that cannot be told; then nothing may be destroyed.
pub(super) async fn find_rows(
    ground: &Ground<'_>,
    spec: &OutsideKey,
    service: &dyn OutsideKeys,
    whose: Whose<'_>,
) -> Result<Result<Reliance, Waiting>> {
    let mut found = Reliance::default();
    for (store, name) in spec.collections() {
        let (site, collection) = match place(ground, spec, (store, name), whose) {
            Ok(place) => place,
            Err(waiting) => return Ok(Err(waiting)),
        };
        let fields: Vec<&str> = spec
            .fields
            .iter()
            .filter(|field| field.store == store && field.collection == name)
            .map(|field| field.field.as_str())
            .collect();
        let look = Look { site, collection, fields, service, whose, now: ground.clock.now() };
        match look.find().await {
            Ok(one) => {
                found.relies |= one.relies;
                found.in_clear |= one.in_clear;
            }
            Err(LookError::Store(error)) => {
                return Ok(Err(Waiting::new(OutsideWait::StoreUnreachable, error.to_string())));
            }
            Err(LookError::Erase(error)) => return Err(error.into()),
        }
    }
    Ok(Ok(found))
}

/// The collection as registered, and whether it is what the entry says.
fn place<'g>(
    ground: &'g Ground<'_>,
    spec: &OutsideKey,
    (store, name): (&str, &str),
    whose: Whose<'_>,
) -> std::result::Result<(&'g Site, &'g Collection), Waiting> {
    let Some(site) = ground.site(store) else {
        let why = ground.skipped.iter().find(|(skipped, _)| skipped == store).map(|(_, why)| why.clone());
        let what = why.unwrap_or_else(|| format!("store {store} was not opened"));
        return Err(Waiting::new(OutsideWait::StoreUnreachable, what));
    };
    let odd = |what: String| Err(Waiting::new(OutsideWait::Unregistered, what));
    let Some((_, collection)) = site.model.collection(name) else {
        return odd(format!("{store}.{name} is not registered"));
    };
    let is_column = |field: &str| collection.table.columns.iter().any(|column| column.name == field);
    let fields = spec.fields.iter().filter(|field| field.store == store && field.collection == name);
    if let Some(missing) = fields.map(|field| &field.field).find(|field| !is_column(field)) {
        return odd(format!("{store}.{name} has no field {missing}"));
    }
    match whose {
        Whose::Subject(_) if collection.owner.is_none() => odd(format!("{store}.{name} has no way to a subject")),
        Whose::Policy(policy, _)
            if collection.governed.as_ref().is_none_or(|governed| governed.policy.id != policy) =>
        {
            odd(format!("{store}.{name} is not governed by policy {policy}"))
        }
        _ => Ok((site, collection)),
    }
}

enum LookError {
    Store(StoreError),
    Erase(crate::erase::EraseError),
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<crate::policy::calendar::CalendarError> for LookError {
    fn from(error: crate::policy::calendar::CalendarError) -> Self {
        Self::Erase(error.into())
    }
}

/// A look into one collection.
struct Look<'l> {
    site: &'l Site,
    collection: &'l Collection,
    fields: Vec<&'l str>,
    service: &'l dyn OutsideKeys,
    whose: Whose<'l>,
    now: DateTime<Utc>,
}

impl Look<'_> {
    async fn find(&self) -> Result<Reliance, LookError> {
        let shape = Shape::of(self.collection);
        let Some(filter) = self.filter()? else { return Ok(Reliance::default()) };
        let mut query = shape.query(self.collection, filter);
        query.columns.extend(self.fields.iter().map(|field| ColumnRef::own(field)));
        let mut view = self.site.store.open_snapshot().await?;
        let mut found = self.read(view.as_mut(), &shape, query).await?;
        if !found.relies && self.has_unreadable_starts(view.as_mut(), &shape).await? {
            found.relies = true;
        }
        view.close().await?;
        Ok(found)
    }

    fn any_field(&self) -> Filter {
        Filter::Or(self.fields.iter().map(|field| Filter::IsNotNull(ColumnRef::own(field))).collect())
    }

    /// `None` when no row can be meant.
    fn filter(&self) -> Result<Option<Filter>, LookError> {
        let any = self.any_field();
        Ok(match (self.whose, &self.collection.owner, &self.collection.governed) {
            (Whose::Subject(subject), Some(_), _) => {
                owned_by(self.collection, self.site.store.engine(), subject).map(|own| Filter::And(vec![any, own]))
            }
            (Whose::Policy(_, Some(period)), _, Some(governed)) => {
                let zone = self.site.model.spec.timezone;
                bucket_end(period, zone)?.map(|end| {
                    let threshold = Threshold { instant: end, local: end.with_timezone(&zone).naive_local() };
                    Filter::And(vec![any, Filter::Before(governed.start.column.clone(), threshold)])
                })
            }
            _ => Some(any),
        })
    }

    /// Reads page by page until one holds a row that relies on the key.
    async fn read(&self, view: &mut dyn Snapshot, shape: &Shape, mut query: RowQuery) -> Result<Reliance, LookError> {
        let width = query.columns.len();
        query.columns.extend(query.key.iter().map(|column| ColumnRef::own(column)));
        let mut found = Reliance::default();
        loop {
            let page = view.read(&query).await?;
            let is_last = page.len() < query.limit as usize;
            for mut row in page {
                query.after = Some(RowKey(row.split_off(width)));
                let values = row.split_off(shape.width());
                let bytes: Vec<&[u8]> = values.iter().filter_map(content).collect();
                let start = shape.read(row).start;
                if !bytes.is_empty() && self.is_meant(start.as_ref())? {
                    found.relies = true;
                    found.in_clear |= bytes.iter().any(|value| !self.service.is_sealed(value));
                }
            }
            if is_last || found.relies {
                return Ok(found);
            }
        }
    }

    /// Whether a row with this start event is one whose fields the key seals.
    fn is_meant(&self, start: Option<&Value>) -> Result<bool, LookError> {
        let (Whose::Policy(_, Some(BucketPeriod::Span(span))), Some(governed)) =
            (self.whose, &self.collection.governed)
        else {
            return Ok(true);
        };
        let zone = self.site.model.spec.timezone;
        Ok(match start.map(|value| read_start(value, start_kind(governed.start.kind), zone, self.now)) {
            Some(StartEvent::At(at) | StartEvent::Future(at)) => {
                bucket_of(at, span.width(), zone)? == BucketPeriod::Span(span)
            }
            Some(StartEvent::Unreadable) => true,
            Some(StartEvent::Missing) | None => false,
        })
    }

    /// Whether rows with the fields have a start event that the engine cannot read: they may be of any period.
    async fn has_unreadable_starts(&self, view: &mut dyn Snapshot, shape: &Shape) -> Result<bool, LookError> {
        let (Whose::Policy(_, Some(_)), Some(governed)) = (self.whose, &self.collection.governed) else {
            return Ok(false);
        };
        let at = &governed.start.column;
        let last = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or_default().and_time(chrono::NaiveTime::MIN);
        let whenever = Threshold { instant: last.and_utc(), local: last };
        let both = |filter| shape.query(self.collection, Filter::And(vec![self.any_field(), filter]));
        let all = view.count(&both(Filter::IsNotNull(at.clone()))).await?;
        let readable = view.count(&both(Filter::Before(at.clone(), whenever))).await?;
        Ok(all > readable)
    }
}

/// The bytes of a value that holds something.
fn content(value: &Value) -> Option<&[u8]> {
    let bytes = match value {
        Value::Text(text) => text.as_bytes(),
        Value::Blob(bytes) => bytes,
        // No service seals into a number, so one stands there in clear.
        Value::Integer(_) | Value::Real(_) => b"0",
        Value::Null => return None,
    };
    (!bytes.is_empty()).then_some(bytes)
}
