//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// x
    Status,
}
pub async fn key(_: &mut super::context::Context<'_>, _: KeyCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
