//! The published contract: one JSON Schema for every document that a command prints with `--json`.
//!
//! A new command follows in four steps, and the tests below fail until all are done: its document is a type with
//! `Serialize`, `JsonSchema` and [`Document`], it stands in the list here, `WANGCHUAN_UPDATE_SCHEMAS=1` writes its schema
//! to `config/schema/output/`, and a story in `tests/it/output/` takes its snapshot.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::output::{Document, error_report};
use super::{
    agent, approve, audit, backup, certificate, config, drill, evidence_pack, generated, hold, incident, init, job,
    key, media, plan, quickstart, request, run,
};
use super::{recover, report, status, statute, store, verify};

/// A document's schema, made when asked for.
#[derive(Clone, Copy)]
pub struct Published {
    /// The command as it is typed, or `error`.
    pub command: &'static str,
    make: fn() -> Schema,
}

macro_rules! published {
    ($($document:ty,)+) => {
        /// The documents of all commands, and that of an error.
        pub fn all() -> Vec<Published> {
            let mut all = Vec::new();
            $(all.extend(<$document>::OF.iter().map(|&command| Published { command, make: schema_of::<$document> }));)+
            all
        }
    };
}

published! {
    error_report::ErrorDocument,
    status::StatusDocument,
    agent::WorkEntry,
    agent::PassDocument,
    agent::HoldDocument,
    job::ListDocument,
    job::RunDocument,
    job::PreviewDocument,
    run::ListDocument,
    run::ShowDocument,
    run::UndoDocument,
    run::OrderDocument,
    approve::ApproveDocument,
    plan::PlanDocument,
    plan::ErasureDocument,
    plan::ExplainDocument,
    statute::ListDocument,
    statute::DiffDocument,
    request::NewDocument,
    request::ListDocument,
    request::ShowDocument,
    hold::PlaceDocument,
    hold::ReleaseDocument,
    hold::ListDocument,
    incident::StepDocument,
    incident::AddDocument,
    incident::ListDocument,
    incident::VerifyDocument,
    backup::RunDocument,
    backup::ListDocument,
    backup::VerifyDocument,
    backup::UnneededDocument,
    backup::PruneDocument,
    backup::RestoreDocument,
    recover::RecoverDocument,
    drill::RunDocument<'_>,
    drill::ListDocument,
    drill::ShowDocument<'_>,
    drill::VerifyDocument,
    verify::ErasedDocument,
    verify::ResidueDocument,
    certificate::ListDocument,
    certificate::ShowDocument,
    certificate::AboutDocument,
    certificate::TraceDocument,
    certificate::VerifyDocument,
    certificate::ExportDocument,
    certificate::LogDocument,
    certificate::QueryDocument,
    certificate::LogExportDocument,
    certificate::PruneDocument,
    evidence_pack::MakeDocument,
    evidence_pack::VerifyDocument,
    report::MonthlyDocument,
    audit::StatusDocument,
    audit::FlushDocument,
    audit::VerifyDocument,
    audit::TrustDocument,
    audit::AuditKeyListDocument,
    audit::AuditKeyChangeDocument,
    audit::ServeDocument,
    audit::ConformanceDocument,
    quickstart::Summary,
    init::InitDocument,
    status::DoctorDocument<'_>,
    config::CheckDocument,
    config::ShowDocument,
    config::SchemaDocument,
    store::ListDocument<'_>,
    store::CheckDocument,
    store::LintDocument,
    store::settle::SettleDocument,
    key::StatusDocument,
    key::KeyListDocument,
    key::KeyShredDocument,
    key::KeyVerifyDocument,
    key::KeyAdviceDocument,
    key::KeyMoveDocument,
    key::KeyRegisterDocument,
    key::KeyUnregisterDocument,
    media::RecordDocument,
    media::LostDocument,
    media::ListDocument,
    media::ShowDocument,
    generated::CompletionsDocument,
    generated::ManualDocument,
}

/// What is written, not what is read: a field that is always there is required. Without references, so that each stands alone.
fn schema_of<D: Document>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<D>()
}

impl Published {
    /// The schema.
    pub fn schema(&self) -> Schema {
        let mut schema = (self.make)();
        let title = match self.command {
            "error" => "wangchuan … --json, when an error ends it".to_owned(),
            command => format!("wangchuan {command} --json"),
        };
        schema.insert("title".to_owned(), title.into());
        schema
    }
}

/// The schema of one command's document.
pub fn find(command: &str) -> Option<Published> {
    all().into_iter().find(|published| published.command == command)
}

