//! Placeholder.
#[derive(Debug, clap::Subcommand)]
pub enum CertificateCommand {
    /// x
    List,
}
#[derive(Debug, clap::Subcommand)]
pub enum LogCommand {
    /// x
    Verify,
}
pub async fn certificate(_: &mut super::context::Context<'_>, _: CertificateCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
pub async fn log(_: &mut super::context::Context<'_>, _: LogCommand) -> super::CommandResult {
    Ok(super::Exit::Done)
}
