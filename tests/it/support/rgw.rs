//! A private Ceph with its S3 gateway (RGW), in memory and on the loopback: the one real server at hand that has versions, Object
//! Lock and bucket policies.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wangchuan::backup::repository::{Patience, RepositoryCredentials, RepositorySettings};
use wangchuan::policy::registry::SecretText;

use super::announce::{RGW, switched_on};
use super::ports::free_port;

/// An access key.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    pub id: &'static str,
    pub secret: &'static str,
}

/// The owner of the buckets.
pub const OWNER: Keys = Keys { id: "OWNERKEY", secret: "secret-of-the-owner" };
/// A user with no rights but those that a bucket's policy gives.
pub const WRITER: Keys = Keys { id: "WRITERKEY", secret: "secret-of-the-writer" };
/// Another one.
pub const PRUNER: Keys = Keys { id: "PRUNERKEY", secret: "secret-of-the-pruner" };

/// A running gateway with what it needs. Killed when it is dropped.
pub struct Rgw {
    folder: tempfile::TempDir,
    programs: String,
    processes: Vec<Child>,
    port: u16,
}

impl Drop for Rgw {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Rgw {
    /// Starts everything; `None` where the suite is not switched on. Takes some 20 seconds.
    pub async fn start() -> Option<Self> {
        let gateway = switched_on(RGW)?;
        let programs = Path::new(&gateway).parent().unwrap().display().to_string();
        let folder = tempfile::tempdir().unwrap();
        let mut rgw = Self { folder, programs, processes: Vec::new(), port: free_port() };
        let (v2, v1) = (free_port(), free_port());
        let fsid = "6b6f3f0e-8a34-4a39-9d64-0a4f5a0a7c11";
        std::fs::write(rgw.path("ceph.conf"), configuration(&rgw, fsid, v2, v1)).unwrap();
        rgw.make_keys();
        let monitors = format!("[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]");
        rgw.run("monmaptool", &["--create", "--addv", "a", &monitors, "--fsid", fsid, &rgw.path("monmap")]);
        let (conf, keyring, monmap) = (rgw.path("ceph.conf"), rgw.path("keyring"), rgw.path("monmap"));
        rgw.run("ceph-mon", &["-c", &conf, "--mkfs", "-i", "a", "--monmap", &monmap, "--keyring", &keyring]);
        rgw.serve("ceph-mon", &["-c", &conf, "-i", "a", "-f"]);
        rgw.run("ceph", &["-c", &conf, "--connect-timeout", "60", "auth", "import", "-i", &keyring]);
        rgw.serve("ceph-mgr", &["-c", &conf, "-i", "x", "-f"]);
        let disk = "3d3c6b3e-5f0e-4a53-8f6e-5a8c4a3f9e21";
        rgw.run("ceph", &["-c", &conf, "--connect-timeout", "60", "osd", "new", disk, "0"]);
        rgw.run("ceph-osd", &["-c", &conf, "-i", "0", "--mkfs", "--osd-uuid", disk, "--no-mon-config"]);
        rgw.serve("ceph-osd", &["-c", &conf, "-i", "0", "-f"]);
        rgw.serve("radosgw", &["-c", &conf, "-n", "client.rgw", "-f"]);
        for (user, keys) in [("owner", OWNER), ("writer", WRITER), ("pruner", PRUNER)] {
            let named = ["user", "create", "--uid", user, "--display-name", user];
            let keys = ["--access-key", keys.id, "--secret-key", keys.secret];
            rgw.run("radosgw-admin", &[&["-c", &conf][..], &named, &keys].concat());
        }
        rgw.wait_for_gateway().await;
        Some(rgw)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn make_keys(&self) {
        let ring = self.path("keyring");
        for (name, create) in
            [("mon.", true), ("client.admin", false), ("mgr.x", false), ("osd.0", false), ("client.rgw", false)]
        {
            let mut words = vec![ring.as_str()];
            words.extend(create.then_some("--create-keyring"));
            words.extend(["--gen-key", "-n", name, "--cap", "mon", "allow *"]);
            if name != "mon." {
                words.extend(["--cap", "osd", "allow *", "--cap", "mgr", "allow *"]);
            }
            self.run("ceph-authtool", &words);
        }
        std::fs::create_dir(self.path("osd")).unwrap();
        std::fs::create_dir(self.path("mon")).unwrap();
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        // The server's daemons may lie in a folder for administrators.
        let own = Path::new(&self.programs).join(program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, program: &str, words: &[&str]) {
        let done = self.command(program, words).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        let log = || std::fs::read_to_string(self.path("mon.a.log")).unwrap_or_default();
        assert!(done.status.success(), "{program} {}: {said}\n{}", words.join(" "), log());
    }

    fn serve(&mut self, program: &str, words: &[&str]) {
        let mut command = self.command(program, words);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.processes.push(process);
    }

    async fn wait_for_gateway(&self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_mins(3), "the gateway does not get ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How the repository reaches a bucket with some keys.
    pub fn settings(&self, bucket: &str, keys: Keys) -> RepositorySettings {
        RepositorySettings {
            endpoint: Some(self.endpoint()),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            prefix: String::new(),
            path_style: true,
            credentials: RepositoryCredentials::Keys {
                access_key: keys.id.to_owned(),
                secret_key: SecretText::new(keys.secret.to_owned()),
                session_token: None,
            },
            ca_pem: None,
            patience: Patience::default(),
            lock: None,
        }
    }

    /// A client of the owner, for what the program itself never does.
    pub fn owner(&self) -> aws_sdk_s3::Client {
        let keys = aws_sdk_s3::config::Credentials::new(OWNER.id, OWNER.secret, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(aws_sdk_s3::config::Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .credentials_provider(keys)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Makes a bucket, with versions and Object Lock or with neither.
    pub async fn make_bucket(&self, name: &str, with_lock: bool) {
        let owner = self.owner();
        let made = owner.create_bucket().bucket(name).object_lock_enabled_for_bucket(with_lock).send().await;
        made.unwrap();
        if with_lock {
            let on = aws_sdk_s3::types::VersioningConfiguration::builder()
                .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
                .build();
            owner.put_bucket_versioning().bucket(name).versioning_configuration(on).send().await.unwrap();
        }
    }
}

/// A monitor ends by itself on a disk that is fuller than it likes; this one keeps next to nothing there.
fn configuration(rgw: &Rgw, fsid: &str, v2: u16, v1: u16) -> String {
    let (folder, port) = (rgw.folder.path().display(), rgw.port);
    format!(
        "[global]\nfsid = {fsid}\nmon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]\npublic network = 127.0.0.0/8\n\
         cluster network = 127.0.0.0/8\nms bind ipv6 = false\nosd pool default size = 1\nosd pool default min size = 1\n\
         osd pool default pg num = 4\nosd pool default pgp num = 4\nosd crush chooseleaf type = 0\nmon allow pool size one = true\n\
         mon max pg per osd = 1000\nmon data avail crit = 0\nmon data avail warn = 0\nkeyring = {folder}/keyring\nrun dir = {folder}\nlog file = {folder}/$name.log\n\
         admin socket = {folder}/$name.asok\npid file = {folder}/$name.pid\nmon data = {folder}/mon\nosd data = {folder}/osd\n\
         mgr data = {folder}/mgr\n[osd.0]\nosd objectstore = memstore\nmemstore device bytes = 4294967296\n\
         [client.rgw]\nrgw frontends = beast endpoint=127.0.0.1:{port}\nrgw crypt require ssl = false\nrgw data = {folder}/rgw\n"
    )
}
