//! Classification: what a field holds decides how it is sealed, shown and approved.
//!
//! Two axes, because companies use both: a category (business, basic, sensitive) and a level (general, internal,
//! confidential). Each kind of field has its own; the configuration can only make them stricter. Where the axes or the kind
//! disagree about a control, the stricter one wins; the kind's own cipher beats the category's, so an identity card number is
//! sealed with SM4 although it is basic information, and a name with AES.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::registry::{Approval, FieldSpec, Policy, StoreSpec};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// A person's name.
    Name,
    /// A Chinese resident identity number (18 characters).
    IdCard,
    /// A mobile number.
    Mobile,
    /// A landline number with its area code.
    Landline,
    /// An e-mail address.
    Email,
    /// A postal address.
    Address,
    /// A driving or business licence number, or another document's.
    Licence,
    /// A social-security number.
    SocialSecurity,
    /// A date of birth.
    BirthDate,
    /// A customer's id within the company.
    CustomerId,
    /// An IP address.
    IpAddress,
    /// An identifier of a device or an account elsewhere.
    DeviceId,
    /// A bank card or account number.
    BankCard,
    /// A credit rating or history.
    Credit,
    /// Health data.
    Health,
    /// Fingerprints, faces, voices.
    Biometric,
    /// Religion, political opinion.
    Belief,
    /// Where somebody was.
    Location,
    /// A password or another secret of the customer.
    Password,
    /// How often somebody buys.
    PurchaseFrequency,
    /// What somebody prefers.
    Preference,
    /// What was done together: orders, balances, points.
    History,
    /// A complaint.
    Complaint,
    /// Free text: notes, chats.
    FreeText,
}

/// Category of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Business records: orders, preferences, complaints.
    Business,
    /// Basic information: name, contact.
    Basic,
    /// Sensitive information: bank, credit, health, biometrics.
    Sensitive,
}

/// Confidentiality level of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// General.
    General,
    /// Internal.
    Internal,
    /// Confidential.
    Confidential,
}

/// The cipher that a field's backup is sealed with; SM4 counts as the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cipher {
    /// AES-256-GCM (suite `intl`).
    Aes,
    /// SM4-GCM (suite `gm`).
    Sm4,
}

/// Everything that follows from what a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classification {
    /// Its kind.
    pub kind: FieldKind,
    /// Its category.
    pub category: Category,
    /// Its level.
    pub level: Level,
    /// Its cipher.
    pub cipher: Cipher,
    /// Who must agree before it is destroyed, once its category or level is declared: see [`declared_approval`].
    pub approval: Approval,
}

impl FieldKind {
    /// All kinds.
    pub const ALL: [Self; 24] = [
        Self::Name,
        Self::IdCard,
        Self::Mobile,
        Self::Landline,
        Self::Email,
        Self::Address,
        Self::Licence,
        Self::SocialSecurity,
        Self::BirthDate,
        Self::CustomerId,
        Self::IpAddress,
        Self::DeviceId,
        Self::BankCard,
        Self::Credit,
        Self::Health,
        Self::Biometric,
        Self::Belief,
        Self::Location,
        Self::Password,
        Self::PurchaseFrequency,
        Self::Preference,
        Self::History,
        Self::Complaint,
        Self::FreeText,
    ];

    /// Whether it is about one person, so that an anonymised row must not keep it as it is.
    #[must_use]
    pub fn is_personal(self) -> bool {
        !matches!(self, Self::PurchaseFrequency | Self::Preference | Self::History)
    }

    /// The kind's own category and level.
    #[must_use]
    pub fn default_class(self) -> (Category, Level) {
        match self {
            Self::Name
            | Self::IdCard
            | Self::Mobile
            | Self::Landline
            | Self::Email
            | Self::Address
            | Self::Licence
            | Self::SocialSecurity
            | Self::BirthDate
            | Self::IpAddress
            | Self::DeviceId
            | Self::FreeText => (Category::Basic, Level::Internal),
            Self::CustomerId => (Category::Basic, Level::General),
            Self::BankCard
            | Self::Credit
            | Self::Health
            | Self::Biometric
            | Self::Belief
            | Self::Location
            | Self::Password => (Category::Sensitive, Level::Confidential),
            Self::PurchaseFrequency | Self::Preference | Self::History | Self::Complaint => {
                (Category::Business, Level::Internal)
            }
        }
    }

    /// The kind's own cipher, whatever its category: SM4 for identity numbers and those that often equal them.
    #[must_use]
    pub fn own_cipher(self) -> Cipher {
        match self {
            Self::IdCard | Self::Licence | Self::SocialSecurity => Cipher::Sm4,
            kind if kind.default_class().0 == Category::Sensitive => Cipher::Sm4,
            _ => Cipher::Aes,
        }
    }
}

/// The classification of a declared field. What the declaration says can only be stricter than the kind's own.
#[must_use]
pub fn classify(field: &FieldSpec) -> Classification {
    let (category, level) = field.kind.default_class();
    let category = field.category.map_or(category, |declared| declared.max(category));
    let level = field.level.map_or(level, |declared| declared.max(level));
    let strict = category == Category::Sensitive || level == Level::Confidential;
    let cipher = if strict { Cipher::Sm4 } else { field.kind.own_cipher() };
    let approval = match level {
        _ if strict => Approval::Two,
        Level::General => Approval::None,
        Level::Internal | Level::Confidential => Approval::One,
    };
    Classification { kind: field.kind, category, level, cipher, approval }
}

