//! The videos of an organization: the list with owners, and one video with its jobs, transfer and deletion.

use std::collections::HashMap;

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::jobs;
use super::members::is_shown_in_form;
use super::parts;
use super::roles::{member_link, names_of};
use crate::console::client::{Answer, op};
use crate::console::components::{self, Column, Confirm, Field, Kind, Picker, Row, Tone, Typed};
use crate::console::form::VERSION;
use crate::console::i18n::{errors, fill, words};
use crate::console::list;
use crate::console::me::register_command;
use crate::console::videos::{self, Transferred, job_badge};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::authz::permission::PLATFORM_ORG_CODE;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::units::shown_bytes;

words! {
    Words {
        title: "Videos", "影片";
        search: "Search the path", "搜尋路徑";
        owner: "Owner", "擁有者";
        no_owner: "nobody", "無";
        ownerless: "Only without an owner", "僅顯示沒有擁有者的影片";
        only_of: "Only videos of {}.", "僅顯示 {} 的影片。";
        file: "File", "檔案";
        folder: "Folder", "資料夾";
        size: "Size", "大小";
        processing: "Processing", "處理狀態";
        added: "Added", "加入時間";
        changed: "Changed", "變更時間";
        id: "Id", "編號";
        none: "No videos yet", "還沒有影片";
        none_text: "Members put files into their folders; an upload service, or the member with an API key, registers them.", "成員將檔案放進自己的資料夾，再由上傳服務或成員以 API 金鑰登錄。";
        none_fit: "No video fits", "沒有符合的影片";
        none_fit_text: "Search for another part of the path, or show all.", "請改搜尋路徑的其他部分，或顯示全部。";
        show_all: "Show all", "顯示全部";
        all: "All videos", "所有影片";
        jobs: "Jobs", "工作";
        no_jobs: "It has no jobs: none was queued, or they ended and were cleared away.", "沒有工作：尚未排入，或已結束並清除。";
        transfer: "Transfer to another member", "移轉給其他成員";
        transfer_text: "Its {} then count against the quota of the new owner. The file stays where it is.", "之後 {} 會計入新擁有者的配額，檔案位置不變。";
        transferred: "The video is transferred.", "已移轉影片。";
        missing: "{} uses {} of {}, and this video needs {}: {} are missing.", "{} 已使用 {} / {}，此影片需要 {}，尚缺 {}。";
        to_quota: "Change the quota", "變更配額";
        delete: "Delete", "刪除";
        delete_about: "Takes the video off the list and frees its bytes. The file stays on the disk.", "從清單移除影片並釋出空間，檔案仍保留在磁碟上。";
        delete_title: "Delete {}?", "要刪除 {} 嗎？";
        delete_frees: "{} of the owner's quota become free.", "擁有者的配額會釋出 {}。";
        delete_jobs: "Its jobs are deleted, and their results are no longer linked to it.", "相關的工作會刪除，結果也不再連結到這部影片。";
        delete_file: "The file itself stays on the disk, and can be registered again.", "檔案本身仍保留在磁碟上，可以重新登錄。";
        type_name: "Type the name of the file, {}, to confirm", "請輸入檔名 {} 以確認";
        typed_wrong: "This is not the name of the file.", "與檔名不符。";
        deleted: "{} is deleted.", "已刪除 {}。";
    }
}

/// The most jobs that the list looks at for the state of its videos: the newest.
const JOBS_MAX: usize = 200;

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

/// The folder and the name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The member whose videos are wanted, if the query names one.
fn wanted_owner(visit: &Visit) -> Option<&str> {
    visit.query("member").filter(|text| uuid::Uuid::parse_str(text).is_ok())
}

/// Whether the page is about the videos of the whole site, which can be without an owner.
fn is_platform(visit: &Visit) -> bool {
    visit.organization().is_some_and(|here| here.code == PLATFORM_ORG_CODE)
}

/// Whether only videos without an owner are wanted.
fn ownerless(visit: &Visit) -> Option<&str> {
    visit.query("ownerless").filter(|text| *text == "true" && is_platform(visit))
}

/// The owners of these videos, and the one that is wanted, each once.
fn owners<'v>(visit: &'v Visit, found: &'v Value) -> Vec<&'v str> {
    let of_rows = list::items(found).iter().filter_map(|video| video["uid"].as_str());
    let mut uids: Vec<&str> = of_rows.chain(wanted_owner(visit)).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}

