//! A roll-up in words: what was certified and filed since the one before.

use super::super::context::local_time;
use super::super::output::Words;
use super::super::output::table::grouped;
use crate::certify::statement::{RollUp, Timestamp};
use crate::config::Configuration;

/// What it says, as name and value.
pub fn rows(config: &Configuration, said: &RollUp) -> Vec<(Words, String)> {
    let time = |time: Timestamp| local_time(config, time.instant());
    let number = grouped;
    let (runs, receipts) = (&said.run_totals, &said.receipt_totals);
    let range = match (said.certificate_totals.first_sequence, said.certificate_totals.last_sequence) {
        (Some(first), Some(last)) => format!("{} ({first}–{last})", number(said.certificate_totals.issued)),
        _ => number(0),
    };
    let grades = [("A", receipts.grade_a), ("B", receipts.grade_b), ("C", receipts.grade_c), ("D", receipts.grade_d)];
    let graded: Vec<String> = grades
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(grade, count)| format!("{grade}: {}", number(count)))
        .collect();
    let graded = if graded.is_empty() { number(0) } else { graded.join(", ") };
    let log = &said.operation_log;
    vec![
        (Words::new("period", "期间"), format!("{} – {}", time(said.from), time(said.until))),
        (Words::new("runs ended", "已结束的运行"), number(runs.ended)),
        (Words::new("without a certificate", "无证书的运行"), number(runs.without_certificate)),
        (Words::new("certificates", "证书"), range),
        (Words::new("receipts by grade", "各级回执"), graded),
        (Words::new("not filed yet", "尚未存证"), number(receipts.waiting)),
        (Words::new("refused by the audit service", "被审计服务拒绝"), number(receipts.refused)),
        (Words::new("not filed, of earlier periods", "以往期间尚未存证"), number(receipts.waiting_before)),
        (Words::new("operation log", "操作日志"), format!("{} · {}", number(log.size), log.root_hash)),
    ]
}
