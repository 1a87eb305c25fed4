//! What each field is sealed with, read from the frames of a real snapshot, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};

use wangchuan::backup::frame::{FrameContext, open_frame};
use wangchuan::backup::object_store::ObjectStore;
use wangchuan::backup::pack::{max_pack_bytes, pack_name, read_pack};
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::slot::RootSlot;
use wangchuan::keys::suite::Suite;
use wangchuan::keys::tree::KeyTree;
use wangchuan::tasks::backup::suite_of;
use wangchuan::tasks::read_snapshot::{OpenSnapshot, open};
use wangchuan::value::Value;

use super::thief::{Slots, node_set, numbers, reachable, tree_in};
use crate::support::world::{Making, World, snapshot};

const CUSTOMERS: [(&str, Suite); 8] = [
    ("customer_id", Suite::Intl),
    ("name", Suite::Intl),
    ("id_card", Suite::Gm),
    ("mobile", Suite::Intl),
    ("bank_card", Suite::Gm),
    ("email", Suite::Intl),
    ("address", Suite::Intl),
    ("birth_date", Suite::Intl),
];

/// What a field's frames were sealed with, and what stood in them.
#[derive(Default)]
struct Sealed {
    suites: BTreeSet<Suite>,
    texts: BTreeSet<String>,
}

/// Opens the frames of the customers with keys from the tree, each under the suite that its entry names.
async fn customers(world: &World, opened: &OpenSnapshot, repository: &dyn ObjectStore) -> BTreeMap<String, Sealed> {
    let tree = tree_in(world.folder.path()).await;
    let root = FileSlot::at(&world.path("root"), tree.installation).unwrap().open(tree.generation).await.unwrap();
    let nodes = node_set(&tree.nodes);
    let keys = KeyTree::open(tree.installation, tree.generation, &root, &tree.crown, nodes).unwrap();
    let both = [world, world];
    let slots =
        Slots { subjects: numbers(both, "subject").await, buckets: numbers(both, "bucket").await, pins: Vec::new() };
    let secrets = reachable(&keys, &slots);
    let collection =
        opened.schema.collections.iter().find(|collection| collection.table == "customers").unwrap().number;
    let table = opened.schema.tables.iter().find(|table| table.name == "customers").unwrap();
    let mut found: BTreeMap<String, Sealed> = BTreeMap::new();
    for (number, pack) in opened.manifest.packs.iter().enumerate() {
        let bytes = repository.get(&pack_name(&pack.sha256), max_pack_bytes()).await.unwrap();
        let (id, frames) = read_pack(&bytes, &pack.sha256).unwrap();
        for entry in
            opened.entries.iter().filter(|entry| (entry.pack as usize, entry.collection) == (number, collection))
        {
            let frame = &frames[entry.ordinal as usize];
            assert_eq!(frame.header.suite, entry.suite, "the frame says it too");
            let key = secrets
                .iter()
                .map(|secret| opened.frame_key(entry.suite, secret, &frame.header.id.0))
                .find(|key| key.commits_to(&frame.header.commitment))
                .expect("a living frame");
            let place = FrameContext { repository: opened.manifest.installation, pack: id, ordinal: entry.ordinal };
            let content = open_frame(frame.bytes, &key, &place).unwrap();
            for (at, column) in content.columns.iter().enumerate() {
                let sealed = found.entry(table.columns[usize::from(*column)].name.clone()).or_default();
                sealed.suites.insert(entry.suite);
                sealed.texts.extend(content.rows.iter().filter_map(|row| match &row[at] {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                }));
            }
        }
    }
    found
}

#[tokio::test]
async fn identity_numbers_and_cards_are_sealed_with_sm4_and_names_with_aes() {
    let world = World::make(Making { customers: 20, ..Making::default() }).await;
    let installation = world.open().await;
    let row = snapshot(&installation).await;
    let repository = installation.backup().unwrap().repository.clone();
    let ground = installation.ground().unwrap();
    let opened = open(&ground, repository.as_ref(), &installation.signer, row).await.unwrap();
    let found = customers(&world, &opened, repository.as_ref()).await;
    for (column, suite) in CUSTOMERS {
        let sealed = &found[column];
        assert_eq!(sealed.suites, BTreeSet::from([suite]), "{column}");
        assert!(column == "customer_id" || sealed.texts.len() > 5, "{column}: {:?}", sealed.texts);
    }
    assert!(found["id_card"].texts.iter().all(|text| text.len() == 18), "they are what they are called");

    // What `store list` says of a field is what its frames were sealed with.
    let spec = &installation.config.registry.stores[0].collections[0];
    assert_eq!(spec.table, "customers");
    for (column, field) in &spec.fields {
        let class = wangchuan::policy::classification::classify(field);
        assert_eq!(found[column].suites, BTreeSet::from([suite_of(class.cipher)]), "{column}");
    }
    installation.close().await.unwrap();
}
