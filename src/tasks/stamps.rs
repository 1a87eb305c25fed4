//! `stamps`: asks the time-stamping authority for what it has not stamped yet, oldest first, for as long as it takes.
//!
//! Certificates and their filing never wait for it. In each round one failure ends the asking, and behind several such rounds the
//! authority is left alone for a while ([`crate::audit::circuit`]). A certificate that cannot be read, or whose signed date does not
//! fit, is passed over and named; the others have their turn. A reply is kept only when all of it is good; one that is not says
//! something of the authority, and a person must look.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::audit::backoff;
use crate::audit::circuit::{Circuit, Position};
use crate::audit::stamp::{self, AskError, StampError, TimeStamp};
use crate::certify::VerifyError;
use crate::certify::dsse::Envelope;
use crate::config::Configuration;
use crate::control::{TimeStampRow, Tx, Unstamped};
use crate::installation::{Installation, StampConnection, stamp_connection};

use super::{Result, TaskError};

/// The most certificates that one round has stamped: what is behind it does not wait for a long backlog.
const A_ROUND: usize = 256;
/// How long a round goes on to ask, however slow the authority is.
const A_ROUND_LASTS: TimeDelta = TimeDelta::minutes(2);
/// The `meta` entry with what is known of the authority's failures.
const CIRCUIT: &str = "stamp_circuit";
/// How long an authority is left alone whose answers are wrong.
const WRONG: std::time::Duration = std::time::Duration::from_mins(15);

/// How long a text of reasons may be before no further one is added.
const REASONS_BYTES: usize = 1000;

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StampReport {
    /// Certificates that have a time stamp now.
    pub stamped: Vec<String>,
    /// How many have none yet.
    pub missing: u64,
    /// Why.
    pub problem: Option<String>,
    /// Whether only a person mends that.
    pub alarm: bool,
}

impl StampReport {
    /// What is missing, in words; none when nothing is.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let why = self.problem.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        (self.missing > 0).then(|| format!("{} without a time stamp{why}", self.missing))
    }
}

impl StampReport {
    /// A certificate cannot be stamped. That it is damaged, only a person mends.
    fn passed_over(&mut self, failure: &Failure) {
        let reason = crate::error::with_causes(failure);
        tracing::warn!(reason = %reason, "a time stamp is missing");
        self.add(reason, matches!(failure, Failure::Damaged { .. }));
    }

    /// One more reason; the first ones are named, however many there are.
    fn add(&mut self, reason: String, alarm: bool) {
        self.alarm |= alarm;
        self.problem = match self.problem.take() {
            None => Some(reason),
            Some(before) if before.len() > REASONS_BYTES => Some(before),
            Some(before) => Some(format!("{before}; {reason}")),
        };
    }
}

/// Why a certificate was not stamped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// No answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An answer that is no good.
    #[error(transparent)]
    Wrong(#[from] StampError),
    /// A good answer, and a certificate that says it was signed at another time: this says nothing of the authority.
    #[error("certificate {certificate} cannot be stamped: {why}")]
    Certificate {
        /// Its id.
        certificate: String,
        /// What does not fit.
        #[source]
        why: StampError,
    },
    /// What is kept of a certificate is not what was signed. The authority was not asked.
    #[error("certificate {certificate} cannot be stamped, for it is damaged; `wangchuan audit verify` says how: {why}")]
    Damaged {
        /// Its id.
        certificate: String,
        /// What is wrong with it.
        #[source]
        why: VerifyError,
    },
}

impl Failure {
    /// Whether it is about one certificate, so that the others can go on.
    fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Certificate { .. } | Self::Damaged { .. })
    }
}

/// What stands in the `meta` entry.
#[derive(Serialize, Deserialize)]
struct KeptCircuit {
    /// The authority that it is about; the configuration may name another one by now.
    authority: String,
    circuit: Circuit,
}

/// How time stamps stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampStatus {
    /// Certificates with one.
    pub stamped: u64,
    /// Certificates without one, by number; empty where no authority is configured.
    pub missing: Vec<Unstamped>,
    /// What is known of the authority's failures.
    pub circuit: Circuit,
}

/// How time stamps stand; `None` where no authority is configured and none ever stamped.
///
/// # Errors
/// When the control database cannot be read.
pub async fn stamp_status(config: &Configuration, tx: &mut Tx) -> Result<Option<StampStatus>> {
    let stamped = tx.time_stamps().await?.len() as u64;
    let Some(configured) = &config.audit.timestamp else {
        let kept = StampStatus { stamped, missing: Vec::new(), circuit: Circuit::default() };
        return Ok((stamped > 0).then_some(kept));
    };
    let circuit = circuit_of(tx, &configured.url).await?;
    Ok(Some(StampStatus { stamped, missing: tx.unstamped().await?, circuit }))
}

async fn circuit_of(tx: &mut Tx, authority: &str) -> Result<Circuit> {
    let kept = tx.meta(CIRCUIT).await?.and_then(|text| serde_json::from_str::<KeptCircuit>(&text).ok());
    Ok(kept.filter(|kept| kept.authority == authority).map(|kept| kept.circuit).unwrap_or_default())
}

