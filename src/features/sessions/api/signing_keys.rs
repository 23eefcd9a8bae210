//! Operations on the keys that sign access tokens.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::kernel::app::{App, keys};
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::http::{Reply, Tag, ok};

/// A signing key, without its secret part
#[derive(Object)]
#[oai(rename = "SigningKey")]
struct SigningKeyView {
    /// The `kid` in the header of tokens and in `/.well-known/jwks.json`
    id: String,
    /// Whether this key signs new tokens
    signs: bool,
    /// Unix milliseconds
    created_at: i64,
    /// When publication ends, in Unix milliseconds; null for the key that signs
    #[oai(nullable)]
    ends_at: Option<i64>,
}

/// The published keys, newest first
#[derive(Object)]
struct SigningKeys {
    items: Vec<SigningKeyView>,
}
crate::document! {}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/signing-keys", tag = "Tag::System")]
impl Api {
    /// List signing keys
    ///
    /// The public keys for access tokens: the current one and those that are still accepted.
    #[oai(path = "/", method = "get", operation_id = "list_signing_keys")]
    async fn list_signing_keys(&self, caller: MemberCaller) -> Reply<SigningKeys> {
        authz::require(&self.app.snapshot(), &caller, Permission::SIGNING_KEY_LIST)?;
        self.published().await
    }

    /// Rotate the signing key
    ///
    /// Creates a new key that signs all tokens from now on. Previous keys stay published and accepted for
    /// `auth.signing_key_overlap_s`.
    #[oai(path = "/rotate", method = "post", operation_id = "rotate_signing_key")]
    async fn rotate_signing_key(&self, caller: MemberCaller) -> Reply<SigningKeys> {
        keys::rotate(&self.app, &caller).await?;
        self.published().await
    }
}

impl Api {
    async fn published(&self) -> Reply<SigningKeys> {
        let view = |key: keys::SigningKey| SigningKeyView {
            id: key.id,
            signs: key.ends_at.is_none(),
            created_at: key.created_at.0,
            ends_at: key.ends_at.map(|at| at.0),
        };
        Ok(ok(SigningKeys { items: keys::list(&self.app).await?.into_iter().map(view).collect() }))
    }
}
