//! Certificates: issuing, verifying, filing with the embedded service, a whole backlog, and replaying the log that it made.
//!
//! `proof quick` takes a hundredth of the backlog, `proof large` ten times as much (a million).

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use harness::{Outcome, Row, Table, nanoseconds};
use wangchuan::audit::client::{Access, AuditClient, ClientSetup, Patience};
use wangchuan::audit::receipt::{self, LogOperator};
use wangchuan::audit::service::{ServiceHandle, ServiceSetup, start};
use wangchuan::audit::witness::Witnesses;
use wangchuan::audit::{AuditSink, BearerToken, FiledOutcome};
use wangchuan::certify::check::location;
use wangchuan::certify::dsse::Envelope;
use wangchuan::certify::signer::{CertificateSigner, TrustedKeys};
use wangchuan::certify::statement::{
    Action, BackupState, Backups, ClockQuality, Digest, ErasureResult, Issuer, KeyEvidence, LegalBasis, Limitation,
    PolicyRef, Predicate, Privacy, PrivacyScan, RootSlot, Sanitization, Scope, SlotClass, Statement, System, Target,
    Timestamp, Trigger, TriggerKind, Verification, VerificationMethod,
};
use wangchuan::certify::{issue, verify};
use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::config::load;
use wangchuan::control::CertificateRow;
use wangchuan::control::log_store::SqlLogStore;
use wangchuan::installation::{Installation, Needs, state_folder, view_certificate_log};
use wangchuan::log::checkpoint::CheckpointSigner;
use wangchuan::log::sequencer::{FileAnchor, Sequencer};
use wangchuan::log::verify::verify_log;
use wangchuan::random::{SystemRandom, uuid7};
use wangchuan::tasks::outbox::file_due;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Certificates of the backlog.
const BACKLOG: usize = 100_000;
/// Certificates of the filing table.
const FILINGS: usize = 20_000;
/// Rows of the backlog that are stored together.
const STORED_TOGETHER: usize = 1000;
const TOKEN: &str = "a-token-of-some-length";
const ORIGIN: &str = "bench.example/log";

const CONFIGURATION: &str = r#"[agent]
name = "bench"
timezone = "UTC"
state = "sqlite://control.db"
site = "here"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[audit]
url = "embedded"
data = "audit"
"#;

fn target(number: u32, at: Timestamp) -> Target {
    Target {
        target_id: format!("shop.table-{number}"),
        system: System::Postgresql,
        location: location("shop", &format!("table_{number}")),
        data_category: "basic".to_owned(),
        action: Action::CryptoShred,
        sanitization: Sanitization::Clear,
        technique: "sql-delete+key-tree-generation".to_owned(),
        tool: "wangchuan/bench".to_owned(),
        records_selected: 12,
        records_erased: 12,
        records_anonymized: 0,
        records_retained: 0,
        records_failed: 0,
        objects_erased: 0,
        bytes_erased: 0,
        duration_ms: 138_123,
        keys: vec![KeyEvidence {
            key_id_sha256: "11".repeat(32),
            kms: "file".to_owned(),
            algorithm: "AES-256-GCM".to_owned(),
            destroyed_at: Some(at),
            copies_known: 0,
            escrow: false,
        }],
        anonymization: None,
        verification: Verification {
            method: VerificationMethod::Requery,
            sample_percent: 100.0,
            checked_at: Some(at),
            residual_found: 0,
            independent: true,
            evidence_sha256: Some("22".repeat(32)),
        },
        backups: Backups { state: BackupState::Erased, expires_by: None },
        copies: Vec::new(),
        media: None,
    }
}

/// A complete erasure in four tables.
fn statement(id: &str, sequence: u64, now: DateTime<Utc>) -> Statement {
    let at = Timestamp::from(now);
    let predicate = Predicate {
        certificate_id: id.to_owned(),
        sequence,
        previous_certificate: (sequence > 1).then(|| Digest { sha256: "33".repeat(32) }),
        issuer: Issuer {
            controller: "91110108MA01ABCD2U".to_owned(),
            agent_id: "agent-1".to_owned(),
            agent_version: "0.1.0".to_owned(),
            environment: "bench".to_owned(),
        },
        started_at: at,
        finished_at: at,
        issued_at: at,
        absence_checked_at: Some(at),
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: ErasureResult::Complete,
        trigger: Trigger { kind: TriggerKind::RetentionExpiry, request_ref: None, received_at: None, due_at: None },
        policy: Some(PolicyRef {
            id: "customers-closed".to_owned(),
            version: "3".to_owned(),
            digest: Digest { sha256: "44".repeat(32) },
            retention_period: Some("P3Y".to_owned()),
            retention_anchor: Some("closed_at".to_owned()),
        }),
        legal_basis: vec![LegalBasis { regime: "CN-PIPL".to_owned(), provision: "47(1)(1)".to_owned() }],
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: 4,
            targets_reached: 4,
            subjects_count: 1,
            subject_refs: vec![format!("hmac-sha256:k7:{}", "55".repeat(32))],
            data_categories: vec!["contact".to_owned()],
        },
        targets: (1..=4).map(|number| target(number, at)).collect(),
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: Some(RootSlot::new(SlotClass::D, "file")),
        outside_key: None,
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: None,
        residual_date: None,
        final_since: None,
        limitations: vec![Limitation::RootSlotClassD],
        supersedes: None,
        privacy: Privacy {
            ref_key_id: "k7".to_owned(),
            ref_key_destroy_at: None,
            scan: PrivacyScan { rules: "v1".to_owned(), hits: 0 },
        },
    };
    Statement::new(&"66".repeat(32), predicate)
}

