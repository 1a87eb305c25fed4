//! The model of a store: its registered collections joined with the catalogue, checked and put in order.

use std::sync::Arc;

use super::anonymise::{Anonymise, anonymise_of, rules_without_column};
use super::digest::schema_digest;
use super::graph::{Untie, components};
use super::unregistered::{UnregisteredTable, unregistered};
use crate::policy::registry::{CollectionSpec, Policy, StoreSpec};
use crate::policy::statute::{self, Statute};
use crate::stores::{Catalogue, ColumnKind, ColumnRef, ForeignKey, Hop, OnDelete, Table};

/// A store as the planner and the eraser see it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The store's declaration.
    pub spec: StoreSpec,
    /// Registered collections, children before parents.
    pub collections: Vec<Collection>,
    /// Fingerprint of the schema, hex.
    pub schema_digest: String,
    /// Tables that seem to hold a subject's data and are not registered.
    pub unregistered: Vec<UnregisteredTable>,
}

/// A registered collection.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Its table.
    pub table: Table,
    /// Its declaration.
    pub spec: CollectionSpec,
    /// The key columns used.
    pub key: Vec<String>,
    /// The way to the subject's id.
    pub owner: Option<Reach>,
    /// The policy that governs it, its own or that of the row it follows.
    pub governed: Option<Governed>,
    /// What its policy changes in its rows, when that anonymises.
    pub anonymise: Option<Anonymise>,
    /// Tables whose rows refer to rows of this one.
    pub children: Vec<Child>,
    /// Collections with the same number refer to each other in a circle.
    pub group: usize,
    /// Whether it is in a circle with others, or refers to itself: its rows then go in the order of their references.
    pub is_knotted: bool,
}

/// A column at the end of a path of parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The parents, nearest first; empty when the column is the collection's own.
    pub path: Vec<Hop>,
    /// The column.
    pub column: ColumnRef,
    /// What the column holds.
    pub kind: ColumnKind,
    /// Of the way to an owner: what must stand beside the column, in the same table, for its value to be a subject's id.
    pub when: Vec<Beside>,
}

/// A column that says whose id another one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The column.
    pub column: ColumnRef,
    /// What it holds.
    pub kind: ColumnKind,
    /// What stands in it where the id is a subject's.
    pub values: Vec<String>,
}

/// The policy of a collection.
#[derive(Debug, Clone)]
pub struct Governed {
    /// The policy.
    pub policy: Policy,
    /// The statutes that bind its rows, in the order in which the policy names them.
    pub statutes: Vec<Arc<Statute>>,
    /// The start event's column.
    pub start: Reach,
    /// The collection the rows follow (by name), when the policy is not their own.
    pub follows: Option<String>,
}

/// A reference to a collection from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The referring table.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The columns they refer to.
    pub parent_columns: Vec<String>,
    /// Index of the referring collection in the model, when it is registered.
    pub registered: Option<usize>,
    /// What the database does to it when its parent goes.
    pub on_delete: OnDelete,
    /// What can be done about it when rows refer to each other in a circle.
    pub untie: Untie,
    /// The referring columns that may be emptied.
    pub emptiable: Vec<String>,
}

impl Model {
    /// The collection of this name.
    #[must_use]
    pub fn collection(&self, name: &str) -> Option<(usize, &Collection)> {
        self.collections.iter().enumerate().find(|(_, collection)| collection.table.name == name)
    }
}

impl Collection {
    /// Whether rows of a child table that refer to rows of this one lead to their subject that way.
    #[must_use]
    pub fn is_led_over(&self, child: &Child, model: &Model) -> bool {
        match child.registered.and_then(|at| model.collections.get(at)) {
            None => !model.spec.ignored.contains(&child.table),
            Some(registered) => registered
                .owner
                .as_ref()
                .and_then(|owner| owner.path.first())
                .is_some_and(|hop| hop.parent == self.table.name && hop.columns == child.columns),
        }
    }

    /// Columns a strip leaves alone: the key, every column of a foreign key, columns others refer to, the way to the
    /// owner, the start event, generated columns, and the declared minimum.
    #[must_use]
    pub fn stays_when_stripped(&self, column: &str) -> bool {
        let named = |columns: &[String]| columns.iter().any(|name| name == column);
        let own = |reach: &Reach| reach.path.first().map_or(reach.column.column == column, |hop| named(&hop.columns));
        named(&self.key)
            || named(&self.spec.minimum)
            || self.table.foreign_keys.iter().any(|key| named(&key.columns))
            || self.children.iter().any(|child| named(&child.parent_columns))
            || self.owner.as_ref().is_some_and(own)
            || self.spec.subject_when.contains_key(column)
            || self.governed.as_ref().is_some_and(|governed| own(&governed.start))
            || self.table.columns.iter().any(|known| known.name == column && known.generated)
    }
}

