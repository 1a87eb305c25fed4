//! Runs the HTTP contract of filing against an audit service, and says what it gets wrong.
//!
//! It needs one certificate that is filed there already and files nothing else: everything it sends besides is refused by a
//! service that keeps the contract, so a log gets no entry that stays for ever.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::{AuditClient, TOTAL_TIMEOUT, read_bounded};
use crate::audit::receipt::{self, VerifiedReceipt};
use crate::certify::dsse::Envelope;

/// A body that is larger than any certificate: the contract ends at 256 KiB of payload.
const TOO_LARGE_BYTES: usize = 1024 * 1024;
/// An id that no certificate has.
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// One rule of the contract, and how the service keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub rule: &'static str,
    /// What the contract wants.
    pub wanted: &'static str,
    /// Whether the service keeps it.
    pub good: bool,
    /// Whether filing fails or proves less without it; otherwise it is a recommendation.
    pub required: bool,
    /// What was found.
    pub found: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    async fn of(reply: Response) -> Option<Self> {
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Some(Self { status, headers, body: read_bounded(reply).await? })
    }

    fn is_problem(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.starts_with("application/problem+json")
    }
}

/// Something that a service must refuse.
struct Case {
    rule: &'static str,
    wanted: &'static str,
    required: bool,
    statuses: &'static [u16],
    url: Url,
    kind: &'static str,
    body: Vec<u8>,
}

/// The contract against one service.
pub struct Conformance<'a> {
    client: &'a AuditClient,
    http: Client,
    findings: Vec<Finding>,
}

impl<'a> Conformance<'a> {
    /// Over the client that files with the service.
    #[must_use]
    pub fn new(client: &'a AuditClient) -> Self {
        Self { client, http: client.http.clone(), findings: Vec::new() }
    }

    /// Runs the contract with a certificate (its id and stored bytes) that is filed there already.
    pub async fn run(mut self, id: &str, envelope: &[u8]) -> Vec<Finding> {
        let Some(first) = self.filed_again(id, envelope).await else { return self.findings };
        self.repeatable(id, envelope, &first).await;
        self.read_back(id, envelope).await;
        self.refusals(id, envelope).await;
        self.authorisation(id, envelope).await;
        self.findings
    }

    fn address(&self, id: &str, last: &[&str]) -> Url {
        self.client.address(id, last)
    }

    fn note(&mut self, rule: &'static str, wanted: &'static str, required: bool, good: bool, found: String) {
        self.findings.push(Finding { rule, wanted, good, required, found });
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        kind: Option<&str>,
        body: Option<&[u8]>,
        with_token: bool,
    ) -> Option<Answer> {
        let mut request = self.http.request(method, url).timeout(TOTAL_TIMEOUT);
        if with_token {
            request = request.headers(self.client.headers());
        }
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        Answer::of(request.send().await.ok()?).await
    }

    fn receipt(&self, body: &[u8], envelope: &[u8]) -> Result<VerifiedReceipt, String> {
        let envelope = Envelope::parse(envelope).map_err(|error| error.to_string())?;
        let signer = self.client.signers.get(envelope.key_id()).ok_or("signed by another key than ours")?;
        receipt::verify(body, &envelope, signer, &self.client.log).map_err(|error| error.to_string())
    }

    /// The first and foremost: PUT of what is filed gives its receipt again.
    async fn filed_again(&mut self, id: &str, envelope: &[u8]) -> Option<VerifiedReceipt> {
        const RULE: &str = "file";
        const WANTED: &str = "PUT of a certificate: 201 when it is new, 200 when it is there, each with its receipt";
        let Ok(reply) = self.client.put(id, envelope).await else {
            self.note(RULE, WANTED, true, false, "no answer".to_owned());
            return None;
        };
        let Some(answer) = Answer::of(reply).await else {
            self.note(RULE, WANTED, true, false, "the answer broke off".to_owned());
            return None;
        };
        let found = self.receipt(&answer.body, envelope);
        let good = answer.status == 200 && found.is_ok();
        let said = match &found {
            Ok(receipt) => format!("status {}, index {} of {}", answer.status, receipt.index, receipt.tree_size),
            Err(error) => format!("status {}, {error}", answer.status),
        };
        self.note(RULE, WANTED, true, good, said);
        found.ok()
    }

    async fn repeatable(&mut self, id: &str, envelope: &[u8], first: &VerifiedReceipt) {
        let answer = self.client.put(id, envelope).await.ok();
        let answer = match answer {
            Some(reply) => Answer::of(reply).await,
            None => None,
        };
        let second = answer.as_ref().and_then(|answer| self.receipt(&answer.body, envelope).ok());
        let good =
            second.as_ref().is_some_and(|second| second.index == first.index && second.tree_size >= first.tree_size);
        let found = second.map_or_else(
            || "no good receipt the second time".to_owned(),
            |second| format!("index {} and {}", first.index, second.index),
        );
        let wanted = "the same certificate again: 200, the same index, a head that is no smaller";
        self.note("repeat", wanted, true, good, found);
    }

