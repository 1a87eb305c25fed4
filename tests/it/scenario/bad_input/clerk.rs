//! What clerks and lawyers give in: lists from spreadsheets, ids that nobody has, scopes that are misspelt, at times when a store
//! does not answer.

use std::fs;

use serde_json::json;

use crate::scenario::small;

#[test]
fn a_list_from_a_spreadsheet_finds_every_customer() {
    let (place, _) = small::installed();
    let list = "\u{feff}customer_id,name\r\nc-1001,张三\r\n\r\n\"c-1002\",李四\r\n";
    fs::write(place.file("ids.csv"), list).unwrap();
    let recorded = place.good(&["request", "new", "--file", "ids.csv", "--yes"]);
    assert_eq!(recorded.document()["requests"], json!([1, 2]), "{recorded}");
    let done = place.good(&["request", "run"]);
    assert_eq!(done.number("failed"), 0, "{done}");
    let states: Vec<String> =
        [1, 2].map(|number| place.good(&["request", "show", &number.to_string()]).text("state")).into();
    assert!(states.iter().all(|state| state == "done"), "{states:?}");
}

#[test]
fn several_ids_on_standard_input_are_several_requests() {
    let (place, _) = small::installed();
    let program = place.program().reading("\u{feff}c-1001\nc-1002\nc-1003\n");
    let recorded = program.json(&["request", "new", "-", "--yes"]).ends(0);
    assert_eq!(recorded.document()["requests"], json!([1, 2, 3]), "{recorded}");
}

#[test]
fn a_doubtful_list_records_nothing() {
    let (place, _) = small::installed();
    let cases: [(&[u8], &str, &str); 4] = [
        (b"c-1001\nc-1002;Li\n", "ids.csv:2", "commas"),
        (b"c-1001\n\xd5\xc5\n", "ids.csv:2", "UTF-8"),
        (b"c-1001\n,Li\n", "ids.csv:2", "first column"),
        (b"\n\n", "ids.csv", "no customer id"),
    ];
    for (bytes, at, what) in cases {
        fs::write(place.file("ids.csv"), bytes).unwrap();
        place.program().json(&["request", "new", "--file", "ids.csv", "--yes"]).refuses(2, &[at, what]);
    }
    place.program().json(&["request", "new", "--file", "missing.csv", "--yes"]).refuses(2, &["missing.csv"]);
    let listed = place.good(&["request", "list"]);
    assert_eq!(listed.text("result"), "nothing-found", "{listed}");
}

#[test]
fn a_hold_takes_one_id_however_the_file_was_saved() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let hold = |input: &str, id: &str| {
        place.program().reading(input).json(&["hold", "place", id, "--subject", "-", "--reason", "lawsuit"])
    };
    hold("c-1001\nc-1002\n", "case-1").refuses(2, &["2 customer ids"]);
    let placed = hold("\u{feff}c-1001\r\n", "case-1").ends(0);
    assert_eq!(placed.document()["subject_known"], json!(true), "{placed}");
    small::goes_through_under_hold(&place, &database, "c-1001");
}

#[test]
fn a_hold_on_nothing_registered_or_in_telling_words_is_refused() {
    let (place, database) = small::installed();
    let cases: [(i32, &[&str], &[&str]); 5] = [
        (2, &["h", "--store", "Shop", "--reason", "audit"], &["no store Shop", "did you mean `shop`"]),
        (
            2,
            &["h", "--store", "shop", "--collection", "Orders", "--reason", "audit"],
            &["no collection Orders", "orders"],
        ),
        (3, &["h", "--everything", "--reason", "call 13800138000"], &["reason", "personal data"]),
        (3, &["", "--everything", "--reason", "audit"], &["id is empty"]),
        (3, &["a\u{1b}[2J", "--everything", "--reason", "audit"], &["id", "control character"]),
    ];
    for (code, arguments, naming) in cases {
        let command: Vec<&str> = ["hold", "place"].iter().chain(arguments).copied().collect();
        place.program().json(&command).refuses(code, naming);
    }
    assert_eq!(place.good(&["hold", "list"]).text("result"), "nothing-found");
    small::goes_through(&place, &database);
}

#[test]
fn while_the_only_store_does_not_fit_people_are_still_heard_and_the_agent_works() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    database.run("ALTER TABLE orders RENAME TO orders_2");
    place.program().json(&["plan"]).refuses(2, &["orders"]);
    let placed = place
        .program()
        .reading("c-1001\n")
        .json(&["hold", "place", "case-1", "--subject", "-", "--reason", "lawsuit"])
        .ends(0);
    assert_eq!(placed.document()["subject_known"], json!(null), "{placed}");
    placed.says(&["not every store could be read"]);
    let recorded = place.program().reading("c-1002\n").json(&["request", "new", "-", "--yes"]).ends(0);
    recorded.says(&["orders"]).never_says("No registered store");
    place.program().json(&["agent", "--once"]).ends(4);
    database.run("ALTER TABLE orders_2 RENAME TO orders");
    small::goes_through_under_hold(&place, &database, "c-1001");
}

#[test]
fn nothing_is_installed_over_keys_whose_control_database_is_lost() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    place.program().run(&["init"]).ends(0).says(&["was installed before"]);
    for name in ["wangchuan.db", "wangchuan.db-wal", "wangchuan.db-shm"] {
        let _ = fs::remove_file(place.file("state").join(name));
    }
    place.program().json(&["plan"]).refuses(2, &["wangchuan recover"]);
    let roots = fs::read_dir(place.file("root")).unwrap().count();
    place.program().json(&["init", "--accept-host-loss"]).refuses(3, &["root", "wangchuan recover"]);
    assert_eq!(fs::read_dir(place.file("root")).unwrap().count(), roots);
    place.good(&["recover"]);
    small::goes_through(&place, &database);
}
