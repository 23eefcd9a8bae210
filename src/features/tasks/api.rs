//! Operations on tasks in the background.

use std::sync::Arc;

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use crate::features::tasks;
use crate::kernel::app::App;
use crate::kernel::authn::caller::AdminOrKey;
use crate::kernel::db::PageRequest;
use crate::kernel::http::background::{TaskState, TaskView};
use crate::kernel::http::{Page, Reply, Tag, ok};
use crate::kernel::ids::TaskId;

crate::document! {
    get_task: [TaskNotFound];
    cancel_task: [TaskNotFound];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/tasks", tag = "Tag::Tasks")]
impl Api {
    /// List tasks
    ///
    /// Newest first, without their results. Callers with the permission see the tasks of all callers, others only those
    /// that they started themselves. Finished tasks are kept for `tasks.ttl_s`, and a restart of the server forgets all.
    #[oai(path = "/", method = "get", operation_id = "list_tasks")]
    async fn list_tasks(
        &self,
        caller: AdminOrKey,
        /// Only the tasks that the caller started
        own: Query<Option<bool>>,
        state: Query<Option<TaskState>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<TaskView>> {
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let mut all = tasks::list(&self.app, &caller, own.0 == Some(true))?;
        if let Some(state) = state.0 {
            all.retain(|task| TaskState::from(task.state) == state);
        }
        Ok(ok(window.of_all(all, "tasks")?.map(TaskView::without_result).into()))
    }

    /// Get a task
    ///
    /// Its progress and, after its end, its result: `data` of the operation's own answer; of a failed comparison with
    /// SFTPGo or WordPress, what was done before. Result and error are shown only while the caller holds the permission
    /// of that operation. A task of another caller is visible with the permission only.
    #[oai(path = "/:id", method = "get", operation_id = "get_task")]
    async fn get_task(&self, caller: AdminOrKey, id: Path<TaskId>) -> Reply<TaskView> {
        Ok(ok(tasks::get(&self.app, &caller, id.0)?.into()))
    }

    /// Cancel a task
    ///
    /// It stops at its next row, account or step, a moment after this response. What was done until then stays, and is
    /// its result. A finished task stays as it is. The audit log records it.
    #[oai(path = "/:id", method = "delete", operation_id = "cancel_task")]
    async fn cancel_task(&self, caller: AdminOrKey, id: Path<TaskId>) -> Reply<TaskView> {
        Ok(ok(tasks::cancel(&self.app, &caller, id.0).await?.into()))
    }
}
