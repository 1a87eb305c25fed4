//! Filters and key order as SQL conditions.

use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::value::{Purpose, base_type, does_not_fit, text_or_bytes};
use super::{Argument, Builder, MAX_BOUND_VALUES, Result, Scope, SqlError, column, is_bytes};
use crate::stores::{Column, ColumnKind, ColumnRef, Engine, Filter, Hop, Table, Threshold};
use crate::value::{RowKey, Value};

const TRUE: &str = "1 = 1";
const FALSE: &str = "1 = 0";

/// A text that starts like an ISO date. GLOB, because SQLite has no other pattern without an extension.
const ISO_SHAPE_GLOB: &str = "[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9]*";
/// The same for PostgreSQL and MariaDB, complete: a date, or a date and a time without a zone.
const ISO_SHAPE_REGEX: &str = "^[0-9]{4}-[01][0-9]-[0-3][0-9]([ T][0-2][0-9]:[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?)?$";

impl<'s> Builder<'s> {
    /// Appends the condition, in parentheses where needed.
    pub(super) fn filter(&mut self, scope: &Scope<'s>, filter: &Filter) -> Result<()> {
        match filter {
            Filter::All => self.push(TRUE),
            Filter::Equals(at, value) => self.equals(scope, at, value)?,
            Filter::IsNull(at) => {
                let (_, _, name) = self.resolve(scope, at)?;
                self.push(&format!("{name} IS NULL"));
            }
            Filter::IsNotNull(at) => {
                let (_, _, name) = self.resolve(scope, at)?;
                self.push(&format!("{name} IS NOT NULL"));
            }
            Filter::Same(at, value) => self.same(scope, at, value)?,
            Filter::Before(at, threshold) => self.before(scope, at, threshold)?,
            Filter::NotBefore(at, threshold) => self.not_before(scope, at, threshold)?,
            Filter::In(columns, keys) => self.one_of(scope, 0, columns, keys)?,
            Filter::AncestorIn(hop, columns, keys) => self.one_of(scope, *hop, columns, keys)?,
            Filter::And(parts) => self.joined(scope, parts, " AND ", TRUE)?,
            Filter::Or(parts) => self.joined(scope, parts, " OR ", FALSE)?,
        }
        Ok(())
    }

    fn joined(&mut self, scope: &Scope<'s>, parts: &[Filter], operator: &str, empty: &str) -> Result<()> {
        if parts.is_empty() {
            self.push(empty);
            return Ok(());
        }
        for (index, part) in parts.iter().enumerate() {
            self.push(if index == 0 { "(" } else { operator });
            self.filter(scope, part)?;
        }
        self.push(")");
        Ok(())
    }

    /// The WHERE of a DELETE: own conditions directly, conditions on ancestors in a correlated EXISTS.
    pub(super) fn split_filter(&mut self, scope: &Scope<'s>, path: &[Hop], filter: &Filter) -> Result<()> {
        let parts: &[Filter] = match filter {
            Filter::And(parts) => parts,
            single => std::slice::from_ref(single),
        };
        let (own, ancestral): (Vec<_>, Vec<_>) = parts.iter().partition(|part| deepest_hop(part) == 0);
        let own: Vec<Filter> = own.into_iter().cloned().collect();
        self.joined(scope, &own, " AND ", TRUE)?;
        if ancestral.is_empty() {
            return Ok(());
        }
        let ancestral: Vec<Filter> = ancestral.into_iter().cloned().collect();
        let base = if scope.letter == 't' { "base" } else { "p0" };
        self.push(&format!(" AND EXISTS (SELECT 1 FROM (SELECT 1 AS one) AS {base}"));
        self.joins(scope, path)?;
        self.push(" WHERE ");
        self.joined(scope, &ancestral, " AND ", TRUE)?;
        self.push(")");
        Ok(())
    }

    fn resolve(&self, scope: &Scope<'s>, at: &ColumnRef) -> Result<(&'s Table, &'s Column, String)> {
        let (table, prefix) = scope.at(at.hop)?;
        let found = column(table, &at.column)?;
        Ok((table, found, format!("{prefix}{}", self.quoted(&at.column))))
    }