fn certificate(signer: &CertificateSigner, sequence: u64) -> Result<(String, Envelope)> {
    let now = SystemClock.now();
    let id = uuid7(now, &SystemRandom)?;
    let envelope = issue(&statement(&id, sequence, now), signer)?;
    Ok((id, envelope))
}

fn per_second(nanoseconds: f64) -> String {
    format!("{:.0}", 1e9 / nanoseconds)
}

async fn serve(folder: &Path, signer: &CertificateSigner) -> Result<(ServiceHandle, AuditClient)> {
    let log = CheckpointSigner::from_pkcs8(ORIGIN, &CheckpointSigner::make_pkcs8(&SystemRandom)?)?;
    let key = log.key().clone();
    let store = Arc::new(SqlLogStore::open(&folder.join("audit.db"), "certificates").await?);
    let anchor = Box::new(FileAnchor(folder.join("head.txt")));
    let trusted = TrustedKeys::from_iter([signer.public().clone()]);
    let service = start(ServiceSetup {
        bind: "127.0.0.1:0".parse()?,
        sequencer: Sequencer::open(store, log, Some(anchor)).await?,
        signers: trusted.clone().into(),
        token: Some(BearerToken::new(TOKEN)?),
        operator: LogOperator::SelfHosted,
        witnesses: Witnesses::default(),
        clock: Arc::new(SystemClock),
    })
    .await?;
    let client = AuditClient::new(ClientSetup {
        access: Access { url: service.url(), ca_pem: None, identity: None, patience: Patience::default() },
        log: key,
        signers: trusted,
        token: Some(BearerToken::new(TOKEN)?),
        clock: Arc::new(SystemClock),
    })?;
    Ok((service, client))
}

/// One after the other, one processor: what a certificate and its verification cost, and how large they are.
async fn alone(table: &mut Table) -> Outcome {
    let (folder, signer) = (tempfile::tempdir()?, CertificateSigner::in_memory()?);
    let trusted = TrustedKeys::from_iter([signer.public().clone()]);
    let (id, envelope) = certificate(&signer, 1)?;
    let (service, client) = serve(folder.path(), &signer).await?;
    let filed = match client.file(&id, envelope.as_bytes()).await {
        FiledOutcome::Receipted(filed) => filed,
        other => return Err(format!("not filed: {other:?}").into()),
    };
    let head = receipt::bundle(&envelope, &filed.bytes, None)?;
    let log = wangchuan::log::checkpoint::CheckpointKey::parse(&key_of(&service).await?)?;
    let mut line = |name: &str, nanoseconds: f64, bytes: usize| {
        table.push(Row {
            name: name.to_owned(),
            cells: vec![format!("{:.1}", nanoseconds / 1000.0), per_second(nanoseconds), bytes.to_string()],
        });
    };
    let issued = nanoseconds(|number| certificate(&signer, number).map(|_| ()))?;
    line("issue a certificate of four tables", issued, envelope.as_bytes().len());
    let checked = nanoseconds(|_| {
        verify(envelope.as_bytes(), &trusted)?;
        Ok(())
    })?;
    line("verify a certificate", checked, envelope.as_bytes().len());
    let receipted = nanoseconds(|_| {
        verify(envelope.as_bytes(), &trusted)?;
        receipt::verify(&filed.bytes, &envelope, signer.public(), &log)?;
        Ok(())
    })?;
    line("verify a certificate and its receipt", receipted, head.len());
    service.stop().await?;
    Ok(())
}

async fn key_of(service: &ServiceHandle) -> Result<String> {
    let trust: serde_json::Value = reqwest::get(format!("{}/v1/trust", service.url())).await?.json().await?;
    Ok(trust["logs"][0]["verifierKey"].as_str().ok_or("no key")?.to_owned())
}

