//! `audit trust`: the public keys for strangers.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::certificate::write_all;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, UserError, Words};
use crate::installation::Needs;
use crate::tasks::trust::trust as task;

/// Where to write.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// The file.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A new folder for the same in parts: a Sigstore trusted root, a C2SP tlog-policy, PEM and vkeys.
    #[arg(long, value_name = "FOLDER")]
    parts: Option<PathBuf>,
}

/// The JSON of `audit trust`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TrustDocument {
    /// Always `complete`.
    result: Outcome,
    /// The file.
    file: PathBuf,
    /// The files of the parts.
    parts: Vec<PathBuf>,
    /// The ids of the certificate keys in it (SHA-256 of each).
    key_ids: Vec<String>,
    /// The ids of the keys in it that sign for certificates without a log (SHA-256 of each).
    acknowledgement_key_ids: Vec<String>,
    /// The origins of the logs in it.
    origins: Vec<String>,
    /// How many witnesses make a head of the log witnessed; 0 without any.
    quorum: usize,
}

impl Document for TrustDocument {
    const OF: &'static [&'static str] = &["audit trust"];
}

/// Writes the trust file. Nothing is overwritten.
pub async fn trust(context: &mut Context<'_>, args: TrustArgs) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let trust = task(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    if trust.logs.is_empty() && trust.acknowledgers.is_empty() {
        let what = Words::new("the audit log's public key is not there", "没有审计日志的公钥");
        return Err(UserError::new(Exit::Failed, "NO_LOG_KEY", what).advise(
            "the embedded service makes it at the first `job run outbox`; of another service, put it into `audit-log.vkey`; of a webhook, name its key with `acknowledged_by`",
            "内置服务在首次 `job run outbox` 时生成；若为外部服务，请将其放入 `audit-log.vkey`；若为网络回调，请用 `acknowledged_by` 给出其公钥",
        ));
    }
    let parts = match &args.parts {
        Some(folder) => {
            std::fs::create_dir(folder).map_err(|error| {
                let what = Words::new(format!("cannot make the folder: {error}"), format!("无法创建文件夹：{error}"));
                UserError::new(Exit::Failed, "OUTPUT", what)
                    .at(folder.display().to_string())
                    .advise("name one that is not there yet", "请给出尚不存在的名称")
            })?;
            trust.parts().into_iter().map(|(name, bytes)| (folder.join(name), bytes)).collect()
        }
        None => Vec::new(),
    };
    let whole = format!("{:#}\n", trust.to_json());
    let mut files = vec![(&args.output, whole.as_bytes())];
    files.extend(parts.iter().map(|(path, bytes)| (path, bytes.as_slice())));
    write_all(&files)?;
    let document = TrustDocument {
        result: Outcome::Complete,
        parts: parts.iter().map(|(path, _)| path.clone()).collect(),
        key_ids: trust.signers.iter().map(|(key, _)| key.key_id().to_owned()).collect(),
        acknowledgement_key_ids: trust.acknowledgers.iter().map(|key| key.key_id().to_owned()).collect(),
        origins: trust.logs.iter().map(|log| log.key.origin().to_owned()).collect(),
        quorum: trust.quorum.needed(),
        file: args.output,
    };
    let output = &mut *context.output;
    let shown = document.file.display();
    output.say(&Words::new(
        format!("{shown}: public keys only; with it a stranger verifies your certificates, without a network"),
        format!("{shown}：仅含公钥；他人凭此可离线核查您的证书"),
    ))?;
    for id in &document.key_ids {
        output.say(&Words::new(format!("certificate key {id}"), format!("证书密钥 {id}")))?;
    }
    for id in &document.acknowledgement_key_ids {
        output.say(&Words::new(format!("acknowledgement key {id}"), format!("确认密钥 {id}")))?;
    }
    output.note(&Words::new(
        "hand it over by another way than the certificates, and let the receiver compare the key ids by voice",
        "请以不同于证书的途径交付，并请对方口头核对密钥编号",
    ))?;
    output.document(&document)?;
    Ok(Exit::Done)
}
