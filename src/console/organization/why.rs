//! *Why?*: asks `check_permission` about a member and shows the decision with everything it rests on, and what would
//! change it. The address holds the question, so it can be sent to somebody else.

use maud::{Markup, html};
use poem::Response;
use serde_json::{Value, json};

use super::members::role_name;
use super::roles::name_of;
use crate::console::client::{encoded, op};
use crate::console::components::{
    self, Field, Picker, Select, State, Step, Text, Tone, badge, button_plain, copyable, empty, facts, rail, verdict,
};
use crate::console::i18n::why::Why;
use crate::console::i18n::{Language, errors, fill};
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

/// The names of the question in the address, in the order of the form.
const QUESTION: [&str; 8] = ["uid", "method", "path", "permission", "scope_type", "scope_id", "module", "action"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A member as questions name it.
struct Person {
    uid: String,
    name: String,
}

/// Shows the question, and its answer if there is one.
pub async fn ask(visit: &Visit) -> Result<View> {
    let t = Why::of(visit.language);
    let is_asked = ["path", "permission", "scope_type"].iter().any(|name| visit.query(name).is_some());
    let (body, failure) = match visit.query("uid").filter(|_| is_asked) {
        None => (examples(visit, t), None),
        Some(_) => match answers(visit, t).await {
            Ok(markup) => (markup, None),
            Err(error) if matches!(error.code.status(), 400 | 404) => {
                let summary: Vec<(String, String)> = error
                    .fields
                    .iter()
                    .map(|field| (field.name().to_owned(), errors::field_message(&field.message, visit.language)))
                    .collect();
                let title = errors::sentence(&error, visit.language);
                let shown = if summary.is_empty() {
                    components::notice(Tone::Bad, &title, None)
                } else {
                    components::faults_summary(&title, &summary)
                };
                (shown, Some(error))
            }
            Err(error) => return Err(error),
        },
    };
    let page = html! { p { (t.about) } (question(visit, t)) div id="answer" { (body) } };
    let content = Content::new(t.title, page);
    Ok(match failure {
        Some(error) => content.status_of(&error).into(),
        None => content.into(),
    })
}

/// The form: a sentence with gaps.
fn question(visit: &Visit, t: &Why) -> Markup {
    let methods: Vec<(&str, &str)> = METHODS.iter().map(|method| (*method, *method)).collect();
    let picker_address = visit.in_organization("why/members");
    let value = |name| visit.query(name).unwrap_or_default();
    let text = |name: &'static str, label: &str| {
        let field = Field::new(name, label);
        components::field(&field, components::text_input(&field, &Text { name, value: value(name), ..Text::default() }))
    };
    let has_other = QUESTION[3..].iter().any(|name| visit.query(name).is_some());
    html! {
        form.question method="get" action=(visit.here()) {
            div.row {
                @let who = Field::new("uid", t.member);
                (components::field(&who, components::picker_input(&who, &Picker {
                    name: "uid", value: value("uid"), from: &picker_address, is_required: true, placeholder: Some(t.member_hint),
                })))
                @let method = Field::new("method", t.method);
                (components::field(&method, components::select_input(&method, &Select {
                    name: "method", options: &methods, chosen: value("method"), is_required: false,
                })))
                @let path = Field::new("path", t.path);
                (components::field(&path, components::text_input(&path, &Text {
                    name: "path", value: value("path"), placeholder: Some("/videos/7"), ..Text::default()
                })))
                (components::button(t.ask))
            }
            details open[has_other] {
                summary { (t.other_kinds) }
                div.row { (text("permission", t.permission)) }
                div.row {
                    (text("scope_type", t.scope_type)) (text("scope_id", t.scope_id))
                    (text("module", t.module)) (text("action", t.action))
                }
                div.row { (text("with", t.compare_with)) }
            }
        }
    }
}

fn examples(visit: &Visit, t: &Why) -> Markup {
    let uid = visit.uid();
    let example = |query: String, text: &str| html! { li { a href=(format!("{}?{query}", visit.here())) { (text) } } };
    empty(
        t.empty_title,
        t.empty_text,
        Some(html! {
            ul.plain {
                (example(format!("uid={uid}&method=GET&path={}", encoded("/videos")), t.example_route))
                (example(format!("uid={uid}&permission=roster.user.list"), t.example_permission))
            }
        }),
    )
}

