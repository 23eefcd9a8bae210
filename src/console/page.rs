//! Shared parts of all pages: the frame, the style, and HTML escaping.

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

/// A page. It runs no script, is framed by nobody, and tells nobody where it came from: its address may hold a secret.
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

/// The page of a failure.
pub fn refusal(title: &str, error: &Error) -> Response {
    let status = StatusCode::from_u16(error.cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    page(status, title, &format!("<h1>This does not work</h1><p>{}.</p>", escaped(&sentence(error.message()))))
}

/// With a capital letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Something that is wrong with a form.
pub struct Fault {
    /// The field; empty for what is about none.
    pub field: &'static str,
    pub text: String,
}

/// A field of a form.
pub struct Input<'i> {
    pub name: &'static str,
    pub label: &'static str,
    /// All attributes but name and value, as markup.
    pub attributes: &'static str,
    /// What was typed; none for what is not shown again.
    pub value: Option<&'i str>,
}

/// The rule of passwords, and how the two fields of a new one look.
pub const PASSWORD_HINT: &str = "<p class=\"hint\">At least 8 characters, with an upper-case letter, and also a digit or a sign. \
Not a common one.</p>";

/// A new password is asked for twice: nobody sees what is typed.
pub const fn password_inputs<'i>(label: &'static str) -> [Input<'i>; 2] {
    const ATTRIBUTES: &str =
        "type=\"password\" required minlength=\"8\" maxlength=\"256\" autocomplete=\"new-password\"";
    [
        Input { name: "password", label, attributes: ATTRIBUTES, value: None },
        Input { name: "again", label: "The same once more", attributes: ATTRIBUTES, value: None },
    ]
}

/// What is wrong with the two fields of a new password, where they differ.
pub fn differing(password: &str, again: &str) -> Option<Fault> {
    (password != again).then(|| Fault { field: "again", text: "The two passwords differ.".into() })
}

/// The fields, each with what is wrong with it behind it. The first wrong one has the focus, else the first.
pub fn inputs_html(inputs: &[Input<'_>], faults: &[Fault]) -> String {
    let of =
        |name: &str| faults.iter().filter(|fault| fault.field == name).map(|fault| &fault.text).collect::<Vec<_>>();
    let is_known = |fault: &&Fault| inputs.iter().any(|input| input.name == fault.field);
    let unknown = faults.iter().filter(|fault| !is_known(fault)).map(|fault| fault_html(&fault.text));
    let focus = inputs.iter().position(|input| !of(input.name).is_empty()).unwrap_or_default();
    let fields = inputs.iter().enumerate().map(|(n, input)| {
        let Input { name, label, attributes, value } = input;
        let wrong = of(name);
        let value = value.map_or_else(String::new, |value| format!(" value=\"{}\"", escaped(value)));
        let focus = if n == focus { " autofocus" } else { "" };
        let field =
            |more: &str| format!("<label>{label}<input name=\"{name}\" {attributes}{value}{focus}{more}></label>");
        if wrong.is_empty() {
            return field("");
        }
        let told: String = wrong.into_iter().map(|text| fault_html(text)).collect();
        let marked = field(&format!(" aria-invalid=\"true\" aria-describedby=\"{name}-fault\""));
        format!("{marked}<div id=\"{name}-fault\">{told}</div>")
    });
    unknown.chain(fields).collect()
}

fn fault_html(text: &str) -> String {
    format!("<p class=\"fault\" role=\"alert\">{}</p>", escaped(text))
}

/// The forms are ours: a browser that comes from elsewhere was sent here.
pub fn is_from_elsewhere(request: &Request) -> bool {
    request.headers().get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The path of a page of ours, as people's browsers see it: a proxy may put us below a path of its own.
pub fn place(config: &Config, page: &str) -> String {
    format!("{}{page}", config.public_path())
}

/// Where browsers find the docs page.
pub fn docs(config: &Config) -> String {
    format!("{}/docs", config.api_path())
}