    fn equals(&mut self, scope: &Scope<'s>, at: &ColumnRef, value: &Value) -> Result<()> {
        let (table, column, name) = self.resolve(scope, at)?;
        if matches!(value, Value::Null) {
            self.push(FALSE);
            return Ok(());
        }
        self.push(&format!("{name} = "));
        self.bind(table, column, value, Purpose::Compare)
    }

    /// Equality of the carried form, not of what the engine's collation calls equal.
    fn same(&mut self, scope: &Scope<'s>, at: &ColumnRef, value: &Value) -> Result<()> {
        let (table, column, name) = self.resolve(scope, at)?;
        if matches!(value, Value::Null) {
            self.push(&format!("{name} IS NULL"));
            return Ok(());
        }
        match self.schema.engine {
            Engine::Sqlite => {
                let class = match value {
                    Value::Integer(_) => "integer",
                    Value::Real(_) => "real",
                    Value::Text(_) => "text",
                    Value::Blob(_) | Value::Null => "blob",
                };
                self.push(&format!("(typeof({name}) = '{class}' AND {name} COLLATE BINARY = "));
                self.bind(table, column, value, Purpose::Compare)?;
                self.push(")");
            }
            Engine::Mysql if super::value::is_mysql_bytes(column) && !is_bytes(column) => {
                let Value::Blob(bytes) = value else { return Err(does_not_fit(table, column)) };
                let place = self.place_argument(Argument::Bytes(bytes.clone()));
                self.push(&format!("HEX({name}) = HEX({place})"));
            }
            Engine::Postgres | Engine::Mysql => {
                let argument = text_or_bytes(column, value).ok_or_else(|| does_not_fit(table, column))?;
                let prefix = scope.at(at.hop)?.1;
                let (expression, _) = super::value::output(self.schema.engine, table, column, prefix)?;
                let place = self.place_argument(argument);
                let condition = match self.schema.engine {
                    _ if is_bytes(column) => format!("{expression} = {place}"),
                    Engine::Mysql => format!(
                        "CAST(CONVERT({expression} USING utf8mb4) AS BINARY) = CAST(CONVERT({place} USING utf8mb4) AS BINARY)"
                    ),
                    _ => format!("{expression} COLLATE \"C\" = {place}"),
                };
                self.push(&condition);
            }
        }
        Ok(())
    }

    fn one_of(&mut self, scope: &Scope<'s>, hop: usize, columns: &[String], keys: &[RowKey]) -> Result<()> {
        let (table, prefix) = scope.at(hop)?;
        let mut facts = Vec::new();
        for name in columns {
            facts.push(column(table, name)?);
        }
        if let Some(wrong) = keys.iter().find(|key| key.0.len() != columns.len() || columns.is_empty()) {
            let (expected, found) = (columns.len(), wrong.0.len());
            return Err(SqlError::WrongWidth { table: table.name.clone(), expected, found });
        }
        // SQL never finds a tuple with NULL equal to anything.
        let keys: Vec<&RowKey> = keys.iter().filter(|key| !key.0.contains(&Value::Null)).collect();
        if keys.len() * columns.len() > MAX_BOUND_VALUES {
            return Err(SqlError::TooManyValues { found: keys.len() * columns.len() });
        }
        if keys.is_empty() {
            self.push(FALSE);
            return Ok(());
        }
        let names: Vec<String> = columns.iter().map(|name| format!("{prefix}{}", self.quoted(name))).collect();
        let left = if names.len() == 1 { names[0].clone() } else { format!("({})", names.join(", ")) };
        let arrays_nest = facts.iter().any(|column| self.cast(table, column).ends_with(']'));
        if self.schema.engine == Engine::Postgres && !arrays_nest {
            return self.one_of_arrays(table, &left, &facts, &keys);
        }
        // Rows of VALUES, because SQLite and PostgreSQL know no list of tuples; MariaDB knows only the list.
        let values = names.len() > 1 && self.schema.engine != Engine::Mysql || arrays_nest;
        self.push(&format!("{left} IN ({}", if values { "VALUES " } else { "" }));
        let tuple = names.len() > 1 || values;
        for (index, key) in keys.iter().enumerate() {
            self.push(if index == 0 { "" } else { ", " });
            self.push(if tuple { "(" } else { "" });
            for (position, (column, value)) in facts.iter().zip(&key.0).enumerate() {
                self.push(if position == 0 { "" } else { ", " });
                self.bind(table, column, value, Purpose::Compare)?;
            }
            self.push(if tuple { ")" } else { "" });
        }
        self.push(")");
        Ok(())
    }

