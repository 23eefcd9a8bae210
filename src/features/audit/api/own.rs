//! What the audit log holds about the signed-in member's own actions.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use super::AuditOutcome;
use crate::features::audit::{Activity, store};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::db::PageRequest;
use crate::kernel::http::{Page, Reply, Tag, ok};

/// Something that the caller did
#[derive(Object)]
#[oai(rename = "Activity")]
struct ActivityView {
    /// Unix milliseconds
    at: i64,
    /// The action, as in the audit log; `session.create` is a sign-in
    action: String,
    /// Kind and id of the changed object, separated by a space
    target: String,
    /// Whether the change was made or denied
    outcome: AuditOutcome,
    /// IP address of the request
    address: String,
}

impl From<Activity> for ActivityView {
    fn from(activity: Activity) -> Self {
        Self {
            at: activity.at.0,
            action: activity.action,
            target: activity.target,
            outcome: activity.outcome.into(),
            address: activity.address,
        }
    }
}

crate::document! {
    "Activity": r#"{"at":1763740800000,"action":"session.create","target":"session 019abcde-0000-7000-8000-000000000009","outcome":"done","address":"192.0.2.7"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/me", tag = "Tag::Audit")]
impl Api {
    /// List your activity
    ///
    /// The caller's own changes and sign-ins, as the audit log holds them; newest first. Actions of the caller's API
    /// keys and of others are not included.
    #[oai(path = "/activity", method = "get", operation_id = "list_my_activity")]
    async fn list_my_activity(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<ActivityView>> {
        let member = caller.signed_in()?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| store::list_activity(r, member, &window)).await?.into()))
    }
}
