//! Asks a time-stamping authority over HTTP (RFC 3161 §3.4).
//!
//! Plain http is as good as https here, and all that most authorities offer: nothing goes out but the hash of a signature, and
//! nothing of the answer is believed but what the authority signed. Redirects are not followed; answers are read up to a bound.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url, redirect};

use super::{ClientError, is_loopback, plain_address};
use crate::audit::stamp::{AskError, MAX_REPLY_BYTES, StampAuthority};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for a whole exchange: certificates do not wait for it, but what comes behind it does.
const TOTAL: Duration = Duration::from_secs(10);

/// The adapter.
pub struct StampClient {
    http: Client,
    url: Url,
}

impl StampClient {
    /// A client for one authority.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Self::with_patience(url, TOTAL)
    }

    /// The same with another time for a whole exchange.
    pub fn with_patience(url: &str, total: Duration) -> Result<Self, ClientError> {
        let url = plain_address(url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ClientError::Url);
        }
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(concat!("wangchuan/", env!("CARGO_PKG_VERSION")))
            .https_only(url.scheme() == "https")
            .connect_timeout(CONNECT.min(total))
            .timeout(total);
        let builder = if is_loopback(&url) { builder.no_proxy() } else { builder };
        Ok(Self { http: builder.build().map_err(ClientError::Build)?, url })
    }
}

#[async_trait]
impl StampAuthority for StampClient {
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, AskError> {
        let asked = self.http.post(self.url.clone());
        let asked =
            asked.header(CONTENT_TYPE, "application/timestamp-query").header(ACCEPT, "application/timestamp-reply");
        let mut reply = asked.body(request.to_vec()).send().await.map_err(|_| AskError::Unreachable)?;
        match reply.status().as_u16() {
            200 => {}
            code @ (408 | 425 | 429 | 500..=599) => return Err(AskError::NotReady(code)),
            code => return Err(AskError::Misconfigured(code)),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(|_| AskError::Unreachable)? {
            if bytes.len() + chunk.len() > MAX_REPLY_BYTES {
                return Err(AskError::TooLong);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