/// All schemas in one, by command.
pub fn bundle() -> Schema {
    let mut members = Map::new();
    for published in all() {
        let mut schema = published.schema();
        schema.remove("$schema");
        members.insert(published.command.to_owned(), schema.to_value());
    }
    let mut bundle = Schema::default();
    bundle.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    bundle.insert("title".to_owned(), "wangchuan … --json, by command".into());
    bundle.insert("$defs".to_owned(), Value::Object(members));
    bundle
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::config::schema::{check_published, schema_text};

    /// The name of a document's file, without the ending: `backup-list`.
    fn slug(published: &Published) -> String {
        published.command.replace(" --", "-").replace(' ', "-")
    }

    /// The commands that do something, as they are typed.
    fn leaves(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
        let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
        if verbs.is_empty() || (!path.is_empty() && !command.is_subcommand_required_set()) {
            found.insert(path.to_owned());
        }
        for verb in verbs {
            leaves(verb, format!("{path} {}", verb.get_name()).trim(), found);
        }
    }

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn files(name: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder(name)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Every property of a schema with its name, and every schema in it.
    fn walk(schema: &Value, visit: &mut dyn FnMut(Option<&str>, &Value)) {
        fn inner(name: Option<&str>, schema: &Value, visit: &mut dyn FnMut(Option<&str>, &Value)) {
            visit(name, schema);
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                inner(Some(name), property, visit);
            }
            for within in ["items", "additionalProperties"] {
                if schema[within].is_object() {
                    inner(None, &schema[within], visit);
                }
            }
            for within in ["anyOf", "oneOf", "allOf"] {
                schema[within].as_array().into_iter().flatten().for_each(|schema| inner(None, schema, visit));
            }
        }
        inner(None, schema, visit);
    }

    #[test]
    fn every_command_has_a_published_document() {
        let mut expected = BTreeSet::from(["error".to_owned()]);
        leaves(&Cli::command(), "", &mut expected);
        assert!(expected.contains("agent") && expected.contains("agent hold") && expected.contains("backup list"));
        let plain = |published: &Published| published.command.split(" --").next().unwrap_or_default().to_owned();
        let found: BTreeSet<String> = all().iter().map(plain).collect();
        assert_eq!(found, expected, "documents there are, and commands that need one");
        let names: BTreeSet<_> = all().iter().map(|published| published.command).collect();
        assert_eq!(names.len(), all().len(), "a command has two documents");
    }

    #[test]
    fn schema_of_every_document_is_published() {
        for published in all() {
            let name = format!("output/{}.json", slug(&published));
            check_published(&name, &schema_text(&published.schema()));
        }
        let expected: BTreeSet<String> = all().iter().map(|published| format!("{}.json", slug(published))).collect();
        assert_eq!(files("config/schema/output"), expected);
    }

    #[test]
    fn every_document_has_a_snapshot() {
        let snapshots = files("tests/vectors/output");
        let is_taken = |slug: &String| snapshots.iter().any(|file| file.starts_with(&format!("{slug}.")));
        let missing: Vec<_> = all().iter().map(slug).filter(|slug| !is_taken(slug)).collect();
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn documents_are_objects_with_named_and_explained_fields() {
        for published in all() {
            let schema = published.schema().to_value();
            let name = published.command;
            assert_eq!(schema["type"], "object", "{name}");
            let has_result = schema["required"].as_array().is_some_and(|names| names.contains(&"result".into()));
            assert!(has_result || name == "config schema", "{name} has no result");
            walk(&schema, &mut |property, schema| {
                let text = schema["description"].as_str().unwrap_or_default();
                let Some(property) = property else { return };
                assert!(!text.is_empty(), "{name}: nothing says what `{property}` is");
                assert!(schema.get("prefixItems").is_none(), "{name}: `{property}` is a tuple without names");
            });
        }
    }

    /// What each of the agreed names is, wherever it stands.
    const AGREED: &[(&str, &[&str])] = &[
        ("due", &["integer"]),
        ("erased", &["integer"]),
        ("anonymised", &["integer"]),
        ("kept", &["integer"]),
        ("failed", &["integer"]),
        ("hash", &["string"]),
        ("cutoff", &["string"]),
        ("certificate", &["string"]),
        ("certificates", &["array of string"]),
        ("snapshot", &["string"]),
        ("snapshots", &["array of object"]),
        ("store", &["string"]),
        ("stores", &["array of object", "integer"]),
        ("collection", &["string"]),
        ("collections", &["array of object"]),
        ("restored", &["integer"]),
        ("shredded", &["integer"]),
        ("lost", &["integer"]),
        ("corrupt", &["integer"]),
        ("drill", &["string"]),
        ("rto_seconds", &["number"]),
        ("rpo_seconds", &["integer"]),
        ("erased_reappeared", &["integer"]),
        ("request", &["integer"]),
        ("run", &["string"]),
        ("runs", &["array of object", "array of string"]),
        ("what", &["string"]),
        ("do", &["string"]),
        ("retry", &["boolean"]),
        ("code", &["string"]),
    ];

    fn kind(schema: &Value) -> String {
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find(|kind| **kind != "null").cloned().unwrap_or_default(),
            Value::String(_) => schema["type"].clone(),
            _ if schema["anyOf"].is_array() => return kind(&schema["anyOf"][0]),
            _ if schema["oneOf"].is_array() => return "string".to_owned(),
            _ => Value::Null,
        };
        match kind.as_str().unwrap_or_default() {
            "array" => format!("array of {}", self::kind(&schema["items"])),
            kind => kind.to_owned(),
        }
    }

    #[test]
    fn an_agreed_name_means_the_same_everywhere() {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for published in all() {
            walk(&published.schema().to_value(), &mut |property, schema| {
                let Some(property) = property else { return };
                found.entry(property.to_owned()).or_default().insert(kind(schema));
            });
        }
        for (name, kinds) in AGREED {
            let kinds: BTreeSet<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
            assert_eq!(found.get(*name), Some(&kinds), "`{name}`");
        }
    }

    #[test]
    fn the_bundle_holds_them_all() {
        let bundle = bundle().to_value();
        assert_eq!(bundle["$defs"].as_object().unwrap().len(), all().len());
        assert_eq!(bundle["$defs"]["status"]["title"], "wangchuan status --json");
        assert!(find("backup list").is_some() && find("backup lust").is_none());
    }
}
