//! What goes into a pack, part by part.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{HOLDS, LOG, LogPart, Numbers, POLICIES, PackFiles, Period};
use crate::audit::receipt::bundle;
use crate::certify::dsse::Envelope;
use crate::control::{CertificateRow, HoldRow, OutboxRow, RunRow, time_text};
use crate::installation::{Installation, operation_log, view_operation_log};
use crate::log::excerpt::{ExcerptHeader, write_excerpt};
use crate::log::proofs::ProofReader;
use crate::plan::PlanBody;
use crate::policy::statute::{BUILT_IN, CatalogueVersion};
use crate::tasks::certify::ROLL_UP;
use crate::tasks::oplog::{damaged, entries};
use crate::tasks::{Result, TaskError};

/// How the names of a certificate's files end.
pub(super) const BUNDLE_END: &str = "sigstore.json";
pub(super) const ENVELOPE_END: &str = "dsse.json";
pub(super) const LIST_END: &str = "list.ndjson";

/// The name of a certificate's file.
pub(super) fn certificate_file(sequence: u64, end: &str) -> String {
    format!("certificates/{sequence:06}.{end}")
}

/// The name of a drill's file.
pub(super) fn drill_file(number: u64) -> String {
    format!("drills/{number:06}.json")
}

fn unwritable(error: &serde_json::Error) -> TaskError {
    TaskError::Inconsistent(error.to_string())
}

fn numbers(first: Option<i64>, last: Option<i64>) -> Option<Numbers> {
    first.zip(last).map(|(first, last)| Numbers { first: first.unsigned_abs(), last: last.unsigned_abs() })
}

/// The log of the period, as far as it is signed.
pub(super) async fn operation_log_of(
    installation: &Installation,
    period: &Period,
    files: &mut PackFiles,
) -> Result<LogPart> {
    let signed = operation_log(installation).await?.sequencer().checkpoint().await;
    let view = view_operation_log(installation).await?;
    let mut all = entries(&view).await?;
    all.truncate(usize::try_from(signed.checkpoint.size).unwrap_or(usize::MAX));
    let times: Vec<DateTime<Utc>> = all.iter().map(|entry| entry.time).collect();
    let range = period.widened(&times);
    let own: Vec<_> = all[range.clone()].iter().map(crate::tasks::oplog::Entry::archived).collect();
    let mut reader = ProofReader::new(&view.store);
    let before = reader.frontier(range.start as u64).await.map_err(|error| damaged(&error))?;
    let mut header = ExcerptHeader::new(view.key.origin(), &before, own.len() as u64);
    header.root = hex::encode(reader.frontier(header.end()).await.map_err(|error| damaged(&error))?.root());
    let proof = reader.consistency(header.end(), signed.checkpoint.size).await.map_err(|error| damaged(&error))?;
    let proof = proof.ok_or_else(|| TaskError::Proof("the operation log's signed head is behind it".to_owned()))?;
    header.proof = proof.iter().map(hex::encode).collect();
    header.head = signed.note;
    let text = write_excerpt(&header, &own).map_err(|error| unwritable(&error))?;
    files.insert(LOG.to_owned(), text.into_bytes());
    Ok(LogPart { verifier_key: view.key.verifier_key(), first: header.first, entries: header.entries })
}

/// The certificates of the period with what was received for them; roll-ups with their lists. Evidence files stay in the company. With
/// them what they are about.
pub(super) async fn certificates_of(
    installation: &Installation,
    period: &Period,
    files: &mut PackFiles,
) -> Result<(Option<Numbers>, BTreeSet<String>)> {
    let mut tx = installation.control.read().await?;
    let all = tx.certificates(None).await?;
    let outbox: BTreeMap<String, OutboxRow> =
        tx.outbox(None).await?.into_iter().map(|row| (row.certificate.clone(), row)).collect();
    let stamps = tx.time_stamps().await?;
    drop(tx);
    let times: Vec<DateTime<Utc>> = all.iter().map(|row| row.issued_at).collect();
    let own: &[CertificateRow] = &all[period.widened(&times)];
    for row in own {
        let number = row.sequence.unsigned_abs();
        let receipt = outbox.get(&row.id).and_then(|row| row.receipt.as_deref());
        let stamp = stamps.iter().find(|stamp| stamp.certificate == row.id).map(|stamp| stamp.reply.as_slice());
        let (end, bytes) = match receipt {
            Some(receipt) => {
                let proof = |error: &dyn std::error::Error| TaskError::Proof(crate::error::with_causes(error));
                let envelope = Envelope::parse(&row.envelope).map_err(|error| proof(&error))?;
                (BUNDLE_END, bundle(&envelope, receipt, stamp).map_err(|error| proof(&error))?)
            }
            None => (ENVELOPE_END, row.envelope.clone()),
        };
        files.insert(certificate_file(number, end), bytes);
        if row.run == ROLL_UP {
            files.insert(certificate_file(number, LIST_END), row.evidence.clone());
        }
    }
    let about = own.iter().map(|row| row.run.clone()).collect();
    Ok((numbers(own.first().map(|row| row.sequence), own.last().map(|row| row.sequence)), about))
}

/// The records of the period's drills.
pub(super) async fn drills_of(
    installation: &Installation,
    period: &Period,
    files: &mut PackFiles,
) -> Result<Option<Numbers>> {
    let all = installation.control.read().await?.drills().await?;
    let times: Vec<DateTime<Utc>> = all.iter().map(|row| row.at).collect();
    let own = &all[period.widened(&times)];
    for row in own {
        files.insert(drill_file(row.number.unsigned_abs()), row.record.clone());
    }
    Ok(numbers(own.first().map(|row| row.number), own.last().map(|row| row.number)))
}

