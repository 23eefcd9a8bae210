//! Videos that exist already: files below the media root become videos, and videos without an owner get the members whose
//! folders they are in.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{Above, HERE, once, page, results, to_task};
use crate::console::client::op;
use crate::console::components::{self, Field, Kind, Text};
use crate::console::form::{self, ONCE};
use crate::console::i18n::{fill, words};
use crate::console::list::grouped;
use crate::console::visit::{View, Visit, is_of_form};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Words {
        about: "Files below the media root become videos of the members in whose folders they are. Files in other folders become videos without an owner. Importing again adds only what is new.", "媒體根目錄下的檔案會成為該資料夾成員的影片；其他資料夾中的檔案會成為沒有擁有者的影片。重複匯入只會加入新的檔案。";
        limit: "One import reads at most {} files. Existing files are counted whether or not they fit in the quota.", "一次匯入最多讀取 {} 個檔案。已存在的檔案不論是否超過配額都會計入。";
        no_root: "No media root is set. Put its folder into roster.toml and restart:", "尚未設定媒體根目錄。請在 roster.toml 設定資料夾後重新啟動：";
        folder: "Only this folder", "只匯入這個資料夾";
        folder_hint: "Below the media root, such as kim. Empty imports all of it.", "媒體根目錄下的資料夾，例如 kim；留空代表全部。";
        after: "Go on after this file", "從這個檔案之後繼續";
        check: "Look first", "先查看";
        import: "Import the files", "匯入檔案";
        looked: "What the import would do", "匯入後的結果";
        looked_first: "Only the first {} files were looked at; the import reads all of them.", "只查看了前 {} 個檔案；匯入時會讀取全部。";
        claim_title: "Videos without an owner", "沒有擁有者的影片";
        claim_about: "Gives them to the members whose folders they are in now, for example after members were imported.", "將影片歸給目前使用該資料夾的成員，例如匯入成員之後。";
        claim: "Assign them", "歸還擁有者";
    }
}

/// The most files that are looked at before an import.
const LOOKED_MAX: u64 = 20_000;

/// The forms of both operations.
pub(super) fn forms(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    if visit.config().media_root.as_os_str().is_empty() {
        let frame = visit.frame();
        return html! {
            p { (t.no_root) }
            (components::copyable_block("media_root = \"/srv/media\"", frame.copy, frame.copied))
        };
    }
    html! {
        @if visit.may("import_videos") {
            p { (t.about) }
            p class="hint" { (fill(t.limit, &[&grouped(visit.config().import_files_max)])) }
            (import_form(visit))
        }
        @if visit.may("claim_videos") {
            h3 { (t.claim_title) }
            p { (t.claim_about) }
            form method="post" action=(visit.here()) {
                (once())
                (components::actions(html! {
                    (components::button_named("act", "claim_check", t.check, Kind::Plain))
                    (components::button_named("act", "claim", t.claim, Kind::Plain))
                }))
            }
        }
    }
}

fn import_form(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let folder = Field::new("prefix", t.folder).mark(visit.frame().optional).hint(t.folder_hint);
    let text = |name, value| Text { name, value, maxlength: Some(4_096), autocomplete: Some("off"), ..Text::default() };
    let value = |name: &str| visit.submitted(name).or_else(|| visit.query(name)).map(str::to_owned);
    let (prefix, after) = (value("prefix").unwrap_or_default(), value("after"));
    let is_queued = visit.submitted("queue_jobs.shown").is_none() || visit.submitted("queue_jobs").is_some();
    let queue = crate::console::i18n::fields::label("queue_jobs", visit.language);
    html! {
        form method="post" action=(visit.here()) {
            (components::text_field(&folder, &text("prefix", prefix.as_str())))
            @if let Some(after) = &after {
                (components::text_field(&Field::new("after", t.after), &text("after", after.as_str())))
            }
            (components::checkbox(&Field::new("queue_jobs", &queue), "queue_jobs", "true", is_queued))
            (components::hidden_input("queue_jobs.shown", "1"))
            (once())
            (components::actions(html! {
                (components::button_named("act", "videos_check", t.check, Kind::Main))
                (components::button_named("act", "videos", t.import, Kind::Plain))
            }))
        }
    }
}

/// Looks or imports, looks at or assigns videos without an owner.
pub(super) async fn act(visit: &Visit) -> Result<View> {
    let done = match visit.submitted("act") {
        Some("videos_check") => look(visit).await,
        Some("videos") => start(visit).await,
        Some("claim_check") => claim(visit, true).await,
        Some("claim") => claim(visit, false).await,
        _ => Err(ErrorCode::BadInput.into()),
    };
    match done {
        Err(error) if is_of_form(&error) => Ok(page(visit, &Above::Refused(&error)).into()),
        done => done,
    }
}

/// The body of the import.
fn request(visit: &Visit) -> Result<Value> {
    let mut body = form::read(visit.operation("import_videos")?, visit);
    if let Some(sent) = body.as_object_mut() {
        sent.retain(|name, value| ["prefix", "after", "queue_jobs"].contains(&name.as_str()) && !value.is_null());
    }
    Ok(body)
}

/// Starts the import, and leads to its progress.
async fn start(visit: &Visit) -> Result<View> {
    let call = op("import_videos").query("background", true).body(&request(visit)?);
    Ok(to_task(&visit.call(call.once(visit.submitted(ONCE))).await?.data))
}

/// Assigns the videos without an owner, or shows what would happen.
async fn claim(visit: &Visit, is_dry_run: bool) -> Result<View> {
    let t = Words::of(visit.language);
    let found = visit.call(op("claim_videos").body(&json!({"dry_run": is_dry_run}))).await?.data;
    let result = components::card(t.claim_title, results::claimed_videos(visit, &found));
    Ok(page(visit, &Above::Result(result)).into())
}

/// Shows what the import would do with the first files.
async fn look(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let mut body = request(visit)?;
    (body["dry_run"], body["limit"]) = (json!(true), json!(LOOKED_MAX));
    let found = visit.call(op("import_videos").body(&body)).await?.data;
    let is_new = found["imported"].as_u64().is_some_and(|count| count > 0);
    let result = html! {
        (results::videos_counts(visit, &found))
        @if !found["next"].is_null() { p class="hint" { (fill(t.looked_first, &[&grouped(LOOKED_MAX)])) } }
        @if is_new || !found["next"].is_null() {
            form method="post" action=(visit.href(HERE)) {
                @for name in ["prefix", "after", "queue_jobs", "queue_jobs.shown"] {
                    @if let Some(value) = visit.submitted(name) { (components::hidden_input(name, value)) }
                }
                (once())
                (components::actions(components::button_named("act", "videos", t.import, Kind::Main)))
            }
        }
    };
    Ok(page(visit, &Above::Result(components::card(t.looked, result))).into())
}
