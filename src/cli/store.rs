//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// x
    List,
}
pub async fn store(_: &mut super::context::Context<'_>, _: StoreCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
