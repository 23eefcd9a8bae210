//! Shared parts of the pages: layout, style, form fields, and HTML escaping.

use poem::http::{StatusCode, header};
use poem::{Request, Response};

use crate::kernel::config::Config;
use crate::kernel::error::Error;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;\
background:#f3f4f6;color:#111827}main{background:#fff;border-radius:12px;padding:2rem;width:min(26rem,calc(100vw - 6rem));\
box-shadow:0 1px 3px #0002}h1{font-size:1.4rem;margin:0 0 .5rem}label{display:block;margin:1rem 0 0;font-weight:600}\
input{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.5rem .75rem;margin-top:.25rem;border:1px solid #9ca3af;\
border-radius:6px}input:focus{outline:2px solid #2563eb;border-color:#2563eb}button{margin-top:1.25rem;width:100%;font:inherit;\
font-weight:600;padding:.6rem;border:0;border-radius:6px;background:#1d4ed8;color:#fff;cursor:pointer}.hint{color:#4b5563;\
font-size:.9rem;margin:.5rem 0 0}pre{white-space:pre-wrap;\
overflow-wrap:anywhere;background:#f3f4f6;border-radius:6px;padding:.5rem .75rem}.fault{color:#b91c1c;margin:.5rem 0 0}";

/// Renders a page. It runs no script, cannot be framed, and sends no referrer, because its URL can contain a token.
pub fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>",
        escaped(title)
    );
    Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        .header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        )
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CACHE_CONTROL, "no-store")
        .body(html)
}

/// Renders a failure as a page.
pub fn refusal(title: &str, error: &Error) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    page(status, title, &format!("<h1>This does not work</h1><p>{}.</p>", escaped(&capitalized(error.message()))))
}

/// The text with an upper-case first character.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// An error in a submitted form.
pub struct Fault {
    /// The name of the field; empty if the error concerns no field.
    pub field: &'static str,
    pub text: String,
}

/// A field of a form.
pub struct Input<'i> {
    pub name: &'static str,
    pub label: &'static str,
    /// All attributes except name and value, as markup.
    pub attributes: &'static str,
    /// The submitted value; `None` for passwords, which are not shown again.
    pub value: Option<&'i str>,
}

/// The text that states the rule for passwords.
pub const PASSWORD_HINT: &str = "<p class=\"hint\">At least 8 characters, with an upper-case letter, and also a digit or a sign. \
Not a common one.</p>";

/// The two fields of a new password. It is entered twice, because it is not visible.
pub const fn password_inputs<'i>(label: &'static str) -> [Input<'i>; 2] {
    const ATTRIBUTES: &str =
        "type=\"password\" required minlength=\"8\" maxlength=\"256\" autocomplete=\"new-password\"";
    [
        Input { name: "password", label, attributes: ATTRIBUTES, value: None },
        Input { name: "again", label: "Repeat the password", attributes: ATTRIBUTES, value: None },
    ]
}

/// The error if the two fields of a new password differ.
pub fn differing(password: &str, again: &str) -> Option<Fault> {
    (password != again).then(|| Fault { field: "again", text: "The two passwords differ.".into() })
}

/// Renders the fields, each followed by its errors. The first invalid field has the focus, else the first field.
pub fn inputs_html(inputs: &[Input<'_>], faults: &[Fault]) -> String {
    let errors_of =
        |name: &str| faults.iter().filter(|fault| fault.field == name).map(|fault| &fault.text).collect::<Vec<_>>();
    let is_known = |fault: &&Fault| inputs.iter().any(|input| input.name == fault.field);
    let unknown = faults.iter().filter(|fault| !is_known(fault)).map(|fault| fault_html(&fault.text));
    let focus = inputs.iter().position(|input| !errors_of(input.name).is_empty()).unwrap_or_default();
    let fields = inputs.iter().enumerate().map(|(n, input)| {
        let Input { name, label, attributes, value } = input;
        let errors = errors_of(name);
        let value = value.map_or_else(String::new, |value| format!(" value=\"{}\"", escaped(value)));
        let focus = if n == focus { " autofocus" } else { "" };
        let field =
            |extra: &str| format!("<label>{label}<input name=\"{name}\" {attributes}{value}{focus}{extra}></label>");
        if errors.is_empty() {
            return field("");
        }
        let messages: String = errors.into_iter().map(|text| fault_html(text)).collect();
        let marked = field(&format!(" aria-invalid=\"true\" aria-describedby=\"{name}-fault\""));
        format!("{marked}<div id=\"{name}-fault\">{messages}</div>")
    });
    unknown.chain(fields).collect()
}

fn fault_html(text: &str) -> String {
    format!("<p class=\"fault\" role=\"alert\">{}</p>", escaped(text))
}

/// Whether a browser submits the form from a page of another site (CSRF). Roster's forms are on its own pages.
pub fn is_from_elsewhere(request: &Request) -> bool {
    request.headers().get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

/// Escapes text for HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The path of a page as browsers see it: with the path of `public_url`, which a proxy can strip.
pub fn public_path(config: &Config, page: &str) -> String {
    format!("{}{page}", config.public_path())
}

/// The path of the API documentation as browsers see it.
pub fn docs(config: &Config) -> String {
    format!("{}/docs", config.api_path())
}
