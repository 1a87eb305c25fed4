//! Keyless verification of one snapshot of 64 packs (1 GiB; `verify quick` takes a sixteenth): from memory, so that only the program's own
//! work counts, and from the embedded server in the same process over loopback, the server's work and the transport counted with it.

#[expect(dead_code, reason = "other benchmarks need what this one does not")]
mod harness;

use std::collections::BTreeMap;

use async_trait::async_trait;
use harness::{Outcome, Row, Table, cpu_time};
use wangchuan::backup::codec::{Id128, Sha256};
use wangchuan::backup::embedded::{EmbeddedServer, EmbeddedSettings};
use wangchuan::backup::frame::{FrameContent, FrameKey, seal_frame};
use wangchuan::backup::manifest::{Manifest, PackRef, PartRef, SnapshotKind};
use wangchuan::backup::object_store::{ListedObject, ObjectStore, PutOutcome, RepositoryError};
use wangchuan::backup::pack::PackBuilder;
use wangchuan::backup::repository::{Patience, RepositoryCredentials, RepositorySettings, S3Repository};
use wangchuan::backup::verify::{Scope, verify_store};
use wangchuan::keys::Key;
use wangchuan::keys::suite::Suite;
use wangchuan::policy::registry::SecretText;
use wangchuan::random::{Random as _, SystemRandom};
use wangchuan::value::Value;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const INSTALLATION: Id128 = Id128([1; 16]);
const STORE: Id128 = Id128([2; 16]);
/// Content of a frame, as thirty rows of a customer have it.
const FRAME_BYTES: usize = 10 << 10;
const RUNS: usize = 3;

/// Objects in memory, given out as they are.
#[derive(Default)]
struct Held(BTreeMap<String, Vec<u8>>);

#[async_trait]
impl ObjectStore for Held {
    async fn put_if_absent(&self, _: &str, _: Vec<u8>) -> Result<PutOutcome, RepositoryError> {
        Err(RepositoryError::Settings("this store is only read".to_owned()))
    }

    async fn get(&self, name: &str, _: usize) -> Result<Vec<u8>, RepositoryError> {
        self.0.get(name).cloned().ok_or_else(|| RepositoryError::NotFound { name: name.to_owned() })
    }

    async fn get_range(&self, name: &str, _: u64, _: u32) -> Result<Vec<u8>, RepositoryError> {
        self.get(name, 0).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, RepositoryError> {
        let found = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, bytes)| ListedObject { name: name.clone(), bytes: bytes.len() as u64 }).collect())
    }

    async fn head(&self, name: &str) -> Result<Option<u64>, RepositoryError> {
        Ok(self.0.get(name).map(|bytes| bytes.len() as u64))
    }
}

fn pack(content: &[u8]) -> Result<(PackRef, String, Vec<u8>)> {
    let mut builder = PackBuilder::new(Id128::make(&SystemRandom)?);
    while !builder.is_full() {
        let id = Id128::make(&SystemRandom)?;
        let rows = vec![vec![Value::Blob(content.to_vec())]];
        let content = FrameContent { collection: 1, chunk: 0, columns: vec![0], rows };
        let key = FrameKey { encryption: Key::dangerous_from_bytes(&[5; 32]), commitment: [7; 32] };
        builder.append(&seal_frame(&content, Suite::Intl, id, &key, &builder.next_context(INSTALLATION))?)?;
    }
    let pack = builder.finish();
    let reference = PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames };
    Ok((reference, pack.name(), pack.bytes))
}

fn snapshot(packs: u32) -> Result<Held> {
    let mut held = Held::default();
    let mut content = vec![0; FRAME_BYTES];
    SystemRandom.fill(&mut content)?;
    let mut references = Vec::new();
    for _ in 0..packs {
        let (reference, name, bytes) = pack(&content)?;
        held.0.insert(name, bytes);
        references.push(reference);
    }
    let time = chrono::DateTime::from_timestamp(1_800_000_000, 0).ok_or("no such time")?;
    let manifest = Manifest {
        format_version: 1,
        installation: INSTALLATION,
        store: STORE,
        snapshot: Id128([3; 16]),
        kind: SnapshotKind::Full,
        chain: 1,
        sequence: 1,
        previous: None,
        parent: None,
        ledger_position: 0,
        begun: time,
        committed: time,
        frames: references.iter().map(|pack| u64::from(pack.frames)).sum(),
        packs: references,
        // There must be one; it is not looked at here.
        directory: vec![PartRef { sha256: Sha256::of(b"no part"), bytes: 1 }],
    };
    let signed = manifest.sign("k", &|_| Ok(vec![1; 64]))?;
    held.0.insert(signed.name, signed.bytes);
    Ok(held)
}

async fn measure(name: &str, store: &dyn ObjectStore) -> Result<Row> {
    let scope = Scope {
        installation: INSTALLATION,
        store: STORE,
        expected_head: None,
        cancelled: &[],
        pruned: &[],
        sample: None,
    };
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let before = cpu_time();
        let found = verify_store(store, scope, &|_, _, _| true).await?;
        let taken = cpu_time().saturating_sub(before).as_secs_f64();
        if found.problems.iter().any(|problem| problem.object.starts_with("packs/")) {
            return Err(format!("{:?}", found.problems).into());
        }
        rates.push(found.bytes_read as f64 / 1e6 / taken);
    }
    Ok(Row { name: name.to_owned(), cells: vec![format!("{:.0}", harness::median(rates))] })
}

async fn served(held: &Held, folder: &std::path::Path) -> Result<(EmbeddedServer, S3Repository)> {
    let settings = EmbeddedSettings {
        root: folder.to_owned(),
        port: 0,
        access_key: "bench".to_owned(),
        secret_key: SecretText::new("secret-of-the-bench".to_owned()),
        bucket: "bucket".to_owned(),
    };
    let server = EmbeddedServer::start(settings).await?;
    let repository = S3Repository::connect(&RepositorySettings {
        endpoint: Some(format!("http://{}", server.address())),
        region: "us-east-1".to_owned(),
        bucket: "bucket".to_owned(),
        prefix: String::new(),
        path_style: true,
        credentials: RepositoryCredentials::Keys {
            access_key: "bench".to_owned(),
            secret_key: SecretText::new("secret-of-the-bench".to_owned()),
            session_token: None,
        },
        ca_pem: None,
        patience: Patience::default(),
        lock: None,
    })
    .await?;
    for (name, bytes) in &held.0 {
        repository.put_if_absent(name, bytes.clone()).await?;
    }
    Ok((server, repository))
}

fn main() -> Outcome {
    let packs = if std::env::args().any(|argument| argument == "quick") { 4 } else { 64 };
    let held = snapshot(packs)?;
    let digest: usize = held.0.values().map(Vec::len).sum();
    let mut table =
        Table::new(&format!("keyless verification of {} MB, processor time", digest / 1_000_000), &["MB/s"]);
    let before = cpu_time();
    for bytes in held.0.values() {
        std::hint::black_box(Sha256::of(bytes));
    }
    let rate = digest as f64 / 1e6 / cpu_time().saturating_sub(before).as_secs_f64();
    table.push(Row { name: "SHA-256 alone".to_owned(), cells: vec![format!("{rate:.0}")] });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        table.push(measure("from memory", &held).await?);
        let folder = tempfile::tempdir()?;
        let (server, repository) = served(&held, folder.path()).await?;
        table.push(measure("from the embedded server, its work counted too", &repository).await?);
        server.stop().await;
        Outcome::Ok(())
    })?;
    table.print();
    Ok(())
}
