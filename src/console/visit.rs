//! One request of a page: who visits, in which organization and language, what was sent, and how to call operations.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::Response;
use poem::http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::Console;
use super::client::{self, Answer, Call};
use super::i18n::Language;
use super::i18n::frame::Frame;
use super::multipart::Upload;
use super::pages::Page;
use super::schema::OperationInfo;
use crate::kernel::authn::cookie;
use crate::kernel::authz;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::config::Config;
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::secret::{self, Hash, KeyedDigest};

/// The visit of a page.
pub struct Visit {
    pub(super) console: Arc<Console>,
    pub(super) page: &'static Page,
    /// Parameters of the path.
    pub(super) path: HashMap<String, String>,
    pub(super) query: Vec<(String, String)>,
    /// The fields of the submitted form; empty for GET.
    pub(super) form: Vec<(String, String)>,
    /// The files of the submitted form.
    pub(super) files: Vec<Upload>,
    /// Why the file of the submitted form was not read.
    pub(super) refused: Option<Error>,
    pub(super) headers: HeaderMap,
    pub(super) context: Arc<RequestContext>,
    /// The signed-in member; `None` on public pages.
    pub(super) identity: Option<Identity>,
    pub(super) organization: Option<Here>,
    /// The answer of `get_me`; null for strangers.
    pub(super) me: Value,
    /// Codes and names of organizations that the visitor can switch to without belonging to them.
    pub(super) elsewhere: Vec<(String, String)>,
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
    /// Seconds until a browser without script loads the page again.
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
    /// Whether it tells of a failure.
    pub is_bad: bool,
}

impl Notice {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), undo: None, is_bad: false }
    }

    /// The same, which tells of a failure.
    #[must_use]
    pub fn bad(self) -> Self {
        Self { is_bad: true, ..self }
    }

    #[must_use]
    pub fn with_undo(mut self, address: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.undo = Some((address.into(), fields));
        self
    }

    /// The value of the notice cookie of this visitor. It is sealed with its time, so that nobody who can set cookies
    /// offers a form, or shows a sentence later or to others.
    pub(super) fn to_cookie(&self, sealer: &KeyedDigest, uid: &str, now: Timestamp) -> String {
        let undo = self.undo.as_ref().map(|(address, fields)| json!({"address": address, "fields": fields}));
        let text = json!({"text": self.text, "undo": undo, "bad": self.is_bad, "at": now.0}).to_string();
        let seal = Self::seal(sealer, &text, self.undo.is_some().then_some(uid));
        URL_SAFE_NO_PAD.encode([&seal[..], text.as_bytes()].concat())
    }

    /// A notice without Undo is for whoever comes next, since signing in changes the visitor.
    fn seal(sealer: &KeyedDigest, text: &str, uid: Option<&str>) -> Hash {
        sealer.digest("notice", &[text.as_bytes(), uid.unwrap_or_default().as_bytes()])
    }

    /// The notice of a cookie of this visitor; `None` if Roster did not make it, or longer ago than `NOTICE_TTL_S`.
    pub(super) fn from_cookie(value: &str, sealer: &KeyedDigest, uid: &str, now: Timestamp) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (seal, text) = bytes.split_first_chunk::<32>()?;
        let text = std::str::from_utf8(text).ok()?;
        let stored: Value = serde_json::from_str(text).ok()?;
        let uid = (!stored["undo"].is_null()).then_some(uid);
        if !secret::equal(seal, &Self::seal(sealer, text, uid)) {
            return None;
        }
        let made_at = Timestamp(stored["at"].as_i64()?);
        if !(made_at..made_at.plus_ms(NOTICE_TTL_S * 1_000)).contains(&now) {
            return None;
        }
        let undo = stored["undo"].as_object().and_then(|undo| {
            let address = undo["address"].as_str().filter(|address| address.starts_with("/console/"))?;
            let fields = serde_json::from_value(undo["fields"].clone()).ok()?;
            Some((address.to_owned(), fields))
        });
        Some(Self { text: stored["text"].as_str()?.to_owned(), undo, is_bad: stored["bad"] == true })
    }
}

