//! Random lives with the root in OpenBao: the thief looked into the memory of every process, and kept the slot's folder as it was
//! after every step. What lies there opens no root of before at the live service.

use std::path::Path;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use wangchuan::crash_point::{POINTS, SERVICE_POINTS};
use wangchuan::keys::slot::{RootSlot as _, SlotError};
use wangchuan::keys::transit_slot::{TransitSetup, TransitSlot};

use crate::cycle::adversary::{GRACES, Life, Way, is_child, one_life, seeds, tell, world_of_lives};
use crate::cycle::thief::tree_in;
use crate::support::announce::{LONG, switched_on};
use crate::support::bao::{Bao, POLICY, root_section};
use crate::support::world::{Making, World};

/// Lives without `--long`, and with it.
const LIVES: [u64; 2] = [10, 200];

/// One life with a key of its own in the service.
async fn life(bao: &Bao, token: &str, seed: u64, way: &Way) -> Life {
    let key = format!("life-{seed}");
    bao.make_key(&key).await;
    let root = root_section(&bao.address(), "root", token).replace("\"wangchuan\"", &format!("\"{key}\""));
    let grace = GRACES[(seed / 2 % 2) as usize];
    let world = world_of_lives(Making { grace, root, ..Making::default() }).await;
    let life = one_life(&world, seed, way).await;
    opens_no_root_of_before(bao, token, &key, &world).await;
    life
}

/// Every wrapped root that was ever kept, at the live service.
async fn opens_no_root_of_before(bao: &Bao, token: &str, key: &str, world: &World) {
    let now = tree_in(world.folder.path()).await;
    for kept in std::fs::read_dir(world.path("kept")).unwrap() {
        let folder = kept.unwrap().path().join("root");
        let setup = TransitSetup { key: key.to_owned(), ..bao.setup(&folder, token) };
        let slot = TransitSlot::at(&setup, now.installation).unwrap();
        for generation in wrapped_in(&folder).into_iter().filter(|generation| *generation != now.generation) {
            let refused = slot.open(generation).await.err();
            assert!(matches!(refused, Some(SlotError::VersionGone { .. })), "{key}, {generation}: {refused:?}");
        }
    }
}

fn wrapped_in(folder: &Path) -> Vec<i64> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("root-")?.strip_suffix(".wrapped")?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_lives_with_the_root_in_openbao_leave_nothing_to_a_thief() {
    if is_child().await {
        return;
    }
    let Some(bao) = Bao::start().await else { return };
    // The shipped rights, on the keys of all lives.
    let policy = json!({"policy": POLICY.replace("/wangchuan", "/+")});
    bao.good(Method::PUT, "sys/policies/acl/lives", policy).await;
    let token = bao.token(&["lives"], "4h").await;
    let (seeds, is_one) = seeds(LIVES[usize::from(switched_on(LONG).is_some())]);
    let mut points = POINTS.to_vec();
    points.extend(SERVICE_POINTS);
    let test = "transit::lives::random_lives_with_the_root_in_openbao_leave_nothing_to_a_thief";
    let together = Arc::new((bao, token, Way { test, points, keeps_roots: true, server: None }));
    let halves = [0, 1].map(|half| {
        let (together, seeds) = (Arc::clone(&together), seeds.clone());
        tokio::spawn(async move {
            let (bao, token, way) = together.as_ref();
            let mut done = Vec::new();
            for seed in seeds.filter(|seed| seed % 2 == half) {
                done.push(life(bao, token, seed, way).await);
            }
            done
        })
    });
    let mut lives = Vec::new();
    for half in halves {
        lives.extend(half.await.unwrap());
    }
    tell(" with the root in OpenBao", lives, is_one, 20);
}
