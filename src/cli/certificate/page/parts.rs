//! The sections of the page between what was done and its proof: why and by whose word, declared copies, keys, an outside key.

use std::fmt::Write as _;

use super::super::super::html::escape;
use super::super::show::code;
use super::{Page, table};
use crate::certify::codes::CopyState;
use crate::certify::statement::Predicate;

impl Page<'_> {
    /// Policy, law, who agreed, and which kinds of fields.
    pub(super) fn reasons(&self, out: &mut String, said: &Predicate) {
        let mut rows = Vec::new();
        if let Some(received) = said.trigger.received_at {
            rows.push((self.word("asked for", "提出时间"), self.time(received)));
        }
        if let Some(due) = said.trigger.due_at {
            rows.push((self.word("to be answered by", "答复期限"), self.time(due)));
        }
        if let Some(period) = said.policy.as_ref().and_then(|policy| policy.retention_period.as_ref()) {
            rows.push((self.word("retention period", "保留期限"), period.clone()));
        }
        for law in &said.legal_basis {
            rows.push((self.word("legal basis", "法律依据"), format!("{} {}", law.regime, law.provision)));
        }
        for approval in &said.approvals {
            let who = format!("{} {} · {}", approval.role, approval.actor_ref, self.time(approval.approved_at));
            rows.push((self.word("approved by", "批准人"), who));
        }
        if !said.scope.data_categories.is_empty() {
            rows.push((self.word("kinds of data", "数据类别"), said.scope.data_categories.join(", ")));
        }
        for subject in &said.scope.subject_refs {
            rows.push((self.word("about (pseudonym)", "当事人（化名）"), subject.clone()));
        }
        section(out, self.word("Why, and by whose word", "依据与批准"), rows);
    }

    /// Copies that the program does not make, and what is known of them.
    pub(super) fn copies(&self, out: &mut String, said: &Predicate) {
        let mut rows: Vec<(String, String)> = Vec::new();
        for target in &said.targets {
            let store = target.location.split_once('/').map_or(target.location.as_str(), |(store, _)| store);
            for copy in &target.copies {
                let state = match copy.state {
                    CopyState::Absent => self.word("looked at: not in it", "已查看，其中没有"),
                    CopyState::Destroyed => self.word("ended with its medium", "已随介质销毁"),
                    CopyState::Expires => self.word("dies by its declared date", "按声明的日期失效"),
                    CopyState::Unread => self.word("not looked at, no date", "未查看，无期限"),
                };
                let until = copy.dies_by.map_or_else(String::new, |date| format!(" ({date})"));
                rows.push((format!("{store} · {}", copy.copy_ref), format!("{state}{until}")));
            }
        }
        rows.sort_unstable();
        rows.dedup();
        let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        section(out, self.word("Declared copies", "已声明的副本"), rows);
    }

    /// Destroyed keys, and an application's own key.
    pub(super) fn keys(&self, out: &mut String, said: &Predicate) {
        let mut shown: Vec<&str> = Vec::new();
        let mut rows = Vec::new();
        for key in said.targets.iter().flat_map(|target| &target.keys) {
            if shown.contains(&key.key_id_sha256.as_str()) {
                continue;
            }
            shown.push(&key.key_id_sha256);
            let ended = match key.destroyed_at {
                Some(at) => format!("{} {}", self.word("destroyed", "销毁于"), self.time(at)),
                None => self.word("to be destroyed", "待销毁").to_owned(),
            };
            rows.push((key.key_id_sha256.as_str(), format!("{} · {} · {ended}", key.kms, key.algorithm)));
        }
        if let Some(key) = &said.outside_key {
            let fields = key.fields.join(", ");
            rows.push((key.name.as_str(), format!("{} · {} · {fields}", key.kind, code(&key.class))));
        }
        section(out, self.word("Keys", "密钥"), rows);
    }
}

fn section(out: &mut String, title: &str, rows: Vec<(&str, String)>) {
    if !rows.is_empty() {
        let _ = writeln!(out, "<h2>{}</h2>", escape(title));
        table(out, rows);
    }
}
