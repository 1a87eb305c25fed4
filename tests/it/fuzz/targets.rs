//! The parsers, each with golden bytes and what it makes of an input.

use std::path::Path;

use serde_json::Value as Json;
use wangchuan::audit::acknowledgement;
use wangchuan::audit::key_history::{HeldKey, KeyHistory};
use wangchuan::audit::receipt::{self, LogOperator};
use wangchuan::audit::stamp::{self, StampTrust};
use wangchuan::audit::trust::{Trust, TrustedLog, Window};
use wangchuan::backup::codec::{Id128, Sha256};
use wangchuan::backup::directory;
use wangchuan::backup::frame::{FrameContext, FrameKey, open_frame};
use wangchuan::backup::manifest::{Manifest, parse_manifest_name};
use wangchuan::backup::pack::{pack_id, read_pack};
use wangchuan::backup::removed::open_removed;
use wangchuan::backup::state_record::{self, RecordName, RootName, StateHeads, StateRecord};
use wangchuan::certify::dsse::{Envelope, pae};
use wangchuan::certify::evidence_pack::{EvidencePack, EvidencePackStatement, LogPart, read_manifest, signed_manifest};
use wangchuan::certify::report::{Report, Totals, read_report, signed_report};
use wangchuan::certify::signer::{CertificateSigner, PublicKey, TrustedKeys, open_signed};
use wangchuan::certify::statement::{Digest, Issuer, Subject};
use wangchuan::keys::Key;
use wangchuan::keys::sealed::open_column;
use wangchuan::keys::signing::SigningKind;
use wangchuan::keys::suite::{self, Suite, derive_key, mac};
use wangchuan::keys::tree::{KeyTree, NodeSet};
use wangchuan::log::archive::{ArchiveChain, ArchiveHeader, ArchivedEntry, archive_name, write_archive};
use wangchuan::log::checkpoint::{CheckpointKey, CheckpointSigner};
use wangchuan::log::cosignature::{Quorum, WitnessKey};
use wangchuan::log::excerpt::{ExcerptHeader, read_excerpt, write_excerpt};
use wangchuan::log::key_file::decode_pem;
use wangchuan::log::record::commitment;
use wangchuan::log::tiles::Tile;
use wangchuan::log::tree::{Frontier, leaf_hash};
use wangchuan::random::SystemRandom;
use wangchuan::schedule::cron::Cron;
use wangchuan::schedule::declaration::parse_job;

/// A parser.
pub struct Target {
    /// The entry point, `file::function`.
    pub name: &'static str,
    /// Bytes that it accepts.
    pub golden: Vec<Vec<u8>>,
    /// Whether it must refuse everything that means something else.
    pub is_authenticated: bool,
    /// What it makes of an input; none when it refuses.
    pub read: Read,
}

/// Reads an input.
pub type Read = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/vectors").join(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(vector(name)).unwrap()
}

fn open(name: &'static str, golden: Vec<Vec<u8>>, read: impl Fn(&[u8]) -> Option<Vec<u8>> + 'static) -> Target {
    Target { name, golden, is_authenticated: false, read: Box::new(read) }
}

fn sealed(name: &'static str, golden: Vec<Vec<u8>>, read: impl Fn(&[u8]) -> Option<Vec<u8>> + 'static) -> Target {
    Target { is_authenticated: true, ..open(name, golden, read) }
}

fn shown(value: &impl std::fmt::Debug) -> Vec<u8> {
    format!("{value:?}").into_bytes()
}

/// Text parsers see what is text.
fn as_text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Everything that is fuzzed.
pub fn targets() -> Vec<Target> {
    let mut all = backup_targets();
    all.extend(state_targets());
    all.extend(key_targets());
    all.extend(proof_targets());
    all.extend(text_targets());
    all
}

const INSTALLATION: Id128 = Id128([0x11; 16]);
const PACK: Id128 = Id128([0x22; 16]);
const SNAPSHOT: Id128 = Id128([0x33; 16]);

/// The keys of the golden vectors.
fn vector_key(id: &Id128) -> FrameKey {
    let secret = Key::dangerous_from_bytes(&[0x77; 32]);
    FrameKey {
        encryption: derive_key(Suite::Intl, &secret, &[b"vector key", &id.0]),
        commitment: mac(Suite::Intl, &secret, &[b"vector commitment", &id.0]),
    }
}

fn place(ordinal: u32) -> FrameContext {
    FrameContext { repository: INSTALLATION, pack: PACK, ordinal }
}

