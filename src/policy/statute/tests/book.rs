//! The catalogue as data: what stands in it, and what of an installation's own entries is refused.

use super::*;

/// Every row of the catalogue with its jurisdiction, demand and status, written down a second time.
const ROWS: &str = "\
cn.pipl.19 CN no longer than necessary partly
cn.pipl.56 CN at least 3 years confirmed
cn.ndsr.12 CN at least 3 years partly
cn.ndsr.24 CN no period partly
cn.csl.log CN at least 6 months confirmed
cn.ecl.31 CN at least 3 years confirmed
cn.live.video CN at least 3 years partly
cn.aml.kyc CN at least 10 years partly
cn.aml.tx CN at least 10 years confirmed
cn.acct.voucher CN at least 30 years confirmed
cn.acct.report CN at least 10 years confirmed
cn.acct.annual CN permanently partly
cn.tax.29 CN at least 10 years partly
cn.med.out CN at least 15 years confirmed
cn.med.in CN at least 30 years confirmed
cn.labour.50 CN at least 2 years confirmed
cn.wage.6 CN at least 2 years unconfirmed
cn.sec.137 CN at least 20 years unconfirmed
cn.fund.102 CN at least 20 years confirmed
cn.sec.162 CN at least 10 years unconfirmed
cn.ins.87 CN at least 10 years unconfirmed
cn.ins.87.short CN at least 5 years unconfirmed
cn.credit.16 CN at most 5 years confirmed
cn.isp.14 CN at least 60 days unconfirmed
cn.telecom.9 CN no period unconfirmed
cn.video.30 CN at least 30 days partly
cn.video.90 CN at least 90 days partly
cn.face CN no longer than necessary confirmed
cn.child CN no longer than necessary partly
cn.ride.27 CN at least 2 years unconfirmed
cn.esign.24 CN at least 5 years unconfirmed
cn.proof.188 CN at least 3 years unconfirmed
cn.proof.188.cap CN at most 20 years unconfirmed
eu.gdpr.5e EU no longer than necessary confirmed
us.ca.7101 US-CA at least 2 years confirmed";

#[test]
fn the_catalogue_has_every_row_as_it_was_found() {
    let rows: Vec<String> = BOOK
        .statutes
        .iter()
        .map(|row| format!("{} {} {} {}", row.key, row.jurisdiction, row.bound, row.status))
        .collect();
    assert_eq!(rows, ROWS.lines().collect::<Vec<_>>());
    let fiscal: Vec<&str> = BOOK
        .statutes
        .iter()
        .filter(|row| row.start == StartRule::AfterFiscalYear)
        .map(|row| row.key.as_str())
        .collect();
    assert_eq!(fiscal, ["cn.acct.voucher", "cn.acct.report", "cn.acct.annual", "cn.tax.29"]);
    assert_eq!(BOOK.find("cn.ecl.31").unwrap().source(), "E-commerce Law 31");
    assert_eq!(
        cited(&BOOK.find("cn.med.in").unwrap().cites).zh,
        "医疗机构病历管理规定（2013年版）；医疗机构管理条例实施细则 53"
    );
    let unknown = BOOK.find_all(&["cn.ecl.31".to_owned(), "cn.ecl.32".to_owned()]);
    assert_eq!(unknown, Err(UnknownStatute("cn.ecl.32".to_owned())));
}

