//! A private OpenBao on real storage (raft, not the development mode), unsealed, with the shipped policy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as Listener, TcpStream};
use wangchuan::keys::transit_slot::{TransitAuth, TransitSetup};
use wangchuan::policy::registry::SecretText;

use super::announce::{OPENBAO, switched_on};
use super::ports::free_port;
use super::world::copy_folder;

/// The policy that is shipped, for the key `wangchuan`.
pub const POLICY: &str = include_str!("../../../config/openbao-policy.hcl");

/// A server. Killed when it is dropped.
pub struct Bao {
    program: String,
    folder: tempfile::TempDir,
    ports: [u16; 2],
    server: Option<Child>,
    unseal_key: String,
    root_token: String,
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Bao {
    /// A new server with a key `wangchuan`, or `None` where there is no OpenBao.
    pub async fn start() -> Option<Self> {
        let program = switched_on(OPENBAO)?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let ports = [free_port(), free_port()];
        let none = String::new;
        let mut bao = Self { program, folder, ports, server: None, unseal_key: none(), root_token: none() };
        bao.run().await;
        let (_, made) = bao.call(Method::PUT, "sys/init", json!({"secret_shares": 1, "secret_threshold": 1})).await;
        bao.unseal_key = made["keys"][0].as_str().unwrap().to_owned();
        bao.root_token = made["root_token"].as_str().unwrap().to_owned();
        bao.unseal().await;
        bao.good(Method::POST, "sys/mounts/transit", json!({"type": "transit"})).await;
        bao.make_key("wangchuan").await;
        bao.good(Method::PUT, "sys/policies/acl/wangchuan", json!({"policy": POLICY})).await;
        bao.good(Method::POST, "sys/auth/approle", json!({"type": "approle"})).await;
        Some(bao)
    }

    /// Starts the process on what lies in its folder; it is sealed then.
    pub async fn run(&mut self) {
        let [port, cluster] = self.ports;
        let data = self.folder.path().join("data");
        let config = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n}}\nlistener \"tcp\" {{\n  address = \
             \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster}\"\n  tls_disable = true\n}}\napi_addr = \
             \"http://127.0.0.1:{port}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\n",
            data.display()
        );
        let file = self.folder.path().join("bao.hcl");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("server").arg(format!("-config={}", file.display())).stdin(Stdio::null());
        self.server = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.wait_for(|status| status != 0).await;
    }

    /// Kills the process.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Unseals it and waits until it works.
    pub async fn unseal(&self) {
        self.good(Method::PUT, "sys/unseal", json!({"key": self.unseal_key})).await;
        self.wait_for(|status| status == 200).await;
    }

    async fn wait_for(&self, wanted: impl Fn(u16) -> bool) {
        for _ in 0..1_200 {
            if wanted(self.try_call(Method::GET, "sys/health", Value::Null, &self.root_token).await.0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("OpenBao does not get ready:\n{log}");
    }

    async fn try_call(&self, method: Method, path: &str, body: Value, token: &str) -> (u16, Value) {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut request =
            client.request(method, format!("{}/v1/{path}", self.address())).header("x-vault-token", token);
        if !body.is_null() {
            request = request.json(&body);
        }
        match request.send().await {
            Ok(reply) => (reply.status().as_u16(), reply.json().await.unwrap_or(Value::Null)),
            Err(_) => (0, Value::Null),
        }
    }

    /// A call as the server's root: status and answer.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.try_call(method, path, body, &self.root_token).await
    }

    /// The same with another token.
    pub async fn call_as(&self, token: &str, method: Method, path: &str, body: Value) -> u16 {
        self.try_call(method, path, body, token).await.0
    }

    /// A call that must work.
    pub async fn good(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer["data"].clone()
    }

    pub async fn make_key(&self, key: &str) {
        self.good(Method::POST, &format!("transit/keys/{key}"), json!({"type": "aes256-gcm96"})).await;
    }

    /// What the server says of a key.
    pub async fn key(&self, key: &str) -> Value {
        self.good(Method::GET, &format!("transit/keys/{key}"), Value::Null).await
    }

    /// A token with exactly these policies.
    pub async fn token(&self, policies: &[&str], ttl: &str) -> String {
        let body = json!({"policies": policies, "no_default_policy": true, "ttl": ttl});
        let (status, made) = self.call(Method::POST, "auth/token/create", body).await;
        assert_eq!(status, 200, "{made}");
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// A role with the shipped policy: its id and its secret.
    pub async fn role(&self, ttl: &str) -> (String, String) {
        let body = json!({"token_policies": ["wangchuan"], "token_no_default_policy": true, "token_ttl": ttl});
        self.good(Method::POST, "auth/approle/role/agent", body).await;
        let role = self.good(Method::GET, "auth/approle/role/agent/role-id", Value::Null).await;
        let secret = self.good(Method::POST, "auth/approle/role/agent/secret-id", json!({})).await;
        (role["role_id"].as_str().unwrap().to_owned(), secret["secret_id"].as_str().unwrap().to_owned())
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// A copy of its storage, as a snapshot of its disk. The process must not run.
    pub fn copy_storage(&self, to: &Path) {
        assert!(self.server.is_none(), "stop it first");
        copy_folder(&self.folder.path().join("data"), to);
    }

    /// Puts a copy of its storage in place of what it has. The process must not run.
    pub fn put_storage(&self, from: &Path) {
        assert!(self.server.is_none(), "stop it first");
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        copy_folder(from, &self.folder.path().join("data"));
    }

    /// How the slot reaches the key `wangchuan` with a token.
    pub fn setup(&self, folder: &Path, token: &str) -> TransitSetup {
        TransitSetup {
            address: self.address(),
            mount: "transit".to_owned(),
            key: "wangchuan".to_owned(),
            namespace: None,
            ca_pem: None,
            auth: TransitAuth::Token(SecretText::new(token.to_owned())),
            folder: PathBuf::from(folder),
            snapshot_retention_days: 7,
            timeout: Some(Duration::from_secs(5)),
        }
    }
}

/// The lines of `[root]` for a slot at this address with a token.
pub fn root_section(address: &str, path: &str, token: &str) -> String {
    format!(
        "kind = \"transit\"\npath = \"{path}\"\naddress = \"{address}\"\nkey = \"wangchuan\"\ntoken = \"{token}\"\n\
         snapshot_retention_days = 7"
    )
}

/// A way to the server that lets only so many connections through. The client makes one for each request.
pub struct Gate {
    pub address: String,
    left: Arc<AtomicI64>,
}

impl Gate {
    pub async fn before(bao: &Bao) -> Self {
        Self::before_port(bao.ports[0]).await
    }

    /// The same before any server of this host.
    pub async fn before_port(target: u16) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let counter = left.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if counter.fetch_sub(1, Ordering::SeqCst) <= 0 {
                    continue;
                }
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, left }
    }

    /// Lets this many more connections through.
    pub fn allow(&self, connections: i64) {
        self.left.store(connections, Ordering::SeqCst);
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.allow(i64::MAX);
    }

    /// Whether it has turned somebody away since it was set.
    pub fn has_refused(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}