fn frame_id(byte: u8) -> Id128 {
    Id128([byte; 16])
}

fn backup_targets() -> Vec<Target> {
    let pack = vector("backup/pack.bin");
    let digest = Sha256::of(&pack);
    let manifest = vector("backup/manifest.json");
    let trusted = |key: &str, pae: &[u8], signature: &[u8]| {
        key == "vector" && Sha256::of_parts(&[b"vector signature", pae]).0 == *signature
    };
    let name = format!("manifests/{}/0000000002-{}", "44".repeat(16), Sha256::of(&manifest));
    vec![
        sealed("backup/pack.rs::read_pack", vec![pack.clone()], move |bytes| {
            read_pack(bytes, &digest).ok().map(|read| shown(&read))
        }),
        open("backup/pack.rs::read_pack of its own digest", vec![pack.clone()], |bytes| {
            read_pack(bytes, &Sha256::of(bytes)).ok().map(|read| shown(&read))
        }),
        open("backup/pack.rs::pack_id", vec![pack], |bytes| pack_id(bytes).ok().map(|id| id.0.to_vec())),
        sealed("backup/frame.rs::open_frame", vec![vector("backup/frame-intl.bin")], |bytes| {
            open_frame(bytes, &vector_key(&frame_id(0x55)), &place(0)).ok().map(|content| shown(&content.rows))
        }),
        sealed("backup/frame.rs::open_frame of SM4", vec![vector("backup/frame-gm.bin")], |bytes| {
            open_frame(bytes, &vector_key(&frame_id(0x66)), &place(1)).ok().map(|content| shown(&content.rows))
        }),
        sealed("backup/removed.rs::open_removed", vec![vector("backup/frame-removed.bin")], |bytes| {
            open_removed(bytes, &vector_key(&frame_id(0x55)), &place(0)).ok().map(|removed| shown(&removed.rows))
        }),
        sealed("backup/directory.rs::open_part", vec![vector("backup/directory.bin")], |bytes| {
            let part = directory::open_part(bytes, INSTALLATION, SNAPSHOT, 0, &vector_key).ok()?;
            Some(shown(&part.entries))
        }),
        open("backup/directory.rs::read_entries", vec![entries()], |bytes| {
            directory::read_entries(bytes).ok().map(|entries| shown(&entries))
        }),
        sealed("backup/manifest.rs::open", vec![manifest.clone()], move |bytes| {
            Manifest::open(&name, bytes, &trusted).ok().map(|manifest| shown(&manifest))
        }),
        open("backup/manifest.rs::open under the name of the bytes", vec![manifest], move |bytes| {
            let name = format!("manifests/{}/0000000002-{}", "44".repeat(16), Sha256::of(bytes));
            Manifest::open(&name, bytes, &|_, _, _| true).ok().map(|manifest| shown(&manifest))
        }),
    ]
}

/// The entries of the golden directory, as they are kept while a snapshot is taken.
fn entries() -> Vec<u8> {
    let part = directory::open_part(&vector("backup/directory.bin"), INSTALLATION, SNAPSHOT, 0, &vector_key).unwrap();
    directory::write_entries(&part.entries)
}

fn state_targets() -> Vec<Target> {
    let key = || Key::dangerous_from_bytes(&[9; 32]);
    let record = StateRecord {
        number: 4,
        generation: 2,
        previous: Some(Sha256([5; 32])),
        at: chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        heads: StateHeads { ledger: 1, snapshots: 2, certificates: 3, lease_token: 4 },
        counted: Sha256([6; 32]),
        files: Vec::new(),
        pieces: Vec::new(),
    };
    let made = record.seal(INSTALLATION, &key(), &SystemRandom).unwrap();
    let (part, object) = state_record::seal_part(&[3; 5000], INSTALLATION, &SystemRandom).unwrap();
    let name = made.name;
    vec![
        sealed("backup/state_record.rs::open", vec![made.bytes.clone()], move |bytes| {
            let record = StateRecord::open(bytes, &name, INSTALLATION, &key()).ok()?;
            Some(shown(&(record.number, record.generation, record.previous, record.heads, record.counted)))
        }),
        sealed("backup/state_record.rs::open under the name of the bytes", vec![made.bytes], move |bytes| {
            let name = RecordName { sha256: Sha256::of(bytes), ..name };
            let record = StateRecord::open(bytes, &name, INSTALLATION, &key()).ok()?;
            Some(shown(&(record.number, record.generation, record.previous, record.heads, record.counted)))
        }),
        sealed("backup/state_record.rs::open_part", vec![object], move |bytes| {
            state_record::open_part(bytes, &part, INSTALLATION).ok()
        }),
    ]
}

