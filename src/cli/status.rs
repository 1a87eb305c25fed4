//! Placeholder.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}
pub async fn status(_: &mut super::context::Context<'_>) -> super::CommandResult {
    Ok(super::Exit::Done)
}
pub async fn doctor(_: &mut super::context::Context<'_>, _: DoctorArgs) -> super::CommandResult {
    Ok(super::Exit::Done)
}
