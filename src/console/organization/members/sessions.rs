//! The sessions of a member: on which devices somebody is signed in, and ending them.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::{MemberTab, address_of, get_user, member_page, name_of, refused};
use crate::console::client::op;
use crate::console::components::{self, Column, Kind, Row, Tone};
use crate::console::i18n::{fields, fill, words};
use crate::console::list;
use crate::console::visit::{View, Visit, is_of_form};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Words {
        title: "Sessions", "工作階段";
        device: "Device", "裝置";
        method: "Signed in by", "登入方式";
        factor: "with a second factor", "已通過第二因素驗證";
        address: "Address", "位址";
        used: "Last used", "上次使用";
        since: "Since", "登入時間";
        ends: "Ends", "到期";
        act: "End", "結束";
        end: "End it", "結束";
        end_all: "End all sessions", "結束所有工作階段";
        end_all_text: "Signs the member out on every device. Keys keep working.", "登出該成員的所有裝置，API 金鑰不受影響。";
        ended: "The session was ended.", "已結束工作階段。";
        ended_all: "{} is signed out everywhere.", "已登出 {} 的所有裝置。";
        none: "Not signed in anywhere", "目前沒有登入";
        none_text: "A session will be here as soon as the member signs in.", "成員登入後，工作階段會顯示在這裡。";
    }
}

const TAB: MemberTab = MemberTab::Sessions;

/// Shows the sessions.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let (user, sessions) = join(get_user(visit), visit.call(op("list_member_sessions").at(visit.path("uid")))).await;
    let (user, sessions) = match (user?, sessions) {
        (user, Ok(sessions)) => (user, sessions.data),
        // The sessions of a member of several organizations are a matter of the site.
        (user, Err(error)) if error.is_denial() => return Ok(refused(visit, &user, TAB, &error)),
        (_, Err(error)) => return Err(error),
    };
    let body = if list::items(&sessions).is_empty() {
        components::empty(t.none, t.none_text, None)
    } else {
        html! {
            (table(visit, list::items(&sessions)))
            @if visit.may("end_member_sessions") {
                form class="act" method="post" action=(visit.here()) {
                    (components::button_named("act", "end_all", t.end_all, Kind::Plain))
                    p class="hint" { (t.end_all_text) }
                }
            }
        }
    };
    Ok(member_page(visit, &user, TAB, body).into())
}

fn table(visit: &Visit, sessions: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let can_end = visit.may("end_member_session");
    let mut columns = vec![
        Column::new(t.device),
        Column::new(t.method),
        Column::new(t.address),
        Column::new(t.used),
        Column::new(t.since),
        Column::new(t.ends),
    ];
    if can_end {
        columns.push(Column::new(t.act));
    }
    let row = |session: &Value| {
        let text = |key: &str| session[key].as_str().unwrap_or_default();
        let at = |key: &str| session[key].as_i64().unwrap_or_default();
        let mut cells = vec![
            html! { (text("device")) },
            html! {
                (fields::value(text("method"), visit.language))
                @if session["second_factor"] == true { " " (components::badge(Tone::Ok, t.factor)) }
            },
            html! { code { (text("address")) } },
            components::time_ago(at("last_used_at")),
            components::time(at("created_at")),
            components::time(at("expires_at")),
        ];
        if can_end {
            cells.push(html! {
                form method="post" action=(visit.here()) {
                    (components::hidden_input("session", text("id")))
                    (components::button_named("act", "end", t.end, Kind::Plain))
                }
            });
        }
        Row { cells, ..Row::default() }
    };
    components::table(t.title, &columns, sessions.iter().map(row).collect())
}

/// Ends one session, or all.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let uid = visit.path("uid");
    let (ended, text) = match (visit.submitted("act"), visit.submitted("session")) {
        (Some("end_all"), _) => {
            let ended = visit.call(op("end_member_sessions").at(uid)).await;
            (ended, fill(t.ended_all, &[&name_of(&user)]))
        }
        (Some("end"), Some(session)) => {
            (visit.call(op("end_member_session").at(uid).at(session)).await, t.ended.to_owned())
        }
        _ => return Err(ErrorCode::BadInput.into()),
    };
    match ended {
        Ok(_) => visit.done(address_of(visit, TAB), text),
        // It has ended meanwhile: the list tells.
        Err(error) if error.code == ErrorCode::SessionNotFound => visit.done(address_of(visit, TAB), text),
        Err(error) if is_of_form(&error) || error.is_denial() => Ok(refused(visit, &user, TAB, &error)),
        Err(error) => Err(error),
    }
}
