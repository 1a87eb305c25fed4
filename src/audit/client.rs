//! Files certificates with an audit service over HTTP: `PUT {base}/v1/certificates/{id}`.
//!
//! https only, except to a loopback address; redirects are never followed (they would carry the token elsewhere);
//! replies are read up to a bound and never logged.

pub mod conformance;
pub mod stamp;
pub mod webhook;
pub mod witness;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Response, StatusCode, Url, redirect};
use thiserror::Error;
use zeroize::Zeroizing;

use super::trace_context::traceparent;
use super::{
    AuditSink, BearerToken, FiledOutcome, FiledReceipt, Grown, Looked, QuarantineReason, RetryReason, judge_heads,
    receipt,
};
use crate::certify::dsse::Envelope;
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::clock::Clock;
use crate::log::checkpoint::{Checkpoint, CheckpointKey};
use crate::log::tree::{Hash, sha256, verify_consistency};

/// Time for a question at the start, which must not hold up a command for long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after faults that only people mend.
const SLOW_RETRY: Duration = Duration::from_mins(15);
/// The longest delay a service may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// No receipt comes near this size.
const MAX_RECEIPT_BYTES: usize = 256 * 1024;

/// How long answers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Time to connect.
    pub connect: Duration,
    /// Time for a whole exchange. Rekor v2 needs 20 s, because it answers after the next checkpoint.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30) }
    }
}

/// A client certificate with its chain, and its private key, both in PEM.
pub struct ClientIdentity {
    /// The certificate, and those between it and its authority.
    pub certificate: Vec<u8>,
    /// The private key. Wiped on drop.
    pub key: Zeroizing<Vec<u8>>,
}

/// The header that leads from a filing to its trace (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// How a service is reached, whatever is sent to it.
pub struct Access {
    /// Base address; `https://…`, or `http://` on a loopback address.
    pub url: String,
    /// Certificate authorities in PEM to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Who we are to a service that asks for a client certificate.
    pub identity: Option<ClientIdentity>,
    /// How long answers are waited for.
    pub patience: Patience,
}

/// How to reach the audit service, and what to trust.
pub struct ClientSetup {
    /// How the service is reached.
    pub access: Access,
    /// The log's key, from the configuration.
    pub log: CheckpointKey,
    /// The keys our certificates are signed with.
    pub signers: TrustedKeys,
    /// The bearer token, if the service wants one.
    pub token: Option<BearerToken>,
    /// The clock, for `Retry-After` dates.
    pub clock: Arc<dyn Clock>,
}

/// A setup that cannot work. Trying again does not help.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is malformed.
    #[error("the audit service's address is not an http or https URL without user, query and fragment")]
    Url,
    /// Plain HTTP to another host.
    #[error("the audit service's address must be https: plain http is allowed only to this host")]
    NotHttps,
    /// The CA file is not PEM.
    #[error("the CA certificates of the audit service are not usable")]
    Ca(#[source] reqwest::Error),
    /// Client certificate or key are not PEM, or do not belong together.
    #[error(
        "the client certificate and its key are not usable: PEM is wanted, the key in PKCS#8 and of that certificate"
    )]
    Identity(#[source] reqwest::Error),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Build(#[source] reqwest::Error),
}

/// The adapter.
pub struct AuditClient {
    http: Client,
    /// The same without the client certificate, where there is one: for seeing what a service does then.
    bare: Option<Client>,
    base: Url,
    log: CheckpointKey,
    signers: TrustedKeys,
    token: Option<BearerToken>,
    clock: Arc<dyn Clock>,
}

impl AuditClient {
    /// A client for one audit service.
    pub fn new(setup: ClientSetup) -> Result<Self, ClientError> {
        let ClientSetup { access, log, signers, token, clock } = setup;
        let (base, http) = access.connect(access.identity.as_ref())?;
        let bare = match &access.identity {
            Some(_) => Some(access.connect(None)?.1),
            None => None,
        };
        Ok(Self { http, bare, base, log, signers, token, clock })
    }

