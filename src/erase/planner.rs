//! Makes and stores plans: surveys every store, decides, checks the caps, seals the lists and fixes the hash.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::anonymise::{Telling, mark_settled};
use super::chunk::{CHUNK_ROWS, ChunkItem, KNOT_ROWS, open_items, seal_items};
use super::crowds::{LeftRows, decide_in_crowds, known_in};
use super::edited::Editions;
use super::stripped::{filled_again, keep_stripped};
use super::survey::{Surveyor, Target};
use super::waits::Waits;
use super::{EraseError, Ground, Site};
use crate::control::{ChunkCounts, ChunkRow, HoldRow, PlanRow, Tx};
use crate::keyring::Purpose;
use crate::keys::{Key, cell::pseudonym};
use crate::plan::decide::Candidate;
use crate::plan::digest::{RowsDigest, plan_hash, row_mac};
use crate::plan::model::Model;
use crate::plan::scans::{Looking, scans, tables_of};
use crate::plan::{CollectionCounts, Decision, PlanBody, PlanKind, Reason, Subject, Verdict};
use crate::policy::hold::{ActiveHolds, Hold, HoldScope, Owners, SubjectDigest};
use crate::policy::statute::rules::PolicyRule;
use crate::random::uuid7;
use crate::stores::{Snapshot, StoreError};
use crate::value::{RowKey, encode_values};

/// A plan with its public part.
#[derive(Debug, Clone)]
pub struct StoredPlan {
    /// The stored row.
    pub row: PlanRow,
    /// Its public part.
    pub body: PlanBody,
}

/// The digest by which control database and holds know a subject.
#[must_use]
pub fn subject_lookup(lookup: &Key, subject: &Subject) -> [u8; 32] {
    pseudonym(lookup, "subject", &[subject.dangerous_text().as_bytes()])
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanUse {
    /// Retention, to be carried out.
    Retention,
    /// The request with this number, to be carried out.
    Request(i64),
    /// To be looked at, and void from the first: a plan that waits for approval stays what it is.
    Look,
}

impl PlanUse {
    fn kind(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Request(_) => "request",
            Self::Look => "preview",
        }
    }

    fn request(self) -> Option<i64> {
        match self {
            Self::Request(number) => Some(number),
            Self::Retention | Self::Look => None,
        }
    }
}

/// Plans and stores the plan. Reads the stores, writes only to the control database.
///
/// # Errors
/// When no store can be read, or when keys or control database fail.
pub async fn make_plan(ground: &Ground<'_>, target: &Target, made_for: PlanUse) -> Result<StoredPlan, EraseError> {
    let cutoff = ground.clock.now();
    let mut tx = ground.control.begin().await?;
    let suppression = ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
    let lookup = ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let certificate = ground.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
    let holds = tx.holds(true).await?;
    let (known, waits) = known_rows(&mut tx, made_for).await?;
    let editions = match target {
        Target::Retention => Some(Editions::read(&mut tx, ground).await?),
        // A customer's request is not put off because somebody edited how long rows are kept.
        Target::Request(_) => None,
    };
    tx.commit().await?;
    let telling = Telling { suppression: &suppression, certificate: &certificate };
    let asked = Asked { target, cutoff, known: known.as_ref(), editions: editions.as_ref(), telling };

    let mut body = PlanBody {
        kind: if matches!(target, Target::Retention) { PlanKind::Retention } else { PlanKind::Request },
        cutoff,
        policy_digest: ground.policy_digest.to_owned(),
        catalogue: Some(ground.catalogue),
        rules: rules_of(ground.sites),
        definitions: editions.as_ref().map(Editions::definitions).unwrap_or_default(),
        schema_digest: Vec::new(),
        holds: holds.iter().map(|hold| hold.id.clone()).collect(),
        salt: salt(ground)?,
        rows_digest: String::new(),
        collections: Vec::new(),
        subjects: 0,
        skipped: ground.skipped.to_vec(),
        unregistered: ground.sites.iter().flat_map(|site| site.model.unregistered.clone()).collect(),
    };
    let mut lists: Vec<PlannedList> = Vec::new();
    let mut subjects = HashSet::new();
    for site in ground.sites {
        let is_changed = site.model.collections.iter().any(|collection| collection.anonymise.is_some());
        let left = if is_changed { known_in(ground, site).await? } else { LeftRows::new() };
        match plan_site(site, (&holds, &left), &lookup, &asked, body.kind).await {
            Ok((decisions, counts)) => {
                body.schema_digest.push((site.model.spec.name.clone(), site.model.schema_digest.clone()));
                body.collections.extend(counts);
                lists.extend(lists_of(site, &decisions));
                add_subjects(&mut subjects, &decisions);
            }
            Err(EraseError::Store(error)) => body.skipped.push((site.model.spec.name.clone(), error.to_string())),
            Err(other) => return Err(other),
        }
    }
    if body.collections.is_empty() && !body.skipped.is_empty() {
        let reasons: Vec<&str> = body.skipped.iter().map(|(_, reason)| reason.as_str()).collect();
        return Err(EraseError::Refused {
            what: format!("no store could be read: {}", reasons.join("; ")),
            advice: "see `wangchuan store check`".to_owned(),
        });
    }
    body.subjects = subjects.len() as u64;
    let mut digest = RowsDigest::new(&suppression);
    for list in &lists {
        add_list(&mut digest, &list.store, &list.collection, list.verdict, &list.items);
    }
    body.rows_digest = digest.finish();
    store_plan(ground, body, (made_for, waits), lists).await
}

