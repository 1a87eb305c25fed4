//! Rows that stay without anything that leads to a person.

use super::ground::{Place, anonymised, counts, forget, hold_row, retain};
use super::runs::interrupted;
use crate::scenario::database::{Database, wait_for};
use wangchuan::control::{LedgerKind, Left};
use wangchuan::keyring::Purpose;
use wangchuan::plan::Subject;
use wangchuan::plan::digest::{left_mac, row_mac};
use wangchuan::stores::{BatchMarker, Engine, Filter};
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention, resume_runs};
use wangchuan::tasks::recheck::look_for_erased;
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::undo::undo_run;
use wangchuan::value::{RowKey, Value};

const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mysql];

const REGISTRY: &str = r#"[[store.collection]]
table = "people"
subject = "person"
[store.collection.fields]
name = { kind = "name" }
mail = { kind = "email" }
mobile = { kind = "mobile" }
born = { kind = "birth_date" }
home = { kind = "address" }

[[store.collection]]
table = "visits"
via = ["owner -> people"]
fields.remark = { kind = "free_text" }

[[policy]]
id = "old-people"
collections = ["people"]
retention = "1 year"
start = "ended"
action = "anonymise"
basis = "contract"
grace = "1 hour"
max = { rows = 100000, percent = 100 }
[policy.anonymise]
name = "null"
mail = "surrogate"
mobile = "mask"
born = { generalise = "year" }
home = { generalise = "city" }
income = { generalise = 1000 }
note = { fixed = "-" }
remark = "null"

"#;

/// Three people whose time is over, one whose is not, and visits of the first two.
fn people(engine: Engine) -> Option<(Place, Database)> {
    let folder = tempfile::tempdir().unwrap().keep();
    let database = Database::create(engine, &folder)?;
    let time = if engine == Engine::Mysql { "datetime" } else { "timestamp" };
    let time = if engine == Engine::Sqlite { "TEXT" } else { time };
    let date = if engine == Engine::Sqlite { "TEXT" } else { "date" };
    let options = if engine == Engine::Mysql { "ENGINE=InnoDB" } else { "" };
    database.run(&format!(
        "CREATE TABLE people (id int PRIMARY KEY, person varchar(40), name varchar(40), mail varchar(60) NOT NULL UNIQUE,
           mobile varchar(20) NOT NULL, born {date} NOT NULL, home varchar(90), income decimal(12,2), note varchar(40),
           ended {time}) {options};
         CREATE TABLE visits (id int PRIMARY KEY, owner int NOT NULL, remark varchar(90),
           FOREIGN KEY (owner) REFERENCES people (id)) {options};
         INSERT INTO people VALUES
           (1, 'a', 'Zhang San', 'zhang.san@example.com', '13812345678', '1990-05-17', '浙江省杭州市西湖区文三路1号', 12345.67, 'x', '2001-01-01'),
           (2, 'b', 'Li Si', 'li.si@example.com', '13912345678', '1985-12-31', '1 High Street', -0.5, NULL, '2001-01-01'),
           (3, NULL, NULL, 'nobody@example.com', '', '1970-01-01', NULL, NULL, NULL, '2001-01-01'),
           (4, 'd', 'Wang Wu', 'wang.wu@example.com', '13712345678', '1999-09-09', NULL, NULL, NULL, NULL);
         INSERT INTO visits VALUES (1, 1, 'call Zhang San'), (2, 1, NULL), (3, 2, 'Li Si'), (4, 4, 'Wang Wu');"
    ));
    let place = wait_for(Place::make_for(&database.url(), REGISTRY));
    Some((place, database))
}

fn dump(database: &Database) -> Vec<String> {
    let (text, columns) = match database.engine() {
        Engine::Mysql => ("char", "id, person, name, mail, mobile, born, home, income, note"),
        _ => ("text", "id, person, name, mail, mobile, born, home, income, note"),
    };
    let part = |name: &str| format!("coalesce(CAST({name} AS {text}), '')");
    let joined = |parts: Vec<String>| match database.engine() {
        Engine::Mysql => format!("concat_ws('|', {})", parts.join(", ")),
        _ => parts.join(" || '|' || "),
    };
    let people = joined(columns.split(", ").map(part).collect());
    let lines = joined(["id", "owner", "remark"].map(part).to_vec());
    let mut all = database.texts(&format!("SELECT {people} FROM people ORDER BY id"));
    all.extend(database.texts(&format!("SELECT {lines} FROM visits ORDER BY id")));
    all
}

