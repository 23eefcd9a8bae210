//! The commands for keys: API keys of members and services, and the site's own signing keys.

use clap::{Args, Subcommand};
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::{ask, listed, segment, without_nulls};
use super::named::{self, member_id};
use super::{Common, Failed, output};

/// Whose key it is.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Owner {
    /// A member, by username, e-mail or uid
    #[arg(long, value_name = "MEMBER")]
    member: Option<String>,
    /// A service, by its name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// The arguments that describe a new key.
#[derive(Args)]
pub(super) struct Described {
    /// A name for people
    name: String,
    #[command(flatten)]
    owner: Owner,
    /// muser, mint or memg for a member, msvc or msys for a service; the first when absent
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Such as me:read,videos:write; a service must have some, a member's key has all when absent
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// When it ends: 2026-12-31 (its beginning, UTC), or 90d from now; its type's life when absent
    #[arg(long, value_name = "WHEN", value_parser = named::ahead)]
    expires_at: Option<i64>,
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// List API keys of services, or of a member
    List {
        /// A member, by username, e-mail or uid
        #[arg(long, value_name = "MEMBER")]
        member: Option<String>,
    },
    /// Create an API key; its text is printed this once
    Create(Described),
    /// Take over a key that was made elsewhere; its text goes on working here
    Import {
        #[command(flatten)]
        key: Described,
        /// SHA-256 of its text, in hexadecimal
        #[arg(long, value_name = "HEX")]
        hash: String,
    },
    /// Give a key a new text; the former one works on for a while
    Rotate {
        /// The key's id, also as it stands in its text
        id: String,
    },
    /// Revoke a key: it is refused from the next request on
    Revoke {
        /// The key's id, also as it stands in its text
        id: String,
    },
}

#[derive(Subcommand)]
pub(super) enum SigningKeyCommand {
    /// List the keys that are published
    List,
    /// Make a new key, which signs from now on; the former ones are accepted for a while
    Rotate,
}

#[derive(Subcommand)]
pub(super) enum EncryptionKeyCommand {
    /// Make a new key, encrypt all secrets with it, and put it into the key file
    Rotate,
}

pub(super) async fn encryption_key(common: &Common, command: &EncryptionKeyCommand) -> Result<(), Failed> {
    let answer = match command {
        EncryptionKeyCommand::Rotate => ask(common, Method::POST, "/admin/encryption-key/rotate", None).await?,
    };
    output::line(common.json, &answer);
    Ok(())
}

pub(super) async fn key(common: &Common, command: KeyCommand) -> Result<(), Failed> {
    let at = |id: &str, rest: &str| format!("/admin/api-keys/{}{rest}", segment(&hyphenated(id)));
    let has_secret = matches!(command, KeyCommand::Create(_) | KeyCommand::Rotate { .. });
    let answer = match command {
        KeyCommand::List { member } => {
            let mut api = ApiConnection::open(common).await?;
            let page = list(&mut api, member.as_deref()).await;
            api.close().await;
            let page = page?;
            let columns = ["id", "type", "name", "service_name", "scopes", "expires_at", "last_used_at"];
            output::table(common.json, &page, &columns);
            return Ok(());
        }
        KeyCommand::Create(described) => make(common, described, None).await?,
        KeyCommand::Import { key, hash } => make(common, key, Some(hash)).await?,
        KeyCommand::Rotate { id } => ask(common, Method::POST, &at(&id, "/rotate"), None).await?,
        KeyCommand::Revoke { id } => {
            ask(common, Method::DELETE, &at(&id, ""), None).await?;
            json!({"id": hyphenated(&id), "deleted": true})
        }
    };
    output::made(common.json, &answer, has_secret);
    Ok(())
}

async fn list(api: &mut ApiConnection, member: Option<&str>) -> Result<Value, Failed> {
    let path = keys_of(api, member).await?;
    api.call(Method::GET, &listed(&path, None), &[], None).await
}

async fn make(common: &Common, described: Described, hash: Option<String>) -> Result<Value, Failed> {
    let mut api = ApiConnection::open(common).await?;
    let made = make_by(&mut api, described, hash).await;
    api.close().await;
    made
}

async fn make_by(api: &mut ApiConnection, described: Described, hash: Option<String>) -> Result<Value, Failed> {
    let Described { name, owner, kind, scopes, expires_at } = described;
    let path = keys_of(api, owner.member.as_deref()).await?;
    let body = json!({
        "name": name, "service_name": owner.service, "type": kind, "scopes": scopes, "expires_at": expires_at,
        "key_hash": hash,
    });
    api.call(Method::POST, &path, &[], Some(without_nulls(body))).await
}

/// Where the keys of a member are, or those of services.
async fn keys_of(api: &mut ApiConnection, member: Option<&str>) -> Result<String, Failed> {
    Ok(match member {
        Some(named) => format!("/admin/members/{}/api-keys", segment(&member_id(api, named).await?)),
        None => "/admin/api-keys".to_owned(),
    })
}

/// An id as the API has it; in the text of a key it stands without hyphens.
fn hyphenated(id: &str) -> String {
    uuid::Uuid::try_parse(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}

pub(super) async fn signing_key(common: &Common, command: &SigningKeyCommand) -> Result<(), Failed> {
    let keys = match command {
        SigningKeyCommand::List => ask(common, Method::GET, "/admin/signing-keys", None).await?,
        SigningKeyCommand::Rotate => ask(common, Method::POST, "/admin/signing-keys/rotate", None).await?,
    };
    output::table(common.json, &keys, &["id", "signs", "created_at", "ends_at"]);
    Ok(())
}
