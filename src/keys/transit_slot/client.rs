//! The transit engine of OpenBao or Vault over HTTP. Bodies are never logged; what holds key material is wiped.
//!
//! https only, except to a loopback address; redirects are never followed (they would carry the token elsewhere); every
//! request has a connection of its own, so that no idle one keeps buffers alive. What the TLS layer and the kernel buffer
//! cannot be wiped from here.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Certificate, Client, Method, StatusCode, Url, redirect};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::{Zeroize as _, Zeroizing};

use super::wire::{self, KeyState, Login, Secret, TokenState};
use super::{TransitAuth, TransitSetup};
use crate::keys::Key;
use crate::keys::slot::SlotError;
use crate::policy::registry::SecretText;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole exchange.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// No reply of the service comes near this size, in bytes.
const REPLY_LIMIT: usize = 64 * 1024;
/// A token of unknown end is looked at again after this time.
const LONG: Duration = Duration::from_hours(1);

const LOOKUP: &str = "auth/token/lookup-self";
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A token, and when to ask for more of its life.
struct Session {
    token: SecretText,
    renewable: bool,
    renew_at: Instant,
}

/// What the service answered.
enum Answer {
    /// 200 or 204.
    Done(Secret),
    /// 400: it understood and will not.
    Rejected,
    /// 404.
    Absent,
}

/// The client of one key.
pub(super) struct TransitClient {
    http: Client,
    base: Url,
    mount: String,
    key: String,
    namespace: Option<HeaderValue>,
    auth: TransitAuth,
    place: String,
    session: Mutex<Option<Session>>,
}

