//! The operation that lists the decision log.

use std::collections::BTreeSet;
use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::members;
use crate::kernel::app::App;
use crate::kernel::app::log_entry::{PluginTrace, redacted_row};
use crate::kernel::authn::caller::GatewayCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::db::PageRequest;
use crate::kernel::decision_log::{DecisionFilter, Row};
use crate::kernel::error::{Error, Result};
use crate::kernel::http::{Reply, Tag, ok};
use crate::kernel::ids::MemberId;

/// A plugin call in a logged decision
#[derive(Object)]
struct LoggedPlugin {
    name: String,
    version: u32,
    /// SHA-256 of the component, in hexadecimal
    sha256: String,
    /// `enforce`, or `shadow`: called, but without effect on the decision
    mode: String,
    /// `allow`, `deny`, `abstain`, the kind of a fault, or `not_covered`
    outcome: String,
    /// Fuel used, in instructions
    fuel: u64,
    duration_us: u64,
    /// Whether the decision would have been different if this shadow plugin had been enforced
    differed: bool,
}

/// A logged decision
#[derive(Object)]
#[oai(rename = "LoggedDecision")]
struct DecisionView {
    /// Increasing: newer decisions have larger ids
    id: i64,
    /// Unix milliseconds
    at: i64,
    /// Epoch of the policy that made the decision
    epoch: u64,
    uid: MemberId,
    /// The present name of the member; absent if the caller cannot see the member
    #[oai(skip_serializing_if_is_none)]
    name: Option<String>,
    /// `route`, `permission` or `grant`
    kind: String,
    /// The access request as plugins get it: tenant, subject, roles, action, path without query, context
    input: Any<Value>,
    /// Names of context facts that are not in `input`, because they can be secrets or are too long
    left_out: Vec<String>,
    /// Whether plugins are called for this kind of access request, if the organization has any
    asks_plugins: bool,
    /// The result of roles and grants, before plugins
    base: String,
    allow: bool,
    reason: String,
    plugins: Vec<LoggedPlugin>,
    /// Whether a shadow plugin would have changed the decision
    differed: bool,
}

/// One page of the decision log
#[derive(Object)]
struct DecisionPage {
    items: Vec<DecisionView>,
    /// The total number of matching decisions; a lower bound above 100,000, or above 1,000 with filters
    total: u64,
    limit: u64,
    offset: u64,
    /// The value of `after` for the next page; absent on the last page
    #[oai(skip_serializing_if_is_none)]
    next: Option<String>,
    /// The number of decisions of the organization that the log dropped since the server started
    dropped: u64,
}
crate::document! {
    "LoggedDecision": r#"{"id":7,"at":1763740800000,"epoch":42,"uid":"019abcde-0000-7000-8000-000000000002","name":"Kim Lee","kind":"route","input":{"tenant":"019abcde-0000-7000-8000-000000000003","subject":"019abcde-0000-7000-8000-000000000002","roles":["editor"],"action":"DELETE","path":"/videos/7","context":[{"name":"question","values":["route"]},{"name":"base","values":["allow"]}]},"left_out":[],"asks_plugins":true,"base":"ok_role","allow":false,"reason":"plugin_denied","plugins":[{"name":"ownership","version":2,"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","mode":"enforce","outcome":"deny","fuel":4120,"duration_us":31,"differed":false}],"differed":false}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Decisions")]
impl Api {
    /// List the decision log
    ///
    /// Returns the logged decisions of one organization, newest first. The log contains all denials, all decisions that
    /// a shadow plugin would have changed, and a sample of the other allowed decisions. Facts that can be secrets are
    /// left out and named in `left_out`; so are the facts about a member who no longer belongs to the organization.
    /// With filters that match few of many rows, a page can be short or empty although there is a `next`.
    #[oai(path = "/decisions", method = "get", operation_id = "list_decisions")]
    #[allow(clippy::too_many_arguments, reason = "each argument is a query parameter of the OpenAPI document")]
    async fn list_decisions(
        &self,
        caller: GatewayCaller,
        /// Only decisions at or after this time, in Unix milliseconds
        from: Query<Option<i64>>,
        /// Only decisions before this time, in Unix milliseconds
        to: Query<Option<i64>>,
        /// Only decisions about this member
        uid: Query<Option<MemberId>>,
        allow: Query<Option<bool>>,
        #[oai(validator(max_length = 64))] reason: Query<Option<String>>,
        /// Only decisions for which the plugin with this name was called
        #[oai(validator(max_length = 64))]
        plugin: Query<Option<String>>,
        /// Only decisions that a shadow plugin would have changed, or would not have changed
        differed: Query<Option<bool>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<DecisionPage> {
        let snapshot = self.app.snapshot();
        let organization = authz::require_in_tenant(&snapshot, &caller, Permission::DECISION_LIST)?;
        let reach = authz::read_reach(&snapshot, &caller, organization);
        let filter = DecisionFilter {
            organization,
            from: from.0,
            to: to.0,
            member: uid.0,
            allow: allow.0,
            reason: reason.0,
            plugin: plugin.0,
            differed: differed.0,
        };
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let found = self.app.decisions.read(filter, window).await?;
        let ids: BTreeSet<MemberId> = found.items.iter().map(|(_, row)| row.member).collect();
        let names = self.app.read(move |r| members::list_names(r, reach.organization(), &ids)).await?;
        Ok(ok(DecisionPage {
            total: found.total,
            limit: found.limit,
            offset: found.offset,
            next: found.next,
            items: found
                .items
                .into_iter()
                .map(|(id, row)| {
                    let is_visible = members::is_visible(&snapshot, reach, row.member);
                    let name = names.get(&row.member).cloned();
                    view(id, name, redacted_row(row, is_visible))
                })
                .collect::<Result<_>>()?,
            dropped: self.app.decisions.dropped_of(organization),
        }))
    }
}

fn view(id: i64, name: Option<String>, row: Row) -> Result<DecisionView> {
    let plugins: Vec<PluginTrace> = serde_json::from_str(&row.plugins)
        .map_err(|e| Error::internal(format!("the plugins of decision {id} cannot be read: {e}")))?;
    Ok(DecisionView {
        id,
        at: row.at.0,
        epoch: row.epoch,
        uid: row.member,
        name,
        kind: row.kind.as_str().to_owned(),
        // An input that cannot be parsed becomes an empty value.
        input: Any(serde_json::from_str(&row.input).unwrap_or_default()),
        left_out: serde_json::from_str(&row.left_out).unwrap_or_default(),
        asks_plugins: row.asks_plugins,
        base: row.base.as_str().to_owned(),
        allow: row.allow,
        reason: row.reason.as_str().to_owned(),
        plugins: plugins.into_iter().map(LoggedPlugin::from).collect(),
        differed: row.differed,
    })
}

impl From<PluginTrace> for LoggedPlugin {
    fn from(trace: PluginTrace) -> Self {
        let PluginTrace { name, version, sha256, mode, outcome, fuel, duration_us, differed } = trace;
        let (mode, outcome) = (mode.as_str().to_owned(), outcome.as_str().to_owned());
        Self { name, version, sha256, mode, outcome, fuel, duration_us, differed }
    }
}