    fn address(&self, id: &str, last: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "certificates", id]).extend(last);
        }
        url
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let token = self.token.as_ref().map(BearerToken::header);
        if let Some(mut value) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    async fn put(&self, id: &str, envelope: &[u8]) -> Result<Response, reqwest::Error> {
        let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(envelope)));
        self.http
            .put(self.address(id, &[]))
            .headers(self.headers())
            .header(CONTENT_TYPE, "application/json")
            .header("content-digest", digest)
            // A hint for proxies; PUT is idempotent by itself.
            .header("idempotency-key", format!("\"{id}\""))
            .header(TRACEPARENT, traceparent(id, self.clock.now()))
            .body(envelope.to_vec())
            .send()
            .await
    }

    /// Reads the receipt out of a reply and verifies it.
    async fn receipted(&self, reply: Response, envelope: &Envelope, key: &PublicKey) -> FiledOutcome {
        let Some(bytes) = read_bounded(reply).await else {
            return retry(None, RetryReason::Unreachable);
        };
        match receipt::verify(&bytes, envelope, key, &self.log) {
            Ok(verified) => FiledOutcome::Receipted(FiledReceipt { bytes, verified }),
            Err(_) => alarm(RetryReason::BadReceipt),
        }
    }

    /// Whether a reply is a receipt of one of our certificates.
    async fn proves(&self, reply: Response, envelope: &[u8]) -> bool {
        let ours = crate::certify::verify(envelope, &self.signers).ok();
        let key = ours.as_ref().and_then(|verified| self.signers.get(&verified.key_id));
        let (Some(key), Ok(parsed), Some(bytes)) = (key, Envelope::parse(envelope), read_bounded(reply).await) else {
            return false;
        };
        receipt::verify(&bytes, &parsed, key, &self.log).is_ok()
    }

    /// After 202: the receipt may be there already.
    async fn poll(&self, id: &str, after: Option<Duration>, envelope: &Envelope, key: &PublicKey) -> FiledOutcome {
        let asked = self.http.get(self.address(id, &["receipt"])).headers(self.headers());
        let reply = asked.header(TRACEPARENT, traceparent(id, self.clock.now())).send().await;
        match reply {
            Ok(reply) if reply.status() == StatusCode::OK => self.receipted(reply, envelope, key).await,
            _ => retry(after, RetryReason::Pending),
        }
    }
}

impl Access {
    /// The checked address, and a client that shows this identity.
    fn connect(&self, identity: Option<&ClientIdentity>) -> Result<(Url, Client), ClientError> {
        let (base, mut builder) = base_address(&self.url)?;
        builder = builder.connect_timeout(self.patience.connect).timeout(self.patience.total);
        if let Some(pem) = &self.ca_pem {
            let roots = Certificate::from_pem_bundle(pem).map_err(ClientError::Ca)?;
            builder = builder.tls_certs_only(roots);
        }
        if let Some(ClientIdentity { certificate, key }) = identity {
            let both = Zeroizing::new([certificate.as_slice(), b"\n", key.as_slice()].concat());
            builder = builder.identity(Identity::from_pem(&both).map_err(ClientError::Identity)?);
        }
        let built = builder.build();
        let wrong = if identity.is_some() { ClientError::Identity } else { ClientError::Build };
        Ok((base, built.map_err(wrong)?))
    }
}

/// An address without user, query and fragment.
fn plain_address(text: &str) -> Result<Url, ClientError> {
    let base = Url::parse(text).map_err(|_| ClientError::Url)?;
    let no_user = base.username().is_empty() && base.password().is_none();
    let is_plain = no_user && base.query().is_none() && base.fragment().is_none() && !base.cannot_be_a_base();
    if is_plain { Ok(base) } else { Err(ClientError::Url) }
}

/// Checks a base address, and begins a client that never leaves it: no redirects, https to everywhere but this host.
fn base_address(text: &str) -> Result<(Url, ClientBuilder), ClientError> {
    let base = plain_address(text)?;
    let loopback = is_loopback(&base);
    match base.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err(ClientError::NotHttps),
        _ => return Err(ClientError::Url),
    }
    let builder = Client::builder()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("wangchuan/", env!("CARGO_PKG_VERSION")))
        .https_only(!loopback);
    Ok((base, if loopback { builder.no_proxy() } else { builder }))
}

/// Whether an address leads to this host itself.
#[must_use]
pub fn leads_to_this_host(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| is_loopback(&url))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn retry(after: Option<Duration>, reason: RetryReason) -> FiledOutcome {
    FiledOutcome::Retry { after, alarm: false, reason }
}

fn alarm(reason: RetryReason) -> FiledOutcome {
    FiledOutcome::Retry { after: Some(SLOW_RETRY), alarm: true, reason }
}

