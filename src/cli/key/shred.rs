//! `key shred`: destroys what is due, with the next group or now, and says of the rest why and until when it waits.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, Output, UserError, Words};
use super::words::waiting_line;
use crate::control::time_text;
use crate::installation::{Installation, Needs};
use crate::tasks;
use crate::tasks::certify::certify_or_wait;
use crate::tasks::outside::{OutsideReport, Waiting, destroy_outside_keys};
use crate::tasks::settle::{FollowUp, follow_up};
use crate::tasks::shred::{ShredReport, WaitCode, WaitingRun, next_group_commit, shred_due, waiting_runs};

/// What `key shred --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyShredDocument {
    /// `complete`, `nothing-found`, or `partial` while rows of some run still open.
    result: Outcome,
    /// `KEY_SHRED_PENDING` while rows of some run still open.
    code: Option<&'static str>,
    /// The new generation, when keys were destroyed.
    generation: Option<i64>,
    /// Keys destroyed.
    keys_destroyed: u64,
    /// Cells of rows that stay, which survive under pins.
    cells_preserved: u64,
    /// Runs whose rows no key opens any more.
    shredded_runs: Vec<String>,
    /// Runs that became final: the date of every copy that is known is past.
    final_runs: Vec<String>,
    /// Runs whose rows still open, and those whose keys are destroyed, but irrevocably only at a date (`irrevocable`).
    waiting: Vec<WaitingRun>,
    /// Generations whose destruction somebody had called off; it was begun again (exit code 4).
    called_off_generations: Vec<i64>,
    /// Generations whose roots were read back as gone now, at or after their date.
    gone_generations: Vec<i64>,
    /// Outside keys that were destroyed and read back as gone, by id.
    outside_keys_destroyed: Vec<String>,
    /// Outside keys whose time is over, or that cannot be looked after, and why they wait.
    outside_keys_waiting: Vec<OutsideWaitEntry>,
    /// The certificates issued now.
    certificates: Vec<String>,
}

/// An outside key that waits.
#[derive(Debug, Serialize, JsonSchema)]
struct OutsideWaitEntry {
    /// The id of its registration.
    id: String,
    /// The entry of the configuration.
    name: String,
    #[serde(flatten)]
    waiting: Waiting,
}

impl Document for KeyShredDocument {
    const OF: &'static [&'static str] = &["key shred"];
}

impl KeyShredDocument {
    fn of(report: ShredReport, final_runs: Vec<String>, certificates: Vec<String>) -> Self {
        let readable = report.pending.into_iter().map(|(run, rows, until)| WaitingRun {
            run,
            code: WaitCode::BucketNotDue,
            what: format!("{rows} rows share keys with rows that stay"),
            until: Some(until),
        });
        let waiting: Vec<WaitingRun> = report.details.into_iter().chain(readable).collect();
        Self {
            generation: report.generation,
            keys_destroyed: report.keys,
            cells_preserved: report.pinned,
            shredded_runs: report.shredded,
            final_runs,
            called_off_generations: report.doomed.called_off.iter().map(|(generation, _)| *generation).collect(),
            gone_generations: report.doomed.gone,
            certificates,
            ..Self::waiting(waiting)
        }
        .with_result()
    }

    fn waiting(waiting: Vec<WaitingRun>) -> Self {
        let (result, code, generation) = (Outcome::NothingFound, None, None);
        Self {
            result,
            code,
            generation,
            keys_destroyed: 0,
            cells_preserved: 0,
            shredded_runs: Vec::new(),
            final_runs: Vec::new(),
            waiting,
            called_off_generations: Vec::new(),
            gone_generations: Vec::new(),
            outside_keys_destroyed: Vec::new(),
            outside_keys_waiting: Vec::new(),
            certificates: Vec::new(),
        }
        .with_result()
    }

    fn with_outside(mut self, report: OutsideReport, certificates: Vec<String>) -> Self {
        self.outside_keys_destroyed = report.destroyed;
        let entry = |(id, name, waiting)| OutsideWaitEntry { id, name, waiting };
        self.outside_keys_waiting = report.waiting.into_iter().map(entry).collect();
        self.certificates.extend(certificates);
        self.with_result()
    }

    fn with_result(mut self) -> Self {
        self.code = (!self.waiting.is_empty()).then_some("KEY_SHRED_PENDING");
        let nothing = self.shredded_runs.is_empty()
            && self.final_runs.is_empty()
            && self.generation.is_none()
            && self.outside_keys_destroyed.is_empty();
        self.result = match (self.waiting.is_empty() && self.outside_keys_waiting.is_empty(), nothing) {
            (false, _) => Outcome::Partial,
            (true, true) => Outcome::NothingFound,
            (true, false) => Outcome::Complete,
        };
        self
    }
}