fn key_targets() -> Vec<Target> {
    let columns: Vec<Json> = serde_json::from_str(&text("keys/column.json")).unwrap();
    let hexed = |value: &Json| hex::decode(value.as_str().unwrap()).unwrap();
    let column = columns[0].clone();
    let key: [u8; 32] = hexed(&column["key"]).try_into().unwrap();
    let context: Vec<Vec<u8>> = column["context"].as_array().unwrap().iter().map(|part| hexed(&part["part"])).collect();
    let crowns: Vec<Json> = serde_json::from_str(&text("keys/crown.json")).unwrap();
    let crown = crowns[0].clone();
    let installation: [u8; 16] = hexed(&crown["installation"]).try_into().unwrap();
    let root: [u8; 32] = hexed(&crown["key"]).try_into().unwrap();
    let generation = crown["generation"].as_i64().unwrap();
    let mut message = b"one sealed message of the suite".to_vec();
    suite::seal(Suite::Gm, &Key::dangerous_from_bytes(&[8; 32]), [1; 12], b"place", &mut message).unwrap();
    vec![
        sealed("keys/sealed.rs::open_column", vec![hexed(&column["sealed"])], move |bytes| {
            let context: Vec<&[u8]> = context.iter().map(Vec::as_slice).collect();
            open_column(&Key::dangerous_from_bytes(&key), &context, bytes).ok().map(|plain| plain.to_vec())
        }),
        sealed("keys/tree.rs::open", vec![hexed(&crown["sealed"])], move |bytes| {
            let root = Key::dangerous_from_bytes(&root);
            KeyTree::open(installation, generation, &root, bytes, NodeSet::new()).ok().map(|_| Vec::new())
        }),
        sealed("keys/suite.rs::open", vec![message], |bytes| {
            let mut sealed = bytes.to_vec();
            let key = Key::dangerous_from_bytes(&[8; 32]);
            suite::open(Suite::Gm, &key, [1; 12], b"place", &mut sealed).ok().map(|()| sealed)
        }),
    ]
}

fn proof_targets() -> Vec<Target> {
    let key = PublicKey::from_pem(&text("proof/certificate-key.pem")).unwrap();
    let spki = decode_pem("PUBLIC KEY", &text("proof/certificate-key.pem")).unwrap();
    let log = CheckpointKey::parse(text("proof/checkpoint.vkey").trim()).unwrap();
    let certificate = vector("proof/certificate.json");
    let envelope = Envelope::parse(&certificate).unwrap();
    let trusted = [key.clone()].into_iter().collect();
    let signer = key.clone();
    let trust = trust_file(&key, &log);
    vec![
        open("certify/dsse.rs::parse", vec![certificate.clone()], |bytes| {
            Envelope::parse(bytes).ok().map(|envelope| envelope.payload().to_vec())
        }),
        sealed("certify/mod.rs::verify", vec![certificate], move |bytes| {
            wangchuan::certify::verify(bytes, &trusted).ok().map(|verified| shown(&verified.said))
        }),
        open("certify/signer.rs::from_spki", vec![spki], |bytes| {
            PublicKey::from_spki(bytes).ok().map(|key| key.key_id().as_bytes().to_vec())
        }),
        open("certify/signer.rs::from_pem", vec![vector("proof/certificate-key.pem")], |bytes| {
            PublicKey::from_pem(&as_text(bytes)).ok().map(|key| key.key_id().as_bytes().to_vec())
        }),
        open("log/key_file.rs::decode_pem", vec![vector("proof/certificate-key.pem")], |bytes| {
            decode_pem("PUBLIC KEY", &as_text(bytes))
        }),
        open("log/checkpoint.rs::parse", vec![vector("proof/checkpoint.vkey")], |bytes| {
            CheckpointKey::parse(as_text(bytes).trim()).ok().map(|key| shown(&key))
        }),
        sealed("log/checkpoint.rs::open", vec![vector("proof/checkpoint.txt")], {
            let log = log.clone();
            move |bytes| log.open(&as_text(bytes)).ok().map(|signed| shown(&signed.checkpoint))
        }),
        sealed("audit/receipt.rs::verify", vec![vector("proof/receipt.json")], move |bytes| {
            let receipt = receipt::verify(bytes, &envelope, &signer, &log).ok()?;
            Some(shown(&(receipt.index, receipt.tree_size, receipt.root)))
        }),
        open("audit/webhook.rs::parse", vec![b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".to_vec()], |bytes| {
            wangchuan::audit::webhook::WebhookSecret::parse(&as_text(bytes)).ok().map(|_| Vec::new())
        }),
        sealed("audit/stamp.rs::verify", stamps(), {
            let envelope = Envelope::parse(&vector("proof/certificate.json")).unwrap();
            let roots = StampTrust::from_pem(&vector("proof/time-stamp-roots.pem")).unwrap();
            move |bytes| {
                let stamp = stamp::verify(bytes, envelope.signature(), &roots, None).ok()?;
                Some(shown(&(stamp.at, stamp.authority, stamp.chain)))
            }
        }),
        open("audit/stamp/asn1.rs::read_granted", stamps(), |bytes| {
            wangchuan::audit::stamp::asn1::Reply::read_granted(bytes).ok().map(|token| shown(&token))
        }),
        open("audit/stamp.rs::from_pem", vec![vector("proof/time-stamp-roots.pem")], |bytes| {
            StampTrust::from_pem(bytes).ok().map(|roots| shown(&roots.roots().map(<[u8]>::to_vec).collect::<Vec<_>>()))
        }),
        sealed("audit/key_history.rs::open", vec![record_of_keys()], |bytes| {
            KeyHistory::open(bytes).ok().map(|history| shown(&history.keys))
        }),
        acknowledged(),
        acknowledgers(),
        excerpt(),
        evidence_pack(),
        report(),
        signed_file(),
        open("audit/trust.rs::parse", vec![trust], |bytes| Trust::parse(bytes).ok().map(|_| Vec::new())),
        archive_target(),
    ]
}