fn kept_and_undone(engine: Engine) {
    let Some((place, database)) = people(engine) else { return };
    let before = dump(&database);
    let run = wait_for(async {
        let installation = place.open().await;
        assert!(installation.skipped().is_empty(), "{:?}", installation.skipped());
        let plan = plan_retention(&installation).await.unwrap();
        let planned: Vec<u64> = plan.body.collections.iter().map(|counts| counts.anonymise).collect();
        assert_eq!(planned, [3, 3], "visits go with the people that they follow");
        let run = execute(&installation, &plan.row).await.unwrap();
        assert_eq!((counts(&run), anonymised(&run)), ([6, 0, 0, 0, 0], 6));
        let body = RunBody::of(&run).unwrap();
        assert_eq!((body.looked_through, body.residual), (6, 0));
        installation.close().await.unwrap();
        run
    });
    let after = dump(&database);
    let fields: Vec<Vec<&str>> = after.iter().map(|row| row.split('|').collect()).collect();
    let [id, person, name, mail, mobile, born, home, income, note] = fields[0][..] else { panic!("{after:?}") };
    assert_eq!((id, person, name, mobile, note), ("1", "", "", "1*********8", "-"));
    assert!(mail != "zhang.san@example.com" && mail.len() == 21 && mail.contains('@'), "{mail}");
    assert!(born.starts_with("1990-01-01") && home == "浙江省杭州市" && income.starts_with("12000"), "{after:?}");
    assert_eq!((fields[1][6], &fields[1][7][..5]), ("", "-1000"), "what is no Chinese address goes whole");
    assert_eq!((&fields[2][4..5], &fields[2][8]), (&[""][..], &""), "nothing is made of nothing");
    assert_eq!(after[3], before[3]);
    assert_eq!(after[4..], ["1|1|", "2|1|", "3|2|", "4|4|Wang Wu"]);

    // It is done: neither due again nor found by `verify erased`, until somebody fills it again.
    wait_for(async {
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        assert_eq!((plan.body.due(), plan.body.to_do()), (0, 0));
        let found = look_for_erased(&installation).await.unwrap();
        assert_eq!((found.resurrected(), found.returned()), (0, 0));
        installation.close().await.unwrap();
    });
    database.run("UPDATE people SET mobile = '13812345678' WHERE id = 1");
    wait_for(async {
        let installation = place.open().await;
        let found = look_for_erased(&installation).await.unwrap();
        assert_eq!((found.resurrected(), found.returned()), (0, 1));
        assert_eq!(plan_retention(&installation).await.unwrap().body.due(), 1);
        installation.close().await.unwrap();
    });
    database
        .run(&format!("UPDATE people SET mobile = '{mobile}' WHERE id = 1; UPDATE people SET income = 5 WHERE id = 2"));

    // Undone: all is as before, but for the row that somebody changed since.
    wait_for(async {
        let installation = place.open().await;
        let report = undo_run(&installation, &run).await.unwrap();
        assert_eq!((report.restored, report.superseded, report.refused), (5, 1, 0), "{engine:?}: {report:?}");
        installation.close().await.unwrap();
    });
    let now = dump(&database);
    let others = |rows: &[String]| [&rows[..1], &rows[2..]].concat();
    assert_eq!(others(&now), others(&before));
}

#[test]
fn rows_stay_without_what_leads_to_a_person_and_come_back_within_grace() {
    ENGINES.into_iter().for_each(kept_and_undone);
}

fn by_request(engine: Engine) {
    let Some((place, database)) = people(engine) else { return };
    let before = dump(&database);
    wait_for(async {
        let installation = place.open().await;
        let run = forget(&installation, "a").await;
        assert_eq!((counts(&run), anonymised(&run)), ([3, 0, 0, 0, 0], 3), "{engine:?}");
        let request = installation.control.read().await.unwrap().request(run.request.unwrap()).await.unwrap().unwrap();
        assert_eq!(request.state, "done");
        assert_eq!(counts(&forget(&installation, "a").await), [0; 5], "nothing leads to them any more");
        // A held customer's rows stay as they are, for retention too; so does the row of nobody knows whom, who may be that customer.
        let hold = hold_row("case-1", installation.clock.now());
        place_hold(&installation, &hold, Some(&Subject::new("b"))).await.unwrap();
        let run = retain(&installation).await;
        assert_eq!((counts(&run), anonymised(&run)), ([3, 0, 0, 3, 0], 0), "{engine:?}");
        installation.close().await.unwrap();
    });
    let after = dump(&database);
    assert_ne!(after[0], before[0]);
    assert_eq!((&after[1..4], &after[6..]), (&before[1..4], &before[6..]));
}

#[test]
fn a_request_does_what_the_policy_says() {
    ENGINES.into_iter().for_each(by_request);
}

