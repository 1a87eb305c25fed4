//! `certificate …` and `log …`: proof, shown, verified and taken away.

mod about;
mod export;
mod log;
mod operations;
mod page;
mod roll_up;
mod show;
mod trace;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, task_error, usage};
use super::output::shapes::Time;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words, say};
use crate::control::{CertificateRow, OutboxRow, TimeStampRow};
use crate::installation::{Installation, Needs};

pub use about::AboutDocument;
pub use export::ExportDocument;
pub(in crate::cli) use export::{cannot_write, write_all};
pub use log::{LogCommand, LogDocument, log};
pub use operations::{LogExportDocument, PruneDocument, QueryDocument};
pub use show::ShowDocument;
pub use trace::TraceDocument;
pub use verify::VerifyDocument;
pub(in crate::cli) use verify::no_trust;

/// Deletion certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// All certificates by number, and whether they are filed.
    #[command(after_help = "Example:\n  wangchuan certificate list")]
    List,
    /// What a certificate says, in words.
    #[command(after_help = "Examples:\n  wangchuan certificate show\n  wangchuan certificate show 3")]
    Show {
        /// Its number, its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
    /// Is this customer gone, and which copy opens until when? The id is read from standard input.
    ///
    /// The stores are asked now; what became of backups and declared copies stands in the newest certificates of the customer's requests.
    /// Rows that retention removed are attributed to nobody. Exit code 4 when a store could not be read.
    #[command(after_help = "Example:\n  wangchuan certificate about - < id.txt")]
    About {
        /// `-`: the customer's id is read from standard input.
        #[arg(value_name = "-", value_parser = ["-"])]
        from: String,
    },
    /// What led to a certificate: request, plan and its hash, approvals, run, entries of the operation log, destroyed keys.
    #[command(
        after_help = "Examples:\n  wangchuan certificate trace latest\n  wangchuan certificate trace 3 --json | jq .plan_details.hash"
    )]
    Trace {
        /// Its number, its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
    /// Check signature, evidence, receipt and time stamp, with public keys alone.
    ///
    /// With --trust neither an installation nor a network is needed: a stranger can run it, with a trust file (see
    /// `wangchuan audit trust`) that came another way than the certificate.
    #[command(after_help = "Examples:
  wangchuan certificate verify 3
  wangchuan certificate verify case-17.sigstore.json --trust trust.json")]
    Verify(VerifyArgs),
    /// Write a certificate with its receipt and time stamp into one file (a Sigstore bundle), or into another form.
    #[command(after_help = "Examples:
  wangchuan certificate export latest
  wangchuan certificate export 3 --output case-17.sigstore.json
  wangchuan certificate export 3 --format proof")]
    Export(ExportArgs),
}

/// What to verify, and what to trust.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Its number, its id or the beginning of it; `latest` for the newest; or a file of `certificate export`.
    certificate: String,
    /// Whom to trust, instead of this installation: a file of `audit trust`. CERTIFICATE is a file then.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The evidence file; by default the one that lies beside an exported file.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// The proof text of a bare envelope (`--format proof`).
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
}

/// What to write, and where.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Its number, its id or the beginning of it; `latest` for the newest.
    id: String,
    /// The form.
    #[arg(long, value_enum, default_value_t = Format::Bundle)]
    format: Format,
    /// The file; by default `certificate-NUMBER` with the ending of the form.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ExportArgs {
    /// Which certificate, as it was typed.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The forms of an exported certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Certificate and receipt in one file, a Sigstore bundle v0.3.
    Bundle,
    /// The proof of inclusion alone, as text (C2SP tlog-proof).
    Proof,
    /// The certificate alone, byte for byte as it was signed and filed (DSSE).
    Envelope,
    /// A page for people to read and print (HTML, with a QR code): a view of the certificate.
    Html,
}

/// `certificate …`.
pub async fn certificate(context: &mut Context<'_>, command: CertificateCommand) -> CommandResult {
    match command {
        CertificateCommand::List => list(context).await,
        CertificateCommand::Show { id } => show::show(context, &id).await,
        CertificateCommand::About { .. } => about::about(context).await,
        CertificateCommand::Trace { id } => trace::trace(context, &id).await,
        CertificateCommand::Verify(args) => verify::verify(context, args).await,
        CertificateCommand::Export(args) => export::export(context, args).await,
    }
}

/// All certificates of an installation with the state of their filing.
struct Stored {
    installation: Installation,
    certificates: Vec<CertificateRow>,
    outbox: Vec<OutboxRow>,
    stamps: Vec<TimeStampRow>,
}

impl Stored {
    async fn open(context: &Context<'_>) -> Result<Self, UserError> {
        let installation = context.open(Needs::STATE).await?;
        let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
        let certificates = tx.certificates(None).await.map_err(|error| task_error(error.into()))?;
        let outbox = tx.outbox(None).await.map_err(|error| task_error(error.into()))?;
        let stamps = tx.time_stamps().await.map_err(|error| task_error(error.into()))?;
        drop(tx);
        Ok(Self { installation, certificates, outbox, stamps })
    }

    fn filing(&self, certificate: &str) -> Option<&OutboxRow> {
        self.outbox.iter().find(|row| row.certificate == certificate)
    }

    /// The time stamp of a certificate, as it was verified when it came.
    fn stamp(&self, certificate: &str) -> Option<&TimeStampRow> {
        self.stamps.iter().find(|row| row.certificate == certificate)
    }

