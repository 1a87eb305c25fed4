//! The audit service in a process of its own, killed in the middle of filings.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::tests::{certificate_signer, client, id, index_of, log_signer, serve};
use super::{AuditSink, FiledOutcome};
use crate::certify::dsse::Envelope;
use crate::certify::tests::{sample_with_id, trusted};
use crate::certify::{issue, verify};
use crate::control::log_store::SqliteLogStore;
use crate::log::store::LeafStore;
use crate::log::verify::verify_log;

const CHILD_FOLDER: &str = "WANGCHUAN_TEST_AUDIT_FOLDER";

/// Not a test by itself: the service in a process of its own, until it is killed.
#[test]
#[ignore = "run as a child process by `a_killed_service_loses_and_repeats_nothing`"]
fn serve_until_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let service = serve(Path::new(&folder)).await;
        let address = Path::new(&folder).join("address");
        std::fs::write(address.with_extension("new"), service.address().to_string()).unwrap();
        std::fs::rename(address.with_extension("new"), address).unwrap();
        std::future::pending::<()>().await;
    });
}

/// Kills its process when dropped, so that a failing test leaves none behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn spawn_service(folder: &Path) -> (Killed, String) {
    let address = folder.join("address");
    let _ = std::fs::remove_file(&address);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit::kill_tests::serve_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    for _ in 0..2000 {
        if let Ok(text) = std::fs::read_to_string(&address) {
            return (child, format!("http://{}", text.parse::<SocketAddr>().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the service did not start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let signer = certificate_signer(path);
    log_signer(path);
    let envelopes: Vec<Envelope> = (0..400).map(|n| issue(&sample_with_id(&id(n)), &signer).unwrap()).collect();
    let mut known: Vec<Option<u64>> = vec![None; envelopes.len()];
    for round in 0..6u64 {
        let (child, url) = spawn_service(path).await;
        let sink = Arc::new(client(path, &url));
        let mut tasks = Vec::new();
        for (number, envelope) in envelopes.iter().enumerate() {
            let (sink, bytes) = (sink.clone(), envelope.as_bytes().to_vec());
            tasks.push(tokio::spawn(async move { sink.file(&id(number), &bytes).await }));
        }
        if round < 5 {
            // SIGKILL at another moment each time, in the middle of the filings.
            tokio::time::sleep(Duration::from_millis(15 + 23 * round)).await;
            drop(child);
            for (number, task) in tasks.into_iter().enumerate() {
                if let FiledOutcome::Receipted(filed) = task.await.unwrap() {
                    let before = known[number].replace(filed.verified.index);
                    assert!(before.is_none_or(|before| before == filed.verified.index));
                }
            }
            continue;
        }
        let mut places = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            let place = index_of(&task.await.unwrap());
            assert!(known[number].is_none_or(|before| before == place), "a receipted place never changes");
            places.push(place);
        }
        places.sort_unstable();
        assert_eq!(places, (0..400).collect::<Vec<_>>(), "each certificate stands exactly once");
        drop(child);
    }
    let store = SqliteLogStore::open(&path.join("audit.db"), "certificates").await.unwrap();
    let anchor = std::fs::read_to_string(path.join("anchor")).unwrap();
    let report = verify_log(&store, log_signer(path).key(), Some(&anchor)).await.unwrap();
    assert_eq!((report.leaves, report.unsigned), (400, 0));
    // The envelopes are stored as they were filed.
    let stored = store.leaves(0..400).await.unwrap();
    for leaf in stored {
        verify(&leaf.content.unwrap(), &trusted(&signer)).unwrap();
    }
}
