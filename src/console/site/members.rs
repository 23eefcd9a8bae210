//! A member on the pages of the site: names, accounts elsewhere, access, and the organizations it belongs to. The list and
//! what is the same in an organization stand in `organization/members.rs`.

pub mod new;

use futures_util::future::{join, join3};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::console::client::op;
use crate::console::components::{self, Change, Column, Field, Menu, Row, Select, Text, menu_link};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list;
use crate::console::organization::members::{
    MemberTab, address_of, get_user, is_shown_in_form, member_page, name_of, profile, refused, take_out_box,
};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        organizations: "Organizations", "所屬組織";
        none: "Belongs to no organization. It can sign in, but has no rights anywhere until it joins one.", "不屬於任何組織。可以登入，但加入組織之前沒有任何權限。";
        organization: "Organization", "組織";
        code: "Code", "代碼";
        status: "State", "狀態";
        since: "Since", "加入時間";
        more: "More about {}", "{} 的更多動作";
        roles: "Roles there", "在此組織的角色";
        why: "Ask about its rights there", "查詢在此組織的權限";
        open: "Organization's settings", "組織設定";
        take_out: "Take out", "移出";
        join: "Add to an organization", "加入組織";
        join_hint: "It gets no role by this: assign one on the page that follows.", "加入時不會取得角色，請在接下來的頁面授予。";
        join_code_hint: "The code of the organization, as in addresses.", "組織的代碼，如網址中所示。";
        joined: "{} is a member of {} now. Assign a role below.", "{} 已加入 {}，請在下方授予角色。";
        taken_out: "{} is no longer in {}.", "{} 已移出 {}。";
        grants: "Direct grants", "直接授權";
        elsewhere: "Accounts elsewhere", "其他系統的帳號";
        folder_stays: "Folder and SFTPGo name: {}. Folders are never renamed.", "資料夾與 SFTPGo 名稱：{}。資料夾不會重新命名。";
        saved: "Saved.", "已儲存。";
        unchanged: "Nothing was changed.", "沒有變更任何內容。";
        field: "Field", "欄位";
        theirs: "Now", "目前";
        yours: "Yours", "您的";
        suspend: "Suspend", "停權";
        suspend_text: "Signs the member out everywhere, stops all keys at once and holds queued jobs. Nothing is deleted.", "立即登出所有裝置、停用所有金鑰並暫停排隊中的工作，不會刪除任何資料。";
        suspended: "{} is suspended. All sessions and keys stopped working.", "{} 已停權，所有工作階段與金鑰都已失效。";
    }
}

const TAB: MemberTab = MemberTab::Profile;
const OPERATION: &str = "update_user";
/// The most organizations to choose from; beyond it the code is typed.
const CHOICES_MAX: u64 = 200;

/// Shows the member, or the question before something that cannot be undone.
pub async fn show(visit: &Visit) -> Result<View> {
    match (visit.query("confirm"), visit.query("organization")) {
        (Some("take_out"), Some(id)) if visit.may("unlink_member") => confirm_take_out(visit, id).await,
        (Some("erase" | "second_factor"), _) => profile::show(visit).await,
        _ => Ok(page(visit, None).await?.into()),
    }
}

/// The member; after a refused form with its error. The submitted `act` tells which form it was.
async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let (t, uid) = (Words::of(visit.language), visit.path("uid"));
    let (user, account, memberships) =
        join3(visit.call(op("get_user").at(uid)), visit.find(op("get_member").at(uid)), memberships(visit, error))
            .await;
    let (answer, account) = (user?, account.unwrap_or_default());
    let (user, etag) = (answer.data, answer.etag);
    let of = |act: &str| error.filter(|_| visit.submitted("act") == Some(act));
    let body = html! {
        (profile::names_form(visit, &user, etag.as_deref(), of("update"))?)
        (memberships?)
        @if visit.may(OPERATION) { (accounts_form(visit, &user, etag.as_deref(), of("accounts"))?) }
        (profile::access(visit, &user))
        @if user["status"] == "active" && uid != visit.uid() && visit.may(OPERATION) && visit.may("deactivate_member") {
            (suspend_form(visit, of("suspend"))?)
        }
        (profile::facts(visit, &user, &account))
        (profile::endings(visit))
    };
    let mut content = member_page(visit, &user, TAB, body);
    if visit.may("list_rights") {
        let grants = visit.href(&format!("/console/site/grants?member={uid}"));
        content = content.actions(components::link_button(&grants, t.grants));
    }
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// The organizations that the member belongs to, and the form to add it to another.
async fn memberships(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    if !visit.may("list_member_organizations") {
        return Ok(html! {});
    }
    let own = list::paged(visit, op("list_member_organizations").at(visit.path("uid")));
    let all = op("list_organizations").query("limit", CHOICES_MAX).query("offset", 0).query("status", "active");
    let (own, all) = join(visit.call(own), visit.find(all)).await;
    let (own, all) = (own?.data, all.unwrap_or_default());
    let body = html! {
        @if list::items(&own).is_empty() { p class="hint" { (t.none) } } @else {
            (table(visit, list::items(&own))) (list::pager(visit, &own))
        }
        @if visit.may("link_member") && visit.may("link_member_by_name") { (join_form(visit, &own, &all, error)) }
    };
    Ok(components::card(t.organizations, body))
}

