//! Storage media with copies of data: an operator reports that one was destroyed, and how (NIST SP 800-88), or lost (`loss.rs`).
//!
//! The program cannot see a shredder. What it can do is to refuse what cannot be so (`policy::media`), to keep who says it, who saw it
//! and the digest of what shows it, to sign that, and to count a declared copy as gone from then on: a run whose rows it could hold
//! gets another certificate, which names the record. That holds for rows that were gone before the medium was: a copy made behind
//! its end, on another medium, holds no more of them.

mod loss;
mod waiting;

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::certify::check::{as_id, is_id};
use crate::certify::lint::personal_shape;
use crate::control::{MediaRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, Operation};
use crate::policy::media::{Checked, Claim, MediumKind, Method, Technique};
use crate::random::uuid7;

use super::approval::operator_name;
use super::{Result, TaskError};
pub use loss::{
    Exposed, LOST, Loss, LossReport, LostChain, SETTLED, SHREDDING, chains_of, condemned, exposed, needs_of_condemned,
    record_lost, shred_lost,
};
pub use waiting::{MediumWait, WaitingMedium, waiting_media};

/// The event of a medium that was destroyed.
pub const DESTROYED: &str = "destroyed";

/// Serial numbers and the like are short.
const LONGEST: usize = 100;

/// A medium, as its operator names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// What it is.
    pub kind: MediumKind,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its number in the company's own inventory.
    pub asset: Option<String>,
    /// Its maker.
    pub make: Option<String>,
    /// Its model.
    pub model: Option<String>,
}

impl Medium {
    /// Its numbers, for people.
    #[must_use]
    pub fn name(&self) -> String {
        [&self.asset, &self.serial].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        [&self.serial, &self.asset, &self.make, &self.model].into_iter().flatten()
    }
}

/// A declared copy of a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CopyName {
    /// The store.
    pub store: String,
    /// The copy.
    pub copy: String,
}

impl std::fmt::Display for CopyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.store, self.copy)
    }
}

/// How a medium was destroyed, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destruction {
    /// What it amounts to.
    pub method: Method,
    /// How.
    pub technique: Technique,
    /// By which standard, as its operator says.
    pub standard: String,
    /// Whether all that was ever written to it was encrypted under the key that died.
    pub always_encrypted: bool,
    /// Who did it.
    pub performed_by: String,
    /// Who saw it.
    pub witnesses: Vec<String>,
    /// How it was looked whether it succeeded.
    pub checked: Checked,
    /// SHA-256 of a file that shows it, hex.
    pub evidence_sha256: Option<String>,
}

/// The public part of a record, kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaBody {
    /// The medium.
    pub medium: Medium,
    /// Stores of which data lay on it.
    pub stores: Vec<String>,
    /// Declared copies that lay on it as a whole.
    pub copies: Vec<CopyName>,
    /// How it was destroyed, if it was.
    pub destruction: Option<Destruction>,
    /// What its loss exposed, if it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

impl MediaBody {
    /// Of a row.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(row: &MediaRow) -> Result<Self> {
        serde_json::from_str(&row.body)
            .map_err(|_| TaskError::Inconsistent(format!("the record of medium {} is damaged", row.id)))
    }

    /// Whether somebody looked behind its destruction whether it holds nothing any more.
    #[must_use]
    pub fn was_looked_at(&self) -> bool {
        self.destruction.as_ref().is_some_and(|how| how.checked != Checked::Nobody)
    }

    fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| TaskError::Inconsistent(error.to_string()))
    }
}

/// A declared copy that ended with its medium, or is out of hand with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneCopy {
    /// Which.
    pub name: CopyName,
    /// When.
    pub at: DateTime<Utc>,
    /// The record that says so.
    pub record: String,
    /// Whether the medium was lost: nobody knows who reads the copy, and no period ends it any more.
    pub is_lost: bool,
}

/// What is reported of a destruction.
#[derive(Debug, Clone)]
pub struct Report {
    /// The medium.
    pub medium: Medium,
    /// Stores of which data lay on it, beside those of the copies.
    pub stores: Vec<String>,
    /// Declared copies that lay on it as a whole, as `STORE/COPY`.
    pub copies: Vec<String>,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// How.
    pub how: Destruction,
}