/// Shows the videos that fit the filters.
pub async fn list(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let sort = visit.query("sort").filter(|key| ["created_at", "-created_at", "size", "-size"].contains(key));
    let owner = wanted_owner(visit);
    let call = list::paged(visit, op("list_videos"))
        .query_some("keyword", visit.query("keyword"))
        .query_some("member", owner)
        .query_some("ownerless", ownerless(visit))
        .query_some("sort", sort);
    let jobs = op("list_jobs").query_some("member", owner).query("limit", JOBS_MAX);
    let (found, jobs) = join(visit.call(call), visit.find(jobs)).await;
    let found = found?.data;
    let names = names_of(visit, &owners(visit, &found)).await;
    let is_filtered = ["keyword", "member", "ownerless", "offset"].iter().any(|name| visit.query(name).is_some());
    let show_all = components::link_button(&visit.here(), t.show_all);
    // For members: their own folder is in this organization.
    let own = visit.me()["organizations"].as_array().into_iter().flatten();
    let is_own = visit.organization().is_some_and(|here| own.into_iter().any(|one| one["org_code"] == *here.code));
    let command = register_command(visit).filter(|_| is_own);
    let shown = html! {
        @if let Some(name) = owner.and_then(|uid| names.get(uid)) {
            p { (fill(t.only_of, &[name])) " " a href=(visit.with_query(&[("member", "")])) { (t.show_all) } }
        }
        @if !list::items(&found).is_empty() { (table(visit, &found, jobs.as_ref(), &names)) (list::pager(visit, &found)) }
        @else if is_filtered { (components::empty(t.none_fit, t.none_fit_text, Some(show_all))) }
        @else {
            (components::empty(t.none, t.none_text, None))
            @if let Some(command) = command { (components::copyable_block(&command, visit.frame().copy, visit.frame().copied)) }
        }
    };
    let body = html! { (filters(visit, t)) (components::region("videos", None, shown)) };
    Ok(Content::new(t.title, body).into())
}

fn filters(visit: &Visit, t: &Words) -> Markup {
    let about = Field::new("member", t.owner);
    let from = visit.in_organization("why/members");
    let value = wanted_owner(visit).unwrap_or_default();
    let picker = Picker { name: "member", value, from: &from, is_required: false, placeholder: None };
    let inner = html! {
        (components::search_field("keyword", visit.query("keyword").unwrap_or_default(), t.search))
        @if visit.may("list_users") { (components::field(&about, components::picker_input(&about, &picker))) }
        @if is_platform(visit) {
            (components::checkbox(&Field::new("ownerless", t.ownerless), "ownerless", "true", ownerless(visit).is_some()))
        }
        (list::kept(visit))
    };
    components::filter_bar(&visit.here(), Some("videos"), inner, visit.frame().filter)
}

fn table(visit: &Visit, found: &Value, jobs: Option<&Value>, names: &HashMap<String, String>) -> Markup {
    let t = Words::of(visit.language);
    let default = "-created_at";
    let mut columns = vec![
        Column::new(t.file),
        Column::new(t.owner),
        Column::new(t.folder),
        Column { is_number: true, ..list::sorted(visit, t.size, "size", default) },
        list::sorted(visit, t.added, "created_at", default),
    ];
    if jobs.is_some() {
        columns.push(Column::new(t.processing));
    }
    let can_open = visit.may("get_video");
    let row = |video: &Value| {
        let (folder, name) = split(text(video, "path"));
        let mut cells = vec![
            html! { (name) },
            owner(visit, video, names),
            html! { (folder) },
            html! { (shown_bytes(number(video, "size"))) },
            components::time_ago(number(video, "created_at")),
        ];
        if let Some(jobs) = jobs {
            let job = list::items(jobs).iter().find(|job| job["video_id"] == video["uuid"]);
            cells.push(job_badge(visit, job));
        }
        let href = can_open.then(|| visit.in_organization(&format!("videos/{}", text(video, "uuid"))));
        Row { cells, href, ..Row::default() }
    };
    components::table(t.title, &columns, list::items(found).iter().map(row).collect())
}

/// The owner by name, as a link for those who may see members.
fn owner(visit: &Visit, video: &Value, names: &HashMap<String, String>) -> Markup {
    match video["uid"].as_str() {
        None => html! { span class="quiet" { (Words::of(visit.language).no_owner) } },
        Some(uid) if names.contains_key(uid) => member_link(visit, uid, names),
        Some(uid) => html! { code { (uid.get(..8).unwrap_or(uid)) } },
    }
}

/// Shows one video, or the question before it is deleted.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}, None).await?.into())
}

/// The page of a video below `above`. `refused` is the error of a transfer, and the new owner.
async fn page(visit: &Visit, above: Markup, refused: Option<(&str, &Error)>) -> Result<Content> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let of_video = op("list_jobs").query("video", id).query("limit", 50);
    let (video, of_video) = join(visit.call(op("get_video").at(id)), visit.find(of_video)).await;
    let video = video?;
    let uids: Vec<&str> = video.data["uid"].as_str().into_iter().collect();
    let names = names_of(visit, &uids).await;
    let (folder, name) = split(text(&video.data, "path"));
    let facts = [
        (t.owner, owner(visit, &video.data, &names)),
        (t.folder, html! { (folder) }),
        (t.size, html! { (shown_bytes(number(&video.data, "size"))) }),
        (t.added, components::time(number(&video.data, "created_at"))),
        (t.changed, components::time(number(&video.data, "updated_at"))),
        (t.id, components::copyable(text(&video.data, "uuid"), visit.frame().copy, visit.frame().copied)),
    ];
    let is_asked = visit.query("confirm") == Some("delete") && refused.is_none() && visit.may("delete_video");
    let body = html! {
        (above)
        @if is_asked { (confirm(visit, &video)) }
        (components::facts(&facts))
        @if let Some(of_video) = &of_video {
            h2 { (t.jobs) }
            @if list::items(of_video).is_empty() { p { (t.no_jobs) } } @else { (jobs::table_of_video(visit, of_video)) }
        }
        @if visit.may("transfer_video") { (components::card(t.transfer, transfer_box(visit, &video, refused).await)) }
        @if visit.may("delete_video") && !is_asked {
            (components::card("", parts::act_link(visit, "delete", t.delete, t.delete_about, Kind::Danger)))
        }
    };
    let all = components::link_button(&visit.in_organization("videos"), t.all);
    Ok(Content::new(name, body).actions(all))
}

