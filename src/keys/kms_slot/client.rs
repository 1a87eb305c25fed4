//! AWS KMS over HTTP: its JSON protocol, signed with Signature Version 4. Bodies are never logged; what holds key material is wiped.
//!
//! https only, except to a loopback address; redirects are never followed; every request has a connection of its own. The AWS SDK's
//! client for KMS is not used: it keeps root keys in buffers that nobody wipes, and nine calls do not need it. What decides who the
//! agent is comes from the SDK all the same (the default credential chain), and so does the signature.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, StatusCode, Url, redirect};
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use super::KmsSetup;
use super::wire::{self, Alias, KeyMetadata, Scheduled, Secret};
use crate::clock::{Clock as _, SystemClock};
use crate::keys::Key;
use crate::keys::slot::SlotError;
use crate::policy::registry::SecretText;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole exchange.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// No reply that is asked for is longer, in bytes: a page of 100 aliases is some 30 KB.
const REPLY_LIMIT: usize = 256 * 1024;
/// Tries of a request that the service turns away because it has too much to do.
const TRIES: u32 = 4;
/// The pause before the second try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// Credentials are asked for again so long before they end.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Pages of a list that are read: 100 aliases each.
const PAGES: u32 = 200;

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const JSON: &str = "application/x-amz-json-1.1";

/// Why the service did not do what was asked, where the caller decides what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such key.
    Absent,
    /// The key is not in a state for that: switched off, or about to be deleted.
    State,
    /// It is not a ciphertext of this key and context.
    Ciphertext,
    /// There is one already.
    Exists,
}

/// What a call returns: the reply, or the refusal, or what went wrong.
pub type Answer<T> = Result<std::result::Result<T, Refusal>>;

/// Who the agent is.
enum Identity {
    Keys(Credentials),
    Chain(Mutex<Chain>),
}

#[derive(Default)]
struct Chain {
    provider: Option<SharedCredentialsProvider>,
    current: Option<Credentials>,
}

/// A client of one region.
pub struct KmsClient {
    http: Client,
    url: Url,
    region: String,
    identity: Identity,
}