/// Records that a medium was destroyed.
///
/// # Errors
/// Refused when it cannot be so (time, technique, look, witnesses), when it names a store or copy that is not configured, or a medium
/// that is recorded as destroyed already; or when log or control database fail.
pub async fn record_destroyed(installation: &Installation, report: Report) -> Result<MediaRow> {
    installation.refuse_old_copy().await?;
    let now = installation.clock.now();
    if report.at > now {
        return Err(TaskError::refused(
            "the time of the destruction is still to come",
            "record a medium once it is destroyed; give `--when` in the past",
        ));
    }
    check_medium(&report.medium)?;
    let (stores, copies) = places(installation, &report.stores, &report.copies)?;
    let how = checked(report.medium.kind, report.how)?;
    let body = MediaBody { medium: report.medium, stores, copies, destruction: Some(how), loss: None };
    let mut row = MediaRow {
        id: uuid7(now, installation.random.as_ref())?,
        number: 0,
        event: DESTROYED.to_owned(),
        state: "recorded".to_owned(),
        happened_at: report.at,
        recorded_at: now,
        body: body.text()?,
        certified: None,
    };
    log(installation, &row, &body, "intent").await?;
    let mut tx = installation.control.begin().await?;
    for known in tx.media().await?.iter().filter(|known| known.event == DESTROYED) {
        let earlier = MediaBody::of(known)?;
        // What nobody looked at can be looked at later.
        let is_open = !earlier.was_looked_at() && body.was_looked_at();
        if is_same(&earlier.medium, &body.medium) && !is_open {
            return Err(TaskError::refused(
                format!("this medium is recorded as destroyed already, as {}", known.id),
                "see `wangchuan media list`; a medium ends once",
            ));
        }
    }
    row.number = tx.add_medium(&row).await?;
    tx.commit().await?;
    crash_point::reached("media.recorded");
    log(installation, &row, &body, "success").await?;
    Ok(row)
}

async fn log(installation: &Installation, row: &MediaRow, body: &MediaBody, outcome: &str) -> Result<()> {
    let people = body.destruction.iter().flat_map(|how| {
        // References are a map: each has a name of its own.
        let seen = how.witnesses.iter().zip(1..).map(|(name, number)| (format!("witness-{number}"), name.clone()));
        seen.chain([("performed-by".to_owned(), how.performed_by.clone())])
    });
    let copies = body.copies.iter().zip(1..).map(|(copy, number)| (format!("copy-{number}"), copy.to_string()));
    let references = people.chain(copies).collect();
    let operation = Operation { name: "media.record", object: &row.id, outcome, references, ..Operation::default() };
    installation.log(operation).await
}

/// A medium has a number by which it can be told, and nothing in its texts looks like somebody's.
fn check_medium(medium: &Medium) -> Result<()> {
    if medium.serial.is_none() && medium.asset.is_none() {
        return Err(TaskError::refused(
            "nothing tells this medium from others",
            "give its serial number (`--serial`) or its number in the inventory (`--asset`)",
        ));
    }
    for text in medium.texts() {
        let is_plain = !text.trim().is_empty()
            && text.chars().count() <= LONGEST
            && !text.chars().any(char::is_control)
            && is_id(&as_id(text));
        let shape = personal_shape(text).or_else(|| personal_shape(&as_id(text)));
        if !is_plain || shape.is_some() {
            let what = shape.map_or("is empty, too long or has control characters".to_owned(), |shape| {
                format!("looks like {}", shape.name())
            });
            return Err(TaskError::refused(
                format!("a number or name of the medium {what}; it would stand in clear in the certificate"),
                "name the medium by its number in the inventory (`--asset`) instead",
            ));
        }
    }
    Ok(())
}

/// Media with the same serial number, or the same number in the inventory, are one.
fn is_same(one: &Medium, other: &Medium) -> bool {
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    match (&one.serial, &other.serial) {
        (Some(_), Some(_)) => one.serial == other.serial && one.make == other.make,
        _ => same(&one.asset, &other.asset),
    }
}

