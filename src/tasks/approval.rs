//! Approvals: whose agreement a plan needs before it is carried out, and whether it has it.
//!
//! An approval belongs to one plan, and so to its hash: the rows of its sealed lists, the policies, statutes and holds by
//! which they were chosen, and the schema. A plan whose policies, schema or holds changed is void, and a later plan with more
//! rows is another one; what was approved is carried out as it was shown, or not at all.

use chrono::TimeDelta;

use crate::control::{ApprovalRow, PlanRow};
use crate::erase::Ground;
use crate::erase::caps::over_caps;
use crate::installation::{Installation, Operation};
use crate::plan::{PlanBody, PlanKind};
use crate::policy::classification::declared_approval;
use crate::policy::free_text::check_free_text;
use crate::policy::registry::{CollectionSpec, Policy};

use super::erasure::{changes_since, find_plan};
use super::request::plan_request;
use super::{Result, TaskError};

/// How long a plan waits for its approval; then a new one is made, of what is due by then.
pub const WAITS_DAYS: i64 = 7;

/// Whose agreement a plan needs and has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agreement {
    /// How many operators must agree, all different.
    pub needed: usize,
    /// Those who did, by name.
    pub given: Vec<String>,
    /// Why, as one phrase; empty when none is needed.
    pub why: String,
}

impl Agreement {
    /// Whether nobody's agreement is missing.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.given.len() >= self.needed
    }
}

/// How many operators must agree to a plan, and why: as many as the strictest policy, or the strictest declared class of a
/// field, of a collection that it takes rows from wants, and two when it takes more than a policy's cap allows (a first
/// backlog).
#[must_use]
pub fn needed(ground: &Ground<'_>, body: &PlanBody) -> (usize, String) {
    let mut strictest = (0, String::new());
    for counts in body.collections.iter().filter(|counts| counts.to_do() > 0) {
        let collection = ground.site(&counts.store).and_then(|site| site.model.collection(&counts.collection));
        let Some((_, collection)) = collection else { continue };
        let wanted = wanted(collection.governed.as_ref().map(|governed| &governed.policy), &collection.spec);
        if wanted.0 > strictest.0 {
            strictest = wanted;
        }
    }
    if strictest.0 < 2
        && body.kind == PlanKind::Retention
        && let Some(over) = over_caps(ground, body).first()
    {
        strictest = (2, over.what());
    }
    strictest
}

/// How many operators a collection wants to agree, by its policy and by the declared classes of its fields, and why. Whether rows are
/// deleted or anonymised makes no difference: both ways the field is gone.
fn wanted(policy: Option<&Policy>, collection: &CollectionSpec) -> (usize, String) {
    let by_policy = policy.map_or((0, ""), |policy| (policy.approval.persons(), policy.id.as_str()));
    match declared_approval(&collection.fields) {
        Some((approval, field)) if approval.persons() > by_policy.0 => {
            let field = format!("{}.{field}", collection.table);
            (approval.persons(), format!("the class of {field} wants it"))
        }
        _ if by_policy.0 > 0 => (by_policy.0, format!("policy {} wants it", by_policy.1)),
        _ => (0, String::new()),
    }
}

/// Whose agreement a plan needs and has.
///
/// # Errors
/// When the control database fails.
pub async fn agreement(installation: &Installation, plan: &PlanRow, body: &PlanBody) -> Result<Agreement> {
    let (needed, why) = needed(&installation.ground()?, body);
    let mut given: Vec<String> = Vec::new();
    for approval in installation.control.read().await?.approvals(&plan.id).await? {
        // Of a name that was stored before names had one form, only this form counts.
        let name = operator_name(&approval.operator).unwrap_or(approval.operator);
        if !given.contains(&name) {
            given.push(name);
        }
    }
    Ok(Agreement { needed, given, why })
}