#[test]
fn a_row_over_which_a_newer_one_leads_to_its_subject_stays_as_it_is() {
    let (place, database) = people(Engine::Sqlite).unwrap();
    let before = dump(&database);
    wait_for(async {
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        place.sql_in(database.file().to_str().unwrap(), "INSERT INTO visits VALUES (9, 1, 'new')").await;
        let run = execute(&installation, &plan.row).await.unwrap();
        // The visits that went before still lead to person 1, and so they are not anonymous.
        assert_eq!((counts(&run), anonymised(&run)), ([6, 0, 0, 1, 2], 3));
        assert!(
            RunBody::of(&run).unwrap().notes.iter().any(|note| note.contains("rows of visits still refer to people"))
        );
        // The next plan takes them all.
        assert_eq!(anonymised(&retain(&installation).await), 4);
        installation.close().await.unwrap();
    });
    assert_eq!(dump(&database)[3], before[3]);
}

#[test]
fn a_crash_behind_the_commit_is_settled_by_what_the_ledger_says_was_left() {
    let (place, _database) = people(Engine::Sqlite).unwrap();
    wait_for(async {
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        let run = interrupted(&installation, &plan, "approved").await;
        let mut tx = installation.control.begin().await.unwrap();
        let chunks = tx.chunks(&plan.row.id).await.unwrap();
        let chunk = chunks.iter().find(|chunk| chunk.collection == "people").unwrap();
        let suppression = installation.keyring.work_key(&mut tx, Purpose::Suppression, "").await.unwrap();
        let certificate = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await.unwrap();
        let mac = |id: i64| row_mac(&suppression, "shop", "people", &RowKey(vec![Value::Integer(id)]));
        let macs: Vec<_> = (1..=3).map(mac).collect();
        tx.begin_chunk(&run, chunk, LedgerKind::Anonymised, &macs, installation.clock.now()).await.unwrap();
        let columns =
            ["person", "name", "mail", "mobile", "born", "home", "income", "note"].map(str::to_owned).to_vec();
        let text = |text: &str| Value::Text(text.to_owned());
        let values = [
            Value::Null,
            Value::Null,
            text("x@y"),
            text("1*"),
            text("1990-01-01"),
            Value::Null,
            Value::Null,
            Value::Null,
        ];
        let digest = left_mac(&certificate, &columns, &values);
        let left = Left { columns: columns.clone(), digest, lookup: Vec::new() };
        tx.intend_left(&run, chunk.number, &[(mac(1), left.clone()), (mac(2), left)]).await.unwrap();
        tx.commit().await.unwrap();
        let mut batch = installation.sites()[0].store.begin_batch().await.unwrap();
        let set: Vec<(String, Value)> = columns.into_iter().zip(values).collect();
        let one = Filter::In(vec!["id".to_owned()], vec![RowKey(vec![Value::Integer(1)])]);
        assert_eq!(batch.update("people", &set, &one).await.unwrap(), 1);
        let marker = BatchMarker { run: run.id.clone(), chunk: chunk.number, token: 1, erased: 0, changed: 1 };
        batch.commit(&marker).await.unwrap();

        let resumed = resume_runs(&installation).await.unwrap();
        assert!(resumed.failed.is_empty(), "{resumed:?}");
        let run = installation.control.read().await.unwrap().run(&run.id).await.unwrap().unwrap();
        // Row 1 is as the ledger says, rows 2 and 3 are not. The visits of 1 are not what was planned by now; that of 2 still
        // leads to somebody.
        assert_eq!((counts(&run), anonymised(&run)), ([6, 0, 0, 4, 1], 1));
        installation.close().await.unwrap();
    });
}

#[test]
fn a_trigger_that_swallows_the_change_fails_the_rows() {
    let (place, database) = people(Engine::Sqlite).unwrap();
    database.run(
        "CREATE TRIGGER back AFTER UPDATE ON people BEGIN UPDATE people SET name = OLD.name WHERE id = OLD.id; END;",
    );
    place.edit_config("subject = \"person\"", "subject = \"person\"\ntriggers = [\"back\"]");
    let before = dump(&database);
    wait_for(async {
        let installation = place.open().await;
        let run = retain(&installation).await;
        assert_eq!((counts(&run), anonymised(&run)), ([6, 0, 0, 0, 6], 0), "{:?}", RunBody::of(&run).unwrap());
        installation.close().await.unwrap();
    });
    assert_eq!(dump(&database)[..4], before[..4]);
}