/// What `policies.json` says of a plan; there is more for people.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlannedUnder {
    /// Digest of policies, statutes and stores that decided, as certificates name it.
    pub policy_digest: String,
}

/// What `policies.json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PackedPolicies {
    /// The digest of what is in force.
    pub policy_digest: String,
    /// The plans of the pack's certificates.
    pub plans: Vec<PlannedUnder>,
}

/// Policies and registered stores as they are in force now, what decided in plans of the period and of its certificates (`runs`), and
/// the catalogue.
pub(super) async fn policies_of(
    installation: &Installation,
    period: &Period,
    runs: &BTreeSet<String>,
    files: &mut PackFiles,
) -> Result<()> {
    let config = &installation.config;
    let mut tx = installation.control.read().await?;
    let mut plans = Vec::new();
    let mut seen = BTreeSet::new();
    let is_told = |run: &RunRow| period.contains(run.begun_at) || runs.contains(&run.id);
    for run in tx.runs(None).await?.into_iter().filter(is_told) {
        let Some(plan) = run.plan.filter(|plan| seen.insert(plan.clone())) else { continue };
        let Some(row) = tx.plan(&plan).await? else { continue };
        let body: PlanBody = serde_json::from_str(&row.body).map_err(|error| unwritable(&error))?;
        plans.push(json!({
            "hash": row.hash,
            "kind": row.kind,
            "createdAt": time_text(row.created_at),
            "policyDigest": body.policy_digest,
            "catalogue": body.catalogue.as_ref().map(CatalogueVersion::to_string),
            "rules": body.rules,
        }));
    }
    drop(tx);
    let stores = config.registry.stores.iter().map(|store| {
        json!({
            "store": store.name,
            "owner": store.owner,
            "purpose": store.purpose,
            "timezone": store.timezone.name(),
            "backup": store.backup,
            "copies": store.copies,
            "collections": store.collections,
        })
    });
    let document = json!({
        "policyDigest": installation.ground()?.policy_digest,
        "catalogue": config.catalogue.version.to_string(),
        "policies": config.registry.policies,
        "stores": stores.collect::<Vec<_>>(),
        "plans": plans,
    });
    files.insert(POLICIES.to_owned(), format!("{document:#}\n").into_bytes());
    files.insert("statutes/built-in.toml".to_owned(), BUILT_IN.as_bytes().to_vec());
    if let Some(path) = &config.agent.statutes {
        let own = std::fs::read(path).map_err(|error| TaskError::Unknown {
            what: format!("cannot read {}: {error}", path.display()),
            advice: "check the path and its permissions".to_owned(),
        })?;
        files.insert("statutes/own.toml".to_owned(), own);
    }
    Ok(())
}

/// A hold as `holds.json` has it. Whom it is about is not in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PackedHold {
    /// Its id.
    pub hold: String,
    scope: String,
    store: Option<String>,
    collection: Option<String>,
    reason: String,
    placed_at: String,
    placed_by: String,
    released_at: Option<String>,
}

impl From<HoldRow> for PackedHold {
    fn from(row: HoldRow) -> Self {
        Self {
            hold: row.id,
            scope: row.scope,
            store: row.store,
            collection: row.collection,
            reason: row.reason,
            placed_at: time_text(row.placed_at),
            placed_by: row.placed_by,
            released_at: row.released_at.map(time_text),
        }
    }
}

/// The holds that were in force on any day of the period.
pub(super) async fn holds_of(installation: &Installation, period: &Period, files: &mut PackFiles) -> Result<()> {
    let all = installation.control.read().await?.holds(false).await?;
    let in_force =
        |row: &HoldRow| row.placed_at < period.until && row.released_at.is_none_or(|end| end >= period.since);
    let holds: Vec<PackedHold> = all.into_iter().filter(in_force).map(PackedHold::from).collect();
    let text = serde_json::to_string_pretty(&holds).map_err(|error| unwritable(&error))?;
    files.insert(HOLDS.to_owned(), format!("{text}\n").into_bytes());
    Ok(())
}

/// How a reader checks the folder.
pub(super) fn readme(period: &Period) -> String {
    let (from, to, zone) = (period.from, period.to, period.zone);
    format!(
        "Evidence of {from} to {to} ({zone}).\n\
         \n\
         wangchuan evidence-pack verify . --trust TRUST-FILE\n\
         checks all of it without a network and without an installation. TRUST-FILE should have come another way than this\n\
         folder; without --trust the trust.json in here is used, and its key ids ought to be compared by voice.\n\
         \n\
         Without the program:\n\
         \x20 sha256sum -c SHA256SUMS           every file is as it was\n\
         \x20 jq -r .payload manifest.json | base64 -d | jq .\n\
         \x20                                   what was signed: the files with their SHA-256, the period, the numbers\n\
         certificates/*.sigstore.json are Sigstore bundles (v0.3) that stock verifiers accept with the trusted root in trust.json.\n\
         One with an `acknowledgement` and no entry of a log is checked by the command alone, with the acknowledgementKeys there.\n\
         report.json is the period in numbers; the command counts them again from the log and the certificates.\n\
         Evidence files of certificates (keyed digests of what was erased) stay in the company and can be asked for.\n\
         \n\
         {from} 至 {to}（{zone}）的证据。\n\
         用上面的 wangchuan 命令可在没有网络、没有安装的情况下全部核查；信任文件应经由其他途径取得。\n\
         不用本程序时：sha256sum -c SHA256SUMS 核对每个文件；manifest.json 的 payload 即已签名的清单。\n\
         证书的证据文件（被删除内容的带密钥摘要）由企业保存，可另行索取。\n"
    )
}
