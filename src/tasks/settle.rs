//! `settle`: the physical stage of an erasure, behind the deletion and again until nothing that passes by itself is left.
//!
//! Rows that are deleted stay in the files of a store for a while: for a reader, for an old transaction, until a purge. A run keeps what
//! its stores said of it; whoever asks again later writes the answer into the run, and the next certificate supersedes the one before.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::control::RunRow;
use crate::erase::throttle::behind;
use crate::erase::{Ground, Site};
use crate::installation::Installation;
use crate::policy::calendar::{Bias, Period, end_of_period};
use crate::stores::{Engine, FileSearch, PhysicalStage, PhysicalState, Residue, ResidueCode, Settling};

use super::certify::{FINAL, SHREDDED, certify_or_wait};
use super::erasure::{RunBody, StoreFiles};
use super::finality::finalise_or_wait;
use super::{Result, TaskError};

/// What became of the files of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledStore {
    /// The store.
    pub store: String,
    /// How far it got.
    pub stage: PhysicalStage,
    /// What is left.
    pub residues: Vec<Residue>,
    /// The runs of which that was noted.
    pub runs: Vec<String>,
}

/// Whether the files of a run's stores are still asked for its rows.
#[must_use]
pub fn is_settling(run: &RunRow) -> bool {
    matches!(run.state.as_str(), "shred-pending" | SHREDDED | FINAL)
}

/// By when what passes by itself should have passed; none beyond the end of the calendar.
#[must_use]
pub fn settle_by(since: DateTime<Utc>, within: Period) -> Option<DateTime<Utc>> {
    end_of_period(since, within, chrono_tz::Tz::UTC, Bias::Minimum).ok()
}

/// Asks the stores of a plan whose rows are gone, for the first time. A store that cannot answer is asked again later.
pub(super) async fn settle_after(ground: &Ground<'_>, plan: &str) -> Result<Vec<StoreFiles>> {
    let mut files = Vec::new();
    for (store, tables) in touched(ground.control.read().await?.chunks(plan).await?) {
        let now = ground.clock.now();
        let before = StoreFiles {
            store,
            since: now,
            asked_at: now,
            residues: Vec::new(),
            passed_at: None,
            mark: None,
            is_rewritten: false,
            replicas_shown: Vec::new(),
            searched: None,
        };
        let site = ground.sites.iter().find(|site| site.model.spec.name == before.store);
        files.push(ask(site, &before, &tables, ground.clock).await);
    }
    Ok(files)
}

/// Tables that rows went from or were changed in, by store.
fn touched(chunks: Vec<crate::control::ChunkRow>) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for chunk in chunks.into_iter().filter(|chunk| chunk.counts.gone() > 0) {
        tables.entry(chunk.store).or_default().insert(chunk.collection);
    }
    tables.into_iter().map(|(store, tables)| (store, tables.into_iter().collect())).collect()
}

/// One store's answer for the rows of one run.
async fn ask(site: Option<&Site>, before: &StoreFiles, tables: &[String], clock: &dyn Clock) -> StoreFiles {
    let state = match site {
        Some(site) => {
            let asked = Settling {
                tables,
                mark: before.mark.as_deref(),
                is_rewritten: before.is_rewritten,
                vacuum_bytes: vacuum_bytes(site),
                ..Settling::default()
            };
            match site.store.settle(&asked).await {
                Ok(state) => Ok((state, asked_replicas(site, clock).await)),
                Err(error) => Err(error.to_string()),
            }
        }
        None => Err("the store cannot be reached".to_owned()),
    };
    // Behind the clean-up, which may take long.
    let now = clock.now();
    match state {
        Ok((state, replicas)) => noted(before, replicas.beside(before, state), &replicas.shown, now),
        Err(error) => {
            tracing::warn!(store = %before.store, error, "the files of a store were not cleaned up; it is tried again");
            let mut residues = before.residues.clone();
            if !residues.iter().any(|residue| residue.code.passes()) {
                residues.push(Residue::new(ResidueCode::Unfinished));
            }
            StoreFiles { residues, asked_at: now, passed_at: None, ..before.clone() }
        }
    }
}

/// What the replicas of a store said.
#[derive(Default)]
struct Replicas {
    /// Those that show what the store did until now, and so every deletion before.
    shown: Vec<String>,
    /// The others.
    behind: Vec<String>,
}

