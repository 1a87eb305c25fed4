//! The built-in catalogue, one row per statute. Periods and articles are as the sources named in each row give them; the status
//! says how far that was confirmed. A lawyer must confirm a row before anybody relies on it.

use super::LegalBound::{Duty, Maximum, Minimum, Necessary, Permanent};
use super::StartRule::{AfterFiscalYear, Event};
use super::Status::{Confirmed, Partly, Unconfirmed};
use super::{LegalBound, StartRule, Status, Statute};
use crate::policy::calendar::Period;

const fn years(years: u32) -> LegalBound {
    Minimum(Period::of_years(years))
}

const fn days(days: u32) -> LegalBound {
    Minimum(Period::of_days(days))
}

const fn months(months: u32) -> LegalBound {
    Minimum(Period::of_months(months))
}

#[expect(clippy::too_many_arguments, reason = "one argument per column of the table below")]
const fn row(
    key: &'static str,
    jurisdiction: &'static str,
    applies_to: &'static str,
    bound: LegalBound,
    start: StartRule,
    start_event: &'static str,
    source: &'static str,
    status: Status,
) -> Statute {
    Statute { key, jurisdiction, applies_to, bound, start, start_event, source, status }
}

/// All entries.
#[rustfmt::skip]
pub static CATALOGUE: &[Statute] = &[
    row("cn.pipl.19", "CN", "all personal information", Necessary, Event, "purpose achieved",
        "Personal Information Protection Law 19", Partly),
    row("cn.pipl.56", "CN", "impact assessments and records of processing", years(3), Event, "date of the report",
        "Personal Information Protection Law 55-56", Confirmed),
    row("cn.ndsr.12", "CN", "records of providing or entrusting personal information or important data", years(3), Event,
        "date of the record", "网络数据安全管理条例 (State Council 790) 12", Partly),
    row("cn.ndsr.24", "CN", "unavoidable over-collection and cancelled accounts: delete, anonymise or restrict", Duty, Event,
        "cancellation", "网络数据安全管理条例 (State Council 790) 24", Partly),
    row("cn.csl.log", "CN", "network logs", months(6), Event, "log creation",
        "Cybersecurity Law 21(3), numbered 23 from 2026-01-01", Confirmed),
    row("cn.ecl.31", "CN", "platforms: goods, service and transaction data", years(3), Event, "transaction completed",
        "E-commerce Law 31", Confirmed),
    row("cn.live.video", "CN", "recordings of live commerce", years(3), Event, "end of the stream",
        "网络交易监督管理办法 20; 直播电商监督管理办法", Partly),
    row("cn.aml.kyc", "CN", "financial institutions: customer identity data", years(10), Event, "business relationship ended",
        "Anti-Money-Laundering Law (2024) 34", Partly),
    row("cn.aml.tx", "CN", "financial institutions: transaction data; longer while an investigation is open", years(10), Event,
        "transaction ended", "Anti-Money-Laundering Law (2024) 34", Confirmed),
    row("cn.acct.voucher", "CN", "accounting vouchers and ledgers", years(30), AfterFiscalYear, "first day after the fiscal year",
        "会计档案管理办法 (Order 79) 14 and annex", Confirmed),
    row("cn.acct.report", "CN", "monthly, quarterly and half-year reports, bank statements, tax returns", years(10),
        AfterFiscalYear, "first day after the fiscal year", "会计档案管理办法 (Order 79) 14 and annex", Confirmed),
    row("cn.acct.annual", "CN", "annual statements, lists of destruction, appraisal opinions", Permanent, AfterFiscalYear,
        "none: permanent", "会计档案管理办法 (Order 79) 14, 17-20 and annex", Partly),
    row("cn.tax.29", "CN", "books, vouchers and invoices that concern taxes", years(10), AfterFiscalYear,
        "not stated: first day after the fiscal year", "税收征收管理法实施细则 29", Partly),
    row("cn.med.out", "CN", "outpatient records", years(15), Event, "last visit",
        "医疗机构病历管理规定 (2013); 医疗机构管理条例实施细则 53", Confirmed),
    row("cn.med.in", "CN", "inpatient records", years(30), Event, "last discharge",
        "医疗机构病历管理规定 (2013); 医疗机构管理条例实施细则 53", Confirmed),
    row("cn.labour.50", "CN", "ended labour contracts", years(2), Event, "termination", "Labour Contract Law 50", Confirmed),
    row("cn.wage.6", "CN", "wage records", years(2), Event, "payment", "工资支付暂行规定 6", Unconfirmed),
    row("cn.sec.137", "CN", "securities firms: client, order and trade data", years(20), Event,
        "not stated: closure of the account", "Securities Law (2019) 137", Unconfirmed),
    row("cn.fund.102", "CN", "registers of fund units", years(20), Event, "fund account closed",
        "Securities Investment Fund Law 102", Confirmed),
    row("cn.sec.162", "CN", "files of securities service institutions", years(10), Event, "engagement ended",
        "Securities Law (2019) 162", Unconfirmed),
    row("cn.ins.87", "CN", "insurance business files, terms over one year", years(10), Event, "contract ended",
        "Insurance Law 87", Unconfirmed),
    row("cn.ins.87.short", "CN", "insurance business files, terms up to one year", years(5), Event, "contract ended",
        "Insurance Law 87", Unconfirmed),
    row("cn.credit.16", "CN", "adverse credit records", Maximum(Period::of_years(5)), Event, "adverse act or event ended",
        "征信业管理条例 16", Confirmed),
    row("cn.isp.14", "CN", "internet content and access records; cn.csl.log is longer", days(60), Event, "record",
        "互联网信息服务管理办法 14; 互联网上网服务营业场所管理条例 23", Unconfirmed),
    row("cn.telecom.9", "CN", "telecom and internet users: stop collecting and using, offer cancellation", Duty, Event,
        "service ended", "MIIT Order 24 (2013) 9", Unconfirmed),
    row("cn.video.30", "CN", "public-safety video", days(30), Event, "capture", "公共安全视频图像信息系统管理条例", Partly),
    row("cn.video.90", "CN", "video at key sites of counter-terrorism", days(90), Event, "capture",
        "Counter-terrorism Law 32", Partly),
    row("cn.face", "CN", "face data, which stays in the device", Necessary, Event, "purpose achieved",
        "人脸识别技术应用安全管理办法", Confirmed),
    row("cn.child", "CN", "personal information of children under 14; delete promptly when a guardian asks", Necessary, Event,
        "request", "儿童个人信息网络保护规定 20; Minors Law 72; Personal Information Protection Law 31", Partly),
    row("cn.ride.27", "CN", "operation data of ride-hailing", years(2), Event, "record",
        "网络预约出租汽车经营服务管理暂行办法 27", Unconfirmed),
    row("cn.esign.24", "CN", "data of electronic certificates", years(5), Event, "certificate expired",
        "Electronic Signature Law 24", Unconfirmed),
    row("cn.proof.188", "CN", "deletion certificates and request files, as evidence", years(3), Event,
        "act, or knowledge of harm", "Civil Code 188; Personal Information Protection Law 69", Unconfirmed),
    row("eu.gdpr.5e", "EU", "all personal data", Necessary, Event, "purpose achieved", "GDPR 5(1)(e), 17(1), 17(3)", Confirmed),
    row("us.ca.7101", "US-CA", "consumer requests and the responses to them", months(24), Event, "date of the request",
        "11 CCR 7101", Confirmed),
];
