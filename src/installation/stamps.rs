//! The time-stamping authority of an installation, and whose time stamps it believes.

use std::sync::Arc;

use super::services::proof;
use super::{Installation, cannot};
use crate::audit::client::stamp::StampClient;
use crate::audit::stamp::{StampAuthority, StampTrust};
use crate::error::Result;

/// The time-stamping authority.
pub struct StampConnection {
    /// Who is asked.
    pub authority: Arc<dyn StampAuthority>,
    /// Where.
    pub url: String,
    /// Whose answers are believed.
    pub trust: StampTrust,
}

/// The configured time-stamping authority; `None` without one.
///
/// # Errors
/// When its roots cannot be read.
pub fn stamp_connection(installation: &Installation) -> Result<Option<StampConnection>> {
    let Some(configured) = &installation.config.audit.timestamp else { return Ok(None) };
    let client = StampClient::new(&configured.url).map_err(proof)?;
    let trust = stamp_trust(installation)?;
    Ok(Some(StampConnection { authority: Arc::new(client), url: configured.url.clone(), trust }))
}

/// The roots of time-stamping authorities; none without a configured one.
///
/// # Errors
/// When the file cannot be read, or holds no certificates.
pub fn stamp_trust(installation: &Installation) -> Result<StampTrust> {
    let Some(configured) = &installation.config.audit.timestamp else { return Ok(StampTrust::default()) };
    let pem = std::fs::read(&configured.trust)
        .map_err(|error| cannot("read the roots of the time-stamping authority", &configured.trust, &error))?;
    StampTrust::from_pem(&pem).map_err(|error| {
        let what = format!("{}: {}", configured.trust.display(), crate::error::with_causes(&error));
        crate::error::TaskError::refused(what, "put the authority's root certificate there, PEM")
    })
}
