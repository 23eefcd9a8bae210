//! Operations on webhooks and on the deliveries of events.

pub mod deliveries;
pub mod webhooks;

/// Examples of this module's schemas, for the OpenAPI document.
pub const EXAMPLES: &[(&str, &str)] = &[
    (
        "Delivery",
        r#"{"id":"17.webhook.0198c1d2a4b07e1f8c3d5e6f70819203","event_id":17,"kind":"member.created","at":1763740800000,"target":"webhook","webhook_id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203","organization_id":null,"member_id":"0198c1d2-0000-7000-8000-000000000001","state":"pending","attempts":2,"next_at":1763740810000,"last_error":"it answered 500","updated_at":1763740800500}"#,
    ),
    (
        "CreateWebhook",
        r#"{"name":"n8n","url":"https://n8n.example.org/webhook/roster","kinds":["member.created","quota.warning"]}"#,
    ),
    ("ReconcileSftpgo", r#"{"dry_run":true}"#),
    (
        "SftpgoDrift",
        r#"{"members":2,"users":2,"missing":[{"uid":"0198c1d2-0000-7000-8000-000000000001","username":"kim"}],"orphaned":[],"foreign":["guest"],"conflicts":[],"differing":[{"uid":"0198c1d2-0000-7000-8000-000000000002","username":"lee","field":"quota_size","ours":10737418240,"theirs":0}]}"#,
    ),
    ("UpdateWebhook", r#"{"status":"inactive"}"#),
    (
        "Webhook",
        r#"{"id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203","organization_id":null,"name":"n8n","url":"https://n8n.example.org/webhook/roster","kinds":["member.created","quota.warning"],"status":"active","key_id":"0198c1d2-a4b0-7e1f-8c3d-5e6f70819203.1","former_signed_until":null,"created_at":1763740800000,"updated_at":1763740800000}"#,
    ),
];
