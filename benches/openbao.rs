//! A private OpenBao on real storage (raft) for the root slot's figures; killed when it is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use wangchuan::keys::transit_slot::{TransitAuth, TransitSetup};
use wangchuan::policy::registry::SecretText;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Tries until the server is ready, and the time between them.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(50);

/// The server.
pub struct OpenBao {
    server: Child,
    folder: tempfile::TempDir,
    address: String,
    token: String,
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl OpenBao {
    /// Starts `program`, initialises and unseals it, and makes the key `wangchuan`.
    pub async fn start(program: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let (port, cluster) = (free_port()?, free_port()?);
        let config = format!(
            "storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}\nlistener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n \
             cluster_address = \"127.0.0.1:{cluster}\"\n tls_disable = true\n}}\napi_addr = \"http://127.0.0.1:{port}\"\n\
             cluster_addr = \"http://127.0.0.1:{cluster}\"\n",
            data.display()
        );
        let file = folder.path().join("bao.hcl");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("server").arg(format!("-config={}", file.display()));
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut bao = Self { server, folder, address: format!("http://127.0.0.1:{port}"), token: String::new() };
        bao.wait_for(|status| status != 0).await?;
        let made = bao.call(Method::PUT, "sys/init", json!({"secret_shares": 1, "secret_threshold": 1})).await?.1;
        bao.token = made["root_token"].as_str().ok_or("no token")?.to_owned();
        bao.call(Method::PUT, "sys/unseal", json!({"key": made["keys"][0]})).await?;
        bao.wait_for(|status| status == 200).await?;
        bao.call(Method::POST, "sys/mounts/transit", json!({"type": "transit"})).await?;
        bao.call(Method::POST, "transit/keys/wangchuan", json!({"type": "aes256-gcm96"})).await?;
        Ok(bao)
    }

    async fn wait_for(&self, wanted: impl Fn(u16) -> bool) -> Result<()> {
        for _ in 0..TRIES {
            if self.call(Method::GET, "sys/health", Value::Null).await.is_ok_and(|(status, _)| wanted(status)) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err("OpenBao does not get ready".into())
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Result<(u16, Value)> {
        let client = Client::builder().no_proxy().build()?;
        let mut request =
            client.request(method, format!("{}/v1/{path}", self.address)).header("x-vault-token", &self.token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let reply = request.send().await?;
        Ok((reply.status().as_u16(), reply.json().await.unwrap_or(Value::Null)))
    }

    /// How a slot reaches the key. With the server's own token: what the policy costs is not measured.
    pub fn setup(&self, folder: &Path) -> TransitSetup {
        TransitSetup {
            address: self.address.clone(),
            mount: "transit".to_owned(),
            key: "wangchuan".to_owned(),
            namespace: None,
            ca_pem: None,
            auth: TransitAuth::Token(SecretText::new(self.token.clone())),
            folder: folder.to_owned(),
            snapshot_retention_days: 7,
            timeout: Some(Duration::from_secs(30)),
        }
    }

    /// A folder that goes away with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
