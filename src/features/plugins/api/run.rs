//! Dry runs: calls of a version without effect.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::members;
use crate::features::plugins::replay::{self, Candidate, ChangedDecision, Recorded, Replay};
use crate::features::plugins::run::{self, invalid_input};
use crate::features::plugins::{CallSummary, PluginWithVersions, Version, store};
use crate::kernel::app::App;
use crate::kernel::app::log_entry::redacted_row;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Exports};
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::PageRequest;
use crate::kernel::decision_log::DecisionFilter;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::sandbox::vectors::VectorInput;
use crate::kernel::sandbox::{CallContext, CallResult, LogLine, Tier};

/// The input of a dry run, and the version to call
#[derive(Object)]
struct DryRunPlugin {
    /// Defaults to the enforced version, then to the shadow version, then to the newest
    #[oai(validator(minimum(value = "1")))]
    version: Option<u32>,
    /// The input of an authorizer, `{action, path, subject, roles, context}`, or of a role mapper, `{source, subject,
    /// groups, claims, raw_json}`; it can be wrapped in `authorize` or `map_roles`, as in a test vector. Missing
    /// tenant, subject, `org_code` and `now_ms` are filled in
    input: Option<Any<Value>>,
    /// Instead of `input`: recorded decisions to evaluate again, to find those that would change. Requires the
    /// permission to read the decision log
    recorded: Option<DryRunRecorded>,
}

/// The recorded decisions to evaluate again, newest first
#[derive(Object)]
struct DryRunRecorded {
    /// Start of the period (inclusive), in Unix milliseconds
    from: Option<i64>,
    /// End of the period (exclusive), in Unix milliseconds
    to: Option<i64>,
    /// Defaults to 1000
    #[oai(validator(minimum(value = "1"), maximum(value = "2000")))]
    limit: Option<u32>,
}

/// A recorded decision that would change
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ReplayedDecision {
    /// Id in the decision log
    id: i64,
    at: i64,
    uid: String,
    /// The present name of the member; absent if the caller cannot see the member
    name: Option<String>,
    /// `route`, `permission` or `grant`
    kind: String,
    action: String,
    path: String,
    was_allow: bool,
    was_reason: String,
    would_allow: bool,
    would_reason: String,
    /// The version's reason for a denial, or its failure
    said: Option<String>,
}

/// The member of a recorded decision.
fn subject(recorded: &Recorded) -> Option<MemberId> {
    uuid::Uuid::parse_str(&recorded.input.subject).ok().map(MemberId)
}

impl ReplayedDecision {
    fn of(change: ChangedDecision, names: &HashMap<MemberId, String>) -> Self {
        let ChangedDecision { recorded, allow, reason, said } = change;
        Self {
            id: recorded.id,
            at: recorded.at,
            name: subject(&recorded).and_then(|member| names.get(&member).cloned()),
            kind: recorded.kind().to_owned(),
            uid: recorded.input.subject,
            action: recorded.input.action,
            path: recorded.input.path,
            was_allow: recorded.allow,
            was_reason: recorded.reason.as_str().to_owned(),
            would_allow: allow,
            would_reason: reason.as_str().to_owned(),
            said,
        }
    }
}

/// The result of evaluating recorded decisions again
#[derive(Object)]
struct ReplayAnswer {
    /// Number of decisions examined
    decisions: u64,
    /// Number of decisions for which the version was called
    asked: u64,
    /// Number of decisions that cannot be recomputed, because the log omits a part of their input
    left_out: u64,
    /// Number of decisions not evaluated within the time limit
    unreached: u64,
    /// Number of calls in which the version failed
    failed: u64,
    /// Number of decisions that would change
    changed: u64,
    /// The first 200 decisions that would change
    changes: Vec<ReplayedDecision>,
}

/// The failure of a plugin call
#[derive(Object)]
struct PluginFault {
    /// `trap`, `fuel`, `deadline`, `memory`, `stack`, `output`, `rule_error`, `input`, `busy` or `unavailable`
    kind: String,
    message: String,
}

/// A line that the plugin logged during this call
#[derive(Object)]
struct DryRunLogLine {
    level: String,
    message: String,
}