/// The stores and copies that are named, which must be configured.
fn places(
    installation: &Installation,
    held: &[String],
    held_copies: &[String],
) -> Result<(Vec<String>, Vec<CopyName>)> {
    let configured = &installation.config.registry.stores;
    let unknown = |what: String| TaskError::Unknown {
        what,
        advice: "see `wangchuan store list` for stores and their declared copies".to_owned(),
    };
    let mut copies = BTreeSet::new();
    for name in held_copies {
        let (store, copy) =
            name.split_once('/').ok_or_else(|| unknown(format!("`{name}` names no copy: write STORE/COPY")))?;
        let is_declared = configured
            .iter()
            .any(|spec| spec.name == store && spec.copies.iter().any(|declared| declared.name == copy));
        if !is_declared {
            return Err(unknown(format!("no [[store.copy]] is declared as {name}")));
        }
        copies.insert(CopyName { store: store.to_owned(), copy: copy.to_owned() });
    }
    let mut stores: BTreeSet<String> = copies.iter().map(|copy| copy.store.clone()).collect();
    for store in held {
        if !configured.iter().any(|spec| spec.name == *store) {
            return Err(unknown(format!("there is no store {store}")));
        }
        stores.insert(store.clone());
    }
    if stores.is_empty() {
        return Err(unknown("nothing says whose data lay on the medium: name a copy (`--copy`) or a store".to_owned()));
    }
    Ok((stores.into_iter().collect(), copies.into_iter().collect()))
}

/// The destruction with names in their one form, if it can be so.
fn checked(kind: MediumKind, how: Destruction) -> Result<Destruction> {
    let performed_by = operator_name(&how.performed_by)?;
    let mut witnesses = Vec::new();
    for name in &how.witnesses {
        let name = operator_name(name)?;
        if name == performed_by || witnesses.contains(&name) {
            return Err(TaskError::refused(
                format!("{name} is named twice"),
                "witnesses are different people, and none of them destroyed the medium; name each with `--witness NAME`",
            ));
        }
        witnesses.push(name);
    }
    if !is_id(&how.standard) || personal_shape(&how.standard).is_some() {
        return Err(TaskError::refused(
            "the standard is not a short name",
            "write it as `NIST-SP-800-88r2` or `GB/T-37988-2019`: letters, digits and . _ : / + - ( ) only",
        ));
    }
    let claim = Claim {
        kind,
        method: how.method,
        technique: how.technique,
        always_encrypted: how.always_encrypted,
        checked: how.checked,
        witnesses: witnesses.len(),
        has_evidence: how.evidence_sha256.is_some(),
    };
    claim.judge().map_err(|misfit| {
        TaskError::refused(
            misfit.to_string(),
            "nothing is recorded; sanitise the medium as NIST SP 800-88 says for its kind, have it seen, and record that",
        )
    })?;
    Ok(Destruction { performed_by, witnesses, ..how })
}

/// SHA-256 of a file that shows a destruction, hex. The file is not kept.
///
/// # Errors
/// When it cannot be read.
pub async fn evidence_digest(path: &Path) -> Result<String> {
    file_digest(path).await.map_err(|error| TaskError::Unknown {
        what: format!("the evidence {} cannot be read: {error}", path.display()),
        advice: "check the path; the file is hashed and not kept".to_owned(),
    })
}

/// SHA-256 of a file of any size, hex.
pub(super) async fn file_digest(path: &Path) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(hex::encode(context.finish().as_ref()));
        }
        context.update(&buffer[..read]);
    }
}

/// Every declared copy that ended with its medium or was lost with it. One whose end nobody looked at counts as living.
///
/// # Errors
/// When the control database fails.
pub async fn gone_copies(tx: &mut Tx) -> Result<Vec<GoneCopy>> {
    let mut gone = Vec::new();
    for row in tx.media().await? {
        let body = MediaBody::of(&row)?;
        let is_lost = row.event == LOST;
        if !is_lost && !body.was_looked_at() {
            continue;
        }
        let of = |name| GoneCopy { name, at: row.happened_at, record: row.id.clone(), is_lost };
        gone.extend(body.copies.into_iter().map(of));
    }
    Ok(gone)
}

/// The record whose id begins so; `latest` is the newest.
///
/// # Errors
/// When there is none, or more than one.
pub fn find<'r>(rows: &'r [MediaRow], id: &str) -> Result<&'r MediaRow> {
    if rows.is_empty() {
        return Err(TaskError::Unknown {
            what: "no medium is recorded as destroyed or lost yet".to_owned(),
            advice: "`wangchuan media record` and `wangchuan media lost` record one".to_owned(),
        });
    }
    let is_meant = |row: &&MediaRow| id.parse() == Ok(row.number) || (!id.is_empty() && row.id.starts_with(id));
    let mut found = rows.iter().filter(is_meant);
    let only = if id == "latest" { rows.last() } else { found.next().filter(|_| found.next().is_none()) };
    only.ok_or_else(|| TaskError::Unknown {
        what: format!("there is no record of a medium {id}, or more than one"),
        advice: "see `wangchuan media list`".to_owned(),
    })
}