async fn asked_replicas(site: &Site, clock: &dyn Clock) -> Replicas {
    let behind = behind(site, clock).await;
    let all = site.replicas.iter().map(|replica| replica.spec.name.clone());
    Replicas { shown: all.filter(|name| !behind.contains(name)).collect(), behind }
}

impl Replicas {
    /// Adds the replicas in which the rows of a run may still be. One that has shown the deletion does not lose it again, however far
    /// it is behind today.
    fn beside(&self, files: &StoreFiles, mut state: PhysicalState) -> PhysicalState {
        let still = self.behind.iter().filter(|name| !files.replicas_shown.contains(name));
        state.residues.extend(still.map(|name| Residue::of(ResidueCode::ReplicaBehind, name.clone())));
        state.residues.sort_unstable();
        state
    }
}

fn vacuum_bytes(site: &Site) -> u64 {
    u64::from(site.model.spec.files.vacuum_mb) << 20
}

/// An answer beside what was known: a day that was named stands, and so does a log that was on, for its files stay when it is switched off.
fn noted(before: &StoreFiles, state: PhysicalState, shown: &[String], now: DateTime<Utc>) -> StoreFiles {
    let mut residues = state.residues;
    for residue in &mut residues {
        if let Some(until) = before.residues.iter().find(|known| is_same(known, residue)).and_then(|known| known.until)
        {
            residue.until = Some(until);
        }
    }
    let is_over = |residue: &Residue| residue.until.is_some_and(|until| until < now.date_naive());
    for log in before.residues.iter().filter(|residue| residue.code.is_log() && !is_over(residue)) {
        if !residues.iter().any(|residue| is_same(residue, log)) {
            residues.push(log.clone());
        }
    }
    residues.sort_unstable();
    let is_kept = residues.iter().any(|residue| residue.code.keeps_rows());
    // Copies of the files that were made until it went hold it.
    let is_gone = |old: &Residue| old.code.is_in_tables() && !residues.iter().any(|residue| is_same(residue, old));
    let was_cleaned = before.residues.iter().any(is_gone);
    StoreFiles {
        store: before.store.clone(),
        since: before.since,
        asked_at: now,
        passed_at: (!is_kept).then(|| before.passed_at.filter(|_| !was_cleaned).unwrap_or(now)),
        residues,
        mark: before.mark.clone().or(state.mark),
        is_rewritten: state.is_rewritten,
        replicas_shown: before
            .replicas_shown
            .iter()
            .chain(shown)
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        searched: before.searched.clone(),
    }
}

fn is_same(one: &Residue, other: &Residue) -> bool {
    (one.code, &one.of) == (other.code, &other.of)
}

/// Notes in a run what a look into the raw files of a store found.
pub(super) async fn note_search(
    installation: &Installation,
    run: &str,
    store: &str,
    search: &FileSearch,
) -> Result<()> {
    let row = installation.control.read().await?.run(run).await?;
    let Some(row) = row else { return Ok(()) };
    let own = RunBody::of(&row)?.physical.into_iter().find(|files| files.store == store);
    let Some(files) = own else { return Ok(()) };
    note(installation, run, &[StoreFiles { searched: Some(search.clone()), ..files }]).await?;
    Ok(())
}

/// A run whose rows may still be in the files of a store.
struct Waiting {
    run: String,
    files: StoreFiles,
    tables: Vec<String>,
}

/// The runs whose rows may still be in files that `is_wanted`, by store. What is final is not asked about again.
async fn waiting(
    installation: &Installation,
    is_wanted: impl Fn(&StoreFiles) -> bool,
) -> Result<BTreeMap<String, Vec<Waiting>>> {
    let mut waiting: BTreeMap<String, Vec<Waiting>> = BTreeMap::new();
    let runs = installation.control.read().await?.runs(None).await?;
    for run in runs.into_iter().filter(|run| is_settling(run) && run.state != FINAL) {
        let wanted: Vec<StoreFiles> =
            RunBody::of(&run)?.physical.into_iter().filter(|files| is_wanted(files)).collect();
        if wanted.is_empty() {
            continue;
        }
        let chunks = installation.control.read().await?.chunks(run.plan.as_deref().unwrap_or_default()).await?;
        let mut tables = touched(chunks);
        for files in wanted {
            let tables = tables.remove(&files.store).unwrap_or_default();
            waiting.entry(files.store.clone()).or_default().push(Waiting { run: run.id.clone(), files, tables });
        }
    }
    Ok(waiting)
}

