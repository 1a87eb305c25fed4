//! A pack verified by somebody who has nothing but its files: what was changed, what is missing, what was added. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::contents::{BUNDLE_END, ENVELOPE_END, LIST_END, PackedHold, PackedPolicies, certificate_file, drill_file};
use super::{HOLDS, LOG, MANIFEST, POLICIES, PackFiles, Period, REPORT, TRUST};
use crate::audit::trust::Trust;
use crate::certify::evidence_pack::{EvidencePack, EvidencePackStatement, Numbers, read_manifest};
use crate::certify::report::{Totals, differences, read_report, totals};
use crate::certify::{Said, VerifiedCertificate, roll_up};
use crate::log::archive::ArchivedEntry;
use crate::log::checkpoint::CheckpointKey;
use crate::log::excerpt::{Excerpt, read_excerpt};
use crate::log::prune::cutoff;
use crate::log::tree::sha256;
use crate::tasks::drill::{check_part, row_of};
use crate::tasks::trust::{Given, GivenReceipt, read_parts, standing_words, verify_with};

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFault {
    /// The file; none where it is not about one.
    pub file: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackCheck {
    /// What: `manifest`, `files`, `certificates`, `roll-ups`, `log`, `completeness`, `drills`, `policies`, `holds`, `report`.
    pub name: &'static str,
    /// What is wrong; empty when all of it fits.
    pub faults: Vec<PackFault>,
    /// What was found.
    pub said: String,
}

/// What verifying came to.
#[derive(Debug, Clone, PartialEq)]
pub struct PackVerdict {
    /// What the manifest says; none when it cannot be believed.
    pub manifest: Option<EvidencePackStatement>,
    /// The key that signed it.
    pub key_id: Option<String>,
    /// What was checked.
    pub checks: Vec<PackCheck>,
    /// Certificates of the pack that have no receipt, by their numbers.
    pub without_receipt: Vec<u64>,
    /// Entries of the log whose content has expired.
    pub expired: u64,
    /// Different keys whose destruction its certificates tell.
    pub keys_destroyed: u64,
}

impl PackVerdict {
    /// Whether everything fits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.manifest.is_some() && self.checks.iter().all(|check| check.faults.is_empty())
    }

    /// When the pack was made, if its period was not over then: of what came later it knows nothing.
    #[must_use]
    pub fn covers_until(&self) -> Option<DateTime<Utc>> {
        let said = &self.manifest.as_ref()?.predicate;
        Some(said.made_at.instant()).filter(|made| *made < said.until.instant())
    }
}

fn fault(file: impl Into<String>, what: impl Into<String>) -> PackFault {
    PackFault { file: Some(file.into()), what: what.into() }
}

fn general(what: impl Into<String>) -> PackFault {
    PackFault { file: None, what: what.into() }
}