#[test]
fn the_clocks_are_those_that_were_found() {
    let clocks: Vec<String> = BOOK
        .clocks
        .iter()
        .map(|clock| {
            let steps: Vec<String> = clock
                .steps
                .iter()
                .map(|step| step.within.map_or_else(|| "-".to_owned(), |within| within.to_string()))
                .collect();
            format!("{} {} {}", clock.key, clock.status, steps.join(", "))
        })
        .collect();
    assert_eq!(
        clocks,
        [
            "cn.breach.57 unconfirmed at once",
            "cn.incident.cac confirmed 1 hour, 2 hours, 4 hours, 30 days",
            "cn.ndsr.10 partly 24 hours",
            "cn.dsr unconfirmed 30 days, 15 working days",
            "cn.port.25 partly -",
            "cn.audit confirmed 2 years, 15 working days",
            "eu.dsr unconfirmed 1 month, 3 months",
            "eu.breach confirmed 72 hours, at once",
            "eu.recipients partly -",
            "us.ca.dsr confirmed 10 working days, 45 days, 90 days",
        ]
    );
    for text in ["at once", "1 hour", "15 working days", "2 years"] {
        assert_eq!(text.parse::<clock::Within>().unwrap().to_string(), text);
    }
    for malformed in ["", "soon", "0 days", "3", "3 weeks", "-1 days", "3  days"] {
        assert!(malformed.parse::<clock::Within>().is_err(), "{malformed}");
    }
    assert_eq!("15 working days".parse::<clock::Within>().unwrap().zh(), "15 个工作日");
}

#[test]
fn industries_differ_for_the_same_closed_account() {
    let earliest = |profile: &str, records: &str| {
        let kind = BOOK.profile(profile).unwrap().kind(records).unwrap();
        let keys: Vec<&str> = kind.statutes.iter().map(String::as_str).collect();
        bounds_of("2020-01-01", "1 day", &keys).earliest
    };
    let at = |day| Earliest::At(shanghai(day));
    assert_eq!(earliest("finance", "account"), at("2030-01-01"));
    assert_eq!(earliest("ecommerce", "account"), at("2023-01-01"));
    assert_eq!(earliest("medical", "outpatient"), at("2035-01-01"));
    assert_eq!(earliest("medical", "inpatient"), at("2050-01-01"));
    assert_eq!(earliest("medical", "account"), at("2050-01-01"), "the longer of the two");
    assert_eq!(earliest("consulting", "account"), at("2020-01-02"), "nothing but the policy");
    let names: Vec<&str> = BOOK.profiles.iter().map(|profile| profile.name.as_str()).collect();
    assert_eq!(names, ["ecommerce", "finance", "medical", "consulting"]);
    for profile in &BOOK.profiles {
        for common in ["account", "order", "outpatient", "voucher", "log", "marketing", "staff"] {
            let is_there = profile.kind(common).is_some();
            let special = ["order", "outpatient"].contains(&common);
            assert!(is_there || special, "{} has no {common}", profile.name);
        }
    }
}

fn own(entries: &str) -> Result<Catalogue, CatalogueError> {
    let file: CatalogueFile = toml::from_str(&format!("version = 7\n{entries}"))
        .map_err(|error| CatalogueError::Malformed(error.to_string()))?;
    BOOK.clone().with(file)
}

fn entry(key: &str, rest: &str) -> String {
    format!(
        "[[statute]]\nkey = \"{key}\"\njurisdiction = \"CN\"\napplies_to = {{ en = \"x\", zh = \"甲\" }}\n\
         start_event = {{ en = \"x\", zh = \"甲\" }}\ncites = [{{ en = \"Law\", zh = \"法\", article = \"1\" }}]\n{rest}\n"
    )
}

#[test]
fn own_entries_go_before_the_built_in_ones() {
    let longer = "bound = \"minimum\"\nperiod = \"5 years\"\nstatus = \"unconfirmed\"";
    let law = own(&format!("{}{}", entry("cn.ecl.31", longer), entry("cn.company.1", longer))).unwrap();
    assert_eq!(law.find("cn.ecl.31").unwrap().bound, LegalBound::Minimum(Period::of_years(5)));
    assert_eq!(law.statutes.len(), BOOK.statutes.len() + 1);
    assert_eq!(law.find("cn.company.1").unwrap().status, Status::Unconfirmed);
    assert_eq!(law.version, CatalogueVersion { built_in: BOOK.version.built_in, own: Some(7) });
    assert_eq!((BOOK.version.to_string(), law.version.to_string()), ("1".to_owned(), "1 + 7".to_owned()));
    let profile = "[[profile]]\nname = \"consulting\"\ntitle = { en = \"x\", zh = \"甲\" }\n\
        records = [{ name = \"account\", title = { en = \"x\", zh = \"甲\" }, statutes = [\"cn.ecl.31\"] }]\n";
    let law = own(profile).unwrap();
    assert_eq!((law.profiles.len(), law.profile("consulting").unwrap().records.len()), (4, 1));
}

