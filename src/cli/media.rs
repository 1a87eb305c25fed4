//! `media`: storage media with copies of data, and their end.

mod lost;
mod waiting;

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, TimeZone as _, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use schemars::JsonSchema;
use serde::Serialize;

use lost::LossEntry;
pub use lost::LostDocument;
pub use waiting::WaitingMediumEntry;

use super::CommandResult;
use super::context::{Context, certify_now, local_time, task_error, usage};
use super::output::shapes::Time;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use crate::control::{CertificateRow, MediaRow};
use crate::installation::Needs;
use crate::policy::media::{Checked, MediumKind, Method, Technique};
use crate::tasks::TaskError;
use crate::tasks::media::{
    Destruction, MediaBody, Medium, Report, WaitingMedium, chains_of, evidence_digest, find, record_destroyed,
    waiting_media,
};

/// Storage media with copies of data.
#[derive(Debug, clap::Subcommand)]
pub enum MediaCommand {
    /// Record that a medium was destroyed, with a certificate; declared copies that lay on it count as gone from then on.
    #[command(
        override_usage = "wangchuan media record --kind <KIND> [OPTIONS]",
        after_help = "Examples:
  wangchuan media record --kind tape --asset LTO-0042 --copy shop/dump --method destroy --technique shred --when 2026-11-20 \\
      --by li.wei --witness wang.fang --witness chen.jie --checked inspection --evidence shredded.jpg
  wangchuan media record --kind solid-state --serial S4EV-1029 --store shop --method purge --technique block-erase \\
      --when 2026-11-20T09:30:00Z --by li.wei --witness wang.fang --witness chen.jie --checked full-read"
    )]
    Record(Box<RecordArgs>),
    /// Report that a medium was lost or stolen: what on it opens, and with what; with --shred the keys that open it die.
    #[command(
        override_usage = "wangchuan media lost --kind <KIND> [OPTIONS]",
        after_help = "Examples:
  wangchuan media lost --kind hard-disk --asset D-17 --backups-of shop --when 2026-11-20 --by li.wei
  wangchuan media lost --kind hard-disk --asset D-17 --backups-of shop --when 2026-11-20 --by li.wei --shred"
    )]
    Lost(Box<lost::LostArgs>),
    /// All records.
    #[command(after_help = "Example:\n  wangchuan media list")]
    List,
    /// One record, with its certificates.
    #[command(after_help = "Examples:\n  wangchuan media show\n  wangchuan media show 3")]
    Show {
        /// Its number, its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
}

/// A parser of one of our closed lists.
macro_rules! names_of {
    ($kind:ty) => {
        PossibleValuesParser::new(<$kind>::ALL.iter().map(|known| known.name()))
            .try_map(|name| <$kind>::of_name(&name).ok_or("not in the list"))
    };
}

/// Which medium.
#[derive(Debug, clap::Args)]
struct MediumArgs {
    /// What it is.
    #[arg(long, value_parser = names_of!(MediumKind))]
    kind: MediumKind,
    /// Its serial number; it stands in clear in the certificate.
    #[arg(long)]
    serial: Option<String>,
    /// Its number in the company's inventory.
    #[arg(long)]
    asset: Option<String>,
    /// Its maker.
    #[arg(long)]
    make: Option<String>,
    /// Its model.
    #[arg(long)]
    model: Option<String>,
}

impl MediumArgs {
    fn medium(self) -> Medium {
        Medium { kind: self.kind, serial: self.serial, asset: self.asset, make: self.make, model: self.model }
    }
}

