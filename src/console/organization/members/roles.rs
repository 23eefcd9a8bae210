//! The roles of a member: from where each comes, giving and revoking.

use futures_util::future::{join, try_join3};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{MemberTab, address_of, get_user, member_page, refused};
use crate::console::client::op;
use crate::console::components::{self, Column, Field, Kind, Row, Select, Tone};
use crate::console::i18n::{Language, fields, fill, roles as role_names, words};
use crate::console::visit::{Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        title: "Roles", "角色";
        role: "Role", "角色";
        sources: "Source", "來源";
        since: "Since", "授予時間";
        acts: "Revoke", "撤銷";
        revoke_of: "Revoke {}", "撤銷 {}";
        give: "Give", "授予";
        none: "No role yet", "還沒有角色";
        none_text: "Without a role the member can sign in, but may do nothing here. Give the first role below.", "沒有角色的成員可以登入，但無法在此進行任何操作。請在下方授予第一個角色。";
        none_left: "There is no other role that you can give to this member.", "沒有其他您可以授予此成員的角色。";
        synced: "A role from outside comes back at the next sync unless it is taken away there too.", "來自外部的角色若未在來源移除，下次同步時會再次出現。";
        closed: "{} (closed)", "{}（已關閉）";
        given: "The member has the role {} now.", "已授予角色 {}。";
        revoked: "The role {} was revoked.", "已撤銷角色 {}。";
        all: "All roles of the member", "成員的所有角色";
    }
}

const TAB: MemberTab = MemberTab::Roles;

/// A role that the member holds, with all its sources.
struct HeldRole {
    id: String,
    name: String,
    sources: Vec<String>,
    since: i64,
}

/// The roles that the member holds: one entry per role, however many sources it has.
fn held_roles(language: Language, data: &Value) -> Vec<HeldRole> {
    let mut held: Vec<HeldRole> = Vec::new();
    for entry in data["user_roles"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let (id, source, since) = (text("role_id"), text("source"), entry["create_at"].as_i64().unwrap_or_default());
        match held.iter_mut().find(|role| role.id == id) {
            Some(role) => {
                role.sources.push(source);
                role.since = role.since.min(since);
            }
            None => {
                let name = role_names::name(&text("role_display_name"), &text("role_key"), language).to_owned();
                held.push(HeldRole { id, name, sources: vec![source], since });
            }
        }
    }
    held
}

/// The roles that can be given by hand: ids and names.
fn roles_to_give(visit: &Visit, all: &Value, held: &[HeldRole]) -> Vec<(String, String)> {
    let t = Words::of(visit.language);
    let roles = all["roles"].as_array().map_or(&[][..], Vec::as_slice);
    roles
        .iter()
        .filter(|role| super::may_give(visit, role))
        .filter_map(|role| {
            let (id, name) = (role["id"].as_str()?, super::role_name(visit, &role["display_name"], &role["key"]));
            let is_held = held.iter().any(|one| one.id == id && one.sources.iter().any(|source| source == "manual"));
            let name = if role["status"] == "close" { fill(t.closed, &[&name]) } else { name.to_owned() };
            (!is_held).then(|| (id.to_owned(), name))
        })
        .collect()
}

/// The form that gives a role. It is sent to the tab of roles, from wherever it stands.
fn give_form(visit: &Visit, options: &[(String, String)]) -> Markup {
    let t = Words::of(visit.language);
    let options: Vec<(&str, &str)> = options.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    if options.is_empty() {
        return html! { p class="quiet" { (t.none_left) } };
    }
    let about = Field::new("role_id", t.role);
    let select = Select { name: "role_id", options: &options, chosen: "", is_required: true };
    html! {
        form class="inline" method="post" action=(visit.href(&address_of(visit, TAB))) {
            (components::hidden_input("act", "assign"))
            (components::field(&about, components::select_input(&about, &select)))
            (components::button_plain(t.give))
        }
    }
}

fn source_badges(visit: &Visit, role: &HeldRole) -> Markup {
    html! {
        @for source in &role.sources { (components::badge(Tone::Plain, &fields::value(source, visit.language))) " " }
    }
}

/// The roles as a part of the profile, with the form that gives one. `None` if the visitor may not see them.
pub async fn card(visit: &Visit) -> Result<Option<Markup>> {
    let t = Words::of(visit.language);
    if !visit.may("list_user_roles") {
        return Ok(None);
    }
    let uid = visit.path("uid");
    let (held, all) = join(visit.call(op("list_user_roles").at(uid)), roles_of_organization(visit)).await;
    let held = held_roles(visit.language, &held?.data);
    let options = roles_to_give(visit, &all?, &held);
    let body = html! {
        @if held.is_empty() { p class="quiet" { (t.none) } } @else {
            ul class="plain" {
                @for role in &held { li { strong { (role.name) } " " (source_badges(visit, role)) } }
            }
        }
        @if visit.may("assign_user_role") && visit.may("list_roles") { (give_form(visit, &options)) }
        p { a href=(visit.href(&address_of(visit, TAB))) { (t.all) } }
    };
    Ok(Some(components::card(t.title, body)))
}

/// The answer of `list_roles`; null if the visitor may not see the roles.
async fn roles_of_organization(visit: &Visit) -> Result<Value> {
    if !visit.may("list_roles") {
        return Ok(Value::Null);
    }
    Ok(visit.call(op("list_roles")).await?.data)
}

