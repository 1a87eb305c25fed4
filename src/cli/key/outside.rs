//! `key register`, `key unregister`, and what other `key` commands show of outside keys. Names no key and no customer.

use std::io::{BufRead, IsTerminal, Write};

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error, usage};
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use super::words::state_words;
use crate::config::{BoundTo, Configuration};
use crate::installation::Needs;
use crate::keys::slot::SlotClass;
use crate::keys::state::{KeyState, RecordedKey, state_of};
use crate::plan::Subject;
use crate::policy::registry::SecretText;
use crate::tasks::outside::{OutsideState, OutsideWait, Waiting, register, spec_of, unregister};

/// Arguments of `key register`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan key register customer-notes                          asks for both
  printf '%s\\n' 4711 note-key-4711 | wangchuan key register customer-notes -")]
pub struct RegisterArgs {
    /// The `[[outside_key]]` of the configuration, one with `subjects = true`, that the key belongs to.
    entry: String,
    /// `-` reads two lines from standard input: the customer's id, the key's name. Without it you are asked.
    #[arg(value_parser = ["-"])]
    from: Option<String>,
}

/// What `key register --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyRegisterDocument {
    /// Always `complete`.
    result: Outcome,
    /// The id under which the key is known from now on.
    outside_key: String,
    /// Whether it was registered already.
    existing: bool,
    /// Whether the key can leave the service, or was brought into it: then its end is a logical removal only.
    may_have_left: bool,
    /// Whether a value in clear was found in one of its fields: then its end is no erasure of those.
    clear_seen: bool,
}

impl Document for KeyRegisterDocument {
    const OF: &'static [&'static str] = &["key register"];
}

/// What `key unregister --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyUnregisterDocument {
    /// Always `complete`: the agent does not answer for it any more. The key itself lives on.
    result: Outcome,
    /// Its id.
    outside_key: String,
}

impl Document for KeyUnregisterDocument {
    const OF: &'static [&'static str] = &["key unregister"];
}

/// An outside key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutsideLine {
    /// The id of its registration.
    id: String,
    /// The entry of the configuration.
    name: String,
    /// `policy` or `subject`.
    bound_to: &'static str,
    /// The policy and its period, for a key that a policy ends.
    policy: Option<String>,
    /// The state in the words of SP 800-57.
    state: KeyState,
    /// When it was registered.
    registered_at: Time,
    /// Since when nothing relies on it.
    ended_at: Option<Time>,
    /// When it may be destroyed, once that is known.
    due_at: Option<Time>,
    /// When nobody can call its deletion off any more: of a key that opens nothing now and that its service deletes at a date.
    irrevocable_at: Option<Time>,
    /// How often somebody called its deletion off, or moved its date.
    called_off: u32,
    /// When it was read back as gone.
    destroyed_at: Option<Time>,
    /// What its end is worth; null before it.
    class: Option<SlotClass>,
    /// Why it is not destroyed, as of the last pass; null when it is, or before the first.
    waiting: Option<Waiting>,
}

impl OutsideLine {
    fn of(config: &Configuration, state: &OutsideState) -> Self {
        let OutsideState { row, body } = state;
        let spec = spec_of(config, row);
        let (policy, retired) = match spec.map(|spec| &spec.bound) {
            Some(BoundTo::Policy { policy, period: Some(period), .. }) => (Some(format!("{policy} {period}")), false),
            Some(BoundTo::Policy { policy, retired, .. }) => (Some(policy.clone()), *retired),
            _ => (body.declared.as_ref().and_then(|declared| declared.policy.clone()), false),
        };
        let recorded = match row.state.as_str() {
            "ended" | "destroying" | "doubtful" | "doomed" => "dying",
            other => other,
        };
        let is_held = body.wait.as_ref().is_some_and(|wait| wait.code == OutsideWait::Hold);
        Self {
            id: row.id.clone(),
            name: row.name.clone(),
            bound_to: if row.sealed.is_empty() { "policy" } else { "subject" },
            policy,
            state: state_of(RecordedKey {
                state: recorded,
                is_filled: true,
                seals: !retired,
                is_held,
                is_revocable: false,
            }),
            registered_at: row.registered_at.into(),
            ended_at: row.ended_at.map(Time::from),
            due_at: row.due_at.map(Time::from),
            irrevocable_at: state.irrevocable_at().map(Time::from),
            called_off: body.called_off,
            destroyed_at: row.destroyed_at.map(Time::from),
            class: body.evidence.as_ref().map(|evidence| evidence.claim.class),
            waiting: body.wait.clone(),
        }
    }