async fn transfer_box(visit: &Visit, video: &Answer, refused: Option<(&str, &Error)>) -> Markup {
    let t = Words::of(visit.language);
    let suggestions = visit.may("list_users").then(|| visit.in_organization("why/members"));
    let missing = match refused {
        Some((owner, error)) if error.code == ErrorCode::QuotaExceeded => missing(visit, video, owner).await,
        _ => None,
    };
    html! {
        p { (fill(t.transfer_text, &[&shown_bytes(number(&video.data, "size"))])) }
        @if let Some(missing) = missing { (missing) }
        (videos::transfer_form(visit, video, refused.map(|(_, error)| error), suggestions.as_deref(), None))
    }
}

/// How much is missing in the quota of the new owner.
async fn missing(visit: &Visit, video: &Answer, owner: &str) -> Option<Markup> {
    let t = Words::of(visit.language);
    let user = visit.find(op("get_user").at(owner)).await?;
    let (used, size, need) = (number(&user, "quota_used"), number(&user, "quota_size"), number(&video.data, "size"));
    let lacking = need.saturating_sub(size.saturating_sub(used).max(0)).max(0);
    let sentence = fill(
        t.missing,
        &[
            &super::members::name_of(&user),
            &shown_bytes(used),
            &shown_bytes(size),
            &shown_bytes(need),
            &shown_bytes(lacking),
        ],
    );
    let change = components::link_button(&visit.in_organization(&format!("members/{owner}/quota")), t.to_quota);
    Some(html! {
        (components::notice(Tone::Warn, &sentence, None))
        @if visit.may("update_member_quota") { (components::actions(change)) }
    })
}

fn confirm(visit: &Visit, video: &Answer) -> Markup {
    let t = Words::of(visit.language);
    let (_, name) = split(text(&video.data, "path"));
    let size = shown_bytes(number(&video.data, "size"));
    let sent = html! {
        (components::hidden_input("act", "delete"))
        (components::hidden_input(VERSION, video.etag.as_deref().unwrap_or_default()))
    };
    components::confirm_box(&Confirm {
        title: &fill(t.delete_title, &[&name]),
        action: &visit.with_query(&[]),
        what_goes: &[fill(t.delete_frees, &[&size]), t.delete_jobs.to_owned(), t.delete_file.to_owned()],
        typed: Some(Typed { name: "typed", label: &fill(t.type_name, &[&name]), must_equal: name }),
        sent: Some(sent),
        submit: t.delete,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    })
}

/// Transfers or deletes the video.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("transfer") => transfer(visit).await,
        Some("delete") => delete(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn transfer(visit: &Visit) -> Result<View> {
    let id = visit.path("id");
    match videos::transfer(visit, id).await? {
        Transferred::Done(_) => {
            visit.done(visit.of_organization(&format!("videos/{id}")), Words::of(visit.language).transferred)
        }
        Transferred::Refused(owner, error) => {
            Ok(page(visit, html! {}, Some((&owner, &error))).await?.status_of(&error).into())
        }
    }
}

async fn delete(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let refused = async |error: &Error, sentence: &str| -> Result<View> {
        let above = components::notice(Tone::Bad, sentence, None);
        Ok(page(visit, above, None).await?.status_of(error).into())
    };
    let video = visit.call(op("get_video").at(id)).await?.data;
    let (_, name) = split(text(&video, "path"));
    if visit.submitted("typed").map(str::trim) != Some(name.trim()) {
        return refused(&ErrorCode::BadInput.into(), t.typed_wrong).await;
    }
    match visit.call(op("delete_video").at(id).if_match(visit.submitted(VERSION))).await {
        Ok(_) => visit.done(visit.of_organization("videos"), fill(t.deleted, &[&name])),
        Err(error) if is_shown_in_form(visit, "delete_video", &error) => {
            refused(&error, &errors::sentence(&error, visit.language)).await
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_path_is_a_folder_and_a_name() {
        for (path, parts) in [
            ("kim/2026/harbour.mp4", ("kim/2026", "harbour.mp4")),
            ("kim/a.mp4", ("kim", "a.mp4")),
            ("a.mp4", ("", "a.mp4")),
        ] {
            assert_eq!(split(path), parts);
        }
    }
}