/// Verifies the files of a folder, and a report (its name and bytes) of days that they cover. Whom to trust came another way than the
/// folder, or is the pack's own trust file.
#[must_use]
pub fn verify_pack(files: &PackFiles, report: Option<(&str, &[u8])>, trust: &Trust, now: DateTime<Utc>) -> PackVerdict {
    let mut verdict = PackVerdict {
        manifest: None,
        key_id: None,
        checks: Vec::new(),
        without_receipt: Vec::new(),
        expired: 0,
        keys_destroyed: 0,
    };
    let Some(envelope) = files.get(MANIFEST) else {
        verdict.checks.push(check(
            "manifest",
            vec![fault(MANIFEST, "is missing: without it nothing says what belongs here")],
            "",
        ));
        return verdict;
    };
    let (manifest, key_id) = match read_manifest(envelope, &trust.keys()) {
        Ok(read) => read,
        Err(error) => {
            verdict.checks.push(check("manifest", vec![fault(MANIFEST, crate::error::with_causes(&error))], ""));
            return verdict;
        }
    };
    let standing = trust.judge(&key_id, manifest.predicate.made_at.instant(), None, now);
    let unfit = (!standing.is_good()).then(|| fault(MANIFEST, standing_words(standing)));
    let said = &manifest.predicate;
    let instants = (said.since.instant(), said.until.instant());
    let is_shifted = !are_days((said.from, said.to, &said.timezone), instants);
    let unfit = unfit.into_iter().chain(is_shifted.then(|| fault(MANIFEST, SHIFTED)));
    let period = format!("{} to {}", manifest.predicate.from, manifest.predicate.to);
    verdict.checks.push(check("manifest", unfit.collect(), format!("of {period}, signed by {key_id}")));
    verdict.checks.push(files_check(files, &manifest));
    let pack = Pack { files, trust, now, said: &manifest.predicate };
    let (certificates, read) = pack.certificates();
    let (log, excerpt) = pack.log();
    verdict.checks.extend([certificates, log]);
    verdict.checks.push(pack.roll_ups(&read.all, excerpt.as_ref()));
    verdict.checks.push(pack.drills(excerpt.as_ref()));
    verdict.checks.push(pack.policies(&read.all));
    verdict.checks.push(pack.holds());
    verdict.checks.push(pack.completeness(&read.all, excerpt.as_ref()));
    verdict.checks.push(pack.reports(report, &read.all, excerpt.as_ref()));
    verdict.keys_destroyed = keys_destroyed(&read.all);
    verdict.without_receipt = read.without_receipt;
    verdict.expired =
        excerpt.iter().flat_map(|excerpt| &excerpt.entries).filter(|entry| entry.record.is_none()).count() as u64;
    (verdict.manifest, verdict.key_id) = (Some(manifest), Some(key_id));
    verdict
}

/// What is said of days whose instants are others than theirs.
const SHIFTED: &str = "has days whose beginning or end is another instant than it says";

/// Whether these are the beginning of the first and the end of the last day in the zone.
fn are_days((from, to, zone): (NaiveDate, NaiveDate, &str), instants: (DateTime<Utc>, DateTime<Utc>)) -> bool {
    let period = zone.parse::<Tz>().ok().and_then(|zone| Period::of(from, to, zone).ok());
    period.is_some_and(|period| (period.since, period.until) == instants)
}

fn check(name: &'static str, faults: Vec<PackFault>, said: impl Into<String>) -> PackCheck {
    PackCheck { name, faults, said: said.into() }
}

/// The files against the manifest, byte for byte.
fn files_check(files: &PackFiles, manifest: &EvidencePackStatement) -> PackCheck {
    let mut faults = Vec::new();
    for subject in &manifest.subject {
        match files.get(&subject.name) {
            None => faults.push(fault(&subject.name, "is missing: the manifest names it")),
            Some(bytes) if hex::encode(sha256(bytes)) != subject.digest.sha256 => {
                faults.push(fault(&subject.name, "was changed: its digest is another than the manifest's"));
            }
            Some(_) => {}
        }
    }
    let named: BTreeSet<&str> = manifest.subject.iter().map(|subject| subject.name.as_str()).collect();
    for name in files.keys().filter(|name| *name != MANIFEST && !named.contains(name.as_str())) {
        faults.push(fault(name, "was added: the manifest does not name it"));
    }
    check("files", faults, format!("{} files", manifest.subject.len()))
}

/// Different keys that certificates say are destroyed.
fn keys_destroyed(certificates: &BTreeMap<u64, VerifiedCertificate>) -> u64 {
    let mut keys = BTreeSet::new();
    for certificate in certificates.values() {
        let Said::Erasure(statement) = &certificate.said else { continue };
        let all = statement.predicate.targets.iter().flat_map(|target| &target.keys);
        keys.extend(all.filter(|key| key.destroyed_at.is_some()).map(|key| key.key_id_sha256.as_str()));
    }
    keys.len() as u64
}

