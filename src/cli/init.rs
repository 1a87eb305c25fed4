//! `init`: a new installation.

use std::path::PathBuf;

use super::CommandResult;
use super::context::{Context, read_configuration, task_error, usage};
use super::output::{Exit, UserError, Words};
use crate::config::TEMPLATE;
use crate::installation::Installation;
use crate::quickstart::{JOBS, write};

/// Arguments of `init`.
///
/// Example: wangchuan init --dir /etc/wangchuan --accept-host-loss
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The folder for the configuration; existing files are never overwritten.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Accept that a root key in a local file has no useful backup: whoever loses this host loses every backup with it.
    #[arg(long)]
    accept_host_loss: bool,
}

/// Writes what is missing, then makes control database, keys and signing key.
pub async fn init(context: &mut Context<'_>, args: InitArgs) -> CommandResult {
    context.only_now()?;
    let configuration = args.dir.join("wangchuan.toml");
    let jobs = args.dir.join("jobs");
    if !configuration.exists() {
        if !args.accept_host_loss {
            return Err(usage(
                "HOST_LOSS",
                "this version keeps the root key in a file on this host, which has no useful backup: a lost host is a lost set of backups",
                "本版本把根密钥存放在本机文件中，无法有效备份：主机丢失即全部备份丢失",
            )
            .advise("if that is acceptable, add --accept-host-loss", "如可接受，请加 --accept-host-loss"));
        }
        let text = TEMPLATE.replace("accept_host_loss = false", "accept_host_loss = true");
        write(&configuration, &text).map_err(|error| UserError::from_any(error.into()))?;
    }
    if !jobs.exists() {
        std::fs::create_dir_all(&jobs).map_err(|error| UserError::from_any(error.into()))?;
        for (name, text) in JOBS {
            write(&jobs.join(name), text).map_err(|error| UserError::from_any(error.into()))?;
        }
    }
    let config = read_configuration(&configuration)?;
    Installation::create(&config, context.clock.clone(), context.random.clone()).await.map_err(task_error)?;
    let shown = configuration.display().to_string();
    context.output.say(&Words::new(
        format!("Installed. Now register your stores in {shown} and run `wangchuan doctor`."),
        format!("安装完成。请在 {shown} 中登记数据库，然后运行 `wangchuan doctor`。"),
    ))?;
    context.output.document(&serde_json::json!({"result": "complete", "configuration": shown}))?;
    Ok(Exit::Done)
}
