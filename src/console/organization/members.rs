//! The members of an organization, or of the whole site: the list with acts on one or several of them, and what the pages
//! of one member share.

pub mod activity;
mod bulk;
pub mod keys;
pub mod new;
pub mod profile;
pub mod quota;
pub mod roles;
pub mod sessions;

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

pub use self::bulk::act;
use self::bulk::{Act, bulk_bar};
pub use super::roles::name_of;
use crate::console::client::op;
use crate::console::components::{self, Column, Confirm, Field, Icon, Kind, Menu, Row, RowSelect, Select, Tab, Tone};
use crate::console::i18n::{Language, errors, fields, fill, roles as role_names, words};
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::console::{layout, list};
use crate::kernel::authz::delegation;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, RoleId};
use crate::kernel::units::shown_bytes;

words! {
    Words {
        title: "Members", "成員";
        new: "New member", "新增成員";
        import: "Import", "匯入";
        invite: "Invite", "邀請";
        search: "Search name or e-mail", "搜尋姓名或電子郵件";
        status: "Status", "狀態";
        active: "Active", "啟用";
        inactive: "Suspended or waiting", "停權或等待中";
        name: "Name", "姓名";
        email: "E-mail", "電子郵件";
        stored: "Stored", "已用空間";
        elsewhere: "Also belongs to other organizations, which is why the size is not shown.", "此成員也屬於其他組織，因此不顯示用量。";
        since: "Since", "建立時間";
        found_none: "Nobody was found", "找不到成員";
        found_none_text: "No member matches these filters. Search for a part of the name or e-mail, or show everybody.", "沒有符合條件的成員。請改搜姓名或電子郵件的一部分，或顯示全部成員。";
        show_all: "Show everybody", "顯示全部";
        nobody: "No members yet", "還沒有成員";
        nobody_on_site: "Create the first member, or import them from a spreadsheet.", "請建立第一位成員，或從試算表匯入。";
        nobody_text: "Invite somebody: they get a link, choose their own password, and are in.", "邀請對方加入：對方會收到連結，自行設定密碼後即可使用。";
        select: "Select {}", "選取 {}";
        more: "More about {}", "{} 的其他操作";
        with_selected: "With the selected members", "對已選取的成員";
        all_here: "All on this page", "本頁全選";
        role: "Role", "角色";
        suspend: "Suspend", "停權";
        activate: "Activate", "啟用";
        give_role: "Give the role", "授予角色";
        give_a_role: "Give a role", "授予角色";
        take_out: "Take out of the organization", "移出組織";
        ask: "Ask about {}", "查詢 {} 的權限";
        select_first: "Select at least one member first.", "請先選取至少一位成員。";
        choose_role: "Choose the role to give.", "請選擇要授予的角色。";
        suspended_one: "{} is suspended. All sessions and keys stopped working.", "{} 已停權，所有工作階段與金鑰都已失效。";
        suspended_many: "{} members are suspended. Their sessions and keys stopped working.", "已將 {} 位成員停權，其工作階段與金鑰都已失效。";
        activated_one: "{} is active again.", "{} 已重新啟用。";
        activated_many: "{} members are active again.", "已重新啟用 {} 位成員。";
        given_one: "{} has the role now.", "已授予 {} 該角色。";
        given_many: "{} members have the role now.", "已授予 {} 位成員該角色。";
        taken_out_one: "{} is no longer in this organization.", "{} 已移出此組織。";
        taken_out_many: "{} members are no longer in this organization.", "已將 {} 位成員移出此組織。";
        some_refused: "{} done, {} not done:", "{} 筆完成，{} 筆未完成：";
        none_done: "Nothing was done:", "沒有變更任何內容：";
        holds_more: "This member has rights that you do not hold (such as a direct grant of the site): ask an administrator of the site.", "此成員擁有您沒有的權限（例如站台的直接授權），請洽站台管理員。";
        left_out: "You: left out.", "您本人：已略過。";
        take_out_title: "Take {} out of {}?", "要將 {} 移出 {} 嗎？";
        members_of: "{} members", "{} 位成員";
        take_out_roles: "Their roles in this organization end at once.", "他們在此組織的角色會立即失效。";
        take_out_stays: "The accounts, their videos and other organizations stay.", "帳號、影片與其他組織的資格都會保留。";
        take_out_back: "They can come back by a new invitation, but get their roles anew.", "之後可以重新邀請，但角色需要重新授予。";
        about_member: "About this member", "成員資料";
        profile: "Profile", "基本資料";
        roles: "Roles", "角色";
        keys: "API keys", "API 金鑰";
        quota: "Quota", "配額";
        sessions: "Sessions", "工作階段";
        activity: "Activity", "活動紀錄";
    }
}

