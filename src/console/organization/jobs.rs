//! The processing jobs of an organization: how many are in each state, the list, and one job with its steps.

use futures_util::future::{OptionFuture, join3};
use maud::{Markup, html};
use serde_json::Value;

use super::parts;
use super::roles::{member_link, names_of};
use crate::console::client::op;
use crate::console::components::{self, Column, Field, Kind, Row, Select, State, Step, Tab, Tone};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list;
use crate::console::videos::job_badge;
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Words {
        title: "Jobs", "工作";
        states: "States", "狀態";
        all: "All {}", "全部 {}";
        oldest: "The oldest waiting job was queued", "等待最久的工作排入時間：";
        video: "Video", "影片";
        owner: "Owner", "擁有者";
        state: "State", "狀態";
        attempts: "Failed attempts", "失敗次數";
        queued: "Queued", "排入時間";
        changed: "Changed", "變更時間";
        act: "Action", "操作";
        processor: "Waits for", "等待中的處理";
        again: "Try again", "再試一次";
        again_about: "Queues it with all its attempts. Steps that are done stay done.", "以全新的嘗試次數重新排入，已完成的步驟不會重做。";
        select: "Select the job of {}", "選取 {} 的工作";
        select_first: "Select at least one job first.", "請先選取至少一項工作。";
        one_again: "The job is queued again.", "已重新排入工作。";
        many_again: "{} jobs are queued again.", "已重新排入 {} 項工作。";
        none: "No jobs yet", "還沒有工作";
        none_text: "Each new video queues one job, and a worker takes it. A worker is a program with a key of the site; it asks for jobs like this:", "每部新影片會排入一項工作，由處理程式領取。處理程式使用站台的金鑰，以下列方式領取工作：";
        none_tenant: "Each new video queues one job, and a worker of the site takes it. Only administrators of the site make the key that a worker needs.", "每部新影片會排入一項工作，由站台的處理程式領取。處理程式所需的金鑰只能由站台管理員建立。";
        no_worker_tenant: "Jobs wait, and no worker runs one. Ask an administrator of the site: only they make the key that a worker needs.", "有工作等待中，但沒有處理程式在執行。請聯絡站台管理員：處理程式所需的金鑰只能由他們建立。";
        none_fit: "No job fits", "沒有符合的工作";
        none_fit_text: "Choose another state, or show all.", "請選擇其他狀態，或顯示全部。";
        show_all: "Show all", "顯示全部";
        no_worker: "Jobs wait, and no worker runs one. A worker asks for jobs like this:", "有工作等待中，但沒有處理程式在執行。處理程式以下列方式領取工作：";
        one: "Job of {}", "{} 的工作";
        all_jobs: "All jobs", "所有工作";
        id: "Id", "編號";
        kind: "Kind", "種類";
        next: "Not before", "最早執行時間";
        lease: "A worker has it until", "處理程式持有至";
        steps: "Steps", "步驟";
        error: "The last failure, in the words of the worker", "處理程式回報的最後一次失敗";
        held_text: "It is on hold until its member and organization are active again.", "在成員與組織恢復啟用前，這項工作會暫停。";
    }
}

const STATES: [&str; 5] = ["queued", "leased", "held", "done", "dead"];
const PROCESSORS: [&str; 6] = ["asr", "cut", "yolo", "ocr", "face", "pose"];
/// How often the page of a job that is not finished asks again.
const POLL_MS: u32 = 3_000;

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn moment(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

/// Shows the jobs of a state, or all.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}).await?.into())
}