/// What a webhook's audit service signed for the certificate of the vectors.
fn acknowledged() -> Target {
    let own: TrustedKeys = [PublicKey::from_pem(&text("proof/certificate-key.pem")).unwrap()].into_iter().collect();
    let certificate = wangchuan::certify::verify(&vector("proof/certificate.json"), &own).unwrap();
    let keys = acknowledgement::read_keys(&vector("proof/acknowledgement-keys.pem")).unwrap();
    let now = certificate.issued_at() + chrono::TimeDelta::days(1);
    sealed("audit/acknowledgement.rs::verify", vec![vector("proof/acknowledgement.json")], move |bytes| {
        acknowledgement::verify(bytes, &certificate, &keys, now).ok().map(|found| shown(&found))
    })
}

fn acknowledgers() -> Target {
    open("audit/acknowledgement.rs::read_keys", vec![vector("proof/acknowledgement-keys.pem")], |bytes| {
        let keys = acknowledgement::read_keys(bytes).ok()?;
        Some(shown(&keys.iter().map(PublicKey::key_id).collect::<Vec<_>>()))
    })
}

/// A part of a log with three entries, the last of which has expired.
fn excerpt() -> Target {
    let signer = CheckpointSigner::from_pkcs8("a.example/log", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap());
    let signer = signer.unwrap();
    let entry = |index: u64| {
        let record = format!("{{\"time\":{}}}", index * 1000);
        ArchivedEntry {
            index,
            time: format!("1970-01-01T00:00:0{index}.000Z"),
            commitment: hex::encode(commitment(&[7; 32], record.as_bytes())),
            salt: (index < 2).then(|| hex::encode([7; 32])),
            record: (index < 2).then_some(record),
        }
    };
    let entries: Vec<ArchivedEntry> = (0..3).map(entry).collect();
    let mut tree = Frontier::default();
    let mut header = ExcerptHeader::new("a.example/log", &tree, 3);
    for entry in &entries {
        tree.append(leaf_hash(&hex::decode(&entry.commitment).unwrap()), |_, _| {});
    }
    (header.root, header.head) = (hex::encode(tree.root()), signer.sign(3, tree.root()).note);
    let golden = write_excerpt(&header, &entries).unwrap().into_bytes();
    let key = signer.key().clone();
    sealed("log/excerpt.rs::read_excerpt", vec![golden], move |bytes| {
        let read = read_excerpt(&as_text(bytes), &key).ok()?;
        Some(shown(&(read.first(), read.roots(&(0..=3).collect()))))
    })
}

