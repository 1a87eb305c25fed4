//! `audit …`: the service that certificates are filed to, and what others need to check it.

mod trust;

use clap::Subcommand;

use super::CommandResult;
use super::context::Context;

pub use trust::TrustDocument;

/// The audit service.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write what others must trust to verify certificates: public keys with their times, the log, its witnesses.
    #[command(after_help = "Examples:
  wangchuan audit trust --output trust.json
  wangchuan audit trust --output trust.json --parts trust-parts")]
    Trust(trust::TrustArgs),
}

/// `audit …`.
pub async fn audit(context: &mut Context<'_>, command: AuditCommand) -> CommandResult {
    match command {
        AuditCommand::Trust(args) => trust::trust(context, args).await,
    }
}
