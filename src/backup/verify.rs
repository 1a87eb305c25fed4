//! Keyless verification of a store's backups: signatures, the hash chain of manifests, that increments continue what is there, and digest and structure of every
//! object. Needs no decryption key, so it stays green after everything in the backups was shredded.
//!
//! What could not be read counts as a problem, never as fine. Verification goes on past a problem and keeps them all.

mod sample;

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Id128, Sha256};
use super::directory::{MAX_PART_BYTES, directory_header, directory_name};
use super::manifest::{
    MAX_MANIFEST_BYTES, Manifest, PackRef, PartRef, VerifySignature, manifest_prefix, parse_manifest_name,
};
use super::object_store::{ObjectStore, RepositoryError, get_verified};
use super::pack::{PackError, max_pack_bytes, pack_name, verify_pack};
pub use sample::{ReadBack, Sample};

/// The newest manifest as it is known outside the bucket (control database, audit log).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// Its sequence number.
    pub sequence: u64,
    /// The digest of its object.
    pub sha256: Sha256,
}

/// Something wrong in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object, by its name in the repository; for a missing manifest the name's known beginning.
    pub object: String,
    /// What is wrong with it, as part of a sentence.
    pub what: String,
    /// Whether it may be read later (no connection, for example), so that nothing is known about it yet.
    pub retryable: bool,
    /// Whether the object could not be read, so that nothing is known of it.
    pub unread: bool,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Manifests whose signature and content are good.
    pub manifests: u64,
    /// Packs that are good.
    pub packs: u64,
    /// Directory parts that are good.
    pub directory_parts: u64,
    /// Frames in the good packs.
    pub frames: u64,
    /// Objects that were read, good or not.
    pub objects_read: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// The newest good manifest.
    pub head: Option<ChainHead>,
    /// The sequence number of the oldest manifest present (1 unless older ones were pruned).
    pub oldest_sequence: Option<u64>,
    /// Manifests that a cancelled snapshot stored after it was given up. Nothing reads them, and they are no problem.
    pub uncommitted: Vec<String>,
    /// Good manifests of chains that are not kept any more, so that their packs and directories were not looked for.
    pub pruned: u64,
    /// Packs and directory parts that belong to the snapshots, with their bytes, whether this run read them or not.
    pub listed: Vec<(String, u64)>,
    /// Of those, what was read and is good.
    pub good: Vec<String>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, object: &str, what: &(impl ToString + ?Sized)) {
        self.problems.push(Problem {
            object: object.to_owned(),
            what: what.to_string(),
            retryable: false,
            unread: false,
        });
    }

    fn failed_read(&mut self, object: &str, error: &RepositoryError) {
        let what = match error {
            RepositoryError::NotFound { .. } => "it is missing".to_owned(),
            RepositoryError::Corrupt { what, .. } => what.clone(),
            other => other.to_string(),
        };
        let unread = !matches!(error, RepositoryError::NotFound { .. } | RepositoryError::Corrupt { .. });
        self.problems.push(Problem { object: object.to_owned(), what, retryable: error.is_retryable(), unread });
    }

    fn count(&mut self, bytes: usize) {
        self.objects_read += 1;
        self.bytes_read += bytes as u64;
    }
}

/// Which backups to verify.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'s> {
    /// The installation they must belong to.
    pub installation: Id128,
    /// The store.
    pub store: Id128,
    /// The newest manifest as known outside the bucket. Without it a truncated newest history cannot be noticed.
    pub expected_head: Option<ChainHead>,
    /// Digests of manifests that were announced by snapshots which were cancelled then. Where one lies in the bucket all the
    /// same, it came late: it is named, and counts for nothing.
    pub cancelled: &'s [Sha256],
    /// Digests of manifests whose chain is not kept any more: what they name may be gone. They themselves must be there.
    pub pruned: &'s [Sha256],
    /// Read only a part of the packs and directory parts, and look for the others in the listing; otherwise all are read.
    pub sample: Option<Sample<'s>>,
}

/// Verifies all snapshots of one store.
///
/// # Errors
/// Only when the manifests cannot even be listed; everything else is a [`Problem`].
pub async fn verify_store(
    repository: &dyn ObjectStore,
    scope: Scope<'_>,
    verify_signature: VerifySignature<'_>,
) -> Result<Verification, RepositoryError> {
    let prefix = manifest_prefix(&scope.store);
    let names = repository.list(&prefix).await?;
    let mut report = Verification::default();
    let mut manifests = Vec::new();
    for listed in &names {
        match parse_manifest_name(&listed.name) {
            Some((_, _, sha256)) if scope.cancelled.contains(&sha256) => report.uncommitted.push(listed.name.clone()),
            Some((_, sequence, sha256)) => manifests.push((sequence, sha256, listed.name.as_str())),
            None => report.problem(&listed.name, "its name is not that of a manifest"),
        }
    }
    report.oldest_sequence = manifests.first().map(|(sequence, ..)| *sequence);
    check_sequence(&mut report, &prefix, &manifests, scope.expected_head);
    let mut before: Option<(u64, Sha256)> = None;
    let mut chains: BTreeMap<Sha256, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for (sequence, sha256, name) in manifests {
        if let Some(manifest) = read_manifest(repository, &mut report, scope, name, verify_signature).await {
            check_link(&mut report, name, &manifest, before);
            check_parent(&mut report, name, &manifest, &chains);
            chains.insert(sha256, manifest.chain);
            report.head = Some(ChainHead { sequence, sha256 });
            if scope.pruned.contains(&sha256) {
                report.pruned += 1;
                before = Some((sequence, sha256));
                continue;
            }
            let named = objects_of(&manifest).map(|object| (object.name(), object));
            objects.extend(named.filter(|(name, _)| seen.insert(name.clone())));
        }
        before = Some((sequence, sha256));
    }
    report.listed = objects.iter().map(|(name, object)| (name.clone(), object.bytes())).collect();
    if let Some(sample) = scope.sample {
        sample::look_for(repository, &mut report, &objects).await?;
        // What the listing has already told is not told twice, and takes nobody's turn.
        objects.retain(|(name, _)| report.problems.iter().all(|problem| problem.object != *name));
        objects = sample.choose(objects);
    }
    for (name, object) in objects {
        if verify_object(repository, &mut report, &name, object).await {
            report.good.push(name);
        }
    }
    Ok(report)
}

