//! What all pages share: their frame, their style, and how text becomes markup.

use poem::http::{StatusCode, header};
use poem::{Request, Response};

use crate::config::Config;
use crate::error::Error;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;\
background:#f3f4f6;color:#111827}main{background:#fff;border-radius:12px;padding:2rem;width:min(26rem,calc(100vw - 6rem));\
box-shadow:0 1px 3px #0002}h1{font-size:1.4rem;margin:0 0 .5rem}label{display:block;margin:1rem 0 0;font-weight:600}\
input{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.5rem .75rem;margin-top:.25rem;border:1px solid #9ca3af;\
border-radius:6px}input:focus{outline:2px solid #2563eb;border-color:#2563eb}button{margin-top:1.25rem;width:100%;font:inherit;\
font-weight:600;padding:.6rem;border:0;border-radius:6px;background:#1d4ed8;color:#fff;cursor:pointer}.hint{color:#4b5563;\
font-size:.9rem;margin:.5rem 0 0}.fault{color:#b91c1c;margin:.5rem 0 0}";

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

/// What is wrong with a form, a paragraph each.
pub fn faults_html(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("<p class=\"fault\" role=\"alert\">{}</p>", escaped(fault))).collect()
}

/// The forms are ours: a browser that comes from elsewhere was sent here.
pub fn is_from_elsewhere(request: &Request) -> bool {
    request.headers().get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The path of a page of ours, as people's browsers see it: a proxy may put us below a path of its own.
pub(super) fn place(config: &Config, page: &str) -> String {
    format!("{}{page}", config.public_path())
}

/// Where browsers find the docs page.
pub(super) fn docs(config: &Config) -> String {
    format!("{}/docs", config.api_path())
}
