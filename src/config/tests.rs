//! Bad input is pinned by the full text of its error; every shipped file loads; secrets show nowhere.

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod anonymise;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod law;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod root;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod signing;

use std::path::Path;

use super::*;

const HEAD: &str = r#"[agent]
name = "shop"
timezone = "Asia/Shanghai"
site = "shanghai"

[root]
kind = "file"
path = "root.slot"
accept_host_loss = true

[backup]
endpoint = "https://s3.example.com"
site = "beijing"

[audit]
url = "https://audit.example.com"
"#;

const SHOP: &str = r#"
[[store]]
name = "shop"
url = "sqlite://data/shop.db"

[[store.collection]]
table = "orders"
subject = "customer_id"

[[store.collection]]
table = "order_lines"
via = ["order_id -> orders"]
"#;

const POLICY: &str = r#"
[[policy]]
id = "completed-orders"
collections = ["orders"]
retention = "3 years"
start = "completed_at"
action = "delete"
basis = "contract"
statutes = ["cn.ecl.31"]
"#;

fn no_variable(_: &str) -> Option<String> {
    None
}

fn read_with(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Configuration, String> {
    let source = Path::new("/srv/w/wangchuan.toml");
    let file = File { shown_as: Path::new("wangchuan.toml"), source, is_world_readable: false };
    parse(text, &file, variable).map_err(|faults| Faults(faults).to_string())
}

fn read(text: &str) -> Result<Configuration, String> {
    read_with(text, &no_variable)
}

fn error(text: &str) -> String {
    read(text).unwrap_err()
}

#[test]
fn defaults_are_filled_in_and_paths_are_relative_to_the_file() {
    let configuration = read(&format!("{HEAD}{SHOP}")).unwrap();
    assert_eq!(configuration.agent.state, StateLocation::Sqlite("/srv/w/wangchuan.db".into()));
    assert_eq!(configuration.agent.jobs, Path::new("/srv/w/jobs"));
    assert_eq!(configuration.agent.log, LogLevel::Info);
    let file = SlotSettings::File { path: "/srv/w/root.slot".into() };
    assert_eq!(configuration.root, Root { slot: file, previous: None });
    assert_eq!(configuration.audit.service, AuditService::Url("https://audit.example.com".into()));
    let backup = configuration.backup.as_ref().unwrap();
    assert_eq!(
        (backup.region.as_str(), backup.bucket.as_str(), backup.prefix.as_str()),
        ("us-east-1", "wangchuan", "")
    );
    assert_eq!(backup.keep, crate::policy::keep::Keep::default());
    let store = configuration.registry.store("shop").unwrap();
    assert_eq!(store.url.dangerous_text(), "sqlite:///srv/w/data/shop.db");
    assert_eq!(store.timezone, chrono_tz::Asia::Shanghai);
    assert_eq!(configuration.warnings, Vec::<String>::new());
}

#[test]
fn shown_configuration_loads_again_to_the_same() {
    let configuration = read(&format!("{HEAD}{SHOP}{POLICY}")).unwrap();
    let again = read(configuration.show()).unwrap();
    assert_eq!(again.registry, configuration.registry);
    assert_eq!(
        (again.agent, again.root, again.backup),
        (configuration.agent.clone(), configuration.root.clone(), configuration.backup.clone())
    );
    assert_eq!(again.effective, configuration.effective);
}

#[test]
fn every_fault_of_shape_is_told_at_once() {
    let text = HEAD
        .replace("timezone", "timezome")
        .replace("kind = \"file\"", "kind = \"fil\"")
        .replace("[audit]", "[audits]")
        + "\n[[store]]\nname = \"a\"\nnme = \"x\"\n\n[[store]]\nname = \"b\"\nurl = 5\n";
    let expected = "\
wangchuan.toml: the section [audit] is missing
  = do: add a section [audit]

wangchuan.toml:1:1: the key `timezone` is missing
   |
 1 | [agent]
   | ^^^^^^^
   = do: add `timezone = …` here

wangchuan.toml:3:1: unknown key `timezome`
   |
 3 | timezome = …
   | ^^^^^^^^
   = do: did you mean `timezone`?

wangchuan.toml:7:8: `fil` is no value for `kind`
   |
 7 | kind = \"fil\"
   |        ^^^^^
   = do: did you mean `file`?

wangchuan.toml:15:2: unknown key `audits`
    |
 15 | [audits]
    |  ^^^^^^
    = do: did you mean `audit`?

wangchuan.toml:18:1: the key `url` is missing
    |
 18 | [[store]]
    | ^^^^^^^^^
    = do: add `url = …` here

wangchuan.toml:20:1: unknown key `nme`
    |
 20 | nme = …
    | ^^^
    = do: did you mean `name`?

wangchuan.toml:24:7: `url` is of the wrong type: integer
    |
 24 | url = …
    |       ^
    = do: write a string";
    assert_eq!(error(&text), expected);
}

#[test]
fn syntax_errors_are_told_with_their_place() {
    assert_eq!(
        error("[agent]\nname = shop\n"),
        "\
wangchuan.toml:2:8: not valid TOML: string values must be quoted, expected literal string
   |
 2 | name = …
   |        ^
   = do: correct the line; text values stand in \"double quotes\""
    );
    assert!(error("[agent\n").starts_with("wangchuan.toml:1:7: not valid TOML: "));
    assert!(error("\u{feff}[agent]\nname = \"a\"\nname = \"b\"\n").contains("duplicate key"));
}

#[test]
fn a_control_database_on_a_server_has_a_folder_of_key_files() {
    let with = |state: &str| HEAD.replace("name = \"shop\"", &format!("name = \"shop\"\n{state}")) + SHOP;
    let server = "state = \"postgres://agent:${PASSWORD}@127.0.0.1/w\"";
    let password = |name: &str| (name == "PASSWORD").then(|| "a/b".to_owned());
    let read = |text: &str| read_with(text, &password).unwrap().agent;
    let agent = read(&with(server));
    let StateLocation::Postgres(url) = &agent.state else { panic!("{:?}", agent.state) };
    assert_eq!(url.dangerous_text(), "postgres://agent:a%2Fb@127.0.0.1/w");
    assert_eq!(agent.folder, Path::new("/srv/w/state"));
    assert_eq!(read(&with(&format!("{server}\nfolder = \"keys\""))).folder, Path::new("/srv/w/keys"));
    assert_eq!(read(&with("state = \"sqlite://d/c.db\"")).folder, Path::new("/srv/w/d"));
    let both = error(&with("state = \"sqlite://d/c.db\"\nfolder = \"keys\""));
    assert!(both.contains("no folder of their own"), "{both}");
}

#[test]
fn values_of_agent_and_root_are_checked() {
    let text = HEAD
        .replace("name = \"shop\"", "name = \"our shop\"\nstate = \"mysql://db/control\"")
        .replace("Asia/Shanghai", "Asia/Shangai")
        .replace("accept_host_loss = true\n", "")
        .replace("path = \"root.slot\"\n", "");
    let expected = "\
wangchuan.toml:2:8: a name has 1 to 64 letters a-z, digits, `-` and `_`
   |
 2 | name = \"our shop\"
   |        ^^^^^^^^^^
   = do: correct the name; names stand in object names, so they must not identify anybody

wangchuan.toml:3:9: the control database is an SQLite file or a PostgreSQL database
   |
 3 | state = …
   |         ^
   = do: write `state = \"sqlite://wangchuan.db\"` or `state = \"postgres://USER@HOST/DATABASE\"`

wangchuan.toml:4:12: unknown time zone `Asia/Shangai`
   |
 4 | timezone = \"Asia/Shangai\"
   |            ^^^^^^^^^^^^^^
   = do: did you mean `Asia/Shanghai`? use a name of the IANA time zone database, such as `Asia/Shanghai`

wangchuan.toml:7:1: a root key in a local file has no useful copy: if this host is lost, every backup is lost with it
   |
 7 | [root]
   | ^^^^^^
   = do: write `accept_host_loss = true` if you accept that

wangchuan.toml:7:1: the key `path` is missing
   |
 7 | [root]
   | ^^^^^^
   = do: add `path = \"root.slot\"` here";
    assert_eq!(error(&text), expected);
    let other = error(&HEAD.replace("kind = \"file\"", "kind = \"pkcs11\""));
    assert!(other.contains("the key `module` is missing"), "{other}");
}

#[test]
fn services_are_encrypted_or_local() {
    let with = |from: &str, to: &str| read(&HEAD.replace(from, to));
    let s3 = "https://s3.example.com";
    assert_eq!(
        with(s3, "http://s3.example.com").unwrap_err(),
        "\
wangchuan.toml:12:12: plain http would carry data unprotected across the network
    |
 12 | endpoint = …
    |            ^
    = do: use https://; plain http is for 127.0.0.1, ::1 and localhost only"
    );
    for local in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000/"] {
        let endpoint = with(s3, local).unwrap().backup.unwrap().endpoint;
        assert_eq!(endpoint, Endpoint::Url(local.trim_end_matches('/').into()));
    }
    let disguised = [
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "ftp://a",
        "https://",
        "s3.example.com",
        "http://[::1",
        "https://user:word@host",
    ];
    for wrong in disguised {
        let is_refused = with(s3, wrong).is_err();
        assert!(is_refused || wrong == "http://[::1", "{wrong}");
    }
    let audit = with("https://audit.example.com", "http://audit.example.com").unwrap_err();
    assert!(audit.starts_with("wangchuan.toml:16:7: plain http"), "{audit}");
}