async fn page(visit: &Visit, above: Markup) -> Result<Content> {
    let t = Words::of(visit.language);
    let state = visit.query("state").filter(|state| STATES.contains(state));
    let processor = visit.query("processor").filter(|name| PROCESSORS.contains(name));
    let call = list::paged(visit, op("list_jobs")).query_some("state", state).query_some("processor", processor);
    let oldest = op("list_jobs").query("state", "queued").query("sort", "created_at").query("limit", 1);
    let (found, counts, oldest) = join3(visit.call(call), visit.find(op("count_jobs")), visit.find(oldest)).await;
    let found = found?.data;
    let oldest = oldest.as_ref().and_then(|oldest| list::items(oldest).first());
    let count = |state: &str| counts.as_ref().map_or(0, |counts| counts[state].as_u64().unwrap_or_default());
    let is_idle = count("queued") > 0 && count("leased") == 0;
    // Only the site makes keys for workers.
    let is_of_site = visit.is_of_platform();
    let is_filtered = state.is_some() || processor.is_some() || list::offset(visit) > 0;
    let shown = if !list::items(&found).is_empty() {
        html! { (table(visit, t, &found).await) (list::pager(visit, &found)) }
    } else if is_filtered {
        let all = components::link_button(&visit.here(), t.show_all);
        components::empty(t.none_fit, t.none_fit_text, Some(all))
    } else {
        let text = if is_of_site { t.none_text } else { t.none_tenant };
        html! { (components::empty(t.none, text, None)) @if is_of_site { (worker_command(visit)) } }
    };
    let body = html! {
        (above)
        @if let Some(counts) = &counts { (state_tabs(visit, t, counts, state)) }
        @if let Some(oldest) = oldest { p { (t.oldest) " " (components::time_ago(moment(oldest, "created_at"))) } }
        (filters(visit, t, processor))
        (components::region("jobs", None, shown))
        @if is_idle && is_of_site { p { (t.no_worker) } (worker_command(visit)) }
        @else if is_idle { p { (t.no_worker_tenant) } }
    };
    Ok(Content::new(t.title, body))
}

fn state_tabs(visit: &Visit, t: &Words, counts: &Value, present: Option<&str>) -> Markup {
    let number = |state: &str| counts[state].as_u64().unwrap_or_default();
    let total: u64 = STATES.into_iter().map(number).sum();
    let text = |state: &str| match state {
        "" => fill(t.all, &[&list::grouped(total)]),
        state => format!("{} {}", fields::value(state, visit.language), list::grouped(number(state))),
    };
    let all: Vec<(&str, String)> = std::iter::once("").chain(STATES).map(|state| (state, text(state))).collect();
    let tabs: Vec<Tab<'_>> = all
        .iter()
        .map(|(state, text)| Tab {
            href: visit.with_query(&[("state", state), ("offset", "")]),
            text,
            is_current: present.unwrap_or_default() == *state,
        })
        .collect();
    components::tabs(t.states, &tabs)
}

fn filters(visit: &Visit, t: &Words, processor: Option<&str>) -> Markup {
    let texts = PROCESSORS.map(|name| (name, fields::value(name, visit.language)));
    let options: Vec<(&str, &str)> = std::iter::once(("", visit.frame().all))
        .chain(texts.iter().map(|(name, text)| (*name, text.as_str())))
        .collect();
    let about = Field::new("processor", t.processor);
    let select =
        Select { name: "processor", options: &options, chosen: processor.unwrap_or_default(), is_required: false };
    let inner = html! {
        (components::field(&about, components::select_input(&about, &select)))
        @if let Some(state) = visit.query("state") { (components::hidden_input("state", state)) }
        (list::kept(visit))
    };
    components::filter_bar(&visit.here(), Some("jobs"), inner, visit.frame().filter)
}

/// How a worker asks for a job.
fn worker_command(visit: &Visit) -> Markup {
    let address = format!("{}{}", visit.public_url(), visit.config().base_path);
    let command = format!(
        "WORKER=…   # roster key create worker --service gpu-1 --scopes jobs:write\n\
         curl -s {address}/jobs/claim -H \"X-API-Key: $WORKER\" -H 'Content-Type: application/json' \\\n  \
         -d '{{\"processors\":[\"asr\",\"cut\"],\"count\":1,\"wait_s\":30}}'"
    );
    components::copyable_block(&command, visit.frame().copy, visit.frame().copied)
}

