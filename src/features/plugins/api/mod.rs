//! Operations that look at plugins, and what all of this area says on the wire.

pub mod life;
pub mod run;
pub mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;

use super::{FailedVector, Plugin, Report, State, Tried, Version, Whole, store};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Binding, Filter, Mode};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Window;
use crate::kernel::http::{Page, Reply, Tag, ok};

crate::text! {
    /// The name of a permission, or `video.*` for all below a name
    FilterPermission 1..=192 "^[A-Za-z0-9._:-]+(\\.\\*)?$";
    /// `/videos/:id`, `POST /videos`, `/files/*rest`
    FilterRoute 1..=1050 "";
    /// A module of direct grants
    FilterModule 1..=64 "^[a-z0-9][a-z0-9._-]*$";
}

/// Is a version only watched, or does it decide?
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PluginMode {
    /// Asked, counted and logged, without effect
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

/// How far a version has come
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PluginState {
    /// It could be called, but failed the test vectors it brought along
    Compiled,
    Tested,
    Shadow,
    Active,
    /// It was enforced before, and is kept to roll back to
    Retired,
    /// It failed too often: while it is in force, what it covers is denied
    Quarantined,
}

impl From<State> for PluginState {
    fn from(state: State) -> Self {
        match state {
            State::Compiled => Self::Compiled,
            State::Tested => Self::Tested,
            State::Shadow => Self::Shadow,
            State::Active => Self::Active,
            State::Retired => Self::Retired,
            State::Quarantined => Self::Quarantined,
        }
    }
}

/// Which questions an authorizer covers: those that any of the lists names, or all of them when every list is empty
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

/// What an interface answered to a question without meaning
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

/// What the tests at the upload found
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
        let tried = |Tried { export, outcome, failure }| TriedView { export, outcome, failure };
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
    /// Does it run under the limits for big runtimes?
    large: bool,
    report: ReportView,
    /// Kind and name of who uploaded it, as in the audit
    uploaded_by: String,
    /// Unix milliseconds
    created_at: i64,
    /// Since when it is quarantined, in Unix milliseconds
    #[oai(nullable)]
    quarantined_at: Option<i64>,
}

