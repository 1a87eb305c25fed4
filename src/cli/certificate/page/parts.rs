//! The sections of the page between what was done and its proof: why and by whose word, declared copies, keys, media.

use std::fmt::Write as _;

use super::super::super::html::escape;
use super::super::show::{code, refusal_words};
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
        for refused in said.refusal.iter().flat_map(refusal_words) {
            rows.push((self.word("refusal", "未予删除"), refused.in_lang(self.lang).to_owned()));
        }
        if let Some(refusal) = &said.refusal {
            let by = refusal.decided_by.as_ref().map_or_else(String::new, |who| format!(" · {who}"));
            rows.push((self.word("decided", "决定"), format!("{}{by}", self.time(refusal.decided_at))));
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

    /// A medium that was destroyed or lost.
    pub(super) fn medium(&self, out: &mut String, said: &Predicate) {
        let mut rows = Vec::new();
        if let Some(end) = &said.medium {
            rows.push((self.word("kind", "种类"), end.kind.name().to_owned()));
            rows.push((self.word("sanitised", "清除时间"), self.time(end.sanitized_at)));
            rows.push((self.word("technique", "方法"), format!("{} ({})", end.technique.name(), end.standard)));
            rows.push((self.word("done by (pseudonym)", "执行人（化名）"), end.performed_by.clone()));
            rows.extend(
                end.witnesses.iter().map(|who| (self.word("witness (pseudonym)", "见证人（化名）"), who.clone())),
            );
            rows.push((self.word("looked at afterwards", "事后核查"), end.checked.name().to_owned()));
            let evidence = end
                .evidence_sha256
                .iter()
                .map(|digest| (self.word("evidence SHA-256", "证据 SHA-256"), digest.clone()));
            rows.extend(evidence);
            rows.extend(end.copies.iter().map(|copy| (self.word("copy that ended", "随之终结的副本"), copy.clone())));
        }
        if let Some(lost) = &said.lost_medium {
            rows.push((self.word("kind", "种类"), lost.kind.name().to_owned()));
            rows.push((self.word("lost", "丢失时间"), self.time(lost.lost_at)));
            rows.push((self.word("reported by (pseudonym)", "报告人（化名）"), lost.reported_by.clone()));
            let chains = format!("{} / {}", lost.chains_destroyed, lost.chains);
            rows.push((self.word("chains of snapshots that open no more", "已无法打开的快照链"), chains));
            rows.extend(lost.copies.iter().map(|copy| (self.word("copy in clear", "未加密的副本"), copy.clone())));
        }
        section(out, self.word("Medium", "介质"), rows);
    }
}

fn section(out: &mut String, title: &str, rows: Vec<(&str, String)>) {
    if !rows.is_empty() {
        let _ = writeln!(out, "<h2>{}</h2>", escape(title));
        table(out, rows);
    }
}
