//! The signed-in member's remembered devices.

use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use crate::features::sessions::device_store;
use crate::features::sessions::trusted_devices::TrustedDevice;
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{EmptyReply, Reply, Tag, done, ok};
use crate::kernel::ids::{Timestamp, TrustedDeviceId};

/// A device on which sign-ins need no second factor
#[derive(Object)]
#[oai(rename = "TrustedDevice")]
struct TrustedDeviceView {
    id: TrustedDeviceId,
    /// Short device name from the `User-Agent` header
    device: String,
    /// Unix milliseconds
    created_at: i64,
    /// Time of the last sign-in without a second factor, in Unix milliseconds; at first the same as `created_at`
    last_used_at: i64,
    /// When the device is forgotten, in Unix milliseconds
    expires_at: i64,
}

impl From<TrustedDevice> for TrustedDeviceView {
    fn from(device: TrustedDevice) -> Self {
        Self {
            id: device.id,
            device: device.agent,
            created_at: device.created_at.0,
            last_used_at: device.last_used_at.0,
            expires_at: device.expires_at.0,
        }
    }
}

/// The member's remembered devices
#[derive(Object)]
struct TrustedDevices {
    items: Vec<TrustedDeviceView>,
}

crate::document! {
    delete_my_trusted_device: [SessionNotFound];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/me/trusted-devices", tag = "Tag::Sessions")]
impl Api {
    /// List your remembered devices
    ///
    /// The devices on which the caller signs in without a second factor, most recently used first.
    #[oai(path = "/", method = "get", operation_id = "list_my_trusted_devices")]
    async fn list_my_trusted_devices(&self, caller: MemberCaller) -> Reply<TrustedDevices> {
        let member = caller.signed_in()?;
        let found = self.app.read(move |r| device_store::list(r, member, Timestamp::now())).await?;
        Ok(ok(TrustedDevices { items: found.into_iter().map(Into::into).collect() }))
    }

    /// Forget one of your remembered devices
    ///
    /// The next sign-in on that device needs the second factor again. Its sessions do not end.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_my_trusted_device")]
    async fn delete_my_trusted_device(&self, caller: MemberCaller, id: Path<TrustedDeviceId>) -> EmptyReply {
        let member = caller.signed_in()?;
        let forget = move |t: &Transaction<'_>, _: &Identity| {
            if !device_store::delete(t, member, id.0)? {
                return Err(
                    Error::new(ErrorCode::SessionNotFound).with_message("you have no remembered device with this id")
                );
            }
            let entry = Entry::new("member", member).before(json!({"remembered_device": id.0}));
            Ok(Changed::new((), entry))
        };
        self.app.change(&caller, "session.forget_device", forget).await?;
        Ok(done())
    }
}
