//! The HTTP interface of the audit service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::Refusals;
use super::filing::{Filed, Filing, chain, make_receipt};
use super::reply::{Problem, json, unchanging, with_type};
use super::witnesses::Cosigned;
use crate::audit::BearerToken;
use crate::audit::receipt::{self, BUNDLE_MEDIA_TYPE, LogOperator};
use crate::audit::trust::{Signers, TRUST_MEDIA_TYPE, Trust, TrustedLog, Window};
use crate::certify::check::{MAX_PAYLOAD_BYTES, is_uuid};
use crate::certify::dsse::Envelope;
use crate::certify::signer::TrustedKeys;
use crate::certify::{VerifyError, verify};
use crate::clock::Clock;
use crate::log::checkpoint::SignedCheckpoint;
use crate::log::cosignature::Quorum;
use crate::log::proofs::ProofReader;
use crate::log::sequencer::Sequencer;
use crate::log::store::{LeafStoreError, NewLeaf, StoredLeaf};
use crate::log::tiles::Tile;
use crate::log::tree::{Hash, sha256};

/// The largest envelope: base64 of the largest payload, and a little for the rest.
const MAX_ENVELOPE_BYTES: usize = MAX_PAYLOAD_BYTES / 3 * 4 + 8 * 1024;
/// How long a client may take to send one.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body is read at all.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;
/// How long the rest of a refused body is waited for.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The description of this interface, for whoever builds an audit service of their own.
const OPENAPI: &str = include_str!("../../../config/audit-service.openapi.json");

/// What every request sees.
pub(super) struct State {
    pub sequencer: Arc<Sequencer>,
    pub filings: mpsc::Sender<Filing>,
    pub trusted: TrustedKeys,
    /// When those keys count.
    pub signers: Signers,
    pub token: Option<BearerToken>,
    pub operator: LogOperator,
    pub quorum: Quorum,
    pub cosigned: Arc<Cosigned>,
    pub clock: Arc<dyn Clock>,
    pub refusals: Arc<Refusals>,
}

type Shared = Extract<Arc<State>>;
type Asked<T> = Result<Query<T>, QueryRejection>;
type Reply = Result<Response, Problem>;

/// All routes. Certificates and their receipts need the token; what an auditor needs to check a receipt does not.
pub(super) fn router(state: Arc<State>) -> Router {
    let closed = Router::new()
        .route("/v1/certificates/{id}", get(certificate).put(file))
        .route("/v1/certificates/{id}/receipt", get(latest_receipt))
        .route_layer(from_fn_with_state(state.clone(), authorise));
    Router::new()
        .merge(closed)
        .route("/v1/trust", get(trust))
        .route("/checkpoint", get(checkpoint))
        .route("/v1/proof/inclusion", get(inclusion))
        .route("/v1/proof/consistency", get(consistency))
        .route("/tile/{*tile}", get(tile))
        .route("/healthz", get(health))
        .route("/openapi.json", get(async || with_type(StatusCode::OK, "application/json", OPENAPI.into())))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not know the method")
        })
        .with_state(state)
}

async fn authorise(Extract(state): Shared, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let allowed = state.token.as_ref().is_none_or(|token| given.is_some_and(|given| token.matches(given)));
    if allowed {
        return next.run(request).await;
    }
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        state.refusals.add(peer.ip().to_canonical(), 1);
    }
    discard(request.into_body()).await;
    tracing::warn!("audit service refused a request without a valid token");
    Problem::new(StatusCode::UNAUTHORIZED, "a valid bearer token is needed").into_response()
}

