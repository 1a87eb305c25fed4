//! Kill -9 in a generation change, and kill -9 again in the start that recovers from it: the start after that finishes the work.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use wangchuan::crash_point::POINTS;

use super::crash::{check, crash_at, cycle};
use crate::support::announce::{LONG, switched_on};
use crate::support::world::{Making, World};

/// Every n-th pair of points is tried without `--long`, and with it.
const EVERY: [usize; 2] = [5, 1];

/// Pairs of points: where the first process dies, and where the second one does if it gets there.
fn pairs() -> Vec<(&'static str, &'static str)> {
    let rekey = || POINTS.iter().copied().filter(|point| point.starts_with("rekey."));
    let all = rekey().flat_map(|first| rekey().map(move |second| (first, second)));
    all.step_by(EVERY[usize::from(switched_on(LONG).is_some())]).collect()
}

type Rows = Vec<(String, Vec<String>)>;

/// Tries these pairs, one world each; returns those at which both processes died.
async fn crash_twice(
    template: Arc<World>,
    pairs: Vec<(&'static str, &'static str)>,
    expected: Rows,
    before: i64,
) -> Vec<(&'static str, &'static str)> {
    let mut both = Vec::new();
    for (first, second) in pairs {
        let world = template.copied();
        assert!(crash_at(&world, first), "{first} is not reached");
        if crash_at(&world, second) {
            both.push((first, second));
        }
        check(&world, &format!("{first}, then {second}"), &expected, before).await;
    }
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_killed_too_is_finished_by_the_start_after_it() {
    let template = Arc::new(World::make(Making { customers: 14, ..Making::default() }).await);
    let before: i64 = template.dump_all("shop.db").await.iter().map(|(_, rows)| rows.len() as i64).sum();
    let reference = template.copied();
    let installation = reference.open().await;
    cycle(&installation, &reference.shop.picks.leaver.clone()).await;
    installation.close().await.unwrap();
    let expected = reference.dump_all("shop.db").await;

    let all = pairs();
    let halves = [0, 1].map(|half| {
        let some = all.iter().copied().skip(half).step_by(2).collect();
        tokio::spawn(crash_twice(Arc::clone(&template), some, expected.clone(), before))
    });
    let mut hits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for half in halves {
        for (first, second) in half.await.unwrap() {
            hits.entry(first).or_default().push(second);
        }
    }
    // The harness captures the print macros, but not a handle.
    let count: usize = hits.values().map(Vec::len).sum();
    let mut lines =
        vec![format!("processes killed twice, {count} of {} pairs; at the first point, then at:", all.len())];
    lines.extend(hits.iter().map(|(first, seconds)| format!("  {} x {first}: {}", seconds.len(), seconds.join(", "))));
    let _ = writeln!(std::io::stderr().lock(), "{}", lines.join("\n"));
    assert!(count > all.len() / 4, "{hits:?}");
}
