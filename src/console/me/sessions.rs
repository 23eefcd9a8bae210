//! Where the member is signed in.

use maud::{Markup, html};
use serde_json::Value;

use super::{items, moment, text};
use crate::console::client::op;
use crate::console::components::{self, Column, Confirm, Kind, Row, Tone};
use crate::console::i18n::{fields, fill, words};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Sessions {
        title: "Sessions", "工作階段";
        about: "The devices on which you are signed in.", "您目前登入的裝置。";
        device: "Device", "裝置";
        this_one: "This device", "這個裝置";
        address: "Address", "位址";
        method: "Signed in with", "登入方式";
        second_factor: "second factor", "第二因素驗證";
        signed_in: "Signed in", "登入時間";
        last_used: "Last used", "上次使用";
        ends: "Ends", "結束時間";
        end: "End", "結束";
        ended: "The session has ended.", "工作階段已結束。";
        end_others: "End all others", "結束其他所有工作階段";
        others_ended: "{} sessions have ended.", "已結束 {} 個工作階段。";
        end_all: "Sign out everywhere", "登出所有裝置";
        end_all_what: "Every session ends, this one too.", "所有工作階段都會結束，包含這一個。";
        end_all_devices: "Remembered devices are forgotten.", "記住的裝置也會被忘記。";
        end_all_keys: "API keys keep working.", "API 金鑰仍可使用。";
        unknown: "An unknown device? Change your password as well.", "看到不認得的裝置嗎？請一併變更密碼。";
        to_security: "Security", "安全性";
    }
}

const HERE: &str = "/console/me/sessions";

pub async fn list(visit: &Visit) -> Result<View> {
    let t = Sessions::of(visit.language);
    if visit.query("confirm") == Some("all") {
        return Ok(confirm_all(visit, t).into());
    }
    let found = visit.call(op("list_my_sessions")).await?.data;
    let has_others = items(&found).iter().any(|session| session["is_current"] != true);
    let columns = [t.device, t.address, t.method, t.signed_in, t.last_used, t.ends, ""].map(Column::new);
    let rows = items(&found).iter().map(|session| row(visit, t, session)).collect();
    let body = html! {
        p { (t.about) }
        (components::table(t.title, &columns, rows))
        (components::actions(html! {
            @if has_others {
                form method="post" action=(visit.here()) {
                    (components::button_named("act", "others", t.end_others, Kind::Main))
                }
            }
            (components::link_button(&format!("{}?confirm=all", visit.here()), t.end_all))
        }))
        p { (t.unknown) " " a href=(visit.href("/console/me/security")) { (t.to_security) } }
    };
    Ok(Content::new(t.title, body).into())
}

fn row(visit: &Visit, t: &Sessions, session: &Value) -> Row {
    let is_current = session["is_current"] == true;
    // `oidc keycloak`: the way, and the name of the provider.
    let (method, provider) = text(session, "method").split_once(' ').unwrap_or((text(session, "method"), ""));
    let method = if provider.is_empty() { fields::value(method, visit.language) } else { provider.to_owned() };
    let end = html! {
        form method="post" action=(visit.here()) {
            (components::hidden_input("id", text(session, "id")))
            (components::button_named("act", "end", if is_current { visit.frame().sign_out } else { t.end }, Kind::Quiet))
        }
    };
    Row {
        cells: vec![
            html! { (text(session, "device")) @if is_current { " " (components::badge(Tone::Ok, t.this_one)) } },
            html! { (text(session, "address")) },
            html! { (method) @if session["second_factor"] == true { " + " (t.second_factor) } },
            components::time_ago(moment(session, "created_at")),
            components::time_ago(moment(session, "last_used_at")),
            components::time(moment(session, "expires_at")),
            end,
        ],
        ..Row::default()
    }
}

fn confirm_all(visit: &Visit, t: &Sessions) -> Content {
    let sentences = [t.end_all_what, t.end_all_devices, t.end_all_keys].map(str::to_owned);
    let sent: Markup = components::hidden_input("act", "all");
    let body = components::confirm_box(&Confirm {
        title: t.end_all,
        action: &visit.here(),
        what_goes: &sentences,
        typed: None,
        sent: Some(sent),
        submit: t.end_all,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(t.end_all, body)
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = Sessions::of(visit.language);
    match visit.submitted("act") {
        Some("end") => {
            let id = visit.submitted("id").unwrap_or_default();
            let own = visit.call(op("list_my_sessions")).await?.data;
            let is_current =
                items(&own).iter().any(|session| session["is_current"] == true && text(session, "id") == id);
            visit.call(op("end_my_session").at(id)).await?;
            visit.done(if is_current { "/console/sign-in" } else { HERE }, t.ended)
        }
        Some("others") => {
            let ended = visit.call(op("end_my_sessions").query("keep_current", true)).await?.data;
            visit.done(HERE, fill(t.others_ended, &[&moment(&ended, "ended")]))
        }
        Some("all") => {
            let ended = visit.call(op("end_my_sessions")).await?.data;
            visit.done("/console/sign-in", fill(t.others_ended, &[&moment(&ended, "ended")]))
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}
