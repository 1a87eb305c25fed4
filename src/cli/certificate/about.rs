//! `certificate about -`: is this customer gone, and which copy opens until when?

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::hold::read_subject;
use super::super::output::shapes::{FailedStore, Time};
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use super::super::stage::{meaning, residual_words};
use crate::installation::Needs;
use crate::tasks::about::{About, Left, Place, PlaceKind, PlaceState, TheirRequest, about as ask};

/// The JSON of `certificate about`. Whom it is about is not shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AboutDocument {
    /// `complete`; `nothing-found` when nothing at all is known; `partial` with exit code 4 when a store could not be read.
    result: Outcome,
    /// How much is left, as the weakest of everything that is known.
    left: Left,
    /// The day after which nothing that is known opens any more; null while keys are not destroyed, and when something has no date, or nothing
    /// is left.
    gone_after: Option<NaiveDate>,
    /// Every place that is known, live tables first.
    places: Vec<Place>,
    /// Holds on the customer that are in force.
    holds: Vec<String>,
    /// The customer's requests, oldest first.
    requests: Vec<AboutRequest>,
    /// Stores that could not be read.
    failed_stores: Vec<FailedStore>,
}

impl Document for AboutDocument {
    const OF: &'static [&'static str] = &["certificate about"];
}

/// A request of the customer.
#[derive(Debug, Serialize, JsonSchema)]
struct AboutRequest {
    /// Its number.
    request: i64,
    /// `received`, `running`, `done`, `waiting`, `partly-kept`, `nothing-found`, `failed` or `cancelled`.
    state: String,
    /// When it was received.
    received_at: Time,
    /// When it was answered or withdrawn.
    closed_at: Option<Time>,
    /// The run that carried it out.
    run: Option<String>,
    /// How far that is: `shred-pending`, `shredded`, `final`, …
    run_state: Option<String>,
    /// The newest certificate about it.
    certificate: Option<String>,
    /// Its number.
    sequence: Option<i64>,
}

impl AboutRequest {
    fn of(found: TheirRequest) -> Self {
        let TheirRequest { request, run_state, certificate } = found;
        Self {
            request: request.number,
            state: request.state,
            received_at: request.received_at.into(),
            closed_at: request.closed_at.map(Time::from),
            run: request.run,
            run_state,
            sequence: certificate.as_ref().map(|row| row.sequence),
            certificate: certificate.map(|row| row.id),
        }
    }
}

/// Asks and answers.
pub async fn about(context: &mut Context<'_>) -> CommandResult {
    context.only_now()?;
    let subject = read_subject(context)?;
    let installation = context.open(Needs { stores: true, ..Needs::STATE }).await?;
    let found = ask(&installation, &subject).await;
    installation.close().await.map_err(task_error)?;
    let found = found.map_err(task_error)?;
    show(context.output, &found)?;
    let (result, exit) = match found.left {
        _ if !found.unread.is_empty() => (Outcome::Partial, Exit::Partial),
        Left::NothingKnown => (Outcome::NothingFound, Exit::Done),
        _ => (Outcome::Complete, Exit::Done),
    };
    context.output.document(&AboutDocument {
        result,
        left: found.left,
        gone_after: found.gone_after,
        places: found.places,
        holds: found.holds,
        requests: found.requests.into_iter().map(AboutRequest::of).collect(),
        failed_stores: found.unread.into_iter().map(|(store, what)| FailedStore { store, what, retry: true }).collect(),
    })?;
    Ok(exit)
}

