//! The forms in which the stores write a subject's id. `007` finds the rows of 7 where ids are numbers, and `ab` those of
//! `AB` where the column's collation says so: what is recorded must be what the rows carry.

use std::collections::BTreeSet;

use crate::control::HoldRow;
use crate::erase::batch::forms_of;
use crate::erase::planner::subject_lookup;
use crate::erase::survey::{owned_by, read_all};
use crate::erase::{EraseError, Site};
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::plan::Subject;
use crate::plan::model::Collection;
use crate::policy::free_text::check_free_text;
use crate::policy::registry::StoreSpec;
use crate::stores::RowQuery;

use super::super::{Result, TaskError};
use super::canonical_subject;

/// The forms of a typed id that rows of the stores carry, sorted; none when no store knows it.
///
/// # Errors
/// When a store cannot be read.
pub async fn canonical_subjects(sites: &[Site], text: &str) -> Result<Vec<Subject>, EraseError> {
    let typed = Subject::new(text.trim());
    let mut found = BTreeSet::new();
    for site in sites {
        let mut view = site.store.open_snapshot().await?;
        for collection in &site.model.collections {
            if let Some(query) = by_owner(site, collection, &typed) {
                found.extend(read_all(view.as_mut(), query).await?.iter().filter_map(|row| Subject::of(row.first()?)));
            }
        }
        view.close().await?;
    }
    Ok(found.into_iter().collect())
}

/// The rows of a collection whose own column holds the id as the engine compares it. Other collections reach the same
/// column through their parents.
fn by_owner(site: &Site, collection: &Collection, typed: &Subject) -> Option<RowQuery> {
    let owner = collection.owner.as_ref().filter(|owner| owner.path.is_empty())?;
    Some(RowQuery {
        table: collection.table.name.clone(),
        path: Vec::new(),
        columns: vec![owner.column.clone()],
        filter: owned_by(collection, site.store.engine(), typed)?,
        key: collection.key.clone(),
        after: None,
        limit: 1000,
    })
}

/// Whether the stores know a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// One does.
    Yes,
    /// None does, and all were asked.
    No,
    /// None that could be read does.
    NotAsked,
}

impl Known {
    /// Yes or no, as far as it can be told.
    #[must_use]
    pub fn told(self) -> Option<bool> {
        match self {
            Self::Yes => Some(true),
            Self::No => Some(false),
            Self::NotAsked => None,
        }
    }
}

/// Places a hold and returns once nothing that began before it can still destroy. A hold on a subject is placed on every
/// form of the id that the stores carry, the further ones as `id#2`, `id#3`, …; [`crate::control::Tx::release_hold`] ends
/// them together. Returns whether a store knows the subject (always yes for other scopes). A store that cannot be read keeps
/// no hold from being placed.
///
/// # Errors
/// Refused when the id is taken, id or reason cannot stand in clear, or nothing of the scope's name is registered; otherwise
/// what failed. Nothing is placed then.
pub async fn place_hold(installation: &Installation, hold: &HoldRow, subject: Option<&Subject>) -> Result<Known> {
    installation.refuse_old_copy().await?;
    check_words(hold)?;
    check_scope(&installation.config.registry.stores, hold)?;
    let (forms, known) = match subject {
        None => (Vec::new(), Known::Yes),
        Some(subject) => forms_to_hold(installation, subject).await?,
    };
    let mut tx = installation.control.begin().await?;
    if tx.holds(false).await?.iter().any(|known| known.id == hold.id) {
        return Err(TaskError::refused(
            format!("there is a hold {} already", hold.id),
            "choose another id, or see `wangchuan hold list`",
        ));
    }
    if subject.is_none() {
        tx.add_hold(hold).await?;
    }
    let lookup = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    for (number, form) in forms.iter().enumerate() {
        let id = if number == 0 { hold.id.clone() } else { format!("{}#{}", hold.id, number + 1) };
        tx.add_hold(&HoldRow { id, subject: Some(subject_lookup(&lookup, form)), ..hold.clone() }).await?;
    }
    tx.commit().await?;
    let placed = Operation { name: "hold.place", object: &hold.id, outcome: "success", ..Operation::default() };
    installation.log(Operation { subject, ..placed }).await?;
    installation.wait_for_destruction().await?;
    Ok(known)
}

