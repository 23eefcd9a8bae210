//! The invitations of an organization: the form that makes a link, and the list of those that were made.

use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::members::{has_no_member, is_shown_in_form, proposed_role, role_choices, role_name};
use crate::console::client::op;
use crate::console::components::{self, Column, Confirm, Field, Kind, Menu, Row, Select, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::console::{lifetime, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        title: "Invitations", "邀請";
        about: "An invitation is a link. Who opens it chooses name and password, and is a member with the role. No mail is sent: pass the link on yourself.", "邀請是一個連結。開啟連結的人可自行設定名稱與密碼，並以指定角色成為成員。系統不會寄信，請自行轉交連結。";
        new: "Invite somebody", "邀請新成員";
        create: "Create the link", "建立連結";
        another: "Invite another", "再邀請一位";
        once: "Copy the link now and send it to the person. It is shown only this once, and works once.", "請立即複製連結並傳給對方。連結只會顯示這一次，也只能使用一次。";
        until: "It works until", "有效期限";
        link: "The link is ready", "連結已建立";
        sent_already: "This form was sent already: the link was shown once. Create another invitation.", "這份表單已送出過，連結只會顯示一次。請建立新的邀請。";
        email: "E-mail", "電子郵件";
        anybody: "whoever has the link", "持有連結的人";
        role: "Role", "角色";
        no_role: "no role", "無角色";
        status: "Status", "狀態";
        ends: "Ends", "到期";
        made: "Created", "建立時間";
        joined: "see the member", "查看成員";
        more: "More about this invitation", "此邀請的其他操作";
        withdraw: "Withdraw", "撤回";
        withdraw_title: "Withdraw the invitation for {}?", "要撤回給 {} 的邀請嗎？";
        withdraw_goes: "The link no longer works. A new invitation has a new link.", "連結會失效。重新邀請時會產生新的連結。";
        withdrawn: "The invitation was withdrawn.", "已撤回邀請。";
        none: "No invitations yet", "還沒有邀請";
        none_text: "Create the first link above, and send it to somebody.", "請在上方建立第一個連結並傳給對方。";
        none_readonly: "Nobody was invited yet.", "還沒有邀請過任何人。";
    }
}

/// Lifetimes to choose from, in days.
const LIFETIMES_D: [u32; 4] = [1, 7, 30, 90];
const LIFETIME: &str = "7d";

/// What the page shows above the list.
enum Above<'e> {
    /// The form, after a refused one with its error.
    Form(Option<&'e Error>),
    /// What became of the form.
    Result(Markup),
}

/// Shows the form and the list, or the question before an invitation is withdrawn.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, Above::Form(None)).await?.into())
}

/// The list below `above`.
async fn page(visit: &Visit, above: Above<'_>) -> Result<Content> {
    let t = Words::of(visit.language);
    let call = list::paged(visit, op("list_invitations"));
    let (found, roles, is_first) = join3(visit.call(call), visit.find(op("list_roles")), has_no_member(visit)).await;
    let (data, roles) = (found?.data, roles.unwrap_or_default());
    let has_form = matches!(above, Above::Form(_)) && visit.may("create_invitation");
    let doomed = visit.query("confirm").filter(|kind| *kind == "delete" && visit.form.is_empty());
    let doomed = doomed.and_then(|_| list::items(&data).iter().find(|one| Some(text(one, "id")) == visit.query("id")));
    let body = html! {
        p { (t.about) }
        @if let Above::Result(result) = &above { (result) }
        @if let Some(doomed) = doomed { (confirm(visit, doomed)) }
        @else if let (true, Above::Form(error)) = (has_form, &above) {
            (components::card(t.new, new_form(visit, *error, &roles, is_first)?))
        }
        @if list::items(&data).is_empty() {
            (components::empty(t.none, if has_form { t.none_text } else { t.none_readonly }, None))
        } @else {
            (table(visit, list::items(&data), &roles))
            (list::pager(visit, &data))
        }
    };
    Ok(Content::new(t.title, body))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn new_form(visit: &Visit, error: Option<&Error>, roles: &Value, is_first: bool) -> Result<Markup> {
    let t = Words::of(visit.language);
    let choices = role_choices(visit, roles);
    let values = json!({"email": visit.query("email"), "role_id": proposed_role(roles, &choices, is_first)});
    let form = Form::new(visit, "create_invitation")?.values(&values).error(error);
    let choices: Vec<(&str, String)> = choices.iter().map(|(id, name)| (id.as_str(), name.clone())).collect();
    let lives = lifetime::choices(visit, &LIFETIMES_D);
    let lives: Vec<(&str, &str)> = lives.iter().map(|(value, text)| (value.as_str(), text.as_str())).collect();
    let label = fields::label("expires_at", visit.language);
    let about = Field::new("expires_at", &label);
    let chosen = visit.submitted("expires_at").unwrap_or(LIFETIME);
    let select = Select { name: "expires_at", options: &lives, chosen, is_required: true };
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.choice("role_id", &choices))
        (form.field("email"))
        (components::field(&about, components::select_input(&about, &select)))
    };
    Ok(form.wrap(&visit.here(), inner, t.create))
}

