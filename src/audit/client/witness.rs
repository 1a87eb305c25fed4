//! Asks a witness over HTTP: `POST {prefix}/add-checkpoint`.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode, Url};

use super::{ClientError, base_address, read_bounded};
use crate::audit::witness::{Witness, WitnessAnswer, WitnessFailed};
use crate::log::cosignature::known_size;

/// Time for a whole exchange. A filing waits for it, so a slow witness counts as one that is away.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The adapter.
pub struct HttpWitness {
    http: Client,
    address: Url,
}

impl HttpWitness {
    /// A witness with this prefix; `https://…`, or `http://` on a loopback address.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let (mut address, builder) = base_address(url)?;
        if let Ok(mut path) = address.path_segments_mut() {
            path.pop_if_empty().push("add-checkpoint");
        }
        let http = builder.connect_timeout(TIMEOUT).timeout(TIMEOUT).build().map_err(ClientError::Build)?;
        Ok(Self { http, address })
    }
}

#[async_trait]
impl Witness for HttpWitness {
    async fn add_checkpoint(&self, body: String) -> Result<WitnessAnswer, WitnessFailed> {
        let request = self.http.post(self.address.clone()).header(CONTENT_TYPE, "text/plain").body(body);
        let reply = request.send().await.map_err(|_| WitnessFailed::Unreachable)?;
        let status = reply.status();
        match status {
            StatusCode::OK => Ok(WitnessAnswer::Signed(text(reply).await?)),
            StatusCode::CONFLICT => {
                let size = known_size(&text(reply).await?);
                size.map(WitnessAnswer::Knows).ok_or(WitnessFailed::OtherHistory)
            }
            StatusCode::UNPROCESSABLE_ENTITY => Err(WitnessFailed::OtherHistory),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(WitnessFailed::Unknown(status.as_u16())),
            _ => Err(WitnessFailed::Unreachable),
        }
    }
}

async fn text(reply: Response) -> Result<String, WitnessFailed> {
    let bytes = read_bounded(reply).await.ok_or(WitnessFailed::Unreachable)?;
    String::from_utf8(bytes).map_err(|_| WitnessFailed::Unreachable)
}