    /// One array per column, so that the statement's text does not depend on how many keys there are.
    fn one_of_arrays(&mut self, table: &Table, left: &str, facts: &[&Column], keys: &[&RowKey]) -> Result<()> {
        let mut arrays = Vec::new();
        for (position, column) in facts.iter().enumerate() {
            let (mut texts, mut blobs) = (Vec::new(), Vec::new());
            for key in keys {
                match text_or_bytes(column, &key.0[position]) {
                    Some(Argument::Text(text)) => texts.push(text),
                    Some(Argument::Bytes(bytes)) => blobs.push(bytes),
                    _ => return Err(does_not_fit(table, column)),
                }
            }
            let cast = self.cast(table, column);
            let list = if is_bytes(column) { Argument::BytesList(blobs) } else { Argument::TextList(texts) };
            let place = self.place_argument(list);
            arrays.push(format!("CAST({place} AS {cast}[])"));
        }
        if let [array] = arrays.as_slice() {
            self.push(&format!("{left} = ANY ({array})"));
        } else {
            self.push(&format!("{left} IN (SELECT * FROM unnest({}))", arrays.join(", ")));
        }
        Ok(())
    }

    /// The expressions that order a page.
    pub(super) fn key_expressions(&self, scope: &Scope<'s>, key: &[String]) -> Result<Vec<String>> {
        let (table, prefix) = scope.at(0)?;
        let mut expressions = Vec::new();
        for name in key {
            let base = base_type(&column(table, name)?.type_name);
            let name = format!("{prefix}{}", self.quoted(name));
            // These sort by number but compare with text as text; one order must serve both.
            let by_text = self.schema.engine == Engine::Mysql && matches!(base.as_str(), "enum" | "set");
            expressions.push(if by_text { format!("CAST({name} AS CHAR)") } else { name });
        }
        Ok(expressions)
    }

    /// `key > after`, lexicographically.
    pub(super) fn key_after(&mut self, scope: &Scope<'s>, key: &[String], after: &RowKey) -> Result<()> {
        let (table, _) = scope.at(0)?;
        if after.0.len() != key.len() {
            let (expected, found) = (key.len(), after.0.len());
            return Err(SqlError::WrongWidth { table: table.name.clone(), expected, found });
        }
        let expressions = self.key_expressions(scope, key)?;
        for (name, value) in key.iter().zip(&after.0) {
            if matches!(value, Value::Null) {
                return Err(does_not_fit(table, column(table, name)?));
            }
        }
        if self.schema.engine != Engine::Mysql {
            self.push(&format!("({}) > (", expressions.join(", ")));
            for (index, (name, value)) in key.iter().zip(&after.0).enumerate() {
                self.push(if index == 0 { "" } else { ", " });
                self.bind(table, column(table, name)?, value, Purpose::Compare)?;
            }
            self.push(")");
            return Ok(());
        }
        // MariaDB takes no range from a comparison of tuples: (a >= x AND (a > x OR (b >= y AND (b > y …)))).
        for (index, (name, value)) in key.iter().zip(&after.0).enumerate() {
            let (facts, expression) = (column(table, name)?, &expressions[index]);
            if index + 1 < key.len() {
                self.push(&format!("({expression} >= "));
                self.bind(table, facts, value, Purpose::Compare)?;
                self.push(&format!(" AND ({expression} > "));
                self.bind(table, facts, value, Purpose::Compare)?;
                self.push(" OR ");
            } else {
                self.push(&format!("{expression} > "));
                self.bind(table, facts, value, Purpose::Compare)?;
            }
        }
        self.push(&"))".repeat(key.len() - 1));
        Ok(())
    }