fn table(visit: &Visit, invitations: &[Value], roles: &Value) -> Markup {
    let t = Words::of(visit.language);
    let columns =
        [Column::new(t.email), Column::new(t.role), Column::new(t.status), Column::new(t.ends), Column::new(t.made)];
    let can_withdraw = visit.may("delete_invitation");
    let row = |one: &Value| {
        let at = |key: &str| components::time(one[key].as_i64().unwrap_or_default());
        let href = visit.with_query(&[("confirm", "delete"), ("id", text(one, "id"))]);
        let menu = || Menu {
            label: t.more.to_owned(),
            items: components::link_button_of(&href, t.withdraw, Kind::Quiet, None),
        };
        Row {
            cells: vec![
                html! { @if one["email"].is_null() { span class="quiet" { (t.anybody) } } @else { (text(one, "email")) } },
                role(visit, one, roles),
                status(visit, one),
                at("expires_at"),
                at("created_at"),
            ],
            menu: (can_withdraw && one["status"] != "accepted").then(menu),
            ..Row::default()
        }
    };
    components::table(t.title, &columns, invitations.iter().map(row).collect())
}

fn role(visit: &Visit, one: &Value, roles: &Value) -> Markup {
    let t = Words::of(visit.language);
    let all = roles["roles"].as_array().map_or(&[][..], Vec::as_slice);
    let known = all.iter().find(|role| !role["id"].is_null() && role["id"] == one["role_id"]);
    let name =
        known.map_or_else(|| text(one, "role_key"), |role| role_name(visit, &role["display_name"], &role["key"]));
    html! { @if name.is_empty() { span class="quiet" { (t.no_role) } } @else { (name) } }
}

fn status(visit: &Visit, one: &Value) -> Markup {
    let t = Words::of(visit.language);
    let tone = match text(one, "status") {
        "open" => Tone::Ok,
        "expired" => Tone::Warn,
        _ => Tone::Plain,
    };
    html! {
        (components::badge(tone, &fields::value(text(one, "status"), visit.language)))
        @if let Some(id) = one["member_id"].as_str().filter(|_| visit.may("get_user")) {
            " " a href=(visit.in_organization(&format!("members/{id}"))) { (t.joined) }
        }
    }
}

fn confirm(visit: &Visit, one: &Value) -> Markup {
    let t = Words::of(visit.language);
    let who = one["email"].as_str().unwrap_or(t.anybody);
    let sent = html! {
        (components::hidden_input("act", "delete"))
        (components::hidden_input("id", text(one, "id")))
    };
    components::confirm_box(&Confirm {
        title: &fill(t.withdraw_title, &[&who]),
        action: &visit.here(),
        what_goes: &[t.withdraw_goes.to_owned()],
        typed: None,
        sent: Some(sent),
        submit: t.withdraw,
        cancel: visit.frame().cancel,
        cancel_href: &visit.with_query(&[("confirm", ""), ("id", "")]),
    })
}

/// Creates or withdraws an invitation.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("id")) {
        (Some("create"), _) => create(visit).await,
        (Some("delete"), Some(id)) => withdraw(visit, id).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let mut body = form::read(visit.operation("create_invitation")?, visit);
    let once = visit.submitted(form::ONCE);
    // Chosen is a lifetime, and the operation takes a time.
    if let Some(at) = body["expires_at"].as_str().and_then(|text| lifetime::end_of(text, once)) {
        body["expires_at"] = json!(at);
    }
    let made = match visit.call(op("create_invitation").body(&body).once(once)).await {
        Ok(made) => made.data,
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            let result = html! {
                (components::notice(Tone::Bad, t.sent_already, None))
                (components::actions(components::link_button(&visit.here(), t.another)))
            };
            return Ok(page(visit, Above::Result(result)).await?.status_of(&error).into());
        }
        Err(error) if is_shown_in_form(visit, "create_invitation", &error) => {
            return Ok(page(visit, Above::Form(Some(&error))).await?.status_of(&error).into());
        }
        Err(error) => return Err(error),
    };
    let shown = html! {
        (components::secret_once(text(&made, "url"), t.once, frame.copy, frame.copied))
        p { (t.until) " " (components::time(made["expires_at"].as_i64().unwrap_or_default())) }
        (components::actions(components::link_button(&visit.here(), t.another)))
    };
    Ok(page(visit, Above::Result(components::card(t.link, shown))).await?.into())
}

async fn withdraw(visit: &Visit, id: &str) -> Result<View> {
    let t = Words::of(visit.language);
    match visit.call(op("delete_invitation").at(id)).await {
        Ok(_) => visit.done(visit.of_organization("invitations"), t.withdrawn),
        Err(error) if is_of_form(&error) => Ok(refused(visit, &error).await?.into()),
        Err(error) => Err(error),
    }
}

async fn refused(visit: &Visit, error: &Error) -> Result<Content> {
    let above = components::notice(Tone::Bad, &errors::sentence(error, visit.language), None);
    Ok(page(visit, Above::Result(above)).await?.status_of(error))
}
