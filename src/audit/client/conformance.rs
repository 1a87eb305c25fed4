//! Runs the HTTP contract of filing against an audit service, and says what it gets wrong.
//!
//! With one certificate that is filed there already ([`Conformance::run`]) it files nothing else: everything it sends besides is
//! refused by a service that keeps the contract, so a log gets no entry that stays for ever. A service that is still being built
//! is tried with certificates made for it ([`Conformance::run_trial`]); two of them are filed.

mod refusals;
pub mod trial;

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use self::trial::Trial;
use super::{AuditClient, read_bounded, retry_after};
use crate::audit::receipt::{self, VerifiedReceipt};
use crate::audit::{AuditSink, Grown};
use crate::certify::dsse::Envelope;

/// How often a receipt that is to come is asked for.
const POLLS: u32 = 10;
/// The longest pause between.
const LONGEST_POLL: Duration = Duration::from_secs(3);
/// The first pause, where the service names none.
const SHORTEST_POLL: Duration = Duration::from_millis(300);
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

async fn answer(request: RequestBuilder) -> Option<Answer> {
    Answer::of(request.send().await.ok()?).await
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
        const WANTED: &str = "PUT of a certificate: 201 when it is new, 200 when it is there, each with its receipt";
        let Some(first) = self.filed("file", WANTED, 200, id, envelope).await else { return self.findings };
        self.repeatable(id, envelope, &first).await;
        self.rest(id, envelope).await;
        self.findings
    }

    /// Runs the contract with certificates made for it, of which two stay filed for ever.
    pub async fn run_trial(mut self, trial: &Trial) -> Vec<Finding> {
        const WANTED: &str = "PUT of a new certificate: 201 with its receipt, or 202 and the receipt soon after";
        let (id, envelope) = (&trial.first.id, trial.first.envelope.as_bytes());
        let Some(first) = self.filed("file", WANTED, 201, id, envelope).await else { return self.findings };
        self.repeatable(id, envelope, &first).await;
        let rival = self.put(id, trial.rival.as_bytes()).await;
        self.expect("conflict", "another certificate under a filed id: 409", true, &[409], rival.as_ref());
        let stranger = self.put(&trial.stranger.id, trial.stranger.envelope.as_bytes()).await;
        let wanted = "a certificate by a key that the service was not told: 400 or 422";
        self.expect("unknown-key", wanted, true, &[400, 422], stranger.as_ref());
        self.grown(trial, &first).await;
        self.rest(id, envelope).await;
        let url = self.address(&trial.stranger.id, &["receipt"]);
        let answer = self.get(url).await;
        self.expect("refused", "no receipt of what was refused: 404", true, &[404], answer.as_ref());
        self.findings
    }

    async fn rest(&mut self, id: &str, envelope: &[u8]) {
        self.read_back(id, envelope).await;
        self.refusals(id, envelope).await;
        self.authorisation(id, envelope).await;
        self.redirects();
    }

    /// The second filing stands at another place, under a head that is proved to extend the first one's.
    async fn grown(&mut self, trial: &Trial, first: &VerifiedReceipt) {
        const WANTED: &str = "a second certificate: 201 with its receipt, at another index under a larger head";
        let (id, envelope) = (&trial.second.id, trial.second.envelope.as_bytes());
        let Some(second) = self.filed("second", WANTED, 201, id, envelope).await else { return };
        let wanted = "GET …/v1/proof/consistency between both heads: 200 and a proof that the log only grew";
        let (earlier, later) = (first.head(), second.head());
        let found = match self.client.grew(&earlier, &later).await {
            Grown::Proved => format!("{} to {} proved", earlier.size, later.size),
            Grown::Unanswered => "no proof that could be read".to_owned(),
            Grown::Refuted => format!("the head of {} does not extend that of {}", later.size, earlier.size),
        };
        self.note("consistency", wanted, true, found.ends_with("proved") && second.index != first.index, found);
    }

    fn address(&self, id: &str, last: &[&str]) -> Url {
        self.client.address(id, last)
    }

    fn note(&mut self, rule: &'static str, wanted: &'static str, required: bool, good: bool, found: String) {
        self.findings.push(Finding { rule, wanted, good, required, found });
    }

    async fn get(&self, url: Url) -> Option<Answer> {
        answer(self.http.request(Method::GET, url).headers(self.client.headers())).await
    }

    async fn put(&self, id: &str, envelope: &[u8]) -> Option<Answer> {
        Answer::of(self.client.put(id, envelope).await.ok()?).await
    }

    fn receipt(&self, body: &[u8], envelope: &[u8]) -> Result<VerifiedReceipt, String> {
        let envelope = Envelope::parse(envelope).map_err(|error| error.to_string())?;
        let signer = self.client.signers.get(envelope.key_id()).ok_or("signed by another key than ours")?;
        receipt::verify(body, &envelope, signer, &self.client.log).map_err(|error| error.to_string())
    }

    /// The first and foremost: PUT gives the receipt.
    async fn filed(
        &mut self,
        rule: &'static str,
        wanted: &'static str,
        status: u16,
        id: &str,
        envelope: &[u8],
    ) -> Option<VerifiedReceipt> {
        let Some(mut answer) = self.put(id, envelope).await else {
            self.note(rule, wanted, true, false, "no answer".to_owned());
            return None;
        };
        let at_once = answer.status;
        if at_once == 202 {
            answer = self.receipt_to_come(id, answer).await;
        }
        let found = self.receipt(&answer.body, envelope);
        let good = (at_once == status || (at_once == 202 && status == 201)) && found.is_ok();
        let said = match &found {
            Ok(receipt) => format!("status {at_once}, index {} of {}", receipt.index, receipt.tree_size),
            Err(error) => format!("status {at_once}, {error}"),
        };
        self.note(rule, wanted, true, good, said);
        found.ok()
    }

    /// What …/receipt says, asked as often as is reasonable.
    async fn receipt_to_come(&self, id: &str, mut answer: Answer) -> Answer {
        for number in 1..=POLLS {
            let after = retry_after(&answer.headers, self.client.clock.now()).unwrap_or(SHORTEST_POLL * number);
            tokio::time::sleep(after.min(LONGEST_POLL)).await;
            match self.get(self.address(id, &["receipt"])).await {
                Some(polled) if polled.status == 200 => return polled,
                Some(polled) => answer = polled,
                None => {}
            }
        }
        answer
    }

    async fn repeatable(&mut self, id: &str, envelope: &[u8], first: &VerifiedReceipt) {
        let answer = self.put(id, envelope).await;
        let second = answer.as_ref().and_then(|answer| self.receipt(&answer.body, envelope).ok());
        let good = answer.as_ref().is_some_and(|answer| answer.status == 200)
            && second.as_ref().is_some_and(|second| second.index == first.index && second.tree_size >= first.tree_size);
        let found = second.map_or_else(
            || format!("{}, no good receipt", status_of(answer.as_ref())),
            |second| format!("{}, index {} and {}", status_of(answer.as_ref()), first.index, second.index),
        );
        let wanted = "the same certificate again: 200, the same index, a head that is no smaller";
        self.note("repeat", wanted, true, good, found);
    }

    async fn read_back(&mut self, id: &str, envelope: &[u8]) {
        let url = self.address(id, &["receipt"]);
        let answer = self.get(url).await;
        let good =
            answer.as_ref().is_some_and(|answer| answer.status == 200 && self.receipt(&answer.body, envelope).is_ok());
        let wanted = "GET …/receipt of a filed certificate: 200 and its receipt";
        self.note("receipt", wanted, true, good, status_of(answer.as_ref()));
        let url = self.address(id, &[]);
        let answer = self.get(url).await;
        let good = answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.body == envelope);
        let wanted = "GET of a filed certificate: the bytes that were filed, unchanged";
        self.note("bytes", wanted, false, good, status_of(answer.as_ref()));
        let url = self.address(NOBODY, &["receipt"]);
        let answer = self.get(url).await;
        self.expect("unknown", "GET …/receipt of what was never filed: 404", true, &[404], answer.as_ref());
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
