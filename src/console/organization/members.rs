//! The members of an organization: the list with acts on one or several of them, and what the pages of one member share.

pub mod activity;
pub mod keys;
pub mod new;
pub mod profile;
pub mod quota;
pub mod roles;
pub mod sessions;

use futures_util::future::{join, join_all};
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::client::{Call, op};
use crate::console::components::{
    self, Bulk, Column, Confirm, Field, Icon, Kind, Menu, Row, RowSelect, Select, Tab, Tone,
};
use crate::console::i18n::{Language, errors, fields, fill, words};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::console::{layout, list};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::units::shown_bytes;

words! {
    Words {
        title: "Members", "成員";
        new: "New member", "新增成員";
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
        some_refused: "{} done, {} refused:", "{} 筆完成，{} 筆被拒絕：";
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

/// The name by which people know a member.
pub fn name_of(member: &Value) -> &str {
    let names = ["display_name", "username", "email", "id"].iter();
    names.filter_map(|key| member[*key].as_str()).find(|name| !name.is_empty()).unwrap_or_default()
}

/// The name of a role: its display name, or its key if that is empty.
pub fn role_name<'r>(display_name: &'r Value, key: &'r Value) -> &'r str {
    [display_name, key].into_iter().filter_map(Value::as_str).find(|name| !name.is_empty()).unwrap_or_default()
}

/// The roles of an answer of `list_roles`, as choices: ids and names.
pub fn role_choices(data: &Value) -> Vec<(String, String)> {
    let roles = data["roles"].as_array().map_or(&[][..], Vec::as_slice);
    let choice = |role: &Value| {
        let id = role["id"].as_str()?;
        Some((id.to_owned(), role_name(&role["display_name"], &role["key"]).to_owned()))
    };
    roles.iter().filter_map(choice).collect()
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
    let (can_create, can_invite) = (visit.may("create_member"), visit.may("create_invitation"));
    let invite = html! {
        @if can_invite { (components::link_button_of(&visit.in_organization("invitations"), t.invite, Kind::Main, Some(Icon::Plus))) }
        @if can_create { (components::link_button(&visit.in_organization("members/new"), t.new)) }
    };
    let inner = if !list::items(&data).is_empty() {
        html! { (table(visit, &data)) (bulk_bar(visit, &roles)) (list::pager(visit, &data)) }
    } else if ["keyword", "is_active", "offset"].iter().any(|name| visit.query(name).is_some()) {
        let all = components::link_button(&visit.here(), t.show_all);
        components::empty(t.found_none, t.found_none_text, Some(all))
    } else {
        components::empty(t.nobody, t.nobody_text, Some(invite.clone()))
    };
    let body = html! { (above) (filters(visit, is_active)) (components::region("members", None, inner)) };
    Ok(Content::new(t.title, body).actions(invite))
}

/// The roles of the organization, if the visitor may give any: ids and names.
async fn roles_to_give(visit: &Visit) -> Vec<(String, String)> {
    if !visit.may("assign_user_role") {
        return Vec::new();
    }
    role_choices(&visit.find(op("list_roles")).await.unwrap_or_default())
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
    let has_acts = Act::ALL.iter().any(|act| visit.may(act.operation()));
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
            href: Some(visit.in_organization(&format!("members/{id}"))),
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
    let link = |rest: &str, text: &str| {
        let href = visit.in_organization(&format!("members/{id}{rest}"));
        components::link_button_of(&href, text, Kind::Quiet, None)
    };
    let act = if user["status"] == "active" { Act::Suspend } else { Act::Activate };
    html! {
        @if visit.may(act.operation()) {
            form method="post" action=(visit.with_query(&[])) {
                (components::hidden_input("uid", id))
                (components::button_named("act", act.as_str(), act.text(visit.language), Kind::Quiet))
            }
        }
        @if visit.may("assign_user_role") && visit.may("list_user_roles") { (link("/roles", t.give_a_role)) }
        @if visit.may("check_permission") {
            (components::link_button_of(
                &visit.in_organization(&format!("why?uid={id}")), &fill(t.ask, &[&name_of(user)]), Kind::Quiet, None,
            ))
        }
        @if visit.may("unlink_member") { (link("?confirm=take_out", t.take_out)) }
    }
}

fn bulk_bar(visit: &Visit, roles: &[(String, String)]) -> Markup {
    let t = Words::of(visit.language);
    let acts: Vec<Act> = Act::ALL.into_iter().filter(|act| visit.may(act.operation())).collect();
    if acts.is_empty() {
        return html! {};
    }
    let options: Vec<(&str, &str)> = roles.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    let about = Field::new("role_id", t.role);
    let select = Select { name: "role_id", options: &options, chosen: "", is_required: false };
    let buttons = html! {
        @for act in acts {
            @if act != Act::GiveRole {
                @let kind = if act == Act::TakeOut { Kind::Danger } else { Kind::Plain };
                (components::button_named("act", act.as_str(), act.text(visit.language), kind))
            } @else if !roles.is_empty() {
                (components::field(&about, components::select_input(&about, &select)))
                (components::button_named("act", act.as_str(), act.text(visit.language), Kind::Plain))
            }
        }
    };
    let bulk = Bulk {
        form: BULK_FORM,
        action: &visit.with_query(&[]),
        text: t.with_selected,
        counted: visit.frame().selected,
        all: t.all_here,
    };
    components::bulk_bar(&bulk, buttons)
}

/// What can be done to several members at once. The operation is asked for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Suspend,
    Activate,
    GiveRole,
    TakeOut,
}

impl Act {
    const ALL: [Self; 4] = [Self::Suspend, Self::Activate, Self::GiveRole, Self::TakeOut];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::GiveRole => "give_role",
            Self::TakeOut => "take_out",
        }
    }

    const fn operation(self) -> &'static str {
        match self {
            Self::Suspend => "deactivate_member",
            Self::Activate => "activate_member",
            Self::GiveRole => "assign_user_role",
            Self::TakeOut => "unlink_member",
        }
    }

    fn text(self, language: Language) -> &'static str {
        let t = Words::of(language);
        match self {
            Self::Suspend => t.suspend,
            Self::Activate => t.activate,
            Self::GiveRole => t.give_role,
            Self::TakeOut => t.take_out,
        }
    }

    /// What was done to one, and to several.
    fn done(self, language: Language) -> [&'static str; 2] {
        let t = Words::of(language);
        match self {
            Self::Suspend => [t.suspended_one, t.suspended_many],
            Self::Activate => [t.activated_one, t.activated_many],
            Self::GiveRole => [t.given_one, t.given_many],
            Self::TakeOut => [t.taken_out_one, t.taken_out_many],
        }
    }

    /// The call for one member. `value` is the role, or the organization to leave.
    fn call(self, uid: &str, value: &str) -> Call {
        let call = op(self.operation()).at(uid);
        match self {
            Self::Suspend | Self::Activate => call,
            Self::GiveRole => call.body(&json!({"role_id": value})),
            Self::TakeOut => call.at(value),
        }
    }
}

