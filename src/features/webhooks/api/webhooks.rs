//! Operations that create, read, update, rotate, test and delete webhooks.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use crate::features::webhooks::sender::{Sender, key_id, secret};
use crate::features::webhooks::{Webhook, delete_target_deliveries, store};
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Grantor};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::{ActiveInactive, Body, EmptyReply, Page, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::{OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbox;

crate::text! {
    /// A display name
    WebhookName 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
    /// An https or http URL; its host can be in a private network only if `webhooks.private_hosts` names it
    WebhookUrl 1..=2048 "" as "webhook-url";
    /// A kind of event, for example `member.created`; `*` means every kind
    EventKind 1..=64 "" as "event-kind";
}

/// A webhook, without its secret
#[derive(Object)]
#[oai(rename = "Webhook")]
struct WebhookView {
    id: WebhookId,
    /// Null for a webhook that receives the events of the whole site
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    name: String,
    url: String,
    kinds: Vec<String>,
    /// An `inactive` webhook receives no events; a 410 answer makes it inactive
    status: ActiveInactive,
    /// Id of the signing secret, as in the header `X-Roster-Key-Id`
    key_id: String,
    /// Until when requests are also signed with the previous secret, in Unix milliseconds
    #[oai(nullable)]
    former_signed_until: Option<i64>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: webhook.id,
            organization_id: webhook.organization,
            name: webhook.name,
            url: webhook.url,
            kinds: webhook.kinds,
            status: ActiveInactive::of(webhook.is_active),
            key_id: key_id(webhook.id, webhook.generation),
            former_signed_until: webhook.previous_until.filter(|until| *until > Timestamp::now()).map(|until| until.0),
            created_at: webhook.created_at.0,
            updated_at: webhook.updated_at.0,
        }
    }
}

/// A webhook's secret, which is returned only in this answer
#[derive(Object)]
struct WebhookSecret {
    id: WebhookId,
    key_id: String,
    /// The key of the signature, an HMAC-SHA256 of `<X-Roster-Timestamp>.<body>`; use this text as it is, without
    /// decoding
    secret: String,
    /// Until when requests are also signed with the previous secret, in Unix milliseconds
    #[oai(nullable)]
    former_signed_until: Option<i64>,
}

/// A new webhook
#[derive(Object)]
struct CreateWebhook {
    name: WebhookName,
    url: WebhookUrl,
    /// The kinds of events that it receives
    #[oai(validator(min_items = 1, max_items = 50))]
    kinds: Vec<EventKind>,
}

/// The fields of a webhook to change
#[derive(Object)]
struct UpdateWebhook {
    name: Option<WebhookName>,
    url: Option<WebhookUrl>,
    #[oai(validator(min_items = 1, max_items = 50))]
    kinds: Option<Vec<EventKind>>,
    /// `inactive` also gives up the pending deliveries
    status: Option<ActiveInactive>,
}

/// The result of a test
#[derive(Object)]
struct WebhookTrial {
    /// Whether the receiver accepted the event
    ok: bool,
    /// The HTTP status of the answer
    #[oai(nullable)]
    status: Option<u16>,
    duration_ms: u64,
    /// Why there was no answer, if there was none
    #[oai(nullable)]
    error: Option<String>,
}

crate::document! {
    create_webhook: [WebhookUrl, WebhooksFull, SecretNotKept] ["etag"];
    get_webhook: [WebhookNotFound] ["etag"];
    update_webhook: [NotHeld, WebhookNotFound, WebhookUrl] ["etag"];
    delete_webhook: [WebhookNotFound];
    rotate_webhook: [WebhookNotFound, SecretNotKept];
    test_webhook: [WebhookNotFound];

    "CreateWebhook": r#"{"name":"n8n","url":"https://n8n.example.org/webhook/roster","kinds":["member.created","quota.warning"]}"#;
    "UpdateWebhook": r#"{"status":"inactive"}"#;
    "Webhook": r#"{"id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203","organization_id":null,"name":"n8n","url":"https://n8n.example.org/webhook/roster","kinds":["member.created","quota.warning"],"status":"active","key_id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203.1","former_signed_until":null,"created_at":1763740800000,"updated_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
    pub sender: Sender,
}

