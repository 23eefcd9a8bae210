//! Webhooks: made, changed, given new secrets, tried out.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use crate::features::webhooks::sender::{Sender, key_id, secret};
use crate::features::webhooks::{Webhook, forget_target, store};
use crate::kernel::app::{App, Changed, Transaction, ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Maker};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Window;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::{ActiveInactive, Body, Done, Page, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::{OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbox;

crate::text! {
    /// A name for people
    WebhookName 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
    /// An https or http address; one in a private network only if `webhooks.private_hosts` names its host
    WebhookUrl 1..=2048 "" as "webhook-url";
    /// A kind of event, such as `member.created`; `*` is every kind
    EventKind 1..=64 "" as "event-kind";
}

/// A webhook, without its secret
#[derive(Object)]
#[oai(rename = "Webhook")]
struct WebhookView {
    id: WebhookId,
    /// Null for the events of the whole site
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    name: String,
    url: String,
    kinds: Vec<String>,
    /// `inactive` gets no events; a 410 answer sets this
    status: ActiveInactive,
    /// Names the secret that signs, as the header `X-Roster-Key-Id` does
    key_id: String,
    /// Until when the former secret signs too, in Unix milliseconds
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

/// A webhook with its secret, which is shown this once
#[derive(Object)]
struct WebhookSecret {
    id: WebhookId,
    key_id: String,
    /// The key of the signature: HMAC-SHA256 of `<X-Roster-Timestamp>.<body>`, with this text as it is
    secret: String,
    /// Until when the former secret signs too, in Unix milliseconds
    #[oai(nullable)]
    former_signed_until: Option<i64>,
}

/// A new webhook
#[derive(Object)]
struct CreateWebhook {
    name: WebhookName,
    url: WebhookUrl,
    /// The event kinds that it gets
    #[oai(validator(min_items = 1, max_items = 50))]
    kinds: Vec<EventKind>,
}

/// What of a webhook can change
#[derive(Object)]
struct UpdateWebhook {
    name: Option<WebhookName>,
    url: Option<WebhookUrl>,
    #[oai(validator(min_items = 1, max_items = 50))]
    kinds: Option<Vec<EventKind>>,
    /// Switched off, what still waits for it is given up
    status: Option<ActiveInactive>,
}

/// What a trial came to
#[derive(Object)]
struct WebhookTrial {
    /// Did it take the event?
    ok: bool,
    /// The status it answered with
    #[oai(nullable)]
    status: Option<u16>,
    duration_ms: u64,
    /// Why there was no answer
    #[oai(nullable)]
    error: Option<String>,
}

crate::document! {
    create_webhook: [WebhookUrl, WebhooksFull, SecretNotKept] ["etag"];
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
    /// Without their secrets. The platform sees those of the whole site too.
    #[oai(path = "/", method = "get", operation_id = "list_webhooks")]
    async fn list_webhooks(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<WebhookView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::WEBHOOK_LIST)?;
        let window = Window::new(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| store::list_webhooks(r, reach.organization(), &window)).await?.into()))
    }

    /// Create a webhook
    ///
    /// It hears of its organization's events; one that the platform makes, of the whole site's. The secret is in this
    /// answer and nowhere else. It is switched off when who made or rotated it last may not make it any more.
    #[oai(path = "/", method = "post", operation_id = "create_webhook")]
    async fn create_webhook(&self, caller: MemberCaller, body: Body<CreateWebhook>) -> Reply<WebhookSecret> {
        let body = body.0;
        let (sealer, most, is_allowed) = (self.app.sealer, self.app.config.webhooks_max, self.sender.allows(&body.url));
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            let organization = authz::require(t.snapshot(), caller, Permission::WEBHOOK_CREATE)?.organization();
            require_allowed(is_allowed)?;
            if store::count_webhooks(t, organization)? >= most {
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
            store::set_webhook_maker(t, webhook.id, &Maker::from_caller(caller))?;
            let entry = entry_of(&webhook).after(described(&webhook));
            Ok(Changed::new(shown(&webhook, secret(&sealer, webhook.id, webhook.generation)), entry))
        };
        let made = self.app.create_secret(&caller, "webhook.create", Permission::WEBHOOK_CREATE, make).await?;
        Ok(ok(made.answer).version(1))
    }

    /// Change a webhook
    ///
    /// Only what is sent is changed. A webhook that answered 410 is switched on again here. Where it sends to is changed by who
    /// made or rotated it last; one whose maker may not make it any more is rotated before it is switched on.
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
                return Ok(Changed::nothing(former));
            }
            require_answered_for(t, caller, &former, &webhook)?;
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
    /// What waits for it, and what is known of its deliveries, goes too.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_webhook")]
    async fn delete_webhook(
        &self,
        caller: MemberCaller,
        id: Path<WebhookId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Done {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_DELETE)?;
            let webhook = store::get_webhook(t, reach.organization(), id.0)?;
            require_version(if_match.0.as_deref(), webhook.version)?;
            let deliveries = store::delete_webhook(t, id.0)?;
            let entry = entry_of(&webhook).before(described(&webhook)).after(json!({"deliveries": deliveries}));
            Ok(Changed::new((), entry))
        };
        self.app.change(&caller, "webhook.delete", delete).await?;
        forget_target(&self.app, outbox::webhook_target(id.0)).await?;
        Ok(done())
    }

    /// Give a webhook a new secret
    ///
    /// The former one signs too for `webhooks.rotation_overlap_s`, so that the receiver can change over; not where somebody else
    /// made it. Who rotates a webhook answers for it from now on.
    #[oai(path = "/:id/rotate", method = "post", operation_id = "rotate_webhook")]
    async fn rotate_webhook(
        &self,
        caller: MemberCaller,
        id: Path<WebhookId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<WebhookSecret> {
        let (sealer, overlap_ms) = (self.app.sealer, ms(self.app.config.webhook_rotation_overlap_s));
        let rotate = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_ROTATE)?;
            let former = store::get_webhook(t, reach.organization(), id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let (maker, known) = (Maker::from_caller(caller), store::webhook_maker(t, id.0)?);
            let is_kept = require_kept(t, &known, &former).is_ok();
            let grace_ms = deferred_grant::grace_ms((&known, is_kept), &maker, overlap_ms);
            store::rotate_webhook(t, id.0, t.now().plus_ms(grace_ms))?;
            store::set_webhook_maker(t, id.0, &maker)?;
            let webhook = store::get_webhook(t, None, id.0)?;
            let until = webhook.previous_until.filter(|until| *until > t.now()).map(|until| until.0);
            let entry = entry_of(&webhook).after(json!({"former_signed_until": until}));
            Ok(Changed::new(shown(&webhook, secret(&sealer, webhook.id, webhook.generation)), entry))
        };
        let rotated = self.app.create_secret(&caller, "webhook.rotate", Permission::WEBHOOK_ROTATE, rotate).await?;
        Ok(ok(rotated.answer))
    }

    /// Try a webhook out
    ///
    /// Sends an event of the kind `ping` now, whether the webhook is switched on or not, and answers what came back.
    #[oai(path = "/:id/test", method = "post", operation_id = "test_webhook")]
    async fn test_webhook(&self, caller: MemberCaller, id: Path<WebhookId>) -> Reply<WebhookTrial> {
        let note = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::WEBHOOK_TEST)?;
            let webhook = store::get_webhook(t, reach.organization(), id.0)?;
            let entry = entry_of(&webhook);
            Ok(Changed::new(webhook, entry))
        };
        let webhook = self.app.change(&caller, "webhook.test", note).await?.answer;
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
    error.fields.push(Field::body("url", "leads into this machine or a private network"));
    Err(error)
}

