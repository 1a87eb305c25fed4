//! `[audit]`: adapters, client certificates, and what does not go together.

use super::*;

const HERE: &str = "url = \"https://audit.example.com\"";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn with(lines: &str) -> Result<Configuration, String> {
    read(&format!("{HEAD}{SHOP}").replace(HERE, lines))
}

#[test]
fn a_webhook_has_an_address_to_the_letter_and_secrets() {
    let good = format!(
        "url = \"https://hooks.example.com/erasures/\"\nadapter = \"webhook\"\nwebhook_secrets = [\"{SECRET}\"]"
    );
    let AuditService::Webhook { url, secrets, acknowledged_by } = with(&good).unwrap().audit.service else {
        panic!("not a webhook")
    };
    assert_eq!(acknowledged_by, None);
    let signed = with(&format!("{good}\nacknowledged_by = \"service.pem\"")).unwrap().audit.service;
    let AuditService::Webhook { acknowledged_by, .. } = signed else { panic!("not a webhook") };
    assert_eq!(acknowledged_by.as_deref(), Some(Path::new("/srv/w/service.pem")));
    assert_eq!((url.as_str(), secrets.len()), ("https://hooks.example.com/erasures/", 1));
    assert_eq!(secrets[0].dangerous_text(), SECRET);
    assert!(!with(&good).unwrap().show().contains(SECRET));
    let cases = [
        (good.replace("webhook_secrets", "#"), "posts to a webhook are signed, and there is no secret"),
        (good.replace("whsec_", ""), "a webhook secret is `whsec_`"),
        (good.replace("https://hooks", "http://hooks"), "plain http would carry data unprotected"),
        (format!("{good}\ndata = \"audit\""), "`data` is the folder of the embedded service"),
        (format!("{good}\nquorum = 1"), "a webhook has no log that witnesses could sign"),
        (good.replace("adapter = \"webhook\"", ""), "`webhook_secrets` are for `adapter = \"webhook\"`"),
        (format!("{HERE}\nacknowledged_by = \"service.pem\""), "`acknowledged_by` is for `adapter = \"webhook\"`"),
        (good.replace("\"webhook\"", "\"fax\""), "fax"),
    ];
    for (lines, said) in cases {
        let error = with(&lines).unwrap_err();
        assert!(error.contains(said), "{said}\nnot in\n{error}");
        assert!(!error.contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "{error}");
    }
}

#[test]
fn a_client_certificate_has_its_key_and_is_shown_over_tls_only() {
    let good = format!("{HERE}\nclient_certificate = \"agent.pem\"\nclient_key = \"-----BEGIN\"");
    let client = with(&good).unwrap().audit.client.unwrap();
    assert_eq!(
        (client.certificate.as_path(), client.key.dangerous_text()),
        (Path::new("/srv/w/agent.pem"), "-----BEGIN")
    );
    assert!(!with(&good).unwrap().show().contains("-----BEGIN"));
    let cases = [
        (good.replace("client_key", "#"), "the client certificate has no key"),
        (good.replace("client_certificate", "#"), "the key has no client certificate"),
        (
            good.replace("https://audit.example.com", "http://127.0.0.1:1"),
            "a client certificate is shown over https:// only",
        ),
    ];
    for (lines, said) in cases {
        let error = with(&lines).unwrap_err();
        assert!(error.contains(said), "{said}\nnot in\n{error}");
    }
}

#[test]
fn a_time_stamping_authority_may_be_asked_over_plain_http_and_to_the_letter() {
    let good = format!("{HERE}\ntimestamp = {{ url = \"http://tsa.example.com/tsr/\", trust = \"roots.pem\" }}");
    let stamps = with(&good).unwrap().audit.timestamp.unwrap();
    assert_eq!(
        (stamps.url.as_str(), stamps.trust.as_path()),
        ("http://tsa.example.com/tsr/", Path::new("/srv/w/roots.pem"))
    );
    assert_eq!(with(HERE).unwrap().audit.timestamp, None);
    let cases = [
        (good.replace("/tsr/", "/tsr?x=1"), "the address has a `?` or `#` in it"),
        (good.replace("http://tsa", "http://me:secret@tsa"), "must not hold a user or password"),
        (good.replace("http://", "ftp://"), "not an address with http:// or https://"),
        (good.replace("trust", "root"), "root"),
    ];
    for (lines, said) in cases {
        let error = with(&lines).unwrap_err();
        assert!(error.contains(said), "{said}\nnot in\n{error}");
    }
}