#[test]
fn bucket_settings_are_checked() {
    let with = |more: &str| error(&HEAD.replace("site = \"beijing\"", more));
    let both = with(
        "access_key_id = \"file:id\"\ndata = \"here\"\nbucket = \"Bucket!\"\nlock = { mode = \"governance\", days = 0 }",
    );
    assert!(both.contains("`lock`") || both.contains("`days` is of the wrong type"), "{both}");
    let both = with("access_key_id = \"file:id\"\ndata = \"here\"\nbucket = \"Bucket!\"");
    for expected in [
        "`access_key_id` without `secret_access_key`",
        "`data` is the folder of the embedded server",
        "3 to 63 lower-case",
    ] {
        assert!(both.contains(expected), "{both}");
    }
    let embedded = HEAD.replace("https://s3.example.com", "embedded");
    assert!(
        error(&embedded.replace("site = \"beijing\"", "lock = { mode = \"compliance\", days = 1 }"))
            .contains("no Object Lock")
    );
    let configuration =
        read(&embedded.replace("[backup]", "[backup]\nprefix = \"/a/b\"\nkeep = { last = 3 }")).unwrap();
    let backup = configuration.backup.unwrap();
    assert_eq!((backup.prefix.as_str(), backup.keep.last.map(std::num::NonZeroU32::get)), ("a/b/", Some(3)));
    assert_eq!(backup.endpoint, Endpoint::Embedded { data: "/srv/w/backup".into() });
    assert_eq!(configuration.warnings, ["the embedded backup server stands on the agent's own host: not off site"]);
}

