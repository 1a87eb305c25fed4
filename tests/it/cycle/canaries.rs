//! No text that identifies anybody stands in clear outside of the shop, and none of the erased in the shop's own files.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{Making, World, forget, pass_time, retain, snapshot};

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn nothing_identifying_leaves_the_shop() {
    look_everywhere("0").await;
}

#[tokio::test]
async fn nothing_identifying_leaves_the_shop_in_pre_images_either() {
    look_everywhere("72 hours").await;
}

async fn look_everywhere(grace: &'static str) {
    let world = World::make(Making { grace, ..Making::default() }).await;
    let installation = world.open().await;
    let shop_files = ["shop.db", "shop.db-wal"];
    let leaver = world.shop.picks.leaver.clone();
    let own: Vec<&str> = world.shop.canaries_of(&leaver).collect();
    assert!(own.len() >= 6);
    let bytes = std::fs::read(world.path("shop.db")).unwrap();
    assert!(own.iter().all(|text| contains(&bytes, text)), "the search finds what is there");

    let first = snapshot(&installation).await;
    let before = live_text(&world).await;
    forget(&installation, &leaver).await;
    retain(&installation).await;
    // What no living row holds any more: of the leaver, of rows whose time was up, of stripped ones.
    let after = live_text(&world).await;
    let mut gone: Vec<&str> = world.shop.canaries().filter(|text| text.len() >= 6).collect();
    gone.retain(|text| before.contains(text) && !after.contains(text));
    assert!(gone.len() > own.len() * 5, "retention took {} texts along", gone.len());
    snapshot(&installation).await;
    // Also while the installation is open and its journals are not folded in.
    check_outside(&world);
    pass_time(&world, &installation, TimeDelta::hours(73)).await;
    shred_due(&installation).await.unwrap();
    certify_due(&installation).await.unwrap();
    file_due(&installation, true).await.unwrap();
    run_drill(&installation, first).await.unwrap();
    check_outside(&world);
    for name in shop_files {
        let bytes = std::fs::read(world.path(name)).unwrap_or_default();
        let found = own.iter().chain(&gone).filter(|text| contains(&bytes, text)).count();
        assert_eq!(found, 0, "{name} still holds texts of erased rows");
    }
    installation.close().await.unwrap();
    check_outside(&world);
}

/// Everything that the shop's registered tables hold now, in one text.
async fn live_text(world: &World) -> String {
    let tables = world.dump_all("shop.db").await;
    tables.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>().join("\n").replace("''", "'")
}

fn check_outside(world: &World) {
    let mut files = Vec::new();
    for folder in ["state", "bucket", "audit", "root"] {
        files_below(&world.path(folder), &mut files);
    }
    assert!(files.iter().any(|path| path.ends_with("control.db")) && files.len() > 8, "{files:?}");
    // Longer texts are found by their first eight bytes in one pass; what begins so is compared in full.
    let canaries: Vec<&str> = world.shop.canaries().filter(|text| text.len() >= 6).collect();
    assert!(canaries.len() > 500);
    let heads: std::collections::HashMap<&[u8], Vec<&str>> =
        canaries.iter().fold(std::collections::HashMap::new(), |mut heads, text| {
            heads.entry(&text.as_bytes()[..6]).or_insert_with(Vec::new).push(text);
            heads
        });
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        for (at, window) in bytes.windows(6).enumerate() {
            for text in heads.get(window).into_iter().flatten() {
                assert!(!bytes[at..].starts_with(text.as_bytes()), "{} holds an identifying text", path.display());
            }
        }
    }
}
