//! Role mappings: which role a group of an external source gives, and a trial with the groups of a member.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::roles::{each, is_protected, name_of, text, title_of};
use crate::console::client::op;
use crate::console::components::{
    self, Area, Column, Field, Kind, Picker, Row, Select, Tone, button_named, card, empty, facts, notice, table,
};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::schema::FieldKind;
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::console::{layout, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        title: "Role mappings", "角色對應";
        about: "A mapping gives a role to everybody whom a source puts into a group. It takes effect when the member signs in or is synchronized.", "角色對應會把角色授予來源中屬於某個群組的所有人，於成員登入或同步時生效。";
        source: "Source", "來源";
        group: "Group", "群組";
        role: "Role", "角色";
        since: "Since", "起始時間";
        empty_title: "No mappings yet", "尚無角色對應";
        empty_text: "For example: people in the OIDC group \"editors\" get the role Editor. Fill in the form below.", "例如：OIDC 群組「editors」中的人會得到「編輯」角色。請填寫下方表單。";
        none_of_source: "No mapping of this source", "此來源沒有角色對應";
        none_of_source_text: "Choose another source, or add a mapping below.", "請選擇其他來源，或在下方新增。";
        set: "Set a mapping", "設定角色對應";
        set_about: "A mapping that exists gets the new role.", "若對應已存在，會改為新的角色。";
        was_set: "{} now gives the role {}.", "「{}」現在會授予角色「{}」。";
        delete: "Delete", "刪除";
        delete_one: "Delete the mapping of {}", "刪除「{}」的角色對應";
        deleted: "{} gives no role any more. Members keep the role until their next sync.", "「{}」不再授予角色。成員在下次同步前仍保有角色。";
        trial: "Try it", "試試看";
        trial_about: "Which roles would change if the source named these groups? Nothing is changed.", "若來源回報這些群組，哪些角色會改變？不會實際變更。";
        member: "Member", "成員";
        member_hint: "Name, e-mail or id", "名稱、電子郵件或編號";
        groups: "Groups, one per line", "群組，每行一個";
        groups_hint: "An empty list removes all roles of this source.", "留空表示移除此來源的所有角色。";
        ask: "Try", "試算";
        no_member: "No member of this organization fits, or more than one does.", "沒有符合的成員，或符合的成員不只一位。";
        result: "What would change for {}", "{} 會有的變化";
        added: "Added", "新增";
        removed: "Removed", "移除";
        kept: "Kept", "保留";
        unknown: "Groups without a mapping", "沒有對應的群組";
        ignored: "Named by a plugin, but not assigned", "外掛指定但無法授予";
        failed: "A plugin failed, so the roles of this source stay as they are.", "外掛執行失敗，此來源的角色維持不變。";
        plugins: "Plugins asked", "詢問的外掛";
        nothing: "Nothing", "無";
    }
}

