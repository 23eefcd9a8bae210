//! Long work that goes on after its response: imports, uploads, synchronizations, checks.
//!
//! **Invariant.** Tasks are in memory only, and nothing durable depends on them: a restart forgets them. Their number,
//! those of one party that run at once, the bytes of their results and the time that they are kept are limited. A task
//! acts as the caller who started it, in the context of that request, so that each change checks the credential and the
//! permission again.

mod progress;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use poem_openapi::types::ToJSON;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::{App, seconds_to_ms};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::config::Config;
use crate::kernel::db::panic_text;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, TaskId, Timestamp};
use crate::kernel::secret::Hash;
pub use progress::{BUSY_PAUSES, Progress};

/// How long running tasks may take to end after a stop signal.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// How often it is checked whether an aborted task has ended.
const ABORT_PAUSE: Duration = Duration::from_millis(5);
/// When to try again after too many tasks.
const RETRY_AFTER_S: u64 = 5;

/// An operation that can run as a task, with the steps that are known before it begins.
#[derive(Debug, Clone, Copy)]
pub struct TaskKind {
    /// The id of the operation.
    pub operation: &'static str,
    pub steps: &'static [&'static str],
}

/// The permission of each operation that can run as a task. It also opens the result.
const PERMISSIONS: &[(&str, Permission)] = &[
    ("import_users", Permission::USER_IMPORT),
    ("import_videos", Permission::VIDEO_IMPORT),
    ("reconcile_sftpgo", Permission::SFTPGO_RECONCILE),
    ("recount_quotas", Permission::QUOTA_RECOUNT),
    ("sync_wordpress", Permission::WORDPRESS_SYNC),
    ("upload_plugin", Permission::PLUGIN_UPLOAD),
    ("verify_audit", Permission::AUDIT_VERIFY),
];

impl TaskKind {
    /// The permission of an operation that can run as a task. Without a known one, nobody sees the result.
    fn permission_of(operation: &str) -> Option<Permission> {
        PERMISSIONS.iter().find(|(known, _)| *known == operation).map(|(_, permission)| *permission)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Running,
    Done,
    Failed,
    /// Ended early, because somebody asked for it. What was done until then stays.
    Cancelled,
}

/// A step of a task. `ms` is set once it has ended.
#[derive(Debug, Clone)]
pub struct TaskStep {
    pub name: &'static str,
    pub done: u64,
    pub total: Option<u64>,
    pub ms: Option<u64>,
    began: Option<Instant>,
}

/// The error of a failed task.
#[derive(Debug, Clone)]
pub struct TaskError {
    pub code: ErrorCode,
    pub message: String,
}

/// A task as it is now.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: TaskId,
    pub operation: &'static str,
    /// Kind and name of the caller who started it.
    pub actor: (&'static str, String),
    pub organization: Option<OrganizationId>,
    pub request_id: String,
    pub state: TaskState,
    pub is_cancel_requested: bool,
    /// The step that runs, or in which the task ended; `None` before the first and after the last one.
    pub step: Option<&'static str>,
    pub steps: Vec<TaskStep>,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// The answer of the operation as JSON; of a failed task, what was done before if the operation reports that.
    pub result: Option<Arc<str>>,
    pub error: Option<TaskError>,
    /// Whether result and error are left out, because the reader may not see them.
    pub is_result_hidden: bool,
}

impl Task {
    /// The permission of the operation, without which nobody sees result and error.
    pub fn permission(&self) -> Option<Permission> {
        TaskKind::permission_of(self.operation)
    }

    /// The task for a reader who may not see what the operation answers.
    #[must_use]
    pub fn with_hidden_result(self) -> Self {
        Self { result: None, error: None, is_result_hidden: true, ..self }
    }

