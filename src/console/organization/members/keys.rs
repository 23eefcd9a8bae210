//! The API keys of a member.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{MemberTab, address_of, get_user, is_shown_in_form, member_page, name_of, refused};
use crate::console::api_keys::{self, Keys};
use crate::console::client::op;
use crate::console::components;
use crate::console::form::{self, Form};
use crate::console::i18n::{fill, words};
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::console::{lifetime, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        none: "No keys", "還沒有金鑰";
        none_text: "A key lets a program act as this member, within the scopes that it has. Create one below.", "金鑰讓程式能以此成員的身分、在其範圍內操作。可以在下方建立。";
        new: "New key", "新增金鑰";
        create: "Create the key", "建立金鑰";
        once_title: "The key of {}", "{} 的金鑰";
    }
}

const TAB: MemberTab = MemberTab::Keys;

/// Lifetimes to choose from, in days.
const LIFETIMES_D: [u32; 4] = [7, 30, 90, 365];

/// The keys of the member that the address names.
fn keys(visit: &Visit) -> Keys<'_> {
    Keys {
        list: "list_member_api_keys",
        rotate: "rotate_member_api_key",
        delete: "delete_member_api_key",
        of: Some(visit.path("uid")),
    }
}

/// Shows the keys, or the question before one is changed for good.
pub async fn show(visit: &Visit) -> Result<View> {
    let shown = match keys(visit).question(visit).await {
        Ok(Some((_, question))) => Ok(member_page(visit, &get_user(visit).await?, TAB, question)),
        Ok(None) => page(visit, None).await,
        Err(error) => Err(error),
    };
    match shown {
        Ok(content) => Ok(content.into()),
        // The keys of a member of several organizations are a matter of the site.
        Err(error) => refusal(visit, error).await,
    }
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let data = keys(visit).listed(visit).await?;
    let body = html! {
        @if list::items(&data).is_empty() { (components::empty(t.none, t.none_text, None)) } @else {
            (keys(visit).table(visit, list::items(&data), false)) (list::pager(visit, &data))
        }
        @if visit.may("create_member_api_key") { (components::card(t.new, new_form(visit, error)?)) }
    };
    let content = member_page(visit, &user, TAB, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn new_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, "create_member_api_key")?.error(error);
    let lives = lifetime::choices(visit, &LIFETIMES_D);
    let choices: Vec<(&str, String)> = lives.iter().map(|(value, text)| (value.as_str(), text.clone())).collect();
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.field("type"))
        (form.field("scopes"))
        (form.choice("expires_at", &choices))
    };
    Ok(form.wrap(&visit.here(), inner, t.create))
}

/// Creates, rotates or deletes a key.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("key")) {
        (Some("create"), _) => create(visit).await,
        (Some("rotate"), Some(key)) => match keys(visit).rotate(visit, key).await {
            Ok(made) => shown_once(visit, &made.data).await,
            Err(error) => refusal(visit, error).await,
        },
        (Some("delete"), Some(key)) => match keys(visit).delete(visit, key).await {
            Ok(text) => visit.done(address_of(visit, TAB), text),
            Err(error) => refusal(visit, error).await,
        },
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let mut body = form::read(visit.operation("create_member_api_key")?, visit);
    let once = visit.submitted(form::ONCE);
    // Chosen is a lifetime, and the operation takes a time.
    if let Some(at) = body["expires_at"].as_str().and_then(|text| lifetime::end_of(text, once)) {
        body["expires_at"] = json!(at);
    }
    let call = op("create_member_api_key").at(visit.path("uid")).body(&body).once(once);
    match visit.call(call).await {
        Ok(made) => shown_once(visit, &made.data).await,
        Err(error) if is_shown_in_form(visit, "create_member_api_key", &error) => {
            Ok(page(visit, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

async fn refusal(visit: &Visit, error: Error) -> Result<View> {
    if !is_of_form(&error) && !error.is_denial() {
        return Err(error);
    }
    Ok(refused(visit, &get_user(visit).await?, TAB, &error))
}

/// The text of a new key, in this answer only.
async fn shown_once(visit: &Visit, made: &Value) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let title = fill(t.once_title, &[&name_of(&user)]);
    let body = components::card(&title, api_keys::made(visit, made, "/me", &visit.here()));
    Ok(member_page(visit, &user, TAB, body).into())
}
