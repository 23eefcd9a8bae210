//! The profile of a member: names, status, access, and the ways to end it.

use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::Value;

use super::{
    MemberTab, address_of, get_user, is_shown_in_form, member_page, name_of, place, refused, roles, status_badge,
    take_out_box,
};
use crate::console::client::op;
use crate::console::components::{self, Change, Confirm, Kind, Tone, Typed};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        facts: "Account", "帳號";
        status: "Status", "狀態";
        reason: "Reason", "原因";
        id: "Id", "識別碼";
        folder: "Folder and SFTPGo name", "資料夾與 SFTPGo 名稱";
        wordpress: "WordPress number", "WordPress 編號";
        subject: "Identity at Authentik", "Authentik 身分";
        created: "Created", "建立時間";
        updated: "Changed", "更新時間";
        names: "Names", "名稱";
        save: "Save", "儲存";
        saved: "Saved.", "已儲存。";
        unchanged: "Nothing was changed.", "沒有變更任何內容。";
        theirs: "Now", "目前";
        yours: "Yours", "您的";
        field: "Field", "欄位";
        access: "Access", "存取";
        suspend: "Suspend", "停權";
        suspend_text: "Signs the member out everywhere and stops all keys at once. Nothing is deleted.", "立即登出所有裝置並停用所有金鑰，不會刪除任何資料。";
        suspended: "{} is suspended. All sessions and keys stopped working.", "{} 已停權，所有工作階段與金鑰都已失效。";
        activate: "Activate", "啟用";
        activate_text: "The member can sign in again, with the same roles.", "成員可以再次登入，角色維持不變。";
        activated: "{} is active again.", "{} 已重新啟用。";
        link: "Create a password link", "建立密碼連結";
        link_text: "For somebody who forgot the password. The link works once; a new one ends the former.", "供忘記密碼的成員使用。連結只能使用一次，建立新連結後舊連結即失效。";
        link_title: "Password link for {}", "{} 的密碼連結";
        link_once: "Give this link to {} over a channel you trust. It is shown only now.", "請透過可信任的管道將此連結交給 {}。連結只會顯示這一次。";
        link_until: "It works until", "有效期限";
        factor: "Reset the second factor", "重設第二因素驗證";
        factor_text: "For somebody who lost the phone and the recovery codes. Without a second factor, nothing changes.", "供遺失手機與備用碼的成員使用；若尚未設定第二因素驗證，則不會有任何變更。";
        factor_title: "Reset the second factor of {}?", "要重設 {} 的第二因素驗證嗎？";
        factor_goes: "The authenticator and all recovery codes stop working.", "驗證器應用程式與所有備用碼都會失效。";
        factor_sessions: "All sessions of the member end.", "該成員的所有工作階段都會結束。";
        factor_next: "At the next sign-in the password is enough, unless the organization requires a second factor: then a new one is set up.", "下次登入只需要密碼；若組織要求第二因素驗證，則需要重新設定。";
        factor_check: "Make sure that it really is them who ask.", "請先確認提出要求的確實是本人。";
        factor_done: "The second factor of {} is off.", "{} 的第二因素驗證已關閉。";
        factor_none: "{} has no second factor. Nothing was changed.", "{} 尚未設定第二因素驗證，沒有變更任何內容。";
        end: "End the membership", "結束成員資格";
        take_out: "Take out of the organization", "移出組織";
        take_out_text: "The account stays, its roles here end.", "帳號會保留，在此組織的角色會失效。";
        taken_out: "{} is no longer in this organization.", "{} 已移出此組織。";
        erase: "Erase", "永久刪除";
        erase_text: "Deletes the account and all personal data, for good.", "永久刪除帳號與所有個人資料。";
        erase_title: "Erase {} for good?", "要永久刪除 {} 嗎？";
        erase_goes: "Names, e-mail, sessions, keys, roles and memberships in all organizations are deleted.", "名稱、電子郵件、工作階段、金鑰、角色與所有組織的成員資格都會刪除。";
        erase_stays: "The id stays in the audit log. Registered videos stay without an owner.", "稽核紀錄會保留識別碼。已登錄的影片會保留，但不再有擁有者。";
        erase_final: "This cannot be undone.", "此操作無法復原。";
        erase_type: "Type {} to confirm", "請輸入 {} 以確認";
        erase_differs: "The name differs. Nothing was deleted.", "輸入的名稱不符，沒有刪除任何資料。";
        erased: "The member was erased.", "已永久刪除成員。";
    }
}

