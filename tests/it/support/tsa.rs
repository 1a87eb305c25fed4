//! A time-stamping authority of the tests: `openssl ts` behind a small HTTP server, honest or not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;

/// Where the SHA-256 value stands in a request of the program.
const IMPRINT: std::ops::Range<usize> = 22..54;

/// What the authority signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    Rsa,
    Ec,
}

/// How the authority behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    Honest,
    /// Answers 503.
    Down,
    /// Does not answer in time.
    Slow,
    /// Answers 404.
    Elsewhere,
    /// Answers with a web page.
    Page,
    /// Answers without an end.
    Endless,
    /// Says that it does not grant the request.
    Refusing,
    /// Stamps something else.
    OtherImprint,
    /// Answers a request that nobody made.
    OtherNonce,
    /// Signs with a certificate of another root.
    Stranger,
    /// The last byte of its signature is wrong.
    Damaged,
}

/// An authority with its files.
pub struct Tsa {
    folder: tempfile::TempDir,
    conduct: Arc<Mutex<Conduct>>,
    asked: Arc<Mutex<u64>>,
    pub port: u16,
}

const CONFIG: &str = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=x\n\
    [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n\
    [unit]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
    extendedKeyUsage=critical,timeStamping\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n\
    [t]\nserial=./serial\nsigner_digest=sha256\ndefault_policy=1.2.3.4.1\ndigests=sha256\n\
    accuracy=secs:1\nordering=no\ntsa_name=yes\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n";

impl Tsa {
    /// Makes keys and certificates, and serves on a port of this host.
    pub async fn serve(keys: Keys) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("openssl.cnf"), CONFIG).unwrap();
        std::fs::write(folder.path().join("serial"), "01\n").unwrap();
        for name in ["own", "stranger"] {
            certificates(folder.path(), name, keys);
        }
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (conduct, asked) = (Arc::new(Mutex::new(Conduct::Honest)), Arc::default());
        let tsa = Self { folder, conduct, asked, port };
        let state = (tsa.folder.path().to_owned(), Arc::clone(&tsa.conduct), Arc::clone(&tsa.asked));
        let app = Router::new().route("/tsr", post(answer)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, app).await });
        tsa
    }

    /// From now on it behaves like this.
    pub fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = conduct;
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        *self.asked.lock().unwrap()
    }

    /// The line for `[audit]`; its root is copied into the folder.
    pub fn configured(&self, folder: &Path) -> String {
        std::fs::copy(self.root(), folder.join("stamp-roots.pem")).unwrap();
        format!("timestamp = {{ url = \"http://127.0.0.1:{}/tsr\", trust = \"stamp-roots.pem\" }}", self.port)
    }

    /// Its root certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("own-root.pem")
    }

    /// A reply over these bytes by a certificate of another root.
    pub fn stranger_s(&self, message: &[u8]) -> Vec<u8> {
        std::fs::write(self.folder.path().join("message"), message).unwrap();
        openssl(self.folder.path(), &["ts", "-query", "-data", "message", "-sha256", "-cert", "-out", "query"]);
        reply(self.folder.path(), "query", "stranger")
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let run = Command::new("openssl").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(run.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
}

fn certificates(folder: &Path, name: &str, keys: Keys) {
    let file = |ending: &str| format!("{name}{ending}");
    for kind in ["-root", ""] {
        let key = file(&format!("{kind}.key"));
        match keys {
            Keys::Rsa => {
                openssl(folder, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key]);
            }
            Keys::Ec => {
                let curve = "ec_paramgen_curve:P-256";
                openssl(folder, &["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &key]);
            }
        }
    }
    let (root, root_key, unit_key) = (file("-root.pem"), file("-root.key"), file(".key"));
    let (named_root, named_unit) = (format!("/CN={name} stamp root"), format!("/CN={name} stamp unit"));
    let made = ["-days", "30", "-config", "openssl.cnf", "-extensions", "ca", "-out", &root];
    openssl(folder, &[&["req", "-x509", "-key", &root_key, "-subj", &named_root][..], &made].concat());
    let request = file(".csr");
    let asked = ["req", "-new", "-key", &unit_key, "-subj", &named_unit, "-config", "openssl.cnf", "-out", &request];
    openssl(folder, &asked);
    let unit = file(".pem");
    let by = ["x509", "-req", "-in", &request, "-CA", &root, "-CAkey", &root_key, "-CAcreateserial", "-days", "30"];
    openssl(folder, &[&by[..], &["-extfile", "openssl.cnf", "-extensions", "unit", "-out", &unit]].concat());
}

fn reply(folder: &Path, query: &str, signer: &str) -> Vec<u8> {
    let (certificate, key) = (format!("{signer}.pem"), format!("{signer}.key"));
    let signing = ["-signer", &certificate, "-inkey", &key, "-out", "reply"];
    let asked = ["ts", "-reply", "-config", "openssl.cnf", "-section", "t", "-queryfile", query];
    openssl(folder, &[&asked[..], &signing].concat());
    std::fs::read(folder.join("reply")).unwrap()
}

/// One reply after the other: they share files.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

type Shared = (PathBuf, Arc<Mutex<Conduct>>, Arc<Mutex<u64>>);

async fn answer(State((folder, conduct, asked)): State<Shared>, request: Bytes) -> Response {
    let conduct = *conduct.lock().unwrap();
    *asked.lock().unwrap() += 1;
    let typed = |bytes: Vec<u8>| ([("content-type", "application/timestamp-reply")], bytes).into_response();
    match conduct {
        Conduct::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Conduct::Elsewhere => return StatusCode::NOT_FOUND.into_response(),
        Conduct::Page => return "<html>welcome</html>".into_response(),
        Conduct::Endless => return typed(vec![0x30; 1 << 20]),
        Conduct::Refusing => return typed(vec![0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02]),
        Conduct::Slow => tokio::time::sleep(Duration::from_mins(1)).await,
        _ => {}
    }
    let _turn = TURN.lock().await;
    let made = tokio::task::spawn_blocking(move || {
        std::fs::write(folder.join("request"), &request).unwrap();
        let mut digest = hex::encode(&request[IMPRINT]);
        if conduct == Conduct::OtherImprint {
            digest = "00".repeat(32);
        }
        if matches!(conduct, Conduct::OtherImprint | Conduct::OtherNonce) {
            openssl(&folder, &["ts", "-query", "-digest", &digest, "-sha256", "-cert", "-out", "request"]);
        }
        let signer = if conduct == Conduct::Stranger { "stranger" } else { "own" };
        let mut made = reply(&folder, "request", signer);
        if conduct == Conduct::Damaged {
            *made.last_mut().unwrap() ^= 1;
        }
        made
    });
    typed(made.await.unwrap())
}
