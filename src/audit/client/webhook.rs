//! Posts certificates to a webhook (Standard Webhooks): every try is signed anew. A success says that it arrived and
//! proves nothing, unless the answer is an acknowledgement that is signed by a configured key.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};

use super::{Access, ClientError, TRACEPARENT, alarm, judge, read_bounded, retry, retry_after};
use crate::audit::acknowledgement;
use crate::audit::trace_context::traceparent;
use crate::audit::webhook::{WebhookSecret, sign};
use crate::audit::{AuditSink, BearerToken, FiledOutcome, Grown, Looked, QuarantineReason, RetryReason};
use crate::certify::VerifiedCertificate;
use crate::certify::signer::TrustedKeys;
use crate::clock::Clock;
use crate::log::checkpoint::Checkpoint;
use crate::log::tree::sha256;

/// How to reach a webhook.
pub struct WebhookSetup {
    /// How it is reached; the address is posted to as it is.
    pub access: Access,
    /// What posts are signed with; several while one is replaced by another.
    pub secrets: Vec<WebhookSecret>,
    /// The keys our certificates are signed with.
    pub signers: TrustedKeys,
    /// A bearer token, if it wants one besides.
    pub token: Option<BearerToken>,
    /// Whose acknowledgement a success must bring; nobody's: any success will do, and proves nothing.
    pub acknowledgers: TrustedKeys,
    /// The clock, for the time that is signed.
    pub clock: Arc<dyn Clock>,
}

/// The adapter.
pub struct WebhookClient {
    http: Client,
    url: Url,
    secrets: Vec<WebhookSecret>,
    signers: TrustedKeys,
    token: Option<BearerToken>,
    acknowledgers: TrustedKeys,
    clock: Arc<dyn Clock>,
}

impl WebhookClient {
    /// A client for one webhook.
    ///
    /// # Errors
    /// When address, certificates or key cannot be used.
    pub fn new(setup: WebhookSetup) -> Result<Self, ClientError> {
        let WebhookSetup { access, secrets, signers, token, acknowledgers, clock } = setup;
        let (url, http) = access.connect(access.identity.as_ref())?;
        Ok(Self { http, url, secrets, signers, token, acknowledgers, clock })
    }

    fn headers(&self, id: &str, body: &[u8]) -> HeaderMap {
        let signed = sign(id, self.clock.now(), body, &self.secrets);
        let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(body)));
        let trace = traceparent(id, self.clock.now());
        let mut headers = HeaderMap::new();
        let named = [
            ("webhook-id", signed.id.as_str()),
            ("webhook-timestamp", &signed.timestamp),
            ("webhook-signature", &signed.signature),
            ("content-digest", &digest),
            (TRACEPARENT, &trace),
        ];
        for (name, text) in named {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let token = self.token.as_ref().map(BearerToken::header);
        if let Some(mut value) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// Reads the acknowledgement out of a success and verifies it.
    async fn signed(&self, reply: Response, certificate: &VerifiedCertificate) -> FiledOutcome {
        let Some(bytes) = read_bounded(reply).await else {
            return retry(None, RetryReason::Unreachable);
        };
        match acknowledgement::verify(&bytes, certificate, &self.acknowledgers, self.clock.now()) {
            Ok(_) => FiledOutcome::Signed(bytes),
            Err(error) => alarm(RetryReason::BadAcknowledgement(error)),
        }
    }
}

#[async_trait]
impl AuditSink for WebhookClient {
    async fn file(&self, id: &str, envelope: &[u8]) -> FiledOutcome {
        let ours = crate::certify::verify(envelope, &self.signers).ok().filter(|found| found.id() == id);
        let Some(certificate) = ours else {
            return FiledOutcome::Quarantine(QuarantineReason::NotOurs);
        };
        let request = self.http.post(self.url.clone()).headers(self.headers(id, envelope));
        let Ok(reply) = request.body(envelope.to_vec()).send().await else {
            return retry(None, RetryReason::Unreachable);
        };
        let after = retry_after(reply.headers(), self.clock.now());
        match reply.status() {
            status if !status.is_success() => judge(status, after),
            _ if self.acknowledgers.is_empty() => FiledOutcome::Acknowledged,
            _ => self.signed(reply, &certificate).await,
        }
    }

    async fn look(&self, _: &str, _: Option<&[u8]>) -> Looked {
        // A webhook takes, and answers no questions.
        Looked::Unanswered
    }

    async fn grew(&self, _: &Checkpoint, _: &Checkpoint) -> Grown {
        Grown::Unanswered
    }
}
