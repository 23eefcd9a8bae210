//! Operations on the audit log.

pub mod own;

use std::sync::Arc;

use futures_util::stream;
use poem::{Body, IntoResponse, Response};
use poem_openapi::param::Query;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::Value;

use crate::features::audit::{AuditEntry, Filter, store};
use crate::kernel::app::App;
use crate::kernel::audit_log::Outcome;
use crate::kernel::authn::caller::AdminCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Failure, Page, Reply, Tag, ok};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// Whether the change was made or denied
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "Outcome")]
enum AuditOutcome {
    Done,
    Denied,
}

/// An entry of the audit log
#[derive(Object)]
#[oai(rename = "AuditEntry")]
struct AuditEntryView {
    /// Sequence number; grows by one with each entry
    id: i64,
    /// Unix milliseconds
    at: i64,
    /// `member`, `gateway`, `client`, `internal`, `cli` or `nobody`
    actor_kind: String,
    actor: String,
    action: String,
    /// Kind and id of the changed object, separated by a space
    target: String,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    outcome: AuditOutcome,
    #[oai(nullable)]
    before: Option<Any<Value>>,
    #[oai(nullable)]
    after: Option<Any<Value>>,
    request_id: String,
    address: String,
    /// SHA-256 over the previous entry's hash and this entry
    hash: String,
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok()).map(Any);
        Self {
            id: entry.id,
            at: entry.at.0,
            actor_kind: entry.actor_kind,
            actor: entry.actor,
            action: entry.action,
            target: entry.target,
            organization_id: entry.organization,
            outcome: entry.outcome.into(),
            before: json(entry.before),
            after: json(entry.after),
            request_id: entry.request_id,
            address: entry.address,
            hash: hex::encode(entry.hash),
        }
    }
}

/// The result of verifying the hash chain
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct AuditVerification {
    ok: bool,
    /// Number of valid entries
    entries: u64,
    /// Id of the first invalid entry
    broken_at: Option<i64>,
    /// Hash of the last entry. Store it outside Roster to be able to detect a truncated chain
    last_hash: String,
}

/// Entries as lines of JSON.
struct Lines(Body);

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        Response::builder().content_type("application/x-ndjson").body(self.0)
    }
}

