//! What concerns a member at first: storage, newest videos, organizations, and what the member did last.

use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::Value;

use super::{NO_LIMIT_BYTES, api_address, items, may_in, moment, organizations, part, size, text};
use crate::console::audit;
use crate::console::client::op;
use crate::console::components::{self, Column, Kind, Row, Tone};
use crate::console::i18n::{fields, fill, words};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;

/// How many videos and actions are shown.
const SHOWN: u64 = 8;

words! {
    Overview {
        hello: "Hello, {}", "{}，您好";
        hello_nobody: "Hello", "您好";
        storage: "Storage", "儲存空間";
        used_of: "{} of {}", "{} / {}";
        no_limit: "{}, no limit", "{}，不限容量";
        free: "{} free", "剩餘 {}";
        reserved: "{} reserved for uploads", "{} 保留給上傳中的檔案";
        organizations: "Organizations", "組織";
        no_organization: "You belong to no organization yet.", "您尚未加入任何組織。";
        manage: "Manage", "管理";
        rights_there: "Your rights", "您的權限";
        join: "Join an organization", "加入組織";
        videos: "Newest videos", "最新的影片";
        all_videos: "All videos", "所有影片";
        no_videos: "Nothing stored yet", "尚未儲存任何內容";
        no_videos_text: "Put a file into your folder, which is named like your username, and register it with an API key:", "將檔案放進以您的使用者名稱命名的資料夾，再以 API 金鑰登錄：";
        no_folder_text: "You have no username, and so no folder for videos. Ask an administrator of your organization for one.", "您沒有使用者名稱，因此還沒有存放影片的資料夾。請向組織的管理員申請。";
        make_key: "Create an API key", "建立 API 金鑰";
        file: "File", "檔案";
        size: "Size", "大小";
        added: "Added", "加入時間";
        activity: "What you did last", "您最近的活動";
        no_activity: "Nothing yet. What you change and when you sign in is listed here.", "尚無紀錄。您的變更與登入會列在這裡。";
        action: "Action", "動作";
        outcome: "Outcome", "結果";
        when: "When", "時間";
        from: "From", "來源位址";
        not_yours: "Was that not you? Change your password and end all sessions.", "不是您本人的操作嗎？請變更密碼並結束所有工作階段。";
        to_security: "Security", "安全性";
        unavailable: "This cannot be shown now.", "目前無法顯示。";
    }
}

pub async fn show(visit: &Visit) -> Result<View> {
    let t = Overview::of(visit.language);
    let videos = op("list_videos").query("member", visit.uid()).query("limit", SHOWN);
    let activity = op("list_my_activity").query("limit", SHOWN);
    let (quota, videos, activity) =
        join3(part(visit, op("get_my_quota")), part(visit, videos), part(visit, activity)).await;
    let name = ["display_name", "username", "email"].iter().find_map(|key| visit.me()[*key].as_str());
    let title = name.map_or_else(|| t.hello_nobody.to_owned(), |name| fill(t.hello, &[&name]));
    let body = html! {
        (components::tiles(html! {
            @if let Some(quota) = &quota { (storage(t, quota)) } @else { (components::card(t.storage, html! { p { (t.unavailable) } })) }
            (components::card(t.organizations, organizations_of(visit, t)))
        }))
        (components::card(t.videos, videos_of(visit, t, videos.as_ref())))
        (components::card(t.activity, activity_of(visit, t, activity.as_ref())))
    };
    Ok(Content::new(title, body).into())
}

fn storage(t: &Overview, quota: &Value) -> Markup {
    let bytes = |name: &str| u64::try_from(moment(quota, name)).unwrap_or_default();
    let has_limit = moment(quota, "size") < NO_LIMIT_BYTES;
    let figure = match has_limit {
        true => fill(t.used_of, &[&size(quota, "used"), &size(quota, "size")]),
        false => fill(t.no_limit, &[&size(quota, "used")]),
    };
    let free = if has_limit { fill(t.free, &[&size(quota, "free")]) } else { String::new() };
    components::tile(
        t.storage,
        &figure,
        html! {
            @if has_limit { (components::meter(t.storage, bytes("used"), Some(bytes("size")), &free)) }
            @if bytes("reserved") > 0 { p { (fill(t.reserved, &[&size(quota, "reserved")])) } }
        },
    )
}