/// Adds the owners of rows that are to go.
fn add_subjects(subjects: &mut HashSet<Subject>, decisions: &[Decision]) {
    let goes = |decision: &&Decision| !matches!(decision.verdict, Verdict::Keep(_) | Verdict::Settled);
    for subject in decisions.iter().filter(goes).filter_map(|decision| decision.row.subject.as_ref()) {
        if !subjects.contains(subject) {
            subjects.insert(subject.clone());
        }
    }
}

/// The rules of every policy that governs something here, once each.
fn rules_of(sites: &[Site]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for governed in sites.iter().flat_map(|site| &site.model.collections).filter_map(|found| found.governed.as_ref()) {
        if !rules.iter().any(|rule| rule.policy == governed.policy.id) {
            rules.push(PolicyRule::of(&governed.policy, &governed.statutes));
        }
    }
    rules
}

fn add_list(digest: &mut RowsDigest<'_>, store: &str, collection: &str, verdict: &str, items: &[ChunkItem]) {
    for item in items {
        digest.add(store, collection, verdict, item.reason.as_deref(), &item.row);
    }
}

/// Whether a stored plan is the one that its hash was shown for: the public part, and every row of the sealed lists with
/// its verdict.
///
/// # Errors
/// When a list does not open.
pub fn is_intact(
    plan: &PlanRow,
    body: &PlanBody,
    chunks: &[ChunkRow],
    keys: &super::batch::RunKeys,
) -> Result<bool, EraseError> {
    let mut digest = RowsDigest::new(&keys.suppression);
    for chunk in chunks {
        let items = open_items(&keys.plan, &plan.id, chunk.number, &chunk.sealed)?;
        if items.len() as i64 != chunk.rows {
            return Ok(false);
        }
        add_list(&mut digest, &chunk.store, &chunk.collection, &chunk.verdict, &items);
    }
    let hash =
        plan_hash(body).map_err(|_| EraseError::Inconsistent("the plan cannot be written as JSON".to_owned()))?;
    Ok(hash == plan.hash && digest.finish() == body.rows_digest)
}