/// The answer in one sentence.
fn answer(found: &About) -> Words {
    match (found.left, found.gone_after) {
        (Left::Unknown, _) => Words::new(
            "Nobody can tell: a store could not be read, and those that could have no row of this customer.",
            "无法判断：有数据源无法读取；可读取的数据源中没有该客户的行。",
        ),
        (Left::Present, _) => Words::new("Not gone: there are rows of this customer.", "尚未删除：仍有该客户的行。"),
        (Left::ShredPending, _) => Words::new(
            "Gone from the live stores; backups still hold it under keys that exist.",
            "在线数据源中已不存在；备份中仍有其内容，密钥尚存。",
        ),
        (Left::Shredded, Some(after)) => Words::new(
            format!(
                "Gone from the live stores, and backups do not open any more; the last copy that is known ends on {after}."
            ),
            format!("在线数据源中已不存在，备份也无法再打开；已知的最后一份副本于 {after} 终结。"),
        ),
        (Left::Shredded, None) => Words::new(
            "Gone from the live stores, and backups do not open any more; something that is left has no date.",
            "在线数据源中已不存在，备份也无法再打开；部分残留没有期限。",
        ),
        (Left::Final, _) => Words::new(
            "Gone: absent from the live stores, keys destroyed, and the date of every copy that is known is past.",
            "已彻底删除：在线数据源中不存在，密钥已销毁，且所有已知副本的期限已过。",
        ),
        (Left::NothingKnown, _) => Words::new(
            "Nothing is known: no registered store has a row of this customer, and no erasure on request is known. What retention removed is \
             attributed to nobody.",
            "没有任何记录：已登记的数据源中没有该客户的行，也没有其删除请求的记录。按保留期删除的内容不归于任何人。",
        ),
    }
}

fn show(output: &mut Output, found: &About) -> Result<(), UserError> {
    output.say(&answer(found))?;
    let lang = output.lang();
    let titles = [("place", "位置"), ("what", "类别"), ("rows", "行数"), ("state", "状态"), ("until", "至")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2);
    for place in &found.places {
        let name = if place.name.is_empty() { "-".to_owned() } else { place.name.clone() };
        let until = match (place.state, place.until) {
            (PlaceState::Gone, None) => String::new(),
            (_, Some(until)) => until.to_string(),
            (_, None) if place.kind == PlaceKind::Live => String::new(),
            (_, None) => say(lang, "no date", "无期限").to_owned(),
        };
        grid.row([
            name,
            kind(place).in_lang(lang).to_owned(),
            place.rows.map_or_else(String::new, grouped),
            state(place.state).in_lang(lang).to_owned(),
            until,
        ]);
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    for hold in &found.holds {
        output.say(&Words::new(format!("hold {hold} is in force"), format!("保留令 {hold} 有效")))?;
    }
    for TheirRequest { request, run_state, certificate } in &found.requests {
        let number = request.number;
        let stage = run_state.as_deref().map_or_else(|| Words::new("-", "-"), |state| meaning(state, None));
        let by = certificate.as_ref().map_or_else(
            || Words::new("no certificate yet", "尚无证书"),
            |row| Words::new(format!("certificate no. {}", row.sequence), format!("第 {} 号证书", row.sequence)),
        );
        output.say(&Words::new(
            format!("request {number} ({}): {}; {}", request.state, stage.en, by.en),
            format!("请求 {number}（{}）：{}；{}", request.state, stage.zh, by.zh),
        ))?;
    }
    for (store, reason) in &found.unread {
        output.note(&Words::new(
            format!("store {store} could not be read: {reason}"),
            format!("数据源 {store} 无法读取：{reason}"),
        ))?;
    }
    Ok(())
}

fn kind(place: &Place) -> Words {
    match (place.kind, place.residual) {
        (_, Some(code)) => residual_words(code),
        (PlaceKind::Live, _) => Words::new("live table", "在线数据表"),
        (PlaceKind::Backups, _) => Words::new("its backups", "其备份"),
        (PlaceKind::Copy, _) => Words::new("declared copy", "已声明的副本"),
        (PlaceKind::Residual, None) => Words::new("residual", "残留"),
    }
}

fn state(state: PlaceState) -> Words {
    match state {
        PlaceState::Unknown => Words::new("not looked at", "未查看"),
        PlaceState::There => Words::new("still there", "仍在"),
        PlaceState::Gone => Words::new("gone", "已无"),
    }
}
