//! The key that secrets in the database are encrypted with.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::kernel::app::{App, encryption};
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::http::{Reply, Tag, ok};

/// The key of the key file, without its secret
#[derive(Object)]
struct EncryptionKey {
    /// Says which key it is, and nothing of it
    id: String,
}
crate::document! {}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/encryption-key", tag = "Tag::System")]
impl Api {
    /// Make a new key for the secrets in the database
    ///
    /// Everything is encrypted with it at once, and it takes the place of the former one in the key file. Backups from
    /// before need the former one.
    #[oai(path = "/rotate", method = "post", operation_id = "rotate_encryption_key")]
    async fn rotate_encryption_key(&self, caller: MemberCaller) -> Reply<EncryptionKey> {
        let id = encryption::rotate(&self.app, &caller).await?;
        Ok(ok(EncryptionKey { id: id.to_string() }))
    }
}