#[test]
fn a_column_that_moves_by_itself_keeps_no_undo_back() {
    let (place, database) = people(Engine::Sqlite).unwrap();
    database.run(
        "ALTER TABLE people ADD COLUMN touched INTEGER NOT NULL DEFAULT 0;
         CREATE TRIGGER touch AFTER UPDATE OF mail ON people BEGIN UPDATE people SET touched = touched + 1 WHERE id = NEW.id; END;
         UPDATE people SET mail = '' WHERE id = 3;",
    );
    place.edit_config("subject = \"person\"", "subject = \"person\"\ntriggers = [\"touch\"]");
    let before = dump(&database);
    wait_for(async {
        let installation = place.open().await;
        let run = retain(&installation).await;
        assert_eq!((counts(&run), anonymised(&run)), ([6, 0, 0, 0, 0], 6), "of nothing a surrogate is nothing");
        let report = undo_run(&installation, &run).await.unwrap();
        assert_eq!((report.restored, report.superseded, report.refused), (6, 0, 0), "{report:?}");
        installation.close().await.unwrap();
    });
    assert!(database.number("SELECT sum(touched) FROM people") > 3, "it moved");
    assert_eq!(dump(&database), before);
}

#[test]
fn rows_that_follow_one_that_could_not_be_anonymised_come_back_too() {
    let (place, database) = people(Engine::Sqlite).unwrap();
    // Something else goes, so that the run is not one of which everything failed.
    database.run(
        "CREATE TABLE letters (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
         INSERT INTO letters VALUES (1, 'a', '2001-01-01');
         CREATE TRIGGER refuse BEFORE UPDATE ON people BEGIN SELECT RAISE(ABORT, 'no'); END;",
    );
    place.edit_config("subject = \"person\"", "subject = \"person\"\ntriggers = [\"refuse\"]");
    let more = "[[store.collection]]\ntable = \"letters\"\nsubject = \"person\"\n\n[[policy]]\nid = \"letters\"\ncollections = [\"letters\"]\n\
        retention = \"1 year\"\nstart = \"ended\"\naction = \"delete\"\nbasis = \"contract\"\ngrace = \"1 hour\"\n\
        max = { rows = 100000, percent = 100 }\n\n[[policy]]\nid = \"old-people\"";
    place.edit_config("[[policy]]\nid = \"old-people\"", more);
    let before = dump(&database);
    let run = wait_for(async {
        let installation = place.open().await;
        let run = retain(&installation).await;
        installation.close().await.unwrap();
        run
    });
    assert_eq!((counts(&run), anonymised(&run)), ([7, 1, 0, 0, 6], 0), "{:?}", RunBody::of(&run).unwrap());
    assert_ne!(dump(&database), before, "the visits were anonymised all the same");
    wait_for(async {
        let installation = place.open().await;
        let report = undo_run(&installation, &run).await.unwrap();
        assert_eq!((report.superseded, report.refused), (0, 0), "{report:?}");
        let run = installation.control.read().await.unwrap().run(&run.id).await.unwrap().unwrap();
        assert_eq!((counts(&run), anonymised(&run)), ([7, 0, 0, 4, 3], 0), "{:?}", RunBody::of(&run).unwrap());
        installation.close().await.unwrap();
    });
    assert_eq!(dump(&database), before);
}

#[test]
fn what_today_s_rules_make_coarser_is_due_again() {
    let (place, _database) = people(Engine::Sqlite).unwrap();
    wait_for(async {
        let installation = place.open().await;
        assert_eq!(anonymised(&retain(&installation).await), 6);
        assert_eq!(plan_retention(&installation).await.unwrap().body.to_do(), 0);
        installation.close().await.unwrap();
        place.edit_config("income = { generalise = 1000 }", "income = { generalise = 100000 }");
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        // 12,000 and -1,000; what is NULL stays so.
        let again: Vec<u64> = plan.body.collections.iter().map(|counts| counts.anonymise).collect();
        assert_eq!(again.iter().sum::<u64>(), 2, "{again:?}");
        installation.close().await.unwrap();
    });
}