/// Arguments of `media record`.
#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    #[command(flatten)]
    medium: MediumArgs,
    /// A declared copy that ended with the medium, and of which nothing is left on another; as STORE/COPY, any number of them.
    #[arg(long = "copy", value_name = "STORE/COPY")]
    copies: Vec<String>,
    /// A store of which other data lay on it; any number of them.
    #[arg(long = "store", value_name = "STORE")]
    stores: Vec<String>,
    /// What it amounts to, in the words of NIST SP 800-88.
    #[arg(long, value_parser = names_of!(Method))]
    method: Method,
    /// How.
    #[arg(long, value_parser = names_of!(Technique))]
    technique: Technique,
    /// Everything that was ever written to the medium was encrypted under the key that was destroyed; `crypto-erase` needs it.
    #[arg(long)]
    always_encrypted: bool,
    /// The standard by which it was done.
    #[arg(long, default_value = "NIST-SP-800-88r2")]
    standard: String,
    /// When: a time (RFC 3339), or a day, which counts from its beginning in the agent's time zone.
    #[arg(long, value_name = "TIME")]
    when: String,
    /// Who did it, by a short name as with `approve --as`; in the certificate it is a pseudonym.
    #[arg(long = "by", value_name = "NAME")]
    performed_by: String,
    /// Who saw it; `purge` and `destroy` need two others, `clear` one.
    #[arg(long = "witness", value_name = "NAME")]
    witnesses: Vec<String>,
    /// How it was looked whether it succeeded; with `none` no copy counts as gone.
    #[arg(long, value_parser = names_of!(Checked))]
    checked: Checked,
    /// A file that shows it, such as a photograph; its SHA-256 is kept, the file is not. `destroy` needs one once somebody looked.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

/// The JSON of `media record`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecordDocument {
    /// `complete`; `partial` while the certificate waits, and when nobody looked at what is left of the medium.
    result: Outcome,
    /// The record.
    record: String,
    /// SHA-256 of the evidence, hex; null without any.
    evidence_sha256: Option<String>,
    /// Declared copies that count as gone, as `STORE/COPY`.
    gone_copies: Vec<String>,
    /// Certificates that were issued: of the medium, and of runs whose copies ended with it.
    certificates: Vec<String>,
}

impl Document for RecordDocument {
    const OF: &'static [&'static str] = &["media record"];
}

/// The JSON of `media list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// All records, oldest first.
    media: Vec<MediumEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["media list"];
}

/// The JSON of `media show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument {
    /// Always `complete`.
    result: Outcome,
    /// The record.
    medium: MediumEntry,
    /// What its loss exposed; null of a medium that was destroyed.
    loss: Option<LossEntry>,
    /// Its certificates, by id.
    certificates: Vec<String>,
    /// Certificates of runs that name it, by id.
    named_by: Vec<String>,
}

impl Document for ShowDocument {
    const OF: &'static [&'static str] = &["media show"];
}

/// A record of a medium.
#[derive(Debug, Serialize, JsonSchema)]
struct MediumEntry {
    /// Its id.
    record: String,
    /// Its number, from 1 without gaps.
    number: i64,
    /// `destroyed` or `lost`.
    event: String,
    /// `hard-disk`, `tape`, …
    kind: String,
    /// Its serial number.
    serial: Option<String>,
    /// Its number in the inventory.
    asset: Option<String>,
    /// Its maker.
    make: Option<String>,
    /// Its model.
    model: Option<String>,
    /// When it happened.
    happened_at: Time,
    /// When it was recorded.
    recorded_at: Time,
    /// Stores of which data lay on it.
    of_stores: Vec<String>,
    /// Declared copies that lay on it as a whole, as `STORE/COPY`.
    copies: Vec<String>,
    /// How it was destroyed.
    destruction: Option<DestructionEntry>,
    /// What the record waits for; null when it waits for nothing.
    waits: Option<WaitingMediumEntry>,
}

/// How a medium was destroyed.
#[derive(Debug, Serialize, JsonSchema)]
struct DestructionEntry {
    /// `clear`, `purge` or `destroy`.
    method: String,
    /// `shred`, `degauss`, …
    technique: String,
    /// By which standard.
    standard: String,
    /// Whether all that was ever written to it was encrypted.
    always_encrypted: bool,
    /// Who did it.
    performed_by: String,
    /// Who saw it.
    witnesses: Vec<String>,
    /// How it was looked whether it succeeded: `inspection`, `full-read` or `none`.
    checked: String,
    /// SHA-256 of a file that shows it, hex.
    evidence_sha256: Option<String>,
}

