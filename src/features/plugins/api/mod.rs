//! Operations that read plugins, and the wire types of all plugin operations.

pub mod life;
pub mod run;
pub mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;

use super::{FailedVector, Plugin, PluginWithVersions, Report, TrialResult, Version, VersionState, store};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Binding, Filter, LogLevel, Mode};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::PageRequest;
use crate::kernel::http::{Page, Reply, Tag, ok};

crate::text! {
    /// The name of a permission, or `video.*` for all permissions below a name
    FilterPermission 1..=192 "^[A-Za-z0-9._:-]+(\\.\\*)?$";
    /// A path template with optional methods: `/videos/:id`, `POST /videos`, `/files/*rest`
    FilterRoute 1..=1050 "";
    /// A module of direct grants
    FilterModule 1..=64 "^[a-z0-9][a-z0-9._-]*$";
}

/// Whether a version decides or only runs as a shadow
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PluginMode {
    /// Called, counted and logged, without effect
    Shadow,
    Enforce,
}

impl From<PluginMode> for Mode {
    fn from(mode: PluginMode) -> Self {
        match mode {
            PluginMode::Shadow => Self::Shadow,
            PluginMode::Enforce => Self::Enforce,
        }
    }
}

impl From<Mode> for PluginMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Shadow => Self::Shadow,
            Mode::Enforce => Self::Enforce,
        }
    }
}

/// The state of a version
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PluginState {
    /// It compiled, but failed its own test vectors
    Compiled,
    Tested,
    Shadow,
    Active,
    /// It was enforced before and is kept for rollback
    Retired,
    /// It failed too often; while it is enforced, everything that it covers is denied
    Quarantined,
}

impl From<VersionState> for PluginState {
    fn from(state: VersionState) -> Self {
        match state {
            VersionState::Compiled => Self::Compiled,
            VersionState::Tested => Self::Tested,
            VersionState::Shadow => Self::Shadow,
            VersionState::Active => Self::Active,
            VersionState::Retired => Self::Retired,
            VersionState::Quarantined => Self::Quarantined,
        }
    }
}

/// The access requests that an authorizer covers: those that any of the lists names, or all of them if every list is
/// empty
#[derive(Object, Default)]
pub struct PluginFilter {
    #[oai(validator(max_items = 100))]
    permissions: Option<Vec<FilterPermission>>,
    #[oai(validator(max_items = 100))]
    routes: Option<Vec<FilterRoute>>,
    #[oai(validator(max_items = 100))]
    modules: Option<Vec<FilterModule>>,
}

impl From<PluginFilter> for Filter {
    fn from(form: PluginFilter) -> Self {
        Self {
            permissions: form.permissions.unwrap_or_default().into_iter().map(|text| text.0).collect(),
            routes: form.routes.unwrap_or_default().into_iter().map(|text| text.0).collect::<Vec<_>>().into(),
            modules: form.modules.unwrap_or_default().into_iter().map(|text| text.0).collect(),
        }
    }
}

impl From<Filter> for PluginFilter {
    fn from(filter: Filter) -> Self {
        Self {
            permissions: Some(filter.permissions.into_iter().map(FilterPermission).collect()),
            routes: Some(Vec::from(filter.routes).into_iter().map(FilterRoute).collect()),
            modules: Some(filter.modules.into_iter().map(FilterModule).collect()),
        }
    }
}

/// The result of a trial call with neutral input
#[derive(Object)]
#[oai(rename = "PluginTried")]
struct TriedView {
    export: String,
    /// `allow`, `deny`, `abstain`, `roles` or `failed`
    outcome: String,
    #[oai(nullable)]
    failure: Option<String>,
}

/// A test vector that did not pass
#[derive(Object)]
#[oai(rename = "PluginFailedVector")]
struct FailedVectorView {
    name: String,
    expected: Any<Value>,
    got: Any<Value>,
    #[oai(nullable)]
    failure: Option<String>,
}

/// The results of the tests at upload
#[derive(Object, Default)]
#[oai(rename = "PluginReport")]
struct ReportView {
    dry_run: Vec<TriedView>,
    vectors_passed: u32,
    vectors_failed: Vec<FailedVectorView>,
    compile_ms: u64,
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        let tried = |TrialResult { export, outcome, failure }| TriedView { export, outcome, failure };
        let failed = |FailedVector { name, expected, got, failure }| FailedVectorView {
            name,
            expected: Any(expected),
            got: Any(got),
            failure,
        };
        Self {
            dry_run: report.dry_run.into_iter().map(tried).collect(),
            vectors_passed: report.vectors_passed,
            vectors_failed: report.vectors_failed.into_iter().map(failed).collect(),
            compile_ms: report.compile_ms,
        }
    }
}