/// What a store says of each run by itself, and of all tables together behind their clean-up.
struct Answers {
    state: PhysicalState,
    of_runs: Vec<PhysicalState>,
    replicas: Replicas,
}

/// Cleans up a store once, for all who wait, and asks for each run by its own mark and its own tables.
async fn clean_once(
    site: &Site,
    waiting: &[Waiting],
    (tables, rewrite): (&[String], bool),
    clock: &dyn Clock,
) -> crate::stores::Result<Answers> {
    let mut answers = clean_files(site, waiting, (tables, rewrite)).await?;
    answers.replicas = asked_replicas(site, clock).await;
    for (own, run) in answers.of_runs.iter_mut().zip(waiting) {
        *own = answers.replicas.beside(&run.files, std::mem::take(own));
    }
    let behind = answers.replicas.behind.iter();
    answers.state.residues.extend(behind.map(|name| Residue::of(ResidueCode::ReplicaBehind, name.clone())));
    answers.state.residues.sort_unstable();
    Ok(answers)
}

/// The same for the store's own files.
async fn clean_files(
    site: &Site,
    waiting: &[Waiting],
    (tables, rewrite): (&[String], bool),
) -> crate::stores::Result<Answers> {
    let is_marked = site.store.engine() != Engine::Sqlite;
    let mut of_runs = Vec::new();
    if is_marked {
        // Before the clean-up: what is not kept now is not kept when it begins.
        for run in waiting {
            let asked = Settling {
                tables: &run.tables,
                mark: run.files.mark.as_deref(),
                is_rewritten: run.files.is_rewritten,
                look_only: true,
                ..Settling::default()
            };
            of_runs.push(site.store.settle(&asked).await?);
        }
    }
    // Without a mark, whoever keeps anything now counts: that is more than enough for whoever asks.
    let asked = Settling { tables, rewrite, vacuum_bytes: vacuum_bytes(site), ..Settling::default() };
    let state = site.store.settle(&asked).await?;
    if !is_marked {
        of_runs = waiting.iter().map(|_| state.clone()).collect();
        return Ok(Answers { state, of_runs, replicas: Replicas::default() });
    }
    for (own, run) in of_runs.iter_mut().zip(waiting) {
        take_over(own, &state, (&run.tables, rewrite));
    }
    Ok(Answers { state, of_runs, replicas: Replicas::default() })
}

/// What the clean-up of all tables means for a run with some of them.
fn take_over(own: &mut PhysicalState, all: &PhysicalState, (tables, rewrite): (&[String], bool)) {
    let is_kept = own.residues.iter().any(|residue| residue.code.passes() || residue.code == ResidueCode::UnseenPurge);
    let is_own = |residue: &&Residue| {
        matches!(residue.code, ResidueCode::NoRight | ResidueCode::Unfinished)
            && residue.of.as_ref().is_some_and(|of| tables.contains(of))
    };
    let stood_in_the_way: Vec<Residue> = all.residues.iter().filter(is_own).cloned().collect();
    if rewrite && !is_kept && stood_in_the_way.is_empty() {
        own.is_rewritten = true;
        own.residues.retain(|residue| residue.code != ResidueCode::PageRemains);
    }
    own.residues.extend(stood_in_the_way);
    own.residues.sort_unstable();
    own.residues.dedup();
}

