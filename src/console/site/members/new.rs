//! A new member of the site, with the account's quota, names elsewhere and a first API key.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::api_keys;
use crate::console::client::op;
use crate::console::components::{self, Field, Text, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list;
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::units::parse_bytes;

words! {
    Words {
        title: "New member", "新增成員";
        about: "Creates the account with everything that belongs to it: a quota, a folder, the membership in an organization, and a first API key.", "一次建立帳號與所屬的一切：配額、資料夾、組織成員資格，以及第一把 API 金鑰。";
        many: "For many members at once, import a spreadsheet.", "要一次建立多位成員，請匯入試算表。";
        import: "Import", "匯入";
        further: "Quota and accounts elsewhere", "配額與其他系統的帳號";
        size_hint: "For example 20 GB or 512 MiB. Leave it empty for the default.", "例如 20 GB 或 512 MiB。留空則使用預設值。";
        not_a_size: "This is no size: write a number and a unit, for example 20 GB.", "無法辨識的大小：請輸入數字與單位，例如 20 GB。";
        create: "Create the member", "建立成員";
        created: "{} is created", "已建立 {}";
        key: "The first API key", "第一把 API 金鑰";
        key_once: "For the member's own programs: uploads, quota and jobs. It is shown only now; further keys can be made later.", "供成員自己的程式使用：上傳、配額與工作。只會顯示這一次，之後可再建立其他金鑰。";
        next: "To sign in, the member needs a password: create a password link on the member's page, and pass it on.", "成員需要密碼才能登入：請在成員頁面建立密碼連結並轉交。";
        mailed: "A mail with a link to choose a password is on its way.", "已寄出設定密碼的連結。";
        open: "To the member", "前往成員";
        another: "Another member", "再新增一位";
        sent_already: "This form was sent already: the member exists, and its first key was shown once.", "這份表單已送出過：成員已建立，第一把金鑰只會顯示一次。";
        to_list: "All members", "所有成員";
    }
}

const OPERATION: &str = "create_user";
const LIST: &str = "/console/site/members";
/// The most organizations to choose from; beyond it the code is typed.
const CHOICES_MAX: u64 = 200;

/// Shows the form.
pub async fn form(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, OPERATION)?.values(&json!({"welcome": true})).error(error);
    let names = ["quota_size", "sftpgo_username", "wordpress_id"];
    let is_faulty = |name: &str| error.is_some_and(|error| error.fields.iter().any(|field| field.name() == name));
    let is_open = names.iter().any(|name| visit.submitted(name).is_some() || is_faulty(name));
    let has_mail = !visit.config().mail_host.is_empty();
    let inner = html! {
        @for name in ["username", "email", "display_name"] { (form.field(name)) }
        (organization_field(visit, &form).await)
        details open[is_open] {
            summary { (t.further) " (" (visit.frame().optional) ")" }
            (size_field(visit, error))
            (form.field("sftpgo_username"))
            (form.field("wordpress_id"))
        }
        @if has_mail { (form.field("welcome")) }
    };
    let body = html! {
        p { (t.about) }
        @if visit.may("import_users") { p { (t.many) " " a href=(visit.href("/console/site/import")) { (t.import) } } }
        (form.wrap(&visit.here(), inner, t.create))
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// A choice of the organizations, or a field for a code where there are too many.
async fn organization_field(visit: &Visit, form: &Form<'_>) -> Markup {
    let call = op("list_organizations").query("limit", CHOICES_MAX).query("offset", 0).query("status", "active");
    let all = visit.find(call).await.unwrap_or_default();
    if all["total"].as_u64().is_none_or(|total| total > CHOICES_MAX) {
        return form.text("org_code", "text");
    }
    // Seats of `platform` are given on the member's page.
    let ordinary = list::items(&all).iter().filter(|one| one["org_code"] != "platform");
    let choices: Vec<(&str, String)> =
        ordinary.filter_map(|one| Some((one["org_code"].as_str()?, one["name"].as_str()?.to_owned()))).collect();
    form.choice("org_code", &choices)
}

/// Not a number of bytes, as the operation takes it, but a size with a unit.
fn size_field(visit: &Visit, error: Option<&Error>) -> Markup {
    let t = Words::of(visit.language);
    let of_size = error.into_iter().flat_map(|error| &error.fields).filter(|field| field.name() == "quota_size");
    let faults: Vec<String> = of_size.map(|field| errors::field_message(&field.message, visit.language)).collect();
    let label = fields::label("quota_size", visit.language);
    let about = Field::new("quota_size", &label).mark(visit.frame().optional).hint(t.size_hint).faults(&faults);
    let value = visit.submitted("quota_size").unwrap_or_default();
    let text = Text { name: "quota_size", value, autocomplete: Some("off"), maxlength: Some(40), ..Text::default() };
    components::text_field(&about, &text)
}

/// Creates the member.
pub async fn create(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let mut body = form::read(visit.operation(OPERATION)?, visit);
    if let Some(text) = visit.submitted("quota_size") {
        match parse_bytes(text.trim()) {
            Some(bytes) => body["quota_size"] = json!(bytes),
            None => return Ok(page(visit, Some(&Error::field("quota_size", t.not_a_size))).await?.into()),
        }
    }
    match visit.call(op(OPERATION).body(&body).once(visit.submitted(form::ONCE))).await {
        Ok(made) => Ok(created(visit, &made.data, body["welcome"] == true).into()),
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            let body = html! {
                (components::notice(Tone::Bad, t.sent_already, None))
                (components::actions(components::link_button(&visit.href(LIST), t.to_list)))
            };
            Ok(Content::new(t.title, body).status_of(&error).into())
        }
        Err(error) if is_of_form(&error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// The new member with its first key, in this answer only.
fn created(visit: &Visit, made: &Value, is_welcomed: bool) -> Content {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    let secret = text("api_key");
    let member = visit.href(&format!("{LIST}/{}", text("id")));
    let body = html! {
        p { (if is_welcomed { t.mailed } else { t.next }) }
        (components::card(t.key, html! {
            (components::secret_once(secret, t.key_once, frame.copy, frame.copied))
            (api_keys::first_request(visit, secret, "/me"))
        }))
        (components::actions(html! {
            (components::link_button(&member, t.open))
            (components::link_button(&visit.here(), t.another))
        }))
    };
    Content::new(fill(t.created, &[&text("username")]), body)
}
