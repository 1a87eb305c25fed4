use super::*;
use crate::keys::Key;
use crate::random::SystemRandom;
use crate::stores::{
    Column, ColumnKind, CreateTable, Definitions, Engine, ForeignKey, ObjectDefinition, ObjectKind, OnDelete,
    PartDefinition, PartKind, Position, ReferenceDefinition, Table, TableDefinition, Trigger,
};
use proptest::prelude::*;

const REPOSITORY: Id128 = Id128([1; 16]);
const SNAPSHOT: Id128 = Id128([2; 16]);

fn key(id: &Id128) -> FrameKey {
    let mut commitment = [0; 32];
    commitment[..16].copy_from_slice(&id.0);
    FrameKey { encryption: Key::dangerous_from_bytes(&[5; 32]), commitment }
}

fn column(name: &str, kind: Option<ColumnKind>) -> Column {
    Column {
        name: name.to_owned(),
        type_name: "varchar(20)".to_owned(),
        kind,
        nullable: kind.is_none(),
        default: kind.map(|_| "'x'".to_owned()),
        generated: false,
        numbered: kind == Some(ColumnKind::Integer),
    }
}

pub(crate) fn schema() -> CapturedSchema {
    let kinds = [
        ColumnKind::Integer,
        ColumnKind::Real,
        ColumnKind::Decimal,
        ColumnKind::Boolean,
        ColumnKind::Text,
        ColumnKind::Bytes,
        ColumnKind::Date,
        ColumnKind::LocalTime,
        ColumnKind::Instant,
        ColumnKind::Other,
    ];
    let parent = |on_delete| ForeignKey {
        columns: vec!["客户".to_owned()],
        parent: "customers".to_owned(),
        parent_columns: vec!["id".to_owned()],
        on_delete,
    };
    let table = Table {
        name: "orders".to_owned(),
        columns: kinds.map(Some).into_iter().chain([None]).map(|kind| column("客户", kind)).collect(),
        key: vec!["id".to_owned()],
        unique: vec![vec!["a".to_owned(), "b".to_owned()], Vec::new()],
        foreign_keys: [OnDelete::Refuse, OnDelete::Cascade, OnDelete::Unset].map(parent).into(),
        triggers: vec![Trigger { name: "t".to_owned(), on_delete: true }],
        rows_may_be_hidden: true,
        index_statements: vec!["CREATE INDEX \"i\" ON orders (a)".to_owned()],
    };
    CapturedSchema {
        engine: Engine::Postgres,
        server_version: "15.18".to_owned(),
        tables: vec![table],
        collections: vec![CapturedCollection { number: 3, table: "orders".to_owned(), rows: u64::MAX }],
        definitions: definitions(),
    }
}

fn definitions() -> Definitions {
    let text = |text: &str| text.to_owned();
    let (kind, condition) = (PartKind::Check, Some(text("a > 0")));
    Definitions {
        objects: vec![ObjectDefinition {
            kind: ObjectKind::Type,
            name: text("mood"),
            statement: text("CREATE TYPE mood"),
        }],
        tables: vec![TableDefinition {
            table: text("orders"),
            create: vec![CreateTable { statement: text("CREATE TABLE orders"), holds_rows: true }],
            parts: vec![PartDefinition { kind, name: text("c"), statement: text("ALTER TABLE orders"), condition }],
            references: vec![ReferenceDefinition {
                columns: vec![text("a")],
                parent: text("p"),
                parent_columns: vec![text("b")],
                statement: text("ALTER TABLE orders ADD"),
            }],
        }],
        positions: vec![Position { sequence: text("s"), table: text("orders"), last: i64::MIN, is_used: true }],
    }
}

fn any_entry() -> impl Strategy<Value = FrameEntry> {
    let place = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let cell = (any::<Option<u32>>(), any::<u32>(), any::<Option<u32>>());
    let rest = (any::<u32>(), any::<u32>(), any::<u8>(), any::<bool>(), any::<u32>(), any::<bool>());
    (place, cell, rest).prop_map(|((pack, ordinal, offset, length), (subject, bucket, pin), rest)| FrameEntry {
        pack,
        ordinal,
        offset,
        length,
        cell: CellRef { subject, bucket, pin },
        collection: rest.0,
        chunk: rest.1,
        group: rest.2,
        suite: if rest.3 { Suite::Gm } else { Suite::Intl },
        rows: rest.4,
        removed: rest.5,
    })
}

fn write(entries: &[FrameEntry]) -> Vec<SealedPart> {
    let mut builder = DirectoryBuilder::new(REPOSITORY, SNAPSHOT, &key, &SystemRandom);
    let mut parts = Vec::new();
    for entry in entries {
        parts.extend(builder.push(*entry).unwrap());
    }
    parts.extend(builder.finish(schema()).unwrap());
    parts
}

fn read(parts: &[SealedPart]) -> Result<Vec<DirectoryPart>, DirectoryError> {
    let open = |(number, part): (usize, &SealedPart)| open_part(&part.bytes, REPOSITORY, SNAPSHOT, number as u32, &key);
    parts.iter().enumerate().map(open).collect()
}

