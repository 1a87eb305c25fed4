//! Gaps of the registry: what a store holds and nobody declared. Pure; values are looked at and never told.
//!
//! A name or a form only suggests what a column holds: a gap is a question to whoever knows the table, answered by declaring the
//! column, or by naming another thing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::model::{Collection, Model};
use crate::policy::classification::{FieldKind, is_legal_basis};
use crate::policy::mask::{is_bank_card, is_customer_id, is_id_card, is_landline, is_mobile};
use crate::policy::registry::Policy;
use crate::stores::{ColumnKind, Table};
use crate::value::Value;

/// Values of a column that are looked at.
pub const SAMPLE: u32 = 200;
/// So many values that are there must be looked at before their form says anything.
const FEWEST: usize = 3;

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// A column is called as personal data often is, and is not declared.
    PersonalName,
    /// The values of a column have the form of personal data, and it is not declared.
    PersonalValues,
    /// No policy governs the collection: its rows never fall due.
    NoPolicy,
    /// A policy names no known legal basis.
    NoBasis,
    /// A table that seems to hold a customer's data is not registered.
    NotRegistered,
    /// No index begins with the columns by which rows of a customer are found.
    NoIndex,
    /// A declared copy has no date by which it dies.
    CopyWithoutDate,
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// What.
    pub kind: GapKind,
    /// The table, if it is about one.
    pub table: Option<String>,
    /// The columns, the policy or the copy that it is about.
    pub names: Vec<String>,
    /// What the column seems to hold.
    pub seems: Option<FieldKind>,
}

/// Values of columns, by table and column.
pub type Samples = BTreeMap<(String, String), Vec<Value>>;

/// Columns of a collection of which nobody said what they hold: neither declared, nor its key, a reference, the subject's or the start
/// event's.
#[must_use]
pub fn open_columns(collection: &Collection) -> Vec<&str> {
    let table = &collection.table;
    let is_known = |name: &String| {
        let own = |reach: &super::model::Reach| reach.path.is_empty() && reach.column.column == *name;
        collection.spec.fields.contains_key(name)
            || collection.owner.as_ref().is_some_and(own)
            || collection.governed.as_ref().is_some_and(|governed| own(&governed.start))
            || table.foreign_keys.iter().any(|key| key.columns.contains(name))
    };
    let open = table.columns.iter().filter(|column| {
        matches!(column.kind, Some(ColumnKind::Text | ColumnKind::Integer | ColumnKind::Date | ColumnKind::Other))
            && !is_known(&column.name)
    });
    open.map(|column| column.name.as_str()).collect()
}

/// The gaps of a store, by kind, table and column.
#[must_use]
pub fn gaps(model: &Model, policies: &[Policy], samples: &Samples) -> Vec<Gap> {
    let mut found = Vec::new();
    for collection in &model.collections {
        let table = &collection.table;
        let about = |kind, names: Vec<String>, seems| Gap { kind, table: Some(table.name.clone()), names, seems };
        for name in open_columns(collection) {
            let values = samples.get(&(table.name.clone(), name.to_owned())).map(Vec::as_slice).unwrap_or_default();
            if let Some(kind) = kind_of_values(values) {
                found.push(about(GapKind::PersonalValues, vec![name.to_owned()], Some(kind)));
            } else if let Some(kind) = kind_of_name(name) {
                found.push(about(GapKind::PersonalName, vec![name.to_owned()], Some(kind)));
            }
        }
        if collection.governed.is_none() {
            found.push(about(GapKind::NoPolicy, Vec::new(), None));
        }
        for columns in ways(collection).into_iter().filter(|columns| !has_index(table, columns)) {
            found.push(about(GapKind::NoIndex, columns, None));
        }
    }
    let governs = |policy: &&Policy| {
        model
            .collections
            .iter()
            .any(|own| own.governed.as_ref().is_some_and(|governed| governed.policy.id == policy.id))
    };
    let baseless = policies.iter().filter(governs).filter(|policy| !is_legal_basis(&policy.basis));
    let of_store = |kind, name: &String| Gap { kind, table: None, names: vec![name.clone()], seems: None };
    found.extend(baseless.map(|policy| of_store(GapKind::NoBasis, &policy.id)));
    for loose in &model.unregistered {
        let (table, names) = (Some(loose.table.clone()), loose.columns.clone());
        found.push(Gap { kind: GapKind::NotRegistered, table, names, seems: None });
    }
    let undated = model.spec.copies.iter().filter(|copy| copy.dies == "never");
    found.extend(undated.map(|copy| of_store(GapKind::CopyWithoutDate, &copy.name)));
    found.sort_by(|one, other| (one.kind, &one.table, &one.names).cmp(&(other.kind, &other.table, &other.names)));
    found
}

