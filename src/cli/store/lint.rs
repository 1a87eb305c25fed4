//! `store lint`: what a store holds and nobody declared.

use schemars::JsonSchema;
use serde::Serialize;

use super::adapter;
use crate::cli::CommandResult;
use crate::cli::context::Context;
use crate::cli::output::{Document, Exit, Outcome, Output, Words, say};
use crate::config::Configuration;
use crate::plan::lint::{Gap, GapKind, SAMPLE, Samples, gaps, open_columns};
use crate::plan::model::{Model, resolve};
use crate::policy::classification::FieldKind;
use crate::policy::registry::StoreSpec;
use crate::stores::{ColumnRef, DataStore, Filter, RowQuery, StoreError};

/// The JSON of `store lint`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LintDocument {
    /// `partial` with gaps (exit code 5), `failed` when a store cannot be looked at, `nothing-found` without stores.
    result: Outcome,
    /// What was found in each store.
    stores: Vec<LintedStore>,
}

impl Document for LintDocument {
    const OF: &'static [&'static str] = &["store lint"];
}

/// A store that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct LintedStore {
    /// Its name.
    store: String,
    /// Why it cannot be looked at.
    unreachable: Option<String>,
    /// What is missing. No value is told.
    gaps: Vec<FoundGap>,
}

/// Something that is missing.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundGap {
    /// A code for scripts.
    code: GapKind,
    /// The table.
    table: Option<String>,
    /// The columns, the policy or the copy that it is about.
    names: Vec<String>,
    /// The kind of personal data that the column seems to hold.
    seems: Option<FieldKind>,
    /// What is wrong.
    what: String,
    /// What to do.
    r#do: String,
}

