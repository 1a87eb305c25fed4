//! A stranger with a folder of exported certificates notices what is missing in it, with a script of a few lines.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wangchuan::tasks::certify::{certify_due, roll_up_due};
use wangchuan::tasks::outbox::file_due;

use super::tools::{Said, customers, filed, run, script, verdicts};
use crate::support::program::Program;
use crate::support::world::{Making, copy_folder, forget};

/// What is said of each certificate, and of what may come behind them.
fn look(folder: &Path) -> (Said, String) {
    let mut said = verdicts(&run(&script("chain.sh"), &[folder]));
    let end = said.remove("end").unwrap();
    (said, end)
}

/// Leaves a certificate out, with what lies beside it.
fn leave_out(folder: &Path, number: usize) {
    for ending in ["sigstore.json", "evidence.ndjson"] {
        std::fs::remove_file(folder.join(format!("c{number}.{ending}"))).unwrap();
    }
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
    assert_eq!(all(&look(&world.path("out")).0), ["c1", "c2", "c3", "c4"].map(|name| format!("{name} accepted")));

    let spoilt = |what: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&world.path("out"), folder.path());
        what(folder.path());
        let (said, _) = look(folder.path());
        let wrong = said.into_iter().find(|(_, verdict)| verdict != "accepted");
        wrong.map_or_else(String::new, |(name, verdict)| format!("{name} {verdict}"))
    };
    let gone = spoilt(&|folder| leave_out(folder, 2));
    assert_eq!(gone, "c3 rejected no. 2 is missing");
    let first = spoilt(&|folder| leave_out(folder, 1));
    assert_eq!(first, "c2 rejected no. 1 is missing");
    let twice = spoilt(&|folder| {
        std::fs::copy(folder.join("c2.sigstore.json"), folder.join("c2b.sigstore.json")).unwrap();
    });
    assert_eq!(twice, "c2b rejected no. 2 is there twice");
    let last = spoilt(&|folder| {
        leave_out(folder, 3);
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

/// Every way to leave some of the certificates out. Found is what a later one shows; of the last ones, that nothing shows it is said.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_certificates_are_left_out_it_shows_or_is_said_to_be_unknown() {
    const ROLL_UP: usize = 3;
    let world = filed(Making { customers: 30, ..Making::default() }, 2).await;
    let installation = world.open().await;
    roll_up_due(&installation).await.unwrap().unwrap();
    for customer in [2, 3] {
        forget(&installation, &customers(&world)[customer]).await;
        certify_due(&installation).await.unwrap();
    }
    file_due(&installation, true).await.unwrap();
    installation.close().await.unwrap();
    let program = Program::in_directory(world.folder.path());
    std::fs::create_dir(world.path("out")).unwrap();
    for number in 1..=5 {
        let name = format!("out/c{number}.sigstore.json");
        program.json(&["certificate", "export", &number.to_string(), "--output", &name]).ends(0);
    }
    for left_out in 0..1_u32 << 5 {
        let is_out = |number: usize| left_out & (1 << (number - 1)) != 0;
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&world.path("out"), folder.path());
        for number in (1..=5).filter(|number| is_out(*number)) {
            leave_out(folder.path(), number);
        }
        let (said, end) = look(folder.path());
        let last = (1..=5).rev().find(|number| !is_out(*number)).unwrap_or(0);
        let wrongly = said.iter().filter(|(_, said)| *said != "accepted");
        let rejected: Vec<String> = wrongly.map(|(name, said)| format!("{name} {said}")).collect();
        // A gap shows in the certificate behind it, and in the roll-up that counts what was there.
        let wrong = |number: usize| {
            let first = (1..number).rev().find(|before| !is_out(*before)).unwrap_or(0) + 1;
            match number - first {
                0 if number == ROLL_UP && is_out(1) => Some("certificate 1, which it counts, is not there".to_owned()),
                0 => None,
                1 => Some(format!("no. {first} is missing")),
                _ => Some(format!("no. {first} to {} are missing", number - 1)),
            }
        };
        let there = (1..=last).filter(|number| !is_out(*number));
        let expected: Vec<String> =
            there.filter_map(|number| Some(format!("c{number} rejected {}", wrong(number)?))).collect();
        assert_eq!(rejected, expected, "{left_out:b}");
        let unknown =
            format!("no. {last} is the last one there, and nothing here shows whether later ones are missing");
        assert!(end.starts_with(&unknown), "{left_out:b}: {end}");
        let counted = if last >= ROLL_UP && !is_out(ROLL_UP) { ROLL_UP } else { 0 };
        let uncounted = format!("no roll-up counts those behind no. {counted}");
        assert_eq!(end.contains(&uncounted), last > counted, "{left_out:b}: {end}");
    }
    // Whoever leaves out the last one forgets what lies beside it; and the receipts of others tell how large the log was.
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&world.path("out"), folder.path());
    leave_out(folder.path(), 2);
    std::fs::remove_file(folder.path().join("c5.sigstore.json")).unwrap();
    let (said, end) = look(folder.path());
    assert_eq!(said["c5"], "rejected only what lies beside the certificate is there");
    assert!(end.contains("; the log held "), "{end}");
}
