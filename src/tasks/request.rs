//! `request`: a customer asks to be erased. The same person twice is the same request; an unknown id finds nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::certify::codes::TriggerKind;
use crate::control::{RequestRow, Tx};
use crate::erase::batch::subject_in;
use crate::erase::planner::{PlanUse, StoredPlan, make_plan, subject_lookup};
use crate::erase::survey::{Target, owned_by, read_all};
use crate::erase::{EraseError, Site};
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::keys::sealed::seal_column;
use crate::plan::Subject;
use crate::policy::mask::{Profile, mask_value, on_card};
use crate::policy::registry::FieldSpec;
use crate::stores::{ColumnRef, RowQuery};
use crate::value::Value;

use super::{Result, TaskError};

mod forms;
mod refusal;
mod waiting;

pub use forms::{Known, canonical_subjects, place_hold};
pub(in crate::tasks) use forms::{every_form, form_of_request};
pub use refusal::{Refused, cancel};
pub use waiting::{WAITING, reopen_waiting};

/// Days to answer a request (GB/T 35273-2020 8.7 guidance; GDPR one month is longer or equal).
pub const ANSWER_DAYS: i64 = 30;

/// A masked picture of what the stores hold about a subject, shown before the clerk says yes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SubjectCard {
    /// Masked values of declared fields: (kind, masked).
    pub fields: Vec<(String, String)>,
    /// Rows by store and collection.
    pub rows: Vec<(String, String, u64)>,
    /// Stores that could not be read.
    pub unread: Vec<(String, String)>,
}

impl SubjectCard {
    /// Whether anything was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(|(_, _, rows)| *rows == 0)
    }
}

/// Looks a subject up in all stores, masked.
///
/// # Errors
/// When the control database fails; unreadable stores are named in the card.
pub async fn look_up(installation: &Installation, subject: &Subject) -> Result<SubjectCard> {
    let ground = installation.ground()?;
    let masks = installation.config.masks();
    let mut card = SubjectCard { unread: ground.skipped.to_vec(), ..SubjectCard::default() };
    for site in ground.sites {
        match look_into(site, subject, masks, &mut card).await {
            Err(EraseError::Store(error)) => card.unread.push((site.model.spec.name.clone(), error.to_string())),
            other => other?,
        }
    }
    Ok(card)
}

/// Adds what one store holds. When it fails in between, what was found stays in the card.
async fn look_into(
    site: &Site,
    subject: &Subject,
    masks: Profile,
    card: &mut SubjectCard,
) -> std::result::Result<(), EraseError> {
    let mut view = site.store.open_snapshot().await?;
    for collection in site.model.collections.iter().rev() {
        let own = owned_by(collection, site.store.engine(), subject);
        let (Some(owner), Some(filter)) = (&collection.owner, own) else { continue };
        let declared: Vec<(&String, &FieldSpec)> = collection.spec.fields.iter().collect();
        let mut query = RowQuery {
            table: collection.table.name.clone(),
            path: owner.path.clone(),
            columns: declared.iter().map(|(name, _)| ColumnRef::own(name)).collect(),
            filter,
            key: collection.key.clone(),
            after: None,
            limit: 1000,
        };
        let rows = view.count(&query).await?;
        card.rows.push((site.model.spec.name.clone(), collection.table.name.clone(), rows));
        query.limit = 1;
        if rows != 1 || !owner.path.is_empty() || owner.column.column.is_empty() || declared.is_empty() {
            continue;
        }
        for row in read_all(view.as_mut(), query).await? {
            for ((_, spec), value) in declared.iter().zip(row).filter(|(_, value)| *value != Value::Null) {
                let kind = serde_json::to_value(spec.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
                card.fields.push((kind.unwrap_or_default(), mask_value(spec.kind, &value, on_card(spec, masks))));
            }
        }
    }
    view.close().await?;
    Ok(())
}

/// A new or existing request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The request.
    pub request: RequestRow,
    /// Whether it existed already.
    pub existing: bool,
    /// Whether it waited, and was asked again now: with a new date, and for everything that the person owns now.
    pub renewed: bool,
    /// The reason that was given now, where the request keeps another one, which its certificate will name.
    pub other_reason: Option<TriggerKind>,
}

/// A subject's id in the one form in which control database and holds know it: without blanks around it, and as a number
/// when every store that was opened has numbers for ids.
#[must_use]
pub fn canonical_subject(installation: &Installation, text: &str) -> Subject {
    let given = Subject::new(text.trim());
    let owners = installation.sites().iter().flat_map(|site| {
        let collections = site.model.collections.iter();
        collections.filter(|collection| collection.owner.is_some()).map(move |collection| (site, collection))
    });
    let mut forms =
        owners.map(|(site, collection)| subject_in(site, collection, &given).as_ref().and_then(Subject::of));
    match forms.next() {
        Some(Some(first)) if forms.all(|form| form.as_ref() == Some(&first)) => first,
        _ => given,
    }
}