/// Asks again for every run that waits for something to pass: each store is cleaned up once. Returns the runs that do not wait any more.
///
/// # Errors
/// When the control database fails. A store that cannot answer is asked again the next time.
async fn settle_due(installation: &Installation) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let stores = &installation.config.registry.stores;
    // A replica that was added since, or could not be asked the first time, is asked too.
    let is_unseen = |files: &StoreFiles| {
        let spec = stores.iter().find(|spec| spec.name == files.store);
        spec.is_some_and(|spec| spec.replicas.iter().any(|replica| !files.replicas_shown.contains(&replica.name)))
    };
    let is_wanted = |files: &StoreFiles| files.stage() == PhysicalStage::Pending || is_unseen(files);
    for (store, waiting) in waiting(installation, is_wanted).await? {
        let Some(site) = installation.sites().iter().find(|site| site.model.spec.name == store) else {
            tracing::warn!(store, "the files of a store were not cleaned up: it cannot be reached; it is tried again");
            continue;
        };
        let tables: BTreeSet<String> = waiting.iter().flat_map(|run| run.tables.clone()).collect();
        let tables: Vec<String> = tables.into_iter().collect();
        let answers = match clean_once(site, &waiting, (&tables, false), installation.clock.as_ref()).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(store, error = %error, "the files of a store were not cleaned up; it is tried again");
                continue;
            }
        };
        let now = installation.clock.now();
        for (run, state) in waiting.iter().zip(answers.of_runs) {
            if note(installation, &run.run, &[noted(&run.files, state, &answers.replicas.shown, now)]).await? {
                done.push(run.run.clone());
            }
        }
    }
    Ok(done)
}

/// What was done behind a shred.
#[derive(Debug, Default)]
pub struct FollowUp {
    /// The certificates that were issued.
    pub certificates: Vec<String>,
    /// Why some wait, if they do.
    pub waiting: Option<String>,
    /// The runs that became final.
    pub ended: Vec<String>,
    /// The runs that wait for nothing in the files of their stores any more.
    pub settled: Vec<String>,
    /// Why nobody knows whether runs are final, if so.
    pub doubt: Option<String>,
}

/// Certifies and finalises what it can, and only then asks for the files of stores, for cleaning up may take long.
///
/// # Errors
/// When the control database fails, or something cannot be certified for a reason that does not pass.
pub async fn follow_up(installation: &Installation) -> Result<FollowUp> {
    let (mut certificates, mut waiting) = certify_or_wait(installation).await?;
    let (ended, doubt) = finalise_or_wait(installation).await?;
    if !ended.is_empty() {
        let (more, still) = certify_or_wait(installation).await?;
        certificates.extend(more);
        waiting = still;
    }
    let settled = settle_due(installation).await?;
    if !settled.is_empty() {
        let (more, still) = certify_or_wait(installation).await?;
        certificates.extend(more);
        waiting = still;
    }
    Ok(FollowUp { certificates, waiting, ended, settled, doubt })
}

/// Writes answers into a run, unless it is undone meanwhile. Whether it waits for nothing any more.
async fn note(installation: &Installation, run: &str, answers: &[StoreFiles]) -> Result<bool> {
    let mut tx = installation.control.begin().await?;
    let Some(mut run) = tx.run(run).await?.filter(is_settling) else { return Ok(false) };
    let mut body = RunBody::of(&run)?;
    for answer in answers {
        for known in body.physical.iter_mut().filter(|known| known.store == answer.store) {
            known.clone_from(answer);
        }
    }
    body.put(&mut run)?;
    let state = run.state.clone();
    if !tx.step_run(&run, &state).await? {
        return Err(TaskError::Inconsistent(format!("run {} changed while its stores were asked", run.id)));
    }
    tx.commit().await?;
    Ok(!body.is_residue_pending())
}

/// What an answer says of the rows of a run. While something keeps them, or nobody sees whether it does, all of it. Once nothing was seen
/// to keep them, nothing begins to: a lock, a missing right or a reader of today stands in the way of today's clean-up only, unless that
/// took something out of a SQLite file whose older pages the reader still has.
fn weighed(known: &StoreFiles, mut state: PhysicalState) -> PhysicalState {
    if known.residues.iter().any(|residue| residue.code.keeps_rows()) {
        return state;
    }
    let has_remains = |residues: &[Residue]| residues.iter().any(|residue| residue.code == ResidueCode::PageRemains);
    let is_taken_out = has_remains(&known.residues) && !has_remains(&state.residues);
    state
        .residues
        .retain(|residue| !residue.code.keeps_rows() || (residue.code == ResidueCode::OpenReader && is_taken_out));
    state
}