/// What became of one of several members.
struct Outcome {
    uid: String,
    name: String,
    was_active: bool,
    error: Option<Error>,
}

/// The most members that one form acts on: a page of the list.
const SELECTED_MAX: usize = 200;
/// Calls that run at once: as many as one commit takes.
const AT_ONCE: usize = 64;
/// The most members whose ids a notice keeps for its Undo: it is a cookie.
const UNDO_MAX: usize = 50;

/// Acts on the selected members.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let act = visit.submitted("act").and_then(|text| Act::ALL.into_iter().find(|act| act.as_str() == text));
    let act = act.ok_or(ErrorCode::BadInput)?;
    let sent = visit.submitted_all("uid").flat_map(|text| text.split(','));
    let mut uids: Vec<&str> = sent.filter(|uid| !uid.is_empty()).collect();
    uids.dedup();
    if uids.len() > SELECTED_MAX {
        return Err(ErrorCode::TooLarge.into());
    }
    let role = visit.submitted("role_id").unwrap_or_default();
    let lacking = match act {
        _ if uids.is_empty() => Some(t.select_first),
        Act::GiveRole if role.is_empty() => Some(t.choose_role),
        _ => None,
    };
    if let Some(sentence) = lacking {
        let content = page(visit, components::notice(Tone::Bad, sentence, None)).await?;
        return Ok(content.status_of(&ErrorCode::BadInput.into()).into());
    }
    if act == Act::TakeOut && visit.submitted("confirm").is_none() {
        return confirm_take_out(visit, &uids).await;
    }
    let value = match act {
        Act::TakeOut => visit.organization().map_or("", |here| here.id.as_str()),
        _ => role,
    };
    let outcomes = perform(visit, act, &uids, value).await?;
    show(visit, act, &outcomes).await
}

/// Calls the operation for each member. Fails only if the session has ended.
async fn perform(visit: &Visit, act: Act, uids: &[&str], value: &str) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(uids.len());
    for some in uids.chunks(AT_ONCE) {
        let done = join_all(some.iter().map(async |uid| {
            let before = visit.find(op("get_user").at(uid)).await.unwrap_or_default();
            let error = visit.call(act.call(uid, value)).await.err();
            let name = if before.is_null() { *uid } else { name_of(&before) };
            let was_active = before.is_null() || before["status"] == "active";
            Outcome { uid: (*uid).to_owned(), name: name.to_owned(), was_active, error }
        }));
        outcomes.extend(done.await);
    }
    match outcomes.iter().find_map(|outcome| outcome.error.clone().filter(|error| error.code.status() == 401)) {
        Some(ended) => Err(ended),
        None => Ok(outcomes),
    }
}