fn table(visit: &Visit, memberships: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let columns = [t.organization, t.code, t.status, t.since].map(Column::new);
    let can_take_out = visit.may("unlink_member");
    let row = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap_or_default();
        let (id, code, name) = (text("id"), text("org_code"), text("name"));
        let there = |rest: &str| visit.href(&format!("/console/o/{code}/{rest}"));
        let member = format!("members/{}", visit.path("uid"));
        let items = html! {
            (menu_link(&there(&format!("{member}/roles")), t.roles))
            (menu_link(&there(&format!("why?uid={}", visit.path("uid"))), t.why))
            (menu_link(&visit.href(&format!("/console/site/organizations/{id}")), t.open))
            @if can_take_out {
                (menu_link(&visit.with_query(&[("confirm", "take_out"), ("organization", id)]), t.take_out))
            }
        };
        Row {
            cells: vec![
                html! { (name) },
                html! { code { (code) } },
                html! { (fields::value(text("status"), visit.language)) },
                components::time(one["created_at"].as_i64().unwrap_or_default()),
            ],
            href: Some(there(&member)),
            menu: Some(Menu { label: fill(t.more, &[&name]), items }),
            ..Row::default()
        }
    };
    components::table(t.organizations, &columns, memberships.iter().map(row).collect())
}

/// A choice of the other organizations, or a field for a code where there are too many.
fn join_form(visit: &Visit, own: &Value, all: &Value, error: Option<&Error>) -> Markup {
    let t = Words::of(visit.language);
    let error = error.filter(|_| visit.submitted("act") == Some("join"));
    let faults: Vec<String> = error.map(|error| errors::sentence(error, visit.language)).into_iter().collect();
    let has_all = all["total"].as_u64().is_some_and(|total| total <= CHOICES_MAX);
    let about = Field::new("organization", t.join).faults(&faults);
    let typed = visit.submitted("organization").unwrap_or_default();
    let control = if has_all {
        let is_new = |one: &&Value| !list::items(own).iter().any(|held| held["id"] == one["id"]);
        let mut options = vec![("", "—")];
        let option = |one: &'_ Value| Some((one["id"].as_str()?.to_owned(), one["name"].as_str()?.to_owned()));
        let others: Vec<(String, String)> = list::items(all).iter().filter(is_new).filter_map(option).collect();
        options.extend(others.iter().map(|(id, name)| (id.as_str(), name.as_str())));
        let about = about.hint(t.join_hint);
        let select = Select { name: "organization", options: &options, chosen: typed, is_required: true };
        components::field(&about, components::select_input(&about, &select))
    } else {
        let text = Text {
            name: "organization",
            value: typed,
            is_required: true,
            maxlength: Some(64),
            autocomplete: Some("off"),
            ..Text::default()
        };
        components::text_field(&about.hint(t.join_code_hint), &text)
    };
    html! {
        form method="post" action=(visit.here()) {
            (components::hidden_input("act", "join"))
            (control)
            (components::actions(components::button_plain(t.join)))
        }
    }
}

/// The fields of the form of accounts, which are also those of the difference after a conflict.
const ACCOUNTS: [&str; 2] = ["wordpress_id", "sftpgo_username"];

fn accounts_form(visit: &Visit, user: &Value, etag: Option<&str>, error: Option<&Error>) -> Result<Markup> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    // After a conflict the form holds the new version: saving it again is a decision made with both states in view.
    let version = etag.filter(|_| error.is_none() || is_stale);
    let form = Form::new(visit, OPERATION)?;
    let form = if visit.submitted("act") == Some("accounts") { form.values(user) } else { form.present(user) };
    let form = form.version(version).error(error);
    let shown = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let changes = ACCOUNTS.iter().filter_map(|name| {
        let (now, yours) = (shown(&user[*name]), visit.submitted(name).map(str::to_owned));
        (now != yours).then(|| Change { name: fields::label(name, visit.language), before: now, after: yours })
    });
    let inner = html! {
        (components::hidden_input("act", "accounts"))
        (form.field("wordpress_id"))
        @match user["sftpgo_username"].as_str() {
            Some(folder) => p class="hint" { (fill(t.folder_stays, &[&folder])) },
            None => (form.field("sftpgo_username")),
        }
    };
    let body = html! {
        @if is_stale {
            p { (frame.conflict_text) }
            (components::difference(frame.conflict_title, [t.field, t.theirs, t.yours], &changes.collect::<Vec<_>>()))
        }
        (form.wrap(&visit.here(), inner, frame.save))
    };
    Ok(components::card(t.elsewhere, body))
}

fn suspend_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, OPERATION)?.error(error);
    let inner = html! {
        p { (t.suspend_text) }
        (components::hidden_input("act", "suspend"))
        (form.field("reason"))
        (components::actions(components::button_plain(t.suspend)))
    };
    Ok(components::card(t.suspend, html! { (form.summary()) form method="post" action=(visit.here()) { (inner) } }))
}