/// The columns by which rows of this table are found for a customer: the subject's, or those of the reference that leads to it.
fn ways(collection: &Collection) -> Vec<Vec<String>> {
    let own = collection.owner.as_ref().map(|owner| match owner.path.first() {
        None => vec![owner.column.column.clone()],
        Some(hop) => hop.columns.clone(),
    });
    own.into_iter().collect()
}

/// Whether the key, a unique constraint or an index begins with these columns, in any order.
fn has_index(table: &Table, columns: &[String]) -> bool {
    let begins = |indexed: &[String]| {
        indexed.len() >= columns.len() && indexed[..columns.len()].iter().all(|column| columns.contains(column))
    };
    begins(&table.key)
        || table.unique.iter().any(|unique| begins(unique))
        || table.index_statements.iter().any(|statement| begins(&indexed_columns(statement)))
}

/// The columns of an index, from the statement that makes it. What is an expression is no column.
fn indexed_columns(statement: &str) -> Vec<String> {
    let Some((_, list)) = statement.split_once('(') else { return Vec::new() };
    let list = list.split_once(')').map_or(list, |(list, _)| list);
    let name =
        |part: &str| part.split_whitespace().next().unwrap_or_default().trim_matches(['`', '"', '[', ']']).to_owned();
    list.split(',').map(name).collect()
}

/// Whether a text has the form of one kind of personal data.
type Form = fn(&str) -> bool;

/// What the values of a column are, if most that are there have the form of one kind of personal data.
#[must_use]
pub fn kind_of_values(values: &[Value]) -> Option<FieldKind> {
    let texts: Vec<String> = values
        .iter()
        .filter_map(|value| match value {
            Value::Text(text) => Some(text.trim().to_owned()),
            Value::Integer(number) => Some(number.to_string()),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .collect();
    if texts.len() < FEWEST {
        return None;
    }
    let forms: [(FieldKind, Form); 6] = [
        (FieldKind::IdCard, is_id_card),
        (FieldKind::Mobile, is_mobile),
        (FieldKind::BankCard, is_bank_card),
        (FieldKind::Landline, is_landline),
        (FieldKind::Email, is_mail),
        (FieldKind::CustomerId, is_customer_id),
    ];
    // A few values that are written otherwise do not make the others nobody's.
    let is_most = |form: Form| texts.iter().filter(|text| form(text)).count() * 5 >= texts.len() * 4;
    forms.into_iter().find(|(_, form)| is_most(*form)).map(|(kind, _)| kind)
}

fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty()
            && !name.contains(' ')
            && host.split('.').count() > 1
            && host.split('.').all(|part| !part.is_empty())
    })
}

/// Names of people; those of products and files end in the same word.
const PERSON_NAMES: [&str; 8] =
    ["fullname", "firstname", "lastname", "realname", "username", "customername", "contactname", "姓名"];