/// Asks, for one member or for two beside each other.
async fn answers(visit: &Visit, t: &Why) -> Result<Markup> {
    let roles = visit.find(op("list_roles")).await.unwrap_or_default();
    let first = ask_about(visit, t, &roles, visit.query("uid").unwrap_or_default()).await?;
    let second = match visit.query("with") {
        Some(name) => Some(ask_about(visit, t, &roles, name).await?),
        None => None,
    };
    Ok(html! {
        div.compare {
            section { (first) }
            @if let Some(second) = second { section { (second) } }
        }
        (sharing(visit, t))
    })
}

async fn ask_about(visit: &Visit, t: &Why, roles: &Value, name: &str) -> Result<Markup> {
    let person = person(visit, name).await?;
    let answer = visit.call(op("check_permission").body(&request(visit, &person.uid))).await?.data;
    Ok(answer_of(visit, t, roles, &person, &answer))
}

/// Finds the member that was named by uid, or by a login that only one member of the organization has.
async fn person(visit: &Visit, name: &str) -> Result<Person> {
    let unknown = || Error::field("uid", "names no member of this organization").with_message("no such member");
    if uuid::Uuid::parse_str(name).is_ok() {
        let found = visit.find(op("get_user").at(name)).await.unwrap_or(Value::Null);
        return Ok(Person { uid: name.to_owned(), name: shown(&found, name) });
    }
    if !visit.may("list_users") {
        return Err(unknown());
    }
    let found = visit.call(op("list_users").query("keyword", name).query("limit", 2)).await?.data;
    match found["items"].as_array().map(Vec::as_slice) {
        Some([only]) => Ok(Person { uid: only["id"].as_str().unwrap_or_default().to_owned(), name: shown(only, name) }),
        _ => Err(unknown()),
    }
}

/// The name of a member; what was asked for if there is none to show.
fn shown(user: &Value, asked: &str) -> String {
    Some(name_of(user)).filter(|name| !name.is_empty()).unwrap_or(asked).to_owned()
}

/// The body of the check: the question of the address about one member.
fn request(visit: &Visit, uid: &str) -> Value {
    let mut body = json!({"uid": uid, "explain": true});
    let grant = &QUESTION[4..];
    let names: &[&str] = if visit.query("permission").is_some() {
        &["permission"]
    } else if grant.iter().any(|name| visit.query(name).is_some()) {
        grant
    } else {
        &["method", "path"]
    };
    for name in names {
        if let Some(value) = visit.query(name) {
            body[*name] = json!(value);
        }
    }
    body
}

fn answer_of(visit: &Visit, t: &Why, roles: &Value, person: &Person, answer: &Value) -> Markup {
    let is_yes = answer["allow"] == true;
    let reason = answer["reason"].as_str().unwrap_or_default();
    let because = &answer["because"];
    html! {
        (verdict(is_yes, if is_yes { visit.frame().yes } else { visit.frame().no },
            &fill(sentence(reason, visit.language), &[&person.name]), Some(reason)))
        @if let Some(message) = answer["message"].as_str() {
            p.said { (fill(t.plugin_said, &[&message])) }
        }
        (stages(t, because, visit.language))
        (rests_on(visit, t, roles, because))
        @if !is_yes { (would_change(visit, t, roles, person, because)) }
        p.epoch { (fill(t.epoch, &[&answer["epoch"]])) }
    }
}

/// Gate, roles and plugins, each with its verdict.
fn stages(t: &Why, because: &Value, language: Language) -> Markup {
    let stages: Vec<(&str, &str)> = because["stages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|stage| Some((stage["stage"].as_str()?, stage["verdict"].as_str()?)))
        .collect();
    let steps: Vec<Step<'_>> = stages
        .iter()
        .map(|(stage, verdict)| {
            let text = match *stage {
                "gate" => t.stage_gate,
                "base" => t.stage_base,
                _ => t.stage_plugin,
            };
            let (state, state_text) = match *verdict {
                "pass" | "allow" | "ok_role" | "ok_grant" | "ok_plugin" => (State::Done, t.passed),
                "not_asked" | "none_bound" | "not_covered" | "abstain" => (State::Waiting, t.not_asked),
                _ => (State::Failed, t.refused),
            };
            Step { text, state, state_text, note: Some(verdict_text(verdict, t, language).to_owned()), href: None }
        })
        .collect();
    rail(&steps)
}

fn verdict_text<'a>(verdict: &'a str, t: &Why, language: Language) -> &'a str
where
    'static: 'a,
{
    match verdict {
        "pass" | "allow" => t.passed,
        "not_asked" => t.not_asked,
        "none_bound" => t.none_bound,
        "not_covered" => t.not_covered,
        "abstain" => t.abstained,
        reason if language == Language::English => reason,
        reason => short(reason),
    }
}