#[test]
fn only_a_confirmed_entry_lets_records_go_earlier() {
    let with = |key: &str, bound: &str, status: &str| own(&entry(key, &format!("{bound}\nstatus = \"{status}\"")));
    let looser = [
        ("cn.ecl.31", "bound = \"minimum\"\nperiod = \"2 years\""),
        ("cn.ecl.31", "bound = \"minimum\"\nperiod = \"1095 days\""),
        ("cn.ecl.31", "bound = \"duty\""),
        ("cn.ecl.31", "bound = \"maximum\"\nperiod = \"9 years\""),
        ("cn.acct.annual", "bound = \"minimum\"\nperiod = \"100 years\""),
        ("cn.tax.29", "bound = \"minimum\"\nperiod = \"10 years\""),
    ];
    for (key, bound) in looser {
        for status in ["partly", "unconfirmed"] {
            let error = with(key, bound, status).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("only a confirmed entry"), "{error}");
        }
        assert!(with(key, bound, "confirmed").is_ok(), "{key} {bound}");
    }
    let not_looser = [
        ("cn.ecl.31", "bound = \"permanent\""),
        ("cn.tax.29", "bound = \"minimum\"\nperiod = \"11 years\""),
        ("cn.credit.16", "bound = \"maximum\"\nperiod = \"9 years\""),
        ("cn.pipl.19", "bound = \"duty\""),
    ];
    for (key, bound) in not_looser {
        assert!(with(key, bound, "unconfirmed").is_ok(), "{key} {bound}");
    }
}

#[test]
fn a_catalogue_that_contradicts_itself_is_refused() {
    let minimum = "bound = \"minimum\"\nperiod = \"5 years\"\nstatus = \"confirmed\"";
    let good = entry("cn.x", minimum);
    let cases = [
        (entry("cn.x", "bound = \"minimum\"\nstatus = \"confirmed\""), "needs a `period`"),
        (entry("cn.x", "bound = \"permanent\"\nperiod = \"1 year\"\nstatus = \"confirmed\""), "has no `period`"),
        (entry("cn.x", "bound = \"maximum\"\nperiod = \"0 days\"\nstatus = \"confirmed\""), "period is empty"),
        (entry("cn.x", "bound = \"minimum\"\nperiod = \"5 yaers\"\nstatus = \"confirmed\""), "not a period"),
        (entry("cn.x", "bound = \"minimum\"\nperiod = \"5 years\"\nstatus = \"sure\""), "unknown variant"),
        (format!("{good}sttus = 1\n"), "unknown field"),
        (format!("{good}{good}"), "stands there twice"),
        (entry("eu.x", minimum), "begins with cn."),
        (entry("cn.x:y", minimum), "a key has"),
        (good.replace("\"CN\"", "\"China\""), "no jurisdiction"),
        (good.replace("[{ en = \"Law\", zh = \"法\", article = \"1\" }]", "[]"), "cites no law"),
        (good.replace("zh = \"甲\"", "zh = \" \""), "text is empty"),
        ("[[profile]]\nname = \"x\"\ntitle = { en = \"x\", zh = \"甲\" }\nrecords = [{ name = \"a\", title = { en = \"x\", zh = \
          \"甲\" }, statutes = [\"cn.nothing\"] }]".to_owned(), "cn.nothing"),
    ];
    assert!(own(&good).is_ok());
    for (text, expected) in cases {
        let error = own(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} is missing in: {error}");
    }
}
