use super::*;
use crate::plan::Technique;
use crate::plan::model::{Model, resolve};
use crate::policy::registry::{BackupMode, CollectionSpec, SecretText};
use crate::policy::statute;
use crate::stores::{Catalogue, ForeignKey, OnDelete, Table};

/// `name type`, with `?` behind what may be NULL.
fn column(text: &str) -> Column {
    let (name, type_name) = text.split_once(' ').unwrap();
    let kind = match type_name.trim_end_matches('?').split('(').next().unwrap() {
        "int" | "int unsigned" | "smallint" => ColumnKind::Integer,
        "date" => ColumnKind::Date,
        "real" => ColumnKind::Real,
        "blob" => ColumnKind::Bytes,
        _ => ColumnKind::Text,
    };
    Column {
        name: name.to_owned(),
        type_name: type_name.trim_end_matches('?').to_owned(),
        kind: Some(kind),
        nullable: type_name.ends_with('?'),
        default: None,
        generated: false,
        numbered: false,
    }
}

fn table(name: &str, columns: &[&str], parent: Option<(&str, &str)>) -> Table {
    let key = parent.map(|(column, parent)| ForeignKey {
        columns: vec![column.to_owned()],
        parent: parent.to_owned(),
        parent_columns: vec!["id".to_owned()],
        on_delete: OnDelete::Refuse,
    });
    Table {
        name: name.to_owned(),
        columns: columns.iter().map(|text| column(text)).collect(),
        key: vec!["id".to_owned()],
        unique: vec![vec!["mail".to_owned()]],
        foreign_keys: key.into_iter().collect(),
        triggers: Vec::new(),
        rows_may_be_hidden: false,
        index_statements: Vec::new(),
    }
}

fn policy(text: &str) -> Policy {
    let head = "id = \"p\"\nretention = \"1 year\"\nstart = \"ended\"\naction = \"anonymise\"\nbasis = \"contract\"\n";
    toml::from_str(&format!("{head}{text}")).unwrap()
}

fn model(tables: &[Table], collections: &[&str], policies: &[Policy]) -> Result<Model, Vec<String>> {
    let spec = StoreSpec {
        name: "shop".to_owned(),
        url: SecretText::new(String::new()),
        read_url: None,
        owner: None,
        purpose: None,
        site: None,
        timezone: chrono_tz::Tz::UTC,
        backup: BackupMode::None,
        copies: Vec::new(),
        budget: crate::policy::registry::Budget::default(),
        replicas: Vec::new(),
        files: crate::policy::registry::FilesSpec::default(),
        collections: collections.iter().map(|text| toml::from_str::<CollectionSpec>(text).unwrap()).collect(),
        ignored: Vec::new(),
    };
    let catalogue = Catalogue { tables: tables.to_vec(), ..Catalogue::default() };
    resolve(&spec, &catalogue, policies, &statute::Catalogue::built_in().unwrap())
}

const PEOPLE: &str = "table = \"people\"\nsubject = \"person\"\n[fields]\nmail = { kind = \"email\" }\nborn = { kind = \"birth_date\" }\n\
    points = { kind = \"history\" }";

fn people(person: &str, rules: &str) -> Result<Anonymise, String> {
    let columns = ["id int", person, "mail text?", "born date?", "points int", "ended date", "note text", "photo blob"];
    let made = model(&[table("people", &columns, None)], &[PEOPLE], &[policy(rules)]);
    made.map(|model| model.collections[0].anonymise.clone().unwrap()).map_err(|problems| problems.join("\n"))
}

const RULES: &str =
    "collections = [\"people\"]\nanonymise = { mail = \"surrogate\", born = { generalise = \"year\" } }";

