//! A new member: an account that somebody else makes, or the membership of a person who has one.

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::json;

use super::{has_no_member, is_shown_in_form, name_of, proposed_role, role_choices, role_name};
use crate::console::client::{encoded, op};
use crate::console::components::{self, Field, Select, Text};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fill, words};
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{self, Error, ErrorCode, Result};

words! {
    Words {
        title: "New member", "新增成員";
        about: "Creates an account in this organization. A username or an e-mail is needed. Better is often an invitation: then people choose name and password themselves.", "在此組織建立帳號，使用者名稱或電子郵件至少要填一項。通常建議改用邀請，由對方自行設定名稱與密碼。";
        invite: "Invite instead", "改用邀請";
        account: "New account", "新帳號";
        password_hint: "Without a password, create a password link on the next page, and pass it on.", "若不設定密碼，可在下一頁建立密碼連結後轉交。";
        create: "Create the member", "建立成員";
        created: "{} is a member now. Give the first role below.", "{} 已成為成員，請在下方授予第一個角色。";
        created_with: "{} is a member now, with the role {}.", "{} 已成為成員，角色為 {}。";
        created_without: "{} is a member now, but without the role: {}", "{} 已成為成員，但未授予角色：{}";
        role: "Role", "角色";
        needs_name: "A member needs a username or an e-mail.", "成員需要使用者名稱或電子郵件。";
        exists: "Somebody has this name or e-mail already", "這個名稱或電子郵件已有人使用";
        exists_here: "In this organization it is:", "此組織中的成員：";
        exists_elsewhere: "Nobody in this organization has it. The person can join with the account they have: invite them.", "此組織中沒有這位成員。對方可以用現有帳號加入，請發送邀請。";
        add: "Add a person who has an account", "加入已有帳號的人";
        add_about: "Everybody finds their id on their own profile page.", "每個人都能在自己的個人資料頁找到識別碼。";
        uid: "Id of the person", "對方的識別碼";
        add_submit: "Add to this organization", "加入此組織";
        added: "{} is a member now. Give the first role below.", "{} 已成為成員，請在下方授予第一個角色。";
    }
}

/// Shows the form.
pub async fn form(visit: &Visit) -> Result<View> {
    Ok(page(visit, None, None).await?.into())
}