fn require_kept(t: &Transaction<'_>, maker: &Maker, webhook: &Webhook) -> Result<()> {
    deferred_grant::require_kept(
        t.snapshot(),
        maker,
        DeferredGrant::Webhook { organization: webhook.organization },
        t.now(),
    )
}

/// Who made or rotated a webhook last answers for where it sends to, and whether it sends: others rotate it first.
fn require_answered_for(t: &Transaction<'_>, caller: &Identity, former: &Webhook, webhook: &Webhook) -> Result<()> {
    let maker = store::webhook_maker(t, webhook.id)?;
    let is_moved = webhook.url != former.url && maker != Maker::from_caller(caller);
    let is_switched_on = webhook.is_active && !former.is_active;
    if is_moved || (is_switched_on && require_kept(t, &maker, webhook).is_err()) {
        let message = "somebody else answers for this webhook: rotate its secret first, then you do";
        return Err(Error::new(ErrorCode::NotHeld).with_message(message));
    }
    Ok(())
}

fn shown(webhook: &Webhook, secret: String) -> WebhookSecret {
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

/// The path and query of an address are often its secret: of them the audit says only that they changed.
fn described(webhook: &Webhook) -> serde_json::Value {
    json!({
        "name": webhook.name,
        "host": webhook.url.split('/').nth(2),
        "kinds": webhook.kinds,
        "status": if webhook.is_active { "active" } else { "inactive" },
    })
}
