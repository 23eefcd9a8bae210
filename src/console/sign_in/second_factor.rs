//! The second step of a sign-in: a code of the second factor, or its set-up where an organization requires one.
//!
//! The challenge of the first step travels in a hidden field of the page that answers it, and never in an address.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::login;
use super::onward::{RETURN, carried, complete};
use super::parts::{Faults, form, page, summary};
use super::qr::{app_link, qr};
use super::words::Words;
use crate::console::client::op;
use crate::console::components::{Field, Text, TextKind, checkbox, copyable, copyable_block, field, text_input};
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

const ANSWER: &str = "/console/sign-in/second-factor";
const ENROL: &str = "/console/sign-in/enrol";
const KEPT: &str = "kept";

/// The second step, if the failure of the first step asks for one. Fails with the same error otherwise.
pub(super) async fn next_step(visit: &Visit, error: Error, signed: &str) -> Result<View> {
    match (error.code, error.challenge.as_deref()) {
        (ErrorCode::SecondFactorRequired, Some(challenge)) => {
            Ok(answer_page(visit, challenge, signed, &Faults::none()))
        }
        (ErrorCode::EnrolmentRequired, Some(challenge)) => begin_enrolment(visit, challenge, signed).await,
        _ => Err(error),
    }
}

/// These pages answer forms only: without a challenge, the sign-in begins anew.
pub(super) async fn start_again(_: &Visit) -> Result<View> {
    Ok(View::Redirect(login::PATH.to_owned(), None))
}

/// What is left of a second step that failed: its page with the fault, or a new sign-in.
async fn failed(visit: &Visit, error: Error, again: impl Fn(&Faults) -> View) -> Result<View> {
    let faults = Faults::of(visit, &error);
    match error.code {
        ErrorCode::InvalidCode => Ok(again(&Faults::of_field(visit, &error, "code"))),
        ErrorCode::TooManyFailures => Ok(again(&faults)),
        // A code that is too short, for example.
        ErrorCode::BadInput if faults.has("code") => Ok(again(&faults)),
        ErrorCode::BadInput | ErrorCode::InvalidChallenge | ErrorCode::InvalidLogin | ErrorCode::SecondFactorOn => {
            let expired = Error::new(ErrorCode::InvalidChallenge);
            login::with_faults(visit, &Faults::of(visit, &expired)).await
        }
        _ => Err(error),
    }
}

// ── a code ──

fn answer_page(visit: &Visit, challenge: &str, signed: &str, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let recovery = Field::new("recovery", t.recovery_label).hint(t.recovery_about);
    let line = Text { name: "recovery", autocomplete: Some("off"), maxlength: Some(64), ..Text::default() };
    let inner = html! {
        (code_field(visit, faults, false))
        @if may_remember(visit) {
            (checkbox(&Field::new("remember", t.remember).hint(t.remember_about), "remember", "true", false))
        }
        details {
            summary { (t.recovery_summary) }
            (field(&recovery, text_input(&recovery, &line)))
            p { (t.recovery_lost) }
        }
    };
    let body = html! {
        p { (t.factor_text) }
        (form(visit, faults, ANSWER, &[("challenge", challenge), (RETURN, signed)], &inner, t.confirm))
        (again_link(visit))
    };
    page(visit, faults, t.factor_title, body)
}

/// The field for six digits. `is_only` if no recovery code can be sent instead.
fn code_field(visit: &Visit, faults: &Faults, is_only: bool) -> Markup {
    let t = Words::of(visit.language);
    let texts = faults.texts("code");
    let about = Field::new("code", t.code).faults(&texts);
    let line = Text {
        name: "code",
        kind: TextKind::Code,
        is_required: is_only,
        maxlength: Some(64),
        autocomplete: Some("one-time-code"),
        is_focused: true,
        ..Text::default()
    };
    field(&about, text_input(&about, &line))
}

fn again_link(visit: &Visit) -> Markup {
    html! { p { a href=(visit.href(login::PATH)) { (Words::of(visit.language).start_again) } } }
}

/// Whether a device can be remembered.
fn may_remember(visit: &Visit) -> bool {
    visit.console.app.config.remember_s > 0
}

/// The submitted code: of the app, or a recovery code. Blanks, which apps show between the digits, do not count.
fn submitted_code(visit: &Visit) -> String {
    let code = visit.submitted("recovery").or_else(|| visit.submitted("code")).unwrap_or_default();
    code.split_whitespace().collect()
}

