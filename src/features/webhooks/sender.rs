//! Sends events to webhooks as signed requests.
//!
//! **Invariant.** A secret is derived from the site's key whenever it is needed and never stored. The URL may contain a
//! secret of the receiver, so no log line, audit entry or error contains it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde_json::{Value, json};

use super::address::{AllowedHosts, PrivateAddress};
use super::{Webhook, store};
use crate::features::members::{self, Member};
use crate::kernel::app::{App, Changed};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::principal::Identity;
use crate::kernel::config::Config;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbound::{builder, get_or_build, retry_after};
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome};
use crate::kernel::secret::{self, KeyedDigest};

/// Derives the secret of a webhook's generation, in the form in which the receiver stores it.
pub fn secret(sealer: &KeyedDigest, id: WebhookId, generation: i64) -> String {
    let digest = sealer.digest("webhook", &[id.0.as_bytes(), &generation.to_le_bytes()]);
    format!("whsec_{}", URL_SAFE_NO_PAD.encode(digest))
}

/// The id of a secret; reveals nothing of the secret.
pub fn key_id(id: WebhookId, generation: i64) -> String {
    format!("{id}.{generation}")
}

/// Returns the key ids and the `v1=…` signatures: for the current secret and, during a rotation, for the previous one.
fn signatures(sealer: &KeyedDigest, webhook: &Webhook, seconds: i64, body: &str, now: Timestamp) -> (String, String) {
    let is_former_valid = webhook.generation > 1 && webhook.previous_until.is_some_and(|until| now < until);
    let generations = [Some(webhook.generation), is_former_valid.then(|| webhook.generation - 1)];
    let signed = format!("{seconds}.{body}");
    let sign = |generation: i64| {
        let signature = secret::signature(&secret(sealer, webhook.id, generation), &signed);
        (key_id(webhook.id, generation), format!("v1={}", hex::encode(signature)))
    };
    let (key_ids, signatures): (Vec<String>, Vec<String>) = generations.into_iter().flatten().map(sign).unzip();
    (key_ids.join(","), signatures.join(","))
}

/// The result of one request.
#[derive(Debug)]
pub struct WebhookResponse {
    pub status: Option<u16>,
    pub duration: Duration,
    /// Why there was no answer.
    pub error: Option<String>,
    /// Seconds to wait, from the `Retry-After` header.
    retry_after_s: Option<u64>,
}

/// Sends requests to webhooks. It connects only to checked addresses.
pub struct Sender {
    hosts: AllowedHosts,
    timeout: Duration,
    client: OnceLock<Client>,
}

impl Sender {
    pub fn new(config: &Config) -> Self {
        Self {
            hosts: AllowedHosts::new(&config.webhook_private_hosts),
            timeout: Duration::from_millis(config.neighbour_timeout_ms),
            client: OnceLock::new(),
        }
    }

    /// Whether a webhook may have this URL, as far as can be told without resolving its host name.
    pub fn allows(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| self.hosts.allow(&url))
    }

    fn client(&self) -> Result<&Client> {
        get_or_build(&self.client, || builder(self.timeout).dns_resolver(self.hosts.clone()))
    }

    /// Sends one signed request.
    pub async fn send(
        &self,
        sealer: &KeyedDigest,
        webhook: &Webhook,
        (kind, name): (&str, &str),
        body: &Value,
    ) -> WebhookResponse {
        let started = Instant::now();
        let outcome = self.exchange(sealer, webhook, (kind, name), body.to_string()).await;
        let duration = started.elapsed();
        match outcome {
            Ok((status, retry_after_s)) => {
                WebhookResponse { status: Some(status), duration, error: None, retry_after_s }
            }
            Err(error) => WebhookResponse { status: None, duration, error: Some(error), retry_after_s: None },
        }
    }

    async fn exchange(
        &self,
        sealer: &KeyedDigest,
        webhook: &Webhook,
        (kind, name): (&str, &str),
        body: String,
    ) -> Result<(u16, Option<u64>), String> {
        let url = Url::parse(&webhook.url).map_err(|_| "its URL cannot be parsed".to_owned())?;
        if !self.hosts.allow(&url) {
            return Err(PrivateAddress.to_string());
        }
        let now = Timestamp::now();
        let seconds = now.0 / 1_000;
        let (key_ids, signatures) = signatures(sealer, webhook, seconds, &body, now);
        let client = self.client().map_err(|e| e.to_string())?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("X-Roster-Event", kind)
            .header("X-Roster-Delivery", name)
            .header("X-Roster-Timestamp", seconds)
            .header("X-Roster-Key-Id", key_ids)
            .header("X-Roster-Signature", signatures)
            .body(body);
        let response = request.send().await.map_err(|e| self.describe(&e))?;
        let answer = (response.status().as_u16(), retry_after(response.headers(), now));
        drain(response).await;
        Ok(answer)
    }

    /// Describes an error without the URL.
    fn describe(&self, error: &reqwest::Error) -> String {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.is::<PrivateAddress>() {
                return PrivateAddress.to_string();
            }
            source = cause.source();
        }
        match error {
            e if e.is_timeout() => format!("it took longer than {} ms", self.timeout.as_millis()),
            e if e.is_connect() => {
                "it cannot be reached: name, port and certificate may be wrong, or it is down".into()
            }
            _ => "the connection was interrupted".into(),
        }
    }
}