const TAB: MemberTab = MemberTab::Profile;

/// Shows the profile, or the question before an act that cannot be undone.
pub async fn show(visit: &Visit) -> Result<View> {
    match visit.query("confirm") {
        Some("erase") if visit.may(erase_operation(visit)) => confirm_erase(visit, None).await,
        Some("take_out") if visit.organization().is_some() && visit.may("unlink_member") => {
            let user = get_user(visit).await?;
            let sent = components::hidden_input("act", "take_out");
            let organization = visit.organization().map_or("", |here| here.name.as_str());
            let body = take_out_box(visit, name_of(&user), organization, sent, &visit.here());
            Ok(member_page(visit, &user, TAB, body).into())
        }
        Some("second_factor") if visit.may("reset_second_factor") => confirm_second_factor(visit).await,
        _ => Ok(profile(visit, None).await?.into()),
    }
}

/// The profile; after a refused change with its error.
async fn profile(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let uid = visit.path("uid");
    let (user, account, roles) =
        join3(visit.call(op("get_user").at(uid)), visit.find(op("get_member").at(uid)), roles::card(visit)).await;
    let (answer, account) = (user?, account.unwrap_or_default());
    let user = answer.data;
    let body = html! {
        (names_form(visit, &user, answer.etag.as_deref(), error)?)
        @if let Some(roles) = roles? { (roles) }
        (access(visit, &user))
        (facts(visit, &user, &account))
        (endings(visit))
    };
    let content = member_page(visit, &user, TAB, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

pub fn facts(visit: &Visit, user: &Value, account: &Value) -> Markup {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let text = |value: &Value| value.as_str().map(|text| html! { (text) });
    let at = |key: &str| components::time(user[key].as_i64().unwrap_or_default());
    let id = user["id"].as_str().unwrap_or_default();
    let rows = [
        (t.status, Some(status_badge(visit, user["status"].as_str().unwrap_or_default()))),
        (t.reason, text(&user["status_reason"])),
        (t.folder, text(&user["sftpgo_username"])),
        (t.wordpress, user["wordpress_id"].as_i64().map(|number| html! { (number) })),
        (t.subject, text(&account["authentik_sub"])),
        (t.created, Some(at("created_at"))),
        (t.updated, Some(at("updated_at"))),
        (t.id, Some(components::copyable(id, frame.copy, frame.copied))),
    ];
    let rows: Vec<(&str, Markup)> = rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    components::card(t.facts, components::facts(&rows))
}

/// The fields of the form, which are also those of the difference after a conflict.
const NAMES: [&str; 3] = ["display_name", "username", "email"];

pub fn names_form(visit: &Visit, user: &Value, etag: Option<&str>, error: Option<&Error>) -> Result<Markup> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    if !visit.may("update_member") {
        let row = |name: &&'static str| {
            (fields::label(name, visit.language), html! { (user[*name].as_str().unwrap_or("–")) })
        };
        let rows: Vec<(String, Markup)> = NAMES.iter().map(row).collect();
        return Ok(components::card(t.names, components::facts(&rows)));
    }
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    // After a conflict the form holds the new version: saving it again is a decision made with both states in view.
    let version = etag.filter(|_| error.is_none() || is_stale);
    let form = Form::new(visit, "update_member")?;
    let form = if visit.submitted("act") == Some("update") { form.values(user) } else { form.present(user) };
    let form = form.version(version).error(error);
    let changes = NAMES.iter().filter_map(|name| {
        let (now, yours) = (user[*name].as_str(), visit.submitted(name));
        let text = |text: Option<&str>| text.map(str::to_owned);
        (now != yours).then(|| Change {
            name: fields::label(name, visit.language),
            before: text(now),
            after: text(yours),
        })
    });
    let inner = html! {
        (components::hidden_input("act", "update"))
        @for name in NAMES { (form.field(name)) }
    };
    let body = html! {
        @if is_stale {
            p { (frame.conflict_text) }
            (components::difference(frame.conflict_title, [t.field, t.theirs, t.yours], &changes.collect::<Vec<_>>()))
        }
        (form.wrap(&visit.here(), inner, t.save))
    };
    Ok(components::card(t.names, body))
}

