//! Filing with a service that asks for a client certificate, over a real TLS connection.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use wangchuan::audit::client::conformance::Conformance;
use wangchuan::config::load;
use wangchuan::tasks::outbox::file_due;

use super::filing::{company, erase};
use crate::support::ports::free_port;

/// Certificates made by openssl: two authorities, a server of the first, clients of both.
struct Papers(tempfile::TempDir);

impl Papers {
    fn make() -> Self {
        let papers = Self(tempfile::tempdir().unwrap());
        for authority in ["ca", "strange-ca"] {
            let name = format!("/CN={authority}");
            let (key, certificate) = (format!("{authority}.key"), format!("{authority}.pem"));
            papers.openssl(
                &[
                    &["req", "-x509", "-days", "30", "-subj", &name, "-keyout", &key, "-out", &certificate][..],
                    &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"],
                    &NEW_KEY,
                ]
                .concat(),
            );
        }
        papers.certify("server", "ca", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
        papers.certify("client", "ca", "extendedKeyUsage=clientAuth\n");
        papers.certify("stranger", "strange-ca", "extendedKeyUsage=clientAuth\n");
        papers
    }

    fn certify(&self, name: &str, authority: &str, extensions: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        self.openssl(&[&["req", "-subj", &subject, "-keyout", &key, "-out", &request][..], &NEW_KEY].concat());
        std::fs::write(self.path("extensions"), extensions).unwrap();
        let (of, of_key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let certificate = format!("{name}.pem");
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            &request,
            "-CA",
            &of,
            "-CAkey",
            &of_key,
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path(&key), private).unwrap();
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let out = command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What goes into `[audit]` to file as `name`.
    fn lines(&self, name: &str) -> String {
        let (ca, certificate, key) =
            (self.path("ca.pem"), self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let lines = [("ca", ca), ("client_certificate", certificate)];
        let lines = lines.map(|(key, path)| format!("{key} = \"{}\"\n", path.display()));
        format!("{}client_key = \"file:{}\"", lines.concat(), key.display())
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

/// Ends TLS before a service, and lets in only who has a certificate of the authority.
async fn gate(papers: &Papers, port: u16, service: u16) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificates(&papers.path("ca.pem")).remove(0)).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(papers.path("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&papers.path("server.pem")), key)
        .unwrap();
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut service) = TcpStream::connect(("127.0.0.1", service)).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut service).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_the_right_client_certificate_files() {
    let papers = Papers::make();
    let (world, installation, others) = company().await;
    erase(&world, &installation, 0, 2).await;
    installation.close().await.unwrap();
    let port = free_port();
    gate(&papers, port, others.port).await;
    let service = others.serve(&world.path("elsewhere.db")).await;
    let plain = format!("url = \"http://127.0.0.1:{}\"", others.port);
    let encrypted = format!("url = \"https://127.0.0.1:{port}\"");
    let bare = format!("{encrypted}\nca = \"{}\"", papers.path("ca.pem").display());
    world.edit_config(&plain, &bare);

    // Without a certificate, and with one of an authority that the service does not know.
    let installation = world.open().await;
    let report = file_due(&installation, true).await.unwrap();
    assert_eq!((report.receipted.len(), report.waiting.len()), (0, 2), "{report:?}");
    installation.close().await.unwrap();
    let stranger = format!("{encrypted}\n{}", papers.lines("stranger"));
    world.edit_config(&bare, &stranger);
    let installation = world.open().await;
    let report = file_due(&installation, true).await.unwrap();
    assert_eq!((report.receipted.len(), report.waiting.len()), (0, 2), "{report:?}");
    installation.close().await.unwrap();

    let client = format!("{encrypted}\n{}", papers.lines("client"));
    world.edit_config(&stranger, &client);
    let installation = world.open().await;
    let report = file_due(&installation, true).await.unwrap();
    assert_eq!((report.receipted.len(), &report.doubt), (2, &None), "{report:?}");
    // The contract knows that a refused handshake is a refusal, too.
    let mut tx = installation.control.read().await.unwrap();
    let certificate = tx.newest_receipted().await.unwrap().unwrap();
    drop(tx);
    let connection = installation.audit().unwrap();
    let contract = Conformance::new(connection.client.as_ref().unwrap());
    let findings = contract.run(&certificate.id, &certificate.envelope).await;
    assert!(findings.iter().all(|finding| finding.good), "{findings:#?}");
    let refused = findings.iter().find(|finding| finding.rule == "no-credentials").unwrap();
    assert_eq!(refused.found, "the connection was refused");
    installation.close().await.unwrap();

    // A key of another certificate, and one that everybody may read.
    std::fs::copy(papers.path("stranger.key"), papers.path("client.key")).unwrap();
    let error = world.try_open().await.err().unwrap().to_string();
    assert!(error.contains("client certificate and its key are not usable"), "{error}");
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(papers.path("client.key"), open_to_all).unwrap();
    let error = load(&world.path("wangchuan.toml"), &|_| None).unwrap_err();
    assert!(format!("{error:?}").contains("can be read by everybody"), "{error:?}");
    service.stop().await.unwrap();
}