/// A reason in a few Chinese words; the word itself for one that has none.
fn short(reason: &str) -> &str {
    match reason {
        "ok_role" => "角色允許",
        "ok_grant" => "直接授權",
        "ok_plugin" => "外掛允許",
        "no_permission" => "沒有權限",
        "plugin_denied" => "外掛拒絕",
        "plugin_failed" => "外掛失敗",
        other => other,
    }
}

/// What the decision rests on: the route, the roles, the grants, the plugins.
fn rests_on(visit: &Visit, t: &Why, known: &Value, because: &Value) -> Markup {
    let names =
        |key: &str| -> Vec<&str> { because[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let roles = |key: &str| {
        let list = because[key].as_array().map_or(&[][..], Vec::as_slice);
        html! {
            @if list.is_empty() { (visit.frame().none) }
            @for role in list { (role_badge(visit, known, role)) " " }
        }
    };
    let mut rows: Vec<(&str, Markup)> = Vec::new();
    if let Some(template) = because["template"].as_str() {
        rows.push((t.route, html! { code { (template) } }));
    }
    let permissions = names("permissions");
    if !permissions.is_empty() {
        rows.push((t.answered_by, html! { @for name in permissions { code { (name) } " " } }));
    }
    rows.push((t.holds, roles("roles")));
    if because["allowed_by"].as_array().is_some_and(|all| !all.is_empty()) {
        rows.push((t.allowed_by, roles("allowed_by")));
    }
    let grants = names("grant_ids");
    if !grants.is_empty() {
        rows.push((t.grants, html! { @for id in grants { code { (id) } " " } }));
    }
    html! {
        h2 { (t.rests_on) }
        (facts(&rows))
        (plugins(visit, t, because))
    }
}

/// The name of a role of the explanation; `known` is the answer of `list_roles`, null for who may not list them.
fn title_of<'r>(visit: &Visit, known: &'r Value, role: &'r Value) -> &'r str {
    let mut all = known["roles"].as_array().into_iter().flatten();
    let found = all.find(|one| one["id"] == role["role_id"]).map_or(&Value::Null, |one| &one["display_name"]);
    role_name(visit, found, &role["role_key"])
}

fn role_badge(visit: &Visit, known: &Value, role: &Value) -> Markup {
    let sources: Vec<&str> = role["sources"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let id = role["role_id"].as_str().unwrap_or_default();
    html! {
        a href=(visit.in_organization(&format!("roles/{id}"))) { (title_of(visit, known, role)) }
        @if !sources.is_empty() { " " small { "(" (sources.join(", ")) ")" } }
    }
}

fn plugins(visit: &Visit, t: &Why, because: &Value) -> Markup {
    let called = because["plugins"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        @if !called.is_empty() {
            h2 { (t.plugins) }
            ul.plain {
                @for plugin in called {
                    @let outcome = plugin["outcome"].as_str().unwrap_or_default();
                    @let tone = match outcome { "allow" => Tone::Ok, "abstain" | "not_covered" => Tone::Plain, _ => Tone::Bad };
                    li {
                        @let name = plugin["name"].as_str().unwrap_or_default();
                        @let page = visit.may("get_plugin").then(|| visit.in_organization(&format!("plugins/{}", encoded(name))));
                        strong { @if let Some(page) = page { a href=(page) { (name) } } @else { (name) } " v" (plugin["version"]) } " "
                        (badge(tone, outcome)) " " (badge(Tone::Plain, plugin["mode"].as_str().unwrap_or_default()))
                        @if let Some(reason) = plugin["reason"].as_str() { " “" (reason) "”" }
                        @if let Some(fault) = plugin["fault"].as_str() { " " code { (fault) } }
                    }
                }
            }
        }
    }
}

/// The roles that would turn the denial, each with a button.
fn would_change(visit: &Visit, t: &Why, known: &Value, person: &Person, because: &Value) -> Markup {
    let mut roles: Vec<&Value> = because["would_allow"].as_array().into_iter().flatten().collect();
    // The owner may do everything, so that role is the last choice.
    roles.sort_by_key(|role| role["role_key"] == "tenant_owner");
    let action = visit.with_query(&[]);
    html! {
        h2 { (t.would_change) }
        @if roles.is_empty() { p { (t.nothing_would) } }
        ul.plain.choices {
            @for role in roles {
                li {
                    (role_badge(visit, known, role))
                    @if let Some(permission) = role["permission"].as_str() { " " code { (permission) } }
                    @if visit.may("assign_user_role") {
                        form method="post" action=(action) {
                            input type="hidden" name="act" value="assign";
                            input type="hidden" name="member" value=(person.uid);
                            input type="hidden" name="role_id" value=(role["role_id"].as_str().unwrap_or_default());
                            (button_plain(t.assign))
                        }
                    }
                }
            }
        }
    }
}

/// How to pass the question on.
fn sharing(visit: &Visit, t: &Why) -> Markup {
    let frame = visit.frame();
    let config = visit.config();
    let link = format!("{}{}", visit.public_url(), visit.with_query(&[]).replacen(config.public_path(), "", 1));
    let code = visit.organization().map_or("", |here| here.code.as_str());
    let body = request(visit, visit.query("uid").unwrap_or_default()).to_string().replace('\'', "'\\''");
    let curl = format!(
        "curl -X POST {}{}/permissions/check -H \"Authorization: Bearer $TOKEN\" -H 'X-Tenant-ID: {code}' \
         -H 'Content-Type: application/json' -d '{body}'",
        visit.public_url(),
        config.base_path
    );
    html! {
        details {
            summary { (t.share) }
            (copyable(&link, frame.copy, frame.copied))
            (copyable(&curl, frame.copy, frame.copied))
        }
    }
}

/// Assigns a role that would allow the request, or takes it back.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Why::of(visit.language);
    let (member, role) =
        (visit.submitted("member").unwrap_or_default(), visit.submitted("role_id").unwrap_or_default());
    let back = visit.with_query(&[]).replacen(visit.config().public_path(), "", 1);
    match visit.submitted("act") {
        Some("assign") => {
            visit.call(op("assign_user_role").at(member).body(&json!({"role_id": role}))).await?;
            let fields = [("act", "revoke"), ("member", member), ("role_id", role)];
            let notice = Notice::new(t.assigned).with_undo(back.clone(), &fields);
            Ok(View::Redirect(back, Some(notice)))
        }
        Some("revoke") => {
            visit.call(op("revoke_user_role").at(member).at(role)).await?;
            visit.done(back, t.revoked)
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// The suggestions of the member field, as options.
pub async fn members(visit: &Visit) -> Result<View> {
    const SUGGESTIONS: usize = 8;
    let found =
        visit.call(op("list_users").query_some("keyword", visit.query("q")).query("limit", SUGGESTIONS)).await?.data;
    let options = html! {
        @for user in found["items"].as_array().into_iter().flatten() {
            option value=(user["id"].as_str().unwrap_or_default()) {
                (name_of(user))
                @if let Some(email) = user["email"].as_str() { " · " (email) }
            }
        }
    };
    let response = Response::builder()
        .content_type("text/html; charset=utf-8")
        .header("Content-Security-Policy", crate::console::layout::POLICY)
        .body(options.into_string());
    Ok(View::Response(Box::new(response)))
}

/// The reason as a sentence about a member.
pub(super) fn sentence(reason: &str, language: Language) -> &'static str {
    let t = Why::of(language);
    match reason {
        "ok_role" => t.ok_role,
        "ok_grant" => t.ok_grant,
        "ok_plugin" => t.ok_plugin,
        "no_permission" => t.no_permission,
        "unmapped_route" => t.unmapped_route,
        "method_not_mapped" => t.method_not_mapped,
        "path_not_canonical" => t.path_not_canonical,
        "member_inactive" => t.member_inactive,
        "not_a_member" => t.not_a_member,
        "tenant_inactive" => t.tenant_inactive,
        "plugin_denied" => t.plugin_denied,
        "plugin_failed" => t.plugin_failed,
        _ => t.snapshot_unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::sentence;
    use crate::console::i18n::{Language, gap_count};
    use crate::kernel::authz::decide::Reason;

    #[test]
    fn every_reason_has_a_sentence_of_its_own() {
        for language in Language::ALL {
            let mut all: Vec<&str> = Reason::ALL.iter().map(|reason| sentence(reason.as_str(), language)).collect();
            assert!(all.iter().all(|text| gap_count(text) <= 1));
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), Reason::ALL.len());
        }
    }
}
