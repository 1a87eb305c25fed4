//! Whether the stores and policies that jobs name exist. A job for nothing would run for years without anybody noticing.

use std::path::PathBuf;

use super::declaration::{Job, Task};
use crate::config::{Fault, Faults, Registry, suggest};

/// Checks the names in all jobs against the registry.
///
/// # Errors
/// With every name that means nothing.
pub fn check_references(jobs: &[Job], registry: &Registry) -> Result<(), Faults> {
    let stores: Vec<&str> = registry.stores.iter().map(|store| store.name.as_str()).collect();
    let policies: Vec<&str> = registry.policies.iter().map(|policy| policy.id.as_str()).collect();
    let mut faults = Vec::new();
    for job in jobs {
        let (named, known, what) = match &job.task {
            Task::Backup { stores: named, .. } | Task::Drill { stores: named } | Task::Prune { stores: named } => {
                (named, &stores, "store")
            }
            Task::Retention { policies: named } => (named, &policies, "policy"),
            Task::Requests | Task::Shred | Task::Outbox | Task::RollUp | Task::Verify { .. } => continue,
        };
        for name in named.iter().filter(|name| !known.contains(&name.as_str())) {
            let file = PathBuf::from(format!("{}.toml", job.name));
            let fault = Fault::of_file(&file, format!("the configuration has no {what} `{name}`"));
            faults.push(fault.advice(suggest(name, known)));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::registry::{BackupMode, SecretText, StoreSpec};
    use crate::schedule::parse_job;

    #[test]
    fn names_must_be_in_the_registry() {
        let store = StoreSpec {
            name: "shop".to_owned(),
            url: SecretText::new("sqlite:///shop.db".to_owned()),
            read_url: None,
            owner: None,
            purpose: None,
            site: None,
            timezone: chrono_tz::UTC,
            backup: BackupMode::Bucket,
            copies: Vec::new(),
            collections: Vec::new(),
            ignored: Vec::new(),
            budget: crate::policy::registry::Budget::default(),
            replicas: Vec::new(),
            files: crate::policy::registry::FilesSpec::default(),
        };
        let registry = Registry { stores: vec![store], policies: Vec::new() };
        let job = |name: &str, text: &str| {
            let text = format!("schedule = \"@daily\"\n{text}");
            parse_job(Path::new(name), &text, chrono_tz::UTC).unwrap()
        };
        let right = [
            job("backup.toml", "task = \"backup\"\nstores = [\"shop\"]"),
            job("shred.toml", "task = \"shred\""),
            job("drill.toml", "task = \"drill\""),
        ];
        assert_eq!(check_references(&right, &registry), Ok(()));
        let wrong = [
            job("backup.toml", "task = \"backup\"\nstores = [\"shop\", \"shp\"]"),
            job("expire.toml", "task = \"retention\"\npolicies = [\"orders\"]"),
        ];
        assert_eq!(
            check_references(&wrong, &registry).unwrap_err().to_string(),
            "\
backup.toml: the configuration has no store `shp`
  = do: did you mean `shop`?

expire.toml: the configuration has no policy `orders`
  = do: remove it"
        );
    }
}
