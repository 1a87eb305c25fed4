//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// x
    Check,
}
pub fn config(_: &mut super::context::Context<'_>, _: ConfigCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
