//! Dry runs: a version is asked, and nothing comes of it.

use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::access;
use crate::access::caller::Person;
use crate::access::permission::Permission;
use crate::access::plugin::Exports;
use crate::app::App;
use crate::error::Result;
use crate::ids::MemberId;
use crate::plugins::run::{self, Asked, refused};
use crate::plugins::{Answer, Version, Whole, store};
use crate::sandbox::{Called, LogLine, Tier, Turn};
use crate::wire::{Body, Reply, Tag, ok};

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
    /// `allow`, `deny`, `abstain`, `roles` or `failed`
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
}

impl DryRunAnswer {
    fn of<T>(version: &Version, answer: Answer, called: Called<T>) -> Self {
        let line = |line: LogLine| DryRunLogLine { level: line.level.word().to_owned(), message: line.message };
        Self {
            version: version.number,
            sha256: hex::encode(version.sha256),
            outcome: answer.outcome.to_owned(),
            reason: answer.reason,
            roles: answer.roles,
            fault: answer.fault.map(|fault| PluginFault { kind: fault.kind.word().to_owned(), message: fault.message }),
            fuel: called.fuel,
            duration_us: u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: called.memory_bytes,
            log: called.log.into_iter().map(line).collect(),
            log_dropped: called.log_dropped,
        }
    }
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Plugins")]
impl Api {
    /// Run a plugin without effect
    ///
    /// On a question that is given: what it answers, what it took, and what it logged. A plugin that fails is an answer
    /// too. Nothing is counted against it.
    #[oai(path = "/plugins/:name/dry-run", method = "post", operation_id = "dry_run_plugin")]
    async fn dry_run_plugin(
        &self,
        caller: Person,
        name: Path<String>,
        body: Body<DryRunPlugin>,
    ) -> Reply<DryRunAnswer> {
        let snapshot = self.app.snapshot();
        let tenant = access::require_in_tenant(&snapshot, &caller, Permission::PLUGIN_RUN)?;
        let DryRunPlugin { version, input } = body.0;
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let version = chosen(&whole, version)?;
        let org_code = snapshot.tenant(tenant).map(|tenant| tenant.org_code.clone()).unwrap_or_default();
        let subject = caller.member().unwrap_or(MemberId(uuid::Uuid::nil()));
        let input = input.ok_or_else(|| refused(&[], "is missing"))?.0;
        let asked = run::read(input, (tenant, &org_code, subject))?;
        require_export(&asked, version.exports)?;
        let tier = Tier::of(version.is_large);
        let loaded = self.app.load_plugin(version.sha256, tier).await?;
        let turn = Turn { organization: tenant, loaded, tier, deadline_ms: None };
        Ok(ok(match asked {
            Asked::Access(input) => {
                let called = self.app.host.authorize(turn, input).await;
                DryRunAnswer::of(version, Answer::of_authorizer(&called), called)
            }
            Asked::Role(input) => {
                let called = self.app.host.map_roles(turn, input).await;
                DryRunAnswer::of(version, Answer::of_mapper(&called), called)
            }
        }))
    }
}

fn chosen(whole: &Whole, number: Option<u32>) -> Result<&Version> {
    number.map_or_else(|| whole.usual(), |number| whole.find(number))
}

/// Has the version the interface that is asked?
fn require_export(asked: &Asked, exports: Exports) -> Result<()> {
    let (has, what) = match asked {
        Asked::Access(_) => (exports.authorizer, "is a question for an authorizer, which this version is not"),
        Asked::Role(_) => (exports.role_mapper, "is a question for a role mapper, which this version is not"),
    };
    if has { Ok(()) } else { Err(refused(&[], what)) }
}
