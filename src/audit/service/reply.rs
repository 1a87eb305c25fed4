//! Replies: JSON, and errors as problem details (RFC 9457).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// An error reply. The text names no content of a request.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: &'static str,
    retry_after_seconds: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: &'static str) -> Self {
        Self { status, detail, retry_after_seconds: None }
    }

    /// The log cannot take or give anything now (`retryable`) or not before someone has acted.
    pub(super) fn log_failed(retryable: bool) -> Self {
        let (status, detail) = if retryable {
            (StatusCode::SERVICE_UNAVAILABLE, "the log cannot be used at the moment")
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be used before someone has looked at it")
        };
        Self { status, detail, retry_after_seconds: retryable.then_some(1) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let body = serde_json::json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail,
        });
        let mut response = with_type(self.status, "application/problem+json", body.to_string().into_bytes());
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A reply of a media type. Receipts and proofs may be newer at the next call, so nothing is cached.
pub(super) fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// Bytes that never change: anyone may keep them.
pub(super) fn unchanging(body: Vec<u8>) -> Response {
    let mut response = with_type(StatusCode::OK, "application/octet-stream", body);
    let value = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}

/// A JSON reply.
pub(super) fn json(value: &Value) -> Response {
    with_type(StatusCode::OK, "application/json", value.to_string().into_bytes())
}
