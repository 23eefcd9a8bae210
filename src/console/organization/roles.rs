//! Roles: the list, a new role, and a role with its members and permissions.

use std::collections::HashMap;

use futures_util::future::{join, join_all, join3, join4};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::members::role_name;
use crate::console::client::op;
use crate::console::components::{
    self, Column, Confirm, Icon, Kind, Row, Select, Tone, Typed, actions, badge, card, empty, facts, link_button,
    link_button_of, notice, table,
};
use crate::console::form::{self, Form};
use crate::console::i18n::{Language, errors, fields, fill, words};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::console::{layout, list};
use crate::kernel::error::{Error, ErrorCode, Field, Result};

words! {
    Words {
        title: "Roles", "角色";
        about: "A role is a set of permissions. Members hold what their open roles hold.", "角色是一組權限。成員擁有其所有啟用中角色的權限。";
        new: "New role", "新增角色";
        new_about: "A new role holds nothing. Choose its permissions afterwards.", "新角色沒有任何權限，建立後再選擇權限。";
        create: "Create", "建立";
        created: "The role {} is there. Now choose its permissions.", "已建立角色「{}」。接著請選擇權限。";
        grid: "Roles and permissions", "角色與權限";
        edit_permissions: "Choose permissions", "選擇權限";
        name: "Name", "名稱";
        key: "Key", "代碼";
        state: "State", "狀態";
        kind: "Kind", "種類";
        changed: "Changed", "變更時間";
        members: "Members", "成員";
        permissions: "Permissions", "權限";
        open: "Open", "啟用";
        closed: "Closed", "停用";
        system: "System role", "系統角色";
        own: "Own role", "自訂角色";
        protected: "Protected", "受保護";
        protected_about: "It holds everything. Its permissions cannot change.", "擁有全部權限，且權限無法變更。";
        system_about: "It cannot be closed or deleted.", "無法停用或刪除。";
        nothing_found: "No role fits", "沒有符合的角色";
        nothing_found_text: "Search for something else, or show all roles.", "請換個關鍵字，或顯示全部角色。";
        show_all: "Show all", "顯示全部";
        stale: "Somebody else changed the role meanwhile: look at its present state below, and save again if your change is still right.", "此角色已被其他人修改：請確認下方的目前狀態，若您的變更仍然正確再儲存一次。";
        rename: "Rename", "重新命名";
        renamed: "The role is now called {}.", "角色已改名為「{}」。";
        close_role: "Close the role", "停用角色";
        open_role: "Open the role", "啟用角色";
        was_closed: "The role {} is closed: its members lose what it holds.", "已停用角色「{}」，成員不再擁有其權限。";
        was_opened: "The role {} is open.", "已啟用角色「{}」。";
        delete: "Delete", "刪除";
        delete_title: "Delete the role {}?", "要刪除角色「{}」嗎？";
        deleted: "The role {} is gone.", "已刪除角色「{}」。";
        goes_role: "The role goes, with what it holds (permissions: {}). This cannot be undone.", "角色及其 {} 項權限的清單會被刪除，無法復原。";
        goes_invitations: "Open invitations with this role are withdrawn.", "含此角色的未接受邀請會被撤回。";
        goes_nobody: "No member holds it, so nobody loses a right.", "目前沒有成員擁有此角色，不會有人失去權限。";
        type_key: "Type the key {} to confirm", "請輸入代碼 {} 以確認";
        typed_wrong: "This is not the key of the role.", "與角色的代碼不符。";
        in_use: "The role is in use and cannot be deleted.", "此角色仍在使用中，無法刪除。";
        in_use_member: "Held by 1 member. Take it from them first:", "有 1 位成員擁有此角色，請先收回：";
        in_use_members: "Held by {} members. Take it from them first:", "有 {} 位成員擁有此角色，請先收回：";
        in_use_mappings: "Given by these mappings. Delete them first:", "以下角色對應會授予此角色，請先刪除：";
        to_mappings: "To the mappings", "前往角色對應";
        more: "and more", "等";
        no_members: "Nobody holds this role", "沒有成員擁有此角色";
        no_members_text: "Open a member and assign the role there.", "請到成員頁面指派此角色。";
        to_members: "To the members", "前往成員";
        source: "From", "來源";
        since: "Since", "起始時間";
        no_permissions: "This role holds nothing", "此角色沒有權限";
        no_permissions_text: "Choose what its members may do.", "請選擇成員可以做什麼。";
        permission: "Permission", "權限";
        request: "Request", "請求";
        held: "Held", "擁有";
        implied: "Implied, for menus only", "隱含，僅供選單顯示";
        asleep: "Asleep: it or a parent is closed", "休眠：本身或上層已停用";
        further: "Further permissions: {}. See the grid.", "另有 {} 項權限，請見權限矩陣。";
    }
}