/// The address of a page about members, without the public path: of the organization that the address names, or of the
/// site.
pub fn place(visit: &Visit, rest: &str) -> String {
    match visit.organization() {
        Some(_) => visit.of_organization(rest),
        None => format!("/console/site/{rest}"),
    }
}

/// The name of a role in the reader's language.
pub fn role_name<'r>(visit: &Visit, display_name: &'r Value, key: &'r Value) -> &'r str {
    role_names::name(display_name.as_str().unwrap_or_default(), key.as_str().unwrap_or_default(), visit.language)
}

/// Whether the visitor may give this role of the organization, which holds nothing that the visitor lacks.
/// For what is offered; the operation itself decides.
pub fn may_give(visit: &Visit, role: &Value) -> bool {
    let (Some(identity), Some(here)) = (&visit.identity, visit.organization()) else { return false };
    let (snapshot, organization) = (visit.console.app.snapshot(), OrganizationId::of(&here.id));
    let known = snapshot.tenant(organization);
    let known = known.and_then(|tenant| tenant.role(RoleId::of(role["id"].as_str().unwrap_or_default())));
    known.is_some_and(|role| delegation::require_held(&snapshot, identity, organization, role).is_ok())
}

/// The id of the role that is proposed, if it is one of these choices: `member`, or the owner for the first member.
pub fn proposed_role(data: &Value, choices: &[(String, String)], is_first: bool) -> Option<String> {
    let roles = data["roles"].as_array().map_or(&[][..], Vec::as_slice);
    let id_of = |key: &str| {
        let mut ids = roles.iter().filter(|role| role["key"] == key).filter_map(|role| role["id"].as_str());
        ids.find(|id| choices.iter().any(|(choice, _)| choice == id)).map(str::to_owned)
    };
    let of_first = if is_first { id_of("tenant_owner") } else { None };
    of_first.or_else(|| id_of("member"))
}

/// Whether nobody belongs to the organization yet; false if the visitor cannot see it.
pub async fn has_no_member(visit: &Visit) -> bool {
    let found = visit.find(op("list_users").query("limit", 1)).await;
    found.is_some_and(|found| found["total"] == 0)
}

/// The roles of an answer of `list_roles` that the visitor may give, as choices: ids and names.
pub fn role_choices(visit: &Visit, data: &Value) -> Vec<(String, String)> {
    let roles = data["roles"].as_array().map_or(&[][..], Vec::as_slice);
    let choice = |role: &Value| {
        let id = role["id"].as_str()?;
        Some((id.to_owned(), role_name(visit, &role["display_name"], &role["key"]).to_owned()))
    };
    roles.iter().filter(|role| role["status"] != "close" && may_give(visit, role)).filter_map(choice).collect()
}

/// The status as a badge.
pub fn status_badge(visit: &Visit, status: &str) -> Markup {
    let tone = match status {
        "active" => Tone::Ok,
        "pending" => Tone::Warn,
        "suspended" => Tone::Bad,
        _ => Tone::Plain,
    };
    components::badge(tone, &fields::value(status, visit.language))
}

