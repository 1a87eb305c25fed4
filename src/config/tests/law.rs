//! Statutes, profiles and an installation's own catalogue, as the configuration names them.

use super::*;
use crate::policy::mask;

fn with_policy(from: &str, to: &str) -> Result<Configuration, String> {
    let policy = POLICY.replace(from, to);
    assert_ne!(policy, POLICY);
    read(&format!("{HEAD}{SHOP}{policy}"))
}

fn in_agent(line: &str, policy: &str) -> Result<Configuration, String> {
    read(&format!("{}{SHOP}{policy}", HEAD.replace("site = \"shanghai\"", line)))
}

#[test]
fn a_retention_shorter_than_a_minimum_is_warned_about() {
    let configuration = with_policy("\"3 years\"", "\"2 years\"").unwrap();
    let [warning] = configuration.warnings.as_slice() else { panic!("{:?}", configuration.warnings) };
    for part in ["completed-orders", "2 years", "cn.ecl.31", "E-commerce Law 31", "at least 3 years"] {
        assert!(warning.contains(part), "{part} is missing in: {warning}");
    }
}

#[test]
fn a_retention_longer_than_a_confirmed_maximum_is_refused() {
    let error = with_policy("retention = \"3 years\"", "retention = \"6 years\"").map(|_| ());
    assert_eq!(error, Ok(()), "no maximum binds it");
    let text = POLICY.replace("3 years", "6 years").replace("cn.ecl.31", "cn.credit.16");
    assert_eq!(
        error_of(&format!("{HEAD}{SHOP}{text}")),
        "\
wangchuan.toml:33:13: policy completed-orders keeps records for 6 years, but statute cn.credit.16 (Credit Reporting Industry \
Regulations 16) wants them kept at most 5 years
    |
 33 | retention = \"6 years\"
    |             ^^^^^^^^^
    = do: shorten `retention`, or correct `statutes`"
    );
    assert!(read(&format!("{HEAD}{SHOP}{}", text.replace("6 years", "5 years"))).unwrap().warnings.is_empty());
}

fn error_of(text: &str) -> String {
    read(text).map(|_| ()).unwrap_err()
}

#[test]
fn contradictions_and_unconfirmed_maxima_are_warned_about() {
    let both = with_policy("[\"cn.ecl.31\"]", "[\"cn.aml.tx\", \"cn.credit.16\"]").unwrap();
    assert!(both.warnings.iter().any(|warning| warning.contains("cn.aml.tx") && warning.contains("restricted")));
    let cap = with_policy("[\"cn.ecl.31\"]", "[\"cn.ecl.31\", \"cn.proof.188.cap\"]").unwrap();
    let [warning] = cap.warnings.as_slice() else { panic!("{:?}", cap.warnings) };
    assert!(warning.contains("cn.proof.188.cap is unconfirmed"), "{warning}");
}

#[test]
fn a_profile_adds_the_statutes_of_its_kind_of_records() {
    let records = POLICY.replace("statutes = [\"cn.ecl.31\"]", "records = \"account\"");
    let statutes = |line: &str, policy: &str| {
        let configuration = in_agent(line, policy).unwrap();
        configuration.registry.policies[0].statutes.join(" ")
    };
    assert_eq!(statutes("profile = \"finance\"", &records), "cn.aml.kyc");
    assert_eq!(statutes("profile = \"ecommerce\"", &records), "cn.ecl.31");
    assert_eq!(statutes("profile = \"medical\"", &records), "cn.med.out cn.med.in");
    assert_eq!(statutes("profile = \"consulting\"", &records), "");
    let of_its_own = format!("{records}profile = \"finance\"\n");
    assert_eq!(statutes("profile = \"medical\"", &of_its_own), "cn.aml.kyc", "the policy's own profile counts");
    let named = format!("{records}statutes = [\"cn.csl.log\", \"cn.ecl.31\"]\n");
    assert_eq!(statutes("profile = \"ecommerce\"", &named), "cn.csl.log cn.ecl.31", "each once");
    let shown = in_agent("profile = \"finance\"", &records).unwrap();
    assert!(shown.show().contains("records = \"account\"") && !shown.show().contains("cn.aml.kyc"), "{}", shown.show());
}