/// Cleans up the files of one store on somebody's word, with `rewrite` by writing tables anew: those of the runs whose rows may still be in
/// them, or all that are registered. A run gets its own answer, as far as it is about its rows; a final one gets none.
///
/// # Errors
/// When the store is not registered, cannot be reached or refuses.
pub async fn settle_store(installation: &Installation, name: &str, rewrite: bool) -> Result<SettledStore> {
    let site = installation.sites().iter().find(|site| site.model.spec.name == name);
    let site = site.ok_or_else(|| TaskError::Unknown {
        what: format!("store {name} cannot be worked on"),
        advice: "see `wangchuan store list` and `wangchuan store check`".to_owned(),
    })?;
    let is_wanted = |files: &StoreFiles| files.store == name && files.stage() != PhysicalStage::Settled;
    let waiting = waiting(installation, is_wanted).await?.remove(name).unwrap_or_default();
    let mut tables: BTreeSet<String> = waiting.iter().flat_map(|run| run.tables.clone()).collect();
    if tables.is_empty() {
        tables.extend(site.model.spec.collections.iter().map(|collection| collection.table.clone()));
    }
    installation.log_operation("store.settle", name, "intent").await?;
    let tables: Vec<String> = tables.into_iter().collect();
    let Answers { state, of_runs, replicas } =
        match clean_once(site, &waiting, (&tables, rewrite), installation.clock.as_ref()).await {
            Ok(answers) => answers,
            Err(error) => {
                installation.log_operation("store.settle", name, "failure").await?;
                return Err(crate::erase::EraseError::from(error).into());
            }
        };
    let now = installation.clock.now();
    let mut runs = Vec::new();
    for (run, state) in waiting.into_iter().zip(of_runs) {
        note(installation, &run.run, &[noted(&run.files, weighed(&run.files, state), &replicas.shown, now)]).await?;
        runs.push(run.run);
    }
    installation.log_operation("store.settle", name, "success").await?;
    Ok(SettledStore { store: name.to_owned(), stage: state.stage(), residues: state.residues, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(residues: &[Residue]) -> PhysicalState {
        PhysicalState { residues: residues.to_vec(), ..PhysicalState::default() }
    }

    fn known(residues: &[Residue]) -> StoreFiles {
        let at = DateTime::UNIX_EPOCH;
        let before = StoreFiles {
            store: "shop".to_owned(),
            since: at,
            asked_at: at,
            residues: Vec::new(),
            passed_at: None,
            mark: None,
            is_rewritten: false,
            replicas_shown: Vec::new(),
            searched: None,
        };
        noted(&before, state(residues), &[], at)
    }

    #[test]
    fn a_run_is_told_of_its_own_tables_only() {
        let (remains, log) = (Residue::new(ResidueCode::PageRemains), Residue::new(ResidueCode::TransactionLog));
        let locked = Residue::of(ResidueCode::Unfinished, "orders");
        let all = state(&[locked.clone(), remains.clone()]);
        let (customers, orders) = (["customers".to_owned()], ["orders".to_owned()]);
        let mut own = state(&[remains.clone(), log.clone()]);
        take_over(&mut own, &all, (&customers, true));
        assert_eq!((own.residues, own.is_rewritten), (vec![log.clone()], true));
        let mut own = state(&[remains.clone(), log.clone()]);
        take_over(&mut own, &all, (&orders, true));
        assert_eq!((own.residues, own.is_rewritten), (vec![locked, remains.clone(), log.clone()], false));
        // What was kept for somebody is kept in the new table as well.
        let reader = Residue::of(ResidueCode::OldTransaction, "7");
        let mut own = state(&[reader.clone(), remains.clone()]);
        take_over(&mut own, &all, (&customers, true));
        assert_eq!((own.residues, own.is_rewritten), (vec![reader, remains], false));
    }

    #[test]
    fn an_answer_counts_as_far_as_it_is_about_the_rows_of_the_run() {
        let (remains, log) = (Residue::new(ResidueCode::PageRemains), Residue::new(ResidueCode::TransactionLog));
        let (locked, reader) =
            (Residue::of(ResidueCode::Unfinished, "orders"), Residue::of(ResidueCode::OldTransaction, "7"));
        let (unseen, archive) = (Residue::new(ResidueCode::UnseenSessions), Residue::new(ResidueCode::LogArchive));
        let said = |before: &[Residue], answer: &[Residue]| weighed(&known(before), state(answer)).residues;
        let before = [remains.clone(), log.clone()];
        assert_eq!(said(&before, std::slice::from_ref(&log)), std::slice::from_ref(&log));
        // The rows were cleaned out: what stands in the way today is not about them, what is new otherwise is.
        assert_eq!(
            said(&before, &[locked.clone(), unseen.clone(), archive.clone(), log.clone()]),
            [archive, log.clone()]
        );
        // Whoever did not see what keeps rows is told once he does.
        assert_eq!(said(&[unseen, log.clone()], &[reader.clone(), log.clone()]), [reader, log]);
        // A SQLite file that was written anew behind a reader: the older pages are in place until it ends.
        let open = Residue::new(ResidueCode::OpenReader);
        let remains = std::slice::from_ref(&remains);
        assert_eq!(said(remains, std::slice::from_ref(&open)), std::slice::from_ref(&open));
        assert_eq!(said(remains, &[open.clone(), remains[0].clone()]), remains);
        assert_eq!(said(std::slice::from_ref(&locked), std::slice::from_ref(&open)), [open]);
    }

    #[test]
    fn a_log_that_was_on_is_told_of_until_its_day() {
        let (log, statements) = (Residue::new(ResidueCode::TransactionLog), Residue::new(ResidueCode::StatementLog));
        let day = DateTime::UNIX_EPOCH.date_naive() + chrono::TimeDelta::days(10);
        let binary = Residue { until: Some(day), ..Residue::new(ResidueCode::BinaryLog) };
        let before = known(&[log.clone(), binary.clone(), statements.clone()]);
        let left = |days| {
            let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(days);
            noted(&before, state(std::slice::from_ref(&log)), &[], at).residues
        };
        assert_eq!(left(10), [log.clone(), binary, statements.clone()]);
        assert_eq!(left(11), [log.clone(), statements]);
    }

    #[test]
    fn the_time_from_which_copies_are_clean_follows_what_was_cleaned_out() {
        let at = |days| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(days);
        let pending = known(&[Residue::new(ResidueCode::OpenReader)]);
        assert_eq!(pending.passed_at, None);
        let log = Residue::new(ResidueCode::TransactionLog);
        let remains = [Residue::new(ResidueCode::PageRemains), log.clone()];
        let passed = noted(&pending, state(&remains), &[], at(60));
        assert_eq!(passed.passed_at, Some(at(60)));
        let again = noted(&passed, state(&remains), &[], at(70));
        assert_eq!(again.passed_at, Some(at(60)), "nothing happened");
        // Copies of the files that were made until the tables were written anew hold what was removed by that.
        let rewritten = noted(&again, state(std::slice::from_ref(&log)), &[], at(80));
        assert_eq!(rewritten.passed_at, Some(at(80)));
        assert_eq!(noted(&rewritten, state(&[]), &[], at(90)).passed_at, Some(at(80)));
        // While nobody sees whether something keeps the rows, there is no such time.
        let unseen = noted(&pending, state(&[Residue::new(ResidueCode::UnseenSessions)]), &[], at(60));
        assert_eq!((unseen.passed_at, unseen.copied_until()), (None, at(60)));
        let unseen = StoreFiles { passed_at: Some(at(10)), ..unseen };
        assert_eq!(unseen.copied_until(), at(60), "a time that an earlier version noted");
        assert_eq!(noted(&unseen, state(&[]), &[], at(90)).passed_at, Some(at(90)));
    }

    #[test]
    fn a_replica_counts_once_it_has_shown_the_deletion_and_not_before() {
        let behind = Replicas { shown: Vec::new(), behind: vec!["r1".to_owned()] };
        // Nobody asked it the first time, for the store itself could not answer.
        let never = known(&[Residue::new(ResidueCode::Unfinished)]);
        let waits = behind.beside(&never, state(&[]));
        assert_eq!(waits.residues, [Residue::of(ResidueCode::ReplicaBehind, "r1".to_owned())]);
        let at = DateTime::UNIX_EPOCH;
        assert_eq!(noted(&never, waits, &[], at).replicas_shown, Vec::<String>::new());
        let shown = noted(&never, state(&[]), &["r1".to_owned()], at);
        assert_eq!((&shown.replicas_shown[..], shown.residues.len()), (&["r1".to_owned()][..], 0));
        // Behind again, with what came since.
        let later = noted(&shown, behind.beside(&shown, state(&[])), &[], at);
        assert_eq!((&later.replicas_shown[..], later.residues.len()), (&["r1".to_owned()][..], 0));
    }
}