impl KmsClient {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`SlotError::Setup`].
    pub fn new(setup: &KmsSetup) -> Result<Self> {
        let refuse = |what| SlotError::Setup { place: setup.place(), what };
        let url = Url::parse(&setup.place()).map_err(|_| refuse("its address is not a URL"))?;
        let loopback = is_loopback(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(refuse("its address must begin with https://"));
        }
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(setup.timeout.unwrap_or(TOTAL_TIMEOUT))
            .pool_max_idle_per_host(0)
            .user_agent(concat!("wangchuan/", env!("CARGO_PKG_VERSION")))
            .https_only(!loopback);
        if loopback {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|_| refuse("the HTTP client cannot be set up"))?;
        let identity = match &setup.keys {
            Some((id, secret)) => {
                Identity::Keys(Credentials::new(id.dangerous_text(), secret.dangerous_text(), None, None, "wangchuan"))
            }
            None => Identity::Chain(Mutex::default()),
        };
        Ok(Self { http, url, region: setup.region.clone(), identity })
    }

    /// Where the service is, in words for errors.
    #[must_use]
    pub fn place(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Makes a key for encryption, of one region, whose material the service draws and never gives away.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn create_key(&self, description: &str, tags: &[(&str, String)]) -> Result<KeyMetadata> {
        let tags: Vec<_> =
            tags.iter().map(|(key, value)| serde_json::json!({"TagKey": key, "TagValue": value})).collect();
        let body = serde_json::json!({
            "Description": description, "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT",
            "Origin": "AWS_KMS", "MultiRegion": false, "Tags": tags,
        });
        let reply = self.call("CreateKey", wire::json(&body)).await?;
        self.understood(reply.ok().and_then(|reply| wire::metadata(&reply)))
    }

    /// Gives a key a further name; one that it has already is no error.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn create_alias(&self, alias: &str, key: &str) -> Result<()> {
        let body = serde_json::json!({"AliasName": alias, "TargetKeyId": key});
        match self.call("CreateAlias", wire::json(&body)).await? {
            Ok(_) | Err(Refusal::Exists) => Ok(()),
            Err(_) => Err(self.odd("it would not name a key that it has just made")),
        }
    }

    /// All aliases of the account in this region.
    ///
    /// # Errors
    /// What went wrong; more of them than an account may have.
    pub async fn aliases(&self) -> Result<Vec<Alias>> {
        let (mut all, mut marker) = (Vec::new(), None);
        for _ in 0..PAGES {
            let body = with_marker(serde_json::json!({"Limit": 100}), marker);
            let reply = self.call("ListAliases", wire::json(&body)).await?;
            let page = self.understood(reply.ok().and_then(|reply| wire::alias_page(&reply)))?;
            all.extend(page.aliases);
            marker = page.next_marker.filter(|_| page.truncated);
            if marker.is_none() {
                return Ok(all);
            }
        }
        Err(self.odd("it has more aliases than an account may have"))
    }

    /// Ids of keys of the account in this region, at most `limit`.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn keys(&self, limit: usize) -> Result<Vec<String>> {
        let (mut all, mut marker) = (Vec::new(), None);
        while all.len() < limit {
            let body = with_marker(serde_json::json!({"Limit": 1000}), marker);
            let reply = self.call("ListKeys", wire::json(&body)).await?;
            let page = self.understood(reply.ok().and_then(|reply| wire::key_page(&reply)))?;
            all.extend(page.keys.into_iter().map(|key| key.key_id));
            marker = page.next_marker.filter(|_| page.truncated);
            if marker.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// The tags of a key; none for one that the agent may not look at.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn tags(&self, key: &str) -> Result<Vec<(String, String)>> {
        let body = wire::json(&serde_json::json!({"KeyId": key}));
        match self.call("ListResourceTags", body).await {
            Ok(Ok(reply)) => self.understood(wire::tags(&reply)),
            Ok(Err(_)) | Err(SlotError::ActionDenied { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What the service says of a key.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn describe(&self, key: &str) -> Answer<KeyMetadata> {
        let reply = self.call("DescribeKey", wire::json(&serde_json::json!({"KeyId": key}))).await?;
        match reply {
            Ok(reply) => Ok(Ok(self.understood(wire::metadata(&reply))?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Wraps a root key under a key of the service.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn wrap(&self, key: &str, root: &Key, context: &[(&str, String)]) -> Answer<String> {
        let reply = self.call("Encrypt", wire::encrypt_body(key, root, context)).await?;
        match reply {
            Ok(reply) => Ok(Ok(self.understood(wire::wrapped_in(&reply))?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Opens a wrapped root key.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn unwrap_root(&self, key: &str, wrapped: &str, context: &[(&str, String)]) -> Answer<Key> {
        let reply = self.call("Decrypt", wire::decrypt_body(key, wrapped, context)).await?;
        match reply {
            Ok(reply) => Ok(Ok(self.understood(wire::root_in(&reply))?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Has a key deleted after a number of days.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn schedule_deletion(&self, key: &str, days: u8) -> Answer<Scheduled> {
        let body = serde_json::json!({"KeyId": key, "PendingWindowInDays": days});
        match self.call("ScheduleKeyDeletion", wire::json(&body)).await? {
            Ok(reply) => Ok(Ok(self.understood(wire::scheduled(&reply))?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// The service behaves as it must not.
    pub(super) fn odd(&self, what: &str) -> SlotError {
        SlotError::Unavailable { place: self.place().to_owned(), what: what.to_owned() }
    }

    fn understood<T>(&self, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.odd("its reply is not what was asked for"))
    }

    fn unknown(&self, what: &'static str) -> SlotError {
        SlotError::NotAuthenticated { place: self.place().to_owned(), what }
    }

    /// One call; tried again while the service has too much to do, and once with new credentials when the old ones ran out.
    async fn call(&self, action: &'static str, body: Secret) -> Answer<Secret> {
        // All tries share the one buffer, which is wiped when the last of them is done.
        let body = Bytes::from_owner(body);
        let (mut pause, mut is_renewed) = (PAUSE, false);
        for attempt in 1..=TRIES {
            let (status, reply) = self.send(action, body.clone()).await?;
            if status.is_success() {
                return Ok(Ok(reply));
            }
            match self.fault(action, status, &reply) {
                Fault::Refused(refusal) => return Ok(Err(refusal)),
                Fault::Busy(_) if attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Fault::Expired(_) if !is_renewed && self.forget_credentials().await => is_renewed = true,
                Fault::Busy(error) | Fault::Expired(error) | Fault::Other(error) => return Err(error),
            }
        }
        Err(self.odd("it has too much to do"))
    }

    /// What an error reply means. Its text may name anything and is not passed on.
    fn fault(&self, action: &'static str, status: StatusCode, reply: &[u8]) -> Fault {
        let name = wire::error_name(reply).unwrap_or_default();
        match name.as_str() {
            "NotFoundException" => Fault::Refused(Refusal::Absent),
            "KMSInvalidStateException" | "DisabledException" => Fault::Refused(Refusal::State),
            "InvalidCiphertextException" | "IncorrectKeyException" => Fault::Refused(Refusal::Ciphertext),
            "AlreadyExistsException" => Fault::Refused(Refusal::Exists),
            "AccessDeniedException" | "AccessDenied" => {
                let action = wire::ACTIONS.iter().find(|known| known.ends_with(action)).copied().unwrap_or(action);
                Fault::Other(SlotError::ActionDenied { place: self.place().to_owned(), action })
            }
            "ExpiredTokenException" | "ExpiredToken" => Fault::Expired(self.unknown("its session has run out")),
            "UnrecognizedClientException" | "InvalidClientTokenId" | "MissingAuthenticationToken" => {
                Fault::Other(self.unknown("its access key is not known"))
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignature" | "RequestExpired" => {
                Fault::Other(self.unknown("its secret key, or its clock, is wrong"))
            }
            "LimitExceededException" => Fault::Other(self.odd("a quota of the account is used up")),
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                Fault::Busy(self.odd("it has too much to do"))
            }
            "KMSInternalException" | "DependencyTimeoutException" | "KeyUnavailableException" => {
                Fault::Busy(self.odd("it cannot answer for now"))
            }
            _ if status.is_server_error() => {
                Fault::Busy(self.odd(&format!("it answered with status {}", status.as_u16())))
            }
            _ => Fault::Other(self.odd(&format!("it refused {action} with status {}", status.as_u16()))),
        }
    }

    /// Drops credentials of the default chain, so that it is asked again; `false` with keys that do not change.
    async fn forget_credentials(&self) -> bool {
        match &self.identity {
            Identity::Keys(_) => false,
            Identity::Chain(chain) => chain.lock().await.current.take().is_some(),
        }
    }

    async fn credentials(&self, now: SystemTime) -> Result<Credentials> {
        let chain = match &self.identity {
            Identity::Keys(keys) => return Ok(keys.clone()),
            Identity::Chain(chain) => chain,
        };
        let mut chain = chain.lock().await;
        let lasts = |found: &&Credentials| found.expiry().is_none_or(|end| now + RENEW_BEFORE < end);
        if let Some(current) = chain.current.as_ref().filter(lasts) {
            return Ok(current.clone());
        }
        if chain.provider.is_none() {
            let region = aws_config::Region::new(self.region.clone());
            let shared = aws_config::defaults(aws_config::BehaviorVersion::latest()).region(region).load().await;
            chain.provider = shared.credentials_provider();
        }
        let none = || self.unknown("the AWS default chain has no credentials for it");
        let provider = chain.provider.as_ref().ok_or_else(none)?;
        let found = provider.provide_credentials().await.map_err(|_| none())?;
        chain.current = Some(found.clone());
        Ok(found)
    }

    async fn send(&self, action: &'static str, body: Bytes) -> Result<(StatusCode, Secret)> {
        // The time of the host, which the service compares with its own; no decision hangs on it.
        let now = SystemTime::from(SystemClock.now());
        let headers = self.signed(action, &body, now, self.credentials(now).await?)?;
        let request = self.http.post(self.url.clone()).headers(headers).body(Body::from(body));
        let mut reply = request.send().await.map_err(|fault| self.unreachable(&fault))?;
        let status = reply.status();
        // All the room at once: growing would leave a copy of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(REPLY_LIMIT));
        while let Some(chunk) = reply.chunk().await.map_err(|fault| self.unreachable(&fault))? {
            if bytes.len() + chunk.len() > REPLY_LIMIT {
                return Err(self.odd("its reply is longer than any that was asked for"));
            }
            bytes.extend_from_slice(&chunk);
            if let Ok(mut chunk) = chunk.try_into_mut() {
                chunk.zeroize();
            }
        }
        Ok((status, bytes))
    }

    fn signed(&self, action: &str, body: &[u8], now: SystemTime, who: Credentials) -> Result<HeaderMap> {
        let unusable = || self.unknown("a request cannot be signed for it");
        let target = format!("TrentService.{action}");
        let identity = who.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("kms")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| unusable())?
            .into();
        let signed = [("content-type", JSON), ("x-amz-target", target.as_str())];
        let request = SignableRequest::new("POST", self.url.as_str(), signed.into_iter(), SignableBody::Bytes(body));
        let request = request.map_err(|_| unusable())?;
        let (instructions, _) = sign(request, &params).map_err(|_| unusable())?.into_parts();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(TARGET, HeaderValue::from_str(&target).map_err(|_| unusable())?);
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// The library's own words name the address only; they are not needed to know what to do.
    fn unreachable(&self, fault: &reqwest::Error) -> SlotError {
        self.odd(if fault.is_timeout() {
            "it does not answer in time"
        } else if fault.is_connect() {
            "it cannot be connected to"
        } else {
            "the connection broke"
        })
    }
}

/// What an error reply leads to.
enum Fault {
    Refused(Refusal),
    Busy(SlotError),
    Expired(SlotError),
    Other(SlotError),
}

fn with_marker(mut body: serde_json::Value, marker: Option<String>) -> serde_json::Value {
    if let (Some(marker), Some(fields)) = (marker, body.as_object_mut()) {
        fields.insert("Marker".to_owned(), marker.into());
    }
    body
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An access key: its id and its secret.
pub type AccessKey = (SecretText, SecretText);
