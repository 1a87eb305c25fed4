//! What somebody asks of a run while its batches go: to pause, to go on, to stop, or another pace. It is written into the control
//! database, and whoever carries the run out looks between batches.

use crate::control::{OrderRow, RunRow};
use crate::installation::{Installation, Operation};

use super::{Result, TaskError};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// No batch begins until somebody lets it go on, also after a restart.
    Pause,
    /// It goes on.
    Go,
    /// It ends here: what is not erased stays, and the next plan has it again.
    Stop,
}

impl Wish {
    /// As it is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Go => "go",
            Self::Stop => "stop",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Pause => "run.pause",
            Self::Go => "run.resume",
            Self::Stop => "run.stop",
        }
    }
}

/// Another pace; what is not given stays as it was asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tuning {
    /// At most so many rows in a second.
    pub rows_per_second: Option<u32>,
    /// The length in milliseconds that a transaction aims at.
    pub transaction_ms: Option<u32>,
    /// What was asked before counts no more.
    pub is_reset: bool,
}

/// Asks something of a run.
///
/// # Errors
/// Refused when its batches are done already; or when the control database or the operation log fails.
pub async fn ask(installation: &Installation, run: &RunRow, wish: Wish) -> Result<OrderRow> {
    let order = store(installation, run, |order| wish.name().clone_into(&mut order.wish)).await?;
    installation.log_operation(wish.operation(), &run.id, "success").await?;
    Ok(order)
}

/// Asks for another pace.
///
/// # Errors
/// As [`ask`].
pub async fn tune(installation: &Installation, run: &RunRow, tuning: Tuning) -> Result<OrderRow> {
    let order = store(installation, run, |order| {
        if tuning.is_reset {
            (order.rows_per_second, order.transaction_ms) = (None, None);
        }
        order.rows_per_second = tuning.rows_per_second.map(i64::from).or(order.rows_per_second);
        order.transaction_ms = tuning.transaction_ms.map(i64::from).or(order.transaction_ms);
    })
    .await?;
    let number = |name: &str, number: Option<i64>| {
        (name.to_owned(), number.map_or_else(|| "default".to_owned(), |number| number.to_string()))
    };
    let references =
        vec![number("rows_per_second", order.rows_per_second), number("transaction_ms", order.transaction_ms)];
    let tuned = Operation { name: "run.tune", object: &run.id, outcome: "success", references, ..Operation::default() };
    installation.log(tuned).await?;
    Ok(order)
}

async fn store(installation: &Installation, run: &RunRow, change: impl FnOnce(&mut OrderRow)) -> Result<OrderRow> {
    installation.refuse_old_copy().await?;
    let mut tx = installation.control.begin().await?;
    let state = tx.run(&run.id).await?.map_or_else(|| "gone".to_owned(), |run| run.state);
    if state != "approved" {
        return Err(TaskError::refused(
            format!("run {} is {state}: its batches are done", run.id),
            "see `wangchuan run show`; within its grace `wangchuan run undo` takes it back",
        ));
    }
    let before = tx.order(&run.id).await?;
    if before.as_ref().is_some_and(|order| order.wish == Wish::Stop.name()) {
        return Err(TaskError::refused(
            format!("run {} was told to stop already", run.id),
            "what it leaves is in the next plan: `wangchuan plan`",
        ));
    }
    let (asked_by, asked_at) = (installation.operator.clone(), installation.clock.now());
    let mut order = before.unwrap_or_else(|| OrderRow {
        run: run.id.clone(),
        wish: Wish::Go.name().to_owned(),
        rows_per_second: None,
        transaction_ms: None,
        asked_by: asked_by.clone(),
        asked_at,
    });
    (order.asked_by, order.asked_at) = (asked_by, asked_at);
    change(&mut order);
    tx.set_order(&order).await?;
    tx.commit().await?;
    Ok(order)
}

/// A run of this kind that was begun and is not finished, if there is one.
///
/// # Errors
/// When the control database fails.
pub async fn open_run(installation: &Installation, kind: &str) -> Result<Option<String>> {
    let mut tx = installation.control.read().await?;
    for state in ["approved", "deleted", "verified"] {
        if let Some(run) = tx.runs(Some(state)).await?.into_iter().find(|run| run.kind == kind) {
            return Ok(Some(run.id));
        }
    }
    Ok(None)
}

/// The run of this kind that somebody paused, if one is.
///
/// # Errors
/// When the control database fails.
pub async fn paused_run(installation: &Installation, kind: &str) -> Result<Option<String>> {
    let mut tx = installation.control.read().await?;
    for run in tx.runs(Some("approved")).await? {
        if run.kind == kind && tx.order(&run.id).await?.is_some_and(|order| order.wish == Wish::Pause.name()) {
            return Ok(Some(run.id));
        }
    }
    Ok(None)
}
