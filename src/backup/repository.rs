//! The repository in S3: the object-store port over aws-sdk-s3. Together with `abilities` the only place that names the SDK.
//!
//! * Every put carries the SHA-256 of its body as a value, in one request, with `If-None-Match: *`. The SDK's own checksums
//!   stay off: its streamed trailers are refused by several servers, and asking for an algorithm sends no checksum.
//! * Retries with jitter are the SDK's; a put whose first answer was lost then meets its own object, which counts as
//!   success after its digest was read back. What breaks off or changes inside an answer is read again (`reading`).
//! * Errors carry the server's error code, never its message, which may repeat credentials.

pub mod abilities;
mod locking;
mod reading;
mod removing;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls;
use base64::Engine as _;
use bytes::Bytes;

pub use locking::StoredLock;

use super::codec::Sha256;
use super::lock::ObjectLocker as _;
use super::object_store::{ListedObject, ObjectStore, PutOutcome, RepositoryError, Result, corrupt};
use crate::policy::registry::SecretText;

/// Where the repository is and how to get there.
#[derive(Debug, Clone)]
pub struct RepositorySettings {
    /// The server's URL; `None` for AWS itself. Plain `http://` only on this host's loopback.
    pub endpoint: Option<String>,
    /// The region, also signed for servers without regions.
    pub region: String,
    /// The bucket, which must exist.
    pub bucket: String,
    /// What all names in the bucket begin with; may be empty. Slashes at its ends do not matter.
    pub prefix: String,
    /// `endpoint/bucket/name` instead of `bucket.endpoint/name`; most servers but AWS want it.
    pub path_style: bool,
    /// Whose rights to use.
    pub credentials: RepositoryCredentials,
    /// Certificates (PEM) to trust for this endpoint instead of the host's.
    pub ca_pem: Option<Vec<u8>>,
    /// How long to try.
    pub patience: Patience,
    /// The lock to store packs, directories and manifests with.
    pub lock: Option<StoredLock>,
}

/// Whose rights to use.
#[derive(Clone)]
pub enum RepositoryCredentials {
    /// AWS's default chain: environment, profile, web identity, container, instance.
    DefaultChain,
    /// These.
    Keys {
        /// The access key id.
        access_key: String,
        /// The secret access key.
        secret_key: SecretText,
        /// The token of temporary credentials.
        session_token: Option<SecretText>,
    },
}

impl fmt::Debug for RepositoryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultChain => "DefaultChain",
            Self::Keys { .. } => "Keys(…)",
        })
    }
}

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries per call, the first included.
    pub attempts: u32,
    /// For a connection.
    pub connect: Duration,
    /// For one try; a pack of 16 MiB must go through in it.
    pub attempt: Duration,
    /// For all tries together.
    pub operation: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            connect: Duration::from_secs(5),
            attempt: Duration::from_mins(3),
            operation: Duration::from_mins(10),
        }
    }
}

/// A repository in a bucket.
pub struct S3Repository {
    client: Client,
    bucket: String,
    prefix: String,
    patience: Patience,
    lock: Option<StoredLock>,
}

impl S3Repository {
    /// Makes the client. Sends nothing, apart from what the default credential chain may need.
    ///
    /// # Errors
    /// [`RepositoryError::Settings`] when the settings cannot be used.
    pub async fn connect(settings: &RepositorySettings) -> Result<Self> {
        if let Some(endpoint) = &settings.endpoint {
            check_endpoint(endpoint)?;
        }
        let prefix = normal_prefix(&settings.prefix)?;
        if settings.bucket.is_empty() || settings.bucket.contains('/') {
            return Err(RepositoryError::Settings("the bucket's name is empty or contains a slash".to_owned()));
        }
        let patience = settings.patience;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(patience.connect)
            .operation_attempt_timeout(patience.attempt)
            .operation_timeout(patience.operation)
            .build();
        let mut config = base_config(&settings.credentials)
            .await
            .region(Region::new(settings.region.clone()))
            .force_path_style(settings.path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(patience.attempts.max(1)))
            .timeout_config(timeouts)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(settings.endpoint.clone());
        if let Some(pem) = &settings.ca_pem {
            config = config.http_client(client_that_trusts(pem)?);
        }
        let client = Client::from_conf(config.build());
        Ok(Self { client, bucket: settings.bucket.clone(), prefix, patience, lock: settings.lock.clone() })
    }