    async fn read_back(&mut self, id: &str, envelope: &[u8]) {
        let url = self.address(id, &["receipt"]);
        let answer = self.send(Method::GET, url, None, None, true).await;
        let good =
            answer.as_ref().is_some_and(|answer| answer.status == 200 && self.receipt(&answer.body, envelope).is_ok());
        let wanted = "GET …/receipt of a filed certificate: 200 and its receipt";
        self.note("receipt", wanted, true, good, status_of(answer.as_ref()));
        let url = self.address(id, &[]);
        let answer = self.send(Method::GET, url, None, None, true).await;
        let good = answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.body == envelope);
        let wanted = "GET of a filed certificate: the bytes that were filed, unchanged";
        self.note("bytes", wanted, false, good, status_of(answer.as_ref()));
        let url = self.address(NOBODY, &["receipt"]);
        let answer = self.send(Method::GET, url, None, None, true).await;
        self.expect("unknown", "GET …/receipt of what was never filed: 404", true, &[404], answer.as_ref());
    }

    async fn refusals(&mut self, id: &str, envelope: &[u8]) {
        const JSON: &str = "application/json";
        let here = self.address(id, &[]);
        let case = |rule, wanted, required, statuses: &'static [u16], body: Vec<u8>| Case {
            rule,
            wanted,
            required,
            statuses,
            url: here.clone(),
            kind: JSON,
            body,
        };
        let cases = [
            case("not-json", "a body that is no certificate: 400 or 422", true, &[400, 422], b"{}".to_vec()),
            Case {
                url: self.address(NOBODY, &[]),
                ..case(
                    "other-id",
                    "a certificate under another id: 400, 409 or 422",
                    true,
                    &[400, 409, 422],
                    envelope.to_vec(),
                )
            },
            case(
                "altered",
                "a certificate whose signature is wrong: 400, 409 or 422",
                true,
                &[400, 409, 422],
                altered(envelope),
            ),
            Case {
                kind: "text/plain",
                ..case("media-type", "another media type: 415", false, &[415], envelope.to_vec())
            },
            case("size", "a body of a megabyte: 413", false, &[413], vec![b' '; TOO_LARGE_BYTES]),
        ];
        let mut problems = true;
        for Case { rule, wanted, required, statuses, url, kind, body } in cases {
            let answer = self.send(Method::PUT, url, Some(kind), Some(&body), true).await;
            problems &= answer.as_ref().is_none_or(Answer::is_problem);
            self.expect(rule, wanted, required, statuses, answer.as_ref());
        }
        self.note("problem", "errors as application/problem+json (RFC 9457)", false, problems, format!("{problems}"));
        let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        let request = self.http.put(self.address(id, &[])).headers(self.client.headers());
        let request = request.header(CONTENT_TYPE, "application/json").header("content-digest", wrong);
        let answer = match request.body(envelope.to_vec()).timeout(TOTAL_TIMEOUT).send().await {
            Ok(reply) => Answer::of(reply).await,
            Err(_) => None,
        };
        self.expect("digest", "a body that does not fit its Content-Digest: 400", false, &[400], answer.as_ref());
    }

    async fn authorisation(&mut self, id: &str, envelope: &[u8]) {
        let url = self.address(id, &[]);
        let answer = self.send(Method::PUT, url.clone(), Some("application/json"), Some(envelope), false).await;
        let wanted = "filing without credentials: 401 or 403";
        self.expect("no-credentials", wanted, true, &[401, 403], answer.as_ref());
        let request = self.http.put(url).header(AUTHORIZATION, "Bearer not-the-token-at-all-0000");
        let request = request.header(CONTENT_TYPE, "application/json").timeout(Duration::from_secs(30));
        let answer = match request.body(envelope.to_vec()).send().await {
            Ok(reply) => Answer::of(reply).await,
            Err(_) => None,
        };
        self.expect("wrong-credentials", "filing with a wrong token: 401 or 403", true, &[401, 403], answer.as_ref());
        let redirected = self.findings.iter().filter(|finding| finding.found.starts_with("status 3")).count();
        self.note(
            "redirect",
            "no redirects; they are never followed",
            true,
            redirected == 0,
            format!("{redirected} redirects"),
        );
    }

    fn expect(
        &mut self,
        rule: &'static str,
        wanted: &'static str,
        required: bool,
        statuses: &[u16],
        answer: Option<&Answer>,
    ) {
        let good = answer.is_some_and(|answer| statuses.contains(&answer.status));
        self.note(rule, wanted, required, good, status_of(answer));
    }
}

fn status_of(answer: Option<&Answer>) -> String {
    answer.map_or_else(
        || "no answer".to_owned(),
        |answer| {
            let to = if answer.headers.contains_key(LOCATION) { " with a Location" } else { "" };
            let name = StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
            format!("status {} {}{to}", answer.status, name.unwrap_or("?"))
        },
    )
}

/// The envelope with one character of its payload changed, which no signature survives.
fn altered(envelope: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(envelope).into_owned();
    if let Some(at) = text.find("\"payload\":\"").map(|at| at + "\"payload\":\"".len() + 20) {
        let changed = if text.as_bytes().get(at) == Some(&b'A') { "B" } else { "A" };
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, changed);
        }
    }
    text.into_bytes()
}
