//! Answers of operations that can run in the background: their own, or 202 with the task.

use poem::http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::{Any, ToJSON, Type};
use poem_openapi::{ApiResponse, Enum, Object};
use serde_json::Value;

use super::{Data, Failure, Success, ok};
use crate::kernel::app::tasks::{self, Performed};
use crate::kernel::ids::{OrganizationId, TaskId};

/// The state of a task
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "tasks::TaskState")]
pub enum TaskState {
    Running,
    Done,
    Failed,
    /// It was cancelled and ended early; what was done until then stays, and is in `result`
    Cancelled,
}

/// A step of a task
#[derive(Object)]
pub struct TaskStep {
    pub name: String,
    /// How much of it is done: rows, accounts, entries
    pub done: u64,
    /// Null if it is not known
    #[oai(nullable)]
    pub total: Option<u64>,
    /// How long it took, in milliseconds; null before its end
    #[oai(nullable)]
    pub ms: Option<u64>,
}

/// Why a task failed
#[derive(Object)]
pub struct TaskError {
    /// The same as `detail` of a failure
    pub error_code: String,
    pub message: String,
}

/// Work in the background
#[derive(Object)]
#[oai(rename = "Task")]
pub struct TaskView {
    pub id: TaskId,
    /// The id of the operation that started it
    pub operation: String,
    pub state: TaskState,
    /// Whether it was asked to stop
    pub cancel_requested: bool,
    /// `member`, `client`, `key` or `cli`
    pub actor_kind: String,
    /// The caller who started it
    pub actor: String,
    #[oai(nullable)]
    pub organization_id: Option<OrganizationId>,
    /// The id of the request that started it, for the log
    pub request_id: String,
    /// The step that runs, or in which the task ended early; otherwise null
    #[oai(nullable)]
    pub step: Option<String>,
    pub steps: Vec<TaskStep>,
    /// What is done: steps if there are several, otherwise what the step counts
    pub done: u64,
    /// Null if it is not known
    #[oai(nullable)]
    pub total: Option<u64>,
    /// Unix milliseconds
    pub created_at: i64,
    #[oai(nullable)]
    pub finished_at: Option<i64>,
    /// `data` of the operation's own answer; null before its end and in lists. A failed task has one if its operation
    /// reports what was done before
    #[oai(nullable)]
    pub result: Option<Any<Value>>,
    #[oai(nullable)]
    pub error: Option<TaskError>,
    /// Whether `result` and `error` are left out, because the caller does not hold the permission of the operation (any
    /// more)
    pub result_hidden: bool,
}

impl TaskView {
    /// The task without its result, which can be long.
    pub fn without_result(task: tasks::Task) -> Self {
        Self::from(tasks::Task { result: None, ..task })
    }
}

impl From<tasks::Task> for TaskView {
    fn from(task: tasks::Task) -> Self {
        let (done, total) = task.progress();
        let (actor_kind, actor) = task.actor;
        let step = |step: tasks::TaskStep| {
            let tasks::TaskStep { name, done, total, ms, .. } = step;
            TaskStep { name: name.to_owned(), done, total, ms }
        };
        let error =
            |error: tasks::TaskError| TaskError { error_code: error.code.as_str().into(), message: error.message };
        Self {
            id: task.id,
            operation: task.operation.to_owned(),
            state: task.state.into(),
            cancel_requested: task.is_cancel_requested,
            actor_kind: actor_kind.to_owned(),
            actor,
            organization_id: task.organization,
            request_id: task.request_id,
            step: task.step.map(str::to_owned),
            steps: task.steps.into_iter().map(step).collect(),
            done,
            total,
            created_at: task.created_at.0,
            finished_at: task.finished_at.map(|at| at.0),
            result: task.result.and_then(|json| serde_json::from_str(&json).ok()).map(Any),
            error: task.error.map(error),
            result_hidden: task.is_result_hidden,
        }
    }
}

/// What an operation answers that takes `background`.
pub type TaskReply<T> = Result<Performed<T>, Failure>;

impl<T: Type + ToJSON> IntoResponse for Performed<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(answer) => ok(answer).into_response(),
            Self::Started(task) => {
                let mut response = ok(TaskView::from(*task)).into_response();
                response.set_status(StatusCode::ACCEPTED);
                response
            }
        }
    }
}

impl<T: Type + ToJSON> ApiResponse for Performed<T> {
    fn meta() -> MetaResponses {
        let mut started = Success::<Data<TaskView>>::meta().responses;
        for response in &mut started {
            response.status = Some(StatusCode::ACCEPTED.as_u16());
            response.description = "Started in the background (`background`): the task";
        }
        MetaResponses { responses: Success::<Data<T>>::meta().responses.into_iter().chain(started).collect() }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        TaskView::register(registry);
    }
}