/// Who must agree to a plan that takes rows with these fields, and the field that wants the most of all: the approval of the
/// strictest class. Only a field whose category or level is declared counts; of one that has only a kind, the policy alone says who
/// must agree.
#[must_use]
pub fn declared_approval(fields: &BTreeMap<String, FieldSpec>) -> Option<(Approval, &str)> {
    let is_declared = |field: &FieldSpec| field.category.is_some() || field.level.is_some();
    let declared = fields.iter().filter(|(_, field)| is_declared(field));
    let wanted = declared.map(|(name, field)| (classify(field).approval, name.as_str()));
    // Of several the first by name, so that the reason is always the same one.
    wanted.rev().max_by_key(|(approval, _)| *approval)
}

/// The cipher of a column that nobody declared: it may hold anything, so it is treated like basic information.
#[must_use]
pub fn undeclared_cipher() -> Cipher {
    Cipher::Aes
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look.
    Warning,
    /// Against a rule.
    Violation,
}

/// Something about a registered field that is against a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFinding {
    /// The store's name.
    pub store: String,
    /// The table.
    pub collection: String,
    /// The column.
    pub field: String,
    /// How serious it is.
    pub severity: Severity,
    /// What is wrong, as one sentence.
    pub what: String,
    /// What to do, as one sentence.
    pub remedy: String,
}

/// Legal bases of processing that a policy may name (PIPL 13, and 29 for separate consent).
pub const LEGAL_BASES: [&str; 9] = [
    "consent",
    "separate-consent",
    "contract",
    "employment",
    "legal-duty",
    "emergency",
    "public-interest",
    "disclosed-data",
    "legitimate-interest",
];

/// Bases that allow beliefs to be processed at all; a contract or plain consent does not.
const BASES_FOR_BELIEFS: [&str; 2] = ["separate-consent", "legal-duty"];

/// Whether a policy's `basis` is one of [`LEGAL_BASES`].
#[must_use]
pub fn is_legal_basis(basis: &str) -> bool {
    LEGAL_BASES.contains(&basis)
}

/// The findings of a store's declared fields: collected for a purpose that does not need them, without the consent they need,
/// or declared less strict than they are. Ordered by collection and field.
#[must_use]
pub fn lint_fields(store: &StoreSpec, policies: &[Policy]) -> Vec<FieldFinding> {
    let mut findings = Vec::new();
    for collection in &store.collections {
        let qualified = format!("{}.{}", store.name, collection.table);
        let governs =
            |policy: &&Policy| policy.collections.iter().any(|name| *name == collection.table || *name == qualified);
        let basis = policies.iter().find(governs).map(|policy| policy.basis.as_str());
        for (name, field) in &collection.fields {
            let checks =
                [purpose_finding(store, field.kind), consent_finding(field.kind, basis), laxness_finding(field)];
            findings.extend(checks.into_iter().flatten().map(|(severity, what, remedy)| FieldFinding {
                store: store.name.clone(),
                collection: collection.table.clone(),
                field: name.clone(),
                severity,
                what,
                remedy,
            }));
        }
    }
    findings.sort_by(|a, b| (&a.collection, &a.field).cmp(&(&b.collection, &b.field)));
    findings
}

type Problem = (Severity, String, String);

/// Bank cards belong to payment, health data to medicine; elsewhere they are over-collected.
fn purpose_finding(store: &StoreSpec, kind: FieldKind) -> Option<Problem> {
    let (data, needed) = match kind {
        FieldKind::BankCard => ("bank card numbers", "payment"),
        FieldKind::Health => ("health data", "medical"),
        _ => return None,
    };
    if store.purpose.as_deref() == Some(needed) {
        return None;
    }
    let purpose =
        store.purpose.as_deref().map_or("no declared purpose".to_owned(), |purpose| format!("purpose {purpose:?}"));
    let what = format!("{data} are kept in a store with {purpose}; they may only be kept for {needed:?}");
    Some((Severity::Violation, what, "erase this field, or move it to a store with that purpose".to_owned()))
}

/// Biometrics need separate consent; beliefs need that or a legal duty.
fn consent_finding(kind: FieldKind, basis: Option<&str>) -> Option<Problem> {
    let (data, enough, wanted) = match kind {
        FieldKind::Biometric => ("biometric data", basis == Some("separate-consent"), "separate-consent"),
        FieldKind::Belief => {
            ("beliefs", basis.is_some_and(|basis| BASES_FOR_BELIEFS.contains(&basis)), "separate-consent or legal-duty")
        }
        _ => return None,
    };
    if enough {
        return None;
    }
    let has = basis
        .map_or("no policy governs this collection".to_owned(), |basis| format!("its policy's basis is {basis:?}"));
    let what = format!("{data} need the legal basis {wanted}, but {has}");
    Some((Severity::Violation, what, "obtain that basis and name it in the policy, or erase this field".to_owned()))
}

fn laxness_finding(field: &FieldSpec) -> Option<Problem> {
    let (category, level) = field.kind.default_class();
    let lax = field.category.is_some_and(|declared| declared < category)
        || field.level.is_some_and(|declared| declared < level);
    lax.then(|| {
        let what = "the declared category or level is less strict than the kind's own, which applies".to_owned();
        (Severity::Warning, what, "remove the declaration, or correct the kind".to_owned())
    })
}
