//! Whether the log that certificates are filed in only grows.

use crate::audit::{Grown, receipt};
use crate::control::Tx;
use crate::installation::Installation;
use crate::log::checkpoint::{Checkpoint, CheckpointKey};

use super::super::Result;

/// The `meta` entry with the newest head that was proved to extend those before it.
const PROVED: &str = "audit_log_proved";
/// The `meta` entry with the head that was seen last, proved or not.
const SEEN: &str = "audit_log_seen";

fn head_text(log: &CheckpointKey, head: &Checkpoint) -> String {
    format!("{} {} {}", hex::encode(log.log_id()), head.size, hex::encode(head.root))
}

fn head_of_text(log: &CheckpointKey, text: &str) -> Option<Checkpoint> {
    let (size, root) = text.strip_prefix(&hex::encode(log.log_id()))?.trim_start().split_once(' ')?;
    let root = hex::decode(root).ok()?.try_into().ok()?;
    Some(Checkpoint { origin: log.origin().to_owned(), size: size.parse().ok()?, root })
}

/// The head from which the service is asked to prove that its log grew; before the first proof, the newest that is known.
pub(in crate::tasks) async fn proved_head(
    installation: &Installation,
    log: &CheckpointKey,
) -> Result<Option<Checkpoint>> {
    let kept = installation.control.read().await?.meta(PROVED).await?;
    match kept.and_then(|text| head_of_text(log, &text)) {
        Some(head) => Ok(Some(head)),
        None => newest_head(installation, log).await,
    }
}

/// Asks whether the log grew from the head that was proved last to the newest one, and remembers the newest once that is proved.
/// Until there is an answer every round asks from the same head, so that nothing is forgotten meanwhile. Returns the doubt.
pub(in crate::tasks) async fn watch_growth(
    installation: &Installation,
    before: Option<Checkpoint>,
    after: Option<Checkpoint>,
) -> Result<Option<String>> {
    let connection = installation.audit()?;
    let (Some(before), Some(log)) = (before, &connection.log) else { return Ok(None) };
    let after = match after {
        Some(after) => after,
        // With nothing filed in this round, there may be a head for which there was no answer yet.
        None => match seen_head(installation, log).await? {
            Some(newest) if newest.size > before.size => newest,
            _ => before.clone(),
        },
    };
    let grown = if before == after { Grown::Proved } else { connection.sink.grew(&before, &after).await };
    let (known, doubt) = match grown {
        Grown::Proved => (after, None),
        Grown::Unanswered => (before, None),
        Grown::Refuted => {
            let doubt = two_histories(&before, &after);
            (before, Some(doubt))
        }
    };
    let text = head_text(log, &known);
    if installation.control.read().await?.meta(PROVED).await?.as_deref() != Some(&text) {
        let mut tx = installation.control.begin().await?;
        tx.set_meta(PROVED, &text).await?;
        tx.commit().await?;
    }
    Ok(doubt)
}

/// The head that was seen last.
async fn seen_head(installation: &Installation, log: &CheckpointKey) -> Result<Option<Checkpoint>> {
    let kept = installation.control.read().await?.meta(SEEN).await?;
    Ok(kept.and_then(|text| head_of_text(log, &text)))
}

/// Remembers the head that was seen last, together with the receipts that were given under it.
pub(super) async fn note_seen(tx: &mut Tx, log: &CheckpointKey, head: &Checkpoint) -> Result<()> {
    Ok(tx.set_meta(SEEN, &head_text(log, head)).await?)
}

/// Two heads of one size with different roots, if there are such.
pub(super) fn contradiction(heads: &[Checkpoint]) -> Option<String> {
    let differs = |one: &&Checkpoint, other: &&Checkpoint| one.size == other.size && one.root != other.root;
    let mut pairs = heads.iter().flat_map(|one| heads.iter().map(move |other| (one, other)));
    pairs.find(|(one, other)| differs(one, other)).map(|(one, other)| two_histories(one, other))
}

/// The head with the most leaves under which any receipt of this log was given.
async fn newest_head(installation: &Installation, log: &CheckpointKey) -> Result<Option<Checkpoint>> {
    let mut tx = installation.control.read().await?;
    let rows = tx.outbox(Some("receipted")).await?;
    drop(tx);
    let heads = rows.iter().filter_map(|row| receipt::head(row.receipt.as_deref()?, log).ok());
    Ok(heads.max_by_key(|head| head.size))
}

/// Said of a log that does not extend what it showed before. Receipts prove that each certificate was in *a* log; only proofs of
/// growth show that it is one and the same.
fn two_histories(before: &Checkpoint, after: &Checkpoint) -> String {
    let what = format!(
        "the audit log's head of {} entries does not extend that of {}: it was rolled back, or shows others another history; \
         the receipts with both heads are kept as evidence",
        after.size, before.size
    );
    tracing::error!(origin = %after.origin, earlier = before.size, later = after.size, "the audit log has two histories");
    what
}