#[test]
fn profiles_and_records_that_do_not_exist_are_faults() {
    let records = POLICY.replace("statutes = [\"cn.ecl.31\"]", "records = \"acount\"");
    let faults = |line: &str, policy: &str| in_agent(line, policy).map(|_| ()).unwrap_err();
    assert!(faults("profile = \"finnance\"", POLICY).contains("did you mean `finance`"));
    assert!(faults("profile = \"finance\"", &records).contains("did you mean `account`"));
    assert!(faults("site = \"x\"", &records).contains("`records` needs an industry profile"));
    assert!(faults("site = \"x\"", &format!("{POLICY}profile = \"banking\"\n")).contains("no profile `banking`"));
    let nothing = POLICY.replace("statutes = [\"cn.ecl.31\"]\n", "");
    let warned = in_agent("profile = \"finance\"", &nothing).unwrap();
    assert!(warned.warnings.iter().any(|warning| warning.contains("neither `records` nor `statutes`")));
}

#[test]
fn masks_come_from_the_agent_or_from_its_profile() {
    let masks = |line: &str| in_agent(line, POLICY).unwrap().masks();
    assert_eq!(masks("site = \"x\""), mask::Profile::Standard);
    assert_eq!(masks("profile = \"finance\""), mask::Profile::Strict);
    assert_eq!(masks("profile = \"finance\"\nmasks = \"standard\""), mask::Profile::Standard);
    assert_eq!(masks("masks = \"strict\""), mask::Profile::Strict);
}

#[test]
fn an_own_catalogue_is_read_and_its_faults_have_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statutes.toml");
    let line = format!("statutes = {:?}", path.to_str().unwrap());
    let entry = "version = 2\n[[statute]]\nkey = \"cn.ecl.31\"\njurisdiction = \"CN\"\nbound = \"minimum\"\nperiod = \"5 years\"\n\
        applies_to = { en = \"x\", zh = \"甲\" }\nstart_event = { en = \"x\", zh = \"甲\" }\n\
        cites = [{ en = \"Law\", zh = \"法\" }]\nstatus = \"confirmed\"\n";
    std::fs::write(&path, entry).unwrap();
    let configuration = in_agent(&line, POLICY).unwrap();
    assert_eq!(configuration.catalogue.version.own, Some(2));
    assert!(configuration.warnings[0].contains("at least 5 years"), "{:?}", configuration.warnings);
    std::fs::write(&path, entry.replace("period", "priod")).unwrap();
    let error = in_agent(&line, POLICY).map(|_| ()).unwrap_err();
    assert!(error.contains("statutes.toml:6:1") && error.contains("did you mean `period`"), "{error}");
    std::fs::write(&path, entry.replace("5 years", "2 years").replace("confirmed", "partly")).unwrap();
    let error = in_agent(&line, POLICY).map(|_| ()).unwrap_err();
    assert!(error.contains("only a confirmed entry"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(in_agent(&line, POLICY).map(|_| ()).unwrap_err().contains("cannot be read"));
}

#[test]
fn a_basis_that_the_law_does_not_know_is_refused() {
    let error = with_policy("basis = \"contract\"", "basis = \"contrct\"").map(|_| ()).unwrap_err();
    assert!(error.contains("`contrct` is no legal basis") && error.contains("did you mean `contract`"), "{error}");
    for basis in crate::policy::classification::LEGAL_BASES {
        let named = POLICY.replace("\"contract\"", &format!("{basis:?}"));
        assert!(read(&format!("{HEAD}{SHOP}{named}")).is_ok(), "{basis}");
    }
}

#[test]
fn fields_that_a_store_need_not_have_are_warned_about() {
    let with = |purpose: &str, kind: &str| {
        let shop = SHOP.replace("url = \"sqlite", &format!("purpose = \"{purpose}\"\nurl = \"sqlite")).replace(
            "subject = \"customer_id\"",
            &format!("subject = \"customer_id\"\nfields.x = {{ kind = \"{kind}\" }}"),
        );
        read(&format!("{HEAD}{shop}{POLICY}")).unwrap().warnings
    };
    let found = with("marketing", "health");
    assert!(
        found.iter().any(|warning| warning.contains("store shop, orders.x: health data") && warning.contains("erase"))
    );
    assert!(with("marketing", "bank_card").iter().any(|warning| warning.contains("payment")));
    assert!(with("marketing", "biometric").iter().any(|warning| warning.contains("separate-consent")));
    assert!(with("medical", "health").is_empty() && with("payment", "bank_card").is_empty());
}
