//! A certificate as one page of HTML, for people to read and print: a view of what was signed, and nothing that was not. It needs no
//! other file and no network. The code at its end holds what a verifier starts from: id, digest, place in the log, signed head.

mod parts;

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use qrcodegen::{QrCode, QrCodeEcc};

use super::super::context::local_time;
use super::super::html::{self, escape};
use super::super::output::table::grouped;
use super::super::output::{Lang, Words, say};
use super::roll_up::rows;
use super::show::{code, explain, in_backups};
use crate::audit::acknowledgement::Acknowledgement;
use crate::audit::receipt::VerifiedReceipt;
use crate::certify::statement::{Predicate, RollUp, Timestamp};
use crate::certify::{Said, VerifiedCertificate};
use crate::config::Configuration;

/// Quiet modules around a code (ISO/IEC 18004 wants four).
const QUIET: i32 = 4;

/// What the page is made of.
pub struct Page<'a> {
    /// What was signed, its signature checked.
    pub certificate: &'a VerifiedCertificate,
    /// The verified receipt of a log, and what its grade is called; none while it stands in no log.
    pub receipt: Option<(&'a VerifiedReceipt, Words)>,
    /// The verified acknowledgement where there is no log, and what its grade is called.
    pub signed: Option<(Acknowledgement, Words)>,
    /// When it was stamped with the time, and by whom, verified.
    pub stamp: Option<(DateTime<Utc>, String)>,
    /// The number of the certificate that replaces this one.
    pub replaced_by: Option<i64>,
    /// For local times.
    pub config: &'a Configuration,
    /// The language.
    pub lang: Lang,
}

