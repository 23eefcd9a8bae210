//! SQL of webhooks.

use rusqlite::Row;

use super::Webhook;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer, sql};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbox;

const FIND_WEBHOOK: &str = "
    select id, organization_id, name, url, kinds, status = 'active', secret_generation, previous_until, version,
           created_at, updated_at
    from webhooks
    where id = :id";

pub fn find_webhook(r: &Reader<'_>, id: WebhookId) -> Result<Option<Webhook>> {
    r.find(FIND_WEBHOOK, &[(":id", &id)], webhook_of)
}

/// Returns a webhook of the organization, or any webhook if `organization` is `None`. Fails with `WebhookNotFound`.
pub fn get_webhook(r: &Reader<'_>, organization: Option<OrganizationId>, id: WebhookId) -> Result<Webhook> {
    find_webhook(r, id)?
        .filter(|webhook| organization.is_none() || webhook.organization == organization)
        .ok_or_else(|| ErrorCode::WebhookNotFound.into())
}

const LIST_WEBHOOKS: List = List {
    name: "webhooks",
    columns: "id, organization_id, name, url, kinds, status = 'active', secret_generation, previous_until, version,
              created_at, updated_at",
    from: "webhooks",
    joins: "",
    conditions: &["organization_id = :organization_id"],
    order: &["created_at", "id"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// Lists the webhooks of an organization, or all webhooks if `organization` is `None`.
pub fn list_webhooks(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    window: &PageRequest,
) -> Result<ListPage<Webhook>> {
    r.page(&LIST_WEBHOOKS, &[(":organization_id", &organization)], window, webhook_of)
}

const COUNT_WEBHOOKS: &str = "select count(*) from webhooks where organization_id is :organization_id";

/// Counts the webhooks of an organization, or those of the site if `organization` is `None`.
pub fn count_webhooks(r: &Reader<'_>, organization: Option<OrganizationId>) -> Result<u64> {
    let count = r.one(COUNT_WEBHOOKS, &[(":organization_id", &organization)], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

const INSERT_WEBHOOK: &str = "
    insert into webhooks (id, organization_id, name, url, kinds, status, created_at, updated_at)
    values (:id, :organization_id, :name, :url, :kinds, 'active', :now, :now)";

pub fn insert_webhook(w: &Writer<'_>, webhook: &Webhook) -> Result<()> {
    w.execute(
        INSERT_WEBHOOK,
        &[
            (":id", &webhook.id),
            (":organization_id", &webhook.organization),
            (":name", &webhook.name),
            (":url", &webhook.url),
            (":kinds", &sql::to_json_text(&webhook.kinds)?),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const UPDATE_WEBHOOK: &str = "
    update webhooks
    set name = :name, url = :url, kinds = :kinds, status = :status, version = version + 1, updated_at = :now
    where id = :id";

pub fn update_webhook(w: &Writer<'_>, webhook: &Webhook) -> Result<()> {
    w.execute(
        UPDATE_WEBHOOK,
        &[
            (":name", &webhook.name),
            (":url", &webhook.url),
            (":kinds", &sql::to_json_text(&webhook.kinds)?),
            (":status", &if webhook.is_active { "active" } else { "inactive" }),
            (":now", &w.now()),
            (":id", &webhook.id),
        ],
    )
    .map(drop)
}

const ROTATE_WEBHOOK: &str = "
    update webhooks
    set secret_generation = secret_generation + 1, previous_until = :until, version = version + 1, updated_at = :now
    where id = :id";

/// Moves on to the next secret; requests are also signed with the current one until `until`.
pub fn rotate_webhook(w: &Writer<'_>, id: WebhookId, until: Timestamp) -> Result<()> {
    w.execute(ROTATE_WEBHOOK, &[(":until", &until), (":now", &w.now()), (":id", &id)]).map(drop)
}

const SET_WEBHOOK_MAKER: &str = "update webhooks set maker = :maker where id = :id";

/// Sets the principal whose rights the webhook depends on.
pub fn set_webhook_maker(w: &Writer<'_>, id: WebhookId, maker: &Grantor) -> Result<()> {
    w.execute(SET_WEBHOOK_MAKER, &[(":maker", &maker.to_text()), (":id", &id)]).map(drop)
}

const WEBHOOK_MAKER: &str = "select maker from webhooks where id = :id";

pub fn get_webhook_maker(r: &Reader<'_>, id: WebhookId) -> Result<Grantor> {
    let text = r.find(WEBHOOK_MAKER, &[(":id", &id)], |row| row.get::<_, Option<String>>(0))?;
    Ok(Grantor::parse(text.flatten().as_deref()))
}

const DELETE_WEBHOOK: &str = "delete from webhooks where id = :id";
const COUNT_DELIVERIES: &str = "
    select count(*) from (select 1 from deliveries where target = :target limit :counted_max)";

/// Deletes a webhook. Returns the number of its deliveries, counted up to [`PageRequest::COUNTED_MAX`]. They are no
/// longer visible, and [`super::delete_target_deliveries`] deletes them in batches.
pub fn delete_webhook(w: &Writer<'_>, id: WebhookId) -> Result<u64> {
    let (target, counted_max) = (outbox::webhook_target(id), PageRequest::COUNTED_MAX as i64);
    let deliveries =
        w.one(COUNT_DELIVERIES, &[(":target", &target), (":counted_max", &counted_max)], |row| row.get::<_, i64>(0))?;
    w.execute(DELETE_WEBHOOK, &[(":id", &id)])?;
    Ok(deliveries.unsigned_abs())
}

fn webhook_of(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    Ok(Webhook {
        id: row.get(0)?,
        organization: row.get(1)?,
        name: row.get(2)?,
        url: row.get(3)?,
        kinds: sql::json(row, 4)?,
        is_active: row.get(5)?,
        generation: row.get(6)?,
        previous_until: row.get(7)?,
        version: row.get(8)?,
        created_at: row.get(9)?,
        updated_at: row.get(10)?,
    })
}

const SWITCH_WEBHOOK_OFF: &str = "
    update webhooks
    set status = 'inactive', version = version + 1, updated_at = :now
    where id = :id";

/// Deactivates a webhook; its pending deliveries are given up.
pub fn deactivate(w: &Writer<'_>, id: WebhookId) -> Result<()> {
    w.execute(SWITCH_WEBHOOK_OFF, &[(":now", &w.now()), (":id", &id)]).map(drop)
}