/// Reads a short body so that the connection can be reused, and drops the connection of a longer one. The content is
/// not used.
async fn drain(mut response: reqwest::Response) {
    const ANSWER_BYTES_MAX: usize = 65_536;
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

/// Builds the body of an event. The data of a member is read now, at each attempt, and only as far as the webhook's
/// organization may see it now: for a member who was erased or has left meanwhile, the body contains only the id.
fn body_of(r: &Reader<'_>, seen_by: Option<OrganizationId>, delivery: &Delivery) -> Result<Value> {
    const PATHS: [&str; 2] = ["path", "former_path"];
    let mut data: Value = serde_json::from_str(&delivery.data).unwrap_or_default();
    if let Some(id) = delivery.member {
        let member = members::find_visible(r, seen_by, id)?;
        if delivery.kind.as_str().starts_with("member.") {
            let field =
                |get: fn(&Member) -> &Option<String>| json!(member.as_ref().and_then(|member| get(member).clone()));
            data["username"] = field(|member| &member.username);
            data["email"] = field(|member| &member.email);
            data["display_name"] = field(|member| &member.display_name);
            data["status"] = json!(member.as_ref().map_or("former", |member| member.status.as_str()));
        }
        if let (None, Some(data)) = (&member, data.as_object_mut()) {
            data.remove("sftpgo_username");
        }
    }
    for key in PATHS {
        let Some(path) = data[key].as_str().map(str::to_owned) else { continue };
        let seen = members::visible_path(r, seen_by, delivery.member, &path)?;
        if let Some(error) = data["error"].as_str() {
            data["error"] = json!(members::visible_text(error, &path, &seen));
        }
        data[key] = json!(seen);
    }
    Ok(json!({
        "id": delivery.event,
        "kind": delivery.kind.as_str(),
        "at": delivery.at.0,
        "organization_id": delivery.organization,
        "member_id": delivery.member,
        "data": data,
    }))
}

/// Delivers an event to a webhook.
pub async fn deliver(app: &App, sender: &Sender, id: WebhookId, delivery: &Delivery) -> Result<DeliveryOutcome> {
    let Some(webhook) = app.read(move |r| store::find_webhook(r, id)).await? else {
        return Ok(DeliveryOutcome::TargetGone("the webhook was deleted".into()));
    };
    if !webhook.is_active {
        return Ok(DeliveryOutcome::TargetGone("the webhook is inactive".into()));
    }
    let snapshot = app.snapshot();
    if webhook.organization.is_some_and(|id| snapshot.tenant(id).is_none_or(|tenant| !tenant.is_active)) {
        return Ok(DeliveryOutcome::TargetGone("its organization is not active".into()));
    }
    let (seen_by, event) = (webhook.organization, delivery.clone());
    let body = app.read(move |r| body_of(r, seen_by, &event)).await?;
    let answered = sender.send(&app.sealer, &webhook, (delivery.kind.as_str(), &delivery.name()), &body).await;
    Ok(match answered.status {
        Some(200..=299) => DeliveryOutcome::Delivered,
        Some(410) => {
            deactivate(app, id).await?;
            DeliveryOutcome::TargetGone("it answered 410, which switched the webhook off".into())
        }
        Some(status @ (429 | 503)) => {
            DeliveryOutcome::Failed { why: format!("it answered {status}"), not_before_s: answered.retry_after_s }
        }
        Some(status @ 300..=399) => {
            DeliveryOutcome::failed(format!("it answered {status}: redirects are not followed"))
        }
        Some(status) => DeliveryOutcome::failed(format!("it answered {status}")),
        None => DeliveryOutcome::failed(answered.error.unwrap_or_default()),
    })
}

/// Deactivates a webhook whose receiver answered 410 (gone).
async fn deactivate(app: &App, id: WebhookId) -> Result<()> {
    tracing::warn!(webhook = %id, "a webhook answered 410 and was deactivated");
    app.change(&Identity::command_line(), "webhook.switch_off", move |t, _| {
        let Some(mut webhook) = store::find_webhook(t, id)?.filter(|webhook| webhook.is_active) else {
            return Ok(Changed::unchanged(()));
        };
        webhook.is_active = false;
        store::update_webhook(t, &webhook)?;
        let after = json!({"status": "inactive", "answered": 410});
        Ok(Changed::new((), Entry::new("webhook", id).within(webhook.organization).after(after)))
    })
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_signed_with_both_secrets_during_a_rotation() {
        let sealer = KeyedDigest::new([7; 32]);
        let id = WebhookId::new();
        let webhook = |generation: i64, previous_until: Option<i64>| Webhook {
            id,
            organization: None,
            name: String::new(),
            url: String::new(),
            kinds: Vec::new(),
            is_active: true,
            generation,
            previous_until: previous_until.map(Timestamp),
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        let signature = |generation: i64| {
            let key = secret(&sealer, id, generation);
            format!("v1={}", hex::encode(secret::signature(&key, "5.{}")))
        };
        let signed = |webhook: &Webhook, now: i64| signatures(&sealer, webhook, 5, "{}", Timestamp(now));
        assert_eq!(signed(&webhook(1, None), 0), (format!("{id}.1"), signature(1)));
        let both = (format!("{id}.2,{id}.1"), format!("{},{}", signature(2), signature(1)));
        assert_eq!(signed(&webhook(2, Some(100)), 99), both);
        assert_eq!(signed(&webhook(2, Some(100)), 100), (format!("{id}.2"), signature(2)));
        assert_ne!(signature(1), signature(2));
    }
}
