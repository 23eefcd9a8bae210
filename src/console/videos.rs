//! What the pages about videos share: the state of processing, and the form that transfers a video.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::client::{Answer, op};
use super::components::{self, Field, Picker, Text, Tone};
use super::form;
use super::i18n::{fields, words};
use super::list;
use super::me::{at_field, faults, once};
use super::visit::{self, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        transfer: "Transfer", "移轉";
        new_owner: "New owner", "新的擁有者";
        owner_id: "The id of the member. It stands on the member's own profile page.", "成員的編號，可在該成員的個人資料頁找到。";
        owner_any: "The id, e-mail or username of the member.", "成員的編號、電子郵件或使用者名稱。";
        owner_pick: "Type a part of the name, and choose the member.", "輸入姓名的一部分，再選擇成員。";
    }
}

/// The state of a job as a badge, with how far it is.
pub fn job_badge(visit: &Visit, job: Option<&Value>) -> Markup {
    let Some(job) = job else { return html! { span class="quiet" { "–" } } };
    let state = job["state"].as_str().unwrap_or_default();
    let tone = match state {
        "done" => Tone::Ok,
        "dead" => Tone::Bad,
        "held" => Tone::Warn,
        _ => Tone::Plain,
    };
    let shown = fields::value(state, visit.language);
    match (state, job["progress_percent"].as_i64()) {
        ("leased", Some(percent)) => components::badge(tone, &format!("{shown} {percent} %")),
        _ => components::badge(tone, &shown),
    }
}

/// The form that transfers a video. `suggestions` is the address of a picker's suggestions, `cancel_href` that of a page
/// to return to.
pub fn transfer_form(
    visit: &Visit,
    video: &Answer,
    error: Option<&Error>,
    suggestions: Option<&str>,
    cancel_href: Option<&str>,
) -> Markup {
    let t = Words::of(visit.language);
    let hint = match suggestions {
        Some(_) => t.owner_pick,
        None if visit.may("list_users") => t.owner_any,
        None => t.owner_id,
    };
    let faults = faults(visit, error, "uid");
    let around = Field::new("uid", t.new_owner).hint(hint).faults(&faults);
    let value = visit.submitted("uid").unwrap_or_default();
    let text = Text {
        name: "uid",
        value,
        is_required: true,
        autocomplete: Some("off"),
        maxlength: Some(254),
        ..Text::default()
    };
    let control = match suggestions {
        Some(from) => components::picker_input(
            &around,
            &Picker { name: "uid", value, from, is_required: true, placeholder: None },
        ),
        None => components::text_input(&around, &text),
    };
    html! {
        form method="post" action=(visit.here()) data-guard {
            (components::hidden_input("act", "transfer"))
            (components::hidden_input("id", video.data["uuid"].as_str().unwrap_or_default()))
            (components::hidden_input(form::ONCE, &once(visit)))
            (components::hidden_input(form::VERSION, video.etag.as_deref().unwrap_or_default()))
            (components::field(&around, control))
            (components::actions(html! {
                (components::button(t.transfer))
                @if let Some(href) = cancel_href { (components::link_button(href, visit.frame().cancel)) }
            }))
        }
    }
}

/// What became of a transfer.
pub enum Transferred {
    /// The video as it is now.
    Done(Value),
    /// The form is shown again. The id of the new owner, as far as it is known.
    Refused(String, Error),
}

/// Transfers the video of this id as the form says.
pub async fn transfer(visit: &Visit, id: &str) -> Result<Transferred> {
    let typed = visit.submitted("uid").unwrap_or_default().trim();
    let owner = member_named(visit, typed).await.unwrap_or_else(|| typed.to_owned());
    let call = op("transfer_video").at(id).body(&json!({"uid": owner})).if_match(visit.submitted(form::VERSION));
    match visit.call(call.once(visit.submitted(form::ONCE))).await {
        Ok(video) => Ok(Transferred::Done(video.data)),
        Err(error) if visit::is_of_form(&error) || is_of_owner(&error) => {
            Ok(Transferred::Refused(owner, at_field(error, "uid")))
        }
        Err(error) => Err(error),
    }
}

/// Whether the error is about the new owner.
fn is_of_owner(error: &Error) -> bool {
    matches!(
        error.code,
        ErrorCode::MemberNotFound
            | ErrorCode::QuotaExceeded
            | ErrorCode::OrganizationQuotaExceeded
            | ErrorCode::Forbidden
    )
}

/// The id of the member with this e-mail or username, if the visitor may see members.
async fn member_named(visit: &Visit, typed: &str) -> Option<String> {
    if uuid::Uuid::parse_str(typed).is_ok() {
        return None;
    }
    let found = visit.find(op("list_users").query("keyword", typed).query("limit", 20)).await?;
    let has_name = |user: &&Value| {
        ["email", "username"].iter().any(|name| user[*name].as_str().is_some_and(|own| own.eq_ignore_ascii_case(typed)))
    };
    list::items(&found).iter().find(has_name).and_then(|user| user["id"].as_str()).map(str::to_owned)
}