fn salt(ground: &Ground<'_>) -> Result<String, EraseError> {
    let mut bytes = [0; 16];
    ground.random.fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Holds as the policy module matches them.
fn as_policy_holds(rows: &[HoldRow]) -> Vec<Hold> {
    rows.iter()
        .map(|row| {
            let store = row.store.clone().unwrap_or_default();
            let scope = match (row.scope.as_str(), row.subject) {
                ("subject", Some(digest)) => HoldScope::Subject(SubjectDigest(digest)),
                ("collection", _) => {
                    HoldScope::Collection { store, collection: row.collection.clone().unwrap_or_default() }
                }
                ("store", _) => HoldScope::Store(store),
                // An unknown scope holds everything: to keep too much can be mended.
                _ => HoldScope::Everything,
            };
            Hold { id: row.id.clone(), scope, expires_at: None, released_at: row.released_at }
        })
        .collect()
}

/// The holds in force, ready to be asked about many rows.
#[must_use]
pub fn active_holds(holds: &[HoldRow], at: DateTime<Utc>) -> ActiveHolds {
    ActiveHolds::at(&as_policy_holds(holds), at)
}

/// The hold that covers a row, if any. A row whose subject should be known but is not counts as anybody's.
#[must_use]
pub fn covering_hold(
    holds: &ActiveHolds,
    lookup: &Key,
    site: &Site,
    collection: &str,
    subject: Option<&Subject>,
) -> Option<String> {
    let digest = subject.map(|subject| [SubjectDigest(subject_lookup(lookup, subject))]);
    let has_owner = site.model.collection(collection).is_some_and(|(_, found)| found.owner.is_some());
    let owners = match &digest {
        Some(digest) => Owners::Known(digest),
        None if has_owner => Owners::Unknown,
        None => Owners::Known(&[]),
    };
    holds.on_row(&site.model.spec.name, collection, owners).map(str::to_owned)
}

/// What a request which waited takes when it goes on by itself.
struct Known {
    /// The rows that stayed then, by keyed digest, hex.
    rows: HashSet<String>,
    /// Those of them that were stripped: they are the same rows as long as they are blank.
    stripped: HashSet<String>,
    /// Stores into which no run of the request looked: it takes what there is.
    unread: Vec<String>,
}

/// Reads it, and what the request waits for, as it is stored.
async fn known_rows(tx: &mut Tx, made_for: PlanUse) -> Result<(Option<Known>, Option<String>), EraseError> {
    let Some(number) = made_for.request() else { return Ok((None, None)) };
    let Some(request) = tx.request(number).await? else { return Ok((None, None)) };
    let waits = Waits::of(request.waits.as_deref());
    let Some(rows) = waits.rows else { return Ok((None, request.waits)) };
    let macs: Vec<[u8; 16]> =
        rows.iter().filter_map(|row| hex::decode(row).ok()).filter_map(|bytes| bytes.try_into().ok()).collect();
    let known = Known {
        stripped: tx.stripped_among(&macs).await?.into_iter().map(hex::encode).collect(),
        rows: rows.into_iter().collect(),
        unread: waits.unread,
    };
    Ok((Some(known), request.waits))
}

/// What is planned, and at which cutoff.
struct Asked<'a> {
    target: &'a Target,
    cutoff: DateTime<Utc>,
    /// The only rows that may go, when they are fixed already.
    known: Option<&'a Known>,
    /// The policies that were edited, for retention.
    editions: Option<&'a Editions>,
    telling: Telling<'a>,
}

impl Asked<'_> {
    /// Rows that came after the request stay, whatever else would be said of them; so do stripped ones that were filled again.
    async fn keep_later(
        &self,
        view: &mut dyn Snapshot,
        site: &Site,
        candidates: &mut [Candidate],
    ) -> Result<(), EraseError> {
        let Some(known) = self.known else { return Ok(()) };
        if known.unread.contains(&site.model.spec.name) {
            return Ok(());
        }
        let mut stripped: HashMap<usize, Vec<RowKey>> = HashMap::new();
        for candidate in candidates.iter_mut() {
            let Some(collection) = site.model.collections.get(candidate.collection) else { continue };
            let mac =
                row_mac(self.telling.suppression, &site.model.spec.name, &collection.table.name, &candidate.row.key);
            let mac = hex::encode(mac);
            if known.stripped.contains(&mac) {
                stripped.entry(candidate.collection).or_default().push(candidate.row.key.clone());
            } else if !known.rows.contains(&mac) {
                candidate.keep = Some(Reason::Later);
            }
        }
        let filled = filled_again(view, site, stripped).await?;
        for candidate in candidates {
            if filled.contains(&(candidate.collection, encode_values(&candidate.row.key.0))) {
                candidate.keep = Some(Reason::Later);
            }
        }
        Ok(())
    }
}