    /// Its state.
    pub fn state(&self) -> KeyState {
        self.state
    }
}

/// Lines of all keys that the agent answers for, or has destroyed.
pub fn lines(config: &Configuration, all: &[OutsideState]) -> Vec<OutsideLine> {
    let answered = all.iter().filter(|state| state.row.state != "released");
    answered.map(|state| OutsideLine::of(config, state)).collect()
}

/// Shows them, if there are any.
pub fn show_lines(output: &mut Output, lines: &[OutsideLine]) -> Result<(), UserError> {
    if lines.is_empty() {
        return Ok(());
    }
    let lang = output.lang();
    let titles = [
        ("outside key", "外部密钥"),
        ("of", "归属"),
        ("state (SP 800-57)", "状态 (SP 800-57)"),
        ("due", "到期"),
        ("why it waits", "等待原因"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh)));
    for line in lines {
        let of = line.policy.clone().unwrap_or_else(|| say(lang, "a subject", "一位客户").to_owned());
        let at = line.destroyed_at.or(line.irrevocable_at).or(line.due_at);
        let due = at.map_or_else(String::new, |at| at.to_string());
        let why = line.waiting.as_ref().map_or_else(String::new, |wait| wait_words(wait.code).in_lang(lang).to_owned());
        grid.row([&format!("{} ({})", line.name, line.id), &of, state_words(line.state).in_lang(lang), &due, &why]);
    }
    output.table(&grid)?;
    Ok(())
}

/// A key that waits as one line.
pub fn waiting_line(id: &str, name: &str, waiting: &Waiting) -> Words {
    let kind = wait_words(waiting.code);
    let (en, zh) = match &waiting.until {
        Some(until) => (format!(", until {until} at least"), format!("，至少到 {until}")),
        None => (String::new(), String::new()),
    };
    Words::new(
        format!("outside key {name} ({id}): {}{en} ({})", kind.en, waiting.what),
        format!("外部密钥 {name}（{id}）：{}{zh}（{}）", kind.zh, waiting.what),
    )
}

/// Why a key waits, without the sentence that goes with it.
fn wait_words(code: OutsideWait) -> Words {
    let (en, zh) = match code {
        OutsideWait::RowsRely => ("in use", "仍有行依赖"),
        OutsideWait::PeriodNotDue => ("its period is not due", "时段未到期"),
        OutsideWait::NotRetired => ("in use by the application", "应用仍在使用"),
        OutsideWait::NeverUsed => ("no row seen yet", "尚未见到相关的行"),
        OutsideWait::Grace => ("in grace", "宽限期未满"),
        OutsideWait::Hold => ("held", "有法律保留"),
        OutsideWait::OtherRun => ("waits for a run", "等待一次运行"),
        OutsideWait::Unconfigured => ("not in the configuration", "不在配置中"),
        OutsideWait::Unregistered => ("its entry does not fit", "其配置与登记不符"),
        OutsideWait::StoreUnreachable => ("a store cannot be read", "数据源无法读取"),
        OutsideWait::ServiceRefuses => ("the key service refuses or is away", "密钥服务拒绝或无法连接"),
        OutsideWait::NoSuchKey => ("the key service has no such key", "密钥服务中没有该密钥"),
        OutsideWait::Replaced => ("another key has its name", "同名的是另一把密钥"),
        OutsideWait::NameLost => ("its name is lost", "其名称已丢失"),
        OutsideWait::Irrevocable => ("gone at a date", "到期后删除"),
        OutsideWait::Needed => {
            ("gone at a date, and needed: until then it can be called off", "到期后删除，但仍被需要：到期前可撤回")
        }
    };
    Words::new(en, zh)
}

