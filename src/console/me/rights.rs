//! What the member may do, in each organization: roles, permissions as a tree, and direct grants.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::{may_in, organizations, part, text};
use crate::console::client::op;
use crate::console::components::{self, Column, Row, Tab, Tone};
use crate::console::i18n::{fill, permissions, roles as role_names, words};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

words! {
    Rights {
        title: "Rights", "權限";
        organizations: "Organizations", "組織";
        none: "No organization yet", "尚未加入組織";
        none_text: "Rights come from roles in an organization. Ask an administrator for an invitation link.", "權限來自組織中的角色。請向管理員索取邀請連結。";
        join: "Join an organization", "加入組織";
        roles: "Your roles in {}", "您在「{}」的角色";
        no_roles: "You hold no role here that is open.", "您在這裡沒有開啟中的角色。";
        permissions: "What you may do", "您可以做的事";
        no_permissions: "Nothing beyond your own data.", "除了您自己的資料之外，沒有其他權限。";
        closed: "closed", "已關閉";
        grants: "Direct grants", "直接授權";
        grants_text: "Rights that were given to you alone, without a role.", "不經由角色、單獨授予您的權限。";
        scope: "Scope", "範圍";
        module: "Module", "模組";
        action: "Action", "動作";
        more: "Do you need more? Ask an administrator of the organization.", "需要更多權限嗎？請洽組織的管理員。";
    }
}

pub async fn show(visit: &Visit) -> Result<View> {
    let t = Rights::of(visit.language);
    let own = organizations(visit);
    let Some(first) = own.first() else {
        let join = components::link_button(&visit.href("/console/me/join"), t.join);
        return Ok(Content::new(t.title, components::empty(t.none, t.none_text, Some(join))).into());
    };
    let shown = match visit.query("org") {
        Some(code) => own.iter().find(|one| text(one, "org_code") == code).ok_or(ErrorCode::OrganizationNotFound)?,
        None => first,
    };
    let code = text(shown, "org_code");
    let call = op("get_my_permissions").query("include_tree", true);
    let (permissions, rights) = join(visit.call_in(Some(code), call), part(visit, op("get_my_rights"))).await;
    let permissions = permissions?.data;
    let roles_here = match may_in(visit, code, "list_roles") {
        true => visit.call_in(Some(code), op("list_roles")).await.ok().map(|answer| answer.data),
        false => None,
    };
    let body = html! {
        @if own.len() > 1 { (tabs(visit, t, code)) }
        (components::card(&fill(t.roles, &[&text(shown, "name")]), roles(visit, t, &permissions, roles_here.as_ref())))
        (components::card(t.permissions, html! {
            @match permissions["tree"].as_array().filter(|tree| !tree.is_empty()) {
                Some(tree) => (branch(visit, t, tree, 0)),
                None => p { (t.no_permissions) },
            }
            p { (t.more) }
        }))
        @if let Some(rights) = &rights { (grants(t, rights)) }
        (components::actions(components::link_button(&visit.href("/console/me/join"), t.join)))
    };
    Ok(Content::new(t.title, body).into())
}

fn tabs(visit: &Visit, t: &Rights, present: &str) -> Markup {
    let all: Vec<Tab<'_>> = organizations(visit)
        .iter()
        .map(|one| Tab {
            href: visit.with_query(&[("org", text(one, "org_code"))]),
            text: text(one, "name"),
            is_current: text(one, "org_code") == present,
        })
        .collect();
    components::tabs(t.organizations, &all)
}

/// The roles that the member holds. Display names are known if the member may list the roles of the organization.
fn roles(visit: &Visit, t: &Rights, permissions: &Value, known: Option<&Value>) -> Markup {
    let name_of = |key: &str| {
        let mut all = known.and_then(|known| known["roles"].as_array()).into_iter().flatten();
        let found = all.find(|role| text(role, "key") == key).map_or("", |role| text(role, "display_name"));
        role_names::name(found, key, visit.language).to_owned()
    };
    let roles: Vec<&str> = permissions["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    html! {
        @if roles.is_empty() { p { (t.no_roles) } }
        @else { p { @for role in roles { (components::badge(Tone::Plain, &name_of(role))) " " } } }
    }
}

/// The deepest level that is shown; catalogs are nested less.
const LEVELS_MAX: usize = 12;

/// Entries of the catalog with those below them, as lists in lists. The upper level can be folded.
fn branch(visit: &Visit, t: &Rights, entries: &[Value], level: usize) -> Markup {
    let below =
        |entry: &Value| entry["children"].as_array().filter(|all| !all.is_empty() && level < LEVELS_MAX).cloned();
    html! {
        ul class="tree" {
            @for entry in entries {
                li {
                    @match below(entry) {
                        Some(children) => details open[level == 0] {
                            summary { (named(visit, t, entry)) }
                            (branch(visit, t, &children, level + 1))
                        },
                        None => (named(visit, t, entry)),
                    }
                }
            }
        }
    }
}

fn named(visit: &Visit, t: &Rights, entry: &Value) -> Markup {
    let name = text(entry, "name");
    html! {
        @if let Some(meaning) = permissions::meaning(name, visit.language) { (meaning) " " }
        code { (name) }
        @if let Some(path) = entry["http_path"].as_str() {
            " " span class="quiet" { (text(entry, "http_methods")) " " (path) }
        }
        @if text(entry, "status") == "close" { " " (components::badge(Tone::Warn, t.closed)) }
    }
}

fn grants(t: &Rights, rights: &Value) -> Markup {
    let all = rights["permissions"].as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return html! {};
    }
    let rows = all.iter().map(|grant| Row {
        cells: vec![
            html! { (text(grant, "scope_type")) " " code { (text(grant, "scope_id")) } },
            html! { code { (text(grant, "module")) } },
            html! { code { (text(grant, "action")) } },
        ],
        ..Row::default()
    });
    let table = components::table(t.grants, &[t.scope, t.module, t.action].map(Column::new), rows.collect());
    components::card(t.grants, html! { p { (t.grants_text) } (table) })
}
