//! One request of a page: who visits, in which organization and language, what was sent, and how to call operations.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::Response;
use poem::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::Console;
use super::client::{self, Answer, Call};
use super::i18n::Language;
use super::i18n::frame::Frame;
use super::pages::Page;
use super::schema::OperationInfo;
use crate::kernel::authn::cookie;
use crate::kernel::authz;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::config::Config;
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The visit of a page.
pub struct Visit {
    pub(super) console: Arc<Console>,
    pub(super) page: &'static Page,
    /// Parameters of the path.
    pub(super) path: HashMap<String, String>,
    pub(super) query: Vec<(String, String)>,
    /// The fields of the submitted form; empty for GET.
    pub(super) form: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) context: Arc<RequestContext>,
    /// The signed-in member; `None` on public pages.
    pub(super) identity: Option<Identity>,
    pub(super) organization: Option<Here>,
    /// The answer of `get_me`; null for strangers.
    pub(super) me: Value,
    /// Whether the request names the public address of the site, or may name any.
    pub(super) is_own_host: bool,
    /// The address of this page without the public path, such as `/console/me`.
    pub(super) address: String,
    pub language: Language,
    pub theme: Theme,
    /// Whether single keys are shortcuts.
    pub has_keys: bool,
}

/// The organization that the address names.
#[derive(Debug, Clone)]
pub struct Here {
    pub id: String,
    pub code: String,
    pub name: String,
}

/// The colours of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.as_str() == text)
    }
}

/// What a page answers.
pub enum View {
    Page(Content),
    /// 303 to an address below `/console`, without the public path, with a notice that the next page shows.
    Redirect(String, Option<Notice>),
    /// A finished response.
    Response(Box<Response>),
}

/// A page inside the frame.
pub struct Content {
    pub status: StatusCode,
    pub title: String,
    pub body: maud::Markup,
    /// What stands beside the title, such as the main action.
    pub actions: Option<maud::Markup>,
    /// Seconds until the browser loads the page again.
    pub refresh_s: Option<u32>,
}

impl Content {
    pub fn new(title: impl Into<String>, body: maud::Markup) -> Self {
        Self { status: StatusCode::OK, title: title.into(), body, actions: None, refresh_s: None }
    }

    /// The status of the error that the page shows.
    #[must_use]
    pub fn status_of(mut self, error: &Error) -> Self {
        self.status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
        self
    }

    #[must_use]
    pub fn actions(mut self, actions: maud::Markup) -> Self {
        self.actions = Some(actions);
        self
    }
}

impl From<Content> for View {
    fn from(content: Content) -> Self {
        Self::Page(content)
    }
}

/// A sentence that the next page shows once.
#[derive(Debug, Clone)]
pub struct Notice {
    pub text: String,
    /// A form that undoes what was done: an address below `/console`, and its fields.
    pub undo: Option<(String, Vec<(String, String)>)>,
}

impl Notice {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), undo: None }
    }

    #[must_use]
    pub fn with_undo(mut self, address: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.undo = Some((address.into(), fields));
        self
    }

    /// The value of the notice cookie.
    pub(super) fn to_cookie(&self) -> String {
        let undo = self.undo.as_ref().map(|(address, fields)| json!({"address": address, "fields": fields}));
        URL_SAFE_NO_PAD.encode(json!({"text": self.text, "undo": undo}).to_string())
    }

    pub(super) fn from_cookie(value: &str) -> Option<Self> {
        let stored: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        let undo = stored["undo"].as_object().and_then(|undo| {
            let address = undo["address"].as_str().filter(|address| address.starts_with("/console/"))?;
            let fields = serde_json::from_value(undo["fields"].clone()).ok()?;
            Some((address.to_owned(), fields))
        });
        Some(Self { text: stored["text"].as_str()?.to_owned(), undo })
    }
}

/// The name of the cookie that carries a notice to the next page.
pub(super) const NOTICE_COOKIE: &str = "notice";
pub(super) const LANGUAGE_COOKIE: &str = "lang";
pub(super) const THEME_COOKIE: &str = "theme";
pub(super) const KEYS_COOKIE: &str = "keys";