fn organizations_of(visit: &Visit, t: &Overview) -> Markup {
    let rights = |code: &str| visit.href(&format!("/console/me/rights?org={code}"));
    html! {
        @if organizations(visit).is_empty() { p { (t.no_organization) } }
        @else {
            ul {
                @for organization in organizations(visit) {
                    @let code = text(organization, "org_code");
                    li {
                        (text(organization, "name"))
                        @if text(organization, "status") != "active" { " " (components::badge(Tone::Warn, &fields::value(text(organization, "status"), visit.language))) }
                        " · " a href=(rights(code)) { (t.rights_there) }
                        @if may_in(visit, code, "list_users") {
                            " · " a href=(visit.href(&format!("/console/o/{code}"))) { (t.manage) }
                        }
                    }
                }
            }
        }
        p { a href=(visit.href("/console/me/join")) { (t.join) } }
    }
}

fn videos_of(visit: &Visit, t: &Overview, videos: Option<&Value>) -> Markup {
    let Some(videos) = videos else { return html! { p { (t.unavailable) } } };
    if items(videos).is_empty() {
        let Some(command) = register_command(visit) else {
            return components::empty(t.no_videos, t.no_folder_text, None);
        };
        let key = components::link_button_of(&visit.href("/console/me/keys?new=1"), t.make_key, Kind::Plain, None);
        return html! {
            (components::empty(t.no_videos, t.no_videos_text, Some(key)))
            (components::copyable_block(&command, visit.frame().copy, visit.frame().copied))
        };
    }
    let rows = items(videos).iter().map(|video| Row {
        cells: vec![
            html! { (text(video, "path")) },
            html! { (size(video, "size")) },
            components::time_ago(moment(video, "created_at")),
        ],
        ..Row::default()
    });
    html! {
        (components::table(t.videos, &[Column::new(t.file), Column::number(t.size), Column::new(t.added)], rows.collect()))
        p { a href=(visit.href("/console/me/videos")) { (t.all_videos) } }
    }
}

/// The request that registers a file in the visitor's folder; `None` for a visitor without a username.
pub(in crate::console) fn register_command(visit: &Visit) -> Option<String> {
    let folder = visit.me()["username"].as_str()?;
    Some(format!(
        "curl -H 'X-API-Key: …' -H 'Content-Type: application/json' -d '{{\"path\": \"{folder}/harbour.mp4\"}}' {}/register",
        api_address(visit)
    ))
}

fn activity_of(visit: &Visit, t: &Overview, activity: Option<&Value>) -> Markup {
    let Some(activity) = activity else { return html! { p { (t.unavailable) } } };
    if items(activity).is_empty() {
        return html! { p { (t.no_activity) } };
    }
    let rows = items(activity).iter().map(|entry| {
        let outcome = text(entry, "outcome");
        let tone = if outcome == "done" { Tone::Ok } else { Tone::Bad };
        Row {
            cells: vec![
                html! { (audit::label(visit, text(entry, "action"))) },
                components::badge(tone, &fields::value(outcome, visit.language)),
                html! { (text(entry, "address")) },
                components::time_ago(moment(entry, "at")),
            ],
            ..Row::default()
        }
    });
    let columns = [Column::new(t.action), Column::new(t.outcome), Column::new(t.from), Column::new(t.when)];
    html! {
        (components::table(t.activity, &columns, rows.collect()))
        p { (t.not_yours) " " a href=(visit.href("/console/me/security")) { (t.to_security) } }
    }
}
