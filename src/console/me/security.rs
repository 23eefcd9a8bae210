//! The member's own password, second factor, and remembered devices.
//!
//! **Invariant.** A secret and recovery codes are shown only in the answer of the form that made them.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{at_field, faults, items, moment, part, text};
use crate::console::client::op;
use crate::console::components::{self, Column, Field, Kind, Row, Text, TextKind, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{fields, words};
use crate::console::sign_in::qr::{app_link, qr};
use crate::console::visit::{self, Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Security {
        title: "Security", "安全性";
        password: "Password", "密碼";
        password_text: "Changing it ends every other session and forgets all remembered devices.", "變更後，其他所有工作階段都會結束，記住的裝置也會被忘記。";
        again: "New password, again", "再次輸入新密碼";
        change: "Change the password", "變更密碼";
        changed: "Your password is changed. Every other session has ended.", "密碼已變更，其他所有工作階段都已結束。";
        factor: "Second factor", "第二因素驗證";
        off: "Not set up", "尚未設定";
        off_text: "With a second factor, nobody can sign in with your password alone. You need an authenticator app on your phone.", "設定後，他人無法只憑密碼登入您的帳號。您需要在手機上安裝驗證器應用程式。";
        required: "Your organization requires it.", "您的組織要求設定。";
        begin: "Set up a second factor", "設定第二因素驗證";
        begin_text: "Enter your password first, so that nobody else can do this on your device.", "請先輸入密碼，以免他人在您的裝置上設定。";
        no_password: "My account has no password", "我的帳號沒有密碼";
        go_on: "Go on", "繼續";
        on: "Set up", "已設定";
        since: "Since", "設定時間";
        codes_left: "Recovery codes left", "剩餘備用碼";
        few_codes: "Only a few recovery codes are left: make new ones.", "備用碼所剩不多，請建立新的備用碼。";
        renew: "New recovery codes", "建立新的備用碼";
        renew_text: "The codes that you have now stop working.", "您目前的備用碼將失效。";
        remove: "Remove the second factor", "移除第二因素驗證";
        remove_text: "Afterwards your password alone is enough to sign in. Every other session ends.", "移除後，只憑密碼就能登入，其他所有工作階段都會結束。";
        removed: "The second factor is removed.", "已移除第二因素驗證。";
        scan: "Scan this with your authenticator app", "以驗證器應用程式掃描";
        scan_label: "QR code for the authenticator app", "供驗證器應用程式掃描的 QR 碼";
        open_app: "Open in the authenticator app", "在驗證器應用程式中開啟";
        by_hand: "Or enter this key there:", "或在應用程式中輸入這組金鑰：";
        first_code: "Then enter the code that the app shows.", "接著輸入應用程式顯示的驗證碼。";
        confirm: "Switch it on", "啟用";
        codes_title: "Your recovery codes", "您的備用碼";
        codes_text: "Each works once, when your phone is not at hand. They are shown only now: print them, or store them in a password manager.", "手機不在身邊時可用來登入，每組只能使用一次。備用碼只顯示這一次，請列印出來，或存入密碼管理工具。";
        kept: "I have kept the codes", "我已保存備用碼";
        finish: "Done", "完成";
        is_on: "Your second factor is in use.", "第二因素驗證已啟用。";
        code_about: "The six digits that the app shows now.", "應用程式目前顯示的六位數字。";
        not_kept: "Your second factor is in use. If you did not keep the recovery codes, make new ones now.", "第二因素驗證已啟用。若您沒有保存備用碼，請立即建立新的備用碼。";
        devices: "Remembered devices", "記住的裝置";
        devices_text: "Sign-ins on these devices need no second factor.", "在這些裝置登入時不需要第二因素驗證。";
        no_devices: "No device is remembered. You can choose this when you enter a code.", "沒有記住的裝置。您可以在輸入驗證碼時選擇記住裝置。";
        device: "Device", "裝置";
        remembered: "Remembered", "記住時間";
        last_used: "Last used", "上次使用";
        until: "Until", "有效期限";
        forget: "Forget", "忘記";
        forgotten: "The device is forgotten. Its next sign-in needs the second factor.", "已忘記這個裝置，下次登入需要第二因素驗證。";
        to_sessions: "Where you are signed in", "登入中的裝置";
    }
}

const HERE: &str = "/console/me/security";

pub async fn show(visit: &Visit) -> Result<View> {
    let t = Security::of(visit.language);
    let content = match visit.query("do") {
        Some("begin") => begin_form(visit, t, None)?,
        Some("renew") => code_form(visit, t, CodeForm::Renew, None)?,
        Some("remove") => code_form(visit, t, CodeForm::Remove, None)?,
        _ => overview(visit, t, None).await?,
    };
    Ok(content.into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = Security::of(visit.language);
    match visit.submitted("act") {
        Some("password") => change_password(visit, t).await,
        Some("begin") => begin(visit, t).await,
        Some("confirm") => with_code(visit, t, CodeForm::Confirm).await,
        Some("renew") => with_code(visit, t, CodeForm::Renew).await,
        Some("remove") => with_code(visit, t, CodeForm::Remove).await,
        Some("kept") if visit.submitted("kept").is_some() => visit.done(HERE, t.is_on),
        Some("kept") => visit.done(HERE, t.not_kept),
        Some("forget") => {
            let id = visit.submitted("id").unwrap_or_default();
            visit.call(op("delete_my_trusted_device").at(id)).await?;
            visit.done(HERE, t.forgotten)
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}

// ── the page ──

/// The page with all parts; `error` is of the password's form.
async fn overview(visit: &Visit, t: &Security, error: Option<&Error>) -> Result<Content> {
    let (factor, devices) =
        join(visit.call(op("get_my_second_factor")), part(visit, op("list_my_trusted_devices"))).await;
    let factor = factor?.data;
    let body = html! {
        (components::card(t.password, password_form(visit, t, error)?))
        (components::card(t.factor, factor_of(visit, t, &factor)))
        @if let Some(devices) = devices.filter(|devices| factor["enabled"] == true || !items(devices).is_empty()) {
            (components::card(t.devices, devices_of(visit, t, &devices)))
        }
        p { a href=(visit.href("/console/me/sessions")) { (t.to_sessions) } }
    };
    Ok(Content::new(t.title, body))
}

fn password_form(visit: &Visit, t: &Security, error: Option<&Error>) -> Result<Markup> {
    let form = Form::new(visit, "change_my_password")?.error(error);
    let faults = faults(visit, error, "again");
    let again = Field::new("again", t.again).faults(&faults);
    let inner = html! {
        (components::hidden_input("act", "password"))
        (form.text("old_password", "password"))
        (form.text("new_password", "password"))
        (components::field(&again, components::password_input(&again, "again", "new-password", None)))
    };
    Ok(html! { p { (t.password_text) } (form.wrap(&visit.here(), inner, t.change)) })
}

fn factor_of(visit: &Visit, t: &Security, factor: &Value) -> Markup {
    let to = |action: &str| format!("{}?do={action}", visit.here());
    let is_required = factor["required"] == true;
    if factor["enabled"] != true {
        return html! {
            p { (components::badge(if is_required { Tone::Bad } else { Tone::Warn }, t.off)) }
            p { (t.off_text) @if is_required { " " (t.required) } }
            (components::actions(components::link_button_of(&to("begin"), t.begin, Kind::Main, None)))
        };
    }
    let left = moment(factor, "recovery_codes_left");
    html! {
        (components::facts(&[
            (t.factor, components::badge(Tone::Ok, t.on)),
            (t.since, components::time_or(factor["confirmed_at"].as_i64(), "–")),
            (t.codes_left, html! { (left) }),
        ]))
        @if left < 4 { (components::notice(Tone::Warn, t.few_codes, None)) }
        (components::actions(html! {
            (components::link_button(&to("renew"), t.renew))
            @if is_required { p { (t.required) } } @else { (components::link_button(&to("remove"), t.remove)) }
        }))
    }
}

fn devices_of(visit: &Visit, t: &Security, devices: &Value) -> Markup {
    if items(devices).is_empty() {
        return html! { p { (t.no_devices) } };
    }
    let rows = items(devices).iter().map(|device| Row {
        cells: vec![
            html! { (text(device, "device")) },
            components::time_ago(moment(device, "created_at")),
            components::time_ago(moment(device, "last_used_at")),
            components::time(moment(device, "expires_at")),
            html! {
                form method="post" action=(visit.here()) {
                    (components::hidden_input("id", text(device, "id")))
                    (components::button_named("act", "forget", t.forget, Kind::Quiet))
                }
            },
        ],
        ..Row::default()
    });
    let columns = [t.device, t.remembered, t.last_used, t.until, ""].map(Column::new);
    html! { p { (t.devices_text) } (components::table(t.devices, &columns, rows.collect())) }
}

// ── the password ──

async fn change_password(visit: &Visit, t: &Security) -> Result<View> {
    let changed = if visit.submitted("new_password") == visit.submitted("again") {
        let body = form::read(visit.operation("change_my_password")?, visit);
        visit.call(op("change_my_password").body(&body).once(visit.submitted(form::ONCE))).await
    } else {
        Err(Error::field("again", "the two passwords differ"))
    };
    match changed {
        Ok(_) => visit.done(HERE, t.changed),
        Err(error) if visit::is_of_form(&error) => {
            let error = if error.code == ErrorCode::WrongPassword { at_field(error, "old_password") } else { error };
            Ok(overview(visit, t, Some(&error)).await?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

// ── the second factor ──

fn begin_form(visit: &Visit, t: &Security, error: Option<&Error>) -> Result<Content> {
    let form = Form::new(visit, "begin_my_second_factor")?.error(error);
    let has_password = visit.query("password") != Some("none");
    let without = format!("{}?do=begin&password=none", visit.here());
    let (label, faults) = (fields::label("password", visit.language), faults(visit, error, "password"));
    // Required here, although the operation also takes members without a password.
    let about = Field::new("password", &label).faults(&faults);
    let inner = html! {
        (components::hidden_input("act", "begin"))
        @if has_password {
            (components::field(&about, components::password_input(&about, "password", "current-password", None)))
        }
    };
    let body = html! {
        @if has_password { p { (t.begin_text) } }
        (form.wrap(&visit.here(), inner, t.go_on))
        @if has_password { p { a href=(without) { (t.no_password) } } }
    };
    Ok(Content::new(t.begin, body))
}

async fn begin(visit: &Visit, t: &Security) -> Result<View> {
    let body = visit.submitted("password").map_or_else(|| json!({}), |password| json!({"password": password}));
    match visit.call(op("begin_my_second_factor").body(&body)).await {
        Ok(secret) => Ok(enrolment(visit, t, text(&secret.data, "otpauth_url"), None)?.into()),
        Err(error) if visit::is_of_form(&error) => {
            let error = if error.code == ErrorCode::WrongPassword { at_field(error, "password") } else { error };
            Ok(begin_form(visit, t, Some(&error))?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

/// The secret, and the form for the first code. The form carries the secret, so that a wrong code does not need a new
/// one.
fn enrolment(visit: &Visit, t: &Security, otpauth_url: &str, error: Option<&Error>) -> Result<Content> {
    let (f, form) = (visit.frame(), Form::new(visit, "confirm_my_second_factor")?.error(error));
    let (label, faults) = (fields::label("code", visit.language), faults(visit, error, "code"));
    // Not the explanation of the operation's field: there are no recovery codes yet.
    let about = Field::new("code", &label).hint(t.code_about).faults(&faults);
    let line = Text {
        name: "code",
        kind: TextKind::Code,
        is_required: true,
        maxlength: Some(64),
        autocomplete: Some("one-time-code"),
        is_focused: true,
        ..Text::default()
    };
    let inner = html! {
        (components::hidden_input("act", "confirm"))
        (components::hidden_input("otpauth_url", otpauth_url))
        p { (t.first_code) }
        (components::text_field(&about, &line))
    };
    let body = html! {
        (components::card(t.scan, html! {
            (qr(otpauth_url, t.scan_label))
            (app_link(otpauth_url, t.open_app))
            p { (t.by_hand) " " (components::copyable(secret_of(otpauth_url), f.copy, f.copied)) }
            (form.wrap(&visit.here(), inner, t.confirm))
        }))
    };
    Ok(Content::new(t.begin, body))
}

/// The secret in its URL.
fn secret_of(otpauth_url: &str) -> &str {
    let after = otpauth_url.split_once("secret=").map_or("", |(_, rest)| rest);
    after.split('&').next().unwrap_or_default()
}

/// What a code is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodeForm {
    Confirm,
    Renew,
    Remove,
}

impl CodeForm {
    const fn operation(self) -> &'static str {
        match self {
            Self::Confirm => "confirm_my_second_factor",
            Self::Renew => "renew_my_recovery_codes",
            Self::Remove => "remove_my_second_factor",
        }
    }
}

fn code_form(visit: &Visit, t: &Security, what: CodeForm, error: Option<&Error>) -> Result<Content> {
    let (title, about, act) = match what {
        CodeForm::Confirm => {
            let url = visit.submitted("otpauth_url").filter(|url| url.starts_with("otpauth://totp/"));
            return enrolment(visit, t, url.unwrap_or_default(), error);
        }
        CodeForm::Renew => (t.renew, t.renew_text, "renew"),
        CodeForm::Remove => (t.remove, t.remove_text, "remove"),
    };
    let form = Form::new(visit, what.operation())?.error(error);
    let inner = html! { (components::hidden_input("act", act)) (form.field("code")) };
    let body = html! {
        p { (about) }
        (form.wrap(&visit.here(), inner, title))
        p { a href=(visit.here()) { (visit.frame().cancel) } }
    };
    Ok(Content::new(title, body))
}

async fn with_code(visit: &Visit, t: &Security, what: CodeForm) -> Result<View> {
    let body = json!({"code": visit.submitted("code").unwrap_or_default().trim()});
    match visit.call(op(what.operation()).body(&body)).await {
        Ok(_) if what == CodeForm::Remove => visit.done(HERE, t.removed),
        Ok(answer) => Ok(recovery_codes(visit, t, &answer.data).into()),
        // The form was sent twice, and the first answer with the recovery codes may be lost.
        Err(error) if what == CodeForm::Confirm && error.code == ErrorCode::SecondFactorOn => {
            visit.done(HERE, t.not_kept)
        }
        // 401 means the code here, not the session.
        Err(error) if error.code == ErrorCode::InvalidCode || visit::is_of_form(&error) => {
            let error = if error.code == ErrorCode::InvalidCode { at_field(error, "code") } else { error };
            Ok(code_form(visit, t, what, Some(&error))?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

fn recovery_codes(visit: &Visit, t: &Security, data: &Value) -> Content {
    let f = visit.frame();
    let codes: Vec<&str> = data["recovery_codes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let body = html! {
        (components::secret_once(&codes.join("\n"), t.codes_text, f.copy, f.copied))
        form method="post" action=(visit.here()) {
            (components::hidden_input("act", "kept"))
            (components::checkbox(&Field::new("kept", t.kept), "kept", "1", false))
            (components::actions(components::button(t.finish)))
        }
    };
    Content::new(t.codes_title, body)
}

#[cfg(test)]
mod tests {
    use super::secret_of;

    #[test]
    fn the_secret_is_found_in_its_url() {
        assert_eq!(secret_of("otpauth://totp/id:kim?secret=ABC234&issuer=id"), "ABC234");
        assert_eq!(secret_of(""), "");
    }
}
