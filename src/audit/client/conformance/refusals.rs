//! What a service must refuse.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};

use super::{Conformance, NOBODY, answer};

/// A body that is larger than any certificate: the contract ends at 256 KiB of payload.
const TOO_LARGE_BYTES: usize = 1024 * 1024;

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

impl Conformance<'_> {
    pub(super) async fn refusals(&mut self, id: &str, envelope: &[u8]) {
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
                ..case("media-type", "another media type: 415", true, &[415], envelope.to_vec())
            },
            case("size", "a body of a megabyte: 413", true, &[413], vec![b' '; TOO_LARGE_BYTES]),
        ];
        let mut problems = true;
        for Case { rule, wanted, required, statuses, url, kind, body } in cases {
            let request = self.http.put(url).headers(self.client.headers()).header(CONTENT_TYPE, kind);
            let answer = answer(request.body(body)).await;
            // What was taken is no error; the rule before says so.
            problems &= answer.as_ref().is_none_or(|answer| answer.status < 400 || answer.is_problem());
            self.expect(rule, wanted, required, statuses, answer.as_ref());
        }
        self.note("problem", "errors as application/problem+json (RFC 9457)", false, problems, format!("{problems}"));
        let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        let request = self.http.put(self.address(id, &[])).headers(self.client.headers());
        let request = request.header(CONTENT_TYPE, "application/json").header("content-digest", wrong);
        let answer = answer(request.body(envelope.to_vec())).await;
        self.expect("digest", "a body that does not fit its Content-Digest: 400", true, &[400], answer.as_ref());
    }

    /// Filing without and with wrong credentials. Where a client certificate is asked for, a refused handshake is an answer, too.
    pub(super) async fn authorisation(&mut self, id: &str, envelope: &[u8]) {
        let url = self.address(id, &[]);
        let bare = self.client.bare.as_ref().unwrap_or(&self.http);
        let request = bare.put(url.clone()).header(CONTENT_TYPE, "application/json").body(envelope.to_vec());
        let unknown = answer(request).await;
        let wanted = "filing without credentials: 401 or 403";
        match (unknown, &self.client.bare) {
            (None, Some(_)) => {
                self.note("no-credentials", wanted, true, true, "the connection was refused".to_owned());
            }
            (unknown, _) => self.expect("no-credentials", wanted, true, &[401, 403], unknown.as_ref()),
        }
        if self.client.token.is_none() && self.client.bare.is_some() {
            // Nothing but the certificate counts there.
            return;
        }
        let request = self.http.put(url).header(AUTHORIZATION, "Bearer not-the-token-at-all-0000");
        let answer = answer(request.header(CONTENT_TYPE, "application/json").body(envelope.to_vec())).await;
        self.expect("wrong-credentials", "filing with a wrong token: 401 or 403", true, &[401, 403], answer.as_ref());
    }

    pub(super) fn redirects(&mut self) {
        let redirected = self.findings.iter().filter(|finding| finding.found.starts_with("status 3")).count();
        let wanted = "no redirects; they are never followed";
        self.note("redirect", wanted, true, redirected == 0, format!("{redirected} redirects"));
    }
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