/// How full the member's quota is. An organization does not see it of somebody who belongs to several.
fn stored(visit: &Visit, user: &Value) -> Markup {
    let t = Words::of(visit.language);
    let bytes = |key: &str| user[key].as_i64().unwrap_or_default();
    let (used, size) = (bytes("quota_used"), bytes("quota_size"));
    if user["organization_id"].is_null() && size == 0 && used == 0 {
        return html! { span class="quiet" title=(t.elsewhere) { "–" } };
    }
    let text = format!("{} / {}", shown_bytes(used), shown_bytes(size));
    components::meter(t.stored, used.unsigned_abs(), Some(size.unsigned_abs()), &text)
}

/// This page with its query, for a redirect back to it.
fn back(visit: &Visit) -> String {
    let address = visit.with_query(&[("confirm", "")]);
    address.strip_prefix(&visit.href("")).unwrap_or(&address).to_owned()
}

/// The list of members.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}).await?.into())
}

/// The list below `above`, which tells what just happened.
async fn page(visit: &Visit, above: Markup) -> Result<Content> {
    let t = Words::of(visit.language);
    let is_active = visit.query("is_active").filter(|text| matches!(*text, "true" | "false"));
    let sort = visit.query("sort").filter(|key| matches!(*key, "name" | "-name" | "created_at" | "-created_at"));
    let call = list::paged(visit, op("list_users"))
        .query_some("keyword", visit.query("keyword"))
        .query_some("is_active", is_active)
        .query_some("sort", sort);
    let (found, roles) = join(visit.call(call), roles_to_give(visit)).await;
    let data = found?.data;
    let is_of_site = visit.organization().is_none();
    let can_create = visit.may(if is_of_site { "create_user" } else { "create_member" });
    let (can_invite, can_import) =
        (!is_of_site && visit.may("create_invitation"), is_of_site && visit.may("import_users"));
    let invite = html! {
        @if can_import { (components::link_button(&visit.href("/console/site/import"), t.import)) }
        @if can_invite { (components::link_button_of(&visit.in_organization("invitations"), t.invite, Kind::Main, Some(Icon::Plus))) }
        @if can_create { (components::link_button(&visit.href(&place(visit, "members/new")), t.new)) }
    };
    let inner = if !list::items(&data).is_empty() {
        html! { (table(visit, &data)) (bulk_bar(visit, &roles)) (list::pager(visit, &data)) }
    } else if ["keyword", "is_active", "offset"].iter().any(|name| visit.query(name).is_some()) {
        let all = components::link_button(&visit.here(), t.show_all);
        components::empty(t.found_none, t.found_none_text, Some(all))
    } else {
        components::empty(t.nobody, if is_of_site { t.nobody_on_site } else { t.nobody_text }, Some(invite.clone()))
    };
    let body = html! { (above) (filters(visit, is_active)) (components::region("members", None, inner)) };
    Ok(Content::new(t.title, body).actions(invite))
}

/// The roles of the organization, if the visitor may give any: ids and names.
async fn roles_to_give(visit: &Visit) -> Vec<(String, String)> {
    if visit.organization().is_none() || !visit.may("assign_user_role") {
        return Vec::new();
    }
    role_choices(visit, &visit.find(op("list_roles")).await.unwrap_or_default())
}

fn filters(visit: &Visit, is_active: Option<&str>) -> Markup {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let options = [("", frame.all), ("true", t.active), ("false", t.inactive)];
    let about = Field::new("is_active", t.status);
    let select =
        Select { name: "is_active", options: &options, chosen: is_active.unwrap_or_default(), is_required: false };
    let inner = html! {
        (components::search_field("keyword", visit.query("keyword").unwrap_or_default(), t.search))
        (components::field(&about, components::select_input(&about, &select)))
        (list::kept(visit))
    };
    components::filter_bar(&visit.here(), Some("members"), inner, frame.filter)
}

/// The id of the form that acts on the selected rows.
const BULK_FORM: &str = "selected";

