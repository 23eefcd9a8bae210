//! Operations on the key that encrypts the secrets in the database.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::kernel::app::{App, encryption};
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::http::{Reply, Tag, ok};

/// The key in the key file, without its secret part
#[derive(Object)]
struct EncryptionKey {
    /// Identifies the key; reveals nothing of the secret
    id: String,
}
crate::document! {}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/encryption-key", tag = "Tag::System")]
impl Api {
    /// Rotate the database encryption key
    ///
    /// Creates a new key, encrypts all stored secrets with it at once, and replaces the previous key in the key file.
    /// Backups made before the rotation need the previous key.
    #[oai(path = "/rotate", method = "post", operation_id = "rotate_encryption_key")]
    async fn rotate_encryption_key(&self, caller: MemberCaller) -> Reply<EncryptionKey> {
        let id = encryption::rotate(&self.app, &caller).await?;
        Ok(ok(EncryptionKey { id: id.to_string() }))
    }
}