/// The membership of the member in this organization.
async fn membership(visit: &Visit, id: &str) -> Result<Value> {
    let mut after: Option<String> = None;
    loop {
        let call = op("list_member_organizations").at(visit.path("uid")).query("limit", 200);
        let data = visit.call(call.query_some("after", after.as_deref())).await?.data;
        if let Some(found) = list::items(&data).iter().find(|one| one["id"] == id) {
            return Ok(found.clone());
        }
        after = data["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Err(ErrorCode::OrganizationNotFound.into());
        }
    }
}

async fn confirm_take_out(visit: &Visit, id: &str) -> Result<View> {
    let user = get_user(visit).await?;
    let organization = membership(visit, id).await?;
    let sent = html! { (components::hidden_input("act", "take_out")) (components::hidden_input("organization", id)) };
    let body = take_out_box(visit, name_of(&user), name_of_organization(&organization), sent, &visit.here());
    Ok(member_page(visit, &user, TAB, body).into())
}

fn name_of_organization(organization: &Value) -> &str {
    organization["name"].as_str().unwrap_or_default()
}

/// Performs what the submitted button says.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("organization")) {
        (Some("update"), _) => update(visit).await,
        (Some("accounts"), _) => update_accounts(visit).await,
        (Some("suspend"), _) => suspend(visit).await,
        (Some("join"), Some(organization)) => join_organization(visit, organization.trim()).await,
        (Some("take_out"), Some(id)) => take_out(visit, id).await,
        (Some("activate" | "password_link" | "reset_second_factor" | "erase"), _) => profile::act(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn update(visit: &Visit) -> Result<View> {
    match profile::change_names(visit).await {
        Ok(text) => visit.done(address_of(visit, TAB), text),
        Err(error) if is_shown_in_form(visit, "update_member", &error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// Changes the accounts elsewhere. Only what differs is sent.
async fn update_accounts(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let body = form::read(visit.operation(OPERATION)?, visit);
    let differs = |name: &&&str| body.get(**name).is_some_and(|sent| *sent != user[**name]);
    let changed = ACCOUNTS.iter().filter(differs).map(|name| ((*name).to_owned(), body[*name].clone()));
    let changed: Map<String, Value> = changed.collect();
    if changed.is_empty() {
        return visit.done(address_of(visit, TAB), t.unchanged);
    }
    let call = op(OPERATION).at(visit.path("uid")).body(&Value::Object(changed));
    match visit.call(call.if_match(visit.submitted(form::VERSION))).await {
        Ok(_) => visit.done(address_of(visit, TAB), t.saved),
        Err(error) if is_shown_in_form(visit, OPERATION, &error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// Suspends the member at once; the notice has the inverse.
async fn suspend(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let mut body = json!({"status": "suspended"});
    if let Some(reason) = visit.submitted("reason") {
        body["reason"] = json!(reason);
    }
    match visit.call(op(OPERATION).at(visit.path("uid")).body(&body)).await {
        Ok(answer) => {
            let notice = Notice::new(fill(t.suspended, &[&name_of(&answer.data)]));
            let address = address_of(visit, TAB);
            Ok(View::Redirect(address.clone(), Some(notice.with_undo(address, &[("act", "activate")]))))
        }
        Err(error) if is_shown_in_form(visit, OPERATION, &error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// Adds the member to an organization, and leads to its roles there.
async fn join_organization(visit: &Visit, organization: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let uid = visit.path("uid");
    let joined = match uuid::Uuid::parse_str(organization) {
        Ok(_) => visit.call(op("link_member").at(uid).at(organization)).await,
        Err(_) => {
            let body = json!({"organization": organization});
            visit.call(op("link_member_by_name").at(uid).body(&body)).await
        }
    };
    match joined {
        Ok(answer) => {
            let id = answer.data["organization_id"].as_str().unwrap_or(organization);
            let (user, membership) = join(get_user(visit), membership(visit, id)).await;
            let (user, membership) = (user?, membership?);
            let code = membership["org_code"].as_str().unwrap_or_default();
            let text = fill(t.joined, &[&name_of(&user), &name_of_organization(&membership)]);
            visit.done(format!("/console/o/{code}/members/{uid}/roles"), text)
        }
        Err(error)
            if error.code == ErrorCode::OrganizationNotFound || is_shown_in_form(visit, "link_member", &error) =>
        {
            Ok(page(visit, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

async fn take_out(visit: &Visit, id: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let (user, organization) = (get_user(visit).await?, membership(visit, id).await?);
    match visit.call(op("unlink_member").at(visit.path("uid")).at(id)).await {
        Ok(_) => {
            let text = fill(t.taken_out, &[&name_of(&user), &name_of_organization(&organization)]);
            visit.done(address_of(visit, TAB), text)
        }
        Err(error) if is_of_form(&error) || error.is_denial() => Ok(refused(visit, &user, TAB, &error)),
        Err(error) => Err(error),
    }
}