    /// The certificate that replaces this one.
    fn successor(&self, certificate: &str) -> Option<&CertificateRow> {
        self.certificates.iter().find(|row| row.supersedes.as_deref() == Some(certificate))
    }

    async fn close(self) -> Result<(), UserError> {
        self.installation.close().await.map_err(task_error)
    }
}

/// The certificate with this number, id, or beginning of an id.
pub(super) fn find<'r>(rows: &'r [CertificateRow], id: &str) -> Result<&'r CertificateRow, UserError> {
    let unknown = |en: String, zh: String| {
        let error = usage("CERTIFICATE_UNKNOWN", &en, &zh);
        error.advise("see `wangchuan certificate list`", "请看 `wangchuan certificate list`")
    };
    if id == "latest" {
        return rows.last().ok_or_else(|| unknown("there is no certificate yet".to_owned(), "还没有证书".to_owned()));
    }
    if let Some(row) = id.parse().ok().and_then(|number: i64| rows.iter().find(|row| row.sequence == number)) {
        return Ok(row);
    }
    let mut found = rows.iter().filter(|row| !id.is_empty() && row.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => {
            Err(unknown(format!("several certificates begin with {id}"), format!("有多个证书以 {id} 开头")))
        }
        _ => Err(unknown(format!("there is no certificate {id}"), format!("没有证书 {id}"))),
    }
}

/// The state of a certificate's filing.
#[derive(Debug, Serialize, JsonSchema)]
struct Filing {
    /// `pending`, `receipted`, `acknowledged` (taken without a receipt) or `quarantined`.
    state: String,
    /// What the receipt is worth, and why.
    grade: Option<String>,
    /// When the receipt was verified, or the certificate was taken without one.
    receipted_at: Option<Time>,
    /// Why it is not filed yet, or was refused.
    problem: Option<String>,
}

impl Filing {
    fn of(row: Option<&OutboxRow>) -> Self {
        Self {
            state: row.map_or_else(|| "pending".to_owned(), |row| row.state.clone()),
            grade: row.and_then(|row| row.grade.clone()),
            receipted_at: row.and_then(|row| row.receipted_at).map(Time::from),
            problem: row.and_then(|row| row.problem.clone()),
        }
    }

    fn words(&self) -> Words {
        let reason = self.problem.as_deref().map_or_else(String::new, |problem| format!(": {problem}"));
        match self.state.as_str() {
            "receipted" => {
                let grade = self.grade.as_deref().unwrap_or("-");
                Words::new(format!("filed, receipt of grade {grade}"), format!("已存证，回执等级 {grade}"))
            }
            "acknowledged" => {
                let grade = self.grade.as_deref().unwrap_or("-");
                Words::new(format!("taken without a receipt, grade {grade}"), format!("已送达，无回执，等级 {grade}"))
            }
            "quarantined" => {
                Words::new(format!("refused by the audit service{reason}"), format!("被审计服务拒绝{reason}"))
            }
            _ => Words::new(format!("waits to be filed{reason}"), format!("等待存证{reason}")),
        }
    }
}

/// The JSON of `certificate list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The ids of all certificates, by number.
    certificates: Vec<String>,
    /// Each of them, in the same order.
    details: Vec<Listed>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["certificate list"];
}

/// A certificate in a list.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    /// Its id.
    certificate: String,
    /// Its number; there are no gaps.
    sequence: i64,
    /// The run it is about.
    run: String,
    /// How the erasure ended, as the certificate says: `complete`, `partial`, `nothing-found`, `refused` or `failed`.
    result: String,
    /// When it was signed.
    issued_at: Time,
    /// The id of the certificate that it replaces.
    supersedes: Option<String>,
    /// Whether it is filed.
    filing: Filing,
}

impl Listed {
    fn of(stored: &Stored, row: &CertificateRow) -> Self {
        Self {
            certificate: row.id.clone(),
            sequence: row.sequence,
            run: row.run.clone(),
            result: row.result.clone(),
            issued_at: row.issued_at.into(),
            supersedes: row.supersedes.clone(),
            filing: Filing::of(stored.filing(&row.id)),
        }
    }
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let stored = Stored::open(context).await?;
    let details: Vec<_> = stored.certificates.iter().map(|row| Listed::of(&stored, row)).collect();
    let output = &mut *context.output;
    let lang = output.lang();
    let titles = [
        ("no.", "编号"),
        ("certificate", "证书"),
        ("issued", "签发时间"),
        ("result", "结果"),
        ("replaced by", "被取代"),
        ("filing", "存证"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(0);
    for (row, listed) in stored.certificates.iter().zip(&details) {
        grid.row([
            row.sequence.to_string(),
            row.id.clone(),
            local_time(&stored.installation.config, row.issued_at),
            row.result.clone(),
            stored.successor(&row.id).map_or_else(String::new, |later| later.sequence.to_string()),
            listed.filing.words().in_lang(lang).to_owned(),
        ]);
    }
    if grid.is_empty() {
        output.say(&Words::new("nothing was erased yet, so there is no certificate", "还没有删除，因此没有证书"))?;
    } else {
        output.table(&grid)?;
    }
    let result = Outcome::of_list(details.is_empty());
    let certificates = stored.certificates.iter().map(|row| row.id.clone()).collect();
    output.document(&ListDocument { result, certificates, details })?;
    stored.close().await?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