    /// Checks that the bucket exists and the credentials reach it.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn check_bucket(&self) -> Result<()> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        match answer.map_err(|error| classify("head bucket", "", &self.bucket, &error)) {
            Ok(_) => Ok(()),
            // A HEAD has no body that could say which of the two is missing.
            Err(RepositoryError::NotFound { .. }) => {
                Err(RepositoryError::BucketMissing { bucket: self.bucket.clone() })
            }
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// A HEAD that is refused does not say why, for its answer has no body. A listing does: credentials that have expired
    /// are told from a missing right that way.
    async fn explained(&self, refused: RepositoryError) -> RepositoryError {
        if !matches!(&refused, RepositoryError::Denied { code, .. } if code.starts_with("HTTP ")) {
            return refused;
        }
        let answer = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix).max_keys(1).send().await;
        match answer.map_err(|error| classify("list", "", &self.bucket, &error)) {
            Err(expired @ RepositoryError::Credentials { .. }) => expired,
            Err(denied @ RepositoryError::Denied { .. }) => denied,
            _ => refused,
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put_once(&self, name: &str, bytes: Bytes, checksum: &Sha256) -> Result<()> {
        let length = bytes.len() as u64;
        let mut put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(name))
            .if_none_match("*")
            .checksum_sha256(base64::engine::general_purpose::STANDARD.encode(checksum.0))
            .content_type("application/octet-stream")
            .body(ByteStream::from(bytes));
        let lock = self.lock_for(name);
        if let Some((lock, until)) = lock {
            put = locking::with_lock(put, lock, until);
        }
        let answer = put.send().await.map_err(|error| classify("put", name, &self.bucket, &error))?;
        // S3 names what it stored. An answer that does not is another one's, perhaps, with an error's text behind its `200 OK`.
        if answer.e_tag().is_none() && self.head(name).await? != Some(length) {
            return Err(RepositoryError::Unavailable { operation: "put", code: NOT_STORED.to_owned() });
        }
        match lock {
            Some((_, until)) => self.check_lock(name, answer.version_id(), until).await,
            None => Ok(()),
        }
    }
}

impl S3Repository {
    /// Another put of the same name at the same time makes some servers refuse both (409); the SDK does not try that again.
    async fn put_unless_busy(&self, name: &str, bytes: Bytes, checksum: &Sha256) -> Result<()> {
        for tried in 1..self.patience.attempts {
            match self.put_once(name, bytes.clone(), checksum).await {
                Err(RepositoryError::Unavailable { code, .. }) if BUSY.contains(&code.as_str()) => {
                    reading::pause(tried).await;
                }
                other => return other,
            }
        }
        self.put_once(name, bytes, checksum).await
    }
}

/// Error codes of a server at which two requests for one object met, and what else the SDK does not try again.
const BUSY: [&str; 3] = ["ConditionalRequestConflict", "OperationAborted", NOT_STORED];
/// What is said of an answer without the name of what was stored.
const NOT_STORED: &str = "an answer that is not S3's, and nothing was stored";

async fn base_config(credentials: &RepositoryCredentials) -> Builder {
    match credentials {
        RepositoryCredentials::DefaultChain => {
            let shared = aws_config::defaults(aws_config::BehaviorVersion::latest()).load().await;
            // The profile may name an endpoint; ours is decided by the settings alone.
            let mut config = aws_sdk_s3::config::Builder::from(&shared);
            config.set_endpoint_url(None);
            config
        }
        RepositoryCredentials::Keys { access_key, secret_key, session_token } => {
            let token = session_token.as_ref().map(|token| token.dangerous_text().to_owned());
            let keys = Credentials::new(access_key, secret_key.dangerous_text(), token, None, "wangchuan");
            Builder::new().behavior_version(BehaviorVersion::latest()).credentials_provider(keys)
        }
    }
}

fn client_that_trusts(pem: &[u8]) -> Result<aws_sdk_s3::config::SharedHttpClient> {
    let unusable = || RepositoryError::Settings("the CA file holds no PEM certificate".to_owned());
    if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err(unusable());
    }
    let trust = tls::TrustStore::empty().with_pem_certificate(pem.to_vec());
    let context = tls::TlsContext::builder().with_trust_store(trust).build().map_err(|_| unusable())?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    Ok(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https())
}

/// Refuses endpoints over which backups and signatures would travel in clear.
fn check_endpoint(endpoint: &str) -> Result<()> {
    let refuse = |what: &str| Err(RepositoryError::Settings(what.to_owned()));
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return refuse("the endpoint is not a URL such as https://s3.example.com");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return refuse("the endpoint has no host, or carries a user name");
    }
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _port)| host),
    };
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => refuse("plain http:// is accepted for this host's loopback only; use https://"),
        _ => refuse("the endpoint must begin with https://"),
    }
}

fn normal_prefix(prefix: &str) -> Result<String> {
    let trimmed = prefix.trim_matches('/');
    let strange = |part: &str| part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control);
    match trimmed {
        "" => Ok(String::new()),
        _ if trimmed.split('/').any(strange) => {
            Err(RepositoryError::Settings("the prefix has an empty, relative or unprintable part".to_owned()))
        }
        _ => Ok(format!("{trimmed}/")),
    }
}