/// `key shred`.
pub async fn shred(context: &mut Context<'_>, now: bool) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::ALL).await?;
    let document = run(&installation, now).await.map_err(task_error)?;
    show(context.output, &document)?;
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(if document.called_off_generations.is_empty() { Exit::Done } else { Exit::Partial })
}

async fn run(installation: &Installation, now: bool) -> tasks::Result<KeyShredDocument> {
    let outside = destroy_outside_keys(installation).await?;
    if let Some(waiting) = if now { None } else { group(installation).await? } {
        let (certificates, _) = certify_or_wait(installation).await?;
        return Ok(KeyShredDocument::waiting(waiting).with_outside(outside, certificates));
    }
    let report = shred_due(installation).await?;
    let FollowUp { certificates, waiting, ended, doubt, .. } = follow_up(installation).await?;
    for reason in waiting.into_iter().chain(doubt) {
        tracing::warn!("{reason}");
    }
    Ok(KeyShredDocument::of(report, ended, certificates).with_outside(outside, Vec::new()))
}

/// The runs that wait, those that nothing else holds up for the next group commit; `None` when it may come now.
async fn group(installation: &Installation) -> tasks::Result<Option<Vec<WaitingRun>>> {
    installation.may_destroy().await?;
    let mut tx = installation.control.read().await?;
    let next = next_group_commit(&mut tx, installation.clock.now()).await?;
    drop(tx);
    let Some(next) = next else { return Ok(None) };
    let mut waiting = waiting_runs(installation).await?;
    for run in waiting.iter_mut().filter(|run| run.code == WaitCode::Nothing) {
        run.code = WaitCode::GroupCommit;
        run.until = Some(time_text(next));
        "keys die together, once an hour; `--now` does not wait for that".clone_into(&mut run.what);
    }
    Ok(Some(waiting))
}

fn show(output: &mut Output, document: &KeyShredDocument) -> Result<(), UserError> {
    let KeyShredDocument { generation, keys_destroyed: keys, cells_preserved: cells, .. } = document;
    if let Some(generation) = generation {
        output.say(&Words::new(
            format!(
                "{keys} keys destroyed with generation {generation}; {cells} cells of rows that stay are preserved"
            ),
            format!("第 {generation} 代已销毁 {keys} 个密钥；{cells} 个仍需保留的单元继续可用"),
        ))?;
    } else {
        output.say(&Words::new("no key was destroyed", "没有销毁任何密钥"))?;
    }
    for (runs, state) in [(&document.shredded_runs, "shredded"), (&document.final_runs, "final")] {
        let stage = super::super::stage::meaning(state, None);
        for run in runs {
            output.say(&Words::new(format!("run {run}: {}", stage.en), format!("运行 {run}：{}", stage.zh)))?;
        }
    }
    for generation in &document.called_off_generations {
        output.say(&Words::new(
            format!(
                "✗ somebody had called off the destruction of the root of generation {generation}; it was begun again"
            ),
            format!("✗ 有人撤回了第 {generation} 代根密钥的销毁；已重新安排"),
        ))?;
    }
    for generation in &document.gone_generations {
        output.say(&Words::new(
            format!("the root of generation {generation} was read back as gone"),
            format!("第 {generation} 代根密钥经复查已不存在"),
        ))?;
    }
    for waiting in &document.waiting {
        output.say(&waiting_line(waiting))?;
    }
    for id in &document.outside_keys_destroyed {
        output.say(&Words::new(
            format!("outside key {id}: destroyed, and read back as gone"),
            format!("外部密钥 {id}：已销毁，并已核实不存在"),
        ))?;
    }
    for OutsideWaitEntry { id, name, waiting } in &document.outside_keys_waiting {
        output.say(&super::outside::waiting_line(id, name, waiting))?;
    }
    for certificate in &document.certificates {
        output.line(&format!("  {certificate}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shred_is_complete_only_when_nothing_waits() {
        let run = |code| WaitingRun { run: "r".to_owned(), code, what: String::new(), until: None };
        let done = ShredReport { generation: Some(2), shredded: vec!["r".to_owned()], ..ShredReport::default() };
        let result = |report: ShredReport| KeyShredDocument::of(report, Vec::new(), Vec::new()).result;
        assert_eq!(result(done.clone()), Outcome::Complete);
        assert_eq!(result(ShredReport::default()), Outcome::NothingFound);
        assert_eq!(result(ShredReport { details: vec![run(WaitCode::Hold)], ..done.clone() }), Outcome::Partial);
        assert_eq!(
            result(ShredReport { pending: vec![("q".to_owned(), 3, "2027-01-01".to_owned())], ..done }),
            Outcome::Partial
        );
    }
}
