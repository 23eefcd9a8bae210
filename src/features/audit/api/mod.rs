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

use crate::features::audit::{AuditEntry, Filter, Names, store};
use crate::kernel::app::App;
use crate::kernel::app::tasks::{Progress, TaskKind};
use crate::kernel::audit_log::Outcome;
use crate::kernel::authn::caller::AdminCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::db::{PageRequest, Reader};
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Failure, Page, Reply, Tag, TaskReply, ok};
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
    /// The present name of the member who acted. Only in lists, and only if the caller can see the member
    #[oai(skip_serializing_if_is_none)]
    actor_name: Option<String>,
    action: String,
    /// Kind and id of the changed object, separated by a space
    target: String,
    /// The present name of the changed member, the key of the role, or the code of the organization. Only in lists, and
    /// only if the caller can see it
    #[oai(skip_serializing_if_is_none)]
    target_name: Option<String>,
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
            actor_name: None,
            action: entry.action,
            target: entry.target,
            target_name: None,
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

impl AuditEntryView {
    fn named(entry: AuditEntry, names: &Names) -> Self {
        let (actor_name, target_name) = (names.actor(&entry), names.target(&entry));
        Self { actor_name, target_name, ..Self::from(entry) }
    }
}

/// The end of the hash chain, and when it was last verified
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct AuditHead {
    /// Id of the last entry; 0 if there is none
    last_entry: i64,
    /// Hash of the last entry; empty if there is none
    last_hash: String,
    /// The last verification since the server started; absent if there was none
    verification: Option<LastVerification>,
}

/// A verification of the hash chain that has ended
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct LastVerification {
    /// When it ended, in Unix milliseconds
    at: i64,
    ok: bool,
    /// Number of valid entries
    entries: u64,
    /// Id of the first invalid entry
    broken_at: Option<i64>,
    /// Hash of the last valid entry
    last_hash: String,
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
    "AuditHead": r#"{"last_entry":43,"last_hash":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","verification":{"at":1763740800000,"ok":true,"entries":42,"last_hash":"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"}}"#;
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
        /// One action, or several separated by commas
        #[oai(validator(max_length = 8000))]
        action: Query<Option<String>>,
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
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::AUDIT_LIST)?;
        let filter = Filter {
            organization: narrowed(reach, organization.0)?,
            actor: actor.0,
            actions: actions_of(action.0.as_deref()),
            target: target.0,
            outcome: outcome.0.map(Outcome::from),
            since: since.0,
            until: until.0,
        };
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        // Administrators of the site see all names, also in an organization. A program that names one sees its members.
        let seen = match (reach.organization(), &caller.principal) {
            (Some(tenant), Principal::Member(_)) => authz::read_reach(&snapshot, &caller, tenant),
            _ => reach,
        };
        let list = move |r: &Reader<'_>| {
            let found = store::list_entries(r, &filter, &window)?;
            let names = Names::of(r, snapshot, seen, &found.items)?;
            Ok(found.map(|entry| AuditEntryView::named(entry, &names)))
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Get the head of the audit log
    ///
    /// Returns the last entry of the hash chain, and the result of the last verification since the server started.
    /// Reads no other entries.
    #[oai(path = "/head", method = "get", operation_id = "get_audit_head")]
    async fn get_audit_head(&self, caller: AdminCaller) -> Reply<AuditHead> {
        authz::require(&self.app.snapshot(), &caller, Permission::AUDIT_HEAD)?;
        let head = self.app.read(store::head).await?;
        let verification = self.app.last_audit_verification().map(|verified| {
            let (at, found) = &*verified;
            LastVerification {
                at: at.0,
                ok: found.broken_at.is_none(),
                entries: found.entries,
                broken_at: found.broken_at,
                last_hash: found.last_hash.clone(),
            }
        });
        Ok(ok(AuditHead { last_entry: head.last_entry, last_hash: head.last_hash, verification }))
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
        /// One action, or several separated by commas
        #[oai(validator(max_length = 8000))]
        action: Query<Option<String>>,
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
            actions: actions_of(action.0.as_deref()),
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
    /// Reads the whole audit log and verifies its hash chain. Takes some seconds for a million entries. It ends with a
    /// failure if the caller loses the permission while it runs.
    #[oai(path = "/verify", method = "get", operation_id = "verify_audit")]
    async fn verify_audit(
        &self,
        caller: AdminCaller,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
    ) -> TaskReply<AuditVerification> {
        authz::require(&self.app.snapshot(), &caller, Permission::AUDIT_VERIFY)?;
        let (app, by) = (self.app.clone(), caller.0.clone());
        let work = move |progress: Progress| async move {
            progress.step(VERIFY.steps[0]);
            let checked = app.clone();
            let found = app.verify_audit(&progress, move || require_verify(&checked, &by)).await?;
            Ok(AuditVerification {
                ok: found.broken_at.is_none(),
                entries: found.entries,
                broken_at: found.broken_at,
                last_hash: found.last_hash,
            })
        };
        Ok(self.app.perform(&caller, VERIFY, background.0 == Some(true), work).await?)
    }
}

const VERIFY: TaskKind = TaskKind { operation: "verify_audit", steps: &["entries"] };

/// Checks that the caller may verify the chain now.
fn require_verify(app: &App, caller: &Identity) -> crate::kernel::error::Result<()> {
    let snapshot = app.snapshot();
    let caller = caller.as_of(&snapshot, Timestamp::now())?;
    authz::require(&snapshot, &caller, Permission::AUDIT_VERIFY)?;
    Ok(())
}

/// The actions of a filter; none means all.
fn actions_of(text: Option<&str>) -> Vec<String> {
    let all = text.filter(|text| !text.is_empty()).map(|text| text.split(',').map(|one| one.trim().to_owned()));
    all.into_iter().flatten().collect()
}

/// Checks that the caller may export now, and returns the organization to export; `None` means all.
fn require_export(
    app: &App,
    caller: &Identity,
    requested: Option<OrganizationId>,
) -> crate::kernel::error::Result<Option<OrganizationId>> {
    narrowed(app.require_now(caller, Permission::AUDIT_EXPORT)?, requested)
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