async fn file(Extract(state): Shared, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Reply {
    if !is_json(&headers) {
        discard(body).await;
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    let bytes = read_body(body).await?;
    check_digest(&headers, &bytes)?;
    let leaf = leaf_of(&state, &id, &bytes)?;
    let entry = leaf.entry.clone();
    let (reply, outcome) = oneshot::channel();
    let gone = |()| Problem::log_failed(true);
    state.filings.send(Filing { leaf, reply }).await.map_err(|_| gone(()))?;
    match outcome.await.map_err(|_| gone(()))? {
        Ok(Filed::Receipt { new, receipt }) => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = with_type(status, "application/json", receipt);
            if let Ok(location) = HeaderValue::from_str(&format!("/v1/certificates/{id}/receipt")) {
                response.headers_mut().insert(header::CONTENT_LOCATION, location);
            }
            Ok(response)
        }
        Ok(Filed::Conflict) => {
            // The same signed bytes under a fresh signature are the same certificate; the one filed first stays.
            let stored = find(&state, &id).await?;
            let same = receipt::body_digest(&stored.entry) == receipt::body_digest(&entry);
            if same {
                return Ok(with_type(StatusCode::OK, "application/json", receipt_of(&state, &stored).await?));
            }
            Err(Problem::new(StatusCode::CONFLICT, "another certificate has been filed under this id"))
        }
        Err(failed) => Err(Problem::log_failed(failed.retryable)),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

/// The body, if it is no larger than a certificate can be.
async fn read_body(body: Body) -> Result<Vec<u8>, Problem> {
    let mut kept = Vec::new();
    let reading = read_pieces(body, |piece, length| {
        if length <= MAX_ENVELOPE_BYTES {
            kept.extend_from_slice(piece);
        }
    });
    let read = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    let length = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?;
    match length {
        None => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Some(length) if length > MAX_ENVELOPE_BYTES => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than a certificate can be"))
        }
        Some(_) => Ok(kept),
    }
}

/// Reads what a refused client is still sending: a connection that is closed over unread bytes is reset, and a client
/// that is reset while it writes may never see why it was refused.
async fn discard(body: Body) {
    // Whoever sends no end of it, or nothing, is not waited for.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, read_pieces(body, |_, _| ())).await;
}

/// Hands over each piece and the length with it; gives the length, or nothing when the body broke off.
async fn read_pieces(body: Body, mut take: impl FnMut(&[u8], usize)) -> Option<usize> {
    let (mut pieces, mut length) = (body.into_data_stream(), 0);
    while length <= MAX_READ_BYTES {
        let Some(piece) = pieces.try_next().await.ok()? else { break };
        length += piece.len();
        take(&piece, length);
    }
    Some(length)
}

/// Content-Digest (RFC 9530), when sent. Other algorithms than sha-256 are ignored.
fn check_digest(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let wrong = || Problem::new(StatusCode::BAD_REQUEST, "the body does not have the digest in Content-Digest");
    for value in headers.get_all("content-digest") {
        for part in value.to_str().map_err(|_| wrong())?.split(',') {
            let Some(encoded) = part.trim().strip_prefix("sha-256=") else { continue };
            let encoded = encoded.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or_else(wrong)?;
            if STANDARD.decode(encoded).ok().as_deref() != Some(&sha256(body)[..]) {
                return Err(wrong());
            }
        }
    }
    Ok(())
}

/// Verifies a filed envelope and makes its leaf.
fn leaf_of(state: &State, id: &str, bytes: &[u8]) -> Result<NewLeaf, Problem> {
    if !is_uuid(id) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the id in the path is not a UUID in lower case"));
    }
    let unprocessable = |detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let verified = verify(bytes, &state.trusted).map_err(|error| match error {
        VerifyError::Envelope(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "the body is not a DSSE envelope with one signature")
        }
        VerifyError::PayloadType => unprocessable("the envelope holds no in-toto statement"),
        VerifyError::UnknownKey => unprocessable("the certificate is signed by a key this service does not know"),
        VerifyError::WrongSignature => unprocessable("the signature is wrong"),
        VerifyError::Statement(_) => {
            unprocessable("the payload is not a statement of version 1 that this service knows")
        }
        VerifyError::Check(_) => unprocessable("the statement breaks the rules of a certificate"),
    })?;
    if verified.id() != id {
        return Err(unprocessable("the certificate has another id than the path"));
    }
    if state.signers.is_after_end(&verified.key_id, verified.issued_at()) {
        return Err(unprocessable("the certificate says that it was signed after its key had ended"));
    }
    let envelope = Envelope::parse(bytes).map_err(|_| unprocessable("the body is not a DSSE envelope"))?;
    let key = state.trusted.get(&verified.key_id).ok_or_else(|| unprocessable("the key is not known"))?;
    Ok(NewLeaf {
        id: id.to_owned(),
        entry: receipt::leaf_body(&envelope, key),
        salt: None,
        content: bytes.to_vec(),
        time_ms: state.clock.now().timestamp_millis(),
    })
}