/// Completes a sign-in with a code.
pub(super) async fn answer(visit: &Visit) -> Result<View> {
    let challenge = visit.submitted("challenge").unwrap_or_default();
    let remember = may_remember(visit) && visit.submitted("remember").is_some();
    let body = json!({"challenge": challenge, "code": submitted_code(visit), "cookies": true, "remember": remember});
    match visit.call(op("answer_second_factor").body(&body)).await {
        Ok(answer) => finished(visit, &answer.data),
        Err(error) => failed(visit, error, |faults| answer_page(visit, challenge, carried(visit), faults)).await,
    }
}

/// On to the page that asked for the sign-in, after the recovery codes of a new factor were shown.
fn finished(visit: &Visit, data: &Value) -> Result<View> {
    match data["recovery_codes"].as_array() {
        Some(codes) => Ok(codes_page(visit, codes)),
        None => complete(visit, carried(visit)),
    }
}

// ── set-up ──

async fn begin_enrolment(visit: &Visit, challenge: &str, signed: &str) -> Result<View> {
    match visit.call(op("enrol_second_factor").body(&json!({"challenge": challenge}))).await {
        Ok(answer) => {
            let text = |name: &str| answer.data[name].as_str().unwrap_or_default();
            let secret = (text("secret"), text("otpauth_url"));
            Ok(enrol_page(visit, challenge, signed, secret, &Faults::none()))
        }
        Err(error) => {
            failed(visit, error, |faults| {
                page(visit, faults, Words::of(visit.language).enrol_title, summary(visit, faults))
            })
            .await
        }
    }
}

/// The secret also travels in the form, so that a wrong code shows the same secret again: a new one would not fit the
/// app any more.
fn enrol_page(visit: &Visit, challenge: &str, signed: &str, (secret, url): (&str, &str), faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let grouped = secret.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    let hidden = [("challenge", challenge), (RETURN, signed), ("secret", secret), ("otpauth_url", url)];
    let inner = html! {
        p { (t.enrol_code) }
        (code_field(visit, faults, true))
    };
    let body = html! {
        p { (t.enrol_text) }
        p { (t.enrol_scan) }
        (qr(url, t.enrol_qr))
        (app_link(url, t.enrol_open))
        p { (t.enrol_type) " " (copyable(&grouped, visit.frame().copy, visit.frame().copied)) }
        (form(visit, faults, ENROL, &hidden, &inner, t.confirm))
        (again_link(visit))
    };
    page(visit, faults, t.enrol_title, body)
}

/// Completes a sign-in with the first code of a new factor, or goes on when the recovery codes are kept.
pub(super) async fn finish_enrolment(visit: &Visit) -> Result<View> {
    if visit.submitted("act") == Some(KEPT) {
        return match visit.submitted(KEPT) {
            Some(_) => complete(visit, carried(visit)),
            None => Ok(not_kept_page(visit)),
        };
    }
    let sent = |name| visit.submitted(name).unwrap_or_default();
    let challenge = sent("challenge");
    let body = json!({"challenge": challenge, "code": submitted_code(visit), "cookies": true});
    match visit.call(op("answer_second_factor").body(&body)).await {
        Ok(answer) => finished(visit, &answer.data),
        Err(error) => {
            let secret = (sent("secret"), sent("otpauth_url"));
            failed(visit, error, |faults| enrol_page(visit, challenge, carried(visit), secret, faults)).await
        }
    }
}

/// The recovery codes, only in this answer.
fn codes_page(visit: &Visit, codes: &[Value]) -> View {
    let t = Words::of(visit.language);
    let lines = codes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    let body = html! {
        p { (t.codes_text) }
        (copyable_block(&lines, t.copy_codes, visit.frame().copied))
        (kept_form(visit, &Faults::none()))
    };
    Content::new(t.codes_title, body).into()
}

fn kept_form(visit: &Visit, faults: &Faults) -> Markup {
    let t = Words::of(visit.language);
    let texts = faults.texts(KEPT);
    let inner = checkbox(&Field::new(KEPT, t.codes_kept).faults(&texts), KEPT, "true", false);
    form(visit, &Faults::none(), ENROL, &[("act", KEPT), (RETURN, carried(visit))], &inner, t.go_on)
}

fn not_kept_page(visit: &Visit) -> View {
    let t = Words::of(visit.language);
    let faults = Faults::field(KEPT, t.codes_not_kept);
    page(visit, &faults, t.codes_title, kept_form(visit, &faults))
}

/// The notice after a step that signed nobody in, such as a password that was set while sign-ins are limited.
pub(super) fn sign_in_with_notice(text: &str) -> View {
    View::Redirect(login::PATH.to_owned(), Some(Notice::new(text)))
}