#[test]
fn the_rules_and_the_cut_become_changes_in_the_order_of_the_table() {
    let changes = people("person int?", RULES).unwrap();
    let expected = [("person", Technique::Null), ("mail", Technique::Surrogate), ("born", Technique::Generalise)];
    assert_eq!(changes.techniques(), expected.map(|(name, how)| (name.to_owned(), how)));
    assert!(changes.change("mail").unwrap().is_unique);
    assert_eq!((changes.k, changes.cut.len(), changes.small_groups), (5, 0, SmallGroups::Keep));
    for (person, how) in [("person int", How::Nobody), ("person varchar(24)", How::Nobody), ("person text?", How::Null)]
    {
        assert_eq!(people(person, RULES).unwrap().change("person").unwrap().how, how, "{person}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let rules = |text: &str| format!("collections = [\"people\"]\nanonymise = {{ {text} }}");
    let both = "mail = \"null\", born = \"null\"";
    for (person, more, said) in [
        ("person smallint", both, "no room for an id that nobody has"),
        ("person int unsigned", both, "no room for an id that nobody has"),
        ("person varchar(10)", both, "no room for an id that nobody has"),
        ("person int?", "mail = \"null\"", "declared fields born,"),
        ("person int?", "mail = { fixed = \"x\" }, born = \"null\"", "`mail` is unique"),
        ("person int?", "mail = \"null\", born = \"mask\"", "cannot hold a mask"),
        ("person int?", "mail = \"null\", born = \"null\", note = \"mask\"", "`note` has no declared kind"),
        ("person int?", "mail = \"null\", born = \"null\", note = \"null\"", "`note` is NOT NULL"),
        ("person int?", "mail = \"null\", born = \"null\", id = \"surrogate\"", "`id` is part of the key"),
        ("person int?", "mail = \"null\", born = \"null\", ended = \"surrogate\"", "`ended` holds the start event"),
        ("person int?", "mail = \"null\", born = \"null\", photo = \"surrogate\"", "no random value of the same form"),
        ("person int?", "mail = \"null\", born = \"null\", note = { generalise = 10 }", "is no number"),
        ("person int?", "mail = \"null\", born = \"null\", points = { generalise = \"year\" }", "is no date"),
        ("person int?", "mail = \"null\", born = \"null\", points = { fixed = \"x\" }", "cannot hold that fixed value"),
        ("person int?", "mail = \"null\", born = \"null\", nowhere = \"null\"", "has a column `nowhere`"),
        ("person int?", "mail = \"null\", born = \"null\", person = \"mask\"", "only \"null\" and \"surrogate\""),
    ] {
        let problem = people(person, &rules(more)).unwrap_err();
        assert!(problem.contains(said), "{person}, {more}: {problem}");
    }
    let random = format!("{RULES}\nquasi = [\"mail\", \"born\"]");
    assert!(people("person int?", &random).unwrap_err().contains("`mail` is in `quasi` and becomes random"));
}

#[test]
fn the_subjects_id_as_the_key_and_a_firm_way_to_it_are_refused() {
    let people = table("people", &["id int", "ended date"], None);
    let keyed = "table = \"people\"\nsubject = \"id\"";
    let refused = model(std::slice::from_ref(&people), &[keyed], &[policy("collections = [\"people\"]")]).unwrap_err();
    assert!(refused[0].contains("`id` holds the subject's id and is part of the key"), "{refused:?}");

    let visits = |owner: &str| table("visits", &["id int", owner, "ended date"], Some(("owner", "people")));
    let via = "table = \"visits\"\nvia = [\"owner -> people\"]";
    let own = policy("collections = [\"visits\"]");
    let made = model(&[people.clone(), visits("owner int?")], &[keyed, via], std::slice::from_ref(&own)).unwrap();
    let changes = made.collection("visits").unwrap().1.anonymise.clone().unwrap();
    assert_eq!((changes.cut, changes.changes[0].how.clone()), (vec!["owner".to_owned()], How::Null));
    let refused = model(&[people, visits("owner int")], &[keyed, via], &[own]).unwrap_err();
    assert!(refused[0].contains("`owner` leads to the subject over people"), "{refused:?}");
}

#[test]
fn rows_that_follow_need_rules_and_keep_the_way_to_the_row_they_follow() {
    let people = table("people", &["id int", "person text?", "ended date"], None);
    let lines = table("lines", &["id int", "owner int", "remark text?"], Some(("owner", "people")));
    let first = "table = \"people\"\nsubject = \"person\"";
    let via = "table = \"lines\"\nvia = [\"owner -> people\"]\nfields.remark = { kind = \"free_text\" }";
    let of = |rules: &str| {
        let policy = policy(&format!("collections = [\"people\"]\n{rules}"));
        model(&[people.clone(), lines.clone()], &[first, via], &[policy])
    };
    assert!(of("").unwrap_err()[0].contains("declared fields remark"));
    assert!(of("anonymise.remark = \"mask\"").unwrap_err()[0].contains("a mask leaves names"));
    let made = of("anonymise.remark = \"null\"").unwrap();
    let (_, lines) = made.collection("lines").unwrap();
    assert_eq!(lines.anonymise.as_ref().unwrap().columns(), ["remark"]);
    let (_, people) = made.collection("people").unwrap();
    assert!(people.is_led_over(&people.children[0], &made));
}
