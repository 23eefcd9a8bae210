//! The member's own API keys.

use maud::html;
use serde_json::json;

use crate::console::api_keys::{self, Keys};
use crate::console::client::op;
use crate::console::components::{self, Kind};
use crate::console::form::{self, Form};
use crate::console::i18n::words;
use crate::console::visit::{self, Content, View, Visit};
use crate::console::{lifetime, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        about: "A key lets a program act for you, without your password.", "金鑰讓程式能代表您操作，不需要您的密碼。";
        empty: "No API key yet", "尚無 API 金鑰";
        empty_text: "Create one for a program of yours, and choose only what it needs. Its first request:", "為您的程式建立一把金鑰，並只選擇需要的範圍。第一個請求：";
        new: "Create a key", "建立金鑰";
    }
}

const OPERATION: &str = "create_my_api_key";
const KEYS: Keys<'static> =
    Keys { list: "list_my_api_keys", rotate: "rotate_my_api_key", delete: "delete_my_api_key", of: None };

pub async fn list(visit: &Visit) -> Result<View> {
    let (t, keys) = (Words::of(visit.language), api_keys::Words::of(visit.language));
    if visit.query("new").is_some() {
        return Ok(new_form(visit, t, None)?.into());
    }
    if let Some((title, question)) = KEYS.question(visit).await? {
        return Ok(Content::new(title, question).into());
    }
    let found = KEYS.listed(visit).await?;
    let new = format!("{}?new=1", visit.here());
    let new = components::link_button_of(&new, t.new, Kind::Main, None);
    let is_empty = list::items(&found).is_empty();
    let body = html! {
        @if is_empty {
            (components::empty(t.empty, t.empty_text, Some(new.clone())))
            (api_keys::first_request(visit, "…", "/me"))
        } @else {
            p { (t.about) }
            (KEYS.table(visit, list::items(&found), false))
            (list::pager(visit, &found))
        }
    };
    let content = Content::new(keys.title, body);
    Ok(if is_empty { content } else { content.actions(new) }.into())
}

fn new_form(visit: &Visit, t: &Words, error: Option<&Error>) -> Result<Content> {
    let form = Form::new(visit, OPERATION)?.error(error);
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.field("type"))
        (form.field("scopes"))
        (form.text("expires_at", "date"))
    };
    let body = html! {
        (form.wrap(&visit.here(), inner, t.new))
        p { a href=(visit.here()) { (visit.frame().cancel) } }
    };
    Ok(Content::new(t.new, body))
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = api_keys::Words::of(visit.language);
    match (visit.submitted("act"), visit.submitted("key")) {
        (Some("create"), _) => create(visit).await,
        (Some("rotate"), Some(key)) => {
            let made = KEYS.rotate(visit, key).await?;
            Ok(Content::new(t.made, api_keys::made(visit, &made.data, "/me", &visit.here())).into())
        }
        (Some("delete"), Some(key)) => visit.done("/console/me/keys", KEYS.delete(visit, key).await?),
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let (t, keys) = (Words::of(visit.language), api_keys::Words::of(visit.language));
    let mut body = form::read(visit.operation(OPERATION)?, visit);
    let made = match visit.submitted("expires_at").map(lifetime::end_of_day) {
        Some(None) => Err(Error::field("expires_at", "must be a date")),
        // The API gives a key without scopes all of them; here that is a choice of its own.
        _ if body["scopes"].is_null() => Err(Error::field("scopes", "choose at least one")),
        day => {
            if let Some(Some(ms)) = day {
                body["expires_at"] = json!(ms);
            }
            visit.call(op(OPERATION).body(&body).once(visit.submitted(form::ONCE))).await
        }
    };
    match made {
        Ok(made) => Ok(Content::new(keys.made, api_keys::made(visit, &made.data, "/me", &visit.here())).into()),
        Err(error) if visit::is_of_form(&error) => Ok(new_form(visit, t, Some(&error))?.status_of(&error).into()),
        Err(error) => Err(error),
    }
}