impl ApiResponse for Lines {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "One entry per line, oldest first",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/x-ndjson",
                    schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
                }],
                headers: Vec::new(),
            }],
        }
    }
    fn register(_: &mut Registry) {}
}
crate::document! {
    "AuditVerification": r#"{"ok":true,"entries":42,"last_hash":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

/// Number of entries that an export reads at a time.
const EXPORT_STEP: u64 = 500;

#[OpenApi(prefix_path = "/admin/audit", tag = "Tag::Audit")]
impl Api {
    /// List audit entries
    ///
    /// Newest first. A caller of an organization sees only the entries of that organization. If the filters match few
    /// of many entries, a page can be short or empty although `next` is set.
    #[oai(path = "/", method = "get", operation_id = "list_audit")]
    #[allow(clippy::too_many_arguments, reason = "each filter must be an argument to appear in the OpenAPI document")]
    async fn list_audit(
        &self,
        caller: AdminCaller,
        /// Start of the period (inclusive), in Unix milliseconds
        since: Query<Option<i64>>,
        /// End of the period (exclusive), in Unix milliseconds
        until: Query<Option<i64>>,
        #[oai(validator(max_length = 200))] actor: Query<Option<String>>,
        #[oai(validator(max_length = 200))] action: Query<Option<String>>,
        /// Kind and id, or only the id
        #[oai(validator(max_length = 200))]
        target: Query<Option<String>>,
        /// Only entries of this organization
        organization: Query<Option<OrganizationId>>,
        outcome: Query<Option<AuditOutcome>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<AuditEntryView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::AUDIT_LIST)?;
        let filter = Filter {
            organization: narrowed(reach, organization.0)?,
            actor: actor.0,
            action: action.0,
            target: target.0,
            outcome: outcome.0.map(Outcome::from),
            since: since.0,
            until: until.0,
        };
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| store::list_entries(r, &filter, &window)).await?.into()))
    }

    /// Export the audit log
    ///
    /// Returns JSON lines, oldest first, up to the entry that is the last one when the export starts. The size is not
    /// limited. The filters are those of the list. The export is cut off if the caller loses the permission while it
    /// runs.
    #[oai(path = "/export", method = "get", operation_id = "export_audit")]
    #[allow(clippy::too_many_arguments, reason = "each filter must be an argument to appear in the OpenAPI document")]
    async fn export_audit(
        &self,
        caller: AdminCaller,
        /// Start of the period (inclusive), in Unix milliseconds
        since: Query<Option<i64>>,
        /// End of the period (exclusive), in Unix milliseconds
        until: Query<Option<i64>>,
        #[oai(validator(max_length = 200))] actor: Query<Option<String>>,
        #[oai(validator(max_length = 200))] action: Query<Option<String>>,
        /// Kind and id, or only the id
        #[oai(validator(max_length = 200))]
        target: Query<Option<String>>,
        /// Only entries of this organization
        organization: Query<Option<OrganizationId>>,
        outcome: Query<Option<AuditOutcome>>,
    ) -> Result<Lines, Failure> {
        let allowed = require_export(&self.app, &caller, organization.0)?;
        let filter = Filter {
            organization: allowed,
            actor: actor.0,
            action: action.0,
            target: target.0,
            outcome: outcome.0.map(Outcome::from),
            since: since.0,
            until: until.0,
        };
        let last = self.app.read(store::last_entry).await?;
        let (app, caller, requested) = (self.app.clone(), caller.0, organization.0);
        let steps = stream::try_unfold(Some(None), move |position: Option<Option<String>>| {
            let (app, filter, caller) = (app.clone(), filter.clone(), caller.clone());
            // The rows are read while the answer is sent, which is after the handler returns.
            caller.context.clone().scope(async move {
                let Some(after) = position else { return Ok::<_, std::io::Error>(None) };
                let failed = |e: Error| std::io::Error::other(e.to_string());
                // A slow client can make the export last long, and the caller can lose the permission meanwhile.
                if require_export(&app, &caller, requested).map_err(failed)? != filter.organization {
                    return Err(failed(ErrorCode::Forbidden.into()));
                }
                let window = PageRequest::internal(Some(EXPORT_STEP), None, after).map_err(failed)?;
                let found =
                    app.read(move |r| store::export_entries(r, &filter, last, &window)).await.map_err(failed)?;
                let lines: String =
                    found.items.into_iter().map(|entry| AuditEntryView::from(entry).to_json_string() + "\n").collect();
                Ok(Some((lines, found.next.map(Some))))
            })
        });
        Ok(Lines(Body::from_bytes_stream(steps)))
    }

    /// Verify the audit log
    ///
    /// Reads the whole audit log and verifies its hash chain. Takes some seconds for a million entries.
    #[oai(path = "/verify", method = "get", operation_id = "verify_audit")]
    async fn verify_audit(&self, caller: AdminCaller) -> Reply<AuditVerification> {
        authz::require(&self.app.snapshot(), &caller, Permission::AUDIT_VERIFY)?;
        let found = self.app.verify_audit().await?;
        Ok(ok(AuditVerification {
            ok: found.broken_at.is_none(),
            entries: found.entries,
            broken_at: found.broken_at,
            last_hash: found.last_hash,
        }))
    }
}

/// Checks that the caller may export now, and returns the organization to export; `None` means all.
fn require_export(
    app: &App,
    caller: &Identity,
    requested: Option<OrganizationId>,
) -> crate::kernel::error::Result<Option<OrganizationId>> {
    let snapshot = app.snapshot();
    let caller = caller.as_of(&snapshot, Timestamp::now())?;
    narrowed(authz::require(&snapshot, &caller, Permission::AUDIT_EXPORT)?, requested)
}

/// Returns the organization to read: the requested one if it is in reach, otherwise the one of the reach. `None` means
/// all. Fails with `OrganizationNotFound` for one out of reach.
fn narrowed(
    reach: authz::Reach,
    requested: Option<OrganizationId>,
) -> crate::kernel::error::Result<Option<OrganizationId>> {
    match requested {
        Some(id) if reach.includes(id) => Ok(Some(id)),
        Some(_) => Err(ErrorCode::OrganizationNotFound.into()),
        None => Ok(reach.organization()),
    }
}