impl MediumEntry {
    fn of(row: &MediaRow, waiting: &[WaitingMedium]) -> Result<Self, TaskError> {
        let body = MediaBody::of(row)?;
        let waits = waiting.iter().find(|waiting| waiting.id == row.id).map(WaitingMediumEntry::of);
        let medium = body.medium;
        Ok(Self {
            record: row.id.clone(),
            number: row.number,
            event: row.event.clone(),
            kind: medium.kind.name().to_owned(),
            serial: medium.serial,
            asset: medium.asset,
            make: medium.make,
            model: medium.model,
            happened_at: row.happened_at.into(),
            recorded_at: row.recorded_at.into(),
            of_stores: body.stores,
            copies: body.copies.iter().map(ToString::to_string).collect(),
            destruction: body.destruction.map(|how| DestructionEntry {
                method: how.method.name().to_owned(),
                technique: how.technique.name().to_owned(),
                standard: how.standard,
                always_encrypted: how.always_encrypted,
                performed_by: how.performed_by,
                witnesses: how.witnesses,
                checked: how.checked.name().to_owned(),
                evidence_sha256: how.evidence_sha256,
            }),
            waits,
        })
    }

    fn name(&self) -> String {
        [&self.asset, &self.serial].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }

    /// What was done, for a column.
    fn how(&self) -> String {
        let how = self.destruction.as_ref();
        how.map_or_else(String::new, |how| format!("{} ({})", how.method, how.technique))
    }
}

/// Runs the command.
pub async fn media(context: &mut Context<'_>, command: MediaCommand) -> CommandResult {
    match command {
        MediaCommand::Record(args) => record(context, *args).await,
        MediaCommand::Lost(args) => lost::lost(context, *args).await,
        MediaCommand::List => list(context).await,
        MediaCommand::Show { id } => show(context, &id).await,
    }
}

/// A time, or the beginning of a day in the agent's zone: a medium that ended on a day may have ended at its first moment.
fn time_of(text: &str, zone: chrono_tz::Tz) -> Result<DateTime<Utc>, UserError> {
    times_of(text, zone).map(|(from, _)| from)
}

/// A time, twice, or the beginning and the end of a day in the agent's zone.
fn times_of(text: &str, zone: chrono_tz::Tz) -> Result<(DateTime<Utc>, DateTime<Utc>), UserError> {
    // Where clocks are put forward at midnight, a day begins later.
    let starts = |day: NaiveDate| {
        let hours = (0..4).filter_map(|hour| day.and_hms_opt(hour, 0, 0));
        hours.map(|time| zone.from_local_datetime(&time)).find(|found| found.earliest().is_some())
    };
    let day = || {
        let day: NaiveDate = text.parse().ok()?;
        Some((starts(day)?.earliest()?.to_utc(), starts(day.succ_opt()?)?.latest()?.to_utc()))
    };
    let time = DateTime::parse_from_rfc3339(text).ok().map(|at| (at.to_utc(), at.to_utc()));
    time.or_else(day).ok_or_else(|| {
        usage("BAD_TIME", "`--when` is neither a time nor a day", "`--when` 既不是时间也不是日期")
            .advise("write it as 2026-11-20T09:30:00Z or 2026-11-20", "请写作 2026-11-20T09:30:00Z 或 2026-11-20")
    })
}