/// Tells what was done. If something was refused, the list is shown with each reason.
async fn show(visit: &Visit, act: Act, outcomes: &[Outcome]) -> Result<View> {
    let t = Words::of(visit.language);
    let (done, refused): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|one| one.error.is_none());
    let [one, many] = act.done(visit.language);
    let sentence = match done.as_slice() {
        [only] => fill(one, &[&only.name]),
        all => fill(many, &[&all.len()]),
    };
    // Undone is only what this form changed.
    let undone: Vec<&str> = match act {
        Act::Suspend => done.iter().filter(|one| one.was_active).map(|one| one.uid.as_str()).collect(),
        Act::Activate => done.iter().filter(|one| !one.was_active).map(|one| one.uid.as_str()).collect(),
        Act::GiveRole | Act::TakeOut => Vec::new(),
    };
    let inverse = if act == Act::Suspend { Act::Activate } else { Act::Suspend };
    let can_undo = !undone.is_empty() && visit.may(inverse.operation());
    if refused.is_empty() && (!can_undo || undone.len() <= UNDO_MAX) {
        let notice = Notice::new(sentence);
        let notice = match can_undo {
            true => notice.with_undo(back(visit), &[("act", inverse.as_str()), ("uid", &undone.join(","))]),
            false => notice,
        };
        return Ok(View::Redirect(back(visit), Some(notice)));
    }
    let undo = can_undo.then(|| {
        html! {
            form method="post" action=(visit.with_query(&[])) {
                (components::hidden_input("uid", &undone.join(",")))
                (components::button_named("act", inverse.as_str(), visit.frame().undo, Kind::Plain))
            }
        }
    });
    let reason = |outcome: &Outcome| outcome.error.as_ref().map(|error| errors::sentence(error, visit.language));
    let above = html! {
        @if refused.is_empty() { (components::notice(Tone::Ok, &sentence, undo)) } @else {
            @let tone = if done.is_empty() { Tone::Bad } else { Tone::Warn };
            (components::notice(tone, &fill(t.some_refused, &[&done.len(), &refused.len()]), undo))
            ul class="results" {
                @for one in &refused { li { strong { (one.name) } " – " (reason(one).unwrap_or_default()) } }
            }
        }
    };
    let content = page(visit, above).await?;
    Ok(match refused.first().and_then(|one| one.error.as_ref()).filter(|_| done.is_empty()) {
        Some(error) => content.status_of(error).into(),
        None => content.into(),
    })
}

/// Asks before several members are taken out, because their roles do not come back by an Undo.
async fn confirm_take_out(visit: &Visit, uids: &[&str]) -> Result<View> {
    let t = Words::of(visit.language);
    const NAMED_MAX: usize = 6;
    let named = match uids.len() {
        0..=NAMED_MAX => {
            let users = join_all(uids.iter().map(|uid| visit.call(op("get_user").at(uid)))).await;
            let users = users.into_iter().collect::<Result<Vec<_>>>()?;
            users.iter().map(|user| name_of(&user.data)).collect::<Vec<_>>().join(", ")
        }
        count => fill(t.members_of, &[&count]),
    };
    let sent = html! {
        (components::hidden_input("uid", &uids.join(",")))
        (components::hidden_input("act", Act::TakeOut.as_str()))
        (components::hidden_input("confirm", "1"))
    };
    Ok(Content::new(t.take_out, take_out_box(visit, &named, sent, &visit.with_query(&[]))).into())
}

/// The question before members are taken out. The form is sent to this page.
fn take_out_box(visit: &Visit, who: &str, sent: Markup, cancel_href: &str) -> Markup {
    let t = Words::of(visit.language);
    let organization = visit.organization().map_or("", |here| here.name.as_str());
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
    visit.of_organization(&format!("members/{}{rest}", visit.path("uid")))
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
    let is_open = |tab: &MemberTab| tab.about(visit.language).2.iter().any(|operation| visit.may(operation));
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
    if !visit.may("check_permission") {
        return content;
    }
    let href = visit.in_organization(&format!("why?uid={}", visit.path("uid")));
    content.actions(components::link_button_of(&href, &fill(t.ask, &[&name]), Kind::Plain, Some(Icon::Question)))
}

/// The page of a member when an act, or the page itself, was refused: why, and the way back.
pub fn refused(visit: &Visit, user: &Value, tab: MemberTab, error: &Error) -> View {
    let way_back = match visit.form.is_empty() {
        true => visit.href(&address_of(visit, MemberTab::Profile)),
        false => visit.here(),
    };
    let body = html! {
        (components::notice(Tone::Bad, &errors::sentence(error, visit.language), None))
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
