//! The member's own videos.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::overview::register_command;
use super::{items, moment, part, size, text};
use crate::console::client::{Answer, op};
use crate::console::components::{self, Column, Confirm, Kind, Menu, Row};
use crate::console::form;
use crate::console::i18n::{fill, words};
use crate::console::list;
use crate::console::videos::{self, Transferred, job_badge};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Videos {
        title: "Videos", "影片";
        empty: "Nothing stored yet", "尚未儲存任何內容";
        empty_text: "Put a file into your folder, which is named like your username, and register it with an API key:", "將檔案放進以您的使用者名稱命名的資料夾，再以 API 金鑰登錄：";
        no_folder_text: "You have no username, and so no folder for videos. Ask an administrator of your organization for one.", "您沒有使用者名稱，因此還沒有存放影片的資料夾。請向組織的管理員申請。";
        make_key: "Create an API key", "建立 API 金鑰";
        none_found: "No video has this in its path", "沒有路徑符合的影片";
        none_found_text: "Search for another part of the path.", "請改搜尋路徑的其他部分。";
        show_all: "Show all", "顯示全部";
        file: "File", "檔案";
        size: "Size", "大小";
        job: "Processing", "處理狀態";
        added: "Added", "加入時間";
        more: "More about {}", "{} 的更多動作";
        transfer: "Transfer", "移轉";
        transfer_title: "Transfer {}", "移轉 {}";
        transfer_text: "It then counts against the quota of the new owner ({} now with you). The file stays where it is, and you cannot take it back yourself.", "之後會計入新擁有者的配額（目前在您名下 {}）。檔案位置不變，您無法自行取回。";
        transferred: "{} is transferred.", "已移轉 {}。";
        delete: "Delete", "刪除";
        delete_title: "Delete {}", "刪除 {}";
        delete_frees: "{} of your quota become free.", "您的配額會釋出 {}。";
        delete_jobs: "Its processing is stopped, and what was found out about it is no longer linked.", "相關的處理會停止，結果也不再連結到這部影片。";
        delete_file: "The file itself stays on the disk. It can be registered again.", "檔案本身仍保留在磁碟上，可以重新登錄。";
        deleted: "{} is deleted.", "已刪除 {}。";
    }
}

pub async fn list(visit: &Visit) -> Result<View> {
    let t = Videos::of(visit.language);
    if let Some(id) = visit.query("transfer") {
        let video = visit.call(op("get_video").at(id)).await?;
        return Ok(transfer_form(visit, t, &video, None).into());
    }
    if let Some(id) = visit.query("delete") {
        let video = visit.call(op("get_video").at(id)).await?;
        return Ok(confirm_delete(visit, t, &video).into());
    }
    let call = op("list_videos").query("member", visit.uid()).query_some("keyword", visit.query("keyword"));
    let call = list::paged(visit, call).query_some("sort", visit.query("sort"));
    // The newest jobs: those of the newest videos. Older videos are long done.
    let jobs = op("list_jobs").query("member", visit.uid()).query("limit", 200);
    let (found, jobs) = join(visit.call(call), part(visit, jobs)).await;
    let found = found?.data;
    let region = html! {
        @if items(&found).is_empty() { (empty(visit, t)) }
        @else {
            (components::table(t.title, &columns(visit, t), items(&found).iter().map(|video| row(visit, t, video, jobs.as_ref())).collect()))
            (list::pager(visit, &found))
        }
    };
    let body = html! {
        @if !items(&found).is_empty() || visit.query("keyword").is_some() {
            (components::filter_bar(&visit.here(), Some("videos"), html! {
                (components::search_field("keyword", visit.query("keyword").unwrap_or_default(), visit.frame().search))
                (list::kept(visit))
            }, visit.frame().search))
        }
        (components::region("videos", None, region))
    };
    Ok(Content::new(t.title, body).into())
}