#[test]
fn stores_and_collections_are_checked() {
    let text = format!("{HEAD}{SHOP}{SHOP}").replacen("sqlite://data/shop.db", "oracle://db/shop", 1)
        + "\n[[store.collection]]\ntable = \"orders\"\nsubject = \"customer_id\"\nvia = [\"x -> orders\"]\n\
           [[store.collection]]\ntable = \"notes\"\nvia = [\"order_id orders\"]\n\
           [[store.collection]]\ntable = \"marks\"\nvia = [\"a -> order_line\"]\n";
    let error = error(&text);
    for expected in [
        ":20:7: not the address of a database this version knows\n    |\n 20 | url = …",
        "the collection `orders` is declared twice",
        "`orders` has both `subject` and `via`",
        "`order_id orders` is no hop of an owner path",
        "the owner path ends at `order_line`, which is no collection of store `shop`",
        "declare `order_line` as a collection of this store; did you mean `order_lines`?",
    ] {
        assert!(error.contains(expected), "{expected}\nnot in\n{error}");
    }
}

#[test]
fn owner_paths_must_end() {
    let circle = format!("{HEAD}{SHOP}").replace("subject = \"customer_id\"", "via = [\"line_id -> order_lines\"]");
    let error = error(&circle);
    assert_eq!(error.matches("runs in a circle").count(), 2, "{error}");
    let composite = SHOP.replace("order_id -> orders", "order_id, shop_id -> orders");
    assert!(read(&format!("{HEAD}{composite}")).is_ok());
}

