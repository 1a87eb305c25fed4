//! `store …`: the registered stores, and whether they can be worked on.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, usage};
use super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use crate::config::Configuration;
use crate::plan::model::{Model, resolve};
use crate::plan::scans::{Looking, scans, tables_of};
use crate::plan::unregistered::{UNREGISTERED_ADVICE, UnregisteredTable};
use crate::policy::classification::{Category, FieldKind, Level, classify, declared_approval};
use crate::policy::registry::{BackupMode, CollectionSpec, FieldSpec, Policy, StoreSpec};
use crate::stores::{DataStore, Finding, FindingKind, Limits, StoreAddress, StoreError};
use crate::tasks::backup::suite_of;

mod lint;
pub(super) mod settle;

pub use lint::LintDocument;

/// The registered stores.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// What is registered: stores, collections, who owns them, which policy governs them.
    #[command(after_help = "Example:\n  wangchuan store list")]
    List,
    /// Ask the databases themselves: is everything there, and may the agent read and delete it? Changes nothing.
    ///
    /// Every finding comes with what to do, for example the exact GRANT. Exit code 3 when something is missing, 1 when a store cannot
    /// be reached.
    #[command(after_help = "Examples:\n  wangchuan store check\n  wangchuan store check shop")]
    Check {
        /// The store; otherwise all.
        name: Option<String>,
    },
    /// Clean up the store's own files behind erasures: full-text indexes, pages, logs; and tell what may still hold deleted rows.
    ///
    /// Erasures do that by themselves, without getting in anybody's way, and the hourly job `shred` looks again for what passes by itself: a
    /// reader, an old transaction, a purge that lags. Exit code 4 while something of that kind is left.
    #[command(after_help = "Examples:\n  wangchuan store settle shop\n  wangchuan store settle shop --rewrite")]
    Settle {
        /// The store.
        name: String,
        /// Write the tables of unsettled erasures anew (VACUUM FULL, ALTER TABLE … FORCE, VACUUM), so that unused parts of pages
        /// go. Locks each table while it goes on, and needs room for a copy of it.
        #[arg(long)]
        rewrite: bool,
    },
    /// Look for gaps of the registry: columns that look personal and are not declared, collections without a policy, tables that are
    /// not registered, missing indexes, copies without a date.
    ///
    /// Reads the catalogue and up to 200 rows of each collection; no value is shown. Exit code 5 when there are gaps, 1 when a store
    /// cannot be looked at.
    #[command(after_help = "Examples:\n  wangchuan store lint\n  wangchuan store lint shop --json")]
    Lint {
        /// The store; otherwise all.
        name: Option<String>,
    },
}

/// `store …`.
pub async fn store(context: &mut Context<'_>, command: StoreCommand) -> CommandResult {
    match command {
        StoreCommand::List => list(context),
        StoreCommand::Check { name } => check(context, name.as_deref()).await,
        StoreCommand::Settle { name, rewrite } => settle::settle(context, &name, rewrite).await,
        StoreCommand::Lint { name } => lint::lint(context, name.as_deref()).await,
    }
}

/// The adapter of a registered store, without an opened installation.
pub(super) fn adapter(config: &Configuration, spec: &StoreSpec) -> Result<Arc<dyn DataStore>, StoreError> {
    crate::stores::open(&StoreAddress {
        name: spec.name.clone(),
        url: spec.url.clone(),
        read_url: spec.read_url.clone(),
        base: config.base_dir.clone(),
        create: false,
        limits: Limits::default(),
    })
}

/// The JSON of `store list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument<'c> {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The registered stores.
    stores: Vec<ListedStore<'c>>,
}

impl Document for ListDocument<'_> {
    const OF: &'static [&'static str] = &["store list"];
}

/// A registered store. Its address is not shown.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedStore<'c> {
    /// Its name.
    store: &'c str,
    /// The kind of database: the scheme of its address.
    engine: &'c str,
    /// Who answers for it.
    owner: Option<&'c str>,
    /// What it is for.
    purpose: Option<&'c str>,
    /// Where it stands.
    site: Option<&'c str>,
    /// Where its backups go.
    backup: BackupMode,
    /// The names of its declared further copies.
    copies: Vec<&'c str>,
    /// Its registered collections.
    collections: Vec<ListedCollection<'c>>,
}

/// A registered collection.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedCollection<'c> {
    /// Its name.
    collection: &'c str,
    /// The column that names the subject, when it has one itself.
    subject: Option<&'c str>,
    /// The foreign keys that lead to the subject otherwise.
    via: &'c [String],
    /// The policies that govern it.
    policies: Vec<&'c str>,
    /// Its declared fields. A column that nobody declared is sealed with AES-256-GCM.
    fields: Vec<ListedField<'c>>,
}