/// Shows the roles of the member.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let held = async { Ok::<_, Error>(visit.call(op("list_user_roles").at(visit.path("uid"))).await?.data) };
    let (user, held, all) = try_join3(get_user(visit), held, roles_of_organization(visit)).await?;
    let held = held_roles(visit.language, &held);
    let options = roles_to_give(visit, &all, &held);
    let is_synced = held.iter().flat_map(|role| &role.sources).any(|source| source != "manual");
    let body = html! {
        @if held.is_empty() { (components::empty(t.none, t.none_text, None)) } @else { (table(visit, &held)) }
        @if is_synced { p class="hint" { (t.synced) } }
        @if visit.may("assign_user_role") && visit.may("list_roles") { (components::card(t.give, give_form(visit, &options))) }
    };
    Ok(member_page(visit, &user, TAB, body).into())
}

fn table(visit: &Visit, held: &[HeldRole]) -> Markup {
    let t = Words::of(visit.language);
    let can_revoke = visit.may("revoke_user_role");
    let mut columns = vec![Column::new(t.role), Column::new(t.sources), Column::new(t.since)];
    if can_revoke {
        columns.push(Column::new(t.acts));
    }
    let row = |role: &HeldRole| {
        let mut cells = vec![html! { (role.name) }, source_badges(visit, role), components::time(role.since)];
        if can_revoke {
            cells.push(html! {
                form method="post" action=(visit.here()) {
                    (components::hidden_input("role_id", &role.id))
                    (components::button_named("act", "revoke", &fill(t.revoke_of, &[&role.name]), Kind::Plain))
                }
            });
        }
        let href = visit.may("get_role").then(|| visit.in_organization(&format!("roles/{}", role.id)));
        Row { cells, href, ..Row::default() }
    };
    components::table(t.title, &columns, held.iter().map(row).collect())
}

/// Gives or revokes a role.
pub async fn act(visit: &Visit) -> Result<View> {
    let Some(role) = visit.submitted("role_id") else { return Err(ErrorCode::BadInput.into()) };
    let user = get_user(visit).await?;
    let before = visit.call(op("list_user_roles").at(visit.path("uid"))).await?.data;
    let held = held_roles(visit.language, &before).into_iter().find(|held| held.id == role);
    let done = match visit.submitted("act") {
        Some("assign") => assign(visit, role, held.as_ref()).await,
        Some("revoke") => revoke(visit, role, held.as_ref()).await,
        _ => Err(ErrorCode::BadInput.into()),
    };
    match done {
        Ok(notice) => Ok(View::Redirect(address_of(visit, TAB), Some(notice))),
        Err(error) if is_of_form(&error) || error.is_denial() => Ok(refused(visit, &user, TAB, &error)),
        Err(error) => Err(error),
    }
}

async fn assign_from(visit: &Visit, role: &str, source: &str) -> Result<Value> {
    let body = json!({"role_id": role, "source": source});
    Ok(visit.call(op("assign_user_role").at(visit.path("uid")).body(&body)).await?.data)
}

/// Gives the role, by hand or, as the Undo of a revocation, from the sources that it had.
async fn assign(visit: &Visit, role: &str, held: Option<&HeldRole>) -> Result<Notice> {
    let t = Words::of(visit.language);
    let sources = visit.submitted("sources").unwrap_or("manual");
    let mut given = Value::Null;
    for source in sources.split(',') {
        given = assign_from(visit, role, source).await?;
    }
    let former = held.map(|held| held.sources.join(",")).unwrap_or_default();
    let name = super::role_name(visit, &given["role_display_name"], &given["role_key"]);
    let undo = [("act", "revoke"), ("role_id", role), ("keep", former.as_str())];
    Ok(Notice::new(fill(t.given, &[&name])).with_undo(address_of(visit, TAB), &undo))
}

/// Revokes the role from all sources; as the Undo of giving it, those it had before are kept.
async fn revoke(visit: &Visit, role: &str, held: Option<&HeldRole>) -> Result<Notice> {
    let t = Words::of(visit.language);
    let former = |source: &&str| held.is_some_and(|held| held.sources.iter().any(|known| known == source));
    let kept: Vec<&str> = visit.submitted("keep").unwrap_or_default().split(',').filter(former).collect();
    visit.call(op("revoke_user_role").at(visit.path("uid")).at(role)).await?;
    for source in kept {
        assign_from(visit, role, source).await?;
    }
    let sources = held.map(|held| held.sources.join(",")).unwrap_or_default();
    let name = held.map_or("", |held| held.name.as_str());
    let undo = [("act", "assign"), ("role_id", role), ("sources", sources.as_str())];
    Ok(Notice::new(fill(t.revoked, &[&name])).with_undo(address_of(visit, TAB), &undo))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Language, held_roles};

    #[test]
    fn a_role_from_two_sources_is_one_role() {
        let entry = |role: &str, source: &str, at: i64| json!({"role_id": role, "role_display_name": "", "role_key": role, "source": source, "create_at": at});
        let data = json!({"user_roles": [entry("a", "oidc", 5), entry("b", "manual", 2), entry("a", "manual", 3)]});
        let held = held_roles(Language::English, &data);
        let seen: Vec<_> = held.iter().map(|role| (role.name.as_str(), role.sources.join(","), role.since)).collect();
        assert_eq!(seen, [("a", "oidc,manual".to_owned(), 3), ("b", "manual".to_owned(), 2)]);
    }
}