/// Counts the totals of the period until the pack was made; none when the log cannot be read.
pub(super) fn count(files: &PackFiles, said: &EvidencePack, trust: &Trust) -> Option<Totals> {
    let pack = Pack { files, trust, now: said.made_at.instant(), said };
    let ((_, read), (_, log)) = (pack.certificates(), pack.log());
    let period = (said.since.instant(), said.until.min(said.made_at).instant());
    Some(totals_of(&read.all, log.as_ref()?, period))
}

fn totals_of(
    certificates: &BTreeMap<u64, VerifiedCertificate>,
    log: &Excerpt,
    period: (DateTime<Utc>, DateTime<Utc>),
) -> Totals {
    let records = log.entries.iter().filter_map(|entry| Some((time_of(entry)?, entry.record.as_deref())));
    totals(records, &certificates.values().collect::<Vec<_>>(), period)
}

fn time_of(entry: &ArchivedEntry) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(&entry.time).ok().map(|time| time.with_timezone(&Utc))
}

/// Certificates that were read.
#[derive(Default)]
struct Read {
    all: BTreeMap<u64, VerifiedCertificate>,
    without_receipt: Vec<u64>,
}

struct Pack<'p> {
    files: &'p PackFiles,
    trust: &'p Trust,
    now: DateTime<Utc>,
    said: &'p EvidencePack,
}

