//! Roots that are destroyed only at a date: looked at with every shred, begun again when somebody called it off, and noted as gone
//! when the slot says so. What became of them decides when runs are shredded ([`super::shred`]).

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Result;
use crate::control::DoomedRoot;
use crate::installation::Installation;
use crate::keyring::doomed::{Look, begin_again, look, note_date, note_gone};

/// What became of the doomed roots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DoomedRoots {
    /// Generations whose roots were read back as gone now.
    pub gone: Vec<i64>,
    /// Generations whose destruction somebody had called off, with the new date.
    pub called_off: Vec<(i64, DateTime<Utc>)>,
    /// Why nothing can be said of some; they wait.
    pub unknown: Vec<(i64, String)>,
}

/// Looks at all of them, and does what is to be done. One that cannot be looked at does not keep the others back.
///
/// # Errors
/// When the control database or the operation log fails.
pub async fn settle(installation: &Installation) -> Result<DoomedRoots> {
    let mut settled = DoomedRoots::default();
    for root in waiting(installation).await? {
        let seen = look(&installation.keyring, &root, installation.clock.now()).await;
        if let Err(why) = act(installation, &root, seen, &mut settled).await? {
            tracing::warn!(generation = root.generation, "a doomed root key waits: {why}");
            settled.unknown.push((root.generation, why));
        }
    }
    tell(installation, &mut settled).await?;
    Ok(settled)
}

async fn waiting(installation: &Installation) -> Result<Vec<DoomedRoot>> {
    let roots = installation.control.read().await?.doomed_roots().await?;
    Ok(roots.into_iter().filter(|root| root.gone_at.is_none()).collect())
}

/// Does what one look asks for; the inner error is why the root waits on.
async fn act(
    installation: &Installation,
    root: &DoomedRoot,
    seen: crate::keyring::Result<Look>,
    settled: &mut DoomedRoots,
) -> Result<Result<(), String>> {
    let (control, fence, now) = (&installation.control, installation.fence(), installation.clock.now());
    let object = format!("root-generation-{}", root.generation);
    match seen {
        Ok(Look::Gone(gone)) => {
            note_gone(control, &fence, root, gone, now).await?;
            installation.log_operation("key.root-gone", &object, "success").await?;
            settled.gone.push(root.generation);
        }
        Ok(Look::Waits(at)) if at == root.irrevocable_at => {}
        Ok(Look::Waits(at)) => note_date(control, &fence, root, at, now).await?,
        Ok(Look::CalledOff) => {
            installation.log_operation("key.destroy-root", &object, "intent").await?;
            if let Err(error) = begin_again(&installation.keyring, control, &fence, root.generation, now).await {
                installation.log_operation("key.destroy-root", &object, "failure").await?;
                return Ok(Err(format!("its destruction was called off, and could not be begun again: {error}")));
            }
            installation.log_operation("key.destroy-root", &object, "success").await?;
        }
        Ok(Look::Unknown(why)) => return Ok(Err(why.to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    }
    Ok(Ok(()))
}

/// Writes each calling-off to the operation log, once; also those that a start of the program noticed.
async fn tell(installation: &Installation, settled: &mut DoomedRoots) -> Result<()> {
    for root in installation.control.read().await?.doomed_roots().await? {
        if root.told >= root.called_off {
            continue;
        }
        tracing::error!(
            generation = root.generation,
            "somebody called off the destruction of an old root key; it was begun again and is irrevocable at {}",
            root.irrevocable_at
        );
        let object = format!("root-generation-{}", root.generation);
        installation.log_operation("key.destruction-called-off", &object, "failure").await?;
        let mut tx = installation.control.begin().await?;
        tx.put_doomed_root(&DoomedRoot { told: root.called_off, ..root.clone() }).await?;
        tx.commit().await?;
        settled.called_off.push((root.generation, root.irrevocable_at));
    }
    Ok(())
}