/// The name of the cookie that carries a notice to the next page.
pub(super) const NOTICE_COOKIE: &str = "notice";
/// How long a notice waits for the next page.
pub(super) const NOTICE_TTL_S: i64 = 60;
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
        client::call(&self.console.perform, self.caller(organization), operation, call).await
    }

    /// Answers with what an operation answers, as a file of this name. It is passed on while the operation makes it.
    pub async fn download(&self, call: Call, file_name: &str) -> Result<View> {
        let operation = self.operation(call.operation)?;
        let caller = self.caller(self.organization.as_ref().map(|here| here.code.as_str()));
        let mut response = client::respond(&self.console.perform, caller, operation, call).await?;
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{file_name}\""))
            .map_err(|_| Error::internal(format!("{file_name:?} is no name of a file")))?;
        response.headers_mut().insert("content-disposition", disposition);
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
        Ok(View::Response(Box::new(response)))
    }

    fn caller<'v>(&'v self, organization: Option<&'v str>) -> client::Caller<'v> {
        client::Caller {
            headers: &self.headers,
            context: &self.context,
            identity: self.identity.as_ref(),
            organization,
            app: &self.console.app,
        }
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

    /// A file of the submitted form; `None` if none was chosen. A page gets files if one of its operations takes a
    /// large body: see `FILES` in `multipart.rs`.
    pub fn file(&self, field: &str) -> Option<&Upload> {
        self.files.iter().find(|file| file.field == field)
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

    /// The code of an organization, for links to its pages.
    pub fn code_of(&self, organization_id: &str) -> Option<String> {
        let id = uuid::Uuid::parse_str(organization_id).ok().map(OrganizationId)?;
        self.console.app.snapshot().tenant(id).map(|tenant| tenant.org_code.to_string())
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

    /// The number of tasks that the visitor started and that run now.
    pub fn running_tasks(&self) -> usize {
        self.identity.as_ref().map_or(0, |identity| self.console.app.tasks.count_running(&identity.actor()))
    }

    /// The notice of the page before.
    pub(super) fn shown_notice(&self) -> Option<Notice> {
        Notice::from_cookie(self.cookie(NOTICE_COOKIE)?, &self.console.app.sealer, self.uid(), Timestamp::now())
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
    use super::*;

    /// When the notices of the tests are made.
    const MADE: Timestamp = Timestamp(1_000_000);

    fn read_at(value: &str, sealer: &KeyedDigest, uid: &str, ms_later: i64) -> Option<Notice> {
        Notice::from_cookie(value, sealer, uid, MADE.plus_ms(ms_later))
    }

    #[test]
    fn a_notice_survives_its_cookie_and_undoes_only_in_the_console() {
        let notice = Notice::new("停權 <b>").with_undo("/console/o/acme/members", &[("act", "activate")]);
        let [ours, theirs] = [1, 2].map(|key| KeyedDigest::new([key; 32]));
        let made = |notice: &Notice, sealer: &KeyedDigest, uid: &str| notice.to_cookie(sealer, uid, MADE);
        let read = read_at(&made(&notice, &ours, "kim"), &ours, "kim", 0).expect("a notice");
        assert_eq!((read.text, &read.undo), (notice.text.clone(), &notice.undo));
        let foreign = Notice::new("x").with_undo("https://example.org/", &[]);
        let read = read_at(&made(&foreign, &ours, "kim"), &ours, "kim", 0);
        assert_eq!(read.and_then(|notice| notice.undo), None);
        // Made by somebody else, or for somebody else; but whoever signs in sees what was said before.
        assert!(read_at(&made(&notice, &theirs, "kim"), &ours, "kim", 0).is_none());
        assert!(read_at(&made(&notice, &ours, "lee"), &ours, "kim", 0).is_none());
        assert!(read_at(&made(&Notice::new("x"), &ours, ""), &ours, "kim", 0).is_some());
        assert!(read_at("no", &ours, "kim", 0).is_none());
    }

    #[test]
    fn a_notice_lasts_as_long_as_its_cookie_also_if_somebody_keeps_the_value() {
        let sealer = KeyedDigest::new([1; 32]);
        let last_ms = NOTICE_TTL_S * 1_000 - 1;
        for notice in [Notice::new("x"), Notice::new("x").with_undo("/console/me", &[])] {
            let value = notice.to_cookie(&sealer, "kim", MADE);
            for (ms_later, is_shown) in [(0, true), (last_ms, true), (last_ms + 1, false), (-1, false)] {
                assert_eq!(read_at(&value, &sealer, "kim", ms_later).is_some(), is_shown, "{ms_later}");
            }
            // Another time does not fit the seal.
            let bytes = URL_SAFE_NO_PAD.decode(&value).expect("base64");
            let (seal, text) = bytes.split_at(32);
            let later = std::str::from_utf8(text).expect("text").replace("1000000", "9000000");
            let forged = URL_SAFE_NO_PAD.encode([seal, later.as_bytes()].concat());
            assert!(Notice::from_cookie(&forged, &sealer, "kim", Timestamp(9_000_000)).is_none());
        }
    }
}