async fn table(visit: &Visit, t: &Words, found: &Value) -> Markup {
    let jobs = list::items(found);
    let mut uids: Vec<&str> = jobs.iter().filter_map(|job| job["member_id"].as_str()).collect();
    uids.sort_unstable();
    uids.dedup();
    let names = names_of(visit, &uids).await;
    let can_retry = visit.may("retry_job") && jobs.iter().any(|job| job["state"] == "dead");
    let can_open = visit.may("get_job");
    let mut columns = vec![
        Column::new(t.video),
        Column::new(t.owner),
        Column::new(t.state),
        Column::number(t.attempts),
        Column::new(t.queued),
    ];
    if can_retry {
        columns.push(Column::new(t.act));
    }
    let row = |job: &Value| {
        let (id, path) = (text(job, "id"), text(job, "path"));
        let uid = text(job, "member_id");
        let is_offered = can_retry && job["state"] == "dead";
        let mut cells = vec![
            html! { (path) },
            html! { @if names.contains_key(uid) { (member_link(visit, uid, &names)) } @else { span class="quiet" { "–" } } },
            state(visit, job),
            html! { (job["attempts"].as_i64().unwrap_or_default()) },
            components::time_ago(moment(job, "created_at")),
        ];
        if can_retry {
            let button = is_offered.then(|| components::menu_act(parts::SELECTED, "retry", id, t.again));
            cells.push(html! { @if let Some(button) = button { (button) } });
        }
        Row {
            cells,
            href: can_open.then(|| visit.in_organization(&format!("jobs/{id}"))),
            select: is_offered.then(|| parts::select(id, fill(t.select, &[&path]))),
            ..Row::default()
        }
    };
    html! {
        (components::table(t.title, &columns, jobs.iter().map(row).collect()))
        @if can_retry {
            (parts::bar(visit, &visit.with_query(&[]), components::button_named("act", "retry", t.again, Kind::Plain)))
        }
    }
}

/// The state, and why the last attempt failed.
fn state(visit: &Visit, job: &Value) -> Markup {
    let error = job["last_error"].as_str().filter(|_| job["state"] != "done");
    html! {
        (job_badge(visit, Some(job)))
        @if let Some(error) = error { p { (shortened(error)) } }
    }
}

/// The beginning of a failure, for lists.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 120;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The jobs of one video, for its page.
pub fn table_of_video(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let columns = [Column::new(t.queued), Column::new(t.state), Column::number(t.attempts)];
    let can_open = visit.may("get_job");
    let row = |job: &Value| Row {
        cells: vec![
            components::time(moment(job, "created_at")),
            state(visit, job),
            html! { (job["attempts"].as_i64().unwrap_or_default()) },
        ],
        href: can_open.then(|| visit.in_organization(&format!("jobs/{}", text(job, "id")))),
        ..Row::default()
    };
    components::table(t.title, &columns, list::items(found).iter().map(row).collect())
}

/// Queues dead jobs again.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let (act, ids) = parts::chosen(visit)?;
    if act != "retry" {
        return Err(ErrorCode::BadInput.into());
    }
    if ids.is_empty() {
        let above = components::notice(Tone::Bad, t.select_first, None);
        return Ok(page(visit, above).await?.status_of(&ErrorCode::BadInput.into()).into());
    }
    let outcomes = parts::perform(visit, &ids, |id| op("retry_job").at(id)).await?;
    let refused = outcomes.refused.first();
    match (outcomes.done.len(), refused) {
        (1, None) => visit.done(parts::back(visit), t.one_again),
        (count, None) => visit.done(parts::back(visit), fill(t.many_again, &[&count])),
        (0, Some((_, error))) => Ok(page(visit, parts::refusals(visit, &outcomes)).await?.status_of(error).into()),
        _ => Ok(page(visit, parts::refusals(visit, &outcomes)).await?.into()),
    }
}

/// Shows one job.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(one(visit, html! {}).await?.into())
}