/// The result of a dry run
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct DryRunAnswer {
    version: u32,
    /// The digest of the component, in hexadecimal
    sha256: String,
    /// `allow`, `deny`, `abstain`, `roles` or `failed`; `replayed` for recorded decisions, whose `fuel` and
    /// `duration_us` are sums
    outcome: String,
    /// The reason of a denial
    reason: Option<String>,
    /// The roles that a role mapper returned, as it names them; a name that is not an open, unprotected role of the
    /// organization has no effect
    roles: Option<Vec<String>>,
    /// Present when the call failed
    fault: Option<PluginFault>,
    /// Fuel (instructions) used
    fuel: u64,
    duration_us: u64,
    memory_bytes: u64,
    log: Vec<DryRunLogLine>,
    /// Number of lines dropped beyond the limit
    log_dropped: u32,
    replay: Option<ReplayAnswer>,
}

impl DryRunAnswer {
    fn of<T>(version: &Version, answer: CallSummary, called: CallResult<T>) -> Self {
        let log_line = |line: LogLine| DryRunLogLine { level: line.level.as_str().to_owned(), message: line.message };
        Self {
            version: version.number,
            sha256: hex::encode(version.sha256),
            outcome: answer.outcome.to_owned(),
            reason: answer.reason,
            roles: answer.roles,
            fault: answer
                .fault
                .map(|fault| PluginFault { kind: fault.kind.as_str().to_owned(), message: fault.message }),
            fuel: called.fuel,
            duration_us: u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: called.memory_bytes,
            log: called.log.into_iter().map(log_line).collect(),
            log_dropped: called.log_dropped,
            replay: None,
        }
    }