/// Has stamped what has no time stamp; `now_all` asks an authority that is left alone because it failed, too.
///
/// # Errors
/// When the control database fails. An authority that fails is not an error: time stamps are missing, and asked for again.
pub async fn stamp_due(installation: &Installation, now_all: bool) -> Result<StampReport> {
    let mut tx = installation.control.read().await?;
    let mut missing = if installation.config.audit.timestamp.is_some() { tx.unstamped().await? } else { Vec::new() };
    let mut report = StampReport { missing: missing.len() as u64, ..StampReport::default() };
    if missing.is_empty() {
        return Ok(report);
    }
    let connection = match stamp_connection(installation) {
        Ok(Some(connection)) => connection,
        Ok(None) => return Ok(StampReport::default()),
        Err(error) => {
            (report.problem, report.alarm) = (Some(error.to_string()), true);
            return Ok(report);
        }
    };
    let circuit = circuit_of(&mut tx, &connection.url).await?;
    drop(tx);
    if let (Position::Open { .. }, false) = (circuit.position(installation.clock.now()), now_all) {
        (report.problem, report.alarm) = (circuit.reason, circuit.alarm);
        return Ok(report);
    }
    let begun = installation.clock.now();
    // Those dated ahead cannot be stamped yet; they come last, so that what is in order has its turn.
    missing.sort_by_key(|unstamped| unstamped.issued_at.is_some_and(|issued| issued > begun));
    for unstamped in missing {
        match stamp_one(installation, &connection, &unstamped).await? {
            None => {
                report.stamped.push(unstamped.certificate);
                report.missing -= 1;
            }
            Some(failure) if failure.is_of_certificate() => report.passed_over(&failure),
            Some(failure) => {
                failed(installation, &connection, circuit, &failure, &mut report).await?;
                return Ok(report);
            }
        }
        if report.stamped.len() >= A_ROUND || installation.clock.now() - begun >= A_ROUND_LASTS {
            break;
        }
    }
    if circuit != Circuit::default() {
        keep(installation, &connection, Circuit::default()).await?;
    }
    Ok(report)
}

/// Has one certificate stamped, and keeps that.
async fn stamp_one(
    installation: &Installation,
    connection: &StampConnection,
    unstamped: &Unstamped,
) -> Result<Option<Failure>> {
    let id = &unstamped.certificate;
    let envelope = installation.control.read().await?.envelope(id).await?.unwrap_or_default();
    // When it was signed is what was signed: the date beside it in the control database anybody there can write.
    let read = Envelope::parse(&envelope).map_err(VerifyError::from);
    let verified = crate::certify::verify(&envelope, installation.signer.trusted());
    let (envelope, signed) = match read.and_then(|envelope| Ok((envelope, verified?.issued_at()))) {
        Ok(found) => found,
        Err(why) => return Ok(Some(Failure::Damaged { certificate: id.clone(), why })),
    };
    let (reply, stamp) = match ask(installation, connection, &envelope).await? {
        Ok(found) => found,
        Err(failure) => return Ok(Some(failure)),
    };
    if let Err(why) = stamp.check_time(signed, installation.clock.now()) {
        return Ok(Some(Failure::Certificate { certificate: id.clone(), why }));
    }
    let row = TimeStampRow { certificate: id.clone(), reply, at: stamp.at, authority: stamp.authority };
    let mut tx = installation.control.begin().await?;
    tx.add_time_stamp(&row).await?;
    tx.commit().await?;
    Ok(None)
}

async fn ask(
    installation: &Installation,
    connection: &StampConnection,
    envelope: &Envelope,
) -> Result<std::result::Result<(Vec<u8>, TimeStamp), Failure>> {
    let mut nonce = [0; 8];
    installation.random.fill(&mut nonce)?;
    let nonce = u64::from_be_bytes(nonce);
    let asked = async {
        let reply = connection.authority.ask(&stamp::request(envelope.signature(), nonce)?).await?;
        let stamp = stamp::verify(&reply, envelope.signature(), &connection.trust, Some(nonce))?;
        stamp.check_fresh(installation.clock.now())?;
        Ok((reply, stamp))
    };
    Ok(asked.await)
}

async fn failed(
    installation: &Installation,
    connection: &StampConnection,
    mut circuit: Circuit,
    failure: &Failure,
    report: &mut StampReport,
) -> Result<()> {
    let reason = crate::error::with_causes(failure);
    let (alarm, asked) = match failure {
        Failure::Ask(error) => (error.is_alarm(), error.is_alarm().then_some(WRONG)),
        Failure::Wrong(_) | Failure::Certificate { .. } | Failure::Damaged { .. } => (true, Some(WRONG)),
    };
    tracing::warn!(reason = %reason, "a time stamp is missing");
    if !report.stamped.is_empty() {
        circuit = Circuit::default();
    }
    let own = backoff(circuit.failures + 1, installation.random.as_ref())?;
    circuit.failed(installation.clock.now(), asked, own, &reason, alarm);
    report.add(reason, alarm);
    keep(installation, connection, circuit).await
}

async fn keep(installation: &Installation, connection: &StampConnection, circuit: Circuit) -> Result<()> {
    let kept = KeptCircuit { authority: connection.url.clone(), circuit };
    let text = serde_json::to_string(&kept).map_err(|error| TaskError::Proof(error.to_string()))?;
    let mut tx = installation.control.begin().await?;
    tx.set_meta(CIRCUIT, &text).await?;
    Ok(tx.commit().await?)
}