/// The most roles whose members and permissions are counted on one page: two calls each.
const COUNTED_MAX: usize = 12;
/// The most permissions that the page of a role lists.
const LISTED_MAX: usize = 200;
/// The most members whose names are fetched one by one.
const NAMED_MAX: usize = 50;

/// A text of an answer; empty if it is missing.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A list of an answer; empty if it is missing.
pub(super) fn each<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// Whether the permissions of the role cannot change: the role of an owner or of a platform administrator.
pub(super) fn is_protected(role: &Value) -> bool {
    role["is_system"] == true && ["tenant_owner", "platform_admin"].contains(&text(role, "key"))
}

/// The name of a member for people.
pub fn name_of(user: &Value) -> &str {
    let names = ["display_name", "username", "email", "id", "uid"];
    names.iter().map(|key| text(user, key)).find(|name| !name.is_empty()).unwrap_or_default()
}

/// The names of these members, by uid. Members whom the visitor may not see are left out.
pub(super) async fn names_of(visit: &Visit, uids: &[&str]) -> HashMap<String, String> {
    if uids.is_empty() {
        return HashMap::new();
    }
    let users = visit.find(op("list_users").query("limit", 200)).await.unwrap_or_default();
    let pair = |user: &Value| (text(user, "id").to_owned(), name_of(user).to_owned());
    let mut names: HashMap<String, String> = list::items(&users).iter().map(pair).collect();
    // Members of a large organization that are not on its first page.
    let missing = uids.iter().filter(|uid| !names.contains_key(**uid)).take(NAMED_MAX);
    let found = join_all(missing.map(|uid| visit.find(op("get_user").at(uid)))).await;
    names.extend(found.iter().flatten().map(pair));
    names
}

/// A member as a link to its page.
pub(super) fn member_link(visit: &Visit, uid: &str, names: &HashMap<String, String>) -> Markup {
    let shown = names.get(uid).map_or(uid, String::as_str);
    html! { a href=(visit.href(&super::members::place(visit, &format!("members/{uid}")))) { (shown) } }
}

/// The name of a role in the reader's language.
pub(super) fn title_of<'r>(visit: &Visit, role: &'r Value) -> &'r str {
    role_name(visit, &role["display_name"], &role["key"])
}

fn state(t: &Words, role: &Value) -> Markup {
    if role["status"] == "open" { badge(Tone::Ok, t.open) } else { badge(Tone::Warn, t.closed) }
}

fn kind(t: &Words, role: &Value) -> Markup {
    html! {
        @if is_protected(role) { (badge(Tone::Plain, t.protected)) }
        @else if role["is_system"] == true { (badge(Tone::Plain, t.system)) }
    }
}

// ── the list ──

