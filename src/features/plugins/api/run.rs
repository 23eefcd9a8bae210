//! Dry runs: a version is asked, and nothing comes of it.

use std::sync::Arc;
use std::time::Duration;

use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::members;
use crate::features::plugins::replay::{self, Candidate, Change, Recorded, Replay};
use crate::features::plugins::run::{self, refused};
use crate::features::plugins::{Answer, Version, Whole, store};
use crate::kernel::app::App;
use crate::kernel::app::log_entry::shown;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Exports};
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::Window;
use crate::kernel::decision_log::Wanted;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::sandbox::vectors::Ask;
use crate::kernel::sandbox::{CallContext, CallResult, LogLine, Tier};

/// What to ask, and of which version
#[derive(Object)]
struct DryRunPlugin {
    /// The one in force when absent, else the one that is watched, else the newest
    #[oai(validator(minimum(value = "1")))]
    version: Option<u32>,
    /// A question for an authorizer, `{action, path, subject, roles, context}`, or for a role mapper, `{source, subject,
    /// groups, claims, raw_json}`; also under `authorize` or `map_roles`, as in a test vector. The tenant, the subject and
    /// `now_ms` are filled in where they are missing
    input: Option<Any<Value>>,
    /// Instead of `input`: recorded decisions, to see which of them would end otherwise. Needs the right to read the
    /// decision log
    recorded: Option<DryRunRecorded>,
}

/// Which recorded decisions are asked again, the newest first
#[derive(Object)]
struct DryRunRecorded {
    /// From this moment on, in Unix milliseconds
    from: Option<i64>,
    /// Before this moment, in Unix milliseconds
    to: Option<i64>,
    /// 1000 when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "2000")))]
    limit: Option<u32>,
}

/// A decision that would end otherwise
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ReplayedDecision {
    /// In the decision log
    id: i64,
    at: i64,
    uid: String,
    action: String,
    path: String,
    was_allow: bool,
    was_reason: String,
    would_allow: bool,
    would_reason: String,
    /// What the version said to it: the sentence of a denial, or its failure
    said: Option<String>,
}

impl ReplayedDecision {
    fn of(change: Change) -> Self {
        let Change { recorded, allow, reason, said } = change;
        Self {
            id: recorded.id,
            at: recorded.at,
            uid: recorded.input.subject,
            action: recorded.input.action,
            path: recorded.input.path,
            was_allow: recorded.allow,
            was_reason: recorded.reason,
            would_allow: allow,
            would_reason: reason.as_str().to_owned(),
            said,
        }
    }
}

/// What came of recorded decisions
#[derive(Object)]
struct ReplayAnswer {
    /// How many were looked at
    decisions: u64,
    /// About how many of them the version was asked
    asked: u64,
    /// How many cannot be recomputed, because something of the question was left out of the log
    left_out: u64,
    /// How many were not reached in time
    unreached: u64,
    /// How often the version failed
    failed: u64,
    /// How many would end otherwise
    changed: u64,
    /// The first 200 of those
    changes: Vec<ReplayedDecision>,
}

/// Why a plugin did not answer
#[derive(Object)]
struct PluginFault {
    /// `trap`, `fuel`, `deadline`, `memory`, `stack`, `output`, `rule_error`, `input`, `busy` or `unavailable`
    kind: String,
    message: String,
}

/// A line that the plugin logged in this call
#[derive(Object)]
struct DryRunLogLine {
    level: String,
    message: String,
}

/// What came of a dry run
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct DryRunAnswer {
    version: u32,
    /// The digest of the component, in hexadecimal
    sha256: String,
    /// `allow`, `deny`, `abstain`, `roles` or `failed`; `replayed` for recorded decisions, whose `fuel` and `duration_us`
    /// are sums
    outcome: String,
    /// Of a denial
    reason: Option<String>,
    /// Of a role mapper, as it names them; what is not an open, unprotected role of the organization has no effect
    roles: Option<Vec<String>>,
    /// Of a failure
    fault: Option<PluginFault>,
    /// Instructions used
    fuel: u64,
    duration_us: u64,
    memory_bytes: u64,
    log: Vec<DryRunLogLine>,
    /// Lines beyond the limit, which are gone
    log_dropped: u32,
    replay: Option<ReplayAnswer>,
}

