//! Random schemas: tables that refer to each other in any way, with rows in them, and what must become of those.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::Engine;

use crate::erase::ground::governed;
use crate::scenario::database::Database;
use crate::support::dice::Dice;

/// A foreign key to the key of another table, or of its own.
#[derive(Debug)]
pub struct Reference {
    pub to: usize,
    pub nullable: bool,
    rule: &'static str,
    late: &'static str,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Whether its key has two columns.
    composite: bool,
    pub references: Vec<Reference>,
    pub registered: bool,
    /// Whether its rows belong to whom the row of its first reference belongs, and go when that does.
    pub follows: bool,
}

/// When a row's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    LongAgo,
    Lately,
    Never,
}

/// A row. Its references are numbers of rows.
#[derive(Debug, Clone)]
pub struct Row {
    pub table: usize,
    pub id: i64,
    pub person: Option<usize>,
    pub ended: Ended,
    pub refers: Vec<Option<usize>>,
}

/// A schema with its rows.
#[derive(Debug)]
pub struct Schema {
    pub engine: Engine,
    pub tables: Vec<Table>,
    pub rows: Vec<Row>,
}

/// A row by its table and key.
pub type Id = (usize, i64);

impl Schema {
    /// The schema of a seed.
    pub fn of(dice: &mut Dice, engine: Engine) -> Self {
        let mut schema = Self { engine, tables: Vec::new(), rows: Vec::new() };
        let count = 2 + dice.below(11);
        for at in 0..count {
            let references = (0..dice.below(4)).map(|_| schema.reference(dice, at, count)).collect();
            let composite = dice.chance(30);
            schema.tables.push(Table { composite, references, registered: dice.chance(85), follows: false });
        }
        for at in 0..count {
            let made = &schema.tables[at];
            let first = made.references.first();
            let may = first.is_some_and(|first| !first.nullable && first.to < at && schema.tables[first.to].registered);
            schema.tables[at].follows = may && made.registered && dice.chance(60);
        }
        schema.fill(dice);
        schema
    }

    fn reference(&self, dice: &mut Dice, from: usize, count: usize) -> Reference {
        let nullable = from == 0 || dice.chance(70);
        // What must not be NULL refers backwards or to its own table, so that rows can be made at all.
        // InnoDB never lets a row go that must refer to itself.
        let own = usize::from(self.engine != Engine::Mysql);
        let to = if nullable { dice.below(count) } else { dice.below(from + own) };
        let rules = ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL"];
        let rule = rules[dice.below(if nullable { 4 } else { 3 })];
        let late = match self.engine {
            Engine::Mysql => "",
            _ if dice.chance(30) => " DEFERRABLE INITIALLY IMMEDIATE",
            _ => "",
        };
        Reference { to, nullable, rule, late }
    }

    fn fill(&mut self, dice: &mut Dice) {
        for table in 0..self.tables.len() {
            for id in 1..=(1 + dice.below(7) as i64) {
                let own: Vec<usize> = self.rows_of(table);
                let mut refers = Vec::new();
                for reference in &self.tables[table].references {
                    let known = if reference.to == table { own.clone() } else { self.rows_of(reference.to) };
                    let is_first = reference.to == table && (known.is_empty() || dice.chance(40));
                    refers.push(if reference.nullable {
                        None
                    } else if is_first {
                        // The row itself, or else an earlier one.
                        Some(self.rows.len())
                    } else {
                        Some(known[dice.below(known.len())])
                    });
                }
                let ended = [Ended::LongAgo, Ended::LongAgo, Ended::Lately, Ended::Never][dice.below(4)];
                let person = (!dice.chance(10)).then(|| dice.below(4));
                let mut row = Row { table, id, person, ended, refers };
                if self.tables[table].follows
                    && let Some(parent) = row.refers[0].map(|at| &self.rows[at])
                {
                    (row.person, row.ended) = (parent.person, parent.ended);
                }
                self.rows.push(row);
            }
        }
        for at in 0..self.rows.len() {
            for number in 0..self.rows[at].refers.len() {
                let reference = &self.tables[self.rows[at].table].references[number];
                if reference.nullable && dice.chance(60) {
                    let known = self.rows_of(reference.to);
                    self.rows[at].refers[number] = Some(known[dice.below(known.len())]);
                }
            }
        }
    }

