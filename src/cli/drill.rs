//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum DrillCommand {
    /// x
    Run,
}
pub async fn drill(_: &mut super::context::Context<'_>, _: DrillCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
