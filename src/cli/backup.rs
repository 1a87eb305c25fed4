//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum BackupCommand {
    /// x
    Run,
}
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {}
pub async fn backup(_: &mut super::context::Context<'_>, _: BackupCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
pub async fn restore(_: &mut super::context::Context<'_>, _: RestoreArgs) -> super::CommandResult {
    Ok(super::Exit::Done)
}
