//! The decision log, as a list.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::members;
use crate::kernel::app::App;
use crate::kernel::app::log_entry::{PluginTrace, shown};
use crate::kernel::authn::caller::GatewayCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::db::Window;
use crate::kernel::decision_log::{Row, Wanted};
use crate::kernel::http::{Reply, Tag, ok};
use crate::kernel::ids::MemberId;

/// A plugin that was asked
#[derive(Object)]
struct LoggedPlugin {
    name: String,
    version: u32,
    /// Of the component
    sha256: String,
    /// `enforce`, or `shadow`: asked, and without effect
    mode: String,
    /// `allow`, `deny`, `abstain`, the word of a fault, or `not_covered`
    outcome: String,
    /// Instructions used
    fuel: u64,
    duration_us: u64,
    /// Would the answer have been another one, had it been in force? Of watched ones
    differed: bool,
}

/// A decision that was logged
#[derive(Object)]
#[oai(rename = "LoggedDecision")]
struct DecisionView {
    /// Grows: what is newer has the larger one
    id: i64,
    /// Unix milliseconds
    at: i64,
    /// Of the policy that decided
    epoch: u64,
    uid: MemberId,
    /// `route`, `permission` or `grant`
    kind: String,
    /// The question as a plugin gets it: tenant, subject, roles, action, path, context. No queries of paths
    input: Any<Value>,
    /// Facts that are not in `input`, because they may be secrets or are too long
    left_out: Vec<String>,
    /// Whether plugins are asked about such a question, where some are bound
    asks_plugins: bool,
    /// What roles and grants said
    base: String,
    allow: bool,
    reason: String,
    plugins: Vec<LoggedPlugin>,
    /// Whether a watched plugin would have changed the answer
    differed: bool,
}

/// One page of the decision log
#[derive(Object)]
struct DecisionPage {
    items: Vec<DecisionView>,
    /// How many there are in all; of more than 100,000, or of more than 1,000 that a filter leaves, it may be less
    total: u64,
    limit: u64,
    offset: u64,
    /// What `after` takes for the page behind this one; absent on the last
    #[oai(skip_serializing_if_is_none)]
    next: Option<String>,
    /// Decisions of the organization that the log could not take since the server started
    dropped: u64,
}
crate::document! {
    "LoggedDecision": r#"{"id":7,"at":1763740800000,"epoch":42,"uid":"019abcde-0000-7000-8000-000000000002","kind":"route","input":{"tenant":"019abcde-0000-7000-8000-000000000003","subject":"019abcde-0000-7000-8000-000000000002","roles":["editor"],"action":"DELETE","path":"/videos/7","context":[{"name":"question","values":["route"]},{"name":"base","values":["allow"]}]},"left_out":[],"asks_plugins":true,"base":"ok_role","allow":false,"reason":"plugin_denied","plugins":[{"name":"ownership","version":2,"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","mode":"enforce","outcome":"deny","fuel":4120,"duration_us":31,"differed":false}],"differed":false}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Decisions")]
impl Api {
    /// Read the decision log
    ///
    /// Newest first, of one organization. All denials are logged, all decisions in which a watched plugin would have
    /// changed the answer, and of the other allowed ones a sample. Facts that may be secrets are left out, and named; so is
    /// all that was said of somebody who does not belong to the organization any more. Where filters fit few of many rows a
    /// page may be short, or empty, while there is `next`.
    #[oai(path = "/decisions", method = "get", operation_id = "list_decisions")]
    #[allow(clippy::too_many_arguments, reason = "one argument a filter is how the document learns of them")]
    async fn list_decisions(
        &self,
        caller: GatewayCaller,
        /// From this moment on, in Unix milliseconds
        from: Query<Option<i64>>,
        /// Before this moment, in Unix milliseconds
        to: Query<Option<i64>>,
        /// Only about this member
        uid: Query<Option<MemberId>>,
        allow: Query<Option<bool>>,
        #[oai(validator(max_length = 64))] reason: Query<Option<String>>,
        /// Only where the plugin of this name was asked
        #[oai(validator(max_length = 64))]
        plugin: Query<Option<String>>,
        /// Only where a watched plugin would have changed the answer, or would not have
        differed: Query<Option<bool>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<DecisionPage> {
        let snapshot = self.app.snapshot();
        let organization = authz::require_in_tenant(&snapshot, &caller, Permission::DECISION_LIST)?;
        let reach = authz::reach_seen(&snapshot, &caller, organization);
        let wanted = Wanted {
            organization,
            from: from.0,
            to: to.0,
            member: uid.0,
            allow: allow.0,
            reason: reason.0,
            plugin: plugin.0,
            differed: differed.0,
        };
        let window = Window::new(limit.0, offset.0, after.0)?;
        let found = self.app.decisions.read(wanted, window).await?;
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
                    view((id, shown(row, is_visible)))
                })
                .collect(),
            dropped: self.app.decisions.dropped_of(organization),
        }))
    }
}

fn view((id, row): (i64, Row)) -> DecisionView {
    // What the log cannot read of itself any more shows as nothing.
    let heard: Vec<PluginTrace> = serde_json::from_str(&row.plugins).unwrap_or_default();
    DecisionView {
        id,
        at: row.at.0,
        epoch: row.epoch,
        uid: row.member,
        kind: row.kind,
        input: Any(serde_json::from_str(&row.input).unwrap_or_default()),
        left_out: serde_json::from_str(&row.left_out).unwrap_or_default(),
        asks_plugins: row.asks_plugins,
        base: row.base,
        allow: row.allow,
        reason: row.reason,
        plugins: heard.into_iter().map(LoggedPlugin::from).collect(),
        differed: row.differed,
    }
}

impl From<PluginTrace> for LoggedPlugin {
    fn from(heard: PluginTrace) -> Self {
        let PluginTrace { name, version, sha256, mode, outcome, fuel, duration_us, differed } = heard;
        Self { name, version, sha256, mode, outcome, fuel, duration_us, differed }
    }
}