async fn record(context: &mut Context<'_>, args: RecordArgs) -> CommandResult {
    context.only_now()?;
    let at = time_of(&args.when, context.configuration()?.agent.timezone)?;
    let evidence_sha256 = match &args.evidence {
        Some(path) => Some(evidence_digest(path).await.map_err(task_error)?),
        None => None,
    };
    let how = Destruction {
        method: args.method,
        technique: args.technique,
        standard: args.standard,
        always_encrypted: args.always_encrypted,
        performed_by: args.performed_by,
        witnesses: args.witnesses,
        checked: args.checked,
        evidence_sha256,
    };
    let report = Report { medium: args.medium.medium(), stores: args.stores, copies: args.copies, at, how };
    let installation = context.open(Needs::STATE).await?;
    let recorded = record_destroyed(&installation, report).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let body = MediaBody::of(&recorded).map_err(task_error)?;
    say_recorded(context, &recorded, &body)?;
    let certificates = certify_now(context).await?;
    for id in &certificates {
        context.output.line(&format!("  {id}"))?;
    }
    let looked = args.checked != Checked::Nobody;
    let is_done = looked && !certificates.is_empty();
    context.output.document(&RecordDocument {
        result: if is_done { Outcome::Complete } else { Outcome::Partial },
        record: recorded.id,
        evidence_sha256: body.destruction.and_then(|how| how.evidence_sha256),
        gone_copies: body.copies.iter().filter(|_| looked).map(ToString::to_string).collect(),
        certificates,
    })?;
    Ok(Exit::Done)
}

fn say_recorded(context: &mut Context<'_>, row: &MediaRow, body: &MediaBody) -> Result<(), UserError> {
    let (id, name) = (&row.id, body.medium.name());
    context.output.say(&Words::new(
        format!("Medium {name} is recorded as destroyed: record {id}."),
        format!("介质 {name} 已登记为销毁：记录 {id}。"),
    ))?;
    let Some(how) = &body.destruction else { return Ok(()) };
    if how.checked == Checked::Nobody {
        context.output.note(&Words::new(
            "nobody looked whether it holds nothing any more: the certificate is partial, and no copy counts as gone",
            "没有人核查其上是否已无数据：证书仅为部分完成，任何副本都不计为已销毁",
        ))?;
    }
    if how.evidence_sha256.is_none() {
        context.output.note(&Words::new(
            "no file shows it; a photograph or a protocol (`--evidence FILE`) would",
            "没有可供证明的文件；可用 `--evidence FILE` 附上照片或销毁记录",
        ))?;
    }
    Ok(())
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let read = async {
        let mut tx = control.read().await?;
        let (rows, waiting) = (tx.media().await?, waiting_media(&mut tx).await?);
        rows.iter().map(|row| MediumEntry::of(row, &waiting)).collect::<Result<Vec<_>, _>>()
    };
    let media = read.await.map_err(task_error)?;
    let titles = [
        ("no.", "序号"),
        ("medium", "介质"),
        ("kind", "种类"),
        ("event", "事件"),
        ("when", "时间"),
        ("how", "方式"),
        ("copies", "副本"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| context.output.say_in(en, zh).to_owned())).right(0);
    for entry in &media {
        let event = event_words(context, &entry.event);
        grid.row([
            entry.number.to_string(),
            entry.name(),
            entry.kind.clone(),
            event,
            local_time(&config, entry.happened_at.instant()),
            entry.how(),
            entry.copies.join(", "),
        ]);
    }
    context.output.table(&grid)?;
    for waits in media.iter().filter_map(|entry| entry.waits.as_ref()) {
        context.output.say(&waits.words())?;
    }
    context.output.document(&ListDocument { result: Outcome::of_list(media.is_empty()), media })?;
    Ok(Exit::Done)
}

fn event_words(context: &Context<'_>, event: &str) -> String {
    match event {
        "destroyed" => context.output.say_in("destroyed", "销毁").to_owned(),
        "lost" => context.output.say_in("lost", "遗失").to_owned(),
        other => other.to_owned(),
    }
}

async fn show(context: &mut Context<'_>, id: &str) -> CommandResult {
    let (config, control) = context.control().await?;
    let read = async {
        let mut tx = control.read().await?;
        let waiting = waiting_media(&mut tx).await?;
        Ok((tx.media().await?, waiting, tx.certificates(None).await?, tx.runs(None).await?))
    };
    let (rows, waiting, certificates, runs) = read.await.map_err(task_error)?;
    let row = find(&rows, id).map_err(task_error)?;
    let entry = MediumEntry::of(row, &waiting).map_err(task_error)?;
    let read = async { chains_of(&mut control.read().await?, row).await };
    let loss = LossEntry::of(row, read.await.map_err(task_error)?).map_err(task_error)?;
    let of = |run: &str| certificates.iter().filter(|row| row.run == run).map(id_of).collect::<Vec<_>>();
    let mut named_by = Vec::new();
    for run in &runs {
        let body = crate::tasks::erasure::RunBody::of(run).map_err(task_error)?;
        if body.media.contains(&row.id) {
            named_by.extend(of(&run.id).pop());
        }
    }
    let certificates = of(&row.id);
    let document = ShowDocument { result: Outcome::Complete, certificates, named_by, loss, medium: entry };
    show_words(context, &config, &document)?;
    context.output.document(&document)?;
    Ok(Exit::Done)
}

