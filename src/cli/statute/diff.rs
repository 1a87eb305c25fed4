//! `statute diff`: what an officer needs to know before, or after, the law in the catalogue changes.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, faults_error, task_error};
use super::super::output::shapes::Skipped;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Lang, Outcome, UserError, Words, say};
use super::built_in;
use super::words::{demand, period_in, status_in};
use crate::config::{Faults, Registry, read_catalogue};
use crate::installation::Needs;
use crate::policy::statute::check::{contradiction, retention_too_long, retention_too_short};
use crate::policy::statute::rules::{Change, PolicyRule, StatuteChange, StatuteRule, compare};
use crate::policy::statute::{Catalogue, CatalogueVersion};
use crate::tasks::statute_diff::{CollectionDiff, PolicyDiff, RulesDiff, compare_rules, last_plan};

/// Arguments of `statute diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// What to compare with: a catalogue file, or `built-in`. By default the newest plan.
    #[arg(long, value_name = "FILE")]
    from: Option<String>,
    /// What would be in force: a catalogue file, or `built-in`. By default what the configuration says.
    #[arg(long, value_name = "FILE")]
    to: Option<String>,
}

/// The JSON of `statute diff`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiffDocument {
    /// `complete`, `nothing-found` without a difference, `partial` when a store could not be counted.
    result: Outcome,
    /// What is compared with.
    from: SideEntry,
    /// What it is compared to.
    to: SideEntry,
    /// Entries that differ. Compared with a plan: those that bind a policy, then or now.
    statutes: Vec<ChangeEntry>,
    /// Policies whose rules differ.
    policies: Vec<PolicyEntry>,
    /// Rows that were due and would stay.
    back_to_kept: u64,
    /// Rows that stayed and would be due.
    newly_due: u64,
    /// What the configuration would have to change, or would be warned about.
    findings: Vec<String>,
    /// Stores that could not be counted.
    skipped: Vec<Skipped>,
}

impl Document for DiffDocument {
    const OF: &'static [&'static str] = &["statute diff"];
}

/// One side of the comparison.
#[derive(Debug, Serialize, JsonSchema)]
struct SideEntry {
    /// `plan HASH`, `built-in`, `in force`, or the file.
    what: String,
    /// Which catalogue that is.
    catalogue: Option<CatalogueVersion>,
}

/// How an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ChangeWord {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Some records may go earlier.
    Looser,
    /// Some records stay longer.
    Stricter,
    /// Only a maximum or its status changed.
    Other,
}

impl From<Change> for ChangeWord {
    fn from(change: Change) -> Self {
        match change {
            Change::Added => Self::Added,
            Change::Removed => Self::Removed,
            Change::Looser => Self::Looser,
            Change::Stricter => Self::Stricter,
            Change::Other => Self::Other,
        }
    }
}

/// An entry that differs.
#[derive(Debug, Serialize, JsonSchema)]
struct ChangeEntry {
    /// Its key.
    statute: String,
    /// How it differs.
    change: ChangeWord,
    /// What it demanded, in words.
    from: Option<String>,
    /// What it demands, in words.
    to: Option<String>,
}

impl ChangeEntry {
    fn of(change: &StatuteChange) -> Self {
        Self {
            statute: change.key.clone(),
            change: change.change.into(),
            from: change.from.as_ref().map(|rule| rule_in(Lang::En, rule)),
            to: change.to.as_ref().map(|rule| rule_in(Lang::En, rule)),
        }
    }
}

/// A policy whose rules differ.
#[derive(Debug, Serialize, JsonSchema)]
struct PolicyEntry {
    /// Its id.
    policy: String,
    /// Its retention before; null for a new policy.
    retention_before: Option<String>,
    /// Its retention now; null for a policy that is gone.
    retention_after: Option<String>,
    /// The statutes that bind it differently.
    statutes: Vec<ChangeEntry>,
    /// What that comes to, by collection.
    collections: Vec<CollectionEntry>,
}

/// Rows of a collection, by their start events; holds and references are not looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct CollectionEntry {
    /// The store.
    store: String,
    /// The collection.
    collection: String,
    /// Rows due before.
    due_before: u64,
    /// Rows due now.
    due_after: u64,
    /// Rows that were due and would stay.
    back_to_kept: u64,
    /// Rows that stayed and would be due.
    newly_due: u64,
}

