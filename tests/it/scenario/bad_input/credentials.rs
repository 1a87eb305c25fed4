//! Credentials of the bucket that expire between two requests of a command: a clear failure wherever it happens, nothing
//! taken for damage, and the same command goes through once they are renewed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use super::surroundings::{Server, wait_in_background};
use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::program::Outcome;

/// What S3 answers to a request with an expired session.
const EXPIRED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>ExpiredToken</Code>\
    <Message>The provided token has expired.</Message><RequestId>1</RequestId></Error>";
/// More requests than any command here makes.
const MANY: i64 = 500;
/// How the program says so, also where a HEAD was refused, whose answer has no body.
const SAID: &str = "credentials for the object store are missing or expired";

/// Passes so many requests on to a server and answers all further ones that the credentials have expired.
struct Gate {
    endpoint: String,
    left: Arc<AtomicI64>,
}

impl Gate {
    fn before(server: &Server) -> Self {
        let address = server.endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            left: Arc::new(AtomicI64::new(i64::MAX)),
        };
        let left = Arc::clone(&gate.left);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (address, left) = (address.clone(), Arc::clone(&left));
                thread::spawn(move || {
                    // A client that goes away in between is its own business.
                    let _ = pass_one(client, &address, &left);
                });
            }
        });
        gate
    }

    fn expire_after(&self, requests: i64) {
        self.left.store(requests, Ordering::SeqCst);
    }

    fn renew(&self) {
        self.expire_after(i64::MAX);
    }
}

/// One request a connection: its head, its body of the announced length, and the answer.
fn pass_one(mut client: TcpStream, address: &str, left: &AtomicI64) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if left.fetch_sub(1, Ordering::SeqCst) <= 0 {
        let body = if head.starts_with("HEAD ") { "" } else { EXPIRED };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        client.write_all(answer.as_bytes())?;
        return client.shutdown(Shutdown::Write);
    }
    let mut server = TcpStream::connect(address)?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Write)
}

/// An installation whose bucket lies behind a gate.
fn behind_a_gate() -> (Workplace, Database, Server, Gate) {
    let (place, database) = small::installed();
    let server = wait_in_background(&place);
    let gate = Gate::before(&server);
    let elsewhere = format!(
        "endpoint = \"{}\"\nbucket = \"present\"\naccess_key_id = \"test\"\nsecret_access_key = \"S3cretAccessKey\"",
        gate.endpoint
    );
    place.reconfigure("endpoint = \"embedded\"\ndata = \"bucket\"", &elsewhere);
    (place, database, server, gate)
}

/// Runs a command with credentials that expire after 0, 1, 2 … requests, until they last for all of it. Looks at every
/// failure; returns how many there were, and the success.
#[track_caller]
fn until_they_last(place: &Workplace, gate: &Gate, command: &[&str], look: impl Fn(&Outcome)) -> (i64, Outcome) {
    for requests in 0..MANY {
        gate.expire_after(requests);
        let outcome = place.program().json(command).never_says("S3cretAccessKey");
        if outcome.code() == Some(0) {
            gate.renew();
            return (requests, outcome);
        }
        assert!([Some(1), Some(4)].contains(&outcome.code()), "after {requests} requests\n{outcome}");
        assert!(outcome.out.contains(SAID), "after {requests} requests it does not say what is wrong\n{outcome}");
        let result = if outcome.code() == Some(1) { "failed" } else { "partial" };
        assert_eq!(outcome.text("result"), result, "after {requests} requests\n{outcome}");
        look(&outcome);
    }
    panic!("`{}` never ends well", command.join(" "))
}

#[test]
fn in_the_middle_of_a_backup() {
    let (place, database, _server, gate) = behind_a_gate();
    place.good(&["backup", "run"]);
    let (failures, _) = until_they_last(&place, &gate, &["backup", "run"], |_| {});
    assert!(failures >= 5, "only {failures} requests");
    // The failed ones left nothing that counts, and the chain has no gap.
    assert_eq!(place.good(&["backup", "list"]).list("snapshots").len(), 2);
    assert_eq!(place.good(&["backup", "verify"]).text("result"), "valid");
    small::is_untouched(&database);
    small::goes_through(&place, &database);
}

#[test]
fn in_the_middle_of_verify_restore_and_drill() {
    let (place, database, _server, gate) = behind_a_gate();
    place.good(&["backup", "run"]);
    let (failures, verified) = until_they_last(&place, &gate, &["backup", "verify"], |failed| {
        assert!(!failed.out.contains("\"invalid\""), "what could not be read is called damaged\n{failed}");
    });
    assert!(failures >= 4 && verified.text("result") == "valid", "{failures}\n{verified}");

    let (failures, _) = until_they_last(&place, &gate, &["restore", "--to", "sqlite://back.db"], |_| {
        assert!(!place.file("back.db").exists(), "a failed restore left a database");
    });
    assert!(failures >= 4, "only {failures} requests");

    let (failures, drilled) = until_they_last(&place, &gate, &["drill", "run"], |_| {});
    assert!(failures >= 4 && drilled.text("result") == "passed", "{failures}\n{drilled}");
    // A drill that could not read the bucket has tested nothing, so there is nothing to record of it.
    assert_eq!(place.good(&["drill", "list"]).list("drills").len(), 1);
    small::goes_through(&place, &database);
}

#[test]
fn in_the_middle_of_a_shred() {
    let (place, database, _server, gate) = behind_a_gate();
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    let (_, erased) = until_they_last(&place, &gate, &["erase", "--plan", &hash], |_| {});
    assert_eq!(erased.number("erased"), small::DUE, "{erased}");
    place.good(&["backup", "run"]);
    let (_, shredded) = until_they_last(&place, &gate, &["job", "run", "shred"], |failed| {
        let runs = place.good(&["run", "list"]).list("runs");
        // What fails behind the shred is its certificate, whose number the second place must know first.
        let is_behind = runs[0]["state"] == "shredded" && failed.out.contains("second place");
        let is_before = runs[0]["state"] == "shred-pending";
        assert!(is_before || is_behind, "keys died although the barrier could not be read\n{failed}");
    });
    assert_eq!(place.good(&["run", "list"]).list("runs")[0]["state"], "shredded", "{shredded}");
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
}

#[test]
fn in_the_middle_of_a_pass() {
    let (place, database, _server, gate) = behind_a_gate();
    for requests in 0..MANY {
        gate.expire_after(requests);
        let pass = place.program().json(&["agent", "--once"]).never_says("S3cretAccessKey");
        if pass.code() == Some(0) {
            break;
        }
        assert!([Some(1), Some(4)].contains(&pass.code()), "after {requests} requests\n{pass}");
        assert!(pass.out.contains(SAID), "after {requests} requests\n{pass}");
    }
    gate.renew();
    assert_eq!(place.good(&["agent", "--once"]).text("result"), "complete");
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    let runs = place.good(&["run", "list"]).list("runs");
    let erased: i64 = runs.iter().map(|run| run["erased"].as_i64().unwrap()).sum();
    assert_eq!(erased, small::DUE, "{runs:?}");
    assert!(runs.iter().all(|run| run["state"] == "shredded" && run["failed"] == 0), "{runs:?}");
    assert!(place.verify_certificates() > 0);
    assert_eq!(place.good(&["backup", "verify"]).text("result"), "valid");
}
