//! Resolves names to ids, and parses dates and sizes, for arguments of commands.

use poem::http::Method;

use super::Failed;
use super::api_connection::ApiConnection;
use super::commands::{query, segment};
use crate::features::quotas::SIZE_MAX;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::units::{self, Direction};

/// Resolves an organization's id or code to its id. Fails if there is none.
pub(super) async fn organization_id(api: &mut ApiConnection, named: &str) -> Result<String, Failed> {
    if !OrganizationId::of(named).is_nil() {
        return Ok(named.to_owned());
    }
    let path = format!("/internal/organizations/by-code/{}", segment(named));
    let found = api.call(Method::GET, &path, &[], None).await;
    let with_name = |message: String| message.replacen("no such organization", &format!("no organization {named}"), 1);
    let found = found.map_err(|failed| Failed(with_name(failed.0)))?;
    Ok(found["id"].as_str().unwrap_or_default().to_owned())
}

/// Resolves a member's uid, username or e-mail to the uid. Fails if there is none.
pub(super) async fn member_id(api: &mut ApiConnection, named: &str) -> Result<String, Failed> {
    if !MemberId::of(named).is_nil() {
        return Ok(named.to_owned());
    }
    const KEYWORD_CHARACTERS_MAX: usize = 200;
    let (wanted, keyword) = (named.to_lowercase(), named.chars().take(KEYWORD_CHARACTERS_MAX).collect::<String>());
    let mut seen = 0_u64;
    loop {
        let offset = seen.to_string();
        let filters = [("limit", Some("200")), ("offset", Some(offset.as_str())), ("keyword", Some(keyword.as_str()))];
        let page = api.call(Method::GET, &query("/admin/members", &filters), &[], None).await?;
        let found = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_meant = |name: &serde_json::Value| name.as_str().is_some_and(|name| name.to_lowercase() == wanted);
        if let Some(member) = found.iter().find(|member| is_meant(&member["username"]) || is_meant(&member["email"])) {
            return Ok(member["uid"].as_str().unwrap_or_default().to_owned());
        }
        seen += found.len() as u64;
        if found.is_empty() || seen >= page["total"].as_u64().unwrap_or_default() {
            return Err(Failed(format!("there is no member {named}: `roster member list` shows their usernames")));
        }
    }
}

const MOMENT_FORMATS: &str =
    "a date such as 2026-12-31 or 2026-12-31T18:00 (UTC), a span such as 90d or 12h, or Unix milliseconds";

/// Parses an expiry, in Unix milliseconds. Fails for a moment in the past.
pub(super) fn parse_expiry(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    let moment = units::parse_time(text, now, Direction::Ahead).ok_or_else(|| format!("write {MOMENT_FORMATS}"))?;
    if moment > now.0 { Ok(moment) } else { Err(format!("is in the past: write {MOMENT_FORMATS}, later than now")) }
}

/// Parses the beginning of a period in the past, in Unix milliseconds.
pub(super) fn parse_since(text: &str) -> Result<i64, String> {
    units::parse_time(text, Timestamp::now(), Direction::Ago).ok_or_else(|| format!("write {MOMENT_FORMATS}"))
}

/// Parses a quota: bytes, `unlimited`, or `default`.
pub(super) fn parse_size(text: &str) -> Result<Size, String> {
    const WRITE: &str = "write a size such as 20GB, 1.5TB, 512MiB or 0, or `unlimited`, or `default`";
    match text {
        "default" => Ok(Size(None)),
        "unlimited" => Ok(Size(Some(SIZE_MAX))),
        text => {
            let bytes = units::parse_bytes(text).and_then(|bytes| i64::try_from(bytes).ok());
            bytes.filter(|bytes| *bytes <= SIZE_MAX).map(|bytes| Size(Some(bytes))).ok_or_else(|| WRITE.to_owned())
        }
    }
}

/// A quota in bytes; `None` stands for the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) Option<i64>);