fn table(visit: &Visit, data: &Value) -> Markup {
    let t = Words::of(visit.language);
    let columns = [
        list::sorted(visit, t.name, "name", "created_at"),
        Column::new(t.email),
        Column::new(t.status),
        Column::new(t.stored),
        list::sorted(visit, t.since, "created_at", "created_at"),
    ];
    let has_acts = Act::of(visit).next().is_some();
    let row = |user: &Value| {
        let (id, name) = (user["id"].as_str().unwrap_or_default(), name_of(user));
        Row {
            cells: vec![
                html! { (name) },
                html! { (user["email"].as_str().unwrap_or("–")) },
                status_badge(visit, user["status"].as_str().unwrap_or_default()),
                stored(visit, user),
                components::time_ago(user["created_at"].as_i64().unwrap_or_default()),
            ],
            href: Some(visit.href(&place(visit, &format!("members/{id}")))),
            select: has_acts.then(|| RowSelect {
                form: BULK_FORM,
                name: "uid",
                value: id.to_owned(),
                label: fill(t.select, &[&name]),
            }),
            menu: Some(Menu { label: fill(t.more, &[&name]), items: menu(visit, user) }),
        }
    };
    components::table(t.title, &columns, list::items(data).iter().map(row).collect())
}

/// The acts on one row: what can be undone at once, the rest on pages of their own.
fn menu(visit: &Visit, user: &Value) -> Markup {
    let t = Words::of(visit.language);
    let id = user["id"].as_str().unwrap_or_default();
    let link =
        |rest: &str, text: &str| components::menu_link(&visit.in_organization(&format!("members/{id}{rest}")), text);
    let act = if user["status"] == "active" { Act::Suspend } else { Act::Activate };
    let is_oneself = id == visit.uid();
    let is_here = visit.organization().is_some();
    html! {
        @if !is_oneself && visit.may(act.operation()) {
            (components::menu_act(BULK_FORM, act.as_str(), id, act.text(visit.language)))
        }
        @if is_here && visit.may("assign_user_role") && visit.may("list_user_roles") { (link("/roles", t.give_a_role)) }
        @if is_here && visit.may("check_permission") {
            (components::menu_link(
                &visit.in_organization(&format!("why?uid={id}")), &fill(t.ask, &[&name_of(user)]),
            ))
        }
        @if is_here && !is_oneself && visit.may("unlink_member") { (link("?confirm=take_out", t.take_out)) }
    }
}

/// The question before members are taken out. The form is sent to this page.
pub fn take_out_box(visit: &Visit, who: &str, organization: &str, sent: Markup, cancel_href: &str) -> Markup {
    let t = Words::of(visit.language);
    components::confirm_box(&Confirm {
        title: &fill(t.take_out_title, &[&who, &organization]),
        action: &visit.with_query(&[("confirm", "")]),
        what_goes: &[t.take_out_roles, t.take_out_stays, t.take_out_back].map(str::to_owned),
        typed: None,
        sent: Some(sent),
        submit: t.take_out,
        cancel: visit.frame().cancel,
        cancel_href,
    })
}

/// Whether the form is shown again with this error of its operation. Who may not call the operation sees no form.
pub fn is_shown_in_form(visit: &Visit, operation: &str, error: &Error) -> bool {
    is_of_form(error) || (error.is_denial() && visit.may(operation))
}

/// The pages about one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberTab {
    Profile,
    Roles,
    Keys,
    Quota,
    Sessions,
    Activity,
}

impl MemberTab {
    /// The last part of its address, its text, and an operation without which it is empty.
    fn about(self, language: Language) -> (&'static str, &'static str, &'static [&'static str]) {
        let t = Words::of(language);
        match self {
            Self::Profile => ("", t.profile, &["get_user"]),
            Self::Roles => ("/roles", t.roles, &["list_user_roles"]),
            Self::Keys => ("/keys", t.keys, &["list_member_api_keys"]),
            Self::Quota => ("/quota", t.quota, &["list_ledger", "update_member_quota"]),
            Self::Sessions => ("/sessions", t.sessions, &["list_member_sessions"]),
            Self::Activity => ("/activity", t.activity, &["list_audit", "list_decisions"]),
        }
    }
}