/// Ten people whose time is over, seven of one city and year and three of another.
fn crowd(engine: Engine, more: &str) -> Option<(Place, Database)> {
    let folder = tempfile::tempdir().unwrap().keep();
    let database = Database::create(engine, &folder)?;
    let (time, date) = match engine {
        Engine::Sqlite => ("TEXT", "TEXT"),
        Engine::Postgres => ("timestamp", "date"),
        Engine::Mysql => ("datetime", "date"),
    };
    let options = if engine == Engine::Mysql { "ENGINE=InnoDB" } else { "" };
    database.run(&format!(
        "CREATE TABLE people (id int PRIMARY KEY, person varchar(40), born {date}, city varchar(90), income decimal(12,2), ended {time}) {options};
         CREATE TABLE visits (id int PRIMARY KEY, owner int NOT NULL, remark varchar(90), FOREIGN KEY (owner) REFERENCES people (id)) {options};"
    ));
    for id in 1..=10 {
        let (year, city) =
            if id <= 7 { (1990, "浙江省杭州市西湖区") } else { (1985, "江苏省南京市玄武区") };
        database.run(&format!(
            "INSERT INTO people VALUES ({id}, 'p{id}', '{year}-0{}-01', '{city}', {}.50, '2001-01-01'); INSERT INTO visits VALUES ({id}, {id}, 'x')",
            id % 9 + 1,
            1000 + id
        ));
    }
    let registry = format!(
        "[[store.collection]]\ntable = \"people\"\nsubject = \"person\"\nfields.born = {{ kind = \"birth_date\" }}\n\n\
         [[store.collection]]\ntable = \"visits\"\nvia = [\"owner -> people\"]\n\n\
         [[policy]]\nid = \"old-people\"\ncollections = [\"people\"]\nretention = \"1 year\"\nstart = \"ended\"\naction = \"anonymise\"\n\
         basis = \"contract\"\ngrace = \"0\"\nmax = {{ rows = 100000, percent = 100 }}\nquasi = [\"born\", \"city\", \"income\"]\n{more}\n\
         anonymise = {{ born = {{ generalise = \"year\" }}, city = {{ generalise = \"city\" }}, income = {{ generalise = 1000 }} }}\n\n"
    );
    Some((wait_for(Place::make_for(&database.url(), &registry)), database))
}

fn rows_of_small_groups_stay(engine: Engine) {
    let Some((place, database)) = crowd(engine, "k = 5") else { return };
    wait_for(async {
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        let kept: Vec<_> = plan.body.collections.iter().map(|counts| counts.keep.clone()).collect();
        let three = vec![("k-anonymity".to_owned(), 3)];
        assert_eq!(kept, [three.clone(), three], "{engine:?}");
        let run = execute(&installation, &plan.row).await.unwrap();
        assert_eq!((counts(&run), anonymised(&run)), ([20, 0, 0, 6, 0], 14));
        let smallest = &RunBody::of(&run).unwrap().smallest_groups;
        assert_eq!((smallest[0].collection.as_str(), smallest[0].rows), ("people", 7));
        installation.close().await.unwrap();
    });
    // Two more of the other city are enough with the three that wait; those that were anonymised still count.
    database.run(
        "INSERT INTO people VALUES (11, 'x', '1985-03-03', '江苏省南京市鼓楼区', 1999, '2001-01-01'),
           (12, 'y', '1985-04-04', '江苏省南京市', 1000, '2001-01-01'), (13, 'z', '1990-01-01', '浙江省杭州市', 1500, '2001-01-01')",
    );
    wait_for(async {
        let installation = place.open().await;
        assert_eq!(anonymised(&retain(&installation).await), 3 + 3 + 2 + 1);
        assert_eq!(plan_retention(&installation).await.unwrap().body.due(), 0);
        installation.close().await.unwrap();
    });
}

#[test]
fn rows_whose_group_is_too_small_stay_until_it_is_not() {
    ENGINES.into_iter().for_each(rows_of_small_groups_stay);
}

#[test]
fn rows_whose_group_is_too_small_go_when_the_policy_says_so() {
    for engine in ENGINES {
        let Some((place, database)) = crowd(engine, "small_groups = \"erase\"") else { continue };
        wait_for(async {
            let installation = place.open().await;
            let run = retain(&installation).await;
            assert_eq!((counts(&run), anonymised(&run)), ([20, 6, 0, 0, 0], 14), "{engine:?}");
            installation.close().await.unwrap();
        });
        assert_eq!((database.rows("people"), database.rows("visits")), (7, 7));
    }
}

#[test]
fn groups_are_counted_again_before_the_first_batch() {
    let (place, database) = crowd(Engine::Sqlite, "k = 5").unwrap();
    wait_for(async {
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        // Four are left of seven.
        place
            .sql_in(database.file().to_str().unwrap(), "UPDATE people SET city = '上海市' WHERE id IN (1, 2, 3)")
            .await;
        let run = execute(&installation, &plan.row).await.unwrap();
        assert_eq!((counts(&run), anonymised(&run)), ([20, 0, 0, 20, 0], 0));
        assert!(RunBody::of(&run).unwrap().notes.iter().any(|note| note.contains("k-anonymity")));
        installation.close().await.unwrap();
    });
    assert_eq!(database.rows_where("people", "person IS NULL"), 0);
}
