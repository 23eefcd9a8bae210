//! Joining an organization with the link of an invitation.

use maud::html;
use serde_json::json;

use super::{at_field, faults, once, organizations, text};
use crate::console::client::op;
use crate::console::components::{self, Field, Text};
use crate::console::form;
use crate::console::i18n::{fields, fill, words};
use crate::console::visit::{self, Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Join {
        title: "Join an organization", "加入組織";
        about: "With the link of an invitation, you join with the account that you are signed in with.", "使用邀請連結，即可以目前登入的帳號加入組織。";
        submit: "Join", "加入";
        joined: "You joined {}.", "您已加入「{}」。";
        no_link: "Ask an administrator of the organization for an invitation link.", "請向組織的管理員索取邀請連結。";
    }
}

pub async fn form(visit: &Visit) -> Result<View> {
    Ok(content(visit, visit.query("token").unwrap_or_default(), None).into())
}

pub async fn accept(visit: &Visit) -> Result<View> {
    let pasted = visit.submitted("token").unwrap_or_default();
    let call = op("accept_my_invitation").body(&json!({"token": token_of(pasted)}));
    match visit.call(call.once(visit.submitted(form::ONCE))).await {
        Ok(joined) => {
            let me = visit.call(op("get_me")).await?.data;
            let id = text(&joined.data, "organization_id");
            let all = me["organizations"].as_array().into_iter().flatten();
            let name = all.filter(|one| text(one, "id") == id).map(|one| text(one, "name")).next().unwrap_or(id);
            visit.done("/console/me", fill(Join::of(visit.language).joined, &[&name]))
        }
        // 401 means the link here, not the session.
        Err(error) if error.code == ErrorCode::InvalidLink || visit::is_of_form(&error) => {
            let error = at_field(error, "token");
            Ok(content(visit, pasted, Some(&error)).status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

/// The token in a pasted link, or the pasted text itself.
fn token_of(pasted: &str) -> &str {
    let pasted = pasted.trim();
    let after = pasted.split_once("token=").map_or(pasted, |(_, rest)| rest);
    after.split(['&', '#']).next().unwrap_or_default()
}

fn content(visit: &Visit, pasted: &str, error: Option<&Error>) -> Content {
    let t = Join::of(visit.language);
    let label = fields::label("token", visit.language);
    let hint = fields::about("token", "", visit.language);
    let faults = faults(visit, error, "token");
    let around = Field { hint: hint.as_deref(), faults: &faults, ..Field::new("token", &label) };
    let input = Text {
        name: "token",
        value: pasted,
        is_required: true,
        autocomplete: Some("off"),
        maxlength: Some(2_000),
        ..Text::default()
    };
    let body = html! {
        p { (t.about) }
        form method="post" action=(visit.here()) data-guard {
            (components::hidden_input(form::ONCE, &once(visit)))
            (components::text_field(&around, &input))
            (components::actions(components::button(t.submit)))
        }
        @if organizations(visit).is_empty() { p { (t.no_link) } }
    };
    Content::new(t.title, body)
}

#[cfg(test)]
mod tests {
    use super::token_of;

    #[test]
    fn a_token_is_found_in_its_link() {
        for (pasted, token) in [
            ("inv_abc", "inv_abc"),
            (" inv_abc\n", "inv_abc"),
            ("https://id.example.org/invitation?token=inv_abc", "inv_abc"),
            ("https://id.example.org/x/invitation?lang=en&token=inv_abc&a=b#c", "inv_abc"),
            ("", ""),
        ] {
            assert_eq!(token_of(pasted), token);
        }
    }
}