/// A version of a plugin, which never changes
#[derive(Object)]
#[oai(rename = "PluginVersion")]
struct VersionView {
    version: u32,
    /// The digest of the component, in hexadecimal
    sha256: String,
    state: PluginState,
    /// `authorizer`, `role-mapper`
    exports: Vec<String>,
    imports: Vec<String>,
    size_bytes: u64,
    /// Whether it runs under the limits for large runtimes
    large: bool,
    report: ReportView,
    /// Kind and name of the principal who uploaded it, as in the audit log
    uploaded_by: String,
    /// Unix milliseconds
    created_at: i64,
    /// Start of its quarantine, in Unix milliseconds
    #[oai(nullable)]
    quarantined_at: Option<i64>,
}

impl VersionView {
    fn of(plugin: &Plugin, version: Version, is_quarantined: bool) -> Self {
        let state = if is_quarantined { VersionState::Quarantined } else { plugin.state_of(&version) };
        Self {
            version: version.number,
            sha256: hex::encode(version.sha256),
            state: state.into(),
            exports: words(version.exports.names()),
            imports: version.imports,
            size_bytes: version.size_bytes,
            large: version.is_large,
            report: version.report.into(),
            uploaded_by: version.uploaded_by,
            created_at: version.created_at.0,
            quarantined_at: version.quarantined_at.map(|at| at.0),
        }
    }
}

