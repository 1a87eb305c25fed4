//! A drill's record as one page of HTML, for people to read and print: a view of what was signed, and nothing that was not.

use std::fmt::Write as _;

use super::super::context::local_time;
use super::super::html::{self, escape};
use super::super::output::table::grouped;
use super::super::output::{Lang, say};
use super::{collection_titles, picked_words};
use crate::config::Configuration;
use crate::tasks::drill::DrillRecord;

/// What the page is made of.
pub struct Page<'a> {
    /// What was signed, its signature checked.
    pub record: &'a DrillRecord,
    /// The digest of the signed envelope, hex.
    pub digest: String,
    /// For local times.
    pub config: &'a Configuration,
    /// The language.
    pub lang: Lang,
}

impl Page<'_> {
    /// The page.
    pub fn render(&self) -> String {
        let record = self.record;
        let title = self.word("Restore drill", "恢复演练");
        let mut out = html::head(self.lang, &format!("{title} {}", record.number));
        let _ = writeln!(out, "<h1>{title} {} {}</h1>", self.word("no.", "编号"), record.number);
        let verdict = match record.result.as_str() {
            "passed" => self.word("passed ✓", "通过 ✓"),
            _ => self.word("failed ✗", "未通过 ✗"),
        };
        let _ = writeln!(out, "<p><strong>{verdict}</strong></p>");
        self.facts(&mut out);
        self.collections(&mut out);
        self.problems(&mut out);
        self.proof(&mut out);
        out + html::END
    }

    fn word<'w>(&self, en: &'w str, zh: &'w str) -> &'w str {
        say(self.lang, en, zh)
    }

    fn facts(&self, out: &mut String) {
        let record = self.record;
        let zone = self.config.agent.timezone;
        let begun = format!(
            "{} {}",
            local_time(self.config, record.begun_at),
            record.begun_at.with_timezone(&zone).format("%:z")
        );
        let [opened, shredded, lost, corrupt, total] = record.frames.map(grouped);
        let [tried, keys] = record.tried.map(grouped);
        let scratch = self.word(
            if record.cleaned_up { "wiped" } else { "NOT wiped" },
            if record.cleaned_up { "已清除" } else { "未清除" },
        );
        let rows = [
            (self.word("drill", "演练"), record.drill.clone()),
            (self.word("begun", "开始"), begun),
            (self.word("by", "执行人"), record.operator.clone()),
            (self.word("store", "数据源"), record.store.clone()),
            (self.word("snapshot", "快照"), record.snapshot.clone()),
            (self.word("why this one", "选取原因"), picked_words(record).in_lang(self.lang).to_owned()),
            (self.word("snapshots read", "读取的快照数"), grouped(record.chain_length)),
            (self.word("frames in the manifests", "清单中的数据帧"), total),
            (self.word("opened", "打开"), opened),
            (self.word("shredded", "已销毁"), shredded),
            (self.word("key lost", "密钥丢失"), lost),
            (self.word("corrupt", "损坏"), corrupt),
            (self.word("shredded frames tried", "试开的已销毁数据帧"), tried),
            (self.word("keys tried on each", "每帧试用密钥数"), keys),
            (self.word("of them opened", "其中打开"), grouped(record.resurrected)),
            (self.word("erased rows that came back", "删除后又出现的行"), grouped(record.erased_reappeared)),
            (self.word("time to restore (RTO)", "恢复用时（RTO）"), format!("{:.1} s", record.rto_seconds)),
            (self.word("age of the data (RPO)", "数据时差（RPO）"), format!("{} s", record.rpo_seconds)),
            (self.word("scratch database", "临时数据库"), scratch.to_owned()),
        ];
        out.push_str("<table>\n");
        for (name, value) in rows {
            let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(&value));
        }
        out.push_str("</table>\n");
    }

    fn collections(&self, out: &mut String) {
        let _ = writeln!(out, "<h2>{}</h2>\n<table>\n<tr>", self.word("What was restored", "恢复结果"));
        for (en, zh) in collection_titles() {
            let _ = write!(out, "<th>{}</th>", self.word(en, zh));
        }
        out.push_str("</tr>\n");
        for (name, restored, shredded, erased, stubs) in &self.record.collections {
            let _ = write!(out, "<tr><td>{}</td>", escape(name));
            for rows in [restored, shredded, erased, stubs] {
                let _ = write!(out, "<td class=\"n\">{}</td>", grouped(*rows));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>\n");
    }

    fn problems(&self, out: &mut String) {
        if self.record.problems.is_empty() {
            return;
        }
        let _ = writeln!(out, "<h2>{}</h2>\n<ul>", self.word("What is wrong", "问题"));
        for problem in &self.record.problems {
            let _ = writeln!(out, "<li>{}</li>", escape(problem));
        }
        out.push_str("</ul>\n");
    }

    fn proof(&self, out: &mut String) {
        let record = self.record;
        let before = record.previous.as_deref().unwrap_or(self.word("none: it is the first", "无：这是第一份记录"));
        let _ = writeln!(out, "<h2>{}</h2>", self.word("Proof", "证明"));
        for (name, value) in [
            (self.word("this record", "本记录"), self.digest.as_str()),
            (self.word("the record before it", "上一份记录"), before),
            (self.word("the snapshot's manifest", "快照清单"), record.manifest_sha256.as_str()),
        ] {
            let _ = writeln!(out, "<p>{name}: SHA-256 <code>{}</code></p>", escape(value));
        }
        let view = self.word(
            "This page is a view. What counts is the signed record; check it with “wangchuan drill verify”.",
            "本页仅为视图，以签名记录为准；请用“wangchuan drill verify”核查。",
        );
        let _ = writeln!(out, "<p class=\"small\">{view}</p>");
    }
}
