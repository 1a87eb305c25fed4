//! `evidence-pack`: a folder with everything that an inspection asks for over a period, and its verification by somebody who has nothing
//! but that folder.
//!
//! ```text
//! manifest.json                      the statement about all other files, signed with the certificates' key
//! README.txt, SHA256SUMS             how to check it, also without this program
//! trust.json                         public keys, as `audit trust` writes them
//! certificates/000001.sigstore.json  certificate and receipt; `.dsse.json` for one without a receipt
//! certificates/000002.list.ndjson    what a roll-up counts
//! drills/000001.json                 the signed record of a drill
//! log/operations.ndjson              the operation log of the period, with its proof
//! policies.json, statutes/*.toml     what was in force
//! holds.json                         holds of the period; whom they are about is not in it
//! report.json                        totals that can be counted again from the log and the certificates, signed
//! ```
//! Certificates, drills and entries of the log reach one further on both sides than the period, where there is one: that shows that
//! nothing of it is missing at its ends.

mod contents;
mod verify;

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use crate::certify::evidence_pack::{EvidencePack, EvidencePackStatement, LogPart, Numbers, signed_manifest};
use crate::certify::statement::{Digest, Subject, Timestamp};
use crate::installation::{Installation, Operation};
use crate::log::tree::sha256;
use crate::random::uuid7;

use super::certify::issuer;
use super::report::sign_report;
use super::trust::trust;
use super::{Result, TaskError};

pub use self::verify::{PackCheck, PackFault, PackVerdict, own_trust, verify_pack};

/// Files by their names in the folder.
pub type PackFiles = BTreeMap<String, Vec<u8>>;

/// The signed manifest.
pub const MANIFEST: &str = "manifest.json";
/// Digests of the other files, for `sha256sum -c`.
const SUMS: &str = "SHA256SUMS";
const README: &str = "README.txt";
/// The trust file.
pub const TRUST: &str = "trust.json";
const LOG: &str = "log/operations.ndjson";
const POLICIES: &str = "policies.json";
const HOLDS: &str = "holds.json";
const REPORT: &str = "report.json";

/// What the operation log calls the making of a pack.
const OPERATION: &str = "evidence-pack.make";

/// Days, both included, in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// The first day.
    pub from: NaiveDate,
    /// The last day.
    pub to: NaiveDate,
    /// Their zone.
    pub zone: Tz,
    /// The first day's beginning.
    pub since: DateTime<Utc>,
    /// The last day's end, itself not in it.
    pub until: DateTime<Utc>,
}

impl Period {
    /// These days.
    pub fn of(from: NaiveDate, to: NaiveDate, zone: Tz) -> Result<Self> {
        let next = to.succ_opt().filter(|_| from <= to).ok_or_else(|| TaskError::Unknown {
            what: "the period ends before it begins".to_owned(),
            advice: "give the first day with --from, the last with --to".to_owned(),
        })?;
        Ok(Self { from, to, zone, since: start_of(from, zone), until: start_of(next, zone) })
    }

    /// Whether it is on one of the days.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        self.since <= at && at < self.until
    }

    /// Of things in their order the places of those of the period, and of one more on both sides. A clock that was wrong may have put
    /// others between them.
    fn widened(&self, times: &[DateTime<Utc>]) -> Range<usize> {
        let is_in = |at: &DateTime<Utc>| self.contains(*at);
        // Of none in it, the place between those before and behind it.
        let before = || times.iter().rposition(|at| *at < self.since).map_or(0, |last| last + 1);
        let first = times.iter().position(is_in).unwrap_or_else(before);
        let end = times.iter().rposition(is_in).map_or(first, |last| last + 1);
        // The neighbour must lie on its own side of the period: only that shows where the period ends.
        let start = times[..first].iter().rposition(|at| *at < self.since).unwrap_or(0);
        start..times[end..].iter().position(|at| self.until <= *at).map_or(times.len(), |next| end + next + 1)
    }
}

/// The first instant of a day.
fn start_of(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    zone.from_local_datetime(&midnight).earliest().map_or_else(|| midnight.and_utc(), |at| at.with_timezone(&Utc))
}

/// A pack that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct MadePack {
    /// Its files; the manifest is to be written last.
    pub files: PackFiles,
    /// What the manifest says.
    pub manifest: EvidencePackStatement,
    /// What was checked of it, as whoever gets it will.
    pub checks: Vec<PackCheck>,
}