#[test]
fn policies_fit_the_stores() {
    let second = SHOP
        .replace("name = \"shop\"", "name = \"old\"")
        .replace("table = \"order_lines\"", "table = \"public.notes\"")
        .replace("via = [\"order_id -> orders\"]", "subject = \"c\"");
    let policy = |id: &str, collections: &str, more: &str| {
        POLICY.replace("completed-orders", id).replace("[\"orders\"]", collections) + more
    };
    let text = format!(
        "{HEAD}{SHOP}{second}{}{}{}",
        policy("a", "[\"shop.orders\", \"public.notes\", \"order_lnes\"]", "approval = \"two\"\n"),
        policy("a", "[\"old.orders\", \"orders\", \"shop.orders\"]", "max = { percent = 101 }\n")
            .replace("cn.ecl.31", "xx.1"),
        policy("c", "[]", ""),
    );
    let error = error(&text);
    let whats: Vec<&str> = error.lines().filter(|line| line.starts_with("wangchuan.toml")).collect();
    assert_eq!(
        whats,
        [
            "wangchuan.toml:44:47: no store has a collection `order_lnes`",
            "wangchuan.toml:53:6: two policies are called `a`",
            "wangchuan.toml:54:30: several stores have a collection `orders`",
            "wangchuan.toml:54:40: `shop.orders` is governed by `a` already; one policy decides about a row",
            "wangchuan.toml:59:13: the catalogue has no statute `xx.1`",
            "wangchuan.toml:60:7: a cap has at least 1 row and 1 to 100 percent",
            "wangchuan.toml:64:15: the policy governs no collection",
        ],
        "{error}"
    );
}

#[test]
fn store_without_a_bucket_must_say_so() {
    let text = format!("{HEAD}{SHOP}");
    let without = text.replace("[backup]\nendpoint = \"https://s3.example.com\"\nsite = \"beijing\"\n", "");
    assert!(error(&without).contains("store `shop` is to be backed up, but there is no [backup]"));
    let said = without.replace("name = \"shop\"\nurl", "name = \"shop\"\nbackup = \"none\"\nurl");
    let configuration = read(&said).unwrap();
    assert_eq!(configuration.backup, None);
    assert!(configuration.warnings[0].contains("no declared copy"));
}

#[test]
fn doubtful_things_are_warned_about() {
    let text = format!("{HEAD}{SHOP}").replace(
        "url = \"sqlite://data/shop.db\"",
        "url = \"postgres://u@db.example.com/shop\"\ninsecure = true\nsite = \"beijing\"\n\n[[store.copy]]\nname = \"tape\"\nkind = \"dump\"\ndies = \"never\"",
    );
    assert_eq!(
        read(&text).unwrap().warnings,
        [
            "store shop: `insecure = true`: the connection may be unencrypted",
            "store shop: copy tape never dies, so no certificate about this store can promise that all copies are gone",
            "store shop: its backups stand at the same site, beijing: not off site",
        ]
    );
    let dies = error(&text.replace("\"never\"", "\"some day\""));
    assert!(dies.contains("`some day` is no period"), "{dies}");
}

