//! Work in the background: who sees and cancels it. `kernel/app/tasks.rs` runs and keeps it.

pub mod api;

use serde_json::json;

use crate::kernel::app::tasks::{Task, TaskState};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, take};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::TaskId;

/// The tasks that the caller started; with the permission and unless `is_own_only`, those of all callers. The newest
/// first.
pub fn list(app: &App, caller: &Identity, is_own_only: bool) -> Result<Vec<Task>> {
    take(caller)?;
    let snapshot = app.snapshot();
    let sees_all = !is_own_only && holds(&snapshot, caller, Permission::TASK_LIST);
    let own = caller.actor();
    let found = app.tasks.list(|actor| sees_all || *actor == own);
    Ok(found.into_iter().map(|task| as_seen_by(&snapshot, caller, task)).collect())
}

/// A task that the caller started or, with the permission, any. All others fail like a missing one.
pub fn get(app: &App, caller: &Identity, id: TaskId) -> Result<Task> {
    let task = find(app, caller, id, Permission::TASK_GET)?;
    Ok(as_seen_by(&app.snapshot(), caller, task))
}

/// Asks a task that the caller started or, with the permission, any to stop. A finished one stays as it is.
pub async fn cancel(app: &App, caller: &Identity, id: TaskId) -> Result<Task> {
    let found = find(app, caller, id, Permission::TASK_CANCEL)?;
    if found.state == TaskState::Running && !found.is_cancel_requested {
        record_cancel(app, caller, found).await?;
    }
    let task = app.tasks.cancel(id).ok_or(ErrorCode::TaskNotFound)?;
    let (kind, name) = caller.actor();
    tracing::info!(task = %id, operation = task.operation, kind, name, "a task was cancelled");
    Ok(as_seen_by(&app.snapshot(), caller, task))
}

/// Writes the audit entry, for which the caller is checked again.
async fn record_cancel(app: &App, caller: &Identity, task: Task) -> Result<()> {
    let record = move |t: &Transaction<'_>, caller: &Identity| {
        if task.actor != caller.actor() {
            authz::require(t.snapshot(), caller, Permission::TASK_CANCEL)?;
        }
        let (kind, name) = &task.actor;
        let about = json!({"operation": task.operation, "actor_kind": kind, "actor": name});
        Ok(Changed::new((), Entry::new("task", task.id).within(task.organization).after(about)))
    };
    app.change(caller, "task.cancel", record).await?;
    Ok(())
}

fn find(app: &App, caller: &Identity, id: TaskId, permission: Permission) -> Result<Task> {
    take(caller)?;
    let is_seen = |task: &Task| task.actor == caller.actor() || holds(&app.snapshot(), caller, permission);
    app.tasks.find(id).filter(is_seen).ok_or_else(|| ErrorCode::TaskNotFound.into())
}

fn holds(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> bool {
    authz::require(snapshot, caller, permission).is_ok()
}

/// The task with its result and error only while the caller holds the permission of its operation, in the organization
/// in which it acts. A caller can have lost it since the task began.
fn as_seen_by(snapshot: &Snapshot, caller: &Identity, task: Task) -> Task {
    let may_see = task.permission().is_some_and(|permission| {
        // Operations of the site act in no organization.
        let organization = task.organization.filter(|_| !permission.builtin().site_only);
        holds(snapshot, &Identity::of_maker(caller.principal.clone(), organization), permission)
    });
    if may_see { task } else { task.with_hidden_result() }
}
