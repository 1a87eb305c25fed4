//! A lost host whose root was wrapped by a token that survives: bucket, token and configuration are enough.

use wangchuan::keys::pkcs11_slot::Pkcs11Slot;
use wangchuan::keys::slot::RootSlot;

use crate::cycle::burnt_service::{comes_back, old_copies_open_nothing};
use crate::support::softhsm::SoftHsm;
use crate::support::world::{Making, World};

async fn world(hsm: &SoftHsm, customers: u32) -> World {
    World::make(Making { customers, root: hsm.root_section("root"), ..Making::default() }).await
}

#[tokio::test]
async fn bucket_token_and_configuration_bring_a_lost_host_back() {
    let Some(hsm) = SoftHsm::token() else { return };
    comes_back(&world(&hsm, 30).await).await;
}

#[tokio::test]
async fn every_object_that_ever_was_in_the_bucket_and_the_live_token_open_nothing_destroyed() {
    let Some(hsm) = SoftHsm::token() else { return };
    let world = world(&hsm, 40).await;
    let empty = async |id| {
        let slot = Pkcs11Slot::prepare(&hsm.setup(&world.path("empty")), id).unwrap();
        Box::new(slot) as Box<dyn RootSlot>
    };
    old_copies_open_nothing(&world, empty).await;
}
