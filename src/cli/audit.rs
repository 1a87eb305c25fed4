//! `audit …`: the service that certificates are filed to, and what others need to check it.

mod conformance;
mod flush;
mod key;
mod serve;
mod status;
mod trust;
mod verify;

use clap::Subcommand;

use super::CommandResult;
use super::context::Context;

pub use conformance::ConformanceDocument;
pub use flush::FlushDocument;
pub use key::{AuditKeyChangeDocument, AuditKeyListDocument};
pub use serve::ServeDocument;
pub use status::StatusDocument;
pub use trust::TrustDocument;
pub use verify::VerifyDocument;

/// The audit service.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// How many certificates are filed, what their receipts are worth, what waits and why.
    #[command(after_help = "Example:\n  wangchuan audit status")]
    Status,
    /// File now what waits; with --refused what the service refused, with --again what is filed, too.
    #[command(after_help = "Examples:
  wangchuan audit flush
  wangchuan audit flush --refused         all that was refused, once the reason is mended
  wangchuan audit flush --refused 17
  wangchuan audit flush --again")]
    Flush(flush::FlushArgs),
    /// Check everything: numbers, chain, signatures, receipts, and the embedded log entry by entry.
    #[command(after_help = "Example:\n  wangchuan audit verify")]
    Verify,
    /// Write what others must trust to verify certificates: public keys with their times, the log, its witnesses.
    #[command(after_help = "Examples:
  wangchuan audit trust --output trust.json
  wangchuan audit trust --output trust.json --parts trust-parts")]
    Trust(trust::TrustArgs),
    /// The keys that sign certificates: which one is in use, which were, another one in their place.
    #[command(subcommand)]
    Key(key::AuditKeyCommand),
    /// Serve the embedded log to others, or run an audit service for several agents, until SIGTERM or Ctrl-C.
    ///
    /// It speaks plain HTTP: leave it on this host, or put a proxy that ends TLS before it.
    #[command(after_help = "Examples:
  wangchuan audit serve --listen 127.0.0.1:8430
  wangchuan audit serve --listen 127.0.0.1:8430 --data audit-log \\
      --origin audit.example.com/erasures --signer shop.pem --token token.txt")]
    Serve(serve::ServeArgs),
    /// Try the contract of filing on an audit service, and say what it gets wrong.
    ///
    /// On the configured service nothing new is filed; one certificate must be filed there already. On one that is named, two
    /// certificates made for the trial are filed and stay there: name one that is not in use.
    #[command(after_help = "Examples:
  wangchuan audit conformance
  wangchuan audit conformance https://audit.example.com --log-key audit-log.vkey --signer trial.pem --token token.txt")]
    Conformance(conformance::ConformanceArgs),
}

impl AuditCommand {
    /// Whether it runs until it is stopped, and ends by itself then.
    pub fn serves(&self) -> bool {
        matches!(self, Self::Serve(_))
    }
}

/// `audit …`.
pub async fn audit(context: &mut Context<'_>, command: AuditCommand) -> CommandResult {
    match command {
        AuditCommand::Status => status::status(context).await,
        AuditCommand::Flush(args) => flush::flush(context, args).await,
        AuditCommand::Verify => verify::verify(context).await,
        AuditCommand::Trust(args) => trust::trust(context, args).await,
        AuditCommand::Key(command) => key::key(context, command).await,
        AuditCommand::Serve(args) => serve::serve(context, args).await,
        AuditCommand::Conformance(args) => conformance::conformance(context, args).await,
    }
}