/// The manifest of a pack with one file.
fn evidence_pack() -> Target {
    let signer = CertificateSigner::in_memory().unwrap();
    let day = chrono::NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
    let time = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let subject = Subject { name: "holds.json".to_owned(), digest: Digest { sha256: "ab".repeat(32) } };
    let issuer = Issuer {
        controller: "shop".to_owned(),
        agent_id: "11".repeat(16),
        agent_version: "1".to_owned(),
        environment: "test".to_owned(),
    };
    let pack = EvidencePack {
        pack_id: "01a200dd-ae98-7942-a219-b5ae24273a9e".to_owned(),
        issuer,
        from: day,
        to: day,
        timezone: "UTC".to_owned(),
        since: time.into(),
        until: time.into(),
        made_at: time.into(),
        certificates: None,
        drills: None,
        operation_log: LogPart { verifier_key: "k".to_owned(), first: 0, entries: 1 },
        policy_digest: "ab".repeat(32),
    };
    let (payload, message) = EvidencePackStatement::new(vec![subject], pack).to_sign().unwrap();
    let golden = signed_manifest(payload, signer.sign(&message).unwrap(), signer.public().key_id());
    let trusted = [signer.public().clone()].into_iter().collect();
    sealed("certify/evidence_pack.rs::read_manifest", vec![golden], move |bytes| {
        read_manifest(bytes, &trusted).ok().map(|(manifest, _)| shown(&manifest))
    })
}

/// A report of one day.
fn report() -> Target {
    let signer = CertificateSigner::in_memory().unwrap();
    let day = chrono::NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
    let time = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let report = Report {
        format_version: Report::version(),
        agent_id: "11".repeat(16),
        from: day,
        to: day,
        timezone: "UTC".to_owned(),
        since: time.into(),
        until: time.into(),
        made_at: time.into(),
        totals: Totals { roll_ups: 7, ..Totals::default() },
    };
    let (payload, message) = report.to_sign().unwrap();
    let golden = signed_report(payload, signer.sign(&message).unwrap(), signer.public().key_id());
    let trusted = [signer.public().clone()].into_iter().collect();
    sealed("certify/report.rs::read_report", vec![golden], move |bytes| {
        read_report(bytes, &trusted).ok().map(|(report, _)| shown(&report))
    })
}

/// A signed file of any type.
fn signed_file() -> Target {
    let signer = CertificateSigner::in_memory().unwrap();
    let payload = b"anything".to_vec();
    let golden = signer.sign(&pae("text/plain", &payload)).unwrap();
    let golden = Envelope::make("text/plain", payload, golden, signer.public().key_id()).as_bytes().to_vec();
    let trusted = [signer.public().clone()].into_iter().collect();
    sealed("certify/signer.rs::open_signed", vec![golden], move |bytes| {
        open_signed(bytes, "text/plain", &trusted).ok().map(|envelope| envelope.payload().to_vec())
    })
}

/// A month of an operation log: three entries, of which the content of one has expired. Whatever is accepted has the tree of these.
fn archive_target() -> Target {
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    let signer = CheckpointSigner::from_pkcs8("fuzz.example/oplog", &pkcs8).unwrap();
    let mut tree = Frontier::default();
    let entries: Vec<ArchivedEntry> = (0..3)
        .map(|index| {
            let at = chrono::DateTime::from_timestamp(1_773_000_000 + index, 0).unwrap();
            let record = format!("{{\"time\":{},\"api\":{{\"operation\":\"plan.new\"}}}}", at.timestamp_millis());
            let held = commitment(&[7; 32], record.as_bytes());
            tree.append(leaf_hash(&held), |_, _| {});
            let (salt, record) = if index == 1 { (None, None) } else { (Some(hex::encode([7; 32])), Some(record)) };
            let (time, commitment) = (at.to_rfc3339(), hex::encode(held));
            ArchivedEntry { index: index as u64, time, commitment, salt, record }
        })
        .collect();
    let mut header = ArchiveHeader::new("2026-03".to_owned(), "fuzz.example/oplog".to_owned(), 0, 3);
    header.root = hex::encode(tree.root());
    header.head = signer.sign(3, tree.root()).note;
    let golden = write_archive(&header, &entries).unwrap();
    let key = signer.key().clone();
    sealed("log/archive.rs::check_next", vec![golden.into_bytes()], move |bytes| {
        let mut chain = ArchiveChain::default();
        let text = as_text(bytes);
        chain.check_next(&archive_name("2026-03"), &text, &key, None).ok()?;
        Some(shown(&(chain.size(), chain.month().map(str::to_owned))))
    })
}