/// `store lint`.
pub(super) async fn lint(context: &mut Context<'_>, name: Option<&str>) -> CommandResult {
    let config = context.configuration()?;
    let mut stores = Vec::new();
    let mut told: Vec<Vec<Gap>> = Vec::new();
    for spec in super::wanted(&config, name)? {
        let found = look(&config, spec).await;
        let (unreachable, gaps) = match found {
            Ok(gaps) => (None, gaps),
            Err(why) => (Some(why), Vec::new()),
        };
        let shown = gaps.iter().map(|gap| {
            let ((what, _), (remedy, _)) = (words(gap), advice(gap.kind));
            let (table, names) = (gap.table.clone(), gap.names.clone());
            FoundGap { code: gap.kind, table, names, seems: gap.seems, what, r#do: remedy.to_owned() }
        });
        stores.push(LintedStore { store: spec.name.clone(), unreachable, gaps: shown.collect() });
        told.push(gaps);
    }
    show(context.output, stores, &told)
}

/// Reads the catalogue of a store and some values of each column that nobody declared.
async fn look(config: &Configuration, spec: &StoreSpec) -> Result<Vec<Gap>, String> {
    let asked = async {
        let store = adapter(config, spec)?;
        Ok::<_, StoreError>((store.catalogue().await?, store))
    };
    let (catalogue, store) = asked.await.map_err(|error| error.to_string())?;
    let policies = &config.registry.policies;
    let model = resolve(spec, &catalogue, policies, &config.catalogue).map_err(|problems| problems.join("; "))?;
    let samples = sample(store.as_ref(), &model).await.map_err(|error| error.to_string())?;
    Ok(gaps(&model, policies, &samples))
}

async fn sample(store: &dyn DataStore, model: &Model) -> Result<Samples, StoreError> {
    let mut samples = Samples::new();
    let mut view = store.open_snapshot().await?;
    for collection in &model.collections {
        let columns = open_columns(collection);
        let query = RowQuery {
            table: collection.table.name.clone(),
            path: Vec::new(),
            columns: columns.iter().map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::All,
            key: collection.key.clone(),
            after: None,
            limit: SAMPLE,
        };
        if columns.is_empty() {
            continue;
        }
        for row in view.read(&query).await? {
            for (name, value) in columns.iter().zip(row) {
                let place = (collection.table.name.clone(), (*name).to_owned());
                samples.entry(place).or_default().push(value);
            }
        }
    }
    view.close().await?;
    Ok(samples)
}

fn kind_name(kind: Option<FieldKind>) -> String {
    let written = kind.and_then(|kind| serde_json::to_value(kind).ok());
    written.and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}

/// What is wrong, in English and Chinese.
fn words(gap: &Gap) -> (String, String) {
    let (table, names) = (gap.table.as_deref().unwrap_or_default(), gap.names.join(", "));
    let kind = kind_name(gap.seems);
    match gap.kind {
        GapKind::PersonalName => (
            format!("{table}.{names} is called as {kind} often is, and is not declared"),
            format!("{table}.{names} 的名称像 {kind}，但未申报"),
        ),
        GapKind::PersonalValues => (
            format!("the values of {table}.{names} have the form of {kind}, and it is not declared"),
            format!("{table}.{names} 的取值形如 {kind}，但未申报"),
        ),
        GapKind::NoPolicy => (
            format!("no policy governs {table}: its rows never fall due"),
            format!("没有策略管辖 {table}：其记录永不到期"),
        ),
        GapKind::NoBasis => {
            (format!("policy {names} names no known legal basis"), format!("策略 {names} 未写明已知的法律依据"))
        }
        GapKind::NotRegistered => (
            format!("{table} is not registered and seems to hold data of customers ({names})"),
            format!("{table} 未登记，似含客户数据（{names}）"),
        ),
        GapKind::NoIndex => (
            format!("no index of {table} begins with {names}, by which the rows of a customer are found"),
            format!("{table} 没有以 {names} 开头的索引，而查找客户记录要用它"),
        ),
        GapKind::CopyWithoutDate => (
            format!("copy {names} never dies, so no erasure becomes final"),
            format!("副本 {names} 没有期限，删除无法终结"),
        ),
    }
}

/// What to do about it, in English and Chinese.
fn advice(kind: GapKind) -> (&'static str, &'static str) {
    match kind {
        GapKind::PersonalName | GapKind::PersonalValues => (
            "declare it under `fields` of the collection with its kind, or with the kind that it really is",
            "在集合的 `fields` 下按其类别申报，或按实际类别申报",
        ),
        GapKind::NoPolicy => {
            ("name it under `collections` of a [[policy]]", "在某条 [[policy]] 的 `collections` 中列出")
        }
        GapKind::NoBasis => ("correct `basis` of the policy", "更正策略的 `basis`"),
        GapKind::NotRegistered => (
            "register it as a [[store.collection]], or list it under `ignored` of the store",
            "登记为 [[store.collection]]，或列入数据源的 `ignored`",
        ),
        GapKind::NoIndex => ("create an index on these columns", "为这些列建立索引"),
        GapKind::CopyWithoutDate => ("give it a period with `dies`", "用 `dies` 写明期限"),
    }
}

fn show(output: &mut Output, stores: Vec<LintedStore>, told: &[Vec<Gap>]) -> CommandResult {
    let lang = output.lang();
    for (store, gaps) in stores.iter().zip(told) {
        let name = &store.store;
        match &store.unreachable {
            Some(why) => output.line(&format!("✗ {why}"))?,
            None if gaps.is_empty() => {
                output.say(&Words::new(
                    format!("✓ store {name}: no gap found"),
                    format!("✓ 数据源 {name}：未发现缺口"),
                ))?;
            }
            None => output.say(&Words::new(format!("! store {name}:"), format!("! 数据源 {name}：")))?,
        }
        for gap in gaps {
            let ((en, zh), (en_advice, zh_advice)) = (words(gap), advice(gap.kind));
            output.line(&format!("    {}", say(lang, &en, &zh)))?;
            output.line(&format!("      {}: {}", say(lang, "do", "处理"), say(lang, en_advice, zh_advice)))?;
        }
    }
    let is_away = stores.iter().any(|store| store.unreachable.is_some());
    let has_gaps = told.iter().any(|gaps| !gaps.is_empty());
    let (result, exit) = match (is_away, has_gaps, stores.is_empty()) {
        (true, _, _) => (Outcome::Failed, Exit::Failed),
        (_, true, _) => (Outcome::Partial, Exit::Overdue),
        (_, _, true) => (Outcome::NothingFound, Exit::Done),
        _ => (Outcome::Complete, Exit::Done),
    };
    output.document(&LintDocument { result, stores })?;
    Ok(exit)
}