impl Visit {
    /// Calls an operation as the visitor, in the organization of the address.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        self.call_in(self.organization.as_ref().map(|here| here.code.as_str()), call).await
    }

    /// Calls an operation as the visitor, in this organization.
    pub async fn call_in(&self, organization: Option<&str>, call: Call) -> Result<Answer> {
        let operation = self.operation(call.operation)?;
        let caller = client::Caller {
            headers: &self.headers,
            context: &self.context,
            identity: self.identity.as_ref(),
            organization,
            app: &self.console.app,
        };
        client::call(&self.console.perform, caller, operation, call).await
    }

    /// Like `call`, for a part of a page that is left out when the visitor may not see it or it fails.
    pub async fn find(&self, call: Call) -> Option<Value> {
        if !self.may(call.operation) {
            return None;
        }
        self.call(call).await.ok().map(|answer| answer.data)
    }

    /// What the console knows of an operation.
    pub fn operation(&self, id: &str) -> Result<&OperationInfo> {
        self.console.operations.get(id).ok_or_else(|| Error::internal(format!("there is no operation {id}")))
    }

    /// Whether the visitor holds the permission of the operation, in the organization of the address. For what is
    /// shown; the operation itself decides.
    pub fn may(&self, operation: &str) -> bool {
        let Some(identity) = &self.identity else { return false };
        match self.console.operations.get(operation).map(|known| known.permission) {
            None => false,
            Some(None) => true,
            Some(Some(permission)) => authz::require(&self.console.app.snapshot(), identity, permission).is_ok(),
        }
    }

    /// Whether the visitor belongs to the organization `platform`, whose members have rights over the site.
    pub fn is_of_platform(&self) -> bool {
        let snapshot = self.console.app.snapshot();
        let member = self.identity.as_ref().and_then(Identity::member);
        member.zip(snapshot.platform()).is_some_and(|(member, platform)| platform.set_of(member).is_some())
    }

    /// A parameter of the path.
    pub fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query; `None` if it is missing or empty.
    pub fn query(&self, name: &str) -> Option<&str> {
        found(&self.query, name)
    }

    /// A field of the submitted form; `None` if it is missing or empty.
    pub fn submitted(&self, name: &str) -> Option<&str> {
        found(&self.form, name)
    }

    /// All values of a field of the submitted form.
    pub fn submitted_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.form.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The address as browsers see it: with the path of `public_url`, which a proxy can strip. `address` begins with
    /// `/`.
    pub fn href(&self, address: &str) -> String {
        format!("{}{address}", self.console.app.config.public_path())
    }

    /// The address of a page of this organization, for links: `members` is `/console/o/acme/members`.
    pub fn in_organization(&self, rest: &str) -> String {
        self.href(&self.of_organization(rest))
    }

    /// The same without the public path, for redirects.
    pub fn of_organization(&self, rest: &str) -> String {
        let code = self.organization.as_ref().map_or("", |here| here.code.as_str());
        format!("/console/o/{code}/{rest}")
    }

    /// The address of this page without query, for forms and links.
    pub fn here(&self) -> String {
        self.href(&self.address)
    }

    /// This page with its query, but with these parameters changed; an empty value removes one.
    pub fn with_query(&self, changes: &[(&str, &str)]) -> String {
        let kept = self.query.iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        let added = changes.iter().copied().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> = kept
            .chain(added)
            .map(|(name, value)| format!("{}={}", client::encoded(name), client::encoded(value)))
            .collect();
        if pairs.is_empty() { self.here() } else { format!("{}?{}", self.here(), pairs.join("&")) }
    }

    /// The host that the browser named; empty if it named none.
    pub fn host(&self) -> &str {
        self.headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the public address of the site is on this machine, where browsers keep cookies without https.
    pub fn is_loopback_site(&self) -> bool {
        let url = self.public_url();
        is_loopback(url.split_once("://").map_or("", |(_, rest)| host_of(rest)))
    }

    /// The public URL of the site.
    pub fn public_url(&self) -> String {
        self.console.app.public_url()
    }

    pub fn config(&self) -> &Config {
        &self.console.app.config
    }

    /// The texts of the frame in the visitor's language.
    pub fn frame(&self) -> &'static Frame {
        Frame::of(self.language)
    }

    /// The answer of `get_me`; null for strangers.
    pub fn me(&self) -> &Value {
        &self.me
    }

    /// The id of the signed-in member.
    pub fn uid(&self) -> &str {
        self.me["uid"].as_str().unwrap_or_default()
    }

    pub fn organization(&self) -> Option<&Here> {
        self.organization.as_ref()
    }

    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let lines = self.headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
        self.console.app.guard.cookies.find(lines, name)
    }

    /// Sets a cookie of the console on the answer.
    pub(super) fn set_cookie(&self, name: &str, value: &str, life_s: i64) {
        self.context.set_cookie(self.console.app.guard.cookies.set(name, value, life_s));
    }

    /// Whether the browser holds cookies of a session, valid or not.
    pub(super) fn has_session_cookies(&self) -> bool {
        self.cookie(cookie::ACCESS).is_some() || self.cookie(cookie::REFRESH).is_some()
    }

    /// Answers a form whose operation succeeded: 303 to `address`, with a notice.
    pub fn done(&self, address: impl Into<String>, text: impl Into<String>) -> Result<View> {
        Ok(View::Redirect(address.into(), Some(Notice::new(text))))
    }
}

fn found<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// The host of an authority with or without a port, or of an address after its scheme.
pub fn host_of(text: &str) -> &str {
    let authority = text.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// Whether an error belongs to the submitted fields, so that the form is shown again with it.
pub fn is_of_form(error: &Error) -> bool {
    let status = error.code.status();
    matches!(status, 400 | 409 | 412 | 422) || matches!(error.code, ErrorCode::NotHeld | ErrorCode::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::Notice;

    #[test]
    fn a_notice_survives_its_cookie_and_undoes_only_in_the_console() {
        let notice = Notice::new("停權 <b>").with_undo("/console/o/acme/members", &[("act", "activate")]);
        let read = Notice::from_cookie(&notice.to_cookie()).expect("a notice");
        assert_eq!((read.text, read.undo), (notice.text, notice.undo));
        let foreign = Notice::new("x").with_undo("https://example.org/", &[]);
        assert_eq!(Notice::from_cookie(&foreign.to_cookie()).and_then(|notice| notice.undo), None);
        assert!(Notice::from_cookie("no").is_none());
    }
}