/// The two forms, each with the error of its operation.
async fn page(visit: &Visit, of_create: Option<&Error>, of_add: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let create = Form::new(visit, "create_member")?.error(of_create);
    let is_taken = of_create.is_some_and(|error| {
        matches!(error.code, ErrorCode::MemberExists | ErrorCode::EmailExists | ErrorCode::UsernameExists)
    });
    let inner = html! {
        (components::hidden_input("act", "create"))
        @for name in ["display_name", "username", "email", "password"] { (create.field(name)) }
        p class="hint" { (t.password_hint) }
        (role_field(visit).await)
    };
    let body = html! {
        p { (t.about) }
        @if is_taken { (holders(visit).await) }
        (components::card(t.account, create.wrap(&visit.here(), inner, t.create)))
        @if visit.may("link_member_by_name") { (components::card(t.add, add_form(visit, of_add))) }
    };
    let content = Content::new(t.title, body);
    let content = match visit.may("create_invitation") {
        true => content.actions(components::link_button(&visit.in_organization("invitations"), t.invite)),
        false => content,
    };
    Ok(match of_create.or(of_add) {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// The choice of the first role, if the visitor may give one.
async fn role_field(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    if !visit.may("assign_user_role") {
        return html! {};
    }
    let data = visit.find(op("list_roles")).await.unwrap_or_default();
    let choices = role_choices(visit, &data);
    if choices.is_empty() {
        return html! {};
    }
    let proposed = proposed_role(&data, &choices, has_no_member(visit).await).filter(|_| visit.form.is_empty());
    let chosen = visit.submitted("role_id").or(proposed.as_deref()).unwrap_or_default();
    let mut options = vec![("", "—")];
    options.extend(choices.iter().map(|(id, name)| (id.as_str(), name.as_str())));
    let about = Field::new("role_id", t.role).mark(visit.frame().optional);
    let select = Select { name: "role_id", options: &options, chosen, is_required: false };
    components::field(&about, components::select_input(&about, &select))
}

/// Who has the name or e-mail that was typed: a link, if they are in this organization.
async fn holders(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let typed: Vec<&str> = ["username", "email"].iter().filter_map(|name| visit.submitted(name)).collect();
    let asked = typed.iter().map(|text| visit.find(op("list_users").query("keyword", text).query("offset", 0)));
    let found: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    let has_it = |user: &&serde_json::Value| {
        let names = ["username", "email"].iter().filter_map(|key| user[*key].as_str());
        names.into_iter().any(|name| typed.iter().any(|text| text.eq_ignore_ascii_case(name)))
    };
    let mut here: Vec<_> = found.iter().flat_map(list::items).filter(has_it).collect();
    here.dedup_by_key(|user| user["id"].as_str().unwrap_or_default());
    let invite = visit
        .submitted("email")
        .map_or_else(|| "invitations".to_owned(), |email| format!("invitations?email={}", encoded(email)));
    let body = html! {
        @if here.is_empty() {
            p { (t.exists_elsewhere) }
            @if visit.may("create_invitation") {
                (components::actions(components::link_button(&visit.in_organization(&invite), t.invite)))
            }
        } @else {
            p { (t.exists_here) }
            ul {
                @for user in here {
                    @let id = user["id"].as_str().unwrap_or_default();
                    li { a href=(visit.in_organization(&format!("members/{id}"))) { (name_of(user)) } }
                }
            }
        }
    };
    components::card(t.exists, body)
}

fn add_form(visit: &Visit, error: Option<&Error>) -> Markup {
    let t = Words::of(visit.language);
    let sentence = |error: &Error| errors::sentence(error, visit.language);
    let faults: Vec<String> = error.map(sentence).into_iter().collect();
    let about = Field::new("uid", t.uid).hint(t.add_about).faults(&faults);
    let text = Text {
        name: "uid",
        value: visit.submitted("uid").unwrap_or_default(),
        is_required: true,
        maxlength: Some(36),
        autocomplete: Some("off"),
        ..Text::default()
    };
    html! {
        form method="post" action=(visit.here()) {
            (components::hidden_input("act", "add"))
            (components::text_field(&about, &text))
            (components::actions(components::button_plain(t.add_submit)))
        }
    }
}

/// Creates the member, or adds the person.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("create") => create(visit).await,
        Some("add") => add(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let body = form::read(visit.operation("create_member")?, visit);
    if body["username"].is_null() && body["email"].is_null() && visit.may("create_member") {
        let needs = Words::of(visit.language).needs_name;
        let faults = ["username", "email"].map(|name| error::Field::body(name, needs));
        return Ok(page(visit, Some(&Error::fields(faults.to_vec())), None).await?.into());
    }
    match visit.call(op("create_member").body(&body).once(visit.submitted(form::ONCE))).await {
        Ok(made) => {
            let uid = made.data["id"].as_str().unwrap_or_default();
            let text = give_role(visit, uid, name_of(&made.data)).await;
            visit.done(visit.of_organization(&format!("members/{uid}")), text)
        }
        Err(error) if is_shown_in_form(visit, "create_member", &error) => {
            Ok(page(visit, Some(&error), None).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// Gives the chosen role to the new member, and returns what is told. A failure does not undo the member.
async fn give_role(visit: &Visit, uid: &str, name: &str) -> String {
    let t = Words::of(visit.language);
    let Some(role) = visit.submitted("role_id") else { return fill(t.created, &[&name]) };
    match visit.call(op("assign_user_role").at(uid).body(&json!({"role_id": role}))).await {
        Ok(given) => {
            let role = role_name(visit, &given.data["role_display_name"], &given.data["role_key"]);
            fill(t.created_with, &[&name, &role])
        }
        // The same form was sent before.
        Err(error) if error.code == ErrorCode::RoleAlreadyAssigned => fill(t.created, &[&name]),
        Err(error) => fill(t.created_without, &[&name, &errors::sentence(&error, visit.language)]),
    }
}

async fn add(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let uid = visit.submitted("uid").unwrap_or_default().trim();
    let code = visit.organization().map_or("", |here| here.code.as_str());
    match visit.call(op("link_member_by_name").at(uid).body(&json!({"organization": code}))).await {
        Ok(_) => {
            let user = visit.find(op("get_user").at(uid)).await.unwrap_or_else(|| json!({"id": uid}));
            visit.done(visit.of_organization(&format!("members/{uid}")), fill(t.added, &[&name_of(&user)]))
        }
        Err(error)
            if error.code == ErrorCode::MemberNotFound || is_shown_in_form(visit, "link_member_by_name", &error) =>
        {
            Ok(page(visit, None, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}