impl PolicyEntry {
    fn of(diff: &PolicyDiff) -> Self {
        let collection = |counts: &CollectionDiff| CollectionEntry {
            store: counts.store.clone(),
            collection: counts.collection.clone(),
            due_before: counts.due_before,
            due_after: counts.due_after,
            back_to_kept: counts.back_to_kept(),
            newly_due: counts.newly_due(),
        };
        Self {
            policy: diff.policy.clone(),
            retention_before: diff.from.map(|period| period.to_string()),
            retention_after: diff.to.map(|period| period.to_string()),
            statutes: diff.statutes.iter().map(ChangeEntry::of).collect(),
            collections: diff.collections.iter().map(collection).collect(),
        }
    }
}

fn rule_in(lang: Lang, rule: &StatuteRule) -> String {
    let (words, status) = (demand(lang, rule.bound, rule.counts_from), status_in(lang, rule.status));
    match lang {
        Lang::En => format!("{words}, {status}"),
        Lang::Zh => format!("{words}，{status}"),
    }
}

/// What is compared: a catalogue's entries, or those that a plan was decided by.
struct Side {
    what: String,
    catalogue: Option<CatalogueVersion>,
    entries: Vec<StatuteRule>,
    rules: Vec<PolicyRule>,
}

impl Side {
    fn of(what: &str, law: &Catalogue, registry: &Registry) -> Self {
        Self {
            what: what.to_owned(),
            catalogue: Some(law.version),
            entries: law.statutes.iter().map(|statute| StatuteRule::of(statute)).collect(),
            rules: registry.policies.iter().map(|policy| PolicyRule::under(policy, law)).collect(),
        }
    }

    fn entry(&self) -> SideEntry {
        SideEntry { what: self.what.clone(), catalogue: self.catalogue }
    }

    /// Only entries that bind a policy, on either side, for a comparison with a plan, which knows no others.
    fn only(&mut self, keys: &[String]) {
        self.entries.retain(|rule| keys.contains(&rule.key));
    }
}

fn named(name: &str) -> Result<Catalogue, UserError> {
    if name == "built-in" {
        return built_in();
    }
    read_catalogue(Path::new(name)).map_err(|faults| faults_error("CATALOGUE_INVALID", &Faults(faults)))
}