pub async fn list(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let data = visit.call(op("list_roles")).await?.data;
    let (keyword, status) = (visit.query("q").unwrap_or_default().to_lowercase(), visit.query("status"));
    let fits = |role: &&Value| {
        let has = |name: &str| text(role, name).to_lowercase().contains(&keyword);
        (has("key") || has("display_name") || title_of(visit, role).contains(&keyword))
            && status.is_none_or(|status| role["status"] == status)
    };
    let found: Vec<&Value> = each(&data, "roles").iter().filter(fits).collect();
    let (offset, limit) = (list::offset(visit), list::limit(visit));
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown: Vec<&Value> = found.iter().copied().skip(skipped).take(size).collect();
    let counts = if shown.len() <= COUNTED_MAX {
        join_all(shown.iter().map(|role| counts(visit, text(role, "id")))).await
    } else {
        vec![(None, None); shown.len()]
    };
    let page = json!({"items": shown, "total": found.len(), "offset": offset, "limit": limit});
    let rows = shown.iter().zip(counts).map(|(role, counts)| list_row(visit, t, role, counts)).collect();
    let columns = [
        Column::new(t.name),
        Column::new(t.key),
        Column::new(t.state),
        Column::number(t.members),
        Column::number(t.permissions),
    ];
    let body = html! {
        p { (t.about) }
        (filters(visit, t))
        (components::region("roles", None, html! {
            @if shown.is_empty() {
                (empty(t.nothing_found, t.nothing_found_text, Some(link_button(&visit.here(), t.show_all))))
            } @else {
                (table(t.title, &columns, rows))
                (list::pager(visit, &page))
            }
        }))
    };
    let buttons = html! {
        (link_button_of(&visit.in_organization("grid"), t.grid, Kind::Plain, Some(Icon::Grid)))
        @if visit.may("create_role") {
            (link_button_of(&visit.in_organization("roles/new"), t.new, Kind::Main, Some(Icon::Plus)))
        }
    };
    Ok(Content::new(t.title, body).actions(buttons).into())
}

fn filters(visit: &Visit, t: &Words) -> Markup {
    let frame = visit.frame();
    let options = [("", frame.all), ("open", t.open), ("close", t.closed)];
    let select = Select {
        name: "status",
        options: &options,
        chosen: visit.query("status").unwrap_or_default(),
        is_required: false,
    };
    let around = components::Field::new("status", t.state);
    components::filter_bar(
        &visit.here(),
        Some("roles"),
        html! {
            (components::search_field("q", visit.query("q").unwrap_or_default(), frame.search))
            (components::field(&around, components::select_input(&around, &select)))
            (list::kept(visit))
        },
        frame.filter,
    )
}

fn list_row(visit: &Visit, t: &Words, role: &Value, (members, permissions): (Option<u64>, Option<u64>)) -> Row {
    let number = |count: Option<u64>| html! { @if let Some(count) = count { (list::grouped(count)) } @else { "–" } };
    Row {
        cells: vec![
            html! { (title_of(visit, role)) },
            html! { code { (text(role, "key")) } " " (kind(t, role)) },
            state(t, role),
            number(members),
            number(permissions),
        ],
        href: Some(visit.in_organization(&format!("roles/{}", text(role, "id")))),
        ..Row::default()
    }
}

/// The numbers of members and of held permissions of a role.
async fn counts(visit: &Visit, id: &str) -> (Option<u64>, Option<u64>) {
    let members = visit.find(op("list_role_members").at(id).query("limit", 1));
    let (members, permissions) = join(members, visit.find(op("list_role_permissions").at(id))).await;
    (members.and_then(|found| found["total"].as_u64()), permissions.map(|found| held_count(&found)))
}

fn held_count(permissions: &Value) -> u64 {
    each(permissions, "permissions").iter().filter(|node| node["implied"] != true).count() as u64
}

// ── a new role ──

pub async fn new(visit: &Visit) -> Result<View> {
    Ok(new_page(visit, None)?.into())
}