    fn before(&mut self, scope: &Scope<'s>, at: &ColumnRef, threshold: &Threshold) -> Result<()> {
        let (table, column, name) = self.resolve(scope, at)?;
        let Some(local) = clamp(threshold.local) else {
            self.push(FALSE);
            return Ok(());
        };
        if self.schema.engine == Engine::Sqlite {
            self.before_sqlite(&name, local, threshold);
            return Ok(());
        }
        if column.kind == Some(ColumnKind::Text) {
            self.before_text(&name, &clock_text(local));
            return Ok(());
        }
        let bound = self.bound(table, column, threshold)?;
        if column.kind == Some(ColumnKind::Integer) {
            self.push(&format!("{name} < {bound}"));
            return Ok(());
        }
        // MariaDB may hold dates like 2010-00-00, which are no times.
        let whole = match self.schema.engine {
            Engine::Mysql => format!(" AND MONTH({name}) > 0 AND DAYOFMONTH({name}) > 0"),
            _ => String::new(),
        };
        self.push(&format!("({name} < {bound} AND {name} >= {}{whole})", self.year_one()));
        Ok(())
    }

    fn not_before(&mut self, scope: &Scope<'s>, at: &ColumnRef, threshold: &Threshold) -> Result<()> {
        let (table, column, name) = self.resolve(scope, at)?;
        if self.schema.engine == Engine::Sqlite || column.kind == Some(ColumnKind::Text) {
            return Err(not_a_time(table, column));
        }
        if clamp(threshold.local).is_none() {
            self.push(&format!("{name} IS NOT NULL"));
            return Ok(());
        }
        let bound = self.bound(table, column, threshold)?;
        match column.kind {
            Some(ColumnKind::Integer) => self.push(&format!("{name} >= {bound}")),
            _ => self.push(&format!("({name} >= {bound} OR {name} < {})", self.year_one())),
        }
        Ok(())
    }

    fn year_one(&self) -> &'static str {
        if self.schema.engine == Engine::Postgres { "CAST('0001-01-01' AS date)" } else { "'0001-01-01'" }
    }

    /// The place of a threshold's value in terms of a column of dates, times or whole numbers (PostgreSQL, MariaDB).
    fn bound(&mut self, table: &Table, column: &Column, threshold: &Threshold) -> Result<String> {
        let local = clamp(threshold.local).unwrap_or(NaiveDateTime::MIN);
        let instant = clamp(threshold.instant.naive_utc()).unwrap_or(NaiveDateTime::MIN);
        let is_postgres = self.schema.engine == Engine::Postgres;
        let (bound, cast) = match column.kind {
            Some(ColumnKind::Date) => (first_date_not_before(local).to_string(), "date"),
            Some(ColumnKind::LocalTime) => (clock_text(local), if is_postgres { "timestamp" } else { "DATETIME(6)" }),
            Some(ColumnKind::Instant) if is_postgres => (format!("{}+00", clock_text(instant)), "timestamptz"),
            Some(ColumnKind::Instant) => (clock_text(instant), "DATETIME(6)"),
            Some(ColumnKind::Integer) => {
                return Ok(self.place_argument(Argument::Integer(seconds_not_before(threshold))));
            }
            _ => return Err(not_a_time(table, column)),
        };
        let place = self.place_argument(Argument::Text(bound));
        Ok(format!("CAST({place} AS {cast})"))
    }

    /// Text in PostgreSQL and MariaDB: only complete forms without a zone, compared byte by byte.
    fn before_text(&mut self, name: &str, local: &str) {
        let shape = self.place_argument(Argument::Text(ISO_SHAPE_REGEX.to_owned()));
        let place = self.place_argument(Argument::Text(local.to_owned()));
        let full = format!(
            "CASE length({name}) WHEN 10 THEN concat({name}, ' 00:00:00') WHEN 16 THEN concat(replace({name}, 'T', ' '), ':00') \
             ELSE replace({name}, 'T', ' ') END"
        );
        let condition = if self.schema.engine == Engine::Postgres {
            format!("({name} ~ CAST({shape} AS text) AND {full} COLLATE \"C\" < CAST({place} AS text))")
        } else {
            format!("({name} REGEXP {shape} AND CAST({full} AS BINARY) < CAST({place} AS BINARY))")
        };
        self.push(&condition);
    }

    /// SQLite has no time type: a value is read by its storage class, integers as Unix seconds, texts as ISO forms.
    /// The comparison with a whole date comes first in each branch so that an index on the column can serve it.
    fn before_sqlite(&mut self, name: &str, local: NaiveDateTime, threshold: &Threshold) {
        let seconds = seconds_not_before(threshold);
        let day_after = |days: i64| (local.date() + Duration::days(days)).to_string();
        let time_part = format!("substr({name}, 11)");
        self.push(&format!("((typeof({name}) = 'integer' AND {name} < ?) OR "));
        self.arguments.push(Argument::Integer(seconds));
        let full = format!(
            "CASE length({name}) WHEN 10 THEN {name} || ' 00:00:00' WHEN 16 THEN replace({name}, 'T', ' ') || ':00' \
             ELSE replace({name}, 'T', ' ') END"
        );
        self.push(&format!(
            "(typeof({name}) = 'text' AND {name} < ? AND {name} GLOB ? AND {time_part} NOT GLOB '*[^0-9T:. ]*' AND {full} COLLATE BINARY < ?) OR "
        ));
        self.arguments.push(Argument::Text(day_after(1)));
        self.arguments.push(Argument::Text(ISO_SHAPE_GLOB.to_owned()));
        self.arguments.push(Argument::Text(clock_text(local)));
        // With a zone the text is an instant, up to 14 hours away from what its local reading says.
        self.push(&format!(
            "(typeof({name}) = 'text' AND {name} < ? AND {name} GLOB ? AND {time_part} GLOB '*[Zz+-]*' \
             AND CAST(strftime('%s', {name}) AS INTEGER) < ? AND strftime('%s', {name}) IS NOT NULL))"
        ));
        self.arguments.push(Argument::Text(day_after(2)));
        self.arguments.push(Argument::Text(ISO_SHAPE_GLOB.to_owned()));
        self.arguments.push(Argument::Integer(seconds));
    }
}

