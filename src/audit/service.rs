//! The embedded audit service: stores certificates, puts their digests into the log, answers with receipts.
//!
//! One task appends (a group of filings per commit, whatever came in while the last commit ran), so that an answer is
//! given only after the leaf is durable and its head signed. A filing whose client went away is still finished.
//! The service speaks plain HTTP; it is meant for the loopback address or behind a proxy that ends TLS.

mod filing;
mod refusals;
mod reply;
mod routes;
mod witnesses;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::filing::run_filing;
pub use self::refusals::Refusals;
use self::routes::{State, router};
use self::witnesses::{Cosigned, HEARTBEAT, beat};
use super::BearerToken;
use super::receipt::LogOperator;
use super::trust::Signers;
use super::witness::Witnesses;
use crate::clock::Clock;
use crate::log::sequencer::Sequencer;

/// Filings that may wait for the filing task; more wait in their connections.
const QUEUE_FILINGS: usize = 1024;

/// What the service needs.
pub struct ServiceSetup {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The opened log. Its store also keeps the envelopes.
    pub sequencer: Sequencer,
    /// Keys whose certificates are taken, with their times.
    pub signers: Signers,
    /// Demanded of everything under `/v1/certificates`; none only where nobody else can connect.
    pub token: Option<BearerToken>,
    /// Who runs this log, for `/v1/trust`.
    pub operator: LogOperator,
    /// Who witnesses this log.
    pub witnesses: Witnesses,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// Why the service does not run.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The address cannot be listened on. Worth retrying when another process holds it.
    #[error("the audit service cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Listening on other than the loopback address without a token.
    #[error("the audit service listens beyond this host ({0}) only with a bearer token")]
    NoToken(SocketAddr),
    /// It ended by itself.
    #[error("the audit service ended unexpectedly")]
    Ended,
}

/// A running service.
pub struct ServiceHandle {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    filing: JoinHandle<()>,
    heartbeat: JoinHandle<()>,
    refusals: Arc<Refusals>,
}

impl ServiceHandle {
    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Who was refused for the lack of a token, for whoever has a log to write that to.
    #[must_use]
    pub fn refusals(&self) -> Arc<Refusals> {
        self.refusals.clone()
    }

    /// Takes no more connections, finishes open requests and filings, and returns.
    pub async fn stop(self) -> Result<(), ServiceError> {
        // An error means that the server has ended already; then the tasks below say how.
        let _ = self.stop.send(());
        self.heartbeat.abort();
        self.server.await.map_err(|_| ServiceError::Ended)?.map_err(|_| ServiceError::Ended)?;
        self.filing.await.map_err(|_| ServiceError::Ended)
    }
}

/// Starts the service.
pub async fn start(setup: ServiceSetup) -> Result<ServiceHandle, ServiceError> {
    if setup.token.is_none() && !setup.bind.ip().is_loopback() {
        return Err(ServiceError::NoToken(setup.bind));
    }
    let bind_error = |source| ServiceError::Bind { address: setup.bind, source };
    let listener = TcpListener::bind(setup.bind).await.map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let sequencer = Arc::new(setup.sequencer);
    let (filings, queue) = mpsc::channel(QUEUE_FILINGS);
    let quorum = setup.witnesses.quorum.clone();
    let cosigned = Arc::new(Cosigned::new(setup.witnesses));
    let filing = tokio::spawn(run_filing(sequencer.clone(), cosigned.clone(), queue));
    let heartbeat = tokio::spawn(beat(cosigned.clone(), sequencer.clone(), HEARTBEAT));
    let refusals = Arc::new(Refusals::default());
    let state = State {
        refusals: refusals.clone(),
        sequencer,
        filings,
        trusted: setup.signers.keys(),
        signers: setup.signers,
        token: setup.token,
        operator: setup.operator,
        quorum,
        cosigned,
        clock: setup.clock,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let service = router(Arc::new(state)).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        // A dropped handle stops the service too.
        let _ = stopped.await;
    });
    let server = tokio::spawn(async move { server.await });
    tracing::info!(%address, "audit service listens");
    Ok(ServiceHandle { address, stop, server, filing, heartbeat, refusals })
}