fn words(words: Vec<&'static str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Statistics of an active version since its activation or since the server started, whichever is later
#[derive(Object, Default)]
#[oai(rename = "PluginFigures")]
struct FiguresView {
    /// Number of calls by outcome: `allow`, `deny`, `abstain`, `roles`, or the kind of a failure
    calls: BTreeMap<String, u64>,
    /// How often a shadow version would have changed the decision
    differed: u64,
    duration_us_mean: u64,
    duration_us_max: u64,
    fuel_mean: u64,
    fuel_max: u64,
    memory_bytes_max: u64,
    /// Calls that used more CPU time than `plugins.fast_us`
    slow: u64,
    /// Calls that ran on background threads, because the version is slow or its speed is not known yet
    aside: u64,
    /// Log lines that were dropped because one call wrote too many
    log_dropped: u64,
}

impl FiguresView {
    fn of(binding: &Binding) -> Self {
        binding.run_state.read(|statistics| {
            let calls: u64 = statistics.outcomes.values().sum();
            Self {
                calls: statistics.outcomes.iter().map(|(outcome, n)| (outcome.as_str().to_owned(), *n)).collect(),
                differed: statistics.differed,
                duration_us_mean: statistics.duration_us.checked_div(calls).unwrap_or_default(),
                duration_us_max: statistics.duration_us_max,
                fuel_mean: statistics.fuel.checked_div(calls).unwrap_or_default(),
                fuel_max: statistics.fuel_max,
                memory_bytes_max: statistics.memory_bytes_max,
                slow: statistics.slow,
                aside: statistics.aside,
                log_dropped: statistics.log_dropped,
            }
        })
    }
}

/// An activation of a version
#[derive(Object)]
#[oai(rename = "PluginActivation", skip_serializing_if_is_none)]
struct ActivationView {
    version: u32,
    mode: PluginMode,
    /// Whether its `allow` can grant what no role grants
    may_grant: bool,
    filter: PluginFilter,
    /// Time limit of a call in milliseconds; defaults to the setting
    deadline_ms: Option<u32>,
    /// Unix milliseconds; plugins are called in this order
    since: i64,
    /// Whether it failed too often; while it is enforced, everything that it covers is denied
    quarantined: Option<bool>,
    figures: Option<FiguresView>,
}

impl ActivationView {
    fn of(mode: Mode, activation: &Activation, binding: Option<&Binding>) -> Self {
        Self {
            version: activation.version,
            mode: mode.into(),
            may_grant: activation.may_grant,
            filter: activation.filter.clone().into(),
            deadline_ms: activation.deadline_ms,
            since: activation.since,
            quarantined: binding.map(|binding| binding.run_state.is_quarantined()),
            figures: binding.map(FiguresView::of),
        }
    }
}

/// A plugin with its versions and activations
#[derive(Object)]
#[oai(rename = "Plugin")]
pub struct PluginView {
    name: String,
    /// Oldest first
    versions: Vec<VersionView>,
    /// At most one per mode
    activations: Vec<ActivationView>,
    /// Former enforced activations, latest last; a rollback enforces the last one again
    history: Vec<ActivationView>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl PluginView {
    fn of(snapshot: &Snapshot, whole: PluginWithVersions) -> Self {
        let PluginWithVersions { plugin, versions } = whole;
        let bound = bindings_of(snapshot, &plugin);
        let is_failing = |number| bound.iter().any(|b| b.version == number && b.run_state.is_quarantined());
        let binding = |mode: Mode, version: u32| bound.iter().find(|b| b.mode == mode && b.version == version);
        Self {
            activations: plugin
                .activations()
                .map(|(mode, activation)| ActivationView::of(mode, activation, binding(mode, activation.version)))
                .collect(),
            history: plugin.history.iter().map(|former| ActivationView::of(Mode::Enforce, former, None)).collect(),
            versions: versions
                .into_iter()
                .map(|version| {
                    let is_quarantined = is_failing(version.number);
                    VersionView::of(&plugin, version, is_quarantined)
                })
                .collect(),
            name: plugin.name,
            created_at: plugin.created_at.0,
            updated_at: plugin.updated_at.0,
        }
    }
}

fn bindings_of(snapshot: &Snapshot, plugin: &Plugin) -> Vec<Binding> {
    let bound = snapshot.tenant(plugin.organization).map(|tenant| tenant.plugins().iter());
    bound.into_iter().flatten().filter(|binding| binding.plugin == plugin.id).cloned().collect()
}

/// A plugin in a list
#[derive(Object)]
struct PluginSummary {
    name: String,
    /// The newest version
    #[oai(nullable)]
    version: Option<u32>,
    /// Exports of the active version, or of the newest if none is active
    exports: Vec<String>,
    /// Number of versions
    versions: u64,
    #[oai(nullable)]
    enforced_version: Option<u32>,
    #[oai(nullable)]
    shadow_version: Option<u32>,
    /// `enforce` if a version is enforced, `shadow` if there is only a shadow, otherwise null
    #[oai(nullable)]
    mode: Option<PluginMode>,
    /// Start of the activation with this mode, in Unix milliseconds
    #[oai(nullable)]
    since: Option<i64>,
    /// Whether an enforced or shadow version failed too often
    quarantined: bool,
    /// Unix milliseconds
    updated_at: i64,
}

impl PluginSummary {
    fn of(snapshot: &Snapshot, whole: &PluginWithVersions) -> Self {
        let plugin = &whole.plugin;
        Self {
            name: plugin.name.clone(),
            version: whole.versions.last().map(|version| version.number),
            exports: whole.default_version().map(|version| words(version.exports.names())).unwrap_or_default(),
            versions: whole.versions.len() as u64,
            enforced_version: plugin.enforced.as_ref().map(|activation| activation.version),
            shadow_version: plugin.shadow.as_ref().map(|activation| activation.version),
            mode: plugin.activations().next().map(|(mode, _)| mode.into()),
            since: plugin.activations().next().map(|(_, activation)| activation.since),
            quarantined: bindings_of(snapshot, plugin).iter().any(|binding| binding.run_state.is_quarantined()),
            updated_at: plugin.updated_at.0,
        }
    }
}

/// The level of a log line
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PluginLogLevel {
    Debug,
    Info,
    Warn,
    /// Also the failures of calls
    Error,
}

impl From<PluginLogLevel> for LogLevel {
    fn from(level: PluginLogLevel) -> Self {
        match level {
            PluginLogLevel::Debug => Self::Debug,
            PluginLogLevel::Info => Self::Info,
            PluginLogLevel::Warn => Self::Warn,
            PluginLogLevel::Error => Self::Error,
        }
    }
}

/// A log line of a plugin
#[derive(Object)]
struct PluginLogLine {
    /// Unix milliseconds
    at: i64,
    /// `debug`, `info`, `warn` or `error`; failures of the plugin are logged as `error`
    level: String,
    message: String,
    version: u32,
    mode: PluginMode,
}

crate::document! {
    get_plugin: [PluginNotFound] ["etag"];
    get_plugin_log: [PluginNotFound];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Plugins")]
impl Api {
    /// List plugins
    ///
    /// Returns the plugins of the organization in which the caller acts, by name.
    #[oai(path = "/plugins", method = "get", operation_id = "list_plugins")]
    async fn list_plugins(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<PluginSummary>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let found = self.app.read(move |r| store::list(r, tenant, &window)).await?;
        let snapshot = self.app.snapshot();
        Ok(ok(found.map(|whole| PluginSummary::of(&snapshot, &whole)).into()))
    }

    /// Get a plugin
    ///
    /// Returns its versions, its activations with their settings, its rollback history, and the statistics of the
    /// active versions.
    #[oai(path = "/plugins/:name", method = "get", operation_id = "get_plugin")]
    async fn get_plugin(&self, caller: MemberCaller, name: Path<String>) -> Reply<PluginView> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_GET)?;
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let version = whole.plugin.version;
        Ok(ok(PluginView::of(&self.app.snapshot(), whole)).version(version))
    }

    /// Read a plugin's log
    ///
    /// Returns the latest log lines of the active versions, newest first, including failed calls. The log is kept in
    /// memory.
    #[oai(path = "/plugins/:name/log", method = "get", operation_id = "get_plugin_log")]
    async fn get_plugin_log(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        /// Only lines of this level
        level: Query<Option<PluginLogLevel>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<PluginLogLine>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_LOG)?;
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let level = level.0.map(LogLevel::from);
        let mut lines: Vec<PluginLogLine> = Vec::new();
        for binding in bindings_of(&self.app.snapshot(), &whole.plugin) {
            let mut kept = binding.run_state.read(|statistics| statistics.log.clone());
            kept.retain(|line| level.is_none_or(|level| line.level == level));
            lines.extend(kept.into_iter().rev().map(|line| PluginLogLine {
                at: line.at.0,
                level: line.level.as_str().to_owned(),
                message: line.message,
                version: binding.version,
                mode: binding.mode.into(),
            }));
        }
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        Ok(ok(window.of_all(lines, "plugin_log")?.into()))
    }
}