impl TransitClient {
    pub(super) fn new(setup: &TransitSetup) -> Result<Self> {
        let place = setup.place();
        let refuse = |what| SlotError::Setup { place: setup.place(), what };
        let base = Url::parse(&setup.address).map_err(|_| refuse("its address is not a URL"))?;
        let loopback = is_loopback(&base);
        if base.scheme() != "https" && !(base.scheme() == "http" && loopback) {
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
        if let Some(pem) = &setup.ca_pem {
            let roots =
                Certificate::from_pem_bundle(pem).map_err(|_| refuse("its `ca` is not a file of certificates"))?;
            builder = builder.tls_certs_only(roots);
        }
        let http = builder.build().map_err(|_| refuse("the HTTP client cannot be set up"))?;
        let namespace = setup.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(|_| refuse("its namespace is not plain text"))?;
        let (mount, key, auth) = (setup.mount.clone(), setup.key.clone(), setup.auth.clone());
        Ok(Self { http, base, mount, key, namespace, auth, place, session: Mutex::new(None) })
    }

    /// Where the key is, in words for errors.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The state of the key; `None` when there is no such key.
    pub(super) async fn key_state(&self) -> Result<Option<KeyState>> {
        match self.call(Method::GET, &self.key_path(""), None, "read").await? {
            Answer::Done(reply) => Ok(Some(self.understood(wire::data(&reply))?)),
            Answer::Absent => Ok(None),
            Answer::Rejected => Err(self.odd("it would not say anything about the key")),
        }
    }

    /// Makes a new version of the key; returns the newest.
    pub(super) async fn rotate(&self) -> Result<u64> {
        self.done(Method::POST, &self.key_path("/rotate"), wire::json(&serde_json::json!({}))).await?;
        // Vault answers with nothing, so the state is asked for.
        let state = self.key_state().await?.ok_or_else(|| self.odd("the key vanished"))?;
        Ok(state.latest_version)
    }

    /// Wraps a root key under one version.
    pub(super) async fn wrap(&self, root: &Key, associated_data: &[u8], version: u64) -> Result<String> {
        let body = wire::encrypt_body(root, associated_data, version);
        let reply = self.done(Method::POST, &format!("{}/encrypt/{}", self.mount, self.key), body).await?;
        let wrapped = wire::wrapped_in(&reply).filter(|wrapped| wire::is_of_version(wrapped, version));
        self.understood(wrapped)
    }

    /// Opens a wrapped root key; `None` when the service will not.
    pub(super) async fn unwrap_root(&self, wrapped: &str, associated_data: &[u8]) -> Result<Option<Key>> {
        let body = wire::decrypt_body(wrapped, associated_data);
        let path = format!("{}/decrypt/{}", self.mount, self.key);
        match self.call(Method::POST, &path, Some(body), "update").await? {
            Answer::Done(reply) => Ok(Some(self.understood(wire::root_in(&reply))?)),
            Answer::Rejected | Answer::Absent => Ok(None),
        }
    }

    /// Signs a SHA-256 with one version; `None` when the service will not.
    pub(super) async fn sign(&self, digest: &[u8], version: u64) -> Result<Option<Vec<u8>>> {
        let path = format!("{}/sign/{}", self.mount, self.key);
        match self.call(Method::POST, &path, Some(wire::sign_body(digest, version)), "update").await? {
            Answer::Done(reply) => Ok(Some(self.understood(wire::signature_in(&reply, version))?)),
            Answer::Rejected | Answer::Absent => Ok(None),
        }
    }

    /// Forbids the use of versions below `version`; reversible by itself, and needed before [`TransitClient::trim`].
    pub(super) async fn forbid_below(&self, version: u64) -> Result<()> {
        let body = serde_json::json!({"min_decryption_version": version, "min_encryption_version": version});
        self.done(Method::POST, &self.key_path("/config"), wire::json(&body)).await.map(|_| ())
    }

    /// Destroys the versions below `version`.
    pub(super) async fn trim(&self, version: u64) -> Result<()> {
        let body = serde_json::json!({"min_available_version": version});
        self.done(Method::POST, &self.key_path("/trim"), wire::json(&body)).await.map(|_| ())
    }

    /// Lets the key be deleted, or forbids it again.
    pub(super) async fn allow_deletion(&self, is_allowed: bool) -> Result<()> {
        let body = serde_json::json!({"deletion_allowed": is_allowed});
        self.done(Method::POST, &self.key_path("/config"), wire::json(&body)).await.map(|_| ())
    }

    /// Deletes the key with all its versions; the service must have been told that it may be.
    pub(super) async fn delete_key(&self) -> Result<()> {
        match self.call(Method::DELETE, &self.key_path(""), None, "delete").await? {
            Answer::Done(_) | Answer::Absent => Ok(()),
            Answer::Rejected => Err(self.odd("it refuses to delete the key")),
        }
    }

    /// What the agent may do on these paths, as the service says.
    pub(super) async fn rights(&self, paths: &[String]) -> Result<Vec<Vec<String>>> {
        let body = wire::json(&serde_json::json!({"paths": paths}));
        let reply = self.done(Method::POST, "sys/capabilities-self", body).await?;
        let found: serde_json::Value = self.understood(wire::data(&reply))?;
        let of = |path: &String| {
            let list = found.get(path).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
            list.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
        };
        Ok(paths.iter().map(of).collect())
    }

    /// A path of the key itself.
    pub(super) fn key_path(&self, below: &str) -> String {
        format!("{}/keys/{}{below}", self.mount, self.key)
    }

    async fn done(&self, method: Method, path: &str, body: Secret) -> Result<Secret> {
        match self.call(method, path, Some(body), "update").await? {
            Answer::Done(reply) => Ok(reply),
            Answer::Rejected => Err(self.odd("it refuses what was asked")),
            Answer::Absent => {
                Err(SlotError::Unfit { place: self.place.clone(), what: "there is no such key or mount" })
            }
        }
    }

    fn odd(&self, what: &str) -> SlotError {
        SlotError::Unavailable { place: self.place.clone(), what: what.to_owned() }
    }

    fn understood<T>(&self, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.odd("its reply is not what was asked for"))
    }

    /// One request under the agent's token; a token that died is replaced once, if there is a way to.
    async fn call(&self, method: Method, path: &str, body: Option<Secret>, capability: &'static str) -> Result<Answer> {
        // Both tries share the one buffer, which is wiped when the last of them is done.
        let body = body.map(Bytes::from_owner);
        let mut is_second = false;
        loop {
            let token = self.token().await?;
            let (status, reply) = self.send(method.clone(), path, body.clone(), Some(&token)).await?;
            match status.as_u16() {
                200 | 204 => return Ok(Answer::Done(reply)),
                400 | 422 => return Ok(Answer::Rejected),
                404 if wire::says_no_route(&reply) => {
                    return Err(SlotError::Unfit { place: self.place.clone(), what: "there is no such mount" });
                }
                404 => return Ok(Answer::Absent),
                403 if self.is_alive(&token).await? => {
                    return Err(SlotError::Denied { place: self.place.clone(), path: path.to_owned(), capability });
                }
                403 => {
                    self.session.lock().await.take();
                    if is_second || matches!(self.auth, TransitAuth::Token(_)) {
                        return Err(self.unknown("its token was revoked, or has run out, or never was one"));
                    }
                    is_second = true;
                }
                _ => return Err(self.trouble(status, &reply)),
            }
        }
    }