proptest! {
    #[test]
    fn entries_round_trip(entries in proptest::collection::vec(any_entry(), 0..40)) {
        let parts = write(&entries);
        prop_assert_eq!(parts.len(), 1);
        prop_assert_eq!(parts[0].name(), format!("directories/{}", Sha256::of(&parts[0].bytes)));
        let opened = read(&parts).unwrap();
        let end = check_complete(&opened).unwrap();
        prop_assert_eq!((end.parts, end.frames), (1, entries.len() as u64));
        prop_assert_eq!(&end.schema, &schema());
        prop_assert_eq!(&opened[0].entries, &entries);
    }

    #[test]
    fn any_changed_byte_is_found(at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut part = write(&[FIRST]).remove(0).bytes;
        let at = at.index(part.len());
        part[at] ^= with;
        prop_assert!(open_part(&part, REPOSITORY, SNAPSHOT, 0, &key).is_err());
    }

    #[test]
    fn reading_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), last in 0u8..2, count in 0u32..4) {
        let _ = open_part(&bytes, REPOSITORY, SNAPSHOT, 0, &key);
        let mut content = SNAPSHOT.0.to_vec();
        content.extend_from_slice(&[0, 0, 0, 0, last]);
        content.extend_from_slice(&count.to_be_bytes());
        content.extend_from_slice(&bytes);
        let _ = decode_part(&content, SNAPSHOT, 0);
    }
}

#[test]
fn a_large_directory_is_written_in_parts_and_compresses() {
    let mut offset = 24u32;
    let entries: Vec<FrameEntry> = (0..MAX_ENTRIES_PER_PART as u32 + 5)
        .map(|number| {
            let length = 204 + 64 * (number % 5);
            offset = offset.wrapping_add(length);
            let cell = CellRef { subject: Some(number.wrapping_mul(2_654_435_761)), bucket: number % 12, pin: None };
            FrameEntry { ordinal: number, offset: offset - length, length, cell, chunk: number, rows: 30, ..FIRST }
        })
        .collect();
    let parts = write(&entries);
    assert_eq!(parts.len(), 2);
    assert!(parts[0].bytes.len() < MAX_ENTRIES_PER_PART * 8, "{} bytes", parts[0].bytes.len());
    let opened = read(&parts).unwrap();
    check_complete(&opened).unwrap();
    let read_back: Vec<FrameEntry> = opened.iter().flat_map(|part| part.entries.clone()).collect();
    assert!(read_back == entries);
    assert!(matches!(check_complete(&opened[..1]), Err(DirectoryError::Incomplete(_))));
    assert!(matches!(check_complete(&opened[1..]), Err(DirectoryError::Incomplete(_))));
    assert!(matches!(check_complete(&[]), Err(DirectoryError::Incomplete(_))));
}

#[test]
fn the_largest_part_stays_below_eight_mebibytes() {
    let incompressible = MAX_PART_CONTENT_BYTES;
    assert!(super::envelope::HEADER_BYTES + padded_length(9 + incompressible) + TAG_BYTES <= MAX_PART_BYTES);
    const { assert!(PREFIX_BYTES + MAX_ENTRIES_PER_PART * ENTRY_BYTES <= MAX_PART_CONTENT_BYTES) };
}

#[test]
fn a_part_opens_only_in_its_snapshot_and_place() {
    let part = write(&[FIRST]).remove(0).bytes;
    assert!(open_part(&part, REPOSITORY, SNAPSHOT, 0, &key).is_ok());
    for (repository, snapshot, number) in
        [(SNAPSHOT, SNAPSHOT, 0), (REPOSITORY, REPOSITORY, 0), (REPOSITORY, SNAPSHOT, 1)]
    {
        assert!(matches!(open_part(&part, repository, snapshot, number, &key), Err(DirectoryError::Corrupt(_))));
    }
    let other = |_: &Id128| FrameKey { encryption: Key::dangerous_from_bytes(&[5; 32]), commitment: [0; 32] };
    assert!(matches!(open_part(&part, REPOSITORY, SNAPSHOT, 0, &other), Err(DirectoryError::WrongKey)));
}

#[test]
fn unknown_members_of_the_schema_are_refused() {
    let mut json = serde_json::to_value(SchemaJson::from(schema())).unwrap();
    assert!(serde_json::from_value::<SchemaJson>(json.clone()).is_ok());
    json["tables"][0]["columns"][0]["collation"] = "C".into();
    assert!(serde_json::from_value::<SchemaJson>(json).is_err());
}

#[test]
fn a_schema_beyond_the_limit_is_refused() {
    let mut large = schema();
    large.tables[0].index_statements = vec!["x".repeat(MAX_PART_CONTENT_BYTES)];
    let builder = DirectoryBuilder::new(REPOSITORY, SNAPSHOT, &key, &SystemRandom);
    assert!(matches!(builder.finish(large), Err(DirectoryError::TooLarge(_))));
}
