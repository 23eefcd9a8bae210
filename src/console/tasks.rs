//! Work in the background on pages: the list of tasks, and one task with its steps, counts, result and the button that
//! stops it. The pages of a member and of the site show the same.

use std::collections::HashMap;

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::Value;

use super::client::op;
use super::components::{
    self, Column, Kind, Row, State, Step, Tone, badge, button_named, card, facts, notice, rail, time, time_ago,
};
use super::i18n::{errors, fields, fill, words};
use super::list::{self, grouped, items};
use super::organization::members::name_of;
use super::visit::{Content, View, Visit};
use super::{organization, site};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Tasks {
        title: "Tasks", "背景工作";
        about: "Imports, uploads and checks that go on in the background. They survive leaving the page. Finished ones stay here for a while, and a restart of the server forgets all.", "在背景進行的匯入、上傳與檢查，離開頁面也會繼續。完成後會保留一段時間，伺服器重新啟動後全部清除。";
        none: "No tasks", "沒有背景工作";
        none_text: "An import, an upload of a plugin or a check appears here as soon as it begins.", "匯入、上傳外掛或檢查開始後會顯示在這裡。";
        task: "Task", "工作";
        state: "State", "狀態";
        progress: "Progress", "進度";
        by: "Started by", "發起者";
        began: "Began", "開始";
        ended: "Ended", "結束";
        organization: "Organization", "組織";
        took: "Took", "耗時";
        stopping: "Stops at its next step", "將在下一步停止";
        cancel: "Cancel", "取消工作";
        cancel_asked: "The task stops at its next step. What it has done stays.", "工作將在下一步停止，已完成的部分會保留。";
        of_total: "{} of {}", "{} / {}";
        done_only: "{} so far", "目前 {}";
        in_ms: "{} ms", "{} 毫秒";
        result: "Result", "結果";
        result_partial: "What was done until then", "結束前已完成的部分";
        result_gone: "The task is done. Its result is too long to be kept.", "工作已完成，但結果過長，未予保留。";
        result_hidden: "The outcome is not shown, because you do not hold the permission that this task needs.", "您沒有這項工作所需的權限，因此不顯示結果與錯誤。";
        cancelled: "The task was cancelled. What was done until then stays.", "工作已取消，先前完成的部分會保留。";
        all: "All tasks", "所有工作";
        gone_title: "This task is not known any more", "已經沒有這項工作的紀錄";
        gone_text: "Finished tasks are kept for a while only, and a restart of the server forgets all. What a task has changed stays.", "完成的工作只保留一段時間，伺服器重新啟動後全部清除。工作所做的變更仍然有效。";
        step_done: "done", "完成";
        step_running: "running", "進行中";
        step_failed: "failed", "失敗";
        step_stopped: "stopped", "已停止";
        step_waiting: "waiting", "等待中";
        step_skipped: "not run", "未執行";
        upload_plugin: "Upload of a plugin", "上傳外掛";
        import_users: "Import of members", "匯入成員";
        import_videos: "Import of videos", "匯入影片";
        sync_wordpress: "Comparison with WordPress", "與 WordPress 比對";
        reconcile_sftpgo: "Reconciliation with SFTPGo", "與 SFTPGo 比對";
        recount_quotas: "Recount of the usage", "重新計算用量";
        verify_audit: "Verification of the audit log", "驗證稽核紀錄";
        received: "Received", "已收到";
        component: "A component", "是元件";
        interfaces: "Imports and exports", "匯入與匯出";
        structure: "Structure", "結構";
        compiled: "Compiled", "編譯";
        started: "Started", "啟動";
        vectors: "Test vectors", "測試向量";
        rows: "Rows", "資料列";
        files: "Files", "檔案";
        accounts: "Accounts", "帳號";
        members: "Members", "成員";
        entries: "Entries", "紀錄";
    }
}

/// How often a page asks again while a task runs.
const POLL_MS: u32 = 1_000;
const LIST_POLL_MS: u32 = 3_000;
/// The same without script.
const REFRESH_S: u32 = 2;
/// The most members whose names a page asks for; the others are shown by their ids.
const NAMES_MAX: usize = 6;

/// Whose tasks a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Own,
    Site,
}

