//! Direct grants: rights of single members, without a role.

use futures_util::future::try_join;
use maud::{Markup, html};
use serde_json::Value;

use crate::console::client::{encoded, op};
use crate::console::components::{
    self, Column, Menu, Row, Tone, badge, card, empty, link_button, menu_act, notice, search_field, table,
};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fill, words};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::console::{layout, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        title: "Direct grants", "直接授權";
        about: "A direct grant gives one member one right, without a role: an action of a module, on one object or on all. It belongs to the site and can only allow.", "直接授權不經由角色，將單一權限授予一位成員：對一個或所有物件執行某模組的某個動作。它屬於站台，只能允許，不能拒絕。";
        apart: "Direct grants are apart from the catalog and its roles: a direct grant opens no path. It counts only where a program asks for exactly this kind, scope, module and action.", "直接授權與權限目錄及角色無關：它不會開放任何路徑，只有在程式以完全相同的類型、範圍、模組與動作詢問時才有作用。";
        example: "Example: {} lets the member delete every video.", "例如 {}：成員可以刪除所有影片。";
        find: "Whose?", "哪位成員？";
        find_about: "Search by name, e-mail or username.", "以名稱、電子郵件或使用者名稱搜尋。";
        nobody: "Nobody fits", "沒有符合的成員";
        nobody_text: "Search for another part of the name or e-mail. Somebody who has not signed in yet can be granted a right below.", "請改搜尋名稱或電子郵件的其他部分。尚未登入過的人可以在下方授權。";
        more_fit: "More members fit: search for more of the name.", "還有其他符合的成員，請輸入更完整的名稱。";
        of: "Direct grants of {}", "{} 的直接授權";
        none: "No direct grants", "沒有直接授權";
        none_text: "This member has only the rights of its roles. Grant one below.", "這位成員只有角色的權限。可以在下方授權。";
        scope_type: "Kind of scope", "範圍類型";
        scope_id: "Scope", "範圍";
        module: "Module", "模組";
        action: "Action", "動作";
        since: "Since", "授予時間";
        every: "all", "全部";
        asleep: "without effect: the organization is inactive", "無作用：組織已停用";
        more: "More about {}", "{} 的更多動作";
        revoke: "Revoke", "撤銷";
        grant: "Grant a right", "授予權限";
        grant_button: "Grant", "授予";
        unknown: "Somebody who has not signed in yet", "尚未登入過的人";
        unknown_about: "Creates a member for this authentik subject, who finds the right at the first sign-in.", "以這個 authentik 識別碼建立成員，首次登入時即有此權限。";
        granted: "{} is granted.", "已授予 {}。";
        revoked: "{} is revoked.", "已撤銷 {}。";
        was_not: "The member did not have {}.", "成員沒有 {}。";
        other: "Another member", "其他成員";
        profile: "E-mail", "電子郵件";
    }
}

/// The address of the page, without the public path.
const ADDRESS: &str = "/console/site/grants";
/// The form that the buttons of the rows send.
const ROWS_FORM: &str = "rows";
/// The most members that a search shows.
const FOUND_MAX: usize = 20;

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// What a member is called: the first name that is set.
fn name_of(user: &Value) -> &str {
    let names = ["display_name", "username", "email", "id"];
    names.into_iter().map(|name| text(user, name)).find(|name| !name.is_empty()).unwrap_or_default()
}

fn address_of(uid: &str) -> String {
    format!("{ADDRESS}?member={}", encoded(uid))
}