/// A declared field and what follows from it.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedField<'c> {
    /// The column.
    field: &'c str,
    /// What it holds.
    kind: FieldKind,
    /// The category that counts: the declared one, or the kind's own if that is stricter.
    category: Category,
    /// The level that counts, in the same way.
    level: Level,
    /// What its backups are sealed with.
    cipher: &'static str,
    /// How many operators must agree to a plan that takes rows of it: 0 unless category or level is declared.
    approvals_needed: usize,
}

impl<'c> ListedField<'c> {
    fn of(field: &'c str, spec: &FieldSpec) -> Self {
        let class = classify(spec);
        let cipher = suite_of(class.cipher).cipher_name();
        let alone = BTreeMap::from([(field.to_owned(), spec.clone())]);
        let approvals_needed = declared_approval(&alone).map_or(0, |(approval, _)| approval.persons());
        Self { field, kind: class.kind, category: class.category, level: class.level, cipher, approvals_needed }
    }
}

/// The kind of database, from the scheme alone: the rest of the address may hold a password.
fn engine(spec: &StoreSpec) -> &str {
    spec.url.dangerous_text().split_once(':').map_or("?", |(scheme, _)| scheme)
}

/// The policies that name a collection, as `table` or as `store.table`.
fn policies_of<'c>(policies: &'c [Policy], store: &str, table: &str) -> Vec<&'c str> {
    let qualified = format!("{store}.{table}");
    let governs = |policy: &&Policy| policy.collections.iter().any(|name| name == table || *name == qualified);
    policies.iter().filter(governs).map(|policy| policy.id.as_str()).collect()
}

fn listed<'c>(spec: &'c StoreSpec, policies: &'c [Policy]) -> ListedStore<'c> {
    let collection = |collection: &'c CollectionSpec| ListedCollection {
        collection: &collection.table,
        subject: collection.subject.as_deref(),
        via: &collection.via,
        policies: policies_of(policies, &spec.name, &collection.table),
        fields: collection.fields.iter().map(|(name, field)| ListedField::of(name, field)).collect(),
    };
    ListedStore {
        store: &spec.name,
        engine: engine(spec),
        owner: spec.owner.as_deref(),
        purpose: spec.purpose.as_deref(),
        site: spec.site.as_deref(),
        backup: spec.backup,
        copies: spec.copies.iter().map(|copy| copy.name.as_str()).collect(),
        collections: spec.collections.iter().map(collection).collect(),
    }
}