fn new_page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, "create_role")?.error(error);
    let body = html! {
        p { (t.new_about) }
        (form.wrap(&visit.here(), html! { (form.field("key")) (form.field("display_name")) }, t.create))
    };
    let content = Content::new(t.new, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

pub async fn create(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let body = form::read(visit.operation("create_role")?, visit);
    match visit.call(op("create_role").body(&body).once(visit.submitted(form::ONCE))).await {
        Ok(made) => {
            let address = visit.of_organization(&format!("roles/{}", text(&made.data, "id")));
            visit.done(address, fill(t.created, &[&title_of(visit, &made.data)]))
        }
        Err(error) if is_of_form(&error) => Ok(new_page(visit, Some(&at_key(error)))?.into()),
        Err(error) => Err(error),
    }
}

/// The failures of a key stand at its field.
fn at_key(mut error: Error) -> Error {
    if matches!(error.code, ErrorCode::RoleKey | ErrorCode::RoleExists) && error.fields.is_empty() {
        error.fields.push(Field::body("key", error.message().to_owned()));
    }
    error
}

// ── a role ──

pub async fn show(visit: &Visit) -> Result<View> {
    if visit.query("confirm") == Some("delete") {
        return Ok(confirm_page(visit, None).await?.into());
    }
    Ok(role_page(visit, None).await?.into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("rename") => rename(visit).await,
        Some(status @ ("open" | "close")) => set_status(visit, status).await,
        Some("delete") => delete(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn rename(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let body = form::read(visit.operation("update_role")?, visit);
    let call = op("update_role").at(visit.path("id")).body(&body).if_match(visit.submitted(form::VERSION));
    match visit.call(call).await {
        Ok(role) => visit.done(visit.address.clone(), fill(t.renamed, &[&title_of(visit, &role.data)])),
        Err(error) if is_of_form(&error) => Ok(role_page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

async fn set_status(visit: &Visit, status: &str) -> Result<View> {
    let t = Words::of(visit.language);
    match visit.call(op("update_role").at(visit.path("id")).body(&json!({"status": status}))).await {
        Ok(role) => {
            let (sentence, inverse) = if status == "open" { (t.was_opened, "close") } else { (t.was_closed, "open") };
            let notice = Notice::new(fill(sentence, &[&title_of(visit, &role.data)]));
            let notice = notice.with_undo(visit.address.clone(), &[("act", inverse)]);
            Ok(View::Redirect(visit.address.clone(), Some(notice)))
        }
        Err(error) if is_of_form(&error) => Ok(role_page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

async fn role_page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let (role, members, permissions) = join3(
        visit.call(op("get_role").at(id)),
        visit.find(list::paged(visit, op("list_role_members").at(id))),
        visit.find(op("list_role_permissions").at(id)),
    )
    .await;
    let role = role?;
    let uids: Vec<&str> = members.iter().flat_map(list::items).map(|held| text(held, "uid")).collect();
    let names = names_of(visit, &uids).await;
    let is_rename = visit.submitted("act") == Some("rename");
    // A stale form is saved again over the state that is shown now.
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    let of_form = error.filter(|_| is_rename && !is_stale);
    let form = Form::new(visit, "update_role")?.values(&role.data).error(of_form);
    let form = if is_stale || !is_rename { form.version(role.etag.as_deref()) } else { form };
    let grid = visit.in_organization(&format!("grid?role={}", text(&role.data, "key")));
    let body = html! {
        @if let Some(error) = error.filter(|_| of_form.is_none()) {
            @if is_stale { (notice(Tone::Warn, t.stale, None)) }
            @else { (notice(Tone::Bad, &errors::sentence(error, visit.language), None)) }
            (layout::details(visit, error))
        }
        (about(visit, t, &role.data))
        @if visit.may("update_role") {
            (card(t.rename, form.wrap(&visit.here(), html! {
                (components::hidden_input("act", "rename"))
                (form.field("display_name"))
            }, visit.frame().save)))
        }
        @if let Some(members) = &members { (card(t.members, members_of(visit, t, members, &names))) }
        @if let Some(permissions) = &permissions { (card(t.permissions, permissions_of(t, permissions, &role.data, &grid))) }
    };
    let buttons = html! {
        @if !is_protected(&role.data) && visit.may("replace_role_permissions") {
            (link_button_of(&grid, t.edit_permissions, Kind::Main, Some(Icon::Grid)))
        }
    };
    let content = Content::new(title_of(visit, &role.data), body).actions(buttons);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// What the role is, and the buttons that open, close and delete it.
fn about(visit: &Visit, t: &Words, role: &Value) -> Markup {
    let frame = visit.frame();
    let is_system = role["is_system"] == true;
    let kind = if is_protected(role) {
        t.protected
    } else if is_system {
        t.system
    } else {
        t.own
    };
    let sentence = if is_protected(role) { Some(t.protected_about) } else { is_system.then_some(t.system_about) };
    let (act, label) = if role["status"] == "open" { ("close", t.close_role) } else { ("open", t.open_role) };
    html! {
        (facts(&[
            (t.key, components::copyable(text(role, "key"), frame.copy, frame.copied)),
            (t.state, state(t, role)),
            (t.kind, html! { (kind) @if let Some(sentence) = sentence { ". " (sentence) } }),
            (t.changed, components::time_ago(role["update_at"].as_i64().unwrap_or_default())),
        ]))
        @if !is_system {
            (actions(html! {
                @if visit.may("update_role") {
                    form method="post" action=(visit.here()) {
                        (components::button_named("act", act, label, Kind::Plain))
                    }
                }
                @if visit.may("delete_role") {
                    (link_button_of(&visit.with_query(&[("confirm", "delete")]), t.delete, Kind::Danger, Some(Icon::Trash)))
                }
            }))
        }
    }
}

fn members_of(visit: &Visit, t: &Words, members: &Value, names: &HashMap<String, String>) -> Markup {
    let held = list::items(members);
    if held.is_empty() && list::offset(visit) == 0 {
        let action = visit.may("list_users").then(|| link_button(&visit.in_organization("members"), t.to_members));
        return empty(t.no_members, t.no_members_text, action);
    }
    let row = |held: &Value| Row {
        cells: vec![
            html! { (names.get(text(held, "uid")).map_or(text(held, "uid"), String::as_str)) },
            html! { (fields::value(text(held, "source"), visit.language)) },
            components::time_ago(held["create_at"].as_i64().unwrap_or_default()),
        ],
        href: Some(visit.in_organization(&format!("members/{}", text(held, "uid")))),
        ..Row::default()
    };
    let columns = [Column::new(t.name), Column::new(t.source), Column::new(t.since)];
    html! {
        (table(t.members, &columns, held.iter().map(row).collect()))
        (list::pager(visit, members))
    }
}

/// Whether a permission or one of its ancestors is closed. The permissions of a role contain all ancestors.
fn is_asleep(nodes: &HashMap<&str, &Value>, node: &Value) -> bool {
    let mut present = Some(node);
    // The tree of a catalog is not deep.
    for _ in 0..64 {
        let Some(found) = present else { return false };
        if found["status"] == "close" {
            return true;
        }
        present = nodes.get(text(found, "parent")).copied();
    }
    false
}

fn permissions_of(t: &Words, permissions: &Value, role: &Value, grid: &str) -> Markup {
    let nodes = each(permissions, "permissions");
    if nodes.is_empty() {
        let action = (!is_protected(role)).then(|| link_button(grid, t.edit_permissions));
        return empty(t.no_permissions, t.no_permissions_text, action);
    }
    let by_name: HashMap<&str, &Value> = nodes.iter().map(|node| (text(node, "name"), node)).collect();
    let state_of = |node: &Value| match node["implied"] == true {
        true => badge(Tone::Plain, t.implied),
        false if is_asleep(&by_name, node) => badge(Tone::Warn, t.asleep),
        false => badge(Tone::Ok, t.held),
    };
    let row = |node: &Value| Row {
        cells: vec![
            html! { code { (text(node, "name")) } },
            html! { @if !text(node, "http_path").is_empty() { code { (text(node, "http_methods")) " " (text(node, "http_path")) } } },
            state_of(node),
        ],
        ..Row::default()
    };
    let columns = [Column::new(t.permission), Column::new(t.request), Column::new(t.state)];
    html! {
        (table(t.permissions, &columns, nodes.iter().take(LISTED_MAX).map(row).collect()))
        @if nodes.len() > LISTED_MAX {
            p { a href=(grid) { (fill(t.further, &[&(nodes.len() - LISTED_MAX)])) } }
        }
    }
}

// ── deleting ──

async fn delete(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let role = visit.call(op("get_role").at(id)).await?.data;
    if visit.submitted("typed") != Some(text(&role, "key")) {
        let error = Error::field("typed", t.typed_wrong);
        return Ok(confirm_page(visit, Some(&error)).await?.into());
    }
    match visit.call(op("delete_role").at(id).if_match(visit.submitted(form::VERSION))).await {
        Ok(_) => visit.done(visit.of_organization("roles"), fill(t.deleted, &[&title_of(visit, &role)])),
        Err(error) if is_of_form(&error) => Ok(confirm_page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// What goes with the role, or by whom it is still used.
async fn confirm_page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let (role, members, permissions, mappings) = join4(
        visit.call(op("get_role").at(id)),
        visit.find(op("list_role_members").at(id).query("limit", 20)),
        visit.find(op("list_role_permissions").at(id)),
        visit.find(op("list_role_mappings").query("limit", 200)),
    )
    .await;
    let role = role?;
    let (key, name) = (text(&role.data, "key"), title_of(visit, &role.data));
    let members = members.unwrap_or_default();
    let mappings = mappings.unwrap_or_default();
    let of_role: Vec<&Value> = each(&mappings, "mappings").iter().filter(|one| one["internal_role_id"] == id).collect();
    let is_used = !list::items(&members).is_empty() || !of_role.is_empty();
    let title = fill(t.delete_title, &[&name]);
    let label = fill(t.type_key, &[&key]);
    let what_goes = [
        fill(t.goes_role, &[&held_count(&permissions.unwrap_or_default())]),
        t.goes_invitations.to_owned(),
        t.goes_nobody.to_owned(),
    ];
    let uids: Vec<&str> = list::items(&members).iter().map(|held| text(held, "uid")).collect();
    let names = names_of(visit, &uids).await;
    let body = html! {
        @if let Some(error) = error {
            @let field = error.fields.first().map(|field| errors::field_message(&field.message, visit.language));
            (notice(Tone::Bad, &field.unwrap_or_else(|| errors::sentence(error, visit.language)), None))
            (layout::details(visit, error))
        }
        @if is_used {
            (used_by(visit, t, &members, &of_role, &names))
        } @else {
            (components::confirm_box(&Confirm {
                title: &title,
                action: &visit.here(),
                what_goes: &what_goes,
                typed: Some(Typed { name: "typed", label: &label, must_equal: key }),
                sent: Some(html! {
                    (components::hidden_input("act", "delete"))
                    (components::hidden_input(form::VERSION, role.etag.as_deref().unwrap_or_default()))
                }),
                submit: t.delete,
                cancel: visit.frame().cancel,
                cancel_href: &visit.here(),
            }))
        }
    };
    let content = Content::new(name, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// The members and mappings that keep a role from being deleted, as links.
fn used_by(visit: &Visit, t: &Words, members: &Value, mappings: &[&Value], names: &HashMap<String, String>) -> Markup {
    let held = list::items(members);
    let total = members["total"].as_u64().unwrap_or_default();
    let source = |one: &Value, language: Language| fields::value(text(one, "external_source"), language);
    html! {
        (notice(Tone::Warn, t.in_use, None))
        @if !held.is_empty() {
            p { @if total == 1 { (t.in_use_member) } @else { (fill(t.in_use_members, &[&list::grouped(total)])) } }
            ul {
                @for one in held { li { (member_link(visit, text(one, "uid"), names)) } }
                @if total > held.len() as u64 { li { a href=(visit.here()) { (t.more) } } }
            }
        }
        @if !mappings.is_empty() {
            p { (t.in_use_mappings) }
            ul { @for one in mappings { li { (source(one, visit.language)) ": " code { (text(one, "external_key")) } } } }
            p { (link_button(&visit.in_organization("mappings"), t.to_mappings)) }
        }
        p { a href=(visit.here()) { (visit.frame().back) } }
    }
}