/// Puts together what there is of a period. Logged before.
///
/// # Errors
/// When the log cannot be written, something cannot be read, or the manifest cannot be signed.
pub async fn make_pack(installation: &Installation, from: NaiveDate, to: NaiveDate) -> Result<MadePack> {
    let period = Period::of(from, to, installation.config.agent.timezone)?;
    let trust = trust(installation).await?;
    if trust.logs.is_empty() && trust.acknowledgers.is_empty() {
        return Err(TaskError::Unknown {
            what: "the audit log's public key is not there, so nobody could check a certificate".to_owned(),
            advice: "the embedded service makes it at the first `job run outbox`; of another service, put it into `audit-log.vkey`"
                .to_owned(),
        });
    }
    let made_at = installation.clock.now();
    let pack_id = uuid7(made_at, installation.random.as_ref())?;
    let days = [("from", from), ("to", to)].map(|(name, day)| (name.to_owned(), day.to_string()));
    let asked = Operation { name: OPERATION, object: &pack_id, outcome: "success", ..Operation::default() };
    installation.log(Operation { references: days.to_vec(), ..asked }).await?;
    let mut files = PackFiles::new();
    // What the log tells is there by then; so the log is read first.
    let operation_log = contents::operation_log_of(installation, &period, &mut files).await?;
    let (certificates, runs) = contents::certificates_of(installation, &period, &mut files).await?;
    let drills = contents::drills_of(installation, &period, &mut files).await?;
    contents::policies_of(installation, &period, &runs, &mut files).await?;
    contents::holds_of(installation, &period, &mut files).await?;
    files.insert(TRUST.to_owned(), format!("{:#}\n", trust.to_json()).into_bytes());
    files.insert(README.to_owned(), contents::readme(&period).into_bytes());
    let predicate = EvidencePack {
        pack_id,
        issuer: issuer(installation),
        from,
        to,
        timezone: period.zone.name().to_owned(),
        since: Timestamp::from(period.since),
        until: Timestamp::from(period.until),
        made_at: Timestamp::from(made_at),
        certificates,
        drills,
        operation_log,
        policy_digest: installation.ground()?.policy_digest.to_owned(),
    };
    let totals = verify::count(&files, &predicate, &trust);
    let (_, report) = sign_report(installation, &period, made_at, totals.unwrap_or_default()).await?;
    files.insert(REPORT.to_owned(), report);
    let mut sums = String::new();
    for Subject { name, digest } in subjects(&files) {
        sums.extend([&digest.sha256, "  ", &name, "\n"]);
    }
    files.insert(SUMS.to_owned(), sums.into_bytes());
    let manifest = EvidencePackStatement::new(subjects(&files), predicate);
    let (payload, message) = manifest.to_sign().map_err(|error| TaskError::Inconsistent(error.to_string()))?;
    let signature = installation.signer.sign(&message).await?;
    files.insert(MANIFEST.to_owned(), signed_manifest(payload, signature, installation.signer.key_id()));
    let checks = verify_pack(&files, None, &trust, installation.clock.now()).checks;
    Ok(MadePack { files, manifest, checks })
}

/// What a manifest says of files.
fn subjects(files: &PackFiles) -> Vec<Subject> {
    let subject = |(name, bytes): (&String, &Vec<u8>)| Subject {
        name: name.clone(),
        digest: Digest { sha256: hex::encode(sha256(bytes)) },
    };
    files.iter().map(subject).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    #[test]
    fn a_period_has_whole_days_of_its_zone_and_one_neighbour_on_both_sides() {
        let day = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
        let period = Period::of(day("2026-03-01"), day("2026-03-31"), chrono_tz::Asia::Shanghai).unwrap();
        assert_eq!((period.since, period.until), (at("2026-02-28T16:00:00Z"), at("2026-03-31T16:00:00Z")));
        assert!(Period::of(day("2026-03-02"), day("2026-03-01"), chrono_tz::UTC).is_err());
        let times = |texts: &[&str]| texts.iter().map(|text| at(&format!("{text}T00:00:00Z"))).collect::<Vec<_>>();
        let all = times(&["2026-01-01", "2026-02-01", "2026-03-02", "2026-03-03", "2026-04-02", "2026-05-01"]);
        assert_eq!(period.widened(&all), 1..5);
        assert_eq!(period.widened(&all[2..4]), 0..2, "there is nothing before and behind");
        assert_eq!(period.widened(&all[..2]), 1..2, "the last one before shows that there is none in it");
        assert_eq!(period.widened(&all[4..]), 0..1);
        assert_eq!(period.widened(&[]), 0..0);
        // The clock was ahead for one of them.
        let wrong = times(&["2026-01-01", "2026-03-02", "2030-01-01", "2026-03-04", "2026-04-02"]);
        assert_eq!(period.widened(&wrong), 0..5);
    }
}