fn not_a_time(table: &Table, column: &Column) -> SqlError {
    let (table, column, type_name) = (table.name.clone(), column.name.clone(), column.type_name.clone());
    SqlError::NotATime { table, column, type_name }
}

/// The furthest ancestor that a filter names.
fn deepest_hop(filter: &Filter) -> usize {
    match filter {
        Filter::All | Filter::In(..) => 0,
        Filter::AncestorIn(hop, ..) => *hop,
        Filter::Equals(at, _)
        | Filter::Same(at, _)
        | Filter::Before(at, _)
        | Filter::NotBefore(at, _)
        | Filter::IsNull(at)
        | Filter::IsNotNull(at) => at.hop,
        Filter::And(parts) | Filter::Or(parts) => parts.iter().map(deepest_hop).max().unwrap_or(0),
    }
}

/// Bounds beyond the years 1 to 9999 are no four-digit text: nothing is before the first, and the last stands for later
/// ones.
fn clamp(local: NaiveDateTime) -> Option<NaiveDateTime> {
    let last = NaiveDate::from_ymd_opt(9999, 12, 29).map(|date| date.and_time(NaiveTime::MIN));
    if local.year() > 9999 || last.is_some_and(|last| local > last) {
        last
    } else {
        (local.year() >= 1).then_some(local)
    }
}

/// `YYYY-MM-DD HH:MM:SS`, with a fraction if there is one.
fn clock_text(local: NaiveDateTime) -> String {
    local.format("%Y-%m-%d %H:%M:%S%.f").to_string()
}

/// The first date whose midnight is not before the bound.
fn first_date_not_before(local: NaiveDateTime) -> NaiveDate {
    let later = i64::from(local.time() != NaiveTime::MIN);
    local.date() + Duration::days(later)
}

/// The first whole Unix second that is not before the bound.
fn seconds_not_before(threshold: &Threshold) -> i64 {
    threshold.instant.timestamp() + i64::from(threshold.instant.nanosecond() > 0)
}