    /// What is done, and of how much: steps if there are several, otherwise what the step counts.
    pub fn progress(&self) -> (u64, Option<u64>) {
        match self.steps.as_slice() {
            [] => (0, None),
            [one] => (one.done, one.total),
            steps => {
                let total = steps.len() as u64;
                let ended = steps.iter().filter(|step| step.ms.is_some()).count() as u64;
                (if self.state == TaskState::Done { total } else { ended }, Some(total))
            }
        }
    }
}

/// The outcome of an operation that can run in the background.
#[derive(Debug)]
pub enum Performed<T> {
    Done(T),
    Started(Box<Task>),
}

/// A task in the registry.
#[derive(Debug)]
struct Entry {
    id: TaskId,
    operation: &'static str,
    actor: (&'static str, String),
    /// Who shares a limit: an organization, or a program.
    party: String,
    organization: Option<OrganizationId>,
    request_id: String,
    once: Option<Once>,
    created_at: Timestamp,
    cancel: watch::Sender<bool>,
    /// Whether the work has seen the request to cancel, and so has ended early.
    has_noticed: AtomicBool,
    present: Mutex<Present>,
}

/// The `Idempotency-Key` of the request that started a task, and the digest of the request.
#[derive(Debug, Clone)]
struct Once {
    key: String,
    fingerprint: Hash,
}

/// A task that begins, or the one that the same request started before.
enum Inserted {
    New(Arc<Entry>),
    Known(Arc<Entry>),
}

#[derive(Debug)]
struct Present {
    state: TaskState,
    /// The index of the current step.
    step: Option<usize>,
    steps: Vec<TaskStep>,
    finished_at: Option<Timestamp>,
    /// What the work has done before it fails, as JSON.
    partial: Option<String>,
    result: Option<Arc<str>>,
    error: Option<TaskError>,
    /// Aborts the work. Dropped at its end, because it keeps the memory of the work.
    work: Option<AbortHandle>,
}

impl Entry {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the handle of the work, unless it has ended already.
    fn keep(&self, work: AbortHandle) {
        let mut present = self.present();
        if present.state == TaskState::Running {
            present.work = Some(work);
        }
    }

    fn is_running(&self) -> bool {
        self.present().state == TaskState::Running
    }

    fn result_bytes(&self) -> u64 {
        self.present().result.as_ref().map_or(0, |result| result.len() as u64)
    }

    fn view(&self) -> Task {
        let present = self.present();
        Task {
            id: self.id,
            operation: self.operation,
            actor: self.actor.clone(),
            organization: self.organization,
            request_id: self.request_id.clone(),
            state: present.state,
            is_cancel_requested: *self.cancel.borrow(),
            step: present.step.and_then(|at| present.steps.get(at)).map(|step| step.name),
            steps: present.steps.clone(),
            created_at: self.created_at,
            finished_at: present.finished_at,
            result: present.result.clone(),
            error: present.error.clone(),
            is_result_hidden: false,
        }
    }
}

impl Present {
    fn begin(&mut self, name: &'static str) {
        self.end_step();
        let at = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            self.steps.push(TaskStep { name, done: 0, total: None, ms: None, began: None });
            self.steps.len() - 1
        });
        self.steps[at].began = Some(Instant::now());
        self.step = Some(at);
    }

    /// Ends the current step, if there is one.
    fn end_step(&mut self) {
        let Some(step) = self.step.take().and_then(|at| self.steps.get_mut(at)) else { return };
        step.ms = step.began.map(|began| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    }

    fn current(&mut self) -> Option<&mut TaskStep> {
        self.step.and_then(|at| self.steps.get_mut(at))
    }
}

/// The tasks of the site.
pub struct Tasks {
    registry: Mutex<Registry>,
    kept_max: usize,
    running_max: usize,
    ttl_ms: i64,
    bytes_max: u64,
    /// Notified when a task ends.
    ended: Notify,
}

#[derive(Default)]
struct Registry {
    /// The oldest first.
    entries: Vec<Arc<Entry>>,
    is_stopped: bool,
}

impl Registry {
    fn forget_old(&mut self, ttl_ms: i64, now: Timestamp) {
        let is_old = |entry: &Entry| entry.present().finished_at.is_some_and(|at| at.plus_ms(ttl_ms) <= now);
        self.entries.retain(|entry| !is_old(entry));
    }