fn store_problem(error: &LeafStoreError) -> Problem {
    tracing::error!(error = %error, "the audit log cannot be read");
    Problem::log_failed(error.is_retryable())
}

async fn find(state: &State, id: &str) -> Result<StoredLeaf, Problem> {
    let found = state.sequencer.store().find(&[id.to_owned()]).await.map_err(|error| store_problem(&error))?;
    found.into_iter().next().ok_or(Problem::new(StatusCode::NOT_FOUND, "no certificate with this id has been filed"))
}

async fn receipt_of(state: &State, leaf: &StoredLeaf) -> Result<Vec<u8>, Problem> {
    let checkpoint = head(state).await?;
    if leaf.index >= checkpoint.checkpoint.size {
        // Durable but not signed yet: the next append or start signs it.
        return Err(Problem::log_failed(true));
    }
    let mut reader = ProofReader::new(&**state.sequencer.store());
    let checkpoint = state.cosigned.best(checkpoint).await;
    let made = make_receipt(&state.sequencer, &mut reader, &checkpoint, &leaf.entry, leaf.index).await;
    made.map_err(|error| {
        tracing::error!(error = %chain(&error), "no receipt could be made");
        Problem::log_failed(error.is_retryable())
    })
}

async fn certificate(Extract(state): Shared, Path(id): Path<String>, headers: HeaderMap) -> Reply {
    let leaf = find(&state, &id).await?;
    let gone = || Problem::new(StatusCode::GONE, "the certificate's content has expired; its proof remains");
    let envelope = leaf.content.as_deref().ok_or_else(gone)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains(BUNDLE_MEDIA_TYPE) {
        return Ok(with_type(StatusCode::OK, "application/json", envelope.to_vec()));
    }
    let receipt = receipt_of(&state, &leaf).await?;
    let parsed = Envelope::parse(envelope).map_err(|_| Problem::log_failed(false))?;
    let bundle = receipt::bundle(&parsed, &receipt, None).map_err(|_| Problem::log_failed(false))?;
    Ok(with_type(StatusCode::OK, BUNDLE_MEDIA_TYPE, bundle))
}

async fn latest_receipt(Extract(state): Shared, Path(id): Path<String>) -> Reply {
    let leaf = find(&state, &id).await?;
    Ok(with_type(StatusCode::OK, "application/json", receipt_of(&state, &leaf).await?))
}

/// What an auditor pins: the log's key, its witnesses and the certificate keys. Whoever relies on it must have it from somewhere
/// else too; what a log says of itself proves nothing.
async fn trust(Extract(state): Shared) -> Response {
    let key = state.sequencer.key().clone();
    let log = TrustedLog { key, window: Window::default(), operator: state.operator };
    let trust = Trust { logs: vec![log], quorum: state.quorum.clone(), ..state.signers.trust() };
    with_type(StatusCode::OK, TRUST_MEDIA_TYPE, trust.to_json().to_string().into_bytes())
}