/// Records a request; one of the same person that waits is asked again. Needs no store, but knows other ways of writing the
/// same number only when stores were opened.
///
/// # Errors
/// When the id is empty, or keys or control database fail.
pub async fn receive(installation: &Installation, subject: &Subject) -> Result<Received> {
    receive_for(installation, subject, TriggerKind::SubjectRequest).await
}

/// The same for a reason, which the certificate names. One that is open already keeps the reason it has; another one that is given
/// for it stands in the operation log.
///
/// # Errors
/// As [`receive`]; refused for a reason that no request can have.
pub async fn receive_for(installation: &Installation, subject: &Subject, reason: TriggerKind) -> Result<Received> {
    if !TriggerKind::OF_REQUESTS.contains(&reason) {
        return Err(TaskError::refused(
            format!("`{}` is not why a customer's data is asked to go", reason.name()),
            "see `wangchuan request new --help`",
        ));
    }
    if subject.dangerous_text().trim().is_empty() {
        return Err(TaskError::Unknown {
            what: "the customer's id is empty".to_owned(),
            advice: "give the id as the stores have it".to_owned(),
        });
    }
    installation.refuse_old_copy().await?;
    let subject = &form_of_request(installation, subject).await?;
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let lookup_key = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let lookup = subject_lookup(&lookup_key, subject);
    if let Some(request) = tx.open_request_of(&lookup).await? {
        return open_already(installation, tx, request, (subject, reason)).await;
    }
    let number = tx.add_request("erase", &lookup, now, due_at(now)).await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Request, &number.to_string()).await?;
    let sealed = seal_column(
        &key,
        &[b"request", &number.to_be_bytes()],
        subject.dangerous_text().as_bytes(),
        installation.random.as_ref(),
    )
    .map_err(EraseError::from)?;
    tx.set_request_subject(number, &sealed).await?;
    tx.set_request_reason(number, reason.name()).await?;
    let request = tx
        .request(number)
        .await?
        .ok_or_else(|| TaskError::Inconsistent("a request just stored is missing".to_owned()))?;
    tx.commit().await?;
    let object = format!("request-{number}");
    let references = vec![("reason".to_owned(), reason.name().to_owned())];
    let received =
        Operation { name: "request.new", object: &object, outcome: "success", references, ..Operation::default() };
    installation.log(Operation { subject: Some(subject), ..received }).await?;
    Ok(Received { request, existing: false, renewed: false, other_reason: None })
}

/// The same person asks while a request of theirs is open. One that waits, or goes on with what it waited for, is asked again: it
/// covers everything that they own now, and is to be answered anew.
async fn open_already(
    installation: &Installation,
    mut tx: Tx,
    request: RequestRow,
    (subject, reason): (&Subject, TriggerKind),
) -> Result<Received> {
    let (now, number) = (installation.clock.now(), request.number);
    let other_reason =
        Some(reason).filter(|reason| Some(*reason) != TriggerKind::of_request(request.reason.as_deref()));
    let renewed = tx.ask_again(number, now, due_at(now)).await?;
    let request = if renewed {
        // A plan that is being carried out is carried out; the request is open again behind it.
        tx.void_plans("request", Some(number)).await?;
        let request = tx.request(number).await?.unwrap_or(request);
        tx.commit().await?;
        request
    } else {
        drop(tx);
        request
    };
    if renewed || other_reason.is_some() {
        let object = format!("request-{number}");
        let references = vec![("reason".to_owned(), reason.name().to_owned())];
        let again = Operation {
            name: "request.again",
            object: &object,
            outcome: "success",
            references,
            ..Operation::default()
        };
        installation.log(Operation { subject: Some(subject), ..again }).await?;
    }
    Ok(Received { request, existing: true, renewed, other_reason })
}

fn due_at(received: DateTime<Utc>) -> DateTime<Utc> {
    received + TimeDelta::days(ANSWER_DAYS)
}

/// Plans a received request.
///
/// # Errors
/// When it is not waiting any more, or nothing can be read.
pub async fn plan_request(installation: &Installation, number: i64) -> Result<StoredPlan> {
    let mut tx = installation.control.read().await?;
    let request = tx.request(number).await?;
    drop(tx);
    match request {
        None => Err(TaskError::Unknown {
            what: format!("there is no request {number}"),
            advice: "see `wangchuan request list`".to_owned(),
        }),
        Some(request) if !["received", WAITING].contains(&request.state.as_str()) => Err(TaskError::refused(
            format!("request {number} is {} already", request.state),
            "see `wangchuan request show`",
        )),
        Some(request) => {
            if request.state == WAITING {
                waiting::reopen_or_refuse(installation, &request).await?;
            }
            let subject = super::erasure::request_subject(installation, number).await?;
            let ground = installation.ground()?;
            let plan = make_plan(&ground, &Target::Request(subject), PlanUse::Request(number)).await?;
            crate::crash_point::reached("plan.stored");
            Ok(plan)
        }
    }
}

/// What a request is called in the operation log, and as what a certificate is about.
#[must_use]
pub fn request_name(number: i64) -> String {
    format!("request-{number}")
}

/// The number of a request by that name.
#[must_use]
pub fn request_number(name: &str) -> Option<i64> {
    name.strip_prefix("request-")?.parse().ok()
}