/// `key register`.
pub async fn register_key(context: &mut Context<'_>, args: RegisterArgs) -> CommandResult {
    context.only_now()?;
    let subject = read(context, args.from.is_some(), &Words::new("Customer id: ", "客户编号："))?;
    let key = read(context, args.from.is_some(), &Words::new("Name of the key: ", "密钥名称："))?;
    let installation = context.open(Needs { stores: true, ..Needs::STATE }).await?;
    let registered = register(&installation, &args.entry, &Subject::new(subject), &SecretText::new(key))
        .await
        .map_err(task_error)?;
    let id = &registered.id;
    context.output.say(&if registered.existing {
        Words::new(format!("the key is registered already, as {id}"), format!("该密钥已登记为 {id}"))
    } else {
        Words::new(
            format!("registered as {id}; it is destroyed once nothing of this customer relies on it"),
            format!("已登记为 {id}；一旦该客户没有数据依赖它，即予销毁"),
        )
    })?;
    if registered.may_have_left {
        context.output.note(&Words::new(
            "the key can leave the service, or was brought into it: its end will be a logical removal only",
            "该密钥可被导出，或是导入的：销毁将仅为逻辑删除",
        ))?;
    }
    if registered.clear_seen {
        context.output.note(&Words::new(
            "a value in clear stands in one of its fields: certificates will not claim that the end of the key erased them",
            "其字段中有明文：证书不会声称销毁密钥即擦除了它们",
        ))?;
    }
    context.output.document(&KeyRegisterDocument {
        result: Outcome::Complete,
        outside_key: registered.id.clone(),
        existing: registered.existing,
        may_have_left: registered.may_have_left,
        clear_seen: registered.clear_seen,
    })?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// `key unregister`.
pub async fn unregister_key(context: &mut Context<'_>, id: &str) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    unregister(&installation, id).await.map_err(task_error)?;
    context.output.say(&Words::new(
        format!("the agent does not answer for outside key {id} any more; the key itself lives on"),
        format!("代理不再负责外部密钥 {id}；密钥本身仍然存在"),
    ))?;
    context.output.document(&KeyUnregisterDocument { result: Outcome::Complete, outside_key: id.to_owned() })?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// One line that must not stand in the command line: it identifies a person, or may.
fn read(context: &Context<'_>, from_stdin: bool, prompt: &Words) -> Result<String, UserError> {
    let stdin = std::io::stdin();
    if !from_stdin {
        if !stdin.is_terminal() {
            let (en, zh) = ("standard input is not a terminal", "标准输入不是终端");
            return Err(usage("NO_ID", en, zh).advise("give `-` to read two lines from it", "用 `-` 从中读取两行"));
        }
        let _ = write!(std::io::stderr(), "{}", prompt.in_lang(context.lang()));
        let _ = std::io::stderr().flush();
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| UserError::from_any(error.into()))?;
    let text = line.trim();
    if text.is_empty() {
        return Err(usage("NO_ID", "the customer's id or the key's name is empty", "客户编号或密钥名称为空"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own() {
        use OutsideWait as Code;
        let codes = [
            Code::RowsRely,
            Code::PeriodNotDue,
            Code::NotRetired,
            Code::NeverUsed,
            Code::Grace,
            Code::Hold,
            Code::OtherRun,
            Code::Unconfigured,
            Code::Unregistered,
            Code::StoreUnreachable,
            Code::ServiceRefuses,
            Code::NoSuchKey,
            Code::Replaced,
            Code::NameLost,
            Code::Irrevocable,
            Code::Needed,
        ];
        let words = codes.map(wait_words);
        let texts: std::collections::HashSet<&str> =
            words.iter().flat_map(|words| [&words.en[..], &words.zh]).collect();
        assert_eq!(texts.len(), 2 * codes.len());
    }
}