impl Pack<'_> {
    fn is_in(&self, at: DateTime<Utc>) -> bool {
        self.said.since.instant() <= at && at < self.said.until.instant()
    }

    /// What a part that reaches one further than the period must show at its ends: `first` and `last` are when those were.
    fn ends(
        &self,
        what: &str,
        (first, last): (DateTime<Utc>, DateTime<Utc>),
        begins: bool,
        ends: bool,
    ) -> Vec<PackFault> {
        let mut faults = Vec::new();
        if !begins && self.is_in(first) {
            faults.push(general(format!("the {what} begin within the period, and earlier ones may be missing")));
        }
        if !ends && self.is_in(last) {
            faults.push(general(format!("the {what} end within the period, and later ones may be missing")));
        }
        faults
    }

    /// Every certificate by itself, the sequence, and that each names the one before.
    fn certificates(&self) -> (PackCheck, Read) {
        let mut read = Read::default();
        let Some(Numbers { first, last }) = self.said.certificates else {
            return (check("certificates", Vec::new(), "none in the period"), read);
        };
        let mut faults = Vec::new();
        let mut before: Option<String> = None;
        for number in first..=last {
            let names = [BUNDLE_END, ENVELOPE_END].map(|end| certificate_file(number, end));
            let Some((name, bytes)) = names.iter().find_map(|name| Some((name, self.files.get(name)?))) else {
                faults.push(general(format!("certificate no. {number} is missing: the sequence has a gap")));
                before = None;
                if number - first > MOST_GAPS {
                    break;
                }
                continue;
            };
            before = match self.certificate(number, bytes, before.as_deref(), &mut read) {
                Ok(digest) => Some(digest),
                Err(wrong) => {
                    faults.extend(wrong.into_iter().map(|what| fault(name, what)));
                    read.all.get(&number).map(|found| hex::encode(found.digest))
                }
            };
        }
        if let (Some(one), Some(other)) = (read.all.get(&first), read.all.get(&last)) {
            // The log tells whether there is a later one.
            faults.extend(self.ends("certificates", (one.issued_at(), other.issued_at()), first == 1, true));
        }
        let said = format!("no. {first} to {last}, {} of them without a receipt", read.without_receipt.len());
        (check("certificates", faults, said), read)
    }

    /// One certificate; returns its digest, or what is wrong.
    fn certificate(
        &self,
        number: u64,
        bytes: &[u8],
        before: Option<&str>,
        read: &mut Read,
    ) -> Result<String, Vec<String>> {
        let parts = read_parts(bytes).map_err(|what| vec![what.to_owned()])?;
        if parts.receipt == GivenReceipt::NotInThisForm {
            read.without_receipt.push(number);
        }
        let list = self.files.get(&certificate_file(number, LIST_END)).map(Vec::as_slice);
        let given = Given {
            envelope: &parts.envelope,
            receipt: parts.receipt,
            stamps: parts.stamps,
            evidence: list,
            is_chained: false,
        };
        let (verdict, _) = verify_with(self.trust, &given, self.now);
        let wrong = verdict.checks.into_iter().filter(|(_, good, _)| !good);
        let mut wrong: Vec<String> = wrong.map(|(check, _, said)| format!("{check}: {said}")).collect();
        let Ok(found) = crate::certify::verify(given.envelope, &self.trust.keys()) else { return Err(wrong) };
        if found.sequence() != number {
            wrong.push(format!("is no. {}, and lies in the place of no. {number}", found.sequence()));
        }
        if before.is_some_and(|before| found.previous() != Some(before)) {
            wrong.push("does not name the certificate before it".to_owned());
        }
        if matches!(found.said, Said::RollUp(_)) && list.is_none() {
            wrong.push("the list of what it counts is missing".to_owned());
        }
        let digest = hex::encode(found.digest);
        read.all.insert(number, found);
        if wrong.is_empty() { Ok(digest) } else { Err(wrong) }
    }

    /// The part of the operation log, and that it is all of the period.
    fn log(&self) -> (PackCheck, Option<Excerpt>) {
        let said = &self.said.operation_log;
        let bad = |what: String| (check("log", vec![fault(LOG, what)], ""), None);
        let Some(bytes) = self.files.get(LOG) else { return bad("is missing".to_owned()) };
        let Ok(key) = CheckpointKey::parse(&said.verifier_key) else {
            return bad("has no key that it could be verified with".to_owned());
        };
        // Who can sign a manifest can name any key in it.
        if !self.trust.operation_logs.contains(&key) {
            return bad("is signed by a key of an operation log that the trust file does not have".to_owned());
        }
        let excerpt = match read_excerpt(&String::from_utf8_lossy(bytes), &key) {
            Ok(excerpt) => excerpt,
            Err(wrong) => {
                let line = wrong.line.map_or_else(String::new, |line| format!("line {line} "));
                return bad(format!("{line}{}", wrong.what));
            }
        };
        let mut faults = Vec::new();
        if (excerpt.first(), excerpt.entries.len() as u64) != (said.first, said.entries) {
            faults.push(fault(LOG, "is another part of the log than the manifest says"));
        }
        let ends = (excerpt.entries.first().and_then(time_of), excerpt.entries.last().and_then(time_of));
        // Making the pack is logged, so that a period that is over has an entry behind it.
        let is_open = self.said.made_at < self.said.until;
        match ends {
            (Some(first), Some(last)) => {
                if excerpt.first() > 0 && self.said.since.instant() <= first {
                    faults.push(fault(LOG, "begins later than the period, and earlier entries may be missing"));
                }
                if last < self.said.until.instant() && !(is_open && excerpt.is_newest()) {
                    faults.push(fault(LOG, "ends earlier than the period, and later entries may be missing"));
                }
            }
            _ => faults.push(fault(LOG, "has no entries: not even the one of the making of this pack")),
        }
        faults.extend(self.emptied(&excerpt));
        (check("log", faults, "all entries of the period, as the log signed them"), Some(excerpt))
    }

    /// Entries without content that must have theirs. When those without were written, only the file says: behind one that is young there is
    /// none that is old.
    fn emptied(&self, log: &Excerpt) -> Option<PackFault> {
        let made = self.said.made_at.instant();
        let zone: Tz = self.said.timezone.parse().unwrap_or(Tz::UTC);
        let kept_from = cutoff(made.with_timezone(&zone).date_naive(), zone);
        let mut is_young = false;
        let mut lines = Vec::new();
        for (at, entry) in log.entries.iter().enumerate() {
            is_young |= time_of(entry).is_none_or(|time| kept_from <= time);
            if is_young && entry.record.is_none() {
                lines.push(at + 2);
            }
        }
        let (first, others) = lines.split_first()?;
        let more = if others.is_empty() { String::new() } else { format!("; so do {} others", others.len()) };
        Some(fault(LOG, format!("line {first} lacks its content, which is kept for three years at least{more}")))
    }

    /// What roll-ups count is there, and the log that they saw is this one.
    fn roll_ups(&self, certificates: &BTreeMap<u64, VerifiedCertificate>, log: Option<&Excerpt>) -> PackCheck {
        let statements = certificates.iter().filter_map(|(number, certificate)| match &certificate.said {
            Said::RollUp(statement) => Some((*number, statement)),
            Said::Erasure(_) => None,
        });
        let statements: Vec<_> = statements.collect();
        let sizes = statements.iter().map(|(_, statement)| statement.predicate.operation_log.size).collect();
        let roots = log.map(|log| log.roots(&sizes)).unwrap_or_default();
        let mut faults = Vec::new();
        for (number, statement) in &statements {
            let name = certificate_file(*number, LIST_END);
            let head = &statement.predicate.operation_log;
            let is_own = certificates.get(number).is_some_and(|found| self.is_in(found.issued_at()));
            if is_own && log.is_some() && !roots.contains_key(&head.size) {
                let what =
                    format!("does not hold the place up to which roll-up no. {number} of the period saw the log");
                faults.push(fault(LOG, what));
            }
            if roots.get(&head.size).is_some_and(|root| hex::encode(root) != head.root_hash) {
                faults.push(fault(
                    LOG,
                    format!("is not the log whose first {} entries roll-up no. {number} saw", head.size),
                ));
            }
            // What is wrong with the list itself is told of its certificate.
            let list = self.files.get(&name).and_then(|list| roll_up::verify(list, statement).ok());
            for line in list.into_iter().flatten().filter_map(|line| line.certificate) {
                let found = certificates.get(&line.sequence);
                let is_same = found
                    .is_some_and(|found| found.id() == line.certificate && hex::encode(found.digest) == line.digest);
                let is_asked = self.said.certificates.is_some_and(|all| all.first <= line.sequence);
                if is_asked && !is_same {
                    let what = format!("counts certificate no. {}, which is not there as it was", line.sequence);
                    faults.push(fault(&name, what));
                }
            }
        }
        let said =
            format!("{}, what they count is there; {} of them saw this part of the log", statements.len(), roots.len());
        check("roll-ups", faults, said)
    }

    fn drills(&self, log: Option<&Excerpt>) -> PackCheck {
        let Some(Numbers { first, last }) = self.said.drills else {
            let faults = self.logged(log, "drill.run").into_iter();
            let faults =
                faults.map(|drill| general(format!("drill {drill} stands in the log, and its record is missing")));
            return check("drills", faults.collect(), "none in the period");
        };
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for number in first..=last {
            let name = drill_file(number);
            match self.files.get(&name).map(|record| row_of(record)) {
                Some(Ok(row)) if row.number.unsigned_abs() == number => rows.push(row),
                Some(Ok(row)) => faults.push(fault(name, format!("is the record of drill no. {}", row.number))),
                Some(Err(what)) => faults.push(fault(name, what)),
                None if number - first > MOST_GAPS => break,
                None => faults.push(fault(name, format!("the record of drill no. {number} is missing"))),
            }
        }
        let logged: Vec<String> = self.logged(log, "drill.run").into_iter().collect();
        for problem in check_part(&rows, first, &self.trust.keys(), &logged) {
            let file = problem.number.map(drill_file);
            let what = match &problem.drill {
                Some(drill) => format!("drill {drill}: {}", problem.what),
                None => problem.what.to_owned(),
            };
            let wrong = PackFault { file, what };
            // A record that is missing in the folder was told of.
            if !faults.iter().any(|told: &PackFault| told.file.is_some() && told.file == wrong.file) {
                faults.push(wrong);
            }
        }
        if let (Some(one), Some(other)) = (rows.first(), rows.last()) {
            faults.extend(self.ends("drills", (one.at, other.at), one.number == 1, true));
        }
        check("drills", faults, format!("no. {first} to {last}, signed and chained"))
    }

    /// Every certificate's policies are told.
    fn policies(&self, certificates: &BTreeMap<u64, VerifiedCertificate>) -> PackCheck {
        let read = self.files.get(POLICIES).and_then(|bytes| serde_json::from_slice::<PackedPolicies>(bytes).ok());
        let Some(read) = read else {
            return check("policies", vec![fault(POLICIES, "is missing, or not what it should be")], "");
        };
        let mut faults = Vec::new();
        let known: BTreeSet<&str> =
            read.plans.iter().map(|plan| plan.policy_digest.as_str()).chain([read.policy_digest.as_str()]).collect();
        for (number, certificate) in certificates {
            let Said::Erasure(statement) = &certificate.said else { continue };
            let Some(policy) = &statement.predicate.policy else { continue };
            if !known.contains(policy.digest.sha256.as_str()) {
                faults.push(fault(POLICIES, format!("does not have the policies that certificate no. {number} names")));
            }
        }
        if read.policy_digest != self.said.policy_digest {
            faults.push(fault(POLICIES, "is not what was in force when the manifest was signed"));
        }
        check("policies", faults, format!("digest {}", read.policy_digest))
    }

    fn read_holds(&self) -> Option<Vec<PackedHold>> {
        self.files.get(HOLDS).and_then(|bytes| serde_json::from_slice(bytes).ok())
    }

    fn holds(&self) -> PackCheck {
        match self.read_holds() {
            Some(holds) => check("holds", Vec::new(), format!("{} in the period", holds.len())),
            None => check("holds", vec![fault(HOLDS, "is missing, or not what it should be")], ""),
        }
    }

    /// What the log tells of the period is there.
    fn completeness(&self, certificates: &BTreeMap<u64, VerifiedCertificate>, log: Option<&Excerpt>) -> PackCheck {
        let Some(excerpt) = log else {
            return check("completeness", vec![general("nothing tells what there was: the log cannot be read")], "");
        };
        let there: BTreeSet<&str> = certificates.values().map(VerifiedCertificate::id).collect();
        let issued = self.logged(Some(excerpt), "certificate.issue");
        let mut faults: Vec<PackFault> = issued
            .iter()
            .filter(|id| !there.contains(id.as_str()))
            .map(|id| general(format!("certificate {id} was issued in the period as the log says, and is missing")))
            .collect();
        for (id, digest) in digests(excerpt) {
            let other = certificates.iter().find(|(_, found)| found.id() == id && hex::encode(found.digest) != digest);
            if let Some((number, _)) = other {
                faults.push(general(format!("certificate no. {number} is another than the log says was issued")));
            }
        }
        let holds: BTreeSet<String> = self.read_holds().into_iter().flatten().map(|hold| hold.hold).collect();
        let placed = self.logged(Some(excerpt), "hold.place");
        let unknown = placed.iter().filter(|hold| !holds.contains(*hold));
        faults.extend(unknown.map(|hold| fault(HOLDS, format!("lacks hold {hold}, which the log says was placed"))));
        let said = format!("{} certificates, {} holds that the log tells of are there", issued.len(), placed.len());
        check("completeness", faults, said)
    }

    /// The pack's own report and, if one is given, another: what they say is counted again.
    fn reports(
        &self,
        given: Option<(&str, &[u8])>,
        certificates: &BTreeMap<u64, VerifiedCertificate>,
        log: Option<&Excerpt>,
    ) -> PackCheck {
        let Some(log) = log else {
            return check("report", vec![general("cannot be counted again: the log cannot be read")], "");
        };
        let own = self.files.get(REPORT).map(|bytes| (REPORT, bytes.as_slice()));
        let missing = own.is_none().then(|| fault(REPORT, "is missing"));
        let reports: Vec<_> = own.into_iter().chain(given).collect();
        let mut faults: Vec<PackFault> = missing.into_iter().collect();
        for (name, bytes) in &reports {
            faults.extend(self.report(bytes, certificates, log).into_iter().map(|what| fault(*name, what)));
        }
        let early = reports.iter().filter(|(_, bytes)| {
            read_report(bytes, &self.trust.keys()).is_ok_and(|(report, _)| report.made_at < report.until)
        });
        let early: Vec<&str> = early.map(|(name, _)| *name).collect();
        let mut said = format!("{} counted again from the log and the certificates, equal", reports.len());
        if !early.is_empty() {
            said.push_str("; made before their days were over: ");
            said.push_str(&early.join(", "));
        }
        check("report", faults, said)
    }

    /// What is wrong with a report.
    fn report(&self, bytes: &[u8], certificates: &BTreeMap<u64, VerifiedCertificate>, log: &Excerpt) -> Vec<String> {
        let (report, key_id) = match read_report(bytes, &self.trust.keys()) {
            Ok(read) => read,
            Err(error) => return vec![crate::error::with_causes(&error)],
        };
        let mut wrong = Vec::new();
        let standing = self.trust.judge(&key_id, report.made_at.instant(), None, self.now);
        if !standing.is_good() {
            wrong.push(standing_words(standing));
        }
        if !are_days((report.from, report.to, &report.timezone), (report.since.instant(), report.until.instant())) {
            wrong.push(SHIFTED.to_owned());
        }
        if report.since < self.said.since || self.said.until < report.until {
            wrong.push(format!("is of {} to {}, which the pack does not cover", report.from, report.to));
            return wrong;
        }
        let counted = totals_of(certificates, log, report.counted());
        wrong.extend(differences(&report.totals, &counted));
        wrong
    }

    /// The objects of an operation that succeeded within the period.
    fn logged(&self, log: Option<&Excerpt>, operation: &str) -> BTreeSet<String> {
        let records = log.into_iter().flat_map(|log| &log.entries).filter_map(|entry| entry.record.as_deref());
        let records = records.filter_map(|record| serde_json::from_str::<Value>(record).ok());
        let is_meant = |record: &Value| {
            let at = record["time"].as_i64().and_then(DateTime::from_timestamp_millis);
            record.pointer("/api/operation").and_then(Value::as_str) == Some(operation)
                // Of a drill that failed there is a record too.
                && (record["status_id"] == 1 || (operation == "drill.run" && record["status_id"] == 2))
                && at.is_some_and(|at| self.is_in(at))
        };
        let objects = |record: Value| record.pointer("/resources/0/uid").and_then(Value::as_str).map(str::to_owned);
        records.filter(is_meant).filter_map(objects).collect()
    }
}

/// Certificates that the log tells of, with their digests, as far as it says them.
fn digests(log: &Excerpt) -> Vec<(String, String)> {
    let records = log.entries.iter().filter_map(|entry| entry.record.as_deref());
    let records = records.filter_map(|record| serde_json::from_str::<Value>(record).ok());
    let text = |record: &Value, place: &str| record.pointer(place).and_then(Value::as_str).map(str::to_owned);
    let issued = records.filter(|record| {
        text(record, "/api/operation").as_deref() == Some("certificate.issue") && record["status_id"] == 1
    });
    issued
        .filter_map(|record| Some((text(&record, "/resources/0/uid")?, text(&record, "/unmapped/references/digest")?)))
        .collect()
}

/// Missing numbers that are named one by one.
const MOST_GAPS: u64 = 100_000;

/// The pack's own trust file.
///
/// # Errors
/// When it is not there, or not usable.
pub fn own_trust(files: &PackFiles) -> Result<Trust, String> {
    let bytes = files.get(TRUST).ok_or_else(|| "it has no trust file; give one with --trust".to_owned())?;
    Trust::parse(bytes).map_err(|error| crate::error::with_causes(&error))
}
