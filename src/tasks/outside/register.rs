//! `key register` and `key unregister`: the keys of single subjects.

use crate::config::{BoundTo, OutsideKey};
use crate::control::OutsideKeyRow;
use crate::erase::planner::subject_lookup;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::plan::Subject;
use crate::policy::registry::SecretText;
use crate::random::uuid7;

use super::super::request::form_of_request;
use super::super::{Result, TaskError};
use super::record::{OutsideBody, place_mac, seal};
use super::rows::{Whose, find_rows};

/// A new or existing registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: String,
    /// Whether it existed already.
    pub existing: bool,
    /// Whether the key can leave the service, or was brought in, so that its end is only a logical removal.
    pub may_have_left: bool,
    /// Whether a value in clear was found in one of its fields.
    pub clear_seen: bool,
}

/// Registers the key of a subject with an entry of the configuration. The key must be there.
///
/// # Errors
/// Refused when the service has no such key, or it is registered for somebody else; otherwise what failed. No error names key
/// or subject.
pub async fn register(
    installation: &Installation,
    entry: &str,
    subject: &Subject,
    key: &SecretText,
) -> Result<Registered> {
    let spec = family(installation, entry)?;
    if subject.dangerous_text().trim().is_empty() || !OutsideKey::is_key_name(key.dangerous_text()) {
        return Err(TaskError::Unknown {
            what: "the customer's id is empty, or the key's name is none".to_owned(),
            advice: "give both; a key's name has letters a-z, digits, `-`, `_` and `.` only".to_owned(),
        });
    }
    let subject = form_of_request(installation, subject).await?;
    let service = installation.outside_keys(spec)?;
    let facts = service.look(key, None).await.map_err(|error| {
        let policy = spec.access.policy_file();
        let advice = format!(
            "check the entry in the configuration, the service, and that the agent has the policy of {policy} there"
        );
        TaskError::refused(error.to_string(), advice)
    });
    let Some(facts) = facts? else {
        return Err(TaskError::refused(
            "the key service has no such key".to_owned(),
            "register a key once the application has made it",
        ));
    };
    let may_have_left = facts.may_have_left();
    let ground = installation.ground()?;
    let mut body = OutsideBody { facts: Some(facts.remembered()), ..OutsideBody::default() };
    if let Ok(found) = find_rows(&ground, spec, service.as_ref(), Whose::Subject(&subject)).await? {
        (body.rows_seen, body.clear_seen) = (found.relies, found.in_clear);
    }
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let lookup_key = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let (lookup, mac) = (subject_lookup(&lookup_key, &subject), place_mac(&lookup_key, spec, key));
    let is_living = |row: &OutsideKeyRow| !matches!(row.state.as_str(), "destroyed" | "released");
    let known = tx.outside_keys().await?.into_iter().find(|row| row.place_mac == mac && is_living(row));
    if let Some(row) = known {
        if row.lookup == Some(lookup) && row.name == entry {
            return Ok(Registered { id: row.id, existing: true, may_have_left, clear_seen: body.clear_seen });
        }
        return Err(TaskError::refused(
            format!("this key is registered already, as {}", row.id),
            "a key belongs to one subject or policy; see `wangchuan key list`",
        ));
    }
    let id = uuid7(now, installation.random.as_ref())?;
    let leaf = installation.keyring.work_key(&mut tx, Purpose::OutsideKey, &id).await?;
    tx.add_outside_key(&OutsideKeyRow {
        id: id.clone(),
        name: entry.to_owned(),
        lookup: Some(lookup),
        place_mac: mac,
        sealed: seal(&leaf, &id, &subject, key, installation.random.as_ref())?,
        state: "active".to_owned(),
        registered_at: now,
        ended_at: None,
        due_at: None,
        destroyed_at: None,
        body: body.text()?,
    })
    .await?;
    tx.commit().await?;
    installation.log_operation("key.register", &id, "success").await?;
    Ok(Registered { id, existing: false, may_have_left, clear_seen: body.clear_seen })
}

/// The entry, which must be one for keys of subjects.
fn family<'i>(installation: &'i Installation, entry: &str) -> Result<&'i OutsideKey> {
    let unknown = |what: String| TaskError::Unknown {
        what,
        advice: "name an [[outside_key]] of the configuration that has `subjects = true`".to_owned(),
    };
    let spec = installation.config.outside_keys.iter().find(|spec| spec.name == entry);
    let spec = spec.ok_or_else(|| unknown(format!("the configuration has no outside key `{entry}`")))?;
    match spec.bound {
        BoundTo::Subjects => Ok(spec),
        BoundTo::Policy { .. } => Err(unknown(format!("outside key `{entry}` is bound to a policy"))),
    }
}

/// Answers for a subject's key no longer: it is not destroyed, and what names it is forgotten.
///
/// # Errors
/// Refused for a policy's key, for one that is gone or about to be, and for an unknown id.
pub async fn unregister(installation: &Installation, id: &str) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    let row = tx.outside_key(id).await?;
    let mut row = row.filter(|row| row.state != "released").ok_or_else(|| TaskError::Unknown {
        what: format!("there is no outside key {id}"),
        advice: "see `wangchuan key list`".to_owned(),
    })?;
    if row.sealed.is_empty() {
        return Err(TaskError::refused(
            format!("outside key {id} is bound to a policy by the configuration"),
            "take its [[outside_key]] out of the configuration",
        ));
    }
    if !matches!(row.state.as_str(), "active" | "ended") {
        return Err(TaskError::refused(
            format!("outside key {id} is {}", row.state),
            "see `wangchuan key list`; what is gone stays gone",
        ));
    }
    let from = std::mem::replace(&mut row.state, "released".to_owned());
    row.lookup = None;
    tx.retire_work(Purpose::OutsideKey.name(), id).await?;
    tx.step_outside_key(&row, &from).await?;
    tx.commit().await?;
    installation.log_operation("key.unregister", id, "success").await
}