    /// The task that a request with the same `Idempotency-Key` started. Fails with `idempotency_key_reused` if that was
    /// another request.
    fn find_repeated(
        &self,
        actor: &(&'static str, String),
        operation: &str,
        once: &Once,
    ) -> Result<Option<Arc<Entry>>> {
        let is_same = |entry: &&Arc<Entry>| {
            let has_key = entry.once.as_ref().is_some_and(|known| known.key == once.key);
            has_key && entry.actor == *actor && entry.operation == operation
        };
        match self.entries.iter().find(is_same) {
            Some(known) if known.once.as_ref().is_some_and(|known| known.fingerprint != once.fingerprint) => {
                Err(ErrorCode::IdempotencyKeyReused.into())
            }
            known => Ok(known.cloned()),
        }
    }

    /// Drops the oldest finished task of the party whose finished tasks weigh most. Returns false if there is none.
    fn drop_one(&mut self, weight: impl Fn(&Entry) -> u64) -> bool {
        let finished = self.entries.iter().enumerate().filter(|(_, entry)| !entry.is_running());
        let mut parties: HashMap<&str, (u64, usize)> = HashMap::new();
        for (at, entry) in finished {
            let weight = weight(entry);
            if weight > 0 {
                parties.entry(entry.party.as_str()).or_insert((0, at)).0 += weight;
            }
        }
        // Among equals, the one with the oldest task.
        let heaviest = parties.into_values().max_by_key(|(weight, at)| (*weight, std::cmp::Reverse(*at)));
        let Some((_, at)) = heaviest else { return false };
        self.entries.remove(at);
        true
    }
}

impl Tasks {
    pub fn new(config: &Config) -> Self {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            registry: Mutex::default(),
            kept_max: count(config.tasks_kept_max),
            running_max: count(config.tasks_running_max),
            ttl_ms: seconds_to_ms(config.task_ttl_s),
            bytes_max: config.task_bytes_max,
            ended: Notify::new(),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task. Fails with `tasks_limited` if too many of its party run, and with `busy` if only running ones are
    /// kept or the server is stopping.
    fn insert(&self, kind: TaskKind, caller: &Identity, party: String, once: Option<Once>) -> Result<Inserted> {
        let (now, actor) = (Timestamp::now(), caller.actor());
        let mut registry = self.registry();
        if registry.is_stopped {
            return Err(Error::new(ErrorCode::Busy).with_source("the server is stopping").retry_after(RETRY_AFTER_S));
        }
        registry.forget_old(self.ttl_ms, now);
        if let Some(once) = &once
            && let Some(known) = registry.find_repeated(&actor, kind.operation, once)?
        {
            return Ok(Inserted::Known(known));
        }
        let running = registry.entries.iter().filter(|entry| entry.party == party && entry.is_running()).count();
        if running >= self.running_max {
            return Err(Error::new(ErrorCode::TasksLimited).retry_after(RETRY_AFTER_S));
        }
        while registry.entries.len() >= self.kept_max {
            if !registry.drop_one(|_| 1) {
                let message = "as many tasks run as tasks.kept allows: try again";
                return Err(Error::new(ErrorCode::Busy).with_message(message).retry_after(RETRY_AFTER_S));
            }
        }
        let steps = kind.steps.iter().map(|name| TaskStep { name, done: 0, total: None, ms: None, began: None });
        let present = Present {
            state: TaskState::Running,
            step: None,
            steps: steps.collect(),
            finished_at: None,
            partial: None,
            result: None,
            error: None,
            work: None,
        };
        let entry = Arc::new(Entry {
            id: TaskId::new(),
            operation: kind.operation,
            actor,
            party,
            organization: caller.context.tenant.get().copied(),
            request_id: caller.context.request_id.clone(),
            once,
            created_at: now,
            cancel: watch::Sender::new(false),
            has_noticed: AtomicBool::new(false),
            present: Mutex::new(present),
        });
        registry.entries.push(entry.clone());
        Ok(Inserted::New(entry))
    }

    /// Ends a task. If its result does not fit, results of other tasks are dropped with them.
    fn finish(&self, entry: &Entry, outcome: Result<String>) -> TaskState {
        let has_noticed = entry.has_noticed.load(Ordering::Acquire);
        let state = match &outcome {
            Ok(_) if has_noticed => TaskState::Cancelled,
            Ok(_) => TaskState::Done,
            Err(error) if error.code == ErrorCode::TaskCancelled => TaskState::Cancelled,
            Err(_) => TaskState::Failed,
        };
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) if state == TaskState::Failed => (entry.present().partial.take(), Some(error_of(&error))),
            Err(_) => (None, None),
        };
        let result = result.filter(|result| {
            let fits = result.len() as u64 <= self.bytes_max;
            if !fits {
                tracing::warn!(task = %entry.id, bytes = result.len(), "the result of a task is longer than tasks.bytes and is not kept");
            }
            fits
        });
        {
            let mut present = entry.present();
            // A task that ended early still shows the step in which it ended.
            if state == TaskState::Done {
                present.end_step();
            }
            present.state = state;
            present.finished_at = Some(Timestamp::now());
            present.result = result.map(Into::into);
            present.error = error;
            present.work = None;
        }
        let mut registry = self.registry();
        while registry.entries.iter().map(|entry| entry.result_bytes()).sum::<u64>() > self.bytes_max {
            if !registry.drop_one(Entry::result_bytes) {
                break;
            }
        }
        drop(registry);
        self.ended.notify_waiters();
        state
    }

