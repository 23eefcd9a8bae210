//! Commands for API keys of members and services, for signing keys, and for the encryption key.

use clap::{Args, Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::{call_api, list_path, segment, without_nulls};
use super::named::{self, member_id};
use super::{Common, Failed, output};
use crate::kernel::authz::key::{EMERGENCY, INTEGRATION, SERVICE, SYSTEM, USER};

/// The owner of an API key: a member or a service.
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

/// The type of a new key, by its prefix.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum KeyType {
    /// Of a member, for its own programs; the default for a member
    Muser,
    /// Of a member, for another system that acts for it
    Mint,
    /// Of a member, for an emergency; works once
    Memg,
    /// Of a service; the default for a service
    Msvc,
    /// Of a service, for the system itself
    Msys,
}

impl KeyType {
    fn prefix(self) -> &'static str {
        let kind = match self {
            Self::Muser => USER,
            Self::Mint => INTEGRATION,
            Self::Memg => EMERGENCY,
            Self::Msvc => SERVICE,
            Self::Msys => SYSTEM,
        };
        kind.prefix
    }
}

/// The arguments that describe a new key.
#[derive(Args)]
pub(super) struct Described {
    /// Display name
    name: String,
    #[command(flatten)]
    owner: Owner,
    /// The type of the key
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<KeyType>,
    /// Scopes, such as me:read,videos:write; required for a service, all by default for a member
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// When it expires: 2026-12-31 (0:00 UTC), or 90d from now; by default after the lifetime of its type
    #[arg(long, value_name = "WHEN", value_parser = named::parse_expiry)]
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
    /// Create an API key; it is printed only once
    Create(Described),
    /// Import a key of another system by its hash; the key then works here
    Import {
        #[command(flatten)]
        key: Described,
        /// SHA-256 of the key, in hexadecimal
        #[arg(long, value_name = "HEX")]
        hash: String,
    },
    /// Replace a key by a new one; the previous one stays valid for a limited time
    Rotate {
        /// The key's id, with or without hyphens
        id: String,
    },
    /// Revoke a key: it is refused from the next request on
    Revoke {
        /// The key's id, with or without hyphens
        id: String,
    },
}

#[derive(Subcommand)]
pub(super) enum SigningKeyCommand {
    /// List the published keys
    List,
    /// Create a new key, which signs from now on; the previous ones are accepted for a limited time
    Rotate,
}

#[derive(Subcommand)]
pub(super) enum EncryptionKeyCommand {
    /// Create a new key, encrypt all secrets with it, and write it to the key file
    Rotate,
}

pub(super) async fn encryption_key(common: &Common, command: &EncryptionKeyCommand) -> Result<(), Failed> {
    let answer = match command {
        EncryptionKeyCommand::Rotate => call_api(common, Method::POST, "/admin/encryption-key/rotate", None).await?,
    };
    output::print_object(common.json, &answer);
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
            output::print_table(common.json, &page, &columns);
            return Ok(());
        }
        KeyCommand::Create(described) => create(common, described, None).await?,
        KeyCommand::Import { key, hash } => create(common, key, Some(hash)).await?,
        KeyCommand::Rotate { id } => call_api(common, Method::POST, &at(&id, "/rotate"), None).await?,
        KeyCommand::Revoke { id } => {
            call_api(common, Method::DELETE, &at(&id, ""), None).await?;
            json!({"id": hyphenated(&id), "deleted": true})
        }
    };
    output::print_created(common.json, &answer, has_secret);
    Ok(())
}

async fn list(api: &mut ApiConnection, member: Option<&str>) -> Result<Value, Failed> {
    let path = keys_of(api, member).await?;
    api.call(Method::GET, &list_path(&path, None), &[], None).await
}

async fn create(common: &Common, described: Described, hash: Option<String>) -> Result<Value, Failed> {
    let mut api = ApiConnection::open(common).await?;
    let created = create_by(&mut api, described, hash).await;
    api.close().await;
    created
}

async fn create_by(api: &mut ApiConnection, described: Described, hash: Option<String>) -> Result<Value, Failed> {
    let Described { name, owner, kind, scopes, expires_at } = described;
    let path = keys_of(api, owner.member.as_deref()).await?;
    let body = json!({
        "name": name, "service_name": owner.service, "type": kind.map(KeyType::prefix), "scopes": scopes,
        "expires_at": expires_at, "key_hash": hash,
    });
    api.call(Method::POST, &path, &[], Some(without_nulls(body))).await
}

/// The path of a member's API keys, or of those of services.
async fn keys_of(api: &mut ApiConnection, member: Option<&str>) -> Result<String, Failed> {
    Ok(match member {
        Some(named) => format!("/admin/members/{}/api-keys", segment(&member_id(api, named).await?)),
        None => "/admin/api-keys".to_owned(),
    })
}

/// The id with hyphens, as the API takes it. The text of a key contains the id without hyphens.
fn hyphenated(id: &str) -> String {
    uuid::Uuid::try_parse(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}

pub(super) async fn signing_key(common: &Common, command: &SigningKeyCommand) -> Result<(), Failed> {
    let keys = match command {
        SigningKeyCommand::List => call_api(common, Method::GET, "/admin/signing-keys", None).await?,
        SigningKeyCommand::Rotate => call_api(common, Method::POST, "/admin/signing-keys/rotate", None).await?,
    };
    output::print_table(common.json, &keys, &["id", "signs", "created_at", "ends_at"]);
    Ok(())
}
