//! The member's own names.

use maud::{Markup, html};

use super::text;
use crate::console::client::{Answer, op};
use crate::console::components::{self, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{fields, words};
use crate::console::visit::{self, Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Profile {
        title: "Profile", "個人資料";
        names: "How you sign in", "登入名稱";
        names_text: "Only an administrator of your organization can change these.", "只有組織的管理員能變更這些資料。";
        none: "none", "無";
        shown: "How others see you", "他人看到的名稱";
        saved: "Your profile is saved.", "已儲存您的個人資料。";
    }
}

const OPERATION: &str = "update_me";

pub async fn show(visit: &Visit) -> Result<View> {
    let me = visit.call(op("get_me")).await?;
    Ok(content(visit, &me, None)?.into())
}

pub async fn save(visit: &Visit) -> Result<View> {
    let body = form::read(visit.operation(OPERATION)?, visit);
    match visit.call(op(OPERATION).body(&body).if_match(visit.submitted(form::VERSION))).await {
        Ok(_) => visit.done("/console/me/profile", Profile::of(visit.language).saved),
        Err(error) if visit::is_of_form(&error) => {
            let me = visit.call(op("get_me")).await?;
            Ok(content(visit, &me, Some(&error))?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

fn content(visit: &Visit, me: &Answer, error: Option<&Error>) -> Result<Content> {
    let t = Profile::of(visit.language);
    // With a stale version, the next attempt is about what is stored now.
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    let etag = me.etag.as_deref().filter(|_| error.is_none() || is_stale);
    let form = Form::new(visit, OPERATION)?.values(&me.data).version(etag).error(error.filter(|_| !is_stale));
    let body = html! {
        (components::card(t.shown, html! {
            @if is_stale { (stored_now(visit, me)) }
            (form.wrap(&visit.here(), form.field("display_name"), visit.frame().save))
        }))
        (components::card(t.names, html! {
            (components::facts(&["username", "email", "uid"].map(|name| (fields::label(if name == "uid" { "id" } else { name }, visit.language), value(visit, t, me, name)))))
            p { (t.names_text) }
        }))
    };
    Ok(Content::new(t.title, body))
}

fn value(visit: &Visit, t: &Profile, me: &Answer, name: &str) -> Markup {
    match (name, text(&me.data, name)) {
        (_, "") => html! { span class="quiet" { (t.none) } },
        ("uid", id) => components::copyable(id, visit.frame().copy, visit.frame().copied),
        (_, text) => html! { (text) },
    }
}

/// What somebody else stored meanwhile, in place of the error of the form.
fn stored_now(visit: &Visit, me: &Answer) -> Markup {
    let f = visit.frame();
    html! {
        h3 { (f.conflict_title) }
        (components::notice(Tone::Warn, f.conflict_text, None))
        (components::facts(&[(fields::label("display_name", visit.language), html! { (text(&me.data, "display_name")) })]))
    }
}