/// Many clients at the same time against the embedded service.
async fn filings(count: usize, clients: usize, table: &mut Table) -> Outcome {
    let (folder, signer) = (tempfile::tempdir()?, CertificateSigner::in_memory()?);
    let (service, client) = serve(folder.path(), &signer).await?;
    let client = Arc::new(client);
    let all: Result<Vec<_>> = (1..=count as u64).map(|number| certificate(&signer, number)).collect();
    let waiting = Arc::new(tokio::sync::Mutex::new(all?));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (client, waiting) = (client.clone(), waiting.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let Some((id, envelope)) = waiting.lock().await.pop() else { return Ok(times) };
                let begun = Instant::now();
                match client.file(&id, envelope.as_bytes()).await {
                    FiledOutcome::Receipted(_) => times.push(begun.elapsed()),
                    other => return Err(format!("not filed: {other:?}")),
                }
            }
        }));
    }
    let mut times: Vec<Duration> = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| format!("{:.1}", times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0);
    table.push(Row {
        name: format!("{count} filings, {clients} at a time"),
        cells: vec![format!("{:.0}", count as f64 / seconds), at(0.5), at(0.99), at(1.0)],
    });
    service.stop().await?;
    Ok(())
}

/// A backlog in the control database, filed by the agent's own round, and the log that it made replayed.
async fn backlog(count: usize, table: &mut Table) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    std::fs::write(path.join("wangchuan.toml"), CONFIGURATION)?;
    std::fs::set_permissions(path.join("wangchuan.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    std::fs::create_dir(path.join("jobs"))?;
    let config = load(&path.join("wangchuan.toml"), &|_| None)?;
    Installation::create(&config, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let needs = Needs { stores: false, ..Needs::ALL };
    let installation = Installation::open(config, needs, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let signer = CertificateSigner::open(&state_folder(&installation.config).join("signing-key.pem"))?;
    let mut line = |name: &str, begun: Instant, per: usize| {
        let seconds = begun.elapsed().as_secs_f64();
        let cells = vec![format!("{seconds:.1}"), format!("{:.0}", per as f64 / seconds)];
        table.push(Row { name: name.to_owned(), cells });
    };
    let begun = Instant::now();
    let mut sequence = 0;
    while (sequence as usize) < count {
        let mut tx = installation.control.begin().await?;
        for _ in 0..STORED_TOGETHER.min(count - sequence as usize) {
            sequence += 1;
            let (id, envelope) = certificate(&signer, sequence)?;
            tx.add_certificate(&CertificateRow {
                id,
                sequence: sequence as i64,
                run: "bench".to_owned(),
                result: "complete".to_owned(),
                digest: hex::encode(envelope.digest()),
                envelope: envelope.as_bytes().to_vec(),
                evidence: Vec::new(),
                issued_at: SystemClock.now(),
                supersedes: None,
            })
            .await?;
        }
        tx.commit().await?;
    }
    line(&format!("{count} certificates issued and stored"), begun, count);
    let begun = Instant::now();
    let report = file_due(&installation, true).await?;
    if report.receipted.len() != count || report.doubt.is_some() {
        return Err(format!("{} of {count} filed, {:?}", report.receipted.len(), report.doubt).into());
    }
    line("the whole backlog filed, receipts verified and stored", begun, count);
    let view = view_certificate_log(&installation).await?.ok_or("there is no log")?;
    let begun = Instant::now();
    verify_log(&view.store, &view.key, view.head.as_deref(), &|_| None).await?;
    line("the log replayed: every entry, every head", begun, count);
    let begun = Instant::now();
    let trusted = installation.signer.trusted();
    verify_log(&view.store, &view.key, view.head.as_deref(), &|leaf| receipt::check_content(leaf, trusted)).await?;
    line("the same with every certificate verified", begun, count);
    view.store.close().await;
    installation.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let (quick, large) = (has("quick"), has("large"));
    let mut table = Table::new("one processor", &["µs", "per second", "bytes"]);
    alone(&mut table).await?;
    table.print();
    let mut table = Table::new("embedded service, two processors", &["per second", "p50 ms", "p99 ms", "longest ms"]);
    let count = if quick { FILINGS / 10 } else { FILINGS };
    for clients in [8, 64, 256] {
        filings(count, clients, &mut table).await?;
    }
    table.print();
    let count = match (quick, large) {
        (true, _) => BACKLOG / 100,
        (false, false) => BACKLOG,
        (false, true) => BACKLOG * 10,
    };
    let mut table = Table::new(&format!("backlog of {count}, embedded service"), &["seconds", "per second"]);
    backlog(count, &mut table).await?;
    table.print();
    Ok(())
}