    fn of_replay(version: &Version, replay: Replay, names: &HashMap<MemberId, String>) -> Self {
        Self {
            version: version.number,
            sha256: hex::encode(version.sha256),
            outcome: "replayed".to_owned(),
            reason: None,
            roles: None,
            fault: None,
            fuel: replay.fuel,
            duration_us: u64::try_from(replay.duration.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: replay.memory_bytes,
            log: Vec::new(),
            log_dropped: 0,
            replay: Some(ReplayAnswer {
                decisions: replay.decisions,
                asked: replay.asked,
                left_out: replay.left_out,
                unreached: replay.unreached,
                failed: replay.failed,
                changed: replay.changed,
                changes: replay.changes.into_iter().map(|change| ReplayedDecision::of(change, names)).collect(),
            }),
        }
    }
}

crate::document! {
    dry_run_plugin: [PluginStart, PluginInput, PluginNotFound, PluginVersionNotFound, CompilerBusy];

    "DryRunPlugin": r#"{"version":2,"input":{"subject":"019abcde-0000-7000-8000-000000000002","roles":["editor"],"action":"PUT","path":"/videos/7","context":{"owner":"019abcde-0000-7000-8000-000000000002"}}}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Plugins")]
impl Api {
    /// Dry-run a plugin
    ///
    /// With `input`, calls the version and returns its result, the resources used and its log. A failure of the plugin
    /// is a result too, and does not count towards quarantine. With `recorded`, evaluates recorded decisions again and
    /// returns those that would change. The version then replaces the recorded result of its plugin, under its own
    /// activation or, if it has none, under that of the active version.
    #[oai(path = "/plugins/:name/dry-run", method = "post", operation_id = "dry_run_plugin")]
    async fn dry_run_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        body: Body<DryRunPlugin>,
    ) -> Reply<DryRunAnswer> {
        let snapshot = self.app.snapshot();
        let tenant = authz::require_in_tenant(&snapshot, &caller, Permission::PLUGIN_RUN)?;
        let DryRunPlugin { version, input, recorded } = body.0;
        if let Some(recorded) = recorded {
            if input.is_some() {
                return Err(invalid_input(&[], "cannot be combined with `recorded`").into());
            }
            authz::require(&snapshot, &caller, Permission::DECISION_LIST)?;
            let reach = authz::read_reach(&snapshot, &caller, tenant);
            return self.replay_recorded((tenant, reach), name.0, version, recorded).await;
        }
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let version = choose_version(&whole, version)?;
        let org_code = snapshot.tenant(tenant).map(|tenant| tenant.org_code.clone()).unwrap_or_default();
        let subject = caller.member().unwrap_or(MemberId(uuid::Uuid::nil()));
        let input = input.ok_or_else(|| invalid_input(&[], "is missing"))?.0;
        let request = run::read(input, (tenant, &org_code, subject))?;
        require_export(&request, version.exports)?;
        let tier = Tier::from_is_large(version.is_large);
        self.app.require_tier(tenant, version.is_large)?;
        let loaded = self.app.load_plugin((tenant, version.sha256), tier).await?;
        let call = CallContext { organization: tenant, loaded, tier, deadline_ms: None, is_trial: true };
        Ok(ok(match request {
            VectorInput::Authorize(input) => {
                let called = self.app.host.authorize(call, input).await;
                DryRunAnswer::of(version, CallSummary::of_authorizer(&called), called)
            }
            VectorInput::MapRoles(input) => {
                let called = self.app.host.map_roles(call, input).await;
                DryRunAnswer::of(version, CallSummary::of_mapper(&called), called)
            }
        }))
    }
}

/// Time limit for evaluating recorded decisions in one request.
const REPLAY_WAIT: Duration = Duration::from_secs(10);

impl Api {
    async fn replay_recorded(
        &self,
        (tenant, reach): (OrganizationId, Reach),
        name: String,
        version: Option<u32>,
        selection: DryRunRecorded,
    ) -> Reply<DryRunAnswer> {
        let plugin = name.clone();
        let whole = self.app.read(move |r| store::get(r, tenant, &plugin)).await?;
        let version = choose_version(&whole, version)?;
        if !version.exports.authorizer {
            let field = Field::body("recorded", "requires an authorizer, but this version is none");
            return Err(Error { fields: vec![field], ..Error::new(ErrorCode::PluginInput) }.into());
        }
        let is_of_version = |(_, activation): &(_, &Activation)| activation.version == version.number;
        let bound = whole.plugin.activations().find(is_of_version).or_else(|| whole.plugin.activations().next());
        let bound = bound.map(|(_, activation)| activation);
        let candidate = Candidate {
            name: Some(name),
            may_grant: bound.is_some_and(|activation| activation.may_grant),
            filter: bound.map(|activation| activation.filter.clone()).unwrap_or_default(),
        };
        let all = DecisionFilter { from: selection.from, to: selection.to, ..DecisionFilter::of(tenant) };
        let window = PageRequest::first(selection.limit.unwrap_or(replay::RECORDED_DEFAULT).into());
        let rows = self.app.decisions.read(all, window).await?.items;
        let tier = Tier::from_is_large(version.is_large);
        self.app.require_tier(tenant, version.is_large)?;
        let loaded = self.app.load_plugin((tenant, version.sha256), tier).await?;
        let call = CallContext {
            organization: tenant,
            loaded,
            tier,
            deadline_ms: bound.and_then(|activation| activation.deadline_ms),
            is_trial: true,
        };
        let snapshot = self.app.snapshot();
        let recorded = rows.into_iter().filter_map(|(id, row)| {
            let is_visible = members::is_visible(&snapshot, reach, row.member);
            Recorded::of(id, redacted_row(row, is_visible))
        });
        let replay = replay::replay(recorded, &candidate, REPLAY_WAIT, &self.app.host, &call).await;
        let ids: BTreeSet<MemberId> = replay.changes.iter().filter_map(|change| subject(&change.recorded)).collect();
        let names = self.app.read(move |r| members::list_names(r, reach.organization(), &ids)).await?;
        Ok(ok(DryRunAnswer::of_replay(version, replay, &names)))
    }
}

fn choose_version(whole: &PluginWithVersions, number: Option<u32>) -> Result<&Version> {
    number.map_or_else(|| whole.default_version(), |number| whole.find(number))
}

/// Fails unless the version exports the interface of the request.
fn require_export(request: &VectorInput, exports: Exports) -> Result<()> {
    let (is_exported, message) = match request {
        VectorInput::Authorize(_) => (exports.authorizer, "is input for an authorizer, but this version is none"),
        VectorInput::MapRoles(_) => (exports.role_mapper, "is input for a role mapper, but this version is none"),
    };
    if is_exported { Ok(()) } else { Err(invalid_input(&[], message)) }
}