/// Nothing of a store is planned whose large tables would be read from end to end for want of an index.
async fn refuse_scans(site: &Site, target: &Target) -> Result<(), EraseError> {
    let most_rows = site.model.spec.budget.scan_rows;
    let facts = site.store.table_facts(&tables_of(&site.model), most_rows).await?;
    let looking = match target {
        Target::Retention => Looking::Retention,
        Target::Request(_) => Looking::Subject,
    };
    let found = scans(&site.model, &facts, (site.store.engine(), most_rows), looking);
    if found.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = found.iter().map(|scan| format!("{} ({})", scan.what(), scan.remedy())).collect();
    Err(StoreError::Refused { store: site.model.spec.name.clone(), what: each.join("; ") }.into())
}

async fn plan_site(
    site: &Site,
    (holds, left): (&[HoldRow], &LeftRows),
    lookup: &Key,
    asked: &Asked<'_>,
    kind: PlanKind,
) -> Result<(Vec<Decision>, Vec<CollectionCounts>), EraseError> {
    let (target, cutoff) = (asked.target, asked.cutoff);
    refuse_scans(site, target).await?;
    let holds = active_holds(holds, cutoff);
    let held_by =
        |subject: Option<&Subject>, collection: &str| covering_hold(&holds, lookup, site, collection, subject);
    let surveyor = Surveyor { model: &site.model, engine: site.store.engine(), cutoff, held_by: &held_by };
    let mut view = site.store.open_snapshot().await?;
    let mut survey = surveyor.run(view.as_mut(), target).await?;
    asked.keep_later(view.as_mut(), site, &mut survey.candidates).await?;
    mark_settled(view.as_mut(), site, &mut survey.candidates, left, asked.telling).await?;
    let mut counts = survey.counts;
    let editions = asked.editions.filter(|editions| editions.concern(site, cutoff));
    let mut again = editions.map(|editions| (editions, survey.candidates.clone()));
    let mut rows = survey.candidates;
    let decisions = loop {
        let known = (left, asked.telling);
        let mut decisions = decide_in_crowds(view.as_mut(), site, rows, &survey.references, known).await?;
        if kind == PlanKind::Retention || asked.known.is_some() {
            keep_stripped(view.as_mut(), site, &mut decisions).await?;
        }
        // Once more, without what stays because its policy was edited.
        let Some((editions, mut all)) = again.take() else { break decisions };
        if !editions.hold_back(site, (&mut all, &decisions), lookup, cutoff) {
            break decisions;
        }
        rows = all;
    };
    view.close().await?;
    count(&decisions, &mut counts);
    Ok((decisions, counts))
}

fn count(decisions: &[Decision], counts: &mut [CollectionCounts]) {
    for decision in decisions.iter().filter(|decision| decision.verdict != Verdict::Settled) {
        let Some(counts) = counts.get_mut(decision.collection) else { continue };
        counts.due += 1;
        match &decision.verdict {
            Verdict::Settled => {}
            Verdict::Erase => counts.erase += 1,
            Verdict::Anonymise => counts.anonymise += 1,
            Verdict::Strip(_) => counts.strip += 1,
            Verdict::Keep(reason) => {
                let code = reason.code();
                match counts.keep.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, count)) => *count += 1,
                    None => counts.keep.push((code, 1)),
                }
            }
        }
    }
}

/// Rows of one collection with one verdict, to be done together.
struct PlannedList {
    store: String,
    collection: String,
    verdict: &'static str,
    /// Lists of a site with the same number are one transaction.
    knot: Option<usize>,
    items: Vec<ChunkItem>,
}

/// The lists of a site, in the order in which they are to be done.
fn lists_of(site: &Site, decisions: &[Decision]) -> Vec<PlannedList> {
    let model = &site.model;
    let is_knotted = |decision: &Decision| {
        let collection = model.collections.get(decision.collection);
        decision.verdict == Verdict::Erase && collection.is_some_and(|collection| collection.is_knotted)
    };
    let group_of = |decision: &Decision| model.collections.get(decision.collection).map(|found| found.group);
    let mut lists: Vec<(usize, PlannedList)> = Vec::new();
    let mut knots = 0;
    for group in decisions.chunk_by(|one, next| group_of(one) == group_of(next)) {
        let (tied, free): (Vec<&Decision>, Vec<&Decision>) = group.iter().partition(|decision| is_knotted(decision));
        for decision in free {
            add_to_lists(&mut lists, model, decision, None);
        }
        let mut rows = 0;
        for circle in tied.chunk_by(|one, next| one.component == next.component) {
            if rows > 0 && rows + circle.len() > KNOT_ROWS {
                (rows, knots) = (0, knots + 1);
            }
            rows += circle.len();
            for decision in circle {
                add_to_lists(&mut lists, model, decision, Some(knots));
            }
        }
        knots += 1;
    }
    lists.into_iter().map(|(_, list)| list).collect()
}

