//! The audit service in a process of its own, killed in the middle of filings.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::receipt::check_content;
use super::tests::{certificate_signer, client, id, index_of, log_signer, serve};
use super::{AuditSink, FiledOutcome};
use crate::certify::dsse::Envelope;
use crate::certify::issue;
use crate::certify::tests::{sample_with_id, trusted};
use crate::control::log_store::SqlLogStore;
use crate::log::store::StoredLeaf;
use crate::log::verify::verify_log;

const CHILD_FOLDER: &str = "WANGCHUAN_TEST_AUDIT_FOLDER";

/// The service in a process of its own, until it is killed; does nothing unless the kill test starts it as its child.
#[test]
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
        .args(["--exact", "audit::kill_tests::serve_until_killed", "--nocapture"])
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
    for round in 0..6 {
        let (child, url) = spawn_service(path).await;
        let (sink, receipted) = (Arc::new(client(path, &url)), Arc::new(AtomicUsize::new(0)));
        let at_once = Arc::new(Semaphore::new(24));
        let mut tasks = Vec::new();
        // Another order each round, so that filed and new certificates are mixed.
        for place in 0..envelopes.len() {
            let number = (place * 171 + round * 53) % envelopes.len();
            let (sink, receipted, at_once) = (sink.clone(), receipted.clone(), at_once.clone());
            let bytes = envelopes[number].as_bytes().to_vec();
            tasks.push(tokio::spawn(async move {
                let _permit = at_once.acquire().await.unwrap();
                let outcome = sink.file(&id(number), &bytes).await;
                receipted.fetch_add(usize::from(matches!(outcome, FiledOutcome::Receipted(_))), Ordering::SeqCst);
                (number, outcome)
            }));
        }
        if round < 5 {
            // SIGKILL while the next filings are on their way, at another stage each round.
            let enough = async {
                while receipted.load(Ordering::SeqCst) < 20 + 37 * round {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_mins(2), enough).await.unwrap();
            drop(child);
        }
        let mut unanswered = 0;
        for task in tasks {
            let (number, outcome) = task.await.unwrap();
            if round < 5 && !matches!(outcome, FiledOutcome::Receipted(_)) {
                unanswered += 1;
                continue;
            }
            let place = index_of(&outcome);
            let before = known[number].replace(place);
            assert!(before.is_none_or(|before| before == place), "a receipted place never changes");
        }
        assert_eq!(unanswered > 0, round < 5, "the kill came in the middle");
    }
    let mut places: Vec<u64> = known.into_iter().flatten().collect();
    places.sort_unstable();
    assert_eq!(places, (0..400).collect::<Vec<_>>(), "each certificate stands exactly once");
    let store = SqlLogStore::open(&path.join("audit.db"), "certificates").await.unwrap();
    let anchor = std::fs::read_to_string(path.join("anchor")).unwrap();
    let trusted = trusted(&signer);
    let check = |leaf: &StoredLeaf| check_content(leaf, &trusted);
    let report = verify_log(&store, log_signer(path).key(), Some(&anchor), &check).await.unwrap();
    assert_eq!((report.leaves, report.unsigned, report.dropped), (400, 0, 0));
}