/// A form with one button that sends `act`.
fn act_form(visit: &Visit, act: &str, text: &str, sentence: &str) -> Markup {
    html! {
        form class="act" method="post" action=(visit.here()) {
            (components::hidden_input(form::ONCE, &uuid::Uuid::now_v7().to_string()))
            (components::button_named("act", act, text, Kind::Plain))
            p class="hint" { (sentence) }
        }
    }
}

/// A link to the page that asks first.
fn act_link(visit: &Visit, confirm: &str, text: &str, sentence: &str, kind: Kind) -> Markup {
    let href = visit.with_query(&[("confirm", confirm)]);
    html! { div class="act" { (components::link_button_of(&href, text, kind, None)) p class="hint" { (sentence) } } }
}

pub fn access(visit: &Visit, user: &Value) -> Markup {
    let t = Words::of(visit.language);
    let is_active = user["status"] == "active";
    let is_oneself = visit.path("uid") == visit.uid();
    // On the pages of the site it takes a reason: a form of its own.
    let is_here = visit.organization().is_some();
    let body = html! {
        @if is_here && is_active && !is_oneself && visit.may("deactivate_member") { (act_form(visit, "suspend", t.suspend, t.suspend_text)) }
        @if !is_active && visit.may("activate_member") { (act_form(visit, "activate", t.activate, t.activate_text)) }
        @if visit.may("create_password_link") { (act_form(visit, "password_link", t.link, t.link_text)) }
        @if visit.may("reset_second_factor") {
            (act_link(visit, "second_factor", t.factor, t.factor_text, Kind::Plain))
        }
    };
    components::card(t.access, body)
}

pub fn endings(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let is_oneself = visit.path("uid") == visit.uid();
    let can_take_out = visit.organization().is_some() && !is_oneself && visit.may("unlink_member");
    let can_erase = !is_oneself && visit.may(erase_operation(visit));
    if !can_take_out && !can_erase {
        return html! {};
    }
    let body = html! {
        @if can_take_out { (act_link(visit, "take_out", t.take_out, t.take_out_text, Kind::Plain)) }
        @if can_erase { (act_link(visit, "erase", t.erase, t.erase_text, Kind::Danger)) }
    };
    components::card(t.end, body)
}

