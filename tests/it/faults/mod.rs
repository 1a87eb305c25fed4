//! The bucket behind a proxy that fails: what comes of it is right, or an error that says whether to try again; nothing is lost,
//! and the next try finishes.

mod cycles;
mod matrix;
mod moto;
mod objects;
mod old_tls;

use std::path::Path;

use wangchuan::backup::embedded::{EmbeddedServer, EmbeddedSettings};
use wangchuan::policy::registry::SecretText;

use crate::support::proxy::Proxy;
use crate::support::world::{Making, World};

const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "secret-of-these-tests";
const BUCKET: &str = "wangchuan";

/// The embedded server on a folder, and the proxy before it.
async fn served(folder: &Path) -> (EmbeddedServer, Proxy) {
    let server = EmbeddedServer::start(EmbeddedSettings {
        root: folder.to_owned(),
        port: 0,
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SecretText::new(SECRET_KEY.to_owned()),
        bucket: BUCKET.to_owned(),
    })
    .await
    .unwrap();
    let proxy = Proxy::start(server.address(), folder.join(BUCKET), BUCKET).await;
    (server, proxy)
}

/// A world whose bucket is reached through a proxy.
async fn world_behind_proxy(customers: u32) -> (World, EmbeddedServer, Proxy) {
    let world = World::make(Making { customers, ..Making::default() }).await;
    let (server, proxy) = served(&world.path("bucket")).await;
    let remote = format!(
        "endpoint = \"{}\"\naccess_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"",
        proxy.endpoint()
    );
    world.edit_config("endpoint = \"embedded\"\ndata = \"bucket\"", &remote);
    (world, server, proxy)
}