/// The one form of an operator's name, in small letters and without blanks around it: who agreed cannot agree again by writing
/// the name in another way. Signs that look like others, or like nothing, are refused.
pub(super) fn operator_name(given: &str) -> Result<String> {
    let refuse = |what: String| Err(TaskError::refused(what, "give a short name with `--as NAME`"));
    let name = given.trim().to_lowercase();
    if let Err(fault) = check_free_text(&name) {
        return refuse(format!("the name {fault}"));
    }
    let is_chinese = |sign: char| matches!(sign, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{2ebef}' | '\u{30000}'..='\u{323af}');
    let is_usual = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '-' | '_') || is_chinese(sign);
    if !name.chars().all(is_usual) {
        return refuse(
            "the name holds signs other than letters, digits, `.`, `-`, `_` and Chinese characters".to_owned(),
        );
    }
    Ok(name)
}

/// Refuses a plan to which somebody must still agree.
///
/// # Errors
/// Refused, naming how many are missing; or when the control database fails.
pub async fn check_agreement(installation: &Installation, plan: &PlanRow, body: &PlanBody) -> Result<()> {
    let agreement = agreement(installation, plan, body).await?;
    if agreement.is_reached() {
        return Ok(());
    }
    let (missing, hash) = (agreement.needed - agreement.given.len(), &plan.hash[..12]);
    let who = if agreement.needed > 1 { "different operators" } else { "operator" };
    Err(TaskError::refused(
        format!("plan {hash} needs the approval of {} {who}, {missing} to come: {}", agreement.needed, agreement.why),
        format!(
            "look at it with `wangchuan plan`; each agrees with `wangchuan approve {hash} --as NAME`, then \
             `wangchuan erase --plan {hash}` or the next job carries it out. For a plan beyond a cap, raising `max` in the \
             policy for one run will do as well"
        ),
    ))
}

/// Somebody agrees to the plan whose hash begins so.
///
/// # Errors
/// Refused when the plan does not wait to be carried out, its policies, schema or holds changed, nobody needs to agree, or
/// the same person agreed already.
pub async fn approve(installation: &Installation, prefix: &str, operator: &str) -> Result<(PlanRow, Agreement)> {
    installation.refuse_old_copy().await?;
    let operator = operator_name(operator)?;
    let plan = find_plan(installation, prefix).await?;
    let (hash, body) = (&plan.hash[..12], super::erasure::plan_body(&plan)?);
    if plan.state != "planned" {
        return Err(TaskError::refused(
            format!("plan {hash} is {} already", plan.state),
            "make a new one with `wangchuan plan`",
        ));
    }
    let changed = changes_since(installation, &body).await?;
    if !changed.is_empty() {
        return Err(TaskError::refused(
            format!("since plan {hash} was made, {}; it is void", changed.join(" and ")),
            "make and look at a new one with `wangchuan plan`",
        ));
    }
    if needed(&installation.ground()?, &body).0 == 0 {
        return Err(TaskError::refused(
            format!("plan {hash} needs nobody's approval"),
            format!("carry it out with `wangchuan erase --plan {hash}`"),
        ));
    }
    let before = agreement(installation, &plan, &body).await?;
    let approval = ApprovalRow { plan: plan.id.clone(), operator: operator.clone(), at: installation.clock.now() };
    let twice =
        || TaskError::refused(format!("{operator} approved plan {hash} already"), "another operator must agree");
    if before.given.contains(&operator) {
        return Err(twice());
    }
    log_approval(installation, &plan, &operator, "intent").await?;
    let mut tx = installation.control.begin().await?;
    if !tx.add_approval(&approval).await? {
        return Err(twice());
    }
    tx.commit().await?;
    log_approval(installation, &plan, &operator, "success").await?;
    let agreement = agreement(installation, &plan, &body).await?;
    Ok((plan, agreement))
}

/// Logs an approval under the login that gave it, with the name that it was given under and the plan's hash.
async fn log_approval(installation: &Installation, plan: &PlanRow, approver: &str, outcome: &str) -> Result<()> {
    let given = Operation { name: "plan.approve", object: &plan.id, outcome, ..Operation::default() };
    let references = vec![("approver".to_owned(), approver.to_owned()), ("plan_sha256".to_owned(), plan.hash.clone())];
    installation.log(Operation { references, ..given }).await
}