/// The head, looked up anew: another process may have appended.
async fn head(state: &State) -> Result<SignedCheckpoint, Problem> {
    state.sequencer.latest().await.map_err(|error| {
        tracing::error!(error = %chain(&error), "the audit log's head cannot be read");
        Problem::log_failed(error.is_retryable())
    })
}

async fn checkpoint(Extract(state): Shared) -> Reply {
    let head = head(&state).await?;
    Ok(with_type(StatusCode::OK, "text/plain; charset=utf-8", state.cosigned.of(&head).await.into_bytes()))
}

/// Tiles of the tree and bundles of its entries (C2SP tlog-tiles).
async fn tile(Extract(state): Shared, Path(path): Path<String>) -> Reply {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no such tile");
    let tile = Tile::parse(&path).ok_or_else(missing)?;
    // Not beyond the signed head: what nobody signed nobody may build on.
    if !tile.is_in(head(&state).await?.checkpoint.size) {
        return Err(missing());
    }
    let bytes = tile.read(&**state.sequencer.store()).await.map_err(|error| store_problem(&error))?;
    Ok(unchanging(bytes))
}

async fn health(Extract(state): Shared) -> Reply {
    let size = state.sequencer.store().size().await.map_err(|error| store_problem(&error))?;
    Ok(json(&json!({"status": "ok", "size": size, "signed": head(&state).await?.checkpoint.size})))
}

#[derive(Deserialize)]
struct InclusionQuery {
    index: u64,
    size: Option<u64>,
}

async fn inclusion(Extract(state): Shared, query: Asked<InclusionQuery>) -> Reply {
    let bad = Problem::new(StatusCode::BAD_REQUEST, "wanted: index, and size of at most the checkpoint's");
    let checkpoint = head(&state).await?;
    let Ok(Query(InclusionQuery { index, size })) = query else { return Err(bad) };
    let size = size.unwrap_or(checkpoint.checkpoint.size);
    if index >= size || size > checkpoint.checkpoint.size {
        return Err(bad);
    }
    let store = state.sequencer.store();
    let mut reader = ProofReader::new(&**store);
    let failed = |error: LeafStoreError| store_problem(&error);
    let proof = reader.inclusion(index, size).await.map_err(failed)?.unwrap_or_default();
    let root = reader.frontier(size).await.map_err(failed)?.root();
    let leaf = store.hashes(0, index, 1).await.map_err(failed)?;
    let leaf = leaf.first().ok_or(Problem::log_failed(false))?;
    Ok(json(&json!({
        "index": index, "size": size, "leafHash": STANDARD.encode(leaf), "rootHash": STANDARD.encode(root),
        "hashes": encode_hashes(&proof), "checkpoint": checkpoint.note,
    })))
}

#[derive(Deserialize)]
struct ConsistencyQuery {
    from: u64,
    to: Option<u64>,
}

async fn consistency(Extract(state): Shared, query: Asked<ConsistencyQuery>) -> Reply {
    let bad = Problem::new(StatusCode::BAD_REQUEST, "wanted: from, and to of at least from, at most the checkpoint's");
    let checkpoint = head(&state).await?;
    let Ok(Query(ConsistencyQuery { from, to })) = query else { return Err(bad) };
    let to = to.unwrap_or(checkpoint.checkpoint.size);
    if from > to || to > checkpoint.checkpoint.size {
        return Err(bad);
    }
    let mut reader = ProofReader::new(&**state.sequencer.store());
    let failed = |error: LeafStoreError| store_problem(&error);
    let proof = reader.consistency(from, to).await.map_err(failed)?.unwrap_or_default();
    let old = reader.frontier(from).await.map_err(failed)?.root();
    let new = reader.frontier(to).await.map_err(failed)?.root();
    Ok(json(&json!({
        "from": from, "to": to, "fromRoot": STANDARD.encode(old), "toRoot": STANDARD.encode(new),
        "hashes": encode_hashes(&proof), "checkpoint": checkpoint.note,
    })))
}

fn encode_hashes(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}