impl DryRunAnswer {
    fn of<T>(version: &Version, answer: Answer, called: CallResult<T>) -> Self {
        let line = |line: LogLine| DryRunLogLine { level: line.level.as_str().to_owned(), message: line.message };
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
            log: called.log.into_iter().map(line).collect(),
            log_dropped: called.log_dropped,
            replay: None,
        }
    }

    fn of_replay(version: &Version, replay: Replay) -> Self {
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
                changes: replay.changes.into_iter().map(ReplayedDecision::of).collect(),
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
    /// Run a plugin without effect
    ///
    /// On a question that is given: what it answers, what it took, and what it logged. A plugin that fails is an answer
    /// too. Nothing is counted against it. On recorded decisions: which of them would end otherwise, with the version in
    /// place of what its plugin said then, bound as it is now, or as the one in force is.
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
                return Err(refused(&[], "goes without `recorded`: one or the other").into());
            }
            authz::require(&snapshot, &caller, Permission::DECISION_LIST)?;
            let reach = authz::reach_seen(&snapshot, &caller, tenant);
            return self.replayed((tenant, reach), name.0, version, recorded).await;
        }
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let version = chosen(&whole, version)?;
        let org_code = snapshot.tenant(tenant).map(|tenant| tenant.org_code.clone()).unwrap_or_default();
        let subject = caller.member().unwrap_or(MemberId(uuid::Uuid::nil()));
        let input = input.ok_or_else(|| refused(&[], "is missing"))?.0;
        let asked = run::read(input, (tenant, &org_code, subject))?;
        require_export(&asked, version.exports)?;
        let tier = Tier::from_is_large(version.is_large);
        self.app.require_tier(tenant, version.is_large)?;
        let loaded = self.app.load_plugin((tenant, version.sha256), tier).await?;
        let turn = CallContext { organization: tenant, loaded, tier, deadline_ms: None, is_trial: true };
        Ok(ok(match asked {
            Ask::Authorize(input) => {
                let called = self.app.host.authorize(turn, input).await;
                DryRunAnswer::of(version, Answer::of_authorizer(&called), called)
            }
            Ask::MapRoles(input) => {
                let called = self.app.host.map_roles(turn, input).await;
                DryRunAnswer::of(version, Answer::of_mapper(&called), called)
            }
        }))
    }
}

/// How long recorded decisions are asked again in one request.
const REPLAY_WAIT: Duration = Duration::from_secs(10);

impl Api {
    async fn replayed(
        &self,
        (tenant, reach): (OrganizationId, Reach),
        name: String,
        version: Option<u32>,
        wanted: DryRunRecorded,
    ) -> Reply<DryRunAnswer> {
        let plugin = name.clone();
        let whole = self.app.read(move |r| store::get(r, tenant, &plugin)).await?;
        let version = chosen(&whole, version)?;
        if !version.exports.authorizer {
            let field = Field::body("recorded", "is for an authorizer, which this version is not");
            return Err(Error { fields: vec![field], ..Error::new(ErrorCode::PluginInput) }.into());
        }
        let is_it = |(_, activation): &(_, &Activation)| activation.version == version.number;
        let bound = whole.plugin.activations().find(is_it).or_else(|| whole.plugin.activations().next());
        let bound = bound.map(|(_, activation)| activation);
        let candidate = Candidate {
            name: Some(name),
            may_grant: bound.is_some_and(|activation| activation.may_grant),
            filter: bound.map(|activation| activation.filter.clone()).unwrap_or_default(),
        };
        let all = Wanted { from: wanted.from, to: wanted.to, ..Wanted::of(tenant) };
        let window = Window::first(wanted.limit.unwrap_or(replay::RECORDED_DEFAULT).into());
        let rows = self.app.decisions.read(all, window).await?.items;
        let tier = Tier::from_is_large(version.is_large);
        self.app.require_tier(tenant, version.is_large)?;
        let loaded = self.app.load_plugin((tenant, version.sha256), tier).await?;
        let turn = CallContext {
            organization: tenant,
            loaded,
            tier,
            deadline_ms: bound.and_then(|one| one.deadline_ms),
            is_trial: true,
        };
        let snapshot = self.app.snapshot();
        let recorded = rows.into_iter().filter_map(|(id, row)| {
            let is_visible = members::is_visible(&snapshot, reach, row.member);
            Recorded::of(id, shown(row, is_visible))
        });
        let replay = replay::replay(recorded, &candidate, REPLAY_WAIT, &self.app.host, &turn).await;
        Ok(ok(DryRunAnswer::of_replay(version, replay)))
    }
}

fn chosen(whole: &Whole, number: Option<u32>) -> Result<&Version> {
    number.map_or_else(|| whole.usual(), |number| whole.find(number))
}

/// Has the version the interface that is asked?
fn require_export(asked: &Ask, exports: Exports) -> Result<()> {
    let (has, what) = match asked {
        Ask::Authorize(_) => (exports.authorizer, "is a question for an authorizer, which this version is not"),
        Ask::MapRoles(_) => (exports.role_mapper, "is a question for a role mapper, which this version is not"),
    };
    if has { Ok(()) } else { Err(refused(&[], what)) }
}