    /// The tasks of these callers, the newest first. `is_visible` gets kind and name of the caller who started it.
    pub fn list(&self, is_visible: impl Fn(&(&'static str, String)) -> bool) -> Vec<Task> {
        self.forget_old();
        let entries: Vec<Arc<Entry>> = self.registry().entries.clone();
        entries.iter().rev().filter(|entry| is_visible(&entry.actor)).map(|entry| entry.view()).collect()
    }

    pub fn find(&self, id: TaskId) -> Option<Task> {
        self.forget_old();
        self.entry(id).map(|entry| entry.view())
    }

    /// Asks a running task to stop; a finished one stays as it is.
    pub fn cancel(&self, id: TaskId) -> Option<Task> {
        let entry = self.entry(id)?;
        if entry.is_running() {
            entry.cancel.send_replace(true);
        }
        Some(entry.view())
    }

    /// The number of tasks of this caller that run now.
    pub fn count_running(&self, actor: &(&'static str, String)) -> usize {
        self.registry().entries.iter().filter(|entry| entry.actor == *actor && entry.is_running()).count()
    }

    /// Drops the tasks that ended longer ago than `tasks.ttl_s`.
    pub fn forget_old(&self) {
        self.registry().forget_old(self.ttl_ms, Timestamp::now());
    }

    fn entry(&self, id: TaskId) -> Option<Arc<Entry>> {
        self.registry().entries.iter().find(|entry| entry.id == id).cloned()
    }

    fn running(&self) -> Vec<Arc<Entry>> {
        self.registry().entries.iter().filter(|entry| entry.is_running()).cloned().collect()
    }

    /// Asks all tasks to stop, and accepts no more.
    pub(super) fn stop(&self) {
        self.registry().is_stopped = true;
        for entry in self.running() {
            entry.cancel.send_replace(true);
        }
    }
}

/// What a caller may see of an error: never its source.
fn error_of(error: &Error) -> TaskError {
    let faults = error.shown_fields().map(|field| format!("; {}: {}", field.location.join("."), field.message));
    TaskError { code: error.code, message: error.message().to_owned() + &faults.collect::<String>() }
}

impl App {
    /// Runs the work of an operation: in this request, or as a task that is returned at once. A repeat with the same
    /// `Idempotency-Key` gets the same task, as long as it is kept.
    pub async fn perform<T, F>(
        self: &Arc<Self>,
        caller: &Identity,
        kind: TaskKind,
        is_background: bool,
        work: impl FnOnce(Progress) -> F,
    ) -> Result<Performed<T>>
    where
        T: ToJSON + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if !is_background {
            return work(Progress::none()).await.map(Performed::Done);
        }
        let (kind_of_actor, name) = caller.actor();
        let party = caller.context.party(&self.snapshot()).unwrap_or_else(|| format!("{kind_of_actor} {name}"));
        let once = caller.idempotency.as_ref().map(|idempotency| {
            let fingerprint = self.sealer.digest("request", &idempotency.parts(caller.context.body.bytes()));
            Once { key: idempotency.key.clone(), fingerprint }
        });
        let entry = match self.tasks.insert(kind, caller, party, once)? {
            Inserted::New(entry) => entry,
            Inserted::Known(known) => return Ok(Performed::Started(Box::new(known.view()))),
        };
        let (task, operation) = (entry.id, kind.operation);
        tracing::info!(%task, operation, kind = kind_of_actor, name, "a task began");
        let work = work(Progress(Some(entry.clone())));
        let context = caller.context.clone();
        let run = self.clone().run_task(entry.clone(), context.clone(), work);
        let spawned = tokio::spawn(context.scope(run));
        entry.keep(spawned.abort_handle());
        Ok(Performed::Started(Box::new(entry.view())))
    }

    async fn run_task<T: ToJSON>(
        self: Arc<Self>,
        entry: Arc<Entry>,
        context: Arc<RequestContext>,
        work: impl Future<Output = Result<T>> + Send,
    ) {
        let began = Instant::now();
        let rendered = async { work.await.map(|answer| answer.to_json_string()) };
        let outcome = AssertUnwindSafe(rendered).catch_unwind().await.unwrap_or_else(|panic| {
            self.metrics.panics.inc();
            Err(Error::internal(format!("a task panicked: {}", panic_text(&panic))))
        });
        if let Err(error) = &outcome
            && error.code != ErrorCode::TaskCancelled
        {
            self.log_failure(error, &context);
            if error.is_denial()
                && let Err(e) = self.record_denial(&context, entry.operation, error.code.as_str()).await
            {
                tracing::error!(error = %e, "a denial could not be recorded");
            }
        }
        let state = self.tasks.finish(&entry, outcome);
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(task = %entry.id, operation = entry.operation, ?state, took_ms, "a task ended");
    }

    /// Ends all tasks: each can end its present step, but only for a short time.
    pub async fn stop_tasks(&self) {
        self.tasks.stop();
        let all_ended = async {
            loop {
                let ended = self.tasks.ended.notified();
                if self.tasks.running().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(STOP_WAIT, all_ended).await.is_ok() {
            return;
        }
        let mut aborted = Vec::new();
        for entry in self.tasks.running() {
            tracing::warn!(task = %entry.id, operation = entry.operation, "a task did not end in time and is aborted");
            aborted.extend(entry.present().work.take());
        }
        aborted.iter().for_each(AbortHandle::abort);
        // The work ends at its next await. What it leaves to be done is known after that, and `close` waits for it.
        let all_gone = async {
            while !aborted.iter().all(AbortHandle::is_finished) {
                tokio::time::sleep(ABORT_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(STOP_WAIT, all_gone).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::kernel::audit_log;

    fn tasks(settings: impl FnOnce(&mut Config)) -> Tasks {
        let mut config = Config::of(std::path::Path::new(""));
        settings(&mut config);
        Tasks::new(&config)
    }

    const KIND: TaskKind = TaskKind { operation: "import_users", steps: &["rows"] };

    fn insert(tasks: &Tasks, party: &str) -> Result<Arc<Entry>> {
        insert_once(tasks, party, None)
    }

    fn insert_once(tasks: &Tasks, party: &str, once: Option<Once>) -> Result<Arc<Entry>> {
        match tasks.insert(KIND, &Identity::command_line(), party.to_owned(), once)? {
            Inserted::New(entry) | Inserted::Known(entry) => Ok(entry),
        }
    }

    fn kept(tasks: &Tasks) -> Vec<TaskId> {
        tasks.list(|_| true).into_iter().map(|task| task.id).collect()
    }

    #[test]
    fn every_operation_that_runs_in_the_background_has_its_permission() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let document: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON");
        let paths = document["paths"].as_object().expect("paths").values();
        let operations = paths.flat_map(|item| item.as_object().expect("operations").values());
        let is_background = |parameter: &serde_json::Value| {
            parameter["name"] == "background" || parameter["$ref"] == "#/components/parameters/background"
        };
        let has_background = |operation: &&serde_json::Value| {
            operation["parameters"].as_array().is_some_and(|all| all.iter().any(is_background))
        };
        let mut found: Vec<(&str, &str)> = operations
            .filter(has_background)
            .map(|operation| {
                let text = |name: &str| operation[name].as_str().expect("text");
                (text("operationId"), text("x-permission"))
            })
            .collect();
        found.sort_unstable();
        let known: Vec<(&str, &str)> =
            PERMISSIONS.iter().map(|(operation, permission)| (*operation, permission.builtin().name)).collect();
        assert_eq!(found, known);
        assert_eq!(TaskKind::permission_of("list_tasks"), None);
    }

    #[test]
    fn as_many_of_a_party_run_as_the_limit_and_not_one_more() {
        let tasks = tasks(|c| c.tasks_running_max = 2);
        let [first, _second] = [(); 2].map(|()| insert(&tasks, "acme").expect("within the limit"));
        let refused = insert(&tasks, "acme").expect_err("one past it");
        assert_eq!((refused.code, refused.code.status()), (ErrorCode::TasksLimited, 429));
        insert(&tasks, "bolt").expect("another party");
        assert_eq!(tasks.finish(&first, Ok("1".into())), TaskState::Done);
        insert(&tasks, "acme").expect("one has ended");
    }

    #[test]
    fn as_many_are_kept_as_the_limit_and_the_one_past_it_drops_the_oldest_of_the_largest_party() {
        let tasks = tasks(|c| (c.tasks_kept_max, c.tasks_running_max) = (3, 3));
        let all = ["bolt", "acme", "acme"].map(|party| insert(&tasks, party).expect("within the limit"));
        assert_eq!(insert(&tasks, "acme").expect_err("all run").code, ErrorCode::Busy);
        for entry in &all {
            tasks.finish(entry, Ok("1".into()));
        }
        let fourth = insert(&tasks, "core").expect("a finished one is dropped for it");
        assert_eq!(kept(&tasks), [fourth.id, all[2].id, all[0].id]);
    }

    #[test]
    fn results_take_as_many_bytes_as_the_limit_and_not_one_more() {
        let tasks = tasks(|c| c.task_bytes_max = 4);
        let [first, second, third] = ["acme", "acme", "bolt"].map(|party| insert(&tasks, party).expect("a task"));
        for entry in [&first, &second] {
            tasks.finish(entry, Ok("12".into()));
        }
        assert_eq!(kept(&tasks), [third.id, second.id, first.id]);
        tasks.finish(&third, Ok("1".into()));
        assert_eq!(kept(&tasks), [third.id, second.id], "the oldest of the party with the most bytes");
        let long = insert(&tasks, "core").expect("a task");
        assert_eq!(tasks.finish(&long, Ok("12345".into())), TaskState::Done);
        assert_eq!(tasks.find(long.id).expect("kept").result, None, "longer than all may be together");
    }

    #[test]
    fn finished_ones_are_kept_as_long_as_the_setting_and_not_longer() {
        let tasks = tasks(|c| c.task_ttl_s = 10);
        let [finished, running] = [(); 2].map(|()| insert(&tasks, "acme").expect("a task"));
        tasks.finish(&finished, Ok("1".into()));
        let at = finished.present().finished_at.expect("finished");
        let kept_at = |ms: i64| {
            tasks.registry().forget_old(tasks.ttl_ms, at.plus_ms(ms));
            tasks.registry().entries.len()
        };
        assert_eq!((kept_at(9_999), kept_at(10_000)), (2, 1));
        assert!(tasks.entry(running.id).is_some());
    }

    #[test]
    fn the_same_request_starts_one_task() {
        let tasks = tasks(|c| c.tasks_running_max = 2);
        let once = |key: &str, request: u8| Some(Once { key: key.to_owned(), fingerprint: [request; 32] });
        let first = insert_once(&tasks, "acme", once("a", 1)).expect("a task");
        let repeated = insert_once(&tasks, "acme", once("a", 1)).expect("the same task");
        let other = insert_once(&tasks, "acme", once("b", 1)).expect("another task");
        assert!(first.id == repeated.id && first.id != other.id);
        let reused = insert_once(&tasks, "acme", once("a", 2)).expect_err("another request with the same key");
        assert_eq!(reused.code, ErrorCode::IdempotencyKeyReused);
        tasks.finish(&first, Ok("1".into()));
        assert_eq!(insert_once(&tasks, "acme", once("a", 1)).expect("the same task").id, first.id);
    }

    #[test]
    fn a_task_shows_its_steps_and_ends_as_its_work_does() {
        let tasks = tasks(|_| ());
        let kind = TaskKind { operation: "upload_plugin", steps: &["received", "compiled", "vectors"] };
        let inserted = tasks.insert(kind, &Identity::command_line(), "acme".into(), None).expect("a task");
        let (Inserted::New(entry) | Inserted::Known(entry)) = inserted;
        let progress = Progress(Some(entry.clone()));
        let view = || tasks.find(entry.id).expect("known");
        assert_eq!((view().step, view().progress()), (None, (0, Some(3))));
        progress.step("received");
        progress.step("compiled");
        progress.of(7);
        progress.advance(2);
        let seen = view();
        assert_eq!((seen.step, seen.progress(), seen.steps[1].done), (Some("compiled"), (1, Some(3)), 2));
        assert!(seen.steps[0].ms.is_some() && seen.steps[1].ms.is_none());
        assert_eq!(seen.steps[1].total, Some(7));
        let refused = Error::field("name", "is wrong").with_source("a secret");
        assert_eq!(tasks.finish(&entry, Err(refused)), TaskState::Failed);
        let seen = view();
        let error = seen.error.expect("an error");
        assert_eq!(error.message, format!("{}; body.name: is wrong", ErrorCode::BadInput.message()));
        assert_eq!((seen.step, seen.steps[1].ms), (Some("compiled"), None), "the failed step stays the current one");
    }

    #[tokio::test]
    async fn what_is_busy_is_repeated_as_often_as_there_are_pauses_and_not_once_more() {
        let attempt = async |busy: usize, word: ErrorCode| {
            let (mut attempts, progress, pauses) = (0, Progress::none(), [Duration::ZERO; 3]);
            let result = progress.repeat_while_busy(&pauses, || {
                attempts += 1;
                std::future::ready(if attempts <= busy { Err(Error::from(word)) } else { Ok(()) })
            });
            let result = result.await.map_err(|error| error.code);
            (result, attempts)
        };
        assert_eq!(attempt(0, ErrorCode::Busy).await, (Ok(()), 1));
        assert_eq!(attempt(3, ErrorCode::Busy).await, (Ok(()), 4));
        assert_eq!(attempt(4, ErrorCode::Busy).await, (Err(ErrorCode::Busy), 4));
        assert_eq!(attempt(1, ErrorCode::Database).await, (Err(ErrorCode::Database), 1));
        let tasks = tasks(|_| ());
        let entry = insert(&tasks, "acme").expect("a task");
        tasks.cancel(entry.id);
        let busy = || std::future::ready(Err::<(), _>(Error::from(ErrorCode::Busy)));
        let progress = Progress(Some(entry));
        let stopped = progress.repeat_while_busy(&[Duration::from_secs(3_600)], busy).await;
        assert_eq!(stopped.expect_err("cancelled").code, ErrorCode::TaskCancelled);
    }

    #[test]
    fn a_failed_task_has_what_its_work_has_done() {
        let tasks = tasks(|c| c.task_bytes_max = 1);
        for (done, kept) in [(7_u64, Some("7")), (77, None)] {
            let entry = insert(&tasks, "acme").expect("a task");
            let error = Progress(Some(entry.clone())).fail(ErrorCode::Forbidden.into(), &done);
            assert_eq!(tasks.finish(&entry, Err(error)), TaskState::Failed);
            let seen = tasks.find(entry.id).expect("known");
            assert_eq!((seen.result.as_deref(), seen.error.map(|e| e.code)), (kept, Some(ErrorCode::Forbidden)));
        }
    }

    #[tokio::test]
    async fn a_panic_fails_the_task_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let app = App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap();
        let caller = Identity::command_line();
        let start = async |is_broken: bool| {
            let work = move |progress: Progress| async move {
                progress.step("rows");
                assert!(!is_broken, "broken on purpose");
                Ok(7_u32)
            };
            match app.perform(&caller, KIND, true, work).await.unwrap() {
                Performed::Started(task) => task.id,
                Performed::Done(_) => unreachable!("it runs in the background"),
            }
        };
        let both = [start(true).await, start(false).await];
        while !app.tasks.running().is_empty() {
            tokio::task::yield_now().await;
        }
        let [broken, sound] = both.map(|id| app.tasks.find(id).unwrap());
        assert_eq!((broken.state, broken.step), (TaskState::Failed, Some("rows")));
        assert_eq!(broken.error.unwrap().code, ErrorCode::Internal);
        assert_eq!((sound.state, sound.result.as_deref()), (TaskState::Done, Some("7")));
        assert_eq!(app.metrics.panics.get(), 1);
        app.stop_tasks().await;
        app.close().await;
    }

    #[tokio::test]
    async fn a_verification_of_the_audit_log_asks_again_and_again_whether_its_caller_still_may() {
        const WRITTEN: u64 = 2_500;
        let directory = tempfile::tempdir().unwrap();
        let app = App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap();
        let write = |w: &crate::kernel::db::Writer<'_>| {
            let entry = audit_log::Entry::new("site", "test");
            (0..WRITTEN).try_for_each(|_| {
                audit_log::record(w, ("cli", "cli"), ("", "local"), "site.test", audit_log::Outcome::Done, &entry)
            })
        };
        app.write_unaudited(write).await.unwrap();
        let verify = async |refused_at: Option<u64>| {
            let asked = Arc::new(AtomicU64::new(0));
            let counted = asked.clone();
            let check = move || match counted.fetch_add(1, Ordering::SeqCst) + 1 {
                count if Some(count) == refused_at => Err(ErrorCode::Forbidden.into()),
                _ => Ok(()),
            };
            let outcome = app.verify_audit(&Progress::none(), check).await;
            (outcome.map(|found| found.entries).map_err(|error| error.code), asked.load(Ordering::SeqCst))
        };
        // In the middle, and before the result.
        for refused_at in [1, 3] {
            assert_eq!(verify(Some(refused_at)).await, (Err(ErrorCode::Forbidden), refused_at));
            assert!(app.last_audit_verification().is_none());
        }
        let (entries, asked) = verify(None).await;
        assert!(entries.is_ok_and(|entries| entries >= WRITTEN) && app.last_audit_verification().is_some());
        assert_eq!(asked, 3);
        app.close().await;
    }

    #[tokio::test]
    async fn a_cancelled_task_stops_where_its_work_looks() {
        let tasks = tasks(|_| ());
        let [early, late] = [(); 2].map(|()| insert(&tasks, "acme").expect("a task"));
        let progress = Progress(Some(early.clone()));
        assert!(!progress.is_cancelled() && progress.check().is_ok());
        assert_eq!(progress.unless_cancelled(async { Ok(1) }).await.expect("not cancelled"), 1);
        assert!(tasks.cancel(early.id).expect("known").is_cancel_requested);
        tasks.cancel(late.id);
        assert_eq!(progress.check().expect_err("cancelled").code, ErrorCode::TaskCancelled);
        let stopped = progress.unless_cancelled(std::future::pending::<Result<()>>()).await;
        assert_eq!(stopped.expect_err("cancelled").code, ErrorCode::TaskCancelled);
        assert_eq!(tasks.finish(&early, Ok("1".into())), TaskState::Cancelled, "what was done is its result");
        assert_eq!(tasks.find(early.id).expect("known").result.as_deref(), Some("1"));
        assert_eq!(tasks.finish(&late, Ok("1".into())), TaskState::Done, "it had ended before it looked");
        assert!(tasks.cancel(TaskId::new()).is_none());
        tasks.stop();
        assert_eq!(insert(&tasks, "acme").expect_err("stopped").code, ErrorCode::Busy);
    }
}