impl VersionView {
    fn of(plugin: &Plugin, version: Version, is_quarantined: bool) -> Self {
        let state = if is_quarantined { State::Quarantined } else { plugin.state_of(&version) };
        Self {
            version: version.number,
            sha256: hex::encode(version.sha256),
            state: state.into(),
            exports: words(version.exports.words()),
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

/// What a version in force has done since it came into force or since the start, whichever is later
#[derive(Object, Default)]
#[oai(rename = "PluginFigures")]
struct FiguresView {
    /// By outcome: `allow`, `deny`, `abstain`, `roles`, or the word of a failure
    calls: BTreeMap<String, u64>,
    /// How often a watched version would have changed the outcome
    differed: u64,
    duration_us_mean: u64,
    duration_us_max: u64,
    fuel_mean: u64,
    fuel_max: u64,
    memory_bytes_max: u64,
    /// Calls that took more processor time than `plugins.fast_us`
    slow: u64,
    /// Calls that ran behind the threads that answer requests: of a version that is slow, or not known yet
    aside: u64,
    /// Log lines that are gone because one call wrote too many
    log_dropped: u64,
}

impl FiguresView {
    fn of(binding: &Binding) -> Self {
        binding.live.look(|seen| {
            let calls: u64 = seen.outcomes.values().sum();
            Self {
                calls: seen.outcomes.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
                differed: seen.differed,
                duration_us_mean: seen.duration_us.checked_div(calls).unwrap_or_default(),
                duration_us_max: seen.duration_us_max,
                fuel_mean: seen.fuel.checked_div(calls).unwrap_or_default(),
                fuel_max: seen.fuel_max,
                memory_bytes_max: seen.memory_bytes_max,
                slow: seen.slow,
                aside: seen.aside,
                log_dropped: seen.log_dropped,
            }
        })
    }
}

/// How a version is in force
#[derive(Object)]
#[oai(rename = "PluginActivation", skip_serializing_if_is_none)]
struct ActivationView {
    version: u32,
    mode: PluginMode,
    /// May its `allow` open what no role does?
    may_grant: bool,
    filter: PluginFilter,
    /// Milliseconds that a call may run; the setting when absent
    deadline_ms: Option<u32>,
    /// Unix milliseconds; plugins are asked in this order
    since: i64,
    /// Did it fail too often? Then what it covers is denied
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
            quarantined: binding.map(|binding| binding.live.is_quarantined()),
            figures: binding.map(FiguresView::of),
        }
    }
}

/// A plugin with all that is known of it
#[derive(Object)]
#[oai(rename = "Plugin")]
pub struct PluginView {
    name: String,
    /// The oldest first
    versions: Vec<VersionView>,
    /// At most one of each mode
    activations: Vec<ActivationView>,
    /// What was enforced before, the latest last: rolling back puts that in force again
    history: Vec<ActivationView>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl PluginView {
    fn of(snapshot: &Snapshot, whole: Whole) -> Self {
        let Whole { plugin, versions } = whole;
        let bound = bindings_of(snapshot, &plugin);
        let is_failing = |number| bound.iter().any(|b| b.version == number && b.live.is_quarantined());
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
    /// Of the version in force, else of the newest
    exports: Vec<String>,
    /// How many versions there are
    versions: u64,
    #[oai(nullable)]
    enforced_version: Option<u32>,
    #[oai(nullable)]
    shadow_version: Option<u32>,
    /// `enforce`, else `shadow`, else null
    #[oai(nullable)]
    mode: Option<PluginMode>,
    /// Did a version that is in force or watched fail too often?
    quarantined: bool,
    /// Unix milliseconds
    updated_at: i64,
}

impl PluginSummary {
    fn of(snapshot: &Snapshot, whole: &Whole) -> Self {
        let plugin = &whole.plugin;
        Self {
            name: plugin.name.clone(),
            version: whole.versions.last().map(|version| version.number),
            exports: whole.usual().map(|version| words(version.exports.words())).unwrap_or_default(),
            versions: whole.versions.len() as u64,
            enforced_version: plugin.enforced.as_ref().map(|activation| activation.version),
            shadow_version: plugin.shadow.as_ref().map(|activation| activation.version),
            mode: plugin.activations().next().map(|(mode, _)| mode.into()),
            quarantined: bindings_of(snapshot, plugin).iter().any(|binding| binding.live.is_quarantined()),
            updated_at: plugin.updated_at.0,
        }
    }
}

/// A line that a plugin logged
#[derive(Object)]
struct PluginLogLine {
    /// Unix milliseconds
    at: i64,
    /// `debug`, `info`, `warn` or `error`; a failure of the plugin is an error
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
    /// Of the organization in which the caller acts, by name.
    #[oai(path = "/plugins", method = "get", operation_id = "list_plugins")]
    async fn list_plugins(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<PluginSummary>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_LIST)?;
        let window = Window::new(limit.0, offset.0, after.0)?;
        let found = self.app.read(move |r| store::list(r, tenant, &window)).await?;
        let snapshot = self.app.snapshot();
        Ok(ok(found.map(|whole| PluginSummary::of(&snapshot, &whole)).into()))
    }

    /// See a plugin
    ///
    /// Its versions, what of them is in force and with which settings, what can be rolled back to, and what the versions
    /// in force have done.
    #[oai(path = "/plugins/:name", method = "get", operation_id = "get_plugin")]
    async fn get_plugin(&self, caller: MemberCaller, name: Path<String>) -> Reply<PluginView> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_GET)?;
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let version = whole.plugin.version;
        Ok(ok(PluginView::of(&self.app.snapshot(), whole)).version(version))
    }

    /// Read what a plugin logged
    ///
    /// The latest lines of the versions in force, the newest first; kept in memory. How a call failed is among them.
    #[oai(path = "/plugins/:name/log", method = "get", operation_id = "get_plugin_log")]
    async fn get_plugin_log(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<PluginLogLine>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_LOG)?;
        let whole = self.app.read(move |r| store::get(r, tenant, &name.0)).await?;
        let mut lines: Vec<PluginLogLine> = Vec::new();
        for binding in bindings_of(&self.app.snapshot(), &whole.plugin) {
            lines.extend(binding.live.look(|seen| seen.log.clone()).into_iter().rev().map(|line| PluginLogLine {
                at: line.at.0,
                level: line.level.to_owned(),
                message: line.message,
                version: binding.version,
                mode: binding.mode.into(),
            }));
        }
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        let window = Window::new(limit.0, offset.0, after.0)?;
        Ok(ok(window.of_all(lines, "plugin_log")?.into()))
    }
}