fn columns<'t>(visit: &Visit, t: &'t Videos) -> [Column<'t>; 4] {
    let default = "-created_at";
    [
        Column::new(t.file),
        Column { is_number: true, ..list::sorted(visit, t.size, "size", default) },
        list::sorted(visit, t.added, "created_at", default),
        Column::new(t.job),
    ]
}

fn row(visit: &Visit, t: &Videos, video: &Value, jobs: Option<&Value>) -> Row {
    let (id, path) = (text(video, "uuid"), text(video, "path"));
    let job = jobs.and_then(|jobs| items(jobs).iter().find(|job| text(job, "video_id") == id));
    let to = |act: &str| format!("{}?{act}={id}", visit.here());
    let menu = html! {
        (components::link_button_of(&to("transfer"), t.transfer, Kind::Quiet, None))
        (components::link_button_of(&to("delete"), t.delete, Kind::Quiet, None))
    };
    Row {
        cells: vec![
            html! { (path) },
            html! { (size(video, "size")) },
            components::time_ago(moment(video, "created_at")),
            job_badge(visit, job),
        ],
        menu: Some(Menu { label: fill(t.more, &[&path]), items: menu }),
        ..Row::default()
    }
}

fn empty(visit: &Visit, t: &Videos) -> Markup {
    let f = visit.frame();
    if visit.query("keyword").is_some() {
        let all = components::link_button(&visit.here(), t.show_all);
        return components::empty(t.none_found, t.none_found_text, Some(all));
    }
    let Some(command) = register_command(visit) else {
        return components::empty(t.empty, t.no_folder_text, None);
    };
    let key = components::link_button_of(&visit.href("/console/me/keys?new=1"), t.make_key, Kind::Main, None);
    html! {
        (components::empty(t.empty, t.empty_text, Some(key)))
        (components::copyable_block(&command, f.copy, f.copied))
    }
}

fn transfer_form(visit: &Visit, t: &Videos, video: &Answer, error: Option<&Error>) -> Content {
    let form = videos::transfer_form(visit, video, error, None, Some(&visit.here()));
    let body = html! {
        p { (fill(t.transfer_text, &[&size(&video.data, "size")])) }
        (form)
    };
    Content::new(fill(t.transfer_title, &[&text(&video.data, "path")]), body)
}

fn confirm_delete(visit: &Visit, t: &Videos, video: &Answer) -> Content {
    let title = fill(t.delete_title, &[&text(&video.data, "path")]);
    let sentences =
        [fill(t.delete_frees, &[&size(&video.data, "size")]), t.delete_jobs.to_owned(), t.delete_file.to_owned()];
    let body = components::confirm_box(&Confirm {
        title: &title,
        action: &visit.here(),
        what_goes: &sentences,
        typed: None,
        sent: Some(html! {
            (components::hidden_input("act", "delete"))
            (components::hidden_input("id", text(&video.data, "uuid")))
            (components::hidden_input("path", text(&video.data, "path")))
            (components::hidden_input(form::VERSION, video.etag.as_deref().unwrap_or_default()))
        }),
        submit: t.delete,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(title.clone(), body)
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = Videos::of(visit.language);
    let id = visit.submitted("id").unwrap_or_default();
    match visit.submitted("act") {
        Some("transfer") => transfer(visit, t, id).await,
        Some("delete") => {
            visit.call(op("delete_video").at(id).if_match(visit.submitted(form::VERSION))).await?;
            visit.done("/console/me/videos", fill(t.deleted, &[&visit.submitted("path").unwrap_or(id)]))
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn transfer(visit: &Visit, t: &Videos, id: &str) -> Result<View> {
    match videos::transfer(visit, id).await? {
        Transferred::Done(video) => visit.done("/console/me/videos", fill(t.transferred, &[&text(&video, "path")])),
        Transferred::Refused(_, error) => {
            let video = visit.call(op("get_video").at(id)).await?;
            Ok(transfer_form(visit, t, &video, Some(&error)).status_of(&error).into())
        }
    }
}