fn id_of(row: &CertificateRow) -> String {
    row.id.clone()
}

fn show_words(
    context: &mut Context<'_>,
    config: &crate::config::Configuration,
    document: &ShowDocument,
) -> Result<(), UserError> {
    let entry = &document.medium;
    let event = event_words(context, &entry.event);
    let mut lines = vec![
        (("medium", "介质"), entry.name()),
        (("record", "记录"), entry.record.clone()),
        (("kind", "种类"), entry.kind.clone()),
        (("event", "事件"), event),
        (("when", "时间"), local_time(config, entry.happened_at.instant())),
        (("stores", "数据源"), entry.of_stores.join(", ")),
        (("copies", "副本"), entry.copies.join(", ")),
    ];
    if let Some(how) = &entry.destruction {
        lines.extend([
            (("how", "方式"), entry.how()),
            (("standard", "标准"), how.standard.clone()),
            (("done by", "执行人"), how.performed_by.clone()),
            (("seen by", "见证人"), how.witnesses.join(", ")),
            (("looked at", "核查"), how.checked.clone()),
            (("evidence (SHA-256)", "证据（SHA-256）"), how.evidence_sha256.clone().unwrap_or_default()),
        ]);
    }
    let (reported_by, chains) = document.loss.as_ref().map(LossEntry::words).unwrap_or_default();
    lines.push((("reported by", "报告人"), reported_by));
    if let Some(waits) = &entry.waits {
        let Words { en, zh } = waits.wait_words();
        lines.push((("waits", "等待"), context.output.say_in(&en, &zh).to_owned()));
    }
    lines.push((("certificates", "证书"), document.certificates.join(", ")));
    lines.push((("named by", "被引用于"), document.named_by.join(", ")));
    for ((en, zh), text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
        let (name, colon) = (context.output.say_in(en, zh).to_owned(), context.output.say_in(": ", "："));
        let line = format!("{name}{colon}{text}");
        context.output.line(&line)?;
    }
    for words in &chains {
        context.output.say(words)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_from_its_beginning_in_the_agent_s_zone() {
        let at = time_of("2026-11-20", chrono_tz::Asia::Shanghai).unwrap();
        assert_eq!(at.to_rfc3339(), "2026-11-19T16:00:00+00:00");
        assert_eq!(
            time_of("2026-11-20T09:30:00+08:00", chrono_tz::Tz::UTC).unwrap().to_rfc3339(),
            "2026-11-20T01:30:00+00:00"
        );
        assert!(time_of("yesterday", chrono_tz::Tz::UTC).is_err());
    }

    #[test]
    fn a_loss_on_a_day_may_have_been_at_its_last_moment() {
        let (from, until) = times_of("2026-11-20", chrono_tz::Asia::Shanghai).unwrap();
        assert_eq!(from.to_rfc3339(), "2026-11-19T16:00:00+00:00");
        assert_eq!(until.to_rfc3339(), "2026-11-20T16:00:00+00:00");
        // Here midnight does not exist on the day after.
        let (_, until) = times_of("2018-11-03", chrono_tz::America::Sao_Paulo).unwrap();
        assert_eq!(until.to_rfc3339(), "2018-11-04T03:00:00+00:00");
        let (from, until) = times_of("2026-11-20T09:30:00+08:00", chrono_tz::Tz::UTC).unwrap();
        assert_eq!((from, from.to_rfc3339().as_str()), (until, "2026-11-20T01:30:00+00:00"));
    }
}