/// What is refused of servers on other hosts without TLS; what an address comes to is told by `stores::transport`.
#[test]
fn what_may_cross_a_network_in_clear_is_refused_unless_its_section_says_so() {
    let shop =
        |url: &str, more: &str| format!("{HEAD}{}", SHOP.replace("sqlite://data/shop.db\"", &format!("{url}\"{more}")));
    let (far, near) = ("postgres://u@db.example.com/shop", "postgres://u@127.0.0.1/shop");
    let replica = |url: &str| shop(near, "") + &format!("\n[[store.replica]]\nname = \"r\"\nurl = \"{url}\"\n");
    let scratch = |more: &str| {
        format!(
            "{HEAD}\n[drill]\n{more}\n[drill.scratch]\nshop = \"{far}\"\n{}",
            SHOP.replace("sqlite://data/shop.db", near)
        )
    };
    let state = |url: &str, more: &str| {
        format!("{HEAD}{SHOP}").replace("timezone", &format!("state = \"{url}\"\n{more}\ntimezone"))
    };
    let consent = "\ninsecure = true";
    for (text, whose) in [
        (shop(far, ""), "store shop"),
        (shop("mariadb://u@10.0.0.7/shop?ssl-mode=PREFERRED", ""), "store shop"),
        (shop("postgres://u@localhost/shop?host=db.example.com", ""), "store shop"),
        (shop(&format!("{far}?sslmode=require"), &format!("\nread_url = \"{far}\"")), "store shop"),
        (replica(far), "store shop"),
        (scratch(""), "the scratch of store shop"),
        (state(far, ""), "the control database"),
    ] {
        let found = error(&text);
        assert!(
            found.contains(&format!("{whose}: the connection to another host may be unencrypted")),
            "{text}\n{found}"
        );
        assert!(found.contains("insecure = true") && found.contains("sslmode=verify-full"), "{found}");
    }
    for (text, warned) in [
        (shop(far, consent), 1),
        (shop(far, &format!("{consent}\nread_url = \"{far}\"")), 2),
        (scratch("insecure = true"), 1),
        (state(far, "insecure = true"), 1),
        (shop(near, ""), 0),
        (shop("mysql://u@[::1]:3306/shop", ""), 0),
        (shop("postgres://u@%2Frun%2Fpostgresql/shop", ""), 0),
        (shop(&format!("{far}?sslmode=verify-full"), ""), 0),
        (replica(near), 0),
        (state(&format!("{far}?sslmode=require"), ""), 0),
    ] {
        let warnings = read(&text).unwrap().warnings;
        let found = warnings.iter().filter(|warning| warning.contains("may be unencrypted")).count();
        assert_eq!(found, warned, "{text}\n{warnings:?}");
    }
    let unread = error(&shop("postgres://u:p@ss/w@db/shop?sslmode=perhaps", ""));
    assert!(unread.contains("store shop: the database URL cannot be read") && !unread.contains("p@ss"), "{unread}");
}

/// Encryption, access control and audit have no switch: what would take one of them away is refused before anything starts.
#[test]
fn nothing_that_protects_can_be_configured_away() {
    let whole = format!("{HEAD}{SHOP}");
    let with = |old: &str, new: &str| {
        assert!(whole.contains(old), "{old}");
        whole.replacen(old, new, 1)
    };
    let audit = "[audit]\nurl = \"https://audit.example.com\"\n";
    let cases = [
        ("encryption", with("[backup]", "[backup]\nencryption = false"), "unknown key `encryption`"),
        ("encryption", with("[backup]", "[backup]\ncipher = \"none\""), "unknown key `cipher`"),
        (
            "encryption",
            with("table = \"orders\"", "table = \"orders\"\nfields.a = { kind = \"name\", cipher = \"none\" }"),
            "unknown key `cipher`",
        ),
        ("encryption", with("kind = \"file\"", "kind = \"none\""), "none"),
        ("encryption", with("https://s3.example.com", "http://s3.example.com"), "plain http"),
        ("encryption", with("https://audit.example.com", "http://audit.example.com"), "plain http"),
        ("encryption", with("sqlite://data/shop.db", "postgres://u@db.example.com/shop"), "may be unencrypted"),
        ("access", with("accept_host_loss = true", "accept_host_loss = false"), "accept_host_loss"),
        (
            "access",
            with("https://s3.example.com", "https://key:word@s3.example.com"),
            "must not hold a user or password",
        ),
        ("audit", with(audit, ""), "audit"),
        ("audit", with(audit, "[audit]\n"), "url"),
        ("audit", with("https://audit.example.com", "none"), "neither `embedded` nor an address"),
        ("audit", with("[audit]", "[audit]\nenabled = false"), "unknown key `enabled`"),
    ];
    assert!(read(&whole).is_ok());
    for (what, text, expected) in cases {
        let found = error(&text);
        assert!(found.contains(expected), "{what}: {found}");
    }
}

