//! What opening and destroying a root behind HTTP leaves in the memory of the process: neither the key nor its text.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wangchuan::keys::slot::RootSlot as _;
use wangchuan::keys::transit_slot::{TransitAuth, TransitSetup, TransitSlot};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;

use crate::support::bao::Bao;
use crate::support::memory_scan::Wanted;

const CHILD: &str = "WANGCHUAN_TEST_SLOT_TO_SCAN";

/// Makes two roots, opens them, destroys the first, and looks.
async fn destroy_and_look(address: &str, token: &str, folder: &Path) {
    let setup = TransitSetup {
        address: address.to_owned(),
        mount: "transit".to_owned(),
        key: "wangchuan".to_owned(),
        namespace: None,
        ca_pem: None,
        auth: TransitAuth::Token(SecretText::new(token.to_owned())),
        folder: folder.join("root"),
        snapshot_retention_days: 7,
        timeout: Some(Duration::from_secs(20)),
    };
    let slot = TransitSlot::prepare(&setup, [5; 16]).unwrap();
    let mut wanted = Wanted::default();
    let root = slot.create(1, &SystemRandom).await.unwrap();
    wanted.add("root", root.dangerous_bytes());
    {
        let text = zeroize::Zeroizing::new(STANDARD.encode(root.dangerous_bytes()));
        wanted.add("root as text", text.as_bytes());
        let mut before = wanted.found();
        before.sort_unstable();
        before.dedup();
        assert_eq!(before, ["root", "root as text"], "the scan sees what is in use");
    }
    for _ in 0..3 {
        assert!(slot.open(1).await.unwrap().is_same(&root));
    }
    drop(root);
    slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(1).await.unwrap();
    slot.verify_gone(1).await.unwrap();
    // Tasks of connections end behind their replies.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(wanted.found(), [""; 0]);
}

/// In a process of its own, so that no other test's keys come and go meanwhile.
#[test]
fn a_root_that_came_over_http_leaves_nothing_in_memory() {
    let tokio = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(given) = std::env::var(CHILD) {
        let [address, token, folder] = given.split(' ').collect::<Vec<_>>().try_into().unwrap();
        return tokio().block_on(destroy_and_look(address, token, Path::new(folder)));
    }
    let runtime = tokio();
    let Some(bao) = runtime.block_on(Bao::start()) else { return };
    let token = runtime.block_on(bao.token(&["wangchuan"], "1h"));
    let folder = tempfile::tempdir().unwrap();
    let name = "transit::memory::a_root_that_came_over_http_leaves_nothing_in_memory";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{} {token} {}", bao.address(), folder.path().display()))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