#[OpenApi(prefix_path = "/admin/webhooks", tag = "Tag::Webhooks")]
impl Api {
    /// List webhooks
    ///
    /// Returns the webhooks without their secrets. Platform administrators also see the webhooks of the whole site.
    #[oai(path = "/", method = "get", operation_id = "list_webhooks")]
    async fn list_webhooks(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<WebhookView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::WEBHOOK_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| store::list_webhooks(r, reach.organization(), &window)).await?.into()))
    }

    /// Create a webhook
    ///
    /// The webhook receives the events of its organization; one created by a platform administrator receives those of
    /// the whole site. The secret is returned only in this answer. The webhook becomes inactive when the principal who
    /// created it or last rotated it loses the right to create it.
    #[oai(path = "/", method = "post", operation_id = "create_webhook")]
    async fn create_webhook(&self, caller: MemberCaller, body: Body<CreateWebhook>) -> Reply<WebhookSecret> {
        let body = body.0;
        let (sealer, webhooks_max, is_allowed) =
            (self.app.sealer, self.app.config.webhooks_max, self.sender.allows(&body.url));
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            let organization = authz::require(t.snapshot(), caller, Permission::WEBHOOK_CREATE)?.organization();
            require_allowed(is_allowed)?;
            if store::count_webhooks(t, organization)? >= webhooks_max {
                return Err(ErrorCode::WebhooksFull.into());
            }
            let webhook = Webhook {
                id: WebhookId::new(),
                organization,
                name: body.name.0,
                url: body.url.0,
                kinds: words(body.kinds),
                is_active: true,
                generation: 1,
                previous_until: None,
                version: 1,
                created_at: t.now(),
                updated_at: t.now(),
            };
            store::insert_webhook(t, &webhook)?;
            store::set_webhook_maker(t, webhook.id, &Grantor::from_caller(caller))?;
            let entry = entry_of(&webhook).after(described(&webhook));
            Ok(Changed::new(secret_view(&webhook, secret(&sealer, webhook.id, webhook.generation)), entry))
        };
        let made = self.app.create_secret(&caller, "webhook.create", Permission::WEBHOOK_CREATE, make).await?;
        Ok(ok(made.answer).version(1))
    }

    /// Get a webhook
    ///
    /// Returns the webhook without its secret.
    #[oai(path = "/:id", method = "get", operation_id = "get_webhook")]
    async fn get_webhook(&self, caller: MemberCaller, id: Path<WebhookId>) -> Reply<WebhookView> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::WEBHOOK_GET)?;
        let webhook = self.app.read(move |r| store::get_webhook(r, reach.organization(), id.0)).await?;
        let version = webhook.version;
        Ok(ok(webhook.into()).version(version))
    }

    /// Update a webhook
    ///
    /// Only the fields that are sent change. Use this operation to reactivate a webhook that answered 410. Only the
    /// principal who created the webhook or last rotated it can change its URL. If that principal has lost the right to
    /// create it, the webhook must be rotated before it can be activated.
    #[oai(path = "/:id", method = "patch", operation_id = "update_webhook")]
    async fn update_webhook(
        &self,
        caller: MemberCaller,
        id: Path<WebhookId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateWebhook>,
    ) -> Reply<WebhookView> {
        let edit = body.0;
        let is_allowed = edit.url.as_deref().is_none_or(|url| self.sender.allows(url));
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_UPDATE)?;
            let former = store::get_webhook(t, reach.organization(), id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            require_allowed(is_allowed)?;
            let mut webhook = former.clone();
            webhook.name = edit.name.map_or(webhook.name, |name| name.0);
            webhook.url = edit.url.map_or(webhook.url, |url| url.0);
            webhook.kinds = edit.kinds.map_or(webhook.kinds, words);
            webhook.is_active = edit.status.map_or(webhook.is_active, ActiveInactive::is_active);
            if webhook == former {
                return Ok(Changed::unchanged(former));
            }
            require_maker(t, caller, &former, &webhook)?;
            store::update_webhook(t, &webhook)?;
            let mut after = described(&webhook);
            after["url_changed"] = json!(webhook.url != former.url);
            let entry = entry_of(&webhook).before(described(&former)).after(after);
            Ok(Changed::new(store::get_webhook(t, None, id.0)?, entry))
        };
        let updated = self.app.change(&caller, "webhook.update", update).await?.answer;
        self.app.outbox.notify_one();
        let version = updated.version;
        Ok(ok(updated.into()).version(version))
    }

    /// Delete a webhook
    ///
    /// Also deletes its pending deliveries and the record of its past ones.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_webhook")]
    async fn delete_webhook(
        &self,
        caller: MemberCaller,
        id: Path<WebhookId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_DELETE)?;
            let webhook = store::get_webhook(t, reach.organization(), id.0)?;
            require_version(if_match.0.as_deref(), webhook.version)?;
            let deliveries = store::delete_webhook(t, id.0)?;
            let entry = entry_of(&webhook).before(described(&webhook)).after(json!({"deliveries": deliveries}));
            Ok(Changed::new((), entry))
        };
        self.app.change(&caller, "webhook.delete", delete).await?;
        delete_target_deliveries(&self.app, outbox::webhook_target(id.0)).await?;
        Ok(done())
    }

    /// Rotate the secret of a webhook
    ///
    /// Requests are also signed with the previous secret for `webhooks.rotation_overlap_s`, so that the receiver can
    /// switch over; not if another principal created that secret. From now on the webhook depends on the rights of the
    /// caller.
    #[oai(path = "/:id/rotate", method = "post", operation_id = "rotate_webhook")]
    async fn rotate_webhook(
        &self,
        caller: MemberCaller,
        id: Path<WebhookId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<WebhookSecret> {
        let (sealer, overlap_ms) = (self.app.sealer, seconds_to_ms(self.app.config.webhook_rotation_overlap_s));
        let rotate = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_ROTATE)?;
            let former = store::get_webhook(t, reach.organization(), id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let (maker, known) = (Grantor::from_caller(caller), store::get_webhook_maker(t, id.0)?);
            let is_kept = require_kept(t, &known, &former).is_ok();
            let grace_ms = deferred_grant::grace_ms((&known, is_kept), &maker, overlap_ms);
            store::rotate_webhook(t, id.0, t.now().plus_ms(grace_ms))?;
            store::set_webhook_maker(t, id.0, &maker)?;
            let webhook = store::get_webhook(t, None, id.0)?;
            let former_signed_until = webhook.previous_until.filter(|until| *until > t.now()).map(|until| until.0);
            let entry = entry_of(&webhook).after(json!({"former_signed_until": former_signed_until}));
            Ok(Changed::new(secret_view(&webhook, secret(&sealer, webhook.id, webhook.generation)), entry))
        };
        let rotated = self.app.create_secret(&caller, "webhook.rotate", Permission::WEBHOOK_ROTATE, rotate).await?;
        Ok(ok(rotated.answer))
    }

    /// Test a webhook
    ///
    /// Sends an event of the kind `ping` now, even if the webhook is inactive, and returns the receiver's answer.
    #[oai(path = "/:id/test", method = "post", operation_id = "test_webhook")]
    async fn test_webhook(&self, caller: MemberCaller, id: Path<WebhookId>) -> Reply<WebhookTrial> {
        let record = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_TEST)?;
            let webhook = store::get_webhook(t, reach.organization(), id.0)?;
            let entry = entry_of(&webhook);
            Ok(Changed::new(webhook, entry))
        };
        let webhook = self.app.change(&caller, "webhook.test", record).await?.answer;
        let name = format!("ping.{}", uuid::Uuid::now_v7().simple());
        let body = json!({
            "id": null,
            "kind": PING,
            "at": Timestamp::now().0,
            "organization_id": webhook.organization,
            "member_id": null,
            "data": {},
        });
        let answered = self.sender.send(&self.app.sealer, &webhook, (PING, &name), &body).await;
        Ok(ok(WebhookTrial {
            ok: answered.status.is_some_and(|status| (200..300).contains(&status)),
            status: answered.status,
            duration_ms: u64::try_from(answered.duration.as_millis()).unwrap_or(u64::MAX),
            error: answered.error,
        }))
    }
}