/// Joins a store's declaration with its catalogue. All problems are reported, each as one sentence for the operator.
///
/// # Errors
/// The sentences, when there are any.
pub fn resolve(
    spec: &StoreSpec,
    catalogue: &Catalogue,
    policies: &[Policy],
    law: &statute::Catalogue,
) -> Result<Model, Vec<String>> {
    let mut problems = Vec::new();
    let mut collections = Vec::new();
    for declared in &spec.collections {
        match resolve_collection(spec, declared, catalogue, (policies, law)) {
            Ok(collection) => collections.push(collection),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut collections = in_order(collections, catalogue).map_err(|problem| vec![problem])?;
    let names: Vec<String> = collections.iter().map(|collection| collection.table.name.clone()).collect();
    for collection in &mut collections {
        collection.children = children_of(&collection.table.name, catalogue, &names);
    }
    let mut problems = rules_without_column(spec, &collections, policies);
    for collection in &mut collections {
        match anonymise_of(spec, collection) {
            Ok(anonymise) => collection.anonymise = anonymise,
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let unregistered = unregistered(spec, &collections, catalogue);
    Ok(Model { spec: spec.clone(), collections, schema_digest: schema_digest(catalogue), unregistered })
}

fn resolve_collection(
    spec: &StoreSpec,
    declared: &CollectionSpec,
    catalogue: &Catalogue,
    rules: (&[Policy], &statute::Catalogue),
) -> Result<Collection, Vec<String>> {
    let at = format!("store {}, collection {}", spec.name, declared.table);
    if let Some(why) = catalogue.refused.get(&declared.table) {
        return Err(vec![format!("{at}: it {why}")]);
    }
    let Some(table) = catalogue.table(&declared.table) else {
        return Err(vec![format!("{at}: there is no such table; correct `table` or remove the collection")]);
    };
    let mut problems = Vec::new();
    let mut must_exist = |columns: &[String], what: &str| {
        for column in columns {
            if !table.columns.iter().any(|known| known.name == *column) {
                problems.push(format!("{at}: {what} names column `{column}`, which the table does not have"));
            }
        }
    };
    must_exist(&declared.key, "`key`");
    must_exist(&declared.minimum, "`minimum`");
    must_exist(&declared.fields.keys().cloned().collect::<Vec<_>>(), "`fields`");
    must_exist(declared.subject.as_slice(), "`subject`");
    must_exist(&declared.subject_when.keys().cloned().collect::<Vec<_>>(), "`subject_when`");
    let key = if declared.key.is_empty() { table.key.clone() } else { declared.key.clone() };
    if key.is_empty() {
        problems.push(format!("{at}: the table has no key; add a primary key, or declare `key` with unique columns"));
    }
    for column in &table.columns {
        if column.kind.is_none() && !column.generated {
            problems.push(format!(
                "{at}: column `{}` has type {}, which cannot be backed up without loss",
                column.name, column.type_name
            ));
        }
    }
    let owner = collect(owner_reach(spec, declared, catalogue, 0), &at, &mut problems).flatten();
    let governed = collect(governing(spec, declared, catalogue, rules), &at, &mut problems).flatten();
    if problems.is_empty() {
        let (table, spec) = (table.clone(), declared.clone());
        let children = Vec::new();
        Ok(Collection { table, spec, key, owner, governed, anonymise: None, children, group: 0, is_knotted: false })
    } else {
        Err(problems)
    }
}

fn collect<T>(result: Result<T, String>, at: &str, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(format!("{at}: {problem}"))).ok()
}

/// How deep owner paths may be; deeper ones are circles.
const MAX_HOPS: usize = 8;

/// The declared or derived next step from a collection towards its owner.
fn next_hops(spec: &StoreSpec, declared: &CollectionSpec, catalogue: &Catalogue) -> Result<Vec<Hop>, String> {
    if !declared.via.is_empty() {
        return declared.via.iter().map(|item| parse_hop(item, catalogue)).collect();
    }
    let Some(table) = catalogue.table(&declared.table) else { return Ok(Vec::new()) };
    let registered =
        |name: &str| spec.collections.iter().any(|other| other.table == name && other.table != declared.table);
    let mut candidates = table.foreign_keys.iter().filter(|key| registered(&key.parent));
    match (candidates.next(), candidates.next()) {
        (Some(key), None) => Ok(vec![Hop {
            columns: key.columns.clone(),
            parent: key.parent.clone(),
            parent_columns: key.parent_columns.clone(),
        }]),
        (Some(_), Some(_)) => {
            Err("it has several foreign keys to registered collections; declare `subject` or `via`".to_owned())
        }
        _ => Ok(Vec::new()),
    }
}

fn parse_hop(item: &str, catalogue: &Catalogue) -> Result<Hop, String> {
    let (left, parent) =
        item.split_once("->").ok_or_else(|| format!("`via` item `{item}` is not of the form `column -> table`"))?;
    let columns: Vec<String> = left.split(',').map(|column| column.trim().to_owned()).collect();
    let parent = parent.trim().to_owned();
    let table =
        catalogue.table(&parent).ok_or_else(|| format!("`via` names table `{parent}`, which does not exist"))?;
    if table.key.len() != columns.len() {
        return Err(format!(
            "`via` item `{item}` has {} columns, the key of `{parent}` has {}",
            columns.len(),
            table.key.len()
        ));
    }
    Ok(Hop { columns, parent, parent_columns: table.key.clone() })
}

fn reach(catalogue: &Catalogue, path: Vec<Hop>, table: &str, column: &str) -> Result<Reach, String> {
    let known = catalogue.table(table).and_then(|table| table.columns.iter().find(|known| known.name == column));
    let known = known.ok_or_else(|| format!("table `{table}` has no column `{column}`"))?;
    let kind = known.kind.ok_or_else(|| format!("column `{table}.{column}` has an unsupported type"))?;
    Ok(Reach { column: ColumnRef { hop: path.len(), column: column.to_owned() }, path, kind, when: Vec::new() })
}

fn owner_reach(
    spec: &StoreSpec,
    declared: &CollectionSpec,
    catalogue: &Catalogue,
    depth: usize,
) -> Result<Option<Reach>, String> {
    if depth > MAX_HOPS {
        return Err("the way to the subject goes round in a circle".to_owned());
    }
    if let Some(subject) = &declared.subject {
        let own = |column: &str| reach(catalogue, Vec::new(), &declared.table, column);
        let mut when = Vec::new();
        for (name, spellings) in &declared.subject_when {
            let Reach { column, kind, .. } = own(name)?;
            if !matches!(kind, ColumnKind::Text | ColumnKind::Integer | ColumnKind::Other) {
                return Err(format!(
                    "`subject_when` names column `{name}`, which holds neither text nor whole numbers"
                ));
            }
            let values = spellings.all().to_vec();
            if kind == ColumnKind::Integer && values.iter().any(|value| value.parse::<i64>().is_err()) {
                return Err(format!(
                    "`subject_when` names column `{name}`, which holds whole numbers, with something else"
                ));
            }
            when.push(Beside { column, kind, values });
        }
        return Ok(Some(Reach { when, ..own(subject)? }));
    }
    let hops = next_hops(spec, declared, catalogue)?;
    let Some(last) = hops.last() else { return Ok(None) };
    let parent = spec.collections.iter().find(|other| other.table == last.parent);
    let parent =
        parent.ok_or_else(|| format!("`via` ends at `{}`, which is not a registered collection", last.parent))?;
    let Some(rest) = owner_reach(spec, parent, catalogue, depth + 1)? else {
        return Err(format!("`via` ends at `{}`, which has no way to a subject", last.parent));
    };
    let mut path = hops;
    path.extend(rest.path);
    let there = |column: ColumnRef| ColumnRef { hop: path.len(), ..column };
    let when = rest.when.into_iter().map(|beside| Beside { column: there(beside.column), ..beside }).collect();
    let column = there(rest.column);
    Ok(Some(Reach { path, column, kind: rest.kind, when }))
}

fn own_policy<'a>(spec: &StoreSpec, table: &str, policies: &'a [Policy]) -> Option<&'a Policy> {
    let qualified = format!("{}.{table}", spec.name);
    policies.iter().find(|policy| policy.collections.iter().any(|name| *name == qualified || name == table))
}

fn governing(
    spec: &StoreSpec,
    declared: &CollectionSpec,
    catalogue: &Catalogue,
    (policies, law): (&[Policy], &statute::Catalogue),
) -> Result<Option<Governed>, String> {
    let mut current = declared;
    let mut path: Vec<Hop> = Vec::new();
    while path.len() <= MAX_HOPS {
        if let Some(policy) = own_policy(spec, &current.table, policies) {
            let start = reach(catalogue, path, &current.table, &policy.start)
                .map_err(|what| format!("policy {}: start: {what}", policy.id))?;
            if !is_time(start.kind) {
                return Err(format!(
                    "policy {}: start column `{}.{}` is not a date or time",
                    policy.id, current.table, policy.start
                ));
            }
            let follows = (current.table != declared.table).then(|| current.table.clone());
            let statutes =
                law.find_all(&policy.statutes).map_err(|unknown| format!("policy {}: {unknown}", policy.id))?;
            return Ok(Some(Governed { policy: policy.clone(), statutes, start, follows }));
        }
        if current.subject.is_some() {
            return Ok(None);
        }
        let hops = next_hops(spec, current, catalogue)?;
        let Some(last) = hops.last() else { return Ok(None) };
        let Some(parent) = spec.collections.iter().find(|other| other.table == last.parent) else { return Ok(None) };
        path.extend(hops);
        current = parent;
    }
    Ok(None)
}

/// SQLite keeps times as text or as Unix seconds, so these kinds are accepted too.
fn is_time(kind: ColumnKind) -> bool {
    matches!(
        kind,
        ColumnKind::Date | ColumnKind::LocalTime | ColumnKind::Instant | ColumnKind::Text | ColumnKind::Integer
    )
}

/// Children before parents, by foreign keys and owner paths; those that form a circle next to each other, with one number.
fn in_order(waiting: Vec<Collection>, catalogue: &Catalogue) -> Result<Vec<Collection>, String> {
    let refers = |from: &Collection, to: &Collection| {
        from.table.foreign_keys.iter().any(|key| key.parent == to.table.name)
            || from.owner.as_ref().is_some_and(|owner| owner.path.iter().any(|hop| hop.parent == to.table.name))
    };
    let children: Vec<Vec<usize>> = waiting
        .iter()
        .map(|parent| (0..waiting.len()).filter(|child| refers(&waiting[*child], parent)).collect())
        .collect();
    let mut parts = components(&children);
    for part in parts.iter().filter(|part| part.len() > 1) {
        check_circle(&waiting, part, catalogue)?;
    }
    // As declared, where the references leave a choice.
    let mut order: Vec<Vec<usize>> = Vec::new();
    while !parts.is_empty() {
        let waits = |part: &Vec<usize>| {
            let outside = |child: &usize| !part.contains(child) && parts.iter().any(|other| other.contains(child));
            part.iter().any(|node| children[*node].iter().any(outside))
        };
        let free = (0..parts.len()).filter(|at| !waits(&parts[*at])).min_by_key(|at| parts[*at].first());
        order.push(parts.remove(free.unwrap_or_default()));
    }
    let mut waiting: Vec<Option<Collection>> = waiting.into_iter().map(Some).collect();
    let mut ordered = Vec::new();
    for (group, part) in order.iter().enumerate() {
        for node in part {
            let is_knotted = part.len() > 1 || children[*node].contains(node);
            ordered.extend(waiting[*node].take().map(|found| Collection { group, is_knotted, ..found }));
        }
    }
    Ok(ordered)
}

/// Whether rows that refer to each other around a circle of collections can be got out of it at all.
fn check_circle(all: &[Collection], part: &[usize], catalogue: &Catalogue) -> Result<(), String> {
    let mut firm = vec![Vec::new(); all.len()];
    let mut keys = Vec::new();
    for (parent, child) in part.iter().flat_map(|parent| part.iter().map(move |child| (*parent, *child))) {
        let table = &all[child].table;
        let bound = table.foreign_keys.iter().filter(|key| key.parent == all[parent].table.name && parent != child);
        for key in bound.filter(|key| untie_of(table, key, catalogue).0 == Untie::Firm) {
            firm[parent].push(child);
            keys.push(format!("{}({})", table.name, key.columns.join(", ")));
        }
    }
    if components(&firm).iter().all(|circle| circle.len() == 1) {
        return Ok(());
    }
    keys.sort();
    keys.dedup();
    Err(format!(
        "the foreign keys {} form a circle of which none may be NULL and none can be checked late, so its rows cannot be \
         deleted one after the other; let a column of one of them be NULL, or declare one DEFERRABLE",
        keys.join(", ")
    ))
}

/// What can be done about a foreign key in a circle, and which of its columns may be emptied.
fn untie_of(table: &Table, key: &ForeignKey, catalogue: &Catalogue) -> (Untie, Vec<String>) {
    let may_be_null = |name: &&String| {
        let column = table.columns.iter().find(|column| column.name == **name);
        column.is_some_and(|column| column.nullable && !column.generated) && !table.key.contains(*name)
    };
    let emptiable: Vec<String> = key.columns.iter().filter(may_be_null).cloned().collect();
    let untie = if catalogue.deferrable.contains(&(table.name.clone(), key.columns.clone())) {
        Untie::PutOff
    } else if emptiable.is_empty() {
        Untie::Firm
    } else {
        Untie::Empty
    };
    (untie, emptiable)
}

fn children_of(parent: &str, catalogue: &Catalogue, names: &[String]) -> Vec<Child> {
    let mut children = Vec::new();
    for table in &catalogue.tables {
        for key in table.foreign_keys.iter().filter(|key| key.parent == parent) {
            let (untie, emptiable) = untie_of(table, key, catalogue);
            children.push(Child {
                table: table.name.clone(),
                columns: key.columns.clone(),
                parent_columns: key.parent_columns.clone(),
                registered: names.iter().position(|name| *name == table.name),
                on_delete: key.on_delete,
                untie,
                emptiable,
            });
        }
    }
    children
}