/// Turns what the SDK reports into our own terms.
fn classify<E: ProvideErrorMetadata>(
    operation: &'static str,
    name: &str,
    bucket: &str,
    error: &SdkError<E>,
) -> RepositoryError {
    let unreachable = |detail: &str| RepositoryError::Unreachable { operation, detail: detail.to_owned() };
    match error {
        SdkError::TimeoutError(_) => unreachable("no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => unreachable("no connection in time"),
        SdkError::DispatchFailure(failure) => {
            let source = failure.as_connector_error().map(|error| chain(error)).unwrap_or_default();
            if source.contains("certificate") {
                unreachable("its certificate is not trusted")
            } else if failure.is_io() {
                unreachable("no connection")
            } else if source.contains("credential") {
                RepositoryError::Credentials { operation, code: "no credentials were found".to_owned() }
            } else {
                unreachable("the request could not be sent")
            }
        }
        SdkError::ResponseError(_) => unreachable("an answer that is not S3's"),
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            by_code(operation, name, bucket, service.raw().status().as_u16(), code)
        }
        _ => RepositoryError::Failed { operation, code: "the request could not be built".to_owned() },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn by_code(operation: &'static str, name: &str, bucket: &str, status: u16, code: &str) -> RepositoryError {
    let said = match (code, status) {
        ("", 200..=299) => "an answer that cannot be read".to_owned(),
        ("", _) => format!("HTTP {status}"),
        _ => code.to_owned(),
    };
    match (code, status) {
        ("NoSuchBucket", _) => RepositoryError::BucketMissing { bucket: bucket.to_owned() },
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired", _) => {
            RepositoryError::Credentials { operation, code: said }
        }
        (
            "SlowDown"
            | "RequestTimeout"
            | "InternalError"
            | "ServiceUnavailable"
            | "OperationAborted"
            | "ConditionalRequestConflict",
            _,
        )
        | ("", 409)
        | (_, 429 | 500 | 502..=599) => RepositoryError::Unavailable { operation, code: said },
        (_, 401 | 403) => RepositoryError::Denied { operation, code: said },
        ("NoSuchKey", _) | ("" | "NotFound", 404) => RepositoryError::NotFound { name: name.to_owned() },
        (_, 412) => RepositoryError::Exists { name: name.to_owned() },
        _ => RepositoryError::Failed { operation, code: said },
    }
}

#[async_trait]
impl ObjectStore for S3Repository {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<PutOutcome> {
        let (sha256, length) = (Sha256::of(&bytes), bytes.len());
        match self.put_unless_busy(name, Bytes::from(bytes), &sha256).await {
            Ok(()) => Ok(PutOutcome::Created),
            // Ours from an earlier try, or somebody else's? Only its bytes tell.
            Err(RepositoryError::Exists { name: taken }) => match self.get(name, length).await {
                Ok(there) if Sha256::of(&there) == sha256 => {
                    if let Some((_, until)) = self.lock_for(name) {
                        self.lock_until(name, until).await?;
                    }
                    Ok(PutOutcome::AlreadyThere)
                }
                Ok(_) | Err(RepositoryError::Corrupt { .. }) => Err(RepositoryError::Exists { name: taken }),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        self.fetch(name, None, limit).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
        let last = offset.saturating_add(u64::from(length.max(1)) - 1);
        // A server that ignores the range sends the whole object, which the limit refuses.
        let answer = self.fetch(name, Some(&format!("bytes={offset}-{last}")), length as usize).await;
        match answer {
            Ok(bytes) if bytes.len() == length as usize => Ok(bytes),
            Ok(_) => Err(corrupt(name, "shorter than expected")),
            Err(RepositoryError::Failed { code, .. }) if code == "InvalidRange" => {
                Err(corrupt(name, "shorter than expected"))
            }
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let mut listed = Vec::new();
        let mut from = None;
        loop {
            let page = self.list_page(prefix, from.as_deref()).await?;
            from = page.next_continuation_token;
            for object in page.contents.unwrap_or_default() {
                let name = object.key.as_deref().and_then(|key| key.strip_prefix(&self.prefix));
                // A server may list the folder itself; it is no object of ours.
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    let bytes = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                    listed.push(ListedObject { name: name.to_owned(), bytes });
                }
            }
            if from.is_none() {
                break;
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        let answer = self.client.head_object().bucket(&self.bucket).key(self.key(name)).send().await;
        match answer.map_err(|error| classify("head", name, &self.bucket, &error)) {
            Ok(head) => Ok(Some(head.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0))),
            Err(RepositoryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explained(error).await),
        }
    }
}

#[cfg(test)]
mod tests;