async fn one(visit: &Visit, above: Markup) -> Result<Content> {
    let t = Words::of(visit.language);
    let job = visit.call(op("get_job").at(visit.path("id"))).await?.data;
    let owner = job["member_id"].as_str();
    let names = OptionFuture::from(owner.map(|uid| async move { names_of(visit, &[uid]).await })).await;
    let names = names.unwrap_or_default();
    let path = text(&job, "path");
    let (state, is_open) = (text(&job, "state"), ["queued", "leased"].contains(&text(&job, "state")));
    let video = visit.in_organization(&format!("videos/{}", text(&job, "video_id")));
    let mut facts = vec![
        (t.state, job_badge(visit, Some(&job))),
        (t.video, html! { @if visit.may("get_video") { a href=(video) { (path) } } @else { (path) } }),
        (t.owner, html! { @if let Some(uid) = owner { (member_link(visit, uid, &names)) } @else { "–" } }),
        (t.attempts, html! { (moment(&job, "attempts")) }),
        (t.queued, components::time(moment(&job, "created_at"))),
        (t.changed, components::time(moment(&job, "updated_at"))),
    ];
    match (state, job["leased_until"].as_i64()) {
        ("leased", Some(until)) => facts.push((t.lease, components::time(until))),
        ("queued", _) => facts.push((t.next, components::time(moment(&job, "run_at")))),
        _ => {}
    }
    facts.push((t.kind, html! { code { (text(&job, "kind")) } }));
    facts.push((t.id, components::copyable(text(&job, "id"), visit.frame().copy, visit.frame().copied)));
    let shown = html! {
        (components::facts(&facts))
        @if state == "held" { p { (t.held_text) } }
        @if let Some(error) = job["last_error"].as_str() { h2 { (t.error) } pre tabindex="0" { code { (error) } } }
        h2 { (t.steps) }
        (steps(visit, &job))
    };
    let body = html! {
        (above)
        (components::region("job", is_open.then_some(POLL_MS), shown))
        @if state == "dead" && visit.may("retry_job") { (parts::act_form(visit, "retry", t.again, t.again_about)) }
    };
    let all = components::link_button(&visit.in_organization("jobs"), t.all_jobs);
    let name = path.rsplit('/').next().unwrap_or(path);
    Ok(Content::new(fill(t.one, &[&name]), body).actions(all))
}

fn steps(visit: &Visit, job: &Value) -> Markup {
    let texts: Vec<(&Value, String, String)> = job["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            let value = |key: &str| fields::value(text(step, key), visit.language);
            (step, value("processor"), value("state"))
        })
        .collect();
    let steps: Vec<Step<'_>> = texts
        .iter()
        .map(|(step, name, shown)| Step {
            text: name,
            state: match text(step, "state") {
                "completed" => State::Done,
                "running" => State::Current,
                "failed" => State::Failed,
                "skipped" => State::Skipped,
                _ => State::Waiting,
            },
            state_text: shown,
            note: note(step),
            href: None,
        })
        .collect();
    components::rail(&steps)
}

/// What stands below a step: its failure, or how far it is.
fn note(step: &Value) -> Option<String> {
    match (text(step, "state"), step["error"].as_str()) {
        ("running", _) => Some(format!("{} %", moment(step, "progress_percent"))),
        (_, error) => error.map(shortened),
    }
}

/// Queues the job again.
pub async fn act_on_one(visit: &Visit) -> Result<View> {
    let id = visit.path("id");
    if visit.submitted("act") != Some("retry") {
        return Err(ErrorCode::BadInput.into());
    }
    match visit.call(op("retry_job").at(id)).await {
        Ok(_) => visit.done(visit.of_organization(&format!("jobs/{id}")), Words::of(visit.language).one_again),
        Err(error) if is_of_form(&error) => {
            let above = components::notice(Tone::Bad, &errors::sentence(&error, visit.language), None);
            Ok(one(visit, above).await?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn long_failures_are_shortened_between_characters() {
        assert_eq!(shortened("no sound"), "no sound");
        let long = "影".repeat(121);
        assert_eq!(shortened(&long), format!("{}…", "影".repeat(120)));
    }
}
