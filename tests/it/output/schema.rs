//! A checker for the part of JSON Schema (draft 2020-12) that the published schemas use. Stricter than the standard: a field
//! that the schema does not name is a finding, and so is a keyword that is not understood here.

use serde_json::Value;

/// Keywords that explain and do not restrict.
const WORDS: &[&str] = &["$schema", "title", "description", "default"];

/// A published schema of what is signed or logged, with every definition in its place.
pub fn published(name: &str) -> Value {
    fn inline(schema: &Value, defined: &Value) -> Value {
        match schema {
            Value::Object(members) if members.contains_key("$ref") => {
                let name = members["$ref"].as_str().unwrap().trim_start_matches("#/$defs/");
                inline(&defined[name], defined)
            }
            Value::Object(members) => {
                let members = members.iter().filter(|(name, _)| *name != "$defs");
                members.map(|(name, member)| (name.clone(), inline(member, defined))).collect()
            }
            Value::Array(items) => items.iter().map(|item| inline(item, defined)).collect(),
            other => other.clone(),
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/schema/{name}.schema.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    inline(&schema, &schema["$defs"])
}

/// What does not fit, with the place.
pub fn check(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let Some(rules) = schema.as_object() else {
        return if schema == &Value::Bool(true) {
            Vec::new()
        } else {
            vec![format!("{place}: nothing may stand here")]
        };
    };
    let mut found = Vec::new();
    for (keyword, rule) in rules {
        match keyword.as_str() {
            word if WORDS.contains(&word) => {}
            "type" if is_of_type(rule, value) => {}
            "type" => found.push(format!("{place}: {value} is not of type {rule}")),
            "enum" if rule.as_array().is_some_and(|known| known.contains(value)) => {}
            "const" if rule == value => {}
            "enum" | "const" => found.push(format!("{place}: {value} is not in {rule}")),
            // Of what is no number, such as a null that the type permits, they say nothing.
            "minimum" | "maximum" if !value.is_number() => {}
            "minimum" if value.as_f64() >= rule.as_f64() => {}
            "maximum" if value.as_f64() <= rule.as_f64() => {}
            "minimum" | "maximum" => found.push(format!("{place}: {value} is out of range")),
            "format" => found.extend(format_fault(rule.as_str().unwrap_or_default(), value, place)),
            "oneOf" | "anyOf" => found.extend(choice_fault(keyword, rule, value, place)),
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(check(rule, item, &format!("{place}[{at}]")));
                }
            }
            "required" => {
                let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                found.extend(missing.map(|name| format!("{place}: {name} is missing")));
            }
            "properties" | "additionalProperties" => {}
            other => found.push(format!("{place}: the schema has the keyword {other}, which is not understood")),
        }
    }
    found.extend(member_faults(schema, value, place));
    found
}

fn member_faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (known, rest) = (&schema["properties"], &schema["additionalProperties"]);
    for (name, member) in value.as_object().into_iter().flatten() {
        let inner = format!("{place}.{name}");
        match known.get(name).unwrap_or(rest) {
            // A choice brings its own properties.
            Value::Null if schema.get("anyOf").is_some() || schema.get("oneOf").is_some() => {}
            Value::Null => found.push(format!("{inner} is not in the schema")),
            rule => found.extend(check(rule, member, &inner)),
        }
    }
    found
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match rule {
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        name => name.as_str().is_some_and(is),
    }
}

fn format_fault(format: &str, value: &Value, place: &str) -> Option<String> {
    let text = value.as_str().unwrap_or_default();
    let fits = match format {
        _ if value.is_null() => true,
        "date-time" => chrono::DateTime::parse_from_rfc3339(text).is_ok(),
        "date" => chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(),
        "int64" => value.is_i64(),
        "uint64" | "uint" | "uint8" | "uint16" | "uint32" => value.is_u64(),
        "double" => value.is_number(),
        _ => return Some(format!("{place}: the format {format} is not understood")),
    };
    (!fits).then(|| format!("{place}: {value} is not of format {format}"))
}

fn choice_fault(keyword: &str, rule: &Value, value: &Value, place: &str) -> Vec<String> {
    let choices: Vec<Vec<String>> =
        rule.as_array().into_iter().flatten().map(|choice| check(choice, value, place)).collect();
    let fitting = choices.iter().filter(|faults| faults.is_empty()).count();
    match (keyword, fitting) {
        ("oneOf", 1) | ("anyOf", 1..) => Vec::new(),
        // The choice with the fewest faults tells most.
        (_, 0) => choices.into_iter().min_by_key(Vec::len).unwrap_or_default(),
        _ => vec![format!("{place}: {value} fits {fitting} choices of one")],
    }
}

#[test]
fn what_does_not_fit_is_found() {
    use serde_json::json;
    let schema = json!({
        "type": "object",
        "required": ["n"],
        "properties": {
            "n": {"type": "integer", "format": "uint64", "minimum": 0},
            "at": {"type": ["string", "null"], "format": "date-time"},
            "list": {"type": "array", "items": {"enum": ["a", "b"]}},
            "word": {"anyOf": [{"oneOf": [{"const": "x"}, {"const": "y"}]}, {"type": "null"}]},
            "inner": {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
        },
    });
    let faults = |value: Value| check(&schema, &value, "").len();
    let good = json!({"n": 1, "at": "2026-01-01T00:00:00Z", "list": ["a"], "word": "y", "inner": {"k": 1}});
    assert_eq!(faults(good), 0);
    assert_eq!(faults(json!({"n": 0, "at": null, "word": null})), 0);
    for bad in [
        json!({}),
        json!({"n": "1"}),
        json!({"n": -1}),
        json!({"n": 1, "at": "yesterday"}),
        json!({"n": 1, "list": ["c"]}),
        json!({"n": 1, "word": "z"}),
        json!({"n": 1, "inner": {"k": "1"}}),
        json!({"n": 1, "new": 1}),
        json!([]),
    ] {
        assert!(faults(bad.clone()) > 0, "{bad}");
    }
    assert_eq!(check(&json!({"pattern": "x"}), &json!("x"), "").len(), 1, "an unknown keyword must not pass");
}