    fn rows_of(&self, table: usize) -> Vec<usize> {
        (0..self.rows.len()).filter(|at| self.rows[*at].table == table).collect()
    }

    fn type_of(&self, what: &str) -> &'static str {
        match (self.engine, what) {
            (Engine::Mysql, "text") => "varchar(20)",
            (Engine::Postgres, "time") => "timestamp",
            (Engine::Mysql, "time") => "datetime",
            (_, "number") => "bigint",
            _ => "text",
        }
    }

    fn key_of(&self, table: usize) -> &'static [&'static str] {
        if self.tables[table].composite { &["id", "part"] } else { &["id"] }
    }

    fn columns_of(&self, table: usize, number: usize) -> Vec<String> {
        let to = self.tables[table].references[number].to;
        self.key_of(to).iter().map(|part| format!("f{number}_{part}")).collect()
    }

    /// Every column of a table, the number of the key first.
    fn all_columns(&self, table: usize) -> Vec<String> {
        let own = self.key_of(table).iter().chain(&["person", "ended", "note"]).map(|name| (*name).to_owned());
        let references = 0..self.tables[table].references.len();
        own.chain(references.flat_map(|number| self.columns_of(table, number))).collect()
    }

    /// The statements that make the tables and their rows.
    pub fn statements(&self) -> Vec<String> {
        let mut made = Vec::new();
        let mut bound = Vec::new();
        for (at, table) in self.tables.iter().enumerate() {
            let (number, text, time) = (self.type_of("number"), self.type_of("text"), self.type_of("time"));
            let mut parts = vec![format!("id {number} NOT NULL")];
            if table.composite {
                parts.push(format!("part {text} NOT NULL"));
            }
            parts.push(format!("person {text} NULL, ended {time} NULL, note {text} NULL"));
            let mut keys = Vec::new();
            for (number_of, reference) in table.references.iter().enumerate() {
                let columns = self.columns_of(at, number_of);
                let null = if reference.nullable { "NULL" } else { "NOT NULL" };
                for (column, kind) in columns.iter().zip([number, text]) {
                    parts.push(format!("{column} {kind} {null}"));
                }
                let to = format!("t{} ({})", reference.to, self.key_of(reference.to).join(", "));
                let (columns, rule, late) = (columns.join(", "), reference.rule, reference.late);
                keys.push(format!("FOREIGN KEY ({columns}) REFERENCES {to} ON DELETE {rule}{late}"));
            }
            parts.push(format!("PRIMARY KEY ({})", self.key_of(at).join(", ")));
            if self.engine == Engine::Sqlite {
                parts.append(&mut keys);
            }
            made.push(format!("CREATE TABLE t{at} ({})", parts.join(", ")));
            bound.extend(keys.into_iter().map(|key| format!("ALTER TABLE t{at} ADD {key}")));
        }
        made.append(&mut bound);
        made.extend(self.rows.iter().map(|row| self.insert(row)));
        made.extend(self.rows.iter().filter_map(|row| self.tie(row)));
        made
    }

    fn value_of(&self, row: usize, part: usize) -> String {
        if part == 0 { self.rows[row].id.to_string() } else { "'k'".to_owned() }
    }

    fn ended(ended: Ended) -> String {
        match ended {
            Ended::LongAgo => "'2001-01-01 00:00:00'".to_owned(),
            Ended::Lately => format!("'{}'", SystemClock.now().format("%Y-%m-%d 00:00:00")),
            Ended::Never => "NULL".to_owned(),
        }
    }

    /// The INSERT of a row, without what may be NULL.
    pub fn insert(&self, row: &Row) -> String {
        let person = row.person.map_or_else(|| "NULL".to_owned(), |person| format!("'p{person}'"));
        let mut columns = vec!["id".to_owned(), "person".to_owned(), "ended".to_owned(), "note".to_owned()];
        let mut values = vec![row.id.to_string(), person, Self::ended(row.ended), "'secret'".to_owned()];
        if self.tables[row.table].composite {
            columns.push("part".to_owned());
            values.push("'k'".to_owned());
        }
        for (number, to) in row.refers.iter().enumerate() {
            if let (Some(to), false) = (to, self.tables[row.table].references[number].nullable) {
                for (part, column) in self.columns_of(row.table, number).into_iter().enumerate() {
                    columns.push(column);
                    values.push(if *to >= self.rows.len() && part == 0 {
                        row.id.to_string()
                    } else if part == 0 {
                        self.value_of(*to, 0)
                    } else {
                        "'k'".to_owned()
                    });
                }
            }
        }
        format!("INSERT INTO t{} ({}) VALUES ({})", row.table, columns.join(", "), values.join(", "))
    }

    /// The UPDATE that sets the references which may be NULL.
    fn tie(&self, row: &Row) -> Option<String> {
        let mut set = Vec::new();
        for (number, to) in row.refers.iter().enumerate() {
            if let (Some(to), true) = (to, self.tables[row.table].references[number].nullable) {
                let columns = self.columns_of(row.table, number);
                let pairs = columns.iter().enumerate();
                set.extend(pairs.map(|(part, column)| format!("{column} = {}", self.value_of(*to, part))));
            }
        }
        let sql = format!("UPDATE t{} SET {} WHERE id = {}", row.table, set.join(", "), row.id);
        (!set.is_empty()).then_some(sql)
    }

    /// What is registered.
    pub fn collections(&self) -> String {
        let mut text = String::new();
        for (at, table) in self.tables.iter().enumerate().filter(|(_, table)| table.registered) {
            if table.follows {
                let (columns, to) = (self.columns_of(at, 0).join(", "), table.references[0].to);
                let _ = write!(text, "[[store.collection]]\ntable = \"t{at}\"\nvia = [\"{columns} -> t{to}\"]\n\n");
            } else {
                text.push_str(&governed(&format!("t{at}"), "subject = \"person\""));
            }
        }
        text
    }

    /// Every row that is there, as text.
    pub fn dump(&self, database: &Database) -> BTreeMap<Id, String> {
        let mut found = BTreeMap::new();
        for at in 0..self.tables.len() {
            let kind = if self.engine == Engine::Mysql { "CHAR" } else { "text" };
            let columns = self.all_columns(at).into_iter().map(|name| format!("coalesce(CAST({name} AS {kind}), '-')"));
            let columns: Vec<String> = columns.collect();
            let row = match self.engine {
                Engine::Mysql => format!("concat_ws('|', {})", columns.join(", ")),
                _ => columns.join(" || '|' || "),
            };
            for text in database.texts(&format!("SELECT {row} FROM t{at}")) {
                let id = text.split('|').next().unwrap().parse().unwrap();
                found.insert((at, id), text);
            }
        }
        found
    }

    /// The text of a row that was stripped: to its key and references, and to what tells whose it is and how old.
    pub fn stripped(&self, table: usize, text: &str) -> String {
        let mut parts: Vec<&str> = text.split('|').collect();
        let person = self.key_of(table).len();
        let first = if self.tables[table].follows { person } else { person + 2 };
        parts[first..person + 3].fill("-");
        parts.join("|")
    }

    /// Of the rows that are there, those that stay on their own account, and all that stay because one of them refers to
    /// them. Whoever `is_due` is asked of gives the person as well: one that is not known may be anybody held.
    pub fn staying(&self, there: &BTreeSet<Id>, stays: impl Fn(&Row) -> bool) -> (BTreeSet<Id>, BTreeSet<Id>) {
        let place = |row: &Row| (row.table, row.id);
        let living = || self.rows.iter().filter(|row| there.contains(&place(row)));
        let own: BTreeSet<Id> =
            living().filter(|row| !self.tables[row.table].registered || stays(row)).map(place).collect();
        let mut all = own.clone();
        loop {
            let before = all.len();
            let held = living().filter(|row| all.contains(&place(row))).flat_map(|row| row.refers.iter().flatten());
            let held: Vec<Id> = held.map(|at| place(&self.rows[*at])).collect();
            all.extend(held);
            if all.len() == before {
                return (own, all);
            }
        }
    }
}