#[test]
fn collections_are_found_by_table_or_with_their_store() {
    let second = SHOP.replace("\"shop\"", "\"old\"").replace("order_lines", "public.notes");
    let registry =
        read(&format!("{HEAD}{SHOP}{second}{POLICY}").replace("[\"orders\"]", "[\"shop.orders\"]")).unwrap().registry;
    let found = |name: &str| {
        registry.collection(name).map(|(store, collection)| (store.name.as_str(), collection.table.as_str()))
    };
    assert_eq!(found("shop.orders"), Ok(("shop", "orders")));
    assert_eq!(found("order_lines"), Ok(("shop", "order_lines")));
    assert_eq!(found("public.notes"), Ok(("old", "public.notes")));
    assert_eq!(found("old.public.notes"), Ok(("old", "public.notes")));
    assert_eq!(found("orders"), Err(UnknownCollection::Ambiguous));
    assert_eq!(found("nothing"), Err(UnknownCollection::Nowhere));
}

#[test]
fn a_scratch_server_belongs_to_a_store_of_its_engine() {
    let with = |key: &str| {
        let store = SHOP.replace("sqlite://data/shop.db", "postgres://me@127.0.0.1/shop");
        format!("{HEAD}\n[drill.scratch]\n{key}\n{store}")
    };
    let good = read(&with("shop = \"postgres://drill@127.0.0.1/postgres\"")).unwrap();
    assert_eq!(good.drill.scratch["shop"].dangerous_text(), "postgres://drill@127.0.0.1/postgres");
    assert!(good.warnings.is_empty(), "{:?}", good.warnings);
    let secret = read(&with("shop = \"postgres://drill:word@127.0.0.1/postgres\"")).unwrap();
    assert!(!secret.show().contains("word") && secret.show().contains("[drill.scratch]"), "{}", secret.show());
    assert!(error(&with("crm = \"postgres://drill@127.0.0.1/postgres\"")).contains("there is no store `crm`"));
    assert!(error(&with("shop = \"mysql://drill@127.0.0.1/\"")).contains("must be a server of the same engine"));
    let file = format!("{HEAD}\n[drill.scratch]\nshop = \"postgres://drill@127.0.0.1/postgres\"\n{SHOP}");
    assert!(error(&file).contains("needs no scratch server"));
    assert!(!read(&format!("{HEAD}{SHOP}")).unwrap().show().contains("drill"));
}

#[test]
fn witnesses_are_those_that_can_sign() {
    let key = "witness.example/one+8d81bb31+BFGYF0KZJS9MdqKaGOBuISW4YoIcbWPAD3jQwTd06HqX";
    for (lines, expected) in [
        ("witness = [{ key = \"x\" }]".to_owned(), "malformed witness key"),
        (format!("witness = [{{ key = \"{key}\" }}]\nquorum = 2"), "a quorum of 2"),
        (format!("witness = [{{ key = \"{key}\" }}]\nquorum = 0"), "a quorum of 0"),
        (format!("witness = [{{ key = \"{key}\" }}, {{ key = \"{key}\" }}]"), "stands twice"),
        ("quorum = 1".to_owned(), "a quorum of 1"),
        (format!("witness = [{{ key = \"{key}\", url = \"https://w.example\" }}]"), "asks its witnesses itself"),
    ] {
        let found = error(&HEAD.replace("[audit]", &format!("[audit]\n{lines}")));
        assert!(found.contains(expected), "{lines}: {found}");
    }
}
