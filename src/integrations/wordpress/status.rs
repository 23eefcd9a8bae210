//! Tells WordPress which members are suspended: the must-use plugin rejects their passwords and ends their sessions.
//!
//! **Invariant.** The member's present status is sent, so a late delivery undoes nothing. Nothing else of the account
//! changes, and a reactivated member finds it unchanged.

use reqwest::Url;
use reqwest::header::{ACCEPT, CACHE_CONTROL};
use serde_json::json;

use crate::features::members;
use crate::kernel::app::App;
use crate::kernel::authz::snapshot::MemberStatus;
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::MemberId;
use crate::kernel::outbound::Refusal;
use crate::kernel::outbox::delivery::DeliveryOutcome;

/// The maximum number of concurrent deliveries.
pub const CONCURRENT_MAX: usize = 2;

/// The user meta field in which the must-use plugin reads the suspension.
const SUSPENDED: &str = "roster_suspended";

/// Sends WordPress whether an event's member is suspended.
pub async fn deliver(app: &App, member: MemberId) -> Result<DeliveryOutcome> {
    if !app.config.has_wordpress_administrator() {
        return Ok(DeliveryOutcome::TargetGone(
            "set wordpress.url, wordpress.username and wordpress.password_file".into(),
        ));
    }
    let look =
        move |r: &crate::kernel::db::Reader<'_>| Ok((members::find(r, member)?, members::wordpress_id(r, member)?));
    let (Some(found), Some(number)) = app.read(look).await? else {
        return Ok(DeliveryOutcome::Skipped("the member has no account at WordPress"));
    };
    let is_suspended = found.status == MemberStatus::Suspended;
    let config = &app.config;
    let mut url = Url::parse(&format!("{}/wp-json/wp/v2/users/{number}", config.wordpress_url))
        .map_err(|e| Error::internal(format!("wordpress.url: {e}")))?;
    url.query_pairs_mut().extend_pairs([("context", "edit"), ("_fields", "id,meta")]);
    let request = app
        .outbound
        .client()?
        .post(url)
        .basic_auth(&config.wordpress_username, config.wordpress_password.as_deref())
        .header(ACCEPT, "application/json")
        .header(CACHE_CONTROL, "no-store")
        .json(&json!({"meta": {SUSPENDED: is_suspended}}))
        .build()
        .map_err(|e| Error::internal(format!("the request to WordPress cannot be built: {e}")))?;
    let answer = match app.outbound.send(super::NAME, request, Refusal::OfSettings).await {
        Ok(answer) => answer,
        Err(e) => return Ok(DeliveryOutcome::failed(e.to_string())),
    };
    let body = answer.json().unwrap_or_default();
    Ok(match answer.status {
        200 if body["meta"][SUSPENDED] == is_suspended => DeliveryOutcome::Delivered,
        200 => DeliveryOutcome::PermanentFailure(
            "the WordPress plugin is too old for suspensions: install packaging/wordpress/roster-events.php again"
                .into(),
        ),
        404 if body["code"] == "rest_user_invalid_id" => {
            DeliveryOutcome::Skipped("there is no such account at WordPress")
        }
        403 => DeliveryOutcome::Skipped("wordpress.username may not edit users"),
        status => DeliveryOutcome::failed(format!("WordPress answered {status}")),
    })
}