async fn confirm_second_factor(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let body = components::confirm_box(&Confirm {
        title: &fill(t.factor_title, &[&name_of(&user)]),
        action: &visit.here(),
        what_goes: &[t.factor_goes, t.factor_sessions, t.factor_next, t.factor_check].map(str::to_owned),
        typed: None,
        sent: Some(components::hidden_input("act", "reset_second_factor")),
        submit: t.factor,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Ok(member_page(visit, &user, TAB, body).into())
}

/// The operation that erases a member, in an organization or on the site.
fn erase_operation(visit: &Visit) -> &'static str {
    if visit.organization().is_some() { "delete_member" } else { "delete_user" }
}

/// What must be typed before a member is erased: the name that nobody else has, if there is one.
fn typed_name(user: &Value) -> &str {
    ["username", "email"].iter().find_map(|key| user[*key].as_str()).unwrap_or_else(|| name_of(user))
}

async fn confirm_erase(visit: &Visit, fault: Option<&str>) -> Result<View> {
    let t = Words::of(visit.language);
    let answer = visit.call(op("get_user").at(visit.path("uid"))).await?;
    let user = answer.data;
    let name = typed_name(&user);
    let sent = html! {
        (components::hidden_input("act", "erase"))
        (components::hidden_input(form::VERSION, answer.etag.as_deref().unwrap_or_default()))
    };
    let question = components::confirm_box(&Confirm {
        title: &fill(t.erase_title, &[&name_of(&user)]),
        action: &visit.here(),
        what_goes: &[t.erase_goes, t.erase_stays, t.erase_final].map(str::to_owned),
        typed: Some(Typed { name: "typed", label: &fill(t.erase_type, &[&name]), must_equal: name }),
        sent: Some(sent),
        submit: t.erase,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    let body = html! { @if let Some(fault) = fault { (components::notice(Tone::Bad, fault, None)) } (question) };
    let content = member_page(visit, &user, TAB, body);
    Ok(if fault.is_some() { content.status_of(&ErrorCode::BadInput.into()).into() } else { content.into() })
}

/// Performs what the submitted button says.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("update") => update(visit).await,
        Some("suspend") => set_active(visit, false).await,
        Some("activate") => set_active(visit, true).await,
        Some("password_link") => create_link(visit).await,
        Some("reset_second_factor") => reset_second_factor(visit).await,
        Some("take_out") => take_out(visit).await,
        Some("erase") => erase(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn update(visit: &Visit) -> Result<View> {
    match change_names(visit).await {
        Ok(text) => visit.done(address_of(visit, TAB), text),
        Err(error) if is_shown_in_form(visit, "update_member", &error) => {
            Ok(profile(visit, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// Changes the names, and returns what is told. Only what differs is sent: a name that stays keeps who vouches for it.
pub async fn change_names(visit: &Visit) -> Result<&'static str> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let mut body = form::read(visit.operation("update_member")?, visit);
    if let Some(sent) = body.as_object_mut() {
        sent.retain(|name, value| NAMES.contains(&name.as_str()) && user[name.as_str()] != *value);
        if sent.is_empty() {
            return Ok(t.unchanged);
        }
    }
    let call = op("update_member").at(visit.path("uid")).body(&body).if_match(visit.submitted(form::VERSION));
    visit.call(call).await?;
    Ok(t.saved)
}

/// Shows why the act was refused, or fails if that has nothing to do with the member.
async fn refusal(visit: &Visit, error: Error) -> Result<View> {
    if !is_of_form(&error) && !error.is_denial() {
        return Err(error);
    }
    Ok(refused(visit, &get_user(visit).await?, TAB, &error))
}

async fn set_active(visit: &Visit, is_active: bool) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let (operation, sentence, inverse) = match is_active {
        true => ("activate_member", t.activated, "suspend"),
        false => ("deactivate_member", t.suspended, "activate"),
    };
    if let Err(error) = visit.call(op(operation).at(visit.path("uid"))).await {
        return refusal(visit, error).await;
    }
    let notice = Notice::new(fill(sentence, &[&name_of(&user)]));
    let address = address_of(visit, TAB);
    Ok(View::Redirect(address.clone(), Some(notice.with_undo(address, &[("act", inverse)]))))
}

async fn create_link(visit: &Visit) -> Result<View> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let user = get_user(visit).await?;
    let call = op("create_password_link").at(visit.path("uid")).once(visit.submitted(form::ONCE));
    let made = match visit.call(call).await {
        Ok(made) => made.data,
        Err(error) => return refusal(visit, error).await,
    };
    let (name, url) = (name_of(&user), made["url"].as_str().unwrap_or_default());
    let body = html! {
        section class="card" {
            h2 { (fill(t.link_title, &[&name])) }
            (components::secret_once(url, &fill(t.link_once, &[&name]), frame.copy, frame.copied))
            p { (t.link_until) " " (components::time(made["expires_at"].as_i64().unwrap_or_default())) }
            (components::actions(components::link_button(&visit.here(), frame.back)))
        }
    };
    Ok(member_page(visit, &user, TAB, body).into())
}

async fn reset_second_factor(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    match visit.call(op("reset_second_factor").at(visit.path("uid"))).await {
        Ok(_) => visit.done(address_of(visit, TAB), fill(t.factor_done, &[&name_of(&user)])),
        Err(error) if error.code == ErrorCode::SecondFactorOff => {
            visit.done(address_of(visit, TAB), fill(t.factor_none, &[&name_of(&user)]))
        }
        Err(error) => refusal(visit, error).await,
    }
}

async fn take_out(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let organization = visit.organization().map_or("", |here| here.id.as_str());
    match visit.call(op("unlink_member").at(visit.path("uid")).at(organization)).await {
        Ok(_) => visit.done(visit.of_organization("members"), fill(t.taken_out, &[&name_of(&user)])),
        Err(error) => refusal(visit, error).await,
    }
}

/// Erases the member, if the name was typed.
async fn erase(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    if visit.submitted("typed").map(str::trim) != Some(typed_name(&user)) {
        return confirm_erase(visit, Some(t.erase_differs)).await;
    }
    let call = op(erase_operation(visit)).at(visit.path("uid")).if_match(visit.submitted(form::VERSION));
    match visit.call(call).await {
        Ok(_) => visit.done(place(visit, "members"), t.erased),
        Err(error) if error.code == ErrorCode::VersionStale => {
            confirm_erase(visit, Some(&errors::sentence(&error, visit.language))).await
        }
        Err(error) => refusal(visit, error).await,
    }
}