/// Refuses words that cannot be stored and shown in clear.
fn check_words(hold: &HoldRow) -> Result<()> {
    if hold.id.contains('#') {
        return Err(TaskError::refused("a hold's id must not contain `#`", "choose another id"));
    }
    for (what, text) in [("id", &hold.id), ("reason", &hold.reason)] {
        check_free_text(text).map_err(|fault| {
            TaskError::refused(
                format!("the hold's {what} {fault}"),
                "write a case or file number instead, in few words",
            )
        })?;
    }
    Ok(())
}

/// Refuses a scope of which nothing is registered: such a hold would be in force and hold nothing.
fn check_scope(stores: &[StoreSpec], hold: &HoldRow) -> Result<()> {
    let Some(name) = &hold.store else { return Ok(()) };
    let unknown = |what: String, known: Vec<&str>, wanted: &str| {
        let near = crate::config::suggest(wanted, &known);
        Err(TaskError::Unknown { what, advice: format!("{near}; the configuration registers: {}", known.join(", ")) })
    };
    let Some(store) = stores.iter().find(|store| store.name == *name) else {
        let names = stores.iter().map(|store| store.name.as_str()).collect();
        return unknown(format!("there is no store {name}"), names, name);
    };
    match &hold.collection {
        Some(table) if store.collections.iter().all(|collection| collection.table != *table) => {
            let tables = store.collections.iter().map(|collection| collection.table.as_str()).collect();
            unknown(format!("the store {name} has no collection {table}"), tables, table)
        }
        _ => Ok(()),
    }
}

/// The forms to hold, and whether a store carries any. While none does, or a store cannot be asked, every form that a
/// column could carry is held: to keep too much can be mended.
async fn forms_to_hold(installation: &Installation, subject: &Subject) -> Result<(Vec<Subject>, Known)> {
    let (forms, is_whole) = forms_in_stores(installation, subject).await?;
    let known = match (forms.is_empty(), is_whole) {
        (false, _) => Known::Yes,
        (true, true) => Known::No,
        (true, false) => Known::NotAsked,
    };
    if known == Known::Yes && is_whole {
        return Ok((forms, known));
    }
    Ok((with_possible_forms(installation, subject, forms)?, known))
}

/// Every form of an id: those that rows of the stores carry, and those that a column could carry.
///
/// # Errors
/// When the stores contradict the registry.
pub(in crate::tasks) async fn every_form(installation: &Installation, subject: &Subject) -> Result<Vec<Subject>> {
    let (forms, _) = forms_in_stores(installation, subject).await?;
    with_possible_forms(installation, subject, forms)
}

/// The forms that rows carry, and whether every store was asked.
async fn forms_in_stores(installation: &Installation, subject: &Subject) -> Result<(Vec<Subject>, bool)> {
    match canonical_subjects(installation.sites(), subject.dangerous_text()).await {
        Ok(forms) => Ok((forms, installation.skipped().is_empty())),
        Err(EraseError::Store(error)) => {
            tracing::warn!(error = %error, "not every store could be asked how it writes an id");
            Ok((Vec::new(), false))
        }
        Err(other) => Err(other.into()),
    }
}

fn with_possible_forms(
    installation: &Installation,
    subject: &Subject,
    mut forms: Vec<Subject>,
) -> Result<Vec<Subject>> {
    let typed = Subject::new(subject.dangerous_text().trim());
    forms.extend(forms_of(&installation.ground()?, &typed));
    forms.extend(typed.dangerous_text().parse::<i64>().ok().map(|number| Subject::new(number.to_string())));
    forms.push(typed);
    forms.sort_unstable();
    forms.dedup();
    Ok(forms)
}

/// The one form under which a request's subject is recorded: the typed one if rows carry it, otherwise another that they
/// carry, otherwise what can be told without rows. Rows that carry yet another form are found by the same comparison; the
/// key of that form's slot dies with its buckets.
///
/// # Errors
/// When the stores contradict the registry.
pub(in crate::tasks) async fn form_of_request(installation: &Installation, subject: &Subject) -> Result<Subject> {
    let typed = subject.dangerous_text().trim();
    let forms = match canonical_subjects(installation.sites(), typed).await {
        Ok(forms) => forms,
        // Receiving a request needs no store; the survey will say what cannot be read.
        Err(EraseError::Store(_)) => Vec::new(),
        Err(other) => return Err(other.into()),
    };
    let exact = forms.iter().find(|form| form.dangerous_text() == typed);
    Ok(exact.or(forms.first()).cloned().unwrap_or_else(|| canonical_subject(installation, typed)))
}