impl Whose {
    /// The address of the list.
    const fn address(self) -> &'static str {
        match self {
            Self::Own => "/console/me/tasks",
            Self::Site => "/console/site/tasks",
        }
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

impl Tasks {
    fn operation(&self, task: &Value) -> String {
        let known = match text(task, "operation") {
            "upload_plugin" => self.upload_plugin,
            "import_users" => self.import_users,
            "import_videos" => self.import_videos,
            "sync_wordpress" => self.sync_wordpress,
            "reconcile_sftpgo" => self.reconcile_sftpgo,
            "recount_quotas" => self.recount_quotas,
            "verify_audit" => self.verify_audit,
            other => other,
        };
        known.to_owned()
    }

    fn step<'t>(&'t self, name: &'t str) -> &'t str {
        match name {
            "received" => self.received,
            "component" => self.component,
            "interfaces" => self.interfaces,
            "structure" => self.structure,
            "compiled" => self.compiled,
            "started" => self.started,
            "vectors" => self.vectors,
            "rows" => self.rows,
            "files" => self.files,
            "accounts" => self.accounts,
            "members" => self.members,
            "entries" => self.entries,
            other => other,
        }
    }
}

/// The list of tasks.
pub(super) async fn list(visit: &Visit, whose: Whose) -> Result<View> {
    let t = Tasks::of(visit.language);
    let call = list::paged(visit, op("list_tasks")).query("own", whose == Whose::Own);
    let found = visit.call(call).await?.data;
    let is_running = items(&found).iter().any(|task| task["state"] == "running");
    let names = names(visit, whose, items(&found)).await;
    let inner = html! {
        @if items(&found).is_empty() {
            (components::empty(t.none, t.none_text, None))
        } @else {
            (table(visit, t, whose, (items(&found), &names)))
            (list::pager(visit, &found))
        }
    };
    let body = html! {
        p { (t.about) }
        (components::region("tasks", is_running.then_some(LIST_POLL_MS), inner))
    };
    Ok(Content { refresh_s: is_running.then_some(REFRESH_S), ..Content::new(t.title, body) }.into())
}

fn table(visit: &Visit, t: &Tasks, whose: Whose, (tasks, names): (&[Value], &Names)) -> Markup {
    let mut columns = vec![Column::new(t.task), Column::new(t.state), Column::number(t.progress)];
    if whose == Whose::Site {
        columns.push(Column::new(t.by));
    }
    columns.push(Column::new(t.began));
    let row = |task: &Value| {
        let mut cells = vec![
            html! { (t.operation(task)) },
            state(visit, task),
            html! { (counts(t, &task["done"], &task["total"])) },
        ];
        if whose == Whose::Site {
            cells.push(actor(visit, task, names));
        }
        cells.push(time_ago(task["created_at"].as_i64().unwrap_or_default()));
        Row { cells, href: Some(visit.href(&format!("{}/{}", whose.address(), text(task, "id")))), ..Row::default() }
    };
    components::table(t.title, &columns, tasks.iter().map(row).collect())
}

fn state(visit: &Visit, task: &Value) -> Markup {
    let tone = match text(task, "state") {
        "done" => Tone::Ok,
        "failed" => Tone::Bad,
        "cancelled" => Tone::Warn,
        _ => Tone::Plain,
    };
    badge(tone, &fields::value(text(task, "state"), visit.language))
}

/// The names of members by their ids.
type Names = HashMap<String, String>;

/// The names of the members who started these tasks, as far as the page shows them and the visitor may see them.
async fn names(visit: &Visit, whose: Whose, tasks: &[Value]) -> Names {
    let mut members: Vec<&str> = Vec::new();
    for task in tasks.iter().filter(|task| whose == Whose::Site && text(task, "actor_kind") == "member") {
        if members.len() < NAMES_MAX && !members.contains(&text(task, "actor")) {
            members.push(text(task, "actor"));
        }
    }
    let found = join_all(members.iter().map(|uid| visit.find(op("get_user").at(uid)))).await;
    let named = members.into_iter().zip(found);
    named.filter_map(|(uid, user)| Some((uid.to_owned(), name_of(&user?).to_owned()))).collect()
}

/// Who started a task: a member by name if it is known, with a link.
fn actor(visit: &Visit, task: &Value, names: &Names) -> Markup {
    let (kind, id) = (text(task, "actor_kind"), text(task, "actor"));
    let kind_text = fields::value(kind, visit.language);
    match names.get(id) {
        Some(name) => html! { a href=(visit.href(&format!("/console/site/members/{id}"))) { (name) } },
        None if id == kind => html! { (kind_text) },
        None => html! { (kind_text) " " code { (id) } },
    }
}

/// "340 of 1,000", or "340 so far" if the end is not known; empty if there is nothing to count.
fn counts(t: &Tasks, done: &Value, total: &Value) -> String {
    let done = done.as_u64().unwrap_or_default();
    match total.as_u64() {
        Some(0) => String::new(),
        Some(total) => fill(t.of_total, &[&grouped(done), &grouped(total)]),
        None if done > 0 => fill(t.done_only, &[&grouped(done)]),
        None => String::new(),
    }
}

/// One task: while it runs, it asks again.
pub(super) async fn one(visit: &Visit, whose: Whose) -> Result<View> {
    let t = Tasks::of(visit.language);
    let task = match visit.call(op("get_task").at(visit.path("id"))).await {
        Ok(answer) => answer.data,
        Err(error) if error.code == ErrorCode::TaskNotFound => return Ok(gone(visit, t, whose, &error).into()),
        Err(error) => return Err(error),
    };
    let is_running = task["state"] == "running";
    let names = names(visit, whose, std::slice::from_ref(&task)).await;
    let body = html! {
        (components::region("task", is_running.then_some(POLL_MS), shown(visit, t, whose, (&task, &names))))
        p { a href=(visit.href(whose.address())) { (t.all) } }
    };
    let content = Content::new(t.operation(&task), body);
    Ok(Content { refresh_s: is_running.then_some(REFRESH_S), ..content }.into())
}

fn gone(visit: &Visit, t: &Tasks, whose: Whose, error: &Error) -> Content {
    let link = components::link_button(&visit.href(whose.address()), t.all);
    Content::new(t.gone_title, html! { p { (t.gone_text) } (components::actions(link)) }).status_of(error)
}

fn shown(visit: &Visit, t: &Tasks, whose: Whose, (task, names): (&Value, &Names)) -> Markup {
    let steps = task["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let is_running = task["state"] == "running";
    html! {
        p { (state(visit, task)) @if is_running && task["cancel_requested"] == true { " " (t.stopping) } }
        @if steps.len() > 1 { (rail(&steps.iter().map(|step| rail_step(t, task, step)).collect::<Vec<_>>())) }
        @else if let Some(step) = steps.first() { (bar(t, t.step(text(step, "name")), step)) }
        @if is_running && task["cancel_requested"] != true {
            form method="post" action=(visit.href(&format!("{}/{}", whose.address(), text(task, "id")))) {
                (button_named("act", "cancel", t.cancel, Kind::Plain))
            }
        }
        @if !is_running { (outcome(visit, t, task)) }
        (about(visit, t, whose, (task, names)))
    }
}

fn bar(t: &Tasks, label: &str, step: &Value) -> Markup {
    let text = counts(t, &step["done"], &step["total"]);
    components::progress(label, step["done"].as_u64().unwrap_or_default(), step["total"].as_u64(), &text)
}

fn rail_step<'t>(t: &'t Tasks, task: &Value, step: &'t Value) -> Step<'t> {
    let name = text(step, "name");
    let is_current = task["step"].as_str() == Some(name);
    let (state, state_text) = match (text(task, "state"), is_current, step["ms"].as_u64()) {
        (_, _, Some(_)) => (State::Done, t.step_done),
        ("running", true, None) => (State::Current, t.step_running),
        ("failed", true, None) => (State::Failed, t.step_failed),
        (_, true, None) => (State::Failed, t.step_stopped),
        ("running", false, None) => (State::Waiting, t.step_waiting),
        (_, false, None) => (State::Skipped, t.step_skipped),
    };
    let took = step["ms"].as_u64().map(|ms| fill(t.in_ms, &[&grouped(ms)]));
    let counted = Some(counts(t, &step["done"], &step["total"])).filter(|text| !text.is_empty());
    let note: Vec<String> = counted.into_iter().chain(took).collect();
    let note = Some(note.join(" · ")).filter(|note| !note.is_empty());
    Step { text: t.step(name), state, state_text, note, href: None }
}

/// Who started it, and when.
fn about(visit: &Visit, t: &Tasks, whose: Whose, (task, names): (&Value, &Names)) -> Markup {
    let (began, ended) = (task["created_at"].as_i64().unwrap_or_default(), task["finished_at"].as_i64());
    let organization = visit.code_of(text(task, "organization_id"));
    let mut rows = vec![(t.began, time(began))];
    rows.extend(ended.map(|ended| (t.ended, time(ended))));
    rows.extend(ended.map(|ended| {
        let ms = u64::try_from(ended.saturating_sub(began)).unwrap_or_default();
        (t.took, html! { span class="num" { (fill(t.in_ms, &[&grouped(ms)])) } })
    }));
    rows.extend(organization.map(|code| (t.organization, html! { (code) })));
    if whose == Whose::Site {
        rows.push((t.by, actor(visit, task, names)));
    }
    rows.push((visit.frame().request_id, html! { code { (text(task, "request_id")) } }));
    facts(&rows)
}

/// How it ended.
fn outcome(visit: &Visit, t: &Tasks, task: &Value) -> Markup {
    let (state, has_result) = (text(task, "state"), !task["result"].is_null());
    if task["result_hidden"] == true {
        return html! {
            @if state == "cancelled" { (notice(Tone::Warn, t.cancelled, None)) }
            (notice(Tone::Warn, t.result_hidden, None))
        };
    }
    // The page of plugins says itself why an upload failed, with its cure.
    if text(task, "operation") == "upload_plugin" && (has_result || state != "done") {
        return organization::plugins::task_result(visit, task);
    }
    html! {
        @match state {
            "failed" => (failure(visit, &task["error"])),
            "cancelled" => (notice(Tone::Warn, t.cancelled, None)),
            _ if !has_result => (notice(Tone::Warn, t.result_gone, None)),
            _ => {}
        }
        @if has_result {
            (card(if state == "done" { t.result } else { t.result_partial }, result(visit, task)))
        }
    }
}

fn failure(visit: &Visit, failed: &Value) -> Markup {
    let code = ErrorCode::ALL.iter().find(|code| code.as_str() == text(failed, "error_code"));
    let error =
        Error::new(code.copied().unwrap_or(ErrorCode::Internal)).with_message(text(failed, "message").to_owned());
    notice(Tone::Bad, &errors::sentence(&error, visit.language), None)
}

/// The result, as the pages of its area show it.
fn result(visit: &Visit, task: &Value) -> Markup {
    match text(task, "operation") {
        "import_users" | "import_videos" => site::import::task_result(visit, task),
        "sync_wordpress" | "reconcile_sftpgo" => site::connections::task_result(visit, task),
        "recount_quotas" => site::settings::task_result(visit, task),
        "verify_audit" => organization::audit::task_result(visit, task),
        _ => plain(&task["result"]),
    }
}

/// Names and values of a result without a page of its own.
fn plain(result: &Value) -> Markup {
    let fields = result.as_object().into_iter().flatten();
    let shown = |value: &Value| match value {
        Value::String(text) => html! { (text) },
        Value::Array(list) => html! { span class="num" { (list.len()) } },
        other => html! { code { (other.to_string()) } },
    };
    facts(&fields.map(|(name, value)| (name.replace('_', " "), shown(value))).collect::<Vec<_>>())
}

/// Asks a task to stop.
pub(super) async fn act(visit: &Visit, whose: Whose) -> Result<View> {
    let t = Tasks::of(visit.language);
    if visit.submitted("act") != Some("cancel") {
        return Err(ErrorCode::BadInput.into());
    }
    let task = visit.call(op("cancel_task").at(visit.path("id"))).await?.data;
    let address = format!("{}/{}", whose.address(), text(&task, "id"));
    match text(&task, "state") {
        "running" => visit.done(address, t.cancel_asked),
        _ => Ok(View::Redirect(address, None)),
    }
}
