//! Operations that list deliveries and retry failed ones.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;

use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::PageRequest;
use crate::kernel::error::ErrorCode;
use crate::kernel::http::{Page, Reply, Tag, ok};
use crate::kernel::ids::{MemberId, OrganizationId, WebhookId};
use crate::kernel::outbox::delivery::{Delivery, DeliveryState, Filter, Target, kind_of, parse_delivery_name};
use crate::kernel::outbox::{self, delivery_store as store};

/// The state of a delivery
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "DeliveryState", remote = "DeliveryState")]
enum DeliveryStateName {
    /// It waits for its first or next attempt
    Pending,
    /// It was delivered, or there was nothing to deliver
    Delivered,
    /// It was given up and is not tried again
    Dead,
}

/// The delivery of an event to a target
#[derive(Object)]
#[oai(rename = "Delivery")]
struct DeliveryView {
    /// Identifies event and target; the same in all attempts and in the header `X-Roster-Delivery`
    id: String,
    /// Grows with each event; a target receives its events in this order
    event_id: i64,
    kind: String,
    /// Time of the event, in Unix milliseconds
    at: i64,
    /// `webhook`, `mail`, `sftpgo` or `wordpress`
    target: String,
    #[oai(nullable)]
    webhook_id: Option<WebhookId>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    #[oai(nullable)]
    member_id: Option<MemberId>,
    state: DeliveryStateName,
    /// Number of attempts since the last manual retry
    attempts: u64,
    /// Earliest time of the next attempt, in Unix milliseconds; null unless the delivery is pending
    #[oai(nullable)]
    next_at: Option<i64>,
    /// Why the last attempt failed, or why there was nothing to deliver
    #[oai(nullable)]
    last_error: Option<String>,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        let webhook_id = match Target::parse(&delivery.target) {
            Some(Target::Webhook(id)) => Some(id),
            _ => None,
        };
        Self {
            id: delivery.name(),
            event_id: delivery.event,
            at: delivery.at.0,
            target: kind_of(&delivery.target).to_owned(),
            webhook_id,
            organization_id: delivery.organization,
            member_id: delivery.member,
            next_at: (delivery.state == DeliveryState::Pending).then_some(delivery.next_at.0),
            state: delivery.state.into(),
            kind: delivery.kind.as_str().to_owned(),
            attempts: delivery.attempts,
            last_error: delivery.last_error,
            updated_at: delivery.updated_at.0,
        }
    }
}

crate::document! {
    retry_delivery: [DeliveryNotFound, DeliveryDone];

    "Delivery": r#"{"id":"17.webhook.0198c1d2a4b07e1f8c3d5e6f70819203","event_id":17,"kind":"member.created","at":1763740800000,"target":"webhook","webhook_id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203","organization_id":null,"member_id":"0198c1d2-0000-7000-8000-000000000001","state":"pending","attempts":2,"next_at":1763740810000,"last_error":"it answered 500","updated_at":1763740800500}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/deliveries", tag = "Tag::Webhooks")]
impl Api {
    /// List deliveries
    ///
    /// Newest events first. A caller of an organization sees only the deliveries of its events and its webhooks. If the
    /// filters match few of many deliveries, a page can be short or empty although `next` is set.
    #[oai(path = "/", method = "get", operation_id = "list_deliveries")]
    #[allow(clippy::too_many_arguments, reason = "each filter must be an argument to appear in the OpenAPI document")]
    async fn list_deliveries(
        &self,
        caller: MemberCaller,
        /// `pending`, `delivered` or `dead`
        state: Query<Option<DeliveryStateName>>,
        /// Only deliveries that were attempted; with the state `pending`, those that are failing now
        tried: Query<Option<bool>>,
        /// `webhook`, `mail`, `sftpgo`, `wordpress`, or the id of one webhook
        #[oai(validator(max_length = 64))]
        target: Query<Option<String>>,
        /// A kind of event, for example `member.created`
        #[oai(validator(max_length = 64))]
        kind: Query<Option<String>>,
        /// Start of the period of events (inclusive), in Unix milliseconds
        from: Query<Option<i64>>,
        /// End of the period of events (exclusive), in Unix milliseconds
        to: Query<Option<i64>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<DeliveryView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::OUTBOX_LIST)?;
        let target_of = |text: String| match WebhookId::of(&text) {
            id if id.is_nil() => text,
            id => outbox::webhook_target(id),
        };
        let filter = Filter {
            organization: reach.organization(),
            state: state.0.map(DeliveryState::from),
            is_tried: tried.0,
            target: target.0.map(target_of),
            kind: kind.0,
            since: from.0,
            until: to.0,
        };
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| store::list_deliveries(r, &filter, &window)).await?.into()))
    }

    /// Retry a delivery
    ///
    /// Makes the delivery due now. For a given-up delivery the count of attempts starts again. Later events of the same
    /// target that were delivered meanwhile are not sent again.
    #[oai(path = "/:id/retry", method = "post", operation_id = "retry_delivery")]
    async fn retry_delivery(&self, caller: MemberCaller, id: Path<String>) -> Reply<DeliveryView> {
        let retry = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::OUTBOX_RETRY)?;
            let (event, target) = parse_delivery_name(&id.0).ok_or(ErrorCode::DeliveryNotFound)?;
            let former = store::get_delivery(t, reach.organization(), (event, &target))?;
            if !store::retry(t, &target, event)? {
                return Err(ErrorCode::DeliveryDone.into());
            }
            let before = json!({"state": former.state.as_str()});
            let entry = Entry::new("delivery", former.name()).within(former.organization).before(before);
            Ok(Changed::new(store::get_delivery(t, None, (event, &target))?, entry))
        };
        let retried = self.app.change(&caller, "delivery.retry", retry).await?;
        self.app.outbox.notify_one();
        Ok(ok(retried.answer.into()))
    }
}
