//! From a certificate to everything that led to it: request, plan, approvals, run, entries of the operation log, destroyed keys, receipt.

use std::collections::HashSet;

use crate::certify::statement::{KeyEvidence, Predicate};
use crate::certify::{Said, verify};
use crate::control::{ApprovalRow, CertificateRow, OutboxRow, PlanRow, RequestRow, RunRow};
use crate::installation::Installation;
use crate::plan::PlanBody;

use super::oplog::{Entry, entries_about};
use super::request::{request_name, request_number};
use super::{Result, TaskError};

/// What led to a certificate. Certificates of outside keys and roll-ups have no run, and so neither plan nor request; those of requests that
/// somebody ended have the request.
#[derive(Debug)]
pub struct Trace {
    /// The certificate.
    pub certificate: CertificateRow,
    /// What it says of an erasure, its signature checked; none of a roll-up.
    pub predicate: Option<Predicate>,
    /// All certificates about the same, by number.
    pub versions: Vec<CertificateRow>,
    /// Its filing.
    pub filing: Option<OutboxRow>,
    /// The run.
    pub run: Option<RunRow>,
    /// The request that the run served, or that was ended.
    pub request: Option<RequestRow>,
    /// The plan that was carried out.
    pub plan: Option<(PlanRow, PlanBody)>,
    /// Who agreed to it.
    pub approvals: Vec<ApprovalRow>,
    /// Entries of the operation log about any of these, oldest first.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// The destroyed keys that the certificate names, each once.
    #[must_use]
    pub fn keys(&self) -> Vec<&KeyEvidence> {
        let targets = self.predicate.iter().flat_map(|predicate| &predicate.targets);
        let mut seen = HashSet::new();
        targets.flat_map(|target| &target.keys).filter(|key| seen.insert(key.key_id_sha256.clone())).collect()
    }
}

/// Follows a certificate back. The look is logged by who asks.
///
/// # Errors
/// When the certificate's signature does not fit, a record it leads to is damaged or missing, or log or control database fail.
pub async fn trace(installation: &Installation, certificate: &CertificateRow) -> Result<Trace> {
    let said = verify(&certificate.envelope, installation.signer.trusted())
        .map_err(|error| TaskError::Proof(format!("certificate {}: {error}", certificate.id)))?;
    if said.id() != certificate.id {
        return Err(TaskError::Proof(format!("certificate {}: another one lies in its place", certificate.id)));
    }
    let predicate = match said.said {
        Said::Erasure(statement) => Some(statement.predicate),
        Said::RollUp(_) => None,
    };
    let mut tx = installation.control.read().await?;
    let versions = tx.certificates(Some(&certificate.run)).await?;
    let filing = tx.outbox(None).await?.into_iter().find(|row| row.certificate == certificate.id);
    let run = tx.run(&certificate.run).await?;
    let number = run.as_ref().map_or_else(|| request_number(&certificate.run), |run| run.request);
    let request = match number {
        Some(number) => tx.request(number).await?,
        None => None,
    };
    let plan = match run.as_ref().and_then(|run| run.plan.clone()) {
        Some(id) => {
            let missing = || TaskError::Inconsistent(format!("plan {id} is missing or damaged"));
            let row = tx.plan(&id).await?.ok_or_else(missing)?;
            let body: PlanBody = serde_json::from_str(&row.body).map_err(|_| missing())?;
            Some((row, body))
        }
        None => None,
    };
    let approvals = match &plan {
        Some((row, _)) => tx.approvals(&row.id).await?,
        None => Vec::new(),
    };
    drop(tx);
    let mut objects: HashSet<String> = versions.iter().map(|version| version.id.clone()).collect();
    objects.insert(certificate.run.clone());
    objects.extend(plan.iter().flat_map(|(row, _)| [row.id.clone(), row.hash.clone()]));
    objects.extend(request.iter().map(|request| request_name(request.number)));
    objects.extend(run.iter().filter_map(|run| run.generation).map(|generation| format!("generation-{generation}")));
    let entries = entries_about(installation, &objects).await?;
    Ok(Trace { certificate: certificate.clone(), predicate, versions, filing, run, request, plan, approvals, entries })
}