fn list(context: &mut Context<'_>) -> CommandResult {
    let config = context.configuration()?;
    let registry = &config.registry;
    let stores: Vec<_> = registry.stores.iter().map(|spec| listed(spec, &registry.policies)).collect();
    let output = &mut *context.output;
    let lang = output.lang();
    let titles = [
        ("store", "数据源"),
        ("engine", "数据库"),
        ("collection", "集合"),
        ("subject by", "主体来自"),
        ("policy", "策略"),
        ("owner", "负责人"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for store in &stores {
        for collection in &store.collections {
            let subject = collection.subject.map_or_else(|| collection.via.join(", "), ToOwned::to_owned);
            let policies = collection.policies.join(", ");
            let owner = store.owner.unwrap_or_default();
            grid.row([store.store, store.engine, collection.collection, &subject, &policies, owner]);
        }
        if store.collections.is_empty() {
            grid.row([store.store, store.engine, "-"]);
        }
    }
    if grid.is_empty() {
        output.say(&Words::new(
            "no store is registered; add a [[store]] section to the configuration",
            "没有登记数据源；请在配置中加入 [[store]] 一节",
        ))?;
    } else {
        output.table(&grid)?;
        show_fields(output, &stores)?;
    }
    output.document(&ListDocument { result: Outcome::of_list(stores.is_empty()), stores })?;
    Ok(Exit::Done)
}

/// The name under which the configuration knows a value.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The declared fields, with what each is sealed with.
fn show_fields(output: &mut Output, stores: &[ListedStore<'_>]) -> Result<(), UserError> {
    let lang = output.lang();
    let titles = [
        ("collection", "集合"),
        ("field", "字段"),
        ("kind", "种类"),
        ("category", "类别"),
        ("level", "级别"),
        ("sealed with", "备份加密"),
        ("must agree", "须批准人数"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(6);
    for (store, collection) in stores.iter().flat_map(|store| store.collections.iter().map(move |found| (store, found)))
    {
        let place = format!("{}.{}", store.store, collection.collection);
        for field in &collection.fields {
            let ListedField { field, kind, category, level, cipher, approvals_needed } = field;
            let needed = approvals_needed.to_string();
            grid.row([place.as_str(), field, &word(kind), &word(category), &word(level), cipher, &needed]);
        }
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    Ok(())
}

/// What was found out about a store.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CheckedStore {
    /// Its name.
    pub store: String,
    /// Why it cannot be worked with at all.
    pub unreachable: Option<String>,
    /// What is missing.
    pub findings: Vec<FoundProblem>,
    /// Tables that seem to hold a customer's data and are not registered. They keep nothing from working.
    pub unregistered: Vec<UnregisteredTable>,
}

/// Something that is missing.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct FoundProblem {
    /// A code for scripts.
    pub code: &'static str,
    /// The table.
    pub table: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub r#do: String,
}

/// Asks the database.
pub(super) async fn check_store(config: &Configuration, spec: &StoreSpec) -> CheckedStore {
    let asked = async {
        let store = adapter(config, spec)?;
        let catalogue = store.catalogue().await?;
        let tables: Vec<String> = spec.collections.iter().map(|collection| collection.table.clone()).collect();
        let findings = store.check(&tables).await?;
        let (unregistered, problems, scans) =
            match resolve(spec, &catalogue, &config.registry.policies, &config.catalogue) {
                Ok(model) => (model.unregistered.clone(), Vec::new(), scans_of(store.as_ref(), &model).await?),
                Err(problems) => (Vec::new(), problems, Vec::new()),
            };
        let mut found = relevant(spec, findings, problems);
        found.extend(scans);
        found.extend(replicas_of(config, spec).await?);
        Ok::<_, StoreError>((unregistered, found))
    };
    let mut loose = Vec::new();
    let (unreachable, findings) = match asked.await {
        Ok((unregistered, found)) => {
            loose = unregistered;
            (None, found)
        }
        Err(error) => (Some(error.to_string()), Vec::new()),
    };
    CheckedStore { store: spec.name.clone(), unreachable, findings, unregistered: loose }
}

/// Replicas that cannot be asked how far they are behind. One that has no heartbeat yet is none of them.
async fn replicas_of(config: &Configuration, spec: &StoreSpec) -> Result<Vec<FoundProblem>, StoreError> {
    let mut found = Vec::new();
    for replica in &spec.replicas {
        let store = crate::stores::open(&StoreAddress {
            name: format!("{} (replica {})", spec.name, replica.name),
            url: replica.url.clone(),
            read_url: None,
            base: config.base_dir.clone(),
            create: false,
            limits: Limits::default(),
        })?;
        if let Err(error @ (StoreError::Unreachable { .. } | StoreError::Login { .. })) = store.last_beat().await {
            let remedy =
                "see to the replica, or take it out of the configuration: nothing is erased while its lag is not known";
            let what = format!("replica {}: {error}", replica.name);
            found.push(FoundProblem { code: "replica", table: None, what, r#do: remedy.to_owned() });
        }
    }
    Ok(found)
}

/// Large tables that plans would refuse to read from end to end.
async fn scans_of(store: &dyn DataStore, model: &Model) -> Result<Vec<FoundProblem>, StoreError> {
    let most_rows = model.spec.budget.scan_rows;
    let facts = store.table_facts(&tables_of(model), most_rows).await?;
    let mut found: Vec<FoundProblem> = Vec::new();
    for looking in [Looking::Retention, Looking::Subject] {
        for scan in scans(model, &facts, (store.engine(), most_rows), looking) {
            let (what, remedy) = (scan.what(), scan.remedy());
            if !found.iter().any(|known| known.r#do == remedy && known.table.as_ref() == Some(&scan.table)) {
                found.push(FoundProblem { code: "no-index", table: Some(scan.table), what, r#do: remedy });
            }
        }
    }
    Ok(found)
}

/// The findings that the configuration does not answer already, and what does not fit between it and the schema.
fn relevant(spec: &StoreSpec, findings: Vec<Finding>, problems: Vec<String>) -> Vec<FoundProblem> {
    let declared = |table: &Option<String>| spec.collections.iter().find(|known| Some(&known.table) == table.as_ref());
    let is_answered = |finding: &Finding| match &finding.kind {
        FindingKind::Trigger(name) => {
            declared(&finding.table).is_some_and(|collection| collection.triggers.contains(name))
        }
        FindingKind::NoKey => declared(&finding.table).is_some_and(|collection| !collection.key.is_empty()),
        _ => false,
    };
    let says_so_already = findings.iter().any(|finding| finding.kind == FindingKind::MissingTable);
    let found = findings.into_iter().filter(|finding| !is_answered(finding)).map(|finding| FoundProblem {
        code: finding_code(&finding.kind),
        table: finding.table,
        what: finding.what,
        r#do: finding.remedy,
    });
    // A missing table makes a sentence on both sides; the database's own comes with the remedy.
    let is_told_twice = |problem: &String| says_so_already && problem.contains("there is no such table");
    let registry = problems.into_iter().filter(|problem| !is_told_twice(problem)).map(|what| FoundProblem {
        code: "registry",
        table: None,
        what,
        r#do: "correct the configuration, then run `wangchuan store check` again".to_owned(),
    });
    found.chain(registry).collect()
}

fn finding_code(kind: &FindingKind) -> &'static str {
    match kind {
        FindingKind::MissingTable => "missing-table",
        FindingKind::NoKey => "no-key",
        FindingKind::NoRight => "no-right",
        FindingKind::HiddenRows => "hidden-rows",
        FindingKind::Trigger(_) => "trigger",
        FindingKind::Unsupported(_) => "unsupported-type",
        FindingKind::Storage => "storage",
    }
}

/// The JSON of `store check`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckDocument {
    /// `refused` when something is missing, `failed` when a store cannot be reached, `nothing-found` without stores.
    result: Outcome,
    /// What was found out about each.
    stores: Vec<CheckedStore>,
}

impl Document for CheckDocument {
    const OF: &'static [&'static str] = &["store check"];
}

/// The store of this name; all without one.
fn wanted<'c>(config: &'c Configuration, name: Option<&str>) -> Result<Vec<&'c StoreSpec>, UserError> {
    let is_wanted = |spec: &&StoreSpec| name.is_none_or(|name| spec.name == name);
    let wanted: Vec<&StoreSpec> = config.registry.stores.iter().filter(is_wanted).collect();
    if let (Some(name), true) = (name, wanted.is_empty()) {
        let known: Vec<&str> = config.registry.stores.iter().map(|spec| spec.name.as_str()).collect();
        let (en, zh) = (format!("store {name} is not registered"), format!("数据源 {name} 没有登记"));
        let hint = crate::config::suggest(name, &known);
        return Err(usage("STORE_UNKNOWN", &en, &zh).advise(hint.clone(), hint));
    }
    Ok(wanted)
}

async fn check(context: &mut Context<'_>, name: Option<&str>) -> CommandResult {
    let config = context.configuration()?;
    let mut stores = Vec::new();
    for spec in wanted(&config, name)? {
        stores.push(check_store(&config, spec).await);
    }
    show(context.output, stores)
}

fn show(output: &mut Output, stores: Vec<CheckedStore>) -> CommandResult {
    for store in &stores {
        let name = &store.store;
        match &store.unreachable {
            Some(why) => output.line(&format!("✗ {why}"))?,
            None if store.findings.is_empty() => {
                output.say(&Words::new(format!("✓ store {name}: ready"), format!("✓ 数据源 {name}：就绪")))?;
            }
            None => output.say(&Words::new(format!("✗ store {name}:"), format!("✗ 数据源 {name}：")))?,
        }
        show_findings(output, &store.findings)?;
        show_unregistered(output, &store.unregistered)?;
    }
    let (result, exit) = verdict(&stores);
    if stores.is_empty() {
        output.say(&Words::new("no store is registered", "没有登记数据源"))?;
    }
    output.document(&CheckDocument { result, stores })?;
    Ok(exit)
}

/// The findings with what to do, indented.
fn show_findings(output: &mut Output, findings: &[FoundProblem]) -> Result<(), UserError> {
    let lang = output.lang();
    for finding in findings {
        output.line(&format!("    {}", finding.what))?;
        output.line(&format!("      {}: {}", say(lang, "do", "处理"), finding.r#do))?;
    }
    Ok(())
}

/// Tables that nobody registered, with what to do.
pub(super) fn show_unregistered(output: &mut Output, tables: &[UnregisteredTable]) -> Result<(), UserError> {
    for found in tables {
        let (table, columns) = (&found.table, found.columns.join(", "));
        let zh = match &found.refers_to {
            Some(parent) => format!("表 {table} 未登记，其行经 {columns} 属于 {parent}"),
            None => format!("表 {table} 未登记，其列 {columns} 与客户标识列同名"),
        };
        let (store, what) = (&found.store, found.what());
        output.say(&Words::new(format!("! {store}: {what}"), format!("! {store}：{zh}")))?;
    }
    if !tables.is_empty() {
        output.say(&Words::new(
            format!("    do: {UNREGISTERED_ADVICE}"),
            "    处理：登记为 [[store.collection]]；若不含客户数据，请列入该数据源的 `ignored`",
        ))?;
    }
    Ok(())
}

fn verdict(stores: &[CheckedStore]) -> (Outcome, Exit) {
    if stores.iter().any(|store| store.unreachable.is_some()) {
        (Outcome::Failed, Exit::Failed)
    } else if stores.iter().any(|store| !store.findings.is_empty()) {
        (Outcome::Refused, Exit::Refused)
    } else if stores.is_empty() {
        (Outcome::NothingFound, Exit::Done)
    } else {
        (Outcome::Complete, Exit::Done)
    }
}

#[cfg(test)]
mod tests;