/// The key that this certificate was signed with, if it has this id and the key is one of ours.
fn own_key<'k>(id: &str, envelope: &[u8], signers: &'k TrustedKeys) -> Option<&'k PublicKey> {
    let verified = crate::certify::verify(envelope, signers).ok()?;
    if verified.id() == id { signers.get(&verified.key_id) } else { None }
}

/// The hashes of a consistency proof.
fn hashes_of(reply: &[u8]) -> Option<Vec<Hash>> {
    let value: serde_json::Value = serde_json::from_slice(reply).ok()?;
    let hashes = value.get("hashes")?.as_array()?;
    hashes.iter().map(|hash| STANDARD.decode(hash.as_str()?).ok()?.try_into().ok()).collect()
}

/// The body, unless it is too long or breaks off.
async fn read_bounded(mut reply: Response) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.ok()? {
        if bytes.len() + chunk.len() > MAX_RECEIPT_BYTES {
            return Some(Vec::new());
        }
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

/// `Retry-After` as seconds or date (RFC 9110 §10.2.3), at most an hour.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc) - now).to_std().unwrap_or_default(),
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

/// What a status other than 200, 201 and 202 means (audit contract).
fn judge(status: StatusCode, after: Option<Duration>) -> FiledOutcome {
    let code = status.as_u16();
    match code {
        409 => FiledOutcome::Quarantine(QuarantineReason::Conflict),
        400 | 413 | 415 | 422 => FiledOutcome::Quarantine(QuarantineReason::Refused(code)),
        408 | 425 | 429 | 500..=599 => retry(after, RetryReason::NotReady(code)),
        // A wrong password, path or redirect must not poison certificates: keep them and tell someone.
        _ => alarm(RetryReason::Misconfigured(code)),
    }
}

#[async_trait]
impl AuditSink for AuditClient {
    async fn grew(&self, earlier: &Checkpoint, later: &Checkpoint) -> Grown {
        if let Some(judged) = judge_heads(earlier, later) {
            return judged;
        }
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "proof", "consistency"]);
        }
        let sizes = [("from", earlier.size.to_string()), ("to", later.size.to_string())];
        url.query_pairs_mut().extend_pairs(sizes);
        let Ok(reply) = self.http.get(url).headers(self.headers()).send().await else { return Grown::Unanswered };
        if reply.status() != StatusCode::OK {
            return Grown::Unanswered;
        }
        let Some(bytes) = read_bounded(reply).await else { return Grown::Unanswered };
        let Some(proof) = hashes_of(&bytes) else { return Grown::Unanswered };
        let proved = verify_consistency(earlier.size, later.size, &earlier.root, &later.root, &proof);
        if proved { Grown::Proved } else { Grown::Refuted }
    }

    async fn file(&self, id: &str, envelope: &[u8]) -> FiledOutcome {
        let (Some(key), Ok(parsed)) = (own_key(id, envelope, &self.signers), Envelope::parse(envelope)) else {
            return FiledOutcome::Quarantine(QuarantineReason::NotOurs);
        };
        let Ok(reply) = self.put(id, envelope).await else {
            return retry(None, RetryReason::Unreachable);
        };
        let after = retry_after(reply.headers(), self.clock.now());
        match reply.status() {
            StatusCode::OK | StatusCode::CREATED => self.receipted(reply, &parsed, key).await,
            StatusCode::ACCEPTED => self.poll(id, after, &parsed, key).await,
            // Any other success carries no receipt, so it proves nothing.
            status if status.is_success() => alarm(RetryReason::BadReceipt),
            status => judge(status, after),
        }
    }

    async fn look(&self, id: &str, envelope: Option<&[u8]>) -> Looked {
        let asked = self.http.get(self.address(id, &["receipt"])).headers(self.headers()).timeout(LOOK_TIMEOUT);
        let Ok(reply) = asked.send().await else { return Looked::Unanswered };
        match reply.status() {
            StatusCode::NOT_FOUND => Looked::NotFiled,
            StatusCode::OK => match envelope {
                None => Looked::Filed,
                Some(envelope) if self.proves(reply, envelope).await => Looked::Filed,
                Some(_) => Looked::Unanswered,
            },
            // Accepted, and its receipt is still to come.
            StatusCode::ACCEPTED if envelope.is_none() => Looked::Filed,
            _ => Looked::Unanswered,
        }
    }
}
