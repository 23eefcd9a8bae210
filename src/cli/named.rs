//! What people write on a command line in place of ids, bytes and milliseconds.

use poem::http::Method;

use super::Failed;
use super::api_connection::ApiConnection;
use super::commands::{query, segment};
use crate::features::quotas::SIZE_MAX;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::units::{self, Side};

/// The id of an organization that is named by id or code.
pub(super) async fn organization_id(api: &mut ApiConnection, named: &str) -> Result<String, Failed> {
    if !OrganizationId::of(named).is_nil() {
        return Ok(named.to_owned());
    }
    let path = format!("/internal/organizations/by-code/{}", segment(named));
    let found = api.call(Method::GET, &path, &[], None).await;
    let with_name = |said: String| said.replacen("no such organization", &format!("no organization {named}"), 1);
    let found = found.map_err(|failed| Failed(with_name(failed.0)))?;
    Ok(found["id"].as_str().unwrap_or_default().to_owned())
}

/// The uid of a member who is named by uid, username or e-mail.
pub(super) async fn member_id(api: &mut ApiConnection, named: &str) -> Result<String, Failed> {
    if !MemberId::of(named).is_nil() {
        return Ok(named.to_owned());
    }
    const KEYWORD_CHARACTERS_MAX: usize = 200;
    let (wanted, keyword) = (named.to_lowercase(), named.chars().take(KEYWORD_CHARACTERS_MAX).collect::<String>());
    let mut seen = 0_u64;
    loop {
        let offset = seen.to_string();
        let narrowed = [("limit", Some("200")), ("offset", Some(offset.as_str())), ("keyword", Some(keyword.as_str()))];
        let page = api.call(Method::GET, &query("/admin/members", &narrowed), &[], None).await?;
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

const MOMENTS: &str =
    "a date such as 2026-12-31 or 2026-12-31T18:00 (UTC), a span such as 90d or 12h, or Unix milliseconds";

/// When something ends.
pub(super) fn ahead(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    let moment = units::moment_of(text, now, Side::Ahead).ok_or_else(|| format!("write {MOMENTS}"))?;
    if moment > now.0 { Ok(moment) } else { Err(format!("lies in the past: write {MOMENTS}, ahead of now")) }
}

/// Since when something is looked at.
pub(super) fn ago(text: &str) -> Result<i64, String> {
    units::moment_of(text, Timestamp::now(), Side::Ago).ok_or_else(|| format!("write {MOMENTS}"))
}

/// How much may be stored: bytes, or none for the default.
pub(super) fn size(text: &str) -> Result<Size, String> {
    const WRITE: &str = "write a size such as 20GB, 1.5TB, 512MiB or 0, or `unlimited`, or `default`";
    match text {
        "default" => Ok(Size(None)),
        "unlimited" => Ok(Size(Some(SIZE_MAX))),
        text => {
            let bytes = units::bytes_of(text).and_then(|bytes| i64::try_from(bytes).ok());
            bytes.filter(|bytes| *bytes <= SIZE_MAX).map(|bytes| Size(Some(bytes))).ok_or_else(|| WRITE.to_owned())
        }
    }
}

/// Bytes; none takes the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) Option<i64>);