/// The member that the address names.
pub async fn get_user(visit: &Visit) -> Result<Value> {
    Ok(visit.call(op("get_user").at(visit.path("uid"))).await?.data)
}

/// The address of the member's page, without the public path.
pub fn address_of(visit: &Visit, tab: MemberTab) -> String {
    let (rest, ..) = tab.about(visit.language);
    place(visit, &format!("members/{}{rest}", visit.path("uid")))
}

/// A page about one member: the name as its title, and tabs to the others that the visitor may open.
pub fn member_page(visit: &Visit, user: &Value, tab: MemberTab, body: Markup) -> Content {
    let t = Words::of(visit.language);
    let all = [
        MemberTab::Profile,
        MemberTab::Roles,
        MemberTab::Keys,
        MemberTab::Quota,
        MemberTab::Sessions,
        MemberTab::Activity,
    ];
    // Roles belong to an organization.
    let is_here = |tab: &MemberTab| *tab != MemberTab::Roles || visit.organization().is_some();
    let is_open =
        |tab: &MemberTab| is_here(tab) && tab.about(visit.language).2.iter().any(|operation| visit.may(operation));
    let shown: Vec<Tab<'_>> = all
        .into_iter()
        .filter(|one| *one == tab || is_open(one))
        .map(|one| Tab {
            href: visit.href(&address_of(visit, one)),
            text: one.about(visit.language).1,
            is_current: one == tab,
        })
        .collect();
    let name = name_of(user);
    let content = Content::new(name, html! { (components::tabs(t.about_member, &shown)) (body) });
    if visit.organization().is_none() || !visit.may("check_permission") {
        return content;
    }
    let href = visit.in_organization(&format!("why?uid={}", visit.path("uid")));
    content.actions(components::link_button_of(&href, &fill(t.ask, &[&name]), Kind::Plain, Some(Icon::Question)))
}

/// Why an act on a member, which gives no right, was refused. Some messages already say it of the member.
pub fn sentence_of_act(visit: &Visit, error: &Error) -> String {
    match error.code {
        ErrorCode::NotHeld if !error.message().starts_with("this member ") => {
            Words::of(visit.language).holds_more.to_owned()
        }
        _ => errors::sentence(error, visit.language),
    }
}

/// The page of a member when an act, or the page itself, was refused: why, and the way back.
pub fn refused(visit: &Visit, user: &Value, tab: MemberTab, error: &Error) -> View {
    let way_back = match visit.form.is_empty() {
        true => visit.href(&address_of(visit, MemberTab::Profile)),
        false => visit.here(),
    };
    let sentence = match tab {
        // What is given there is what is not held.
        MemberTab::Roles | MemberTab::Keys => errors::sentence(error, visit.language),
        _ => sentence_of_act(visit, error),
    };
    let body = html! {
        (components::notice(Tone::Bad, &sentence, None))
        (layout::details(visit, error))
        (components::actions(components::link_button(&way_back, visit.frame().back)))
    };
    member_page(visit, user, tab, body).status_of(error).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::name_of;

    #[test]
    fn members_are_called_by_the_best_name_they_have() {
        let cases = [
            (json!({"display_name": "Kim Lee", "username": "kim", "id": "1"}), "Kim Lee"),
            (json!({"display_name": null, "username": "kim", "email": "kim@example.org", "id": "1"}), "kim"),
            (json!({"display_name": "", "username": null, "email": "kim@example.org", "id": "1"}), "kim@example.org"),
            (json!({"id": "1"}), "1"),
            (json!(null), ""),
        ];
        for (member, name) in cases {
            assert_eq!(name_of(&member), name);
        }
    }
}