/// Adds a row to the list of its collection, verdict and knot, or begins a new one when there is none with room.
fn add_to_lists(lists: &mut Vec<(usize, PlannedList)>, model: &Model, decision: &Decision, knot: Option<usize>) {
    let (verdict, reason) = match &decision.verdict {
        Verdict::Erase => ("erase", None),
        Verdict::Anonymise => ("anonymise", None),
        Verdict::Settled => ("settled", Some("anonymised".to_owned())),
        Verdict::Strip(reason) => ("strip", Some(reason.code())),
        Verdict::Keep(reason) => ("keep", Some(reason.code())),
    };
    let item = ChunkItem { row: decision.row.clone(), reason };
    let fits = |(collection, list): &&mut (usize, PlannedList)| {
        let has_room = knot.is_some() || list.items.len() < CHUNK_ROWS;
        *collection == decision.collection && list.verdict == verdict && list.knot == knot && has_room
    };
    if let Some((_, list)) = lists.iter_mut().rev().find(fits) {
        list.items.push(item);
        return;
    }
    let collection = model.collections.get(decision.collection).map(|found| found.table.name.clone());
    let (store, collection) = (model.spec.name.clone(), collection.unwrap_or_default());
    lists.push((decision.collection, PlannedList { store, collection, verdict, knot, items: vec![item] }));
}

async fn store_plan(
    ground: &Ground<'_>,
    body: PlanBody,
    (made_for, waits): (PlanUse, Option<String>),
    lists: Vec<PlannedList>,
) -> Result<StoredPlan, EraseError> {
    let now = ground.clock.now();
    let hash =
        plan_hash(&body).map_err(|_| EraseError::Inconsistent("the plan cannot be written as JSON".to_owned()))?;
    let text = serde_json::to_string(&body)
        .map_err(|_| EraseError::Inconsistent("the plan cannot be written as JSON".to_owned()))?;
    let mut row = PlanRow {
        id: uuid7(now, ground.random)?,
        hash,
        kind: made_for.kind().to_owned(),
        request: made_for.request(),
        cutoff: body.cutoff,
        created_at: now,
        body: text,
        state: "planned".to_owned(),
    };
    let mut tx = ground.control.begin().await?;
    if let Some(number) = row.request
        && tx.request(number).await?.and_then(|request| request.waits) != waits
    {
        return Err(EraseError::Refused {
            what: format!("request {number} was asked again while it was planned"),
            advice: "run it again".to_owned(),
        });
    }
    let key = ground.keyring.work_key(&mut tx, Purpose::Plan, &row.id).await?;
    let mut chunks = Vec::new();
    // Numbers of knots are those of their first chunks, so that those of different stores differ.
    let mut knots: HashMap<(String, usize), i64> = HashMap::new();
    // A chunk's number is the place of its first row, so that a chunk can be cut into pieces without moving the others.
    let mut next = 0;
    for list in lists {
        let number = next;
        next += list.items.len() as i64;
        let sealed = seal_items(&key, &row.id, number, &list.items, ground.random)?;
        let knot = list.knot.map(|knot| *knots.entry((list.store.clone(), knot)).or_insert(number));
        chunks.push(ChunkRow {
            number,
            store: list.store,
            collection: list.collection,
            verdict: list.verdict.to_owned(),
            knot,
            rows: list.items.len() as i64,
            sealed,
            state: "planned".to_owned(),
            counts: ChunkCounts::default(),
        });
    }
    // Of several plans for the same use only the newest can still be meant; what the others list is forgotten.
    tx.void_plans(&row.kind, row.request).await?;
    tx.add_plan(&row, &chunks).await?;
    if made_for == PlanUse::Look {
        tx.set_plan_state(&row.id, "void").await?;
        "void".clone_into(&mut row.state);
    }
    tx.commit().await?;
    Ok(StoredPlan { row, body })
}
