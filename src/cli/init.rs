//! `init`: a new installation.

mod token;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, read_configuration, task_error, usage};
use super::output::{Document, Exit, Outcome, UserError, Words};
use crate::config::TEMPLATE;
use crate::installation::Installation;
use crate::quickstart::{JOBS, write};

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan init --dir /etc/wangchuan --accept-host-loss
  wangchuan init --root transit --snapshot-retention-days 7
  wangchuan init --root aws-kms --kms-region eu-west-1
  wangchuan init --root pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token-label wangchuan --pin-file token-pin
  wangchuan init --accept-host-loss --state 'postgres://agent:${file:state-password}@db/wangchuan?sslmode=verify-full'")]
pub struct InitArgs {
    /// The folder for the configuration; existing files are never overwritten.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where the control database shall lie: `sqlite://PATH`, or `postgres://…` of an empty database; a password by reference.
    #[arg(long, value_name = "URL", default_value = STATE)]
    state: String,
    /// Where the root key shall lie.
    #[arg(long, value_enum, default_value_t = RootChoice::File)]
    root: RootChoice,
    /// Address of the OpenBao or Vault server; otherwise from BAO_ADDR or VAULT_ADDR.
    #[arg(long, value_name = "URL")]
    transit_address: Option<String>,
    /// Name of the transit key, which no other installation may use.
    #[arg(long, value_name = "NAME", default_value = "wangchuan")]
    transit_key: String,
    /// For how many days snapshots and disk images of the key service, or backups of the token, are kept; certificates name the
    /// date.
    #[arg(long, value_name = "DAYS", required_if_eq_any([("root", "transit"), ("device", "hardware-with-backup")]))]
    snapshot_retention_days: Option<u32>,
    /// The region of AWS KMS in which the keys are made.
    #[arg(long, value_name = "REGION", required_if_eq("root", "aws-kms"))]
    kms_region: Option<String>,
    /// Address of AWS KMS, if not the region's own.
    #[arg(long, value_name = "URL")]
    kms_endpoint: Option<String>,
    #[command(flatten)]
    token: token::TokenArgs,
    /// Accept that a root key in a local file has no useful backup: whoever loses this host loses every backup with it.
    #[arg(long)]
    accept_host_loss: bool,
}

/// The slots that `init` can write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RootChoice {
    /// A sealed file on this host.
    File,
    /// A key of OpenBao or Vault.
    Transit,
    /// Keys of AWS KMS.
    AwsKms,
    /// Keys of a PKCS#11 token.
    Pkcs11,
}

/// The control database of the template.
const STATE: &str = "sqlite://wangchuan.db";

/// The template with the chosen control database and root slot.
fn template(args: &InitArgs) -> String {
    let state = |text: &str| format!("\nstate = {}\n", quoted(text));
    let template = TEMPLATE.replace(&state(STATE), &state(&args.state));
    let section = match args.root {
        RootChoice::File => return template.replace("accept_host_loss = false", "accept_host_loss = true"),
        RootChoice::Transit => transit_section(args),
        RootChoice::AwsKms => kms_section(args),
        RootChoice::Pkcs11 => args.token.section(args.snapshot_retention_days),
    };
    template
        .replace("kind = \"file\"\npath = \"root.slot\"\n", &section)
        .replace("\naccept_host_loss = false\n", "\n#accept_host_loss = false\n")
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn kms_section(args: &InitArgs) -> String {
    let region = quoted(args.kms_region.as_deref().unwrap_or_default());
    let endpoint = args.kms_endpoint.as_deref().map(|address| format!("endpoint = {}\n", quoted(address)));
    format!("kind = \"aws-kms\"\npath = \"root.slot\"\nregion = {region}\n{}", endpoint.unwrap_or_default())
}

fn transit_section(args: &InitArgs) -> String {
    let address = args.transit_address.as_deref().map(|address| format!("address = {}\n", quoted(address)));
    let days = args.snapshot_retention_days.unwrap_or_default();
    let mut section = "kind = \"transit\"\npath = \"root.slot\"\n".to_owned();
    section.push_str(&address.unwrap_or_default());
    section.push_str("key = ");
    section.push_str(&quoted(&args.transit_key));
    section.push_str("\nsnapshot_retention_days = ");
    section.push_str(&days.to_string());
    section.push('\n');
    section
}

/// The JSON of `init`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InitDocument {
    /// Always `complete`.
    result: Outcome,
    /// The configuration file, new or found.
    configuration: String,
}

impl Document for InitDocument {
    const OF: &'static [&'static str] = &["init"];
}

/// Writes what is missing, then makes control database, keys and signing key.
pub async fn init(context: &mut Context<'_>, args: InitArgs) -> CommandResult {
    context.only_now()?;
    let configuration = args.dir.join("wangchuan.toml");
    let jobs = args.dir.join("jobs");
    if !configuration.exists() {
        if args.root == RootChoice::File && !args.accept_host_loss {
            return Err(usage(
                "HOST_LOSS",
                "the root key would lie in a file on this host, which has no useful backup: a lost host is a lost set of backups",
                "根密钥将存放在本机文件中，无法有效备份：主机丢失即全部备份丢失",
            )
            .advise(
                "if that is acceptable, add --accept-host-loss; otherwise use a key service or a token: --root transit, --root aws-kms, --root pkcs11",
                "如可接受，请加 --accept-host-loss；否则请使用密钥服务或令牌：--root transit、--root aws-kms、--root pkcs11",
            ));
        }
        std::fs::create_dir_all(&args.dir)
            .map_err(|error| UserError::from_any(error.into()).at(args.dir.display().to_string()))?;
        write(&configuration, &template(&args)).map_err(|error| UserError::from_any(error.into()))?;
    }
    if !jobs.exists() {
        std::fs::create_dir_all(&jobs).map_err(|error| UserError::from_any(error.into()))?;
        for (name, text) in JOBS {
            write(&jobs.join(name), text).map_err(|error| UserError::from_any(error.into()))?;
        }
    }
    let config = read_configuration(&configuration)?;
    let is_new =
        Installation::create(&config, context.clock.clone(), context.random.clone()).await.map_err(task_error)?;
    let shown = configuration.display().to_string();
    let words = if is_new {
        Words::new(
            format!("Installed. Now register your stores in {shown} and run `wangchuan doctor`."),
            format!("安装完成。请在 {shown} 中登记数据库，然后运行 `wangchuan doctor`。"),
        )
    } else {
        Words::new(
            format!("{shown} was installed before; what was missing was made, nothing else changed."),
            format!("{shown} 此前已安装；仅补全缺失部分，其他未变。"),
        )
    };
    context.output.say(&words)?;
    context.output.document(&InitDocument { result: Outcome::Complete, configuration: shown })?;
    Ok(Exit::Done)
}