/// What a column of this name often holds.
#[must_use]
pub fn kind_of_name(name: &str) -> Option<FieldKind> {
    let name = name.to_lowercase();
    let words: Vec<&str> =
        name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let joined = words.concat();
    let is = |parts: &[&str]| parts.iter().any(|part| joined == *part || words.contains(part));
    let holds = |parts: &[&str]| parts.iter().any(|part| joined.contains(part));
    let kinds = [
        (
            FieldKind::IdCard,
            is(&["idcard", "idno", "idnumber", "sfz", "passport"]) || holds(&["身份证", "idcard", "护照"]),
        ),
        (FieldKind::SocialSecurity, is(&["ssn"]) || holds(&["socialsecurity", "社保"])),
        (FieldKind::BankCard, is(&["iban", "cardno"]) || holds(&["bankcard", "bankaccount", "cardnumber", "银行卡"])),
        (FieldKind::Email, is(&["mail"]) || holds(&["email", "邮箱"])),
        (
            FieldKind::Mobile,
            is(&["phone", "tel", "telephone", "cell", "shouji"]) || holds(&["mobile", "phone", "手机", "电话"]),
        ),
        (FieldKind::Address, is(&["addr", "street", "dizhi"]) || holds(&["address", "住址", "地址"])),
        (FieldKind::BirthDate, is(&["dob", "born"]) || holds(&["birth", "生日", "出生"])),
        (FieldKind::IpAddress, is(&["ip"]) || holds(&["ipaddr"])),
        (FieldKind::DeviceId, is(&["imei", "openid", "unionid", "wechat"]) || holds(&["deviceid", "微信"])),
        (FieldKind::Password, holds(&["password", "passwd", "密码"])),
        (FieldKind::Name, joined == "name" || is(&["surname", "xingming"]) || holds(&PERSON_NAMES)),
        (FieldKind::FreeText, is(&["note", "notes", "remark", "remarks", "comment", "comments"]) || holds(&["备注"])),
    ];
    kinds.into_iter().find(|(_, is_it)| *is_it).map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suggest_what_columns_hold() {
        for (name, kind) in [
            ("email", Some(FieldKind::Email)),
            ("contact_mobile", Some(FieldKind::Mobile)),
            ("ShippingAddress", Some(FieldKind::Address)),
            ("id_card_no", Some(FieldKind::IdCard)),
            ("客户姓名", Some(FieldKind::Name)),
            ("name", Some(FieldKind::Name)),
            ("dob", Some(FieldKind::BirthDate)),
            ("product_name", None),
            ("customer_name", Some(FieldKind::Name)),
            ("quantity", None),
            ("recipe", None),
            ("shipment", None),
            ("notebook", None),
        ] {
            assert_eq!(kind_of_name(name), kind, "{name}");
        }
    }

    #[test]
    fn most_values_of_one_form_say_what_a_column_holds() {
        let of = |texts: &[&str]| {
            kind_of_values(&texts.iter().map(|text| Value::Text((*text).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(
            of(&["13812345678", "13912345678", " 13712345678", "", "unknown", "13612345678"]),
            Some(FieldKind::Mobile)
        );
        assert_eq!(of(&["13812345678", "13912345678", "none", "none"]), None);
        assert_eq!(of(&["13812345678", "13912345678"]), None, "two say nothing");
        assert_eq!(of(&["a@b.example", "c.d@e.example", "x@y.z"]), Some(FieldKind::Email));
        assert_eq!(of(&["a@b", "@b.c", "x y@z.example"]), None);
        let numbers: Vec<Value> = (0..5).map(|n| Value::Integer(13_812_345_670 + n)).collect();
        assert_eq!(kind_of_values(&numbers), Some(FieldKind::Mobile));
        assert_eq!(kind_of_values(&[Value::Null, Value::Blob(vec![1]), Value::Real(1.0)]), None);
    }

    #[test]
    fn an_index_is_read_from_the_statement_that_makes_it() {
        for (statement, columns) in [
            ("CREATE INDEX a ON t (customer_id)", vec!["customer_id"]),
            ("CREATE INDEX a ON public.t USING btree (\"Owner\", day DESC)", vec!["Owner", "day"]),
            ("CREATE UNIQUE INDEX `a` ON `t` (`owner`,`day`)", vec!["owner", "day"]),
            ("no index", vec![]),
        ] {
            assert_eq!(indexed_columns(statement), columns, "{statement}");
        }
    }
}
