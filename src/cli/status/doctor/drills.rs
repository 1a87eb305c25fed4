//! Whether restore drills are possible, store by store: tried for real, with a database that is made and removed.

use super::super::super::context::task_error;
use super::super::super::output::Words;
use super::Findings;
use crate::installation::Installation;
use crate::policy::registry::{BackupMode, StoreSpec};
use crate::random::uuid7;
use crate::stores::Engine;
use crate::tasks::drill::{leftovers, obstacles};
use crate::tasks::{Result, TaskError};

/// Every store that is backed up, and what interrupted drills left.
pub async fn check_drills(installation: &Installation, findings: &mut Findings) {
    let stores = installation.config.registry.stores.iter().filter(|spec| spec.backup == BackupMode::Bucket);
    for spec in stores {
        check_store(installation, spec, findings).await;
    }
    match leftovers(installation).await {
        Err(error) => findings.failed("drill", &task_error(error)),
        Ok(left) => {
            for what in left {
                let advice = Words::new(
                    "run `wangchuan drill run` for that store, or start the agent: both remove it",
                    "请对该数据源运行 `wangchuan drill run` 或启动代理，都会将其删除",
                );
                findings.missing("drill", Words::new(what.clone(), what), advice);
            }
        }
    }
}

async fn check_store(installation: &Installation, spec: &StoreSpec, findings: &mut Findings) {
    let name = &spec.name;
    let tried = async {
        let engine = installation.adapter(spec)?.engine();
        let probe = uuid7(installation.clock.now(), installation.random.as_ref())?;
        Ok::<_, TaskError>((engine, obstacles(installation, name, engine, &probe).await))
    };
    let looked: Result<_> = match tried.await {
        Ok((engine, found)) => found.map(|found| (engine, found)),
        Err(error) => Err(error),
    };
    match looked {
        Ok((engine, found)) if found.is_empty() => {
            let (en, zh) = match engine {
                Engine::Sqlite => ("restores into a private file", "恢复到私有文件"),
                Engine::Postgres | Engine::Mysql => {
                    ("restores into a database of its own on the scratch server", "恢复到临时服务器上的独立数据库")
                }
            };
            findings.good("drill", format!("{name}: {en}"), format!("{name}：{zh}"));
        }
        Ok((_, found)) => {
            for finding in found {
                let what = format!("{name}: {}", finding.what);
                let remedy = Words::new(finding.remedy.clone(), finding.remedy);
                findings.missing("drill", Words::new(what.clone(), what), remedy);
            }
        }
        // A drill that was never set up is a choice; one that is set up and does not work is a fault.
        Err(TaskError::Refused { what, advice }) => {
            findings.doubtful("drill", Words::new(what.clone(), what), Words::new(advice.clone(), advice));
        }
        Err(error) => findings.failed("drill", &task_error(error)),
    }
}