pub async fn list(visit: &Visit) -> Result<View> {
    let uid = visit.query("member").map(str::to_owned);
    Ok(page(visit, uid.as_deref(), None).await?.into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("grant") => grant(visit).await,
        Some(act) if act.starts_with("revoke ") => revoke(visit, act).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

// ── acts ──

/// A right in the value of a button: scope type, module and action have no blanks.
fn act_of(right: &Value) -> String {
    format!("revoke {}", right_of(right))
}

fn right_of(right: &Value) -> String {
    ["scope_type", "module", "action", "scope_id"].map(|name| text(right, name)).join(" ")
}

/// The right as one reads it: `cameras.view (site north)`.
fn readable(right: &Value) -> String {
    let [module, action, scope_type, scope_id] =
        ["module", "action", "scope_type", "scope_id"].map(|name| text(right, name));
    format!("{module}.{action} ({scope_type} {scope_id})")
}

async fn grant(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let body = form::read(visit.operation("grant_right")?, visit);
    let uid = visit.submitted("uid");
    match visit.call(op("grant_right").body(&body).once(visit.submitted(form::ONCE))).await {
        Ok(_) => {
            let act = act_of(&body);
            let who = if uid.is_some() { "uid" } else { "authentik_sub" };
            let undo = [("act", act.as_str()), (who, text(&body, who))];
            let done = Notice::new(fill(t.granted, &[&readable(&body)])).with_undo(ADDRESS, &undo);
            let to = match (uid, visit.submitted("email")) {
                (Some(uid), _) => address_of(uid),
                (None, Some(email)) => format!("{ADDRESS}?q={}", encoded(email)),
                (None, None) => ADDRESS.to_owned(),
            };
            Ok(View::Redirect(to, Some(done)))
        }
        Err(error) if is_of_form(&error) || error.code == ErrorCode::UserNotFound => {
            Ok(page(visit, uid, Some(&error)).await?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

async fn revoke(visit: &Visit, act: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let parts: Vec<&str> = act.splitn(5, ' ').collect();
    let [_, scope_type, module, action, scope_id] = parts[..] else { return Err(ErrorCode::BadInput.into()) };
    let mut body = serde_json::json!({
        "scope_type": scope_type, "scope_id": scope_id, "module": module, "action": action,
    });
    let uid = visit.submitted("uid");
    let who = if uid.is_some() { "uid" } else { "authentik_sub" };
    body[who] = visit.submitted(who).unwrap_or_default().into();
    let to = uid.map_or_else(|| ADDRESS.to_owned(), address_of);
    match visit.call(op("revoke_right").body(&body)).await {
        Ok(answer) if answer.data["deleted"] == 0 => visit.done(to, fill(t.was_not, &[&readable(&body)])),
        Ok(_) => {
            let fields = ["scope_type", "scope_id", "module", "action", who].map(|name| (name, text(&body, name)));
            let undo: Vec<(&str, &str)> = std::iter::once(("act", "grant")).chain(fields).collect();
            let done = Notice::new(fill(t.revoked, &[&readable(&body)])).with_undo(ADDRESS, &undo);
            Ok(View::Redirect(to, Some(done)))
        }
        Err(error) if is_of_form(&error) => Ok(page(visit, uid, Some(&error)).await?.status_of(&error).into()),
        Err(error) => Err(error),
    }
}

// ── the page ──

async fn page(visit: &Visit, uid: Option<&str>, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    match uid {
        Some(uid) => of_member(visit, t, uid, error).await,
        None => search(visit, t, error).await,
    }
}

/// The search for a member, and the form for somebody who is none yet.
async fn search(visit: &Visit, t: &Words, error: Option<&Error>) -> Result<Content> {
    let query = visit.query("q");
    let found = match query {
        Some(query) => visit.call(op("list_users").query("keyword", query).query("limit", FOUND_MAX)).await?.data,
        None => Value::Null,
    };
    let region = html! {
        @if query.is_some() { (members(visit, t, &found)) }
    };
    let body = html! {
        p { (t.about) }
        p { (t.apart) }
        @if visit.may("list_users") {
            h2 { (t.find) }
            (components::filter_bar(&visit.here(), Some("members"), html! {
                (search_field("q", query.unwrap_or_default(), t.find_about))
            }, visit.frame().search))
            (components::region("members", None, region))
        }
        @if visit.may("grant_right") { (card(t.unknown, unknown_form(visit, t, error)?)) }
    };
    Ok(Content::new(t.title, body))
}

fn members(visit: &Visit, t: &Words, found: &Value) -> Markup {
    let users = list::items(found);
    if users.is_empty() {
        return empty(t.nobody, t.nobody_text, None);
    }
    let row = |user: &Value| Row {
        cells: vec![html! { (name_of(user)) }, html! { (text(user, "email")) }],
        href: Some(visit.href(&address_of(text(user, "id")))),
        ..Row::default()
    };
    let columns = [Column::new(t.find), Column::new(t.profile)];
    html! {
        (table(t.find, &columns, users.iter().map(row).collect()))
        @if found["total"].as_u64().is_some_and(|total| total > users.len() as u64) { p { (t.more_fit) } }
    }
}

/// The grants of a member.
async fn of_member(visit: &Visit, t: &Words, uid: &str, error: Option<&Error>) -> Result<Content> {
    let grants = list::paged(visit, op("list_rights").query("member", uid));
    let (user, grants) = try_join(visit.call(op("get_user").at(uid)), visit.call(grants)).await?;
    let (user, grants) = (user.data, grants.data);
    let body = html! {
        @if let Some(error) = error.filter(|error| error.fields.is_empty() && !is_of_grant(visit)) {
            (notice(Tone::Bad, &errors::sentence(error, visit.language), None))
            (layout::details(visit, error))
        }
        @if list::items(&grants).is_empty() && list::offset(visit) == 0 { (empty(t.none, t.none_text, None)) }
        @else { (held(visit, t, uid, &grants)) }
        @if visit.may("grant_right") { (card(t.grant, grant_form(visit, t, uid, error)?)) }
    };
    let content = Content::new(fill(t.of, &[&name_of(&user)]), body);
    Ok(content.actions(link_button(&visit.here(), t.other)))
}

fn is_of_grant(visit: &Visit) -> bool {
    visit.submitted("act") == Some("grant")
}

fn held(visit: &Visit, t: &Words, uid: &str, grants: &Value) -> Markup {
    let may_revoke = visit.may("revoke_right");
    let row = |grant: &Value| {
        let right = readable(grant);
        let menu = || Menu { label: fill(t.more, &[&right]), items: menu_act_of(grant, t) };
        Row {
            cells: vec![
                html! { (text(grant, "scope_type")) },
                html! {
                    @if text(grant, "scope_id") == "*" { (t.every) } @else { code { (text(grant, "scope_id")) } }
                    @if grant["in_effect"] == false { " " (badge(Tone::Warn, t.asleep)) }
                },
                html! { (text(grant, "module")) },
                html! { (text(grant, "action")) },
                components::time_ago(grant["created_at"].as_i64().unwrap_or_default()),
            ],
            menu: may_revoke.then(menu),
            ..Row::default()
        }
    };
    let columns = [
        Column::new(t.scope_type),
        Column::new(t.scope_id),
        Column::new(t.module),
        Column::new(t.action),
        Column::new(t.since),
    ];
    html! {
        @if may_revoke {
            form id=(ROWS_FORM) method="post" action=(visit.here()) { (components::hidden_input("uid", uid)) }
        }
        (table(t.title, &columns, list::items(grants).iter().map(row).collect()))
        (list::pager(visit, grants))
    }
}

fn menu_act_of(grant: &Value, t: &Words) -> Markup {
    menu_act(ROWS_FORM, "revoke", &right_of(grant), t.revoke)
}

/// The fields of a right.
fn right_fields(t: &Words, form: &Form<'_>) -> Markup {
    html! {
        p.quiet { (fill(t.example, &[&"video / * / video / delete"])) }
        (form.field("scope_type"))
        (form.field("scope_id"))
        (form.field("module"))
        (form.field("action"))
    }
}

fn grant_form(visit: &Visit, t: &Words, uid: &str, error: Option<&Error>) -> Result<Markup> {
    let form = right_form(visit, error)?;
    let inner = html! {
        (components::hidden_input("act", "grant"))
        (components::hidden_input("uid", uid))
        p { (t.apart) }
        (right_fields(t, &form))
    };
    Ok(form.wrap(&visit.here(), inner, t.grant_button))
}

/// The form of a right. The `action` of the API is a field of it, so the act of the page has another name.
fn right_form<'v>(visit: &'v Visit, error: Option<&Error>) -> Result<Form<'v>> {
    Ok(Form::new(visit, "grant_right")?.error(error.filter(|_| is_of_grant(visit))))
}

fn unknown_form(visit: &Visit, t: &Words, error: Option<&Error>) -> Result<Markup> {
    let form = right_form(visit, error)?;
    let inner = html! {
        p { (t.unknown_about) }
        (components::hidden_input("act", "grant"))
        (form.field("authentik_sub"))
        (form.field("email"))
        (form.field("display_name"))
        (right_fields(t, &form))
    };
    Ok(form.wrap(&visit.here(), inner, t.grant_button))
}