const PING: &str = "ping";

fn require_allowed(is_allowed: bool) -> Result<()> {
    if is_allowed {
        return Ok(());
    }
    let mut error = Error::new(ErrorCode::WebhookUrl);
    error.fields.push(Field::body("url", "is an address of this machine or a private network"));
    Err(error)
}

fn require_kept(t: &Transaction<'_>, maker: &Grantor, webhook: &Webhook) -> Result<()> {
    deferred_grant::require_grantor_authorized(
        t.snapshot(),
        maker,
        DeferredGrant::Webhook { organization: webhook.organization },
        t.now(),
    )
}

/// Fails with `NotHeld` if another principal than the webhook's maker changes the URL, or if the webhook is activated
/// although its maker has lost the right to create it. In both cases it must be rotated first.
fn require_maker(t: &Transaction<'_>, caller: &Identity, former: &Webhook, webhook: &Webhook) -> Result<()> {
    let maker = store::get_webhook_maker(t, webhook.id)?;
    let is_moved = webhook.url != former.url && maker != Grantor::from_caller(caller);
    let is_switched_on = webhook.is_active && !former.is_active;
    if is_moved || (is_switched_on && require_kept(t, &maker, webhook).is_err()) {
        let message = "this webhook depends on the rights of another principal: rotate its secret first";
        return Err(Error::new(ErrorCode::NotHeld).with_message(message));
    }
    Ok(())
}

fn secret_view(webhook: &Webhook, secret: String) -> WebhookSecret {
    WebhookSecret {
        id: webhook.id,
        key_id: key_id(webhook.id, webhook.generation),
        secret,
        former_signed_until: webhook.previous_until.filter(|until| *until > Timestamp::now()).map(|until| until.0),
    }
}

fn words(kinds: Vec<EventKind>) -> Vec<String> {
    let mut words: Vec<String> = kinds.into_iter().map(|kind| kind.0).collect();
    words.sort();
    words.dedup();
    words
}

fn entry_of(webhook: &Webhook) -> Entry {
    Entry::new("webhook", webhook.id).within(webhook.organization)
}

/// Describes a webhook for the audit log. The path and query of a URL are often secret, so only the host is recorded.
fn described(webhook: &Webhook) -> serde_json::Value {
    json!({
        "name": webhook.name,
        "host": webhook.url.split('/').nth(2),
        "kinds": webhook.kinds,
        "status": ActiveInactive::of(webhook.is_active).as_str(),
    })
}
