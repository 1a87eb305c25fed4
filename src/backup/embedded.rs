//! The embedded S3 server: a bucket in a folder of this host, over loopback only. The only place that names s3s.
//!
//! It is for trying out and for hosts that copy the folder elsewhere themselves. It has no versions, no object lock and
//! no server-side encryption, and says so instead of accepting such headers silently. What s3s-fs leaves open is closed
//! here: a put is atomic against its precondition, leaves nothing when its checksum is wrong, and is on disk before it
//! is acknowledged.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as HttpBuilder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::policy::registry::SecretText;

/// How long a stop waits for requests that are still running.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Open at once; each may hold a body in flight.
const MAX_CONNECTIONS: usize = 256;
/// The error code of a bucket whose disk is full.
const NO_ROOM: &str = "StorageFull";
const LOCK_FILE: &str = ".wangchuan-lock";

/// What the server needs.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The folder that holds the bucket; made if it is missing.
    pub root: PathBuf,
    /// The port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// The access key id that clients must use.
    pub access_key: String,
    /// And its secret.
    pub secret_key: SecretText,
    /// The bucket; made if it is missing.
    pub bucket: String,
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum EmbeddedError {
    /// The folder cannot be used.
    #[error("the folder {path} of the embedded object store cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process serves it. Worth retrying once that has ended.
    #[error("the folder {path} of the embedded object store is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The port cannot be opened. Worth retrying with another one.
    #[error("the embedded object store cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bucket's name is not allowed.
    #[error("{0:?} is not a bucket name: 3 to 63 lower-case letters, digits and hyphens")]
    BucketName(String),
}

/// A running server. Dropped without [`Self::stop`], it stops too, but nobody waits for it.
pub struct EmbeddedServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl EmbeddedServer {
    /// Starts the server inside the current tokio runtime; it answers as soon as this returns.
    ///
    /// # Errors
    /// When the folder, its lock, the bucket's name or the port cannot be had.
    pub async fn start(settings: EmbeddedSettings) -> Result<Self, EmbeddedError> {
        let name_is_fine = (3..=63).contains(&settings.bucket.len())
            && settings.bucket.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !settings.bucket.starts_with('-')
            && !settings.bucket.ends_with('-');
        if !name_is_fine {
            return Err(EmbeddedError::BucketName(settings.bucket));
        }
        let folder = |source| EmbeddedError::Folder { path: settings.root.clone(), source };
        make_private_folder(&settings.root.join(&settings.bucket)).map_err(folder)?;
        let lock = take_lock(&settings.root)?;
        let files = FileSystem::new(&settings.root).map_err(|_| folder(io::Error::other("not readable")))?;
        let root = settings.root.canonicalize().map_err(folder)?;
        let mut service = S3ServiceBuilder::new(DurableFiles { files, root, writing: Mutex::new(()) });
        service.set_auth(SimpleAuth::from_single(settings.access_key, settings.secret_key.dangerous_text()));
        let listen = |source| EmbeddedError::Listen { port: settings.port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, service.build(), stopped, lock));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for a client.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Accepts no more, lets running requests finish (ten seconds at most), and frees the folder.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

#[cfg(unix)]
fn make_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Two servers on one folder would mix up their temporary files; the lock is freed by the system when a process dies.
fn take_lock(root: &Path) -> Result<File, EmbeddedError> {
    let folder = |source| EmbeddedError::Folder { path: root.to_owned(), source };
    let lock = File::options().create(true).append(true).open(root.join(LOCK_FILE)).map_err(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

async fn serve(listener: TcpListener, service: S3Service, mut stopped: watch::Receiver<bool>, lock: File) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => break,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((socket, _)) => {
                connections.spawn(serve_connection(socket, service.clone(), stopped.clone()));
            }
            // Out of file handles, for example: it must not spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_WITHIN, finished).await;
    connections.shutdown().await;
    drop(lock);
}

async fn serve_connection(socket: TcpStream, service: S3Service, mut stopped: watch::Receiver<bool>) {
    let server = HttpBuilder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// The few operations that the repository uses; all others answer that they are not implemented.
struct DurableFiles {
    files: FileSystem,
    root: PathBuf,
    /// One put at a time: s3s-fs looks whether the object exists, and writes it, in two steps.
    writing: Mutex<()>,
}

impl DurableFiles {
    /// Brings an object and what s3s-fs keeps beside it to the disk, with the names of the folders in between.
    fn sync(root: &Path, bucket: &str, key: &str) -> io::Result<()> {
        let object = root.join(bucket).join(key);
        File::open(&object)?.sync_all()?;
        for folder in object.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
            File::open(folder)?.sync_all()?;
        }
        for beside in files_beside(root, bucket, key) {
            // An empty leftover of these after a power cut would make the object unreadable.
            match File::open(beside) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The files that s3s-fs keeps beside an object.
fn files_beside(root: &Path, bucket: &str, key: &str) -> [PathBuf; 2] {
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let beside = |kind| root.join(format!(".bucket-{}.object-{}.{kind}.json", encode(bucket), encode(key)));
    ["metadata", "internal"].map(beside)
}

/// Whether a failure to write has to do with room: a full disk, a quota, the largest size of a file.
fn lacks_room(error: Option<&(dyn std::error::Error + 'static)>) -> bool {
    let mut next = error;
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge))
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// The answer to a put for which there is no room: a code of its own, with the status of a passing failure.
fn no_room() -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(NO_ROOM.into()), "the disk of the bucket is full");
    if let Some(status) = S3ErrorCode::ServiceUnavailable.status_code() {
        error.set_status_code(status);
    }
    error
}

#[async_trait]
impl S3 for DurableFiles {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = &request.input;
        let locked = input.object_lock_mode.is_some()
            || input.object_lock_retain_until_date.is_some()
            || input.object_lock_legal_hold_status.is_some();
        let encrypted = input.sse_customer_algorithm.is_some() || input.server_side_encryption.is_some();
        if locked || encrypted {
            return Err(s3_error!(NotImplemented, "no object lock and no server-side encryption here"));
        }
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let relative = Path::new(&key).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !relative || key.ends_with('/') {
            return Err(s3_error!(InvalidArgument, "not a plain object name"));
        }
        let _one_at_a_time = self.writing.lock().await;
        let path = self.root.join(&bucket).join(&key);
        let existed = path.exists();
        let answer = self.files.put_object(request).await;
        if !existed && let Err(error) = answer {
            let _ = std::fs::remove_file(&path);
            return Err(if lacks_room(error.source().map(|source| source as _)) { no_room() } else { error });
        }
        // Also when it existed: the client then takes it for stored, and an earlier put may have ended before its sync.
        let root = self.root.clone();
        let synced = tokio::task::spawn_blocking(move || Self::sync(&root, &bucket, &key)).await;
        match synced {
            Ok(Ok(())) => answer,
            Ok(Err(error)) if lacks_room(Some(&error)) => Err(no_room()),
            _ => Err(s3_error!(InternalError, "the object could not be brought to the disk")),
        }
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        if request.input.version_id.is_some() {
            return Err(s3_error!(NotImplemented, "no versions here"));
        }
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let _one_at_a_time = self.writing.lock().await;
        let answer = self.files.delete_object(request).await?;
        // What s3s-fs keeps beside an object would stay.
        for beside in files_beside(&self.root, &bucket, &key) {
            match std::fs::remove_file(beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(s3_error!(InternalError, "what lies beside the object could not be removed"));
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }
}

#[cfg(test)]
mod tests;