impl Page<'_> {
    /// The page.
    pub fn render(&self) -> String {
        let (title, number) = match &self.certificate.said {
            Said::Erasure(said) => (self.word("Deletion certificate", "删除证书"), said.predicate.sequence),
            Said::RollUp(said) => (self.word("Roll-up of certificates", "证书汇总"), said.predicate.sequence),
        };
        let mut out = html::head(self.lang, &format!("{title} {number}"));
        let _ = writeln!(out, "<h1>{title} {} {number}</h1>", self.word("no.", "编号"));
        if let Some(later) = self.replaced_by {
            let words = self.word("It was replaced by no.", "已被以下编号的证书取代：");
            let _ = writeln!(out, "<p><strong>{words} {later}</strong></p>");
        }
        match &self.certificate.said {
            Said::Erasure(said) => {
                self.facts(&mut out, &said.predicate);
                self.targets(&mut out, &said.predicate);
                self.reasons(&mut out, &said.predicate);
                self.copies(&mut out, &said.predicate);
                self.keys(&mut out, &said.predicate);
                self.medium(&mut out, &said.predicate);
                self.rest(&mut out, &said.predicate);
            }
            Said::RollUp(said) => self.roll_up(&mut out, &said.predicate),
        }
        self.proof(&mut out, self.certificate.id());
        out + html::END
    }

    fn word<'w>(&self, en: &'w str, zh: &'w str) -> &'w str {
        say(self.lang, en, zh)
    }

    fn time(&self, time: Timestamp) -> String {
        let zone = self.config.agent.timezone;
        format!("{} {}", local_time(self.config, time.instant()), time.instant().with_timezone(&zone).format("%:z"))
    }

    fn facts(&self, out: &mut String, predicate: &Predicate) {
        let issuer = &predicate.issuer;
        let by =
            format!("{} · {} ({}) {}", issuer.controller, issuer.agent_id, issuer.environment, issuer.agent_version);
        let reached = format!("{} / {}", predicate.scope.targets_reached, predicate.scope.targets_declared);
        let mut rows = vec![
            (self.word("result", "结果"), code(&predicate.result)),
            (self.word("certificate", "证书编号"), predicate.certificate_id.clone()),
            (self.word("issued", "签发时间"), self.time(predicate.issued_at)),
            (self.word("issued by", "签发者"), by),
            (self.word("reason", "原因"), code(&predicate.trigger.kind)),
            (self.word("begun", "开始"), self.time(predicate.started_at)),
            (self.word("ended", "结束"), self.time(predicate.finished_at)),
            (self.word("places reached", "实到/应到位置"), reached),
        ];
        if let Some(checked) = predicate.absence_checked_at {
            rows.push((self.word("absence last checked", "最近一次核查不存在"), self.time(checked)));
        }
        if let Some(policy) = &predicate.policy {
            rows.push((self.word("policy", "策略"), format!("{} {}", policy.id, policy.version)));
        }
        let residual = match predicate.residual_date {
            Some(date) => date.to_string(),
            None => self.word("none named", "未给出").to_owned(),
        };
        if predicate.refusal.is_none() {
            rows.push((self.word("residual date", "残留日期"), residual));
        }
        if let Some(since) = predicate.final_since {
            rows.push((self.word("final since", "终结于"), self.time(since)));
        }
        if let Some(slot) = &predicate.root_slot {
            rows.push((self.word("root slot", "根密钥槽"), format!("{} ({})", code(&slot.class), slot.kind)));
        }
        table(out, rows);
    }

    fn roll_up(&self, out: &mut String, said: &RollUp) {
        let issuer = &said.issuer;
        let by =
            format!("{} · {} ({}) {}", issuer.controller, issuer.agent_id, issuer.environment, issuer.agent_version);
        let head = [
            (Words::new("result", "结果"), code(&said.result)),
            (Words::new("certificate", "证书编号"), said.certificate_id.clone()),
            (Words::new("issued", "签发时间"), self.time(said.issued_at)),
            (Words::new("issued by", "签发者"), by),
        ];
        let rows = head.into_iter().chain(rows(self.config, said));
        let rows: Vec<(String, String)> =
            rows.map(|(name, value)| (name.in_lang(self.lang).to_owned(), value)).collect();
        table(out, rows.iter().map(|(name, value)| (name.as_str(), value.clone())));
    }

    fn targets(&self, out: &mut String, predicate: &Predicate) {
        let titles = [
            self.word("place", "位置"),
            self.word("action", "动作"),
            self.word("due", "到期"),
            self.word("erased", "删除"),
            self.word("anonymised", "匿名化"),
            self.word("kept", "保留"),
            self.word("failed", "失败"),
            self.word("checked by", "核查方式"),
            self.word("in backups", "备份中"),
        ];
        let _ = writeln!(out, "<h2>{}</h2>\n<table>\n<tr>", self.word("What was done", "执行内容"));
        for title in titles {
            let _ = write!(out, "<th>{title}</th>");
        }
        out.push_str("</tr>\n");
        for target in &predicate.targets {
            let numbers = [
                target.records_selected,
                target.records_erased,
                target.records_anonymized,
                target.records_retained,
                target.records_failed,
            ];
            let (en, zh) = in_backups(target.backups.state);
            let until = target.backups.expires_by.map_or_else(String::new, |date| format!(" ({date})"));
            let _ = write!(out, "<tr><td>{}</td><td>{}</td>", escape(&target.location), escape(&code(&target.action)));
            for number in numbers {
                let _ = write!(out, "<td class=\"n\">{}</td>", grouped(number));
            }
            let method = code(&target.verification.method);
            let _ = writeln!(out, "<td>{}</td><td>{}{until}</td></tr>", escape(&method), escape(self.word(en, zh)));
        }
        out.push_str("</table>\n");
    }

    fn rest(&self, out: &mut String, predicate: &Predicate) {
        if !predicate.retained.is_empty() {
            let _ = writeln!(out, "<h2>{}</h2>\n<ul>", self.word("What was kept, and why", "保留的内容及理由"));
            for kept in &predicate.retained {
                let target = predicate.targets.iter().find(|target| target.target_id == kept.target_id);
                let place = target.map_or(kept.target_id.as_str(), |target| target.location.as_str());
                let law = kept.provision.as_deref().map_or_else(String::new, |provision| format!(", {provision}"));
                let reason = format!("{place}: {} ({}{law})", grouped(kept.records), code(&kept.reason_code));
                let _ = writeln!(out, "<li>{}</li>", escape(&reason));
            }
            out.push_str("</ul>\n");
        }
        if !predicate.limitations.is_empty() {
            let _ = writeln!(out, "<h2>{}</h2>\n<ul>", self.word("What it does not claim", "本证书不作的保证"));
            for limitation in &predicate.limitations {
                let (en, zh) = explain(*limitation);
                let words = escape(self.word(en, zh));
                let _ = writeln!(out, "<li><code>{}</code> {words}</li>", escape(&code(limitation)));
            }
            out.push_str("</ul>\n");
        }
    }

    fn proof(&self, out: &mut String, id: &str) {
        let digest = hex::encode(self.certificate.digest);
        let _ = writeln!(out, "<h2>{}</h2>", self.word("Proof", "证明"));
        let _ = writeln!(
            out,
            "<p>SHA-256 <code>{digest}</code><br>{} <code>{}</code></p>",
            self.word("key", "密钥"),
            self.certificate.key_id
        );
        if let Some((at, by)) = &self.stamp {
            let at = self.time(Timestamp::from(*at));
            let words = Words::new(format!("Stamped {at} by {by}."), format!("由 {by} 于 {at} 加盖时间戳。"));
            let _ = writeln!(out, "<p>{}</p>", escape(words.in_lang(self.lang)));
        }
        let Some((receipt, grade)) = &self.receipt else {
            self.without_log(out);
            return;
        };
        let place = Words::new(
            format!(
                "Entry {} of {} in the log {} — grade {:?}: {}.",
                receipt.index, receipt.tree_size, receipt.origin, receipt.grade, grade.en
            ),
            format!(
                "日志 {} 共 {} 条，本证书为第 {} 条（从 0 起）— {:?} 级：{}。",
                receipt.origin, receipt.tree_size, receipt.index, receipt.grade, grade.zh
            ),
        );
        let _ = writeln!(out, "<p>{}</p>\n<pre>{}</pre>", escape(place.in_lang(self.lang)), escape(&receipt.note));
        let text = format!("{id}\n{digest}\nindex {}\n{}", receipt.index, receipt.note);
        if let Some(svg) = svg(&text) {
            let _ = writeln!(out, "{svg}");
        }
        self.view(out);
    }

    /// Who signed for it, where no log holds it.
    fn without_log(&self, out: &mut String) {
        let Some((signed, grade)) = &self.signed else {
            let _ = writeln!(out, "<p><strong>{}</strong></p>", self.word("not filed yet", "尚未存证"));
            return;
        };
        let at = self.time(Timestamp::from(signed.received_at));
        let words = Words::new(
            format!("Received at {at}, as the key {} signed — grade C: {}.", signed.key_id, grade.en),
            format!("密钥 {} 签名确认于 {at} 收到 — C 级：{}。", signed.key_id, grade.zh),
        );
        let _ = writeln!(out, "<p>{}</p>", escape(words.in_lang(self.lang)));
        self.view(out);
    }

    fn view(&self, out: &mut String) {
        let view = self.word(
            "This page is a view. What counts is the signed file; check it with “wangchuan certificate verify”.",
            "本页仅为视图，以签名文件为准；请用“wangchuan certificate verify”核查。",
        );
        let _ = writeln!(out, "<p class=\"small\">{view}</p>");
    }
}

fn table<'r>(out: &mut String, rows: impl IntoIterator<Item = (&'r str, String)>) {
    out.push_str("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(&value));
    }
    out.push_str("</table>\n");
}

/// A QR code as SVG; `None` when the text is too long for one.
fn svg(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{},{}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/><path d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_finders_and_its_quiet_zone() {
        let svg = svg("0190a1b2-c3d4-7abc-8def-0123456789ab").unwrap();
        assert!(svg.contains("M4,4h1v1h-1z"), "the first finder's corner");
        assert!(!svg.contains("M3,") && !svg.contains(",3h1"), "nothing in the quiet zone");
        assert!(super::svg(&"x".repeat(4000)).is_none(), "no code holds that much");
    }
}