    /// The token to use now: renewed at half of its life, or had by logging in again.
    async fn token(&self) -> Result<SecretText> {
        let mut session = self.session.lock().await;
        if let Some(current) = session.as_ref().filter(|current| Instant::now() < current.renew_at) {
            return Ok(current.token.clone());
        }
        let old = session.take().filter(|old| old.renewable);
        let renewed = match old {
            Some(old) => self.renew(&old.token).await?,
            None => None,
        };
        let fresh = match renewed {
            Some(renewed) => renewed,
            None => self.log_in().await?,
        };
        Ok(session.insert(fresh).token.clone())
    }

    /// A longer life for a token; `None` when the service refuses it.
    async fn renew(&self, token: &SecretText) -> Result<Option<Session>> {
        let body = Bytes::from_static(b"{}");
        let (status, reply) = self.send(Method::POST, "auth/token/renew-self", Some(body), Some(token)).await?;
        match status.as_u16() {
            200 => session_of(&reply).map(Some).ok_or_else(|| self.odd("its reply to a renewal is not one")),
            400 | 403 => Ok(None),
            _ => Err(self.trouble(status, &reply)),
        }
    }

    async fn log_in(&self) -> Result<Session> {
        match &self.auth {
            TransitAuth::Token(token) => {
                let (status, reply) = self.send(Method::GET, LOOKUP, None, Some(token)).await?;
                match status.as_u16() {
                    200 => {
                        let state: TokenState = self.understood(wire::data(&reply))?;
                        let renew_at = Instant::now() + half_of(state.ttl);
                        Ok(Session { token: token.clone(), renewable: state.renewable, renew_at })
                    }
                    403 => Err(self.unknown("its token was revoked, or has run out, or never was one")),
                    _ => Err(self.trouble(status, &reply)),
                }
            }
            TransitAuth::AppRole { mount, role_id, secret_id } => {
                let body = wire::login_body(role_id.dangerous_text(), secret_id.dangerous_text());
                let path = format!("auth/{mount}/login");
                let (status, reply) = self.send(Method::POST, &path, Some(Bytes::from_owner(body)), None).await?;
                match status.as_u16() {
                    200 => session_of(&reply).ok_or_else(|| self.odd("its reply to a login is not one")),
                    400 | 403 | 404 => Err(self.unknown("its role id or secret id was refused")),
                    _ => Err(self.trouble(status, &reply)),
                }
            }
        }
    }

    /// Whether the service still knows a token. Without this, a revoked token and a missing right look the same.
    async fn is_alive(&self, token: &SecretText) -> Result<bool> {
        let (status, reply) = self.send(Method::GET, LOOKUP, None, Some(token)).await?;
        match status.as_u16() {
            200 => Ok(true),
            403 => Ok(false),
            _ => Err(self.trouble(status, &reply)),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        token: Option<&SecretText>,
    ) -> Result<(StatusCode, Secret)> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path.split('/'));
        }
        let mut headers = HeaderMap::new();
        // Shows the service that this is no browser that somebody led here.
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(token) = token {
            let value = HeaderValue::from_str(token.dangerous_text());
            let mut value = value.map_err(|_| self.unknown("its token is not one line of plain text"))?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body));
        }
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

    fn unknown(&self, what: &'static str) -> SlotError {
        SlotError::NotAuthenticated { place: self.place.clone(), what }
    }

    fn trouble(&self, status: StatusCode, reply: &[u8]) -> SlotError {
        if wire::says_sealed(reply) {
            return SlotError::Sealed { place: self.place.clone() };
        }
        self.odd(&format!("it answered with status {}", status.as_u16()))
    }
}

fn session_of(reply: &[u8]) -> Option<Session> {
    let login: Login<'_> = serde_json::from_slice(reply).ok()?;
    let token = SecretText::new(login.auth.client_token.to_owned());
    let renew_at = Instant::now() + half_of(login.auth.lease_duration);
    Some(Session { token, renewable: login.auth.renewable, renew_at })
}

/// Half of a token's life; 0 seconds is a life without end.
fn half_of(seconds: u64) -> Duration {
    if seconds == 0 { LONG } else { Duration::from_millis(seconds.saturating_mul(500)).min(LONG) }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