/// What a POST leaves on the page.
enum After<'a> {
    Nothing,
    /// Setting or deleting failed.
    Failed(&'a Error),
    TrialFailed(&'a Error),
    /// The name of the member, and the answer of the dry run.
    Trial(String, Value),
}

pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, After::Nothing).await?.into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("set") => set(visit).await,
        Some("delete") => delete(visit).await,
        Some("try") => trial(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn set(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let body = form::read(visit.operation("upsert_role_mapping")?, visit);
    let call = op("list_role_mappings").query_some("source", visit.submitted("external_source")).query("limit", 200);
    let present = visit.find(call).await.unwrap_or_default();
    match visit.call(op("upsert_role_mapping").body(&body)).await {
        Ok(answer) => {
            let made = answer.data;
            let (source, key) = (text(&made, "external_source"), text(&made, "external_key"));
            let done = Notice::new(fill(t.was_set, &[&key, &text(&made, "internal_role_key")]));
            let former = each(&present, "mappings").iter().find(|one| one["external_key"] == key);
            let act = if former.is_some() { "set" } else { "delete" };
            let role = former.map_or("", |former| text(former, "internal_role_key"));
            let undo = [("act", act), ("external_source", source), ("external_key", key), ("internal_role_key", role)];
            // A mapping that existed and is not among those found cannot be restored.
            let is_known = former.is_some() || made["create_at"] == made["update_at"];
            let done = if is_known { done.with_undo(visit.address.clone(), &undo) } else { done };
            Ok(View::Redirect(visit.address.clone(), Some(done)))
        }
        Err(error) if is_of_form(&error) || error.code == ErrorCode::RoleNotFound => {
            Ok(page(visit, After::Failed(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

async fn delete(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let sent = |name| visit.submitted(name).unwrap_or_default();
    let (source, key, role) = (sent("external_source"), sent("external_key"), sent("internal_role_key"));
    let call = op("delete_role_mapping").query("external_source", source).query("external_key", key);
    match visit.call(call).await {
        Ok(_) => {
            let undo =
                [("act", "set"), ("external_source", source), ("external_key", key), ("internal_role_key", role)];
            let done = Notice::new(fill(t.deleted, &[&key]));
            let done = if role.is_empty() { done } else { done.with_undo(visit.address.clone(), &undo) };
            Ok(View::Redirect(visit.address.clone(), Some(done)))
        }
        Err(error) if is_of_form(&error) || error.code == ErrorCode::MappingNotFound => {
            Ok(page(visit, After::Failed(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// Asks what a sync would change.
async fn trial(visit: &Visit) -> Result<View> {
    let result = async {
        let (uid, name) = member(visit).await?;
        let groups = visit.submitted("external_keys").unwrap_or_default();
        let keys: Vec<&str> = groups.lines().map(str::trim).filter(|key| !key.is_empty()).collect();
        let source = visit.submitted("source").unwrap_or_default();
        let body = json!({"source": source, "external_keys": keys, "dry_run": true});
        let answer = visit.call(op("sync_user_roles").at(uid).body(&body)).await?;
        Ok((name, answer.data))
    }
    .await;
    match result {
        Ok((name, answer)) => Ok(page(visit, After::Trial(name, answer)).await?.into()),
        Err(error) if is_of_form(&error) || error.code == ErrorCode::SubjectNotFound => {
            Ok(page(visit, After::TrialFailed(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// Id and name of the member that the trial names: by id, or by a text that only one member fits.
async fn member(visit: &Visit) -> Result<(String, String)> {
    let typed = visit.submitted("member").unwrap_or_default().trim();
    let unknown = || Error::field("member", Words::of(visit.language).no_member);
    if uuid::Uuid::parse_str(typed).is_ok() {
        let found = visit.find(op("get_user").at(typed)).await.unwrap_or_default();
        let name = name_of(&found);
        return Ok((typed.to_owned(), if name.is_empty() { typed } else { name }.to_owned()));
    }
    if typed.is_empty() || !visit.may("list_users") {
        return Err(unknown());
    }
    let found = visit.call(op("list_users").query("keyword", typed).query("limit", 50)).await?.data;
    let users = list::items(&found);
    let is_named = |user: &&Value| ["username", "email", "display_name"].iter().any(|key| text(user, key) == typed);
    let mut named = users.iter().filter(is_named);
    match (users, named.next(), named.next()) {
        ([only], ..) | (_, Some(only), None) => Ok((text(only, "id").to_owned(), name_of(only).to_owned())),
        _ => Err(unknown()),
    }
}

// ── the page ──

async fn page(visit: &Visit, after: After<'_>) -> Result<Content> {
    let t = Words::of(visit.language);
    let call = list::paged(visit, op("list_role_mappings")).query_some("source", visit.query("source"));
    let (mappings, roles) = join(visit.call(call), visit.find(op("list_roles"))).await;
    let (mappings, roles) = (mappings?.data, roles.unwrap_or_default());
    let error = match &after {
        After::Failed(error) | After::TrialFailed(error) => Some(*error),
        After::Nothing | After::Trial(..) => None,
    };
    let is_of_set = visit.submitted("act") == Some("set");
    let body = html! {
        p { (t.about) }
        @if let (After::Failed(error), false) = (&after, is_of_set) {
            (notice(Tone::Bad, &errors::sentence(error, visit.language), None))
            (layout::details(visit, error))
        }
        (filters(visit, t))
        (components::region("mappings", None, mapped(visit, t, &mappings, &roles)))
        @if visit.may("upsert_role_mapping") {
            (card(t.set, set_form(visit, t, &roles, error.filter(|_| is_of_set))?))
        }
        @if visit.may("sync_user_roles") {
            (card(t.trial, trial_form(visit, t, &mappings, &after)))
        }
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// The sources that mappings can have, with their texts.
fn sources(visit: &Visit) -> Vec<(String, String)> {
    let operation = visit.operation("upsert_role_mapping").ok();
    let kind = operation.and_then(|known| known.field("external_source")).map(|field| &field.kind);
    let Some(FieldKind::Choice(values)) = kind else { return Vec::new() };
    values.iter().map(|value| (value.clone(), fields::value(value, visit.language))).collect()
}

fn filters(visit: &Visit, t: &Words) -> Markup {
    let frame = visit.frame();
    let sources = sources(visit);
    let all = std::iter::once(("", frame.all));
    let options: Vec<(&str, &str)> =
        all.chain(sources.iter().map(|(value, text)| (value.as_str(), text.as_str()))).collect();
    let around = Field::new("filter-source", t.source);
    let chosen = visit.query("source").unwrap_or_default();
    let select = Select { name: "source", options: &options, chosen, is_required: false };
    components::filter_bar(
        &visit.here(),
        Some("mappings"),
        html! { (components::field(&around, components::select_input(&around, &select))) (list::kept(visit)) },
        frame.filter,
    )
}

fn mapped(visit: &Visit, t: &Words, mappings: &Value, roles: &Value) -> Markup {
    let shown = each(mappings, "mappings");
    if shown.is_empty() && list::offset(visit) == 0 {
        return match visit.query("source") {
            Some(_) => empty(
                t.none_of_source,
                t.none_of_source_text,
                Some(components::link_button(&visit.here(), visit.frame().all)),
            ),
            None => empty(t.empty_title, t.empty_text, None),
        };
    }
    let role_name = |one: &Value| {
        let role = each(roles, "roles").iter().find(|role| role["id"] == one["internal_role_id"]);
        role.map_or(text(one, "internal_role_key"), |role| title_of(visit, role)).to_owned()
    };
    let may_delete = visit.may("delete_role_mapping");
    let row = |one: &Value| Row {
        cells: vec![
            html! { (fields::value(text(one, "external_source"), visit.language)) },
            html! { code { (text(one, "external_key")) } },
            html! {
                a href=(visit.in_organization(&format!("roles/{}", text(one, "internal_role_id")))) { (role_name(one)) }
            },
            components::time_ago(one["create_at"].as_i64().unwrap_or_default()),
            html! { @if may_delete { (delete_form(visit, t, one)) } },
        ],
        ..Row::default()
    };
    let columns =
        [Column::new(t.source), Column::new(t.group), Column::new(t.role), Column::new(t.since), Column::new("")];
    let columns = if may_delete { &columns[..] } else { &columns[..4] };
    let page = json!({
        "items": shown, "total": mappings["total"], "offset": mappings["offset"], "limit": mappings["limit"],
    });
    let rows = shown.iter().map(row).map(|mut row| {
        row.cells.truncate(columns.len());
        row
    });
    html! { (table(t.title, columns, rows.collect())) (list::pager(visit, &page)) }
}

fn delete_form(visit: &Visit, t: &Words, one: &Value) -> Markup {
    let label = fill(t.delete_one, &[&text(one, "external_key")]);
    html! {
        form method="post" action=(visit.here()) aria-label=(label) {
            @for name in ["external_source", "external_key", "internal_role_key"] {
                (components::hidden_input(name, text(one, name)))
            }
            (button_named("act", "delete", t.delete, Kind::Quiet))
        }
    }
}

fn set_form(visit: &Visit, t: &Words, roles: &Value, error: Option<&Error>) -> Result<Markup> {
    // Another form of this page was sent: its fields do not belong here.
    let form = Form::new(visit, "upsert_role_mapping")?.error(error);
    let choices: Vec<(&str, String)> = each(roles, "roles")
        .iter()
        .filter(|role| !is_protected(role))
        .map(|role| (text(role, "key"), title_of(visit, role).to_owned()))
        .collect();
    Ok(form.wrap(
        &visit.here(),
        html! {
            p { (t.set_about) }
            (components::hidden_input("act", "set"))
            (form.field("external_source"))
            (form.field("external_key"))
            (form.choice("internal_role_key", &choices))
        },
        visit.frame().save,
    ))
}

fn trial_form(visit: &Visit, t: &Words, mappings: &Value, after: &After<'_>) -> Markup {
    // The trial begins with a source that has mappings.
    let first = each(mappings, "mappings").first().map_or("", |one| text(one, "external_source"));
    let sent = |name| visit.submitted(name).filter(|_| visit.submitted("act") == Some("try")).unwrap_or_default();
    let error = match after {
        After::TrialFailed(error) => Some(*error),
        _ => None,
    };
    let faults_of = |name: &str| -> Vec<String> {
        let all = error.into_iter().flat_map(|error| &error.fields);
        let at = |field: &&crate::kernel::error::Field| field.location.get(1).is_some_and(|part| part == name);
        all.filter(at).map(|field| errors::field_message(&field.message, visit.language)).collect()
    };
    let (member_faults, source_faults, key_faults) =
        (faults_of("member"), faults_of("source"), faults_of("external_keys"));
    let member = Field::new("member", t.member).hint(t.member_hint).faults(&member_faults);
    let source = Field::new("source", t.source).faults(&source_faults);
    let groups = Field::new("external_keys", t.groups).hint(t.groups_hint).faults(&key_faults);
    let sources = sources(visit);
    let options: Vec<(&str, &str)> = sources.iter().map(|(value, text)| (value.as_str(), text.as_str())).collect();
    let suggestions = visit.in_organization("why/members");
    let is_general = error.is_some_and(|error| error.fields.is_empty());
    html! {
        p { (t.trial_about) }
        @if let Some(error) = error.filter(|_| is_general) {
            (notice(Tone::Bad, &errors::sentence(error, visit.language), None))
            (layout::details(visit, error))
        }
        form method="post" action={ (visit.here()) "#trial" } {
            (components::hidden_input("act", "try"))
            (components::field(&member, components::picker_input(&member, &Picker {
                name: "member", value: sent("member"), from: &suggestions, is_required: true, placeholder: None,
            })))
            (components::field(&source, components::select_input(&source, &Select {
                name: "source", options: &options, chosen: Some(sent("source")).filter(|source| !source.is_empty()).unwrap_or(first), is_required: true,
            })))
            (components::field(&groups, components::textarea_input(&groups, &Area {
                name: "external_keys", value: sent("external_keys"), rows: 4, placeholder: Some("editors"), ..Area::default()
            })))
            (components::actions(components::button(t.ask)))
        }
        @if let After::Trial(name, answer) = after { section id="trial" { (result(t, name, answer)) } }
    }
}

/// What a sync would change, by the answer of the dry run.
fn result(t: &Words, name: &str, answer: &Value) -> Markup {
    let named = |list: &str| {
        let all = each(answer, list);
        html! {
            @if all.is_empty() { span class="quiet" { (t.nothing) } }
            @for (n, one) in all.iter().enumerate() {
                @if n > 0 { ", " }
                code { (one.as_str().unwrap_or_default()) }
            }
        }
    };
    let mut rows = vec![
        (t.added, named("added")),
        (t.removed, named("removed")),
        (t.kept, named("kept")),
        (t.unknown, named("unknown")),
    ];
    if answer["ignored"].is_array() {
        rows.push((t.ignored, named("ignored")));
    }
    let plugins = each(answer, "plugins");
    if !plugins.is_empty() {
        let asked = html! {
            @for (n, one) in plugins.iter().enumerate() {
                @if n > 0 { ", " }
                (text(one, "name")) " v" (one["version"]) ": " code { (text(one, "outcome")) }
                @if !text(one, "message").is_empty() { " – " (text(one, "message")) }
            }
        };
        rows.push((t.plugins, asked));
    }
    html! {
        h3 { (fill(t.result, &[&name])) }
        @if answer["failed"] == true { (notice(Tone::Warn, t.failed, None)) }
        (facts(&rows))
    }
}
