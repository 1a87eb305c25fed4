//! A stranger with a folder of exported certificates notices what is missing in it, with a script of a few lines.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wangchuan::tasks::certify::roll_up_due;
use wangchuan::tasks::outbox::file_due;

use super::tools::{Said, filed, run, script, verdicts};
use crate::support::program::Program;
use crate::support::world::{Making, copy_folder};

fn look(folder: &Path) -> Said {
    verdicts(&run(&script("chain.sh"), &[folder]))
}

/// Changes the statement of an exported certificate, as somebody would who can sign.
fn change(file: &Path, with: impl FnOnce(&mut Value)) {
    let mut bundle: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let mut statement: Value = serde_json::from_slice(&payload).unwrap();
    with(&mut statement);
    bundle["dsseEnvelope"]["payload"] = STANDARD.encode(statement.to_string()).into();
    std::fs::write(file, bundle.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_a_broken_chain_and_a_roll_up_that_counts_otherwise_are_found() {
    let world = filed(Making { customers: 30, ..Making::default() }, 3).await;
    let installation = world.open().await;
    roll_up_due(&installation).await.unwrap().unwrap();
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();
    let program = Program::in_directory(world.folder.path());
    std::fs::create_dir(world.path("out")).unwrap();
    for number in ["1", "2", "3", "4"] {
        let name = format!("out/c{number}.sigstore.json");
        program.json(&["certificate", "export", number, "--output", &name]).ends(0);
    }
    let all = |said: &Said| said.iter().map(|(name, verdict)| format!("{name} {verdict}")).collect::<Vec<_>>();
    assert_eq!(all(&look(&world.path("out"))), ["c1", "c2", "c3", "c4"].map(|name| format!("{name} accepted")));

    let spoilt = |what: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&world.path("out"), folder.path());
        what(folder.path());
        let said = look(folder.path());
        let wrong = said.into_iter().find(|(_, verdict)| verdict != "accepted");
        wrong.map_or_else(String::new, |(name, verdict)| format!("{name} {verdict}"))
    };
    let gone = spoilt(&|folder| std::fs::remove_file(folder.join("c2.sigstore.json")).unwrap());
    assert_eq!(gone, "c3 rejected no. 2 is missing, or there twice");
    let first = spoilt(&|folder| std::fs::remove_file(folder.join("c1.sigstore.json")).unwrap());
    assert_eq!(first, "c2 rejected no. 1 is missing, or there twice");
    let last = spoilt(&|folder| {
        std::fs::remove_file(folder.join("c3.sigstore.json")).unwrap();
        change(&folder.join("c4.sigstore.json"), |said| said["predicate"]["sequence"] = 3.into());
    });
    assert_eq!(last, "c4 rejected the certificate before it is another one");
    let other = spoilt(&|folder| {
        change(&folder.join("c2.sigstore.json"), |said| said["predicate"]["result"] = "complete-or-so".into());
    });
    assert_eq!(other, "c3 rejected the certificate before it is another one");
    let unchained = spoilt(&|folder| {
        change(&folder.join("c2.sigstore.json"), |said| {
            said["predicate"]["previousCertificate"]["sha256"] = "00".repeat(32).into();
        });
    });
    assert_eq!(unchained, "c2 rejected the certificate before it is another one");
    let counted = spoilt(&|folder| {
        change(&folder.join("c4.sigstore.json"), |said| {
            said["predicate"]["certificateTotals"]["issued"] = 2.into();
        });
    });
    assert_eq!(counted, "c4 rejected it counts other certificates");
    let listed = spoilt(&|folder| {
        let list = folder.join("c4.evidence.ndjson");
        let text = std::fs::read_to_string(&list).unwrap();
        std::fs::write(&list, text.split_once('\n').unwrap().1).unwrap();
    });
    assert_eq!(listed, "c4 rejected its list is another one");
    let unlisted = spoilt(&|folder| std::fs::remove_file(folder.join("c4.evidence.ndjson")).unwrap());
    assert_eq!(unlisted, "c4 rejected its list is not there");
}