/// The plan of a kind and request that waits for somebody's approval, or has it and can be carried out now, if it still says
/// what is so. A plan that nobody has to agree to is not waited for.
///
/// # Errors
/// When the control database fails.
pub async fn waiting_plan(
    installation: &Installation,
    kind: &str,
    request: Option<i64>,
) -> Result<Option<(PlanRow, PlanBody, Agreement)>> {
    let found = installation.control.read().await?.planned(kind, request).await?;
    let Some(plan) = found else { return Ok(None) };
    let body = super::erasure::plan_body(&plan)?;
    let is_fresh = installation.clock.now() - plan.created_at < TimeDelta::days(WAITS_DAYS);
    if !is_fresh || !changes_since(installation, &body).await?.is_empty() {
        return Ok(None);
    }
    let agreement = agreement(installation, &plan, &body).await?;
    Ok((agreement.needed > 0).then_some((plan, body, agreement)))
}

/// The plan by which a request is to be carried out now: the one that waits for approval, or has it, or else a new one.
///
/// # Errors
/// As [`plan_request`].
pub async fn plan_of_request(installation: &Installation, number: i64) -> Result<PlanRow> {
    match waiting_plan(installation, "request", Some(number)).await? {
        Some((plan, ..)) => Ok(plan),
        None => Ok(plan_request(installation, number).await?.row),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::classification::{Cipher, classify};

    fn policy(action: &str, approval: &str) -> Policy {
        serde_json::from_value(json!({
            "id": "p", "collections": ["people"], "retention": "3 years", "start": "at", "basis": "contract",
            "action": action, "approval": approval,
        }))
        .unwrap()
    }

    fn people(fields: &serde_json::Value) -> CollectionSpec {
        serde_json::from_value(json!({ "table": "people", "subject": "id", "fields": fields })).unwrap()
    }

    #[test]
    fn the_stricter_of_policy_and_declared_class_counts_whatever_becomes_of_the_rows() {
        let classes = [
            // What is declared of a field, its cipher, and how many its class wants.
            (json!({ "kind": "customer_id" }), Cipher::Aes, 0),
            (json!({ "kind": "email" }), Cipher::Aes, 0),
            (json!({ "kind": "bank_card" }), Cipher::Sm4, 0),
            (json!({ "kind": "customer_id", "level": "general" }), Cipher::Aes, 0),
            (json!({ "kind": "customer_id", "level": "internal" }), Cipher::Aes, 1),
            (json!({ "kind": "customer_id", "level": "confidential" }), Cipher::Sm4, 2),
            (json!({ "kind": "email", "level": "internal" }), Cipher::Aes, 1),
            (json!({ "kind": "email", "level": "confidential" }), Cipher::Sm4, 2),
            (json!({ "kind": "email", "category": "basic" }), Cipher::Aes, 1),
            (json!({ "kind": "email", "category": "sensitive" }), Cipher::Sm4, 2),
            (json!({ "kind": "id_card", "level": "internal" }), Cipher::Sm4, 1),
            // Less than the kind's own is not less.
            (json!({ "kind": "email", "level": "general" }), Cipher::Aes, 1),
            (json!({ "kind": "bank_card", "level": "general" }), Cipher::Sm4, 2),
        ];
        for (declared, cipher, by_class) in classes {
            let field = serde_json::from_value(declared.clone()).unwrap();
            assert_eq!(classify(&field).cipher, cipher, "{declared}");
            let collection = people(&json!({ "what": declared, "other": { "kind": "name" } }));
            assert_eq!(wanted(None, &collection).0, by_class, "{declared} without a policy");
            for action in ["delete", "anonymise"] {
                for (approval, by_policy) in [("none", 0), ("one", 1), ("two", 2)] {
                    let (persons, why) = wanted(Some(&policy(action, approval)), &collection);
                    assert_eq!(persons, by_class.max(by_policy), "{declared}, {action}, {approval}");
                    let expected = match by_class {
                        0 if by_policy == 0 => "",
                        by_class if by_class > by_policy => "the class of people.what wants it",
                        _ => "policy p wants it",
                    };
                    assert_eq!(why, expected, "{declared}, {action}, {approval}");
                }
            }
        }
        // Of several fields the strictest, and of equal ones the first.
        let several = people(&json!({
            "a": { "kind": "name", "level": "internal" },
            "b": { "kind": "name", "level": "confidential" },
            "c": { "kind": "name", "category": "sensitive" },
        }));
        assert_eq!(wanted(None, &several), (2, "the class of people.b wants it".to_owned()));
    }
}