/// A record of signing keys with one key.
fn record_of_keys() -> Vec<u8> {
    let signer = CertificateSigner::in_memory().unwrap();
    let start = chrono::DateTime::from_timestamp(1_800_000_000, 0);
    let history = KeyHistory::of(HeldKey::new(signer.public(), SigningKind::File, "", start));
    let (payload, message) = history.to_sign().unwrap();
    KeyHistory::signed(payload, signer.sign(&message).unwrap(), signer.public().key_id())
}

/// Replies of time-stamping authorities.
fn stamps() -> Vec<Vec<u8>> {
    ["rsa", "ec", "sha1-name"].map(|kind| vector(&format!("proof/time-stamp-{kind}.tsr"))).to_vec()
}

/// A trust file of one signer and one log.
fn trust_file(key: &PublicKey, log: &CheckpointKey) -> Vec<u8> {
    let window = Window { start: chrono::DateTime::from_timestamp(1_800_000_000, 0), end: None };
    let log = TrustedLog { key: log.clone(), window, operator: LogOperator::SelfHosted };
    let quorum = Quorum::new(Vec::new(), 0).unwrap();
    let (stamps, stamp_chains) = (StampTrust::default(), Vec::new());
    let signers = vec![(key.clone(), window)];
    let operation_logs = vec![log.key.clone()];
    let acknowledgers = [key.clone()].into_iter().collect();
    let ended = Vec::new();
    let trust = Trust { ended, signers, logs: vec![log], acknowledgers, operation_logs, quorum, stamps, stamp_chains };
    trust.to_json().to_string().into_bytes()
}

fn files_in(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == ending)).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn text_targets() -> Vec<Target> {
    let scratch = tempfile::tempdir().unwrap().keep();
    let digest = "ab".repeat(32);
    let names = |names: &[String]| names.iter().map(|name| name.clone().into_bytes()).collect::<Vec<_>>();
    let zone = chrono_tz::Asia::Shanghai;
    vec![
        open("schedule/declaration.rs::parse_job", files_in("jobs", "toml"), move |bytes| {
            parse_job(Path::new("job.toml"), &as_text(bytes), zone).ok().map(|job| shown(&job.task))
        }),
        open(
            "schedule/cron.rs::parse",
            names(&["0 5 1,4 */2 mon-fri".to_owned(), "@daily".to_owned()]),
            move |bytes| Cron::parse(&as_text(bytes), zone).ok().map(|_| Vec::new()),
        ),
        open("config/mod.rs::load", vec![std::fs::read(root().join("config/example-sqlite.toml")).unwrap()], {
            let file = scratch.join("wangchuan.toml");
            move |bytes| {
                std::fs::write(&file, bytes).unwrap();
                let secret = |_: &str| Some("a secret that is long enough".to_owned());
                // Whether all that it names is there is not the question.
                let _ = wangchuan::config::load(&file, &secret);
                Some(Vec::new())
            }
        }),
        open(
            "backup/manifest.rs::parse_manifest_name",
            names(&[format!("manifests/{}/0000000002-{digest}", "44".repeat(16))]),
            |bytes| parse_manifest_name(&as_text(bytes)).map(|name| shown(&name)),
        ),
        open("backup/state_record.rs::parse", names(&[format!("state/0000000042-0000000007-{digest}")]), |bytes| {
            RecordName::parse(&as_text(bytes)).map(|name| shown(&name.text()))
        }),
        open(
            "backup/state_record.rs::parse of a root",
            names(&[format!("state-roots/0000000007-{digest}")]),
            |bytes| RootName::parse(&as_text(bytes)).map(|name| shown(&name.text())),
        ),
        open("backup/codec.rs::parse", names(&[digest, "44".repeat(16)]), |bytes| {
            let (text, id) = (as_text(bytes), Id128::parse(&as_text(bytes)));
            Sha256::parse(&text).map(|sha256| sha256.0.to_vec()).or(id.map(|id| id.0.to_vec()))
        }),
        open(
            "log/tiles.rs::parse",
            names(&["0/x001/234".to_owned(), "1/000.p/7".to_owned(), "entries/005".to_owned()]),
            |bytes| Tile::parse(&as_text(bytes)).map(|tile| shown(&tile)),
        ),
        open("log/cosignature.rs::parse", vec![witness()], |bytes| {
            WitnessKey::parse(as_text(bytes).trim()).ok().map(|_| Vec::new())
        }),
    ]
}

/// A witness's verifier key.
fn witness() -> Vec<u8> {
    WitnessKey::new("witness.example", [7; 32]).unwrap().verifier_key().into_bytes()
}