/// Gaps, forks and a cut-off end, from the names alone.
fn check_sequence(
    report: &mut Verification,
    prefix: &str,
    manifests: &[(u64, Sha256, &str)],
    expected: Option<ChainHead>,
) {
    for pair in manifests.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        if after == before {
            report.problem(pair[1].2, "a second manifest with the same sequence number");
        } else if after != before + 1 {
            report.problem(&format!("{prefix}{:010}", before + 1), "a manifest is missing in the sequence");
        }
    }
    let Some(expected) = expected else { return };
    let there =
        manifests.iter().any(|(sequence, sha256, _)| *sequence == expected.sequence && *sha256 == expected.sha256);
    let missing = format!("{prefix}{:010}-{}", expected.sequence, expected.sha256);
    if !there {
        report.problem(&missing, "the newest manifest known outside the bucket is missing");
    }
    for (_, _, name) in manifests.iter().filter(|(sequence, ..)| *sequence > expected.sequence) {
        report.problem(name, "newer than the newest manifest known outside the bucket");
    }
}

async fn read_manifest(
    repository: &dyn ObjectStore,
    report: &mut Verification,
    scope: Scope<'_>,
    name: &str,
    verify_signature: VerifySignature<'_>,
) -> Option<Manifest> {
    let bytes = match repository.get(name, MAX_MANIFEST_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => {
            report.failed_read(name, &error);
            return None;
        }
    };
    report.count(bytes.len());
    let opened = Manifest::open(name, &bytes, verify_signature);
    match opened {
        Ok(manifest) if manifest.installation == scope.installation => {
            report.manifests += 1;
            Some(manifest)
        }
        Ok(_) => {
            report.problem(name, "it belongs to another installation");
            None
        }
        Err(error) => {
            report.problem(name, &error);
            None
        }
    }
}

/// The hash chain: a manifest names its predecessor's digest. The oldest one present may have lost its predecessor.
fn check_link(report: &mut Verification, name: &str, manifest: &Manifest, before: Option<(u64, Sha256)>) {
    if let (Some((sequence, sha256)), Some(previous)) = (before, manifest.previous)
        && sequence + 1 == manifest.sequence
        && sha256 != previous
    {
        report.problem(name, "it does not follow the previous manifest (the hash chain is broken)");
    }
}

/// An increment is worth nothing without the snapshot that it continues, which is an earlier one of its chain.
fn check_parent(report: &mut Verification, name: &str, manifest: &Manifest, chains: &BTreeMap<Sha256, u64>) {
    let Some(parent) = manifest.parent else { return };
    match chains.get(&parent) {
        None => {
            report.problem(name, &format!("the snapshot that it continues is missing or not good: manifest {parent}"));
        }
        Some(chain) if *chain != manifest.chain => report.problem(name, "it continues a snapshot of another chain"),
        Some(_) => {}
    }
}

#[derive(Clone, Copy)]
enum Listed {
    Pack(PackRef),
    Part(PartRef),
}

impl Listed {
    fn name(&self) -> String {
        match self {
            Self::Pack(pack) => pack_name(&pack.sha256),
            Self::Part(part) => directory_name(&part.sha256),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Pack(pack) => pack.bytes,
            Self::Part(part) => part.bytes,
        }
    }
}

fn objects_of(manifest: &Manifest) -> impl Iterator<Item = Listed> {
    let packs = manifest.packs.iter().copied().map(Listed::Pack);
    packs.chain(manifest.directory.iter().copied().map(Listed::Part))
}

/// Reads an object; whether it is good.
async fn verify_object(repository: &dyn ObjectStore, report: &mut Verification, name: &str, object: Listed) -> bool {
    let problems = report.problems.len();
    match object {
        // The digest is computed once, with the structure: it is most of the work.
        Listed::Pack(pack) => match repository.get(name, max_pack_bytes()).await {
            Err(error) => report.failed_read(name, &error),
            Ok(bytes) => match verify_pack(&bytes, &pack.sha256, pack.bytes, pack.frames) {
                Err(PackError::OtherDigest) => {
                    report.count(bytes.len());
                    report.problem(name, "another SHA-256 than expected");
                }
                Err(error) => {
                    report.count(bytes.len());
                    report.problem(name, &error);
                }
                Ok(()) => {
                    report.count(bytes.len());
                    report.packs += 1;
                    report.frames += u64::from(pack.frames);
                }
            },
        },
        Listed::Part(part) => match get_verified(repository, name, &part.sha256, MAX_PART_BYTES).await {
            Err(error) => report.failed_read(name, &error),
            Ok(bytes) => {
                report.count(bytes.len());
                match directory_header(&bytes) {
                    Ok(_) if bytes.len() as u64 == part.bytes => report.directory_parts += 1,
                    Ok(_) => report.problem(name, "it has another length than its manifest says"),
                    Err(error) => report.problem(name, &error),
                }
            }
        },
    }
    report.problems.len() == problems
}

#[cfg(test)]
mod tests;