/// Compares, counts, and says what would change.
pub async fn diff(context: &mut Context<'_>, args: DiffArgs) -> CommandResult {
    let chosen = args.to.as_deref().map(named).transpose()?;
    let earlier = args.from.as_deref().map(named).transpose()?;
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let registry = &installation.config.registry;
    let law = chosen.as_ref().unwrap_or(&installation.config.catalogue);
    let mut to = Side::of(args.to.as_deref().unwrap_or("in force"), law, registry);
    let plan = if earlier.is_none() { last_plan(&installation).await.map_err(task_error)? } else { None };
    let from = match (&earlier, plan) {
        (Some(law), _) => Side::of(args.from.as_deref().unwrap_or_default(), law, registry),
        (None, Some(plan)) => {
            let entries = plan.rules.iter().flat_map(|rule| rule.statutes.clone()).collect::<Vec<_>>();
            let now = to.rules.iter().flat_map(|rule| &rule.statutes);
            let keys: Vec<String> = entries.iter().chain(now).map(|rule| rule.key.clone()).collect();
            to.only(&keys);
            to.rules.retain(|rule| {
                governs(&installation, &rule.policy) || plan.rules.iter().any(|old| old.policy == rule.policy)
            });
            let hash = &plan.hash[..12.min(plan.hash.len())];
            Side { what: format!("plan {hash}"), catalogue: plan.catalogue, entries, rules: plan.rules }
        }
        (None, None) => Side::of("built-in", &built_in()?, registry),
    };
    let found = compare_rules(&installation, &from.rules, &to.rules).await.map_err(task_error)?;
    let statutes = compare(&from.entries, &to.entries);
    let findings = findings(registry, law);
    show(context, (&from, &to), (&statutes, &found), &findings)?;
    let exit = if found.skipped.is_empty() { Exit::Done } else { Exit::Partial };
    let sum =
        |of: fn(&CollectionDiff) -> u64| found.policies.iter().flat_map(|policy| &policy.collections).map(of).sum();
    context.output.document(&DiffDocument {
        result: match (found.skipped.is_empty(), statutes.is_empty() && found.policies.is_empty()) {
            (false, _) => Outcome::Partial,
            (true, is_empty) => Outcome::of_list(is_empty),
        },
        from: from.entry(),
        to: to.entry(),
        statutes: statutes.iter().map(ChangeEntry::of).collect(),
        policies: found.policies.iter().map(PolicyEntry::of).collect(),
        back_to_kept: sum(CollectionDiff::back_to_kept),
        newly_due: sum(CollectionDiff::newly_due),
        findings,
        skipped: Skipped::all(&found.skipped),
    })?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

/// Whether a policy governs a collection of a store that can be reached.
fn governs(installation: &crate::installation::Installation, policy: &str) -> bool {
    let collections = installation.sites().iter().flat_map(|site| &site.model.collections);
    collections.filter_map(|collection| collection.governed.as_ref()).any(|governed| governed.policy.id == policy)
}

/// What `config check` would say of the policies under this catalogue.
fn findings(registry: &Registry, law: &Catalogue) -> Vec<String> {
    let mut found = Vec::new();
    for policy in &registry.policies {
        let statutes: Vec<_> = policy.statutes.iter().filter_map(|key| law.find(key)).cloned().collect();
        for key in policy.statutes.iter().filter(|key| law.find(key).is_none()) {
            found.push(format!("policy {}: the catalogue has no statute {key}", policy.id));
        }
        found.extend(retention_too_long(policy, &statutes).map(|finding| finding.to_string()));
        found.extend(retention_too_short(policy, &statutes).map(|finding| finding.to_string()));
        found.extend(contradiction(policy, &statutes).map(|finding| finding.to_string()));
    }
    found
}

fn show(
    context: &mut Context<'_>,
    (from, to): (&Side, &Side),
    (statutes, found): (&[StatuteChange], &RulesDiff),
    findings: &[String],
) -> Result<(), UserError> {
    let lang = context.lang();
    let output = &mut *context.output;
    let version = |side: &Side| side.catalogue.map_or_else(|| "?".to_owned(), |version| version.to_string());
    output.say(&Words::new(
        format!("From {} (catalogue {}) to {} (catalogue {}):", from.what, version(from), to.what, version(to)),
        format!("从 {}（目录 {}）到 {}（目录 {}）：", from.what, version(from), to.what, version(to)),
    ))?;
    if statutes.is_empty() && found.policies.is_empty() {
        output.say(&Words::new("No entry and no policy differs.", "没有差异。"))?;
    }
    if !statutes.is_empty() {
        output.table(&statute_grid(lang, statutes))?;
    }
    if !found.policies.is_empty() {
        output.table(&policy_grid(lang, found))?;
    }
    for finding in findings {
        output.note(&Words::new(finding.clone(), finding.clone()))?;
    }
    for (store, reason) in &found.skipped {
        output.note(&Words::new(
            format!("store {store} was not counted: {reason}"),
            format!("数据库 {store} 未计数：{reason}"),
        ))?;
    }
    Ok(())
}

fn statute_grid(lang: Lang, statutes: &[StatuteChange]) -> Grid {
    let titles = [("statute", "法规"), ("change", "变化"), ("before", "之前"), ("after", "之后")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for change in statutes {
        let word = match change.change {
            Change::Added => say(lang, "added", "新增"),
            Change::Removed => say(lang, "removed", "移除"),
            Change::Looser => say(lang, "looser", "放宽"),
            Change::Stricter => say(lang, "stricter", "收紧"),
            Change::Other => say(lang, "other", "其他"),
        };
        let rule =
            |rule: &Option<StatuteRule>| rule.as_ref().map_or_else(|| "–".to_owned(), |rule| rule_in(lang, rule));
        grid.row([change.key.as_str(), word, &rule(&change.from), &rule(&change.to)]);
    }
    grid
}

fn policy_grid(lang: Lang, found: &RulesDiff) -> Grid {
    let titles = [
        ("policy", "策略"),
        ("retention", "保留期"),
        ("collection", "数据表"),
        ("due before", "之前到期"),
        ("due after", "之后到期"),
        ("back to kept", "转为保留"),
        ("newly due", "新到期"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for column in 3..7 {
        grid = grid.right(column);
    }
    for policy in &found.policies {
        let period = |period: Option<_>| period.map_or_else(|| "–".to_owned(), |period| period_in(lang, period));
        let retention = if policy.from == policy.to {
            period(policy.to)
        } else {
            format!("{} → {}", period(policy.from), period(policy.to))
        };
        if policy.collections.is_empty() {
            grid.row([policy.policy.as_str(), &retention, "–"]);
        }
        for counts in &policy.collections {
            grid.row([
                policy.policy.clone(),
                retention.clone(),
                format!("{}.{}", counts.store, counts.collection),
                grouped(counts.due_before),
                grouped(counts.due_after),
                grouped(counts.back_to_kept()),
                grouped(counts.newly_due()),
            ]);
        }
    }
    grid
}
