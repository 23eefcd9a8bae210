//! Plugins in the snapshot: the active version of each, its filter, its mode and its rights.
//!
//! The sandbox holds the component itself; this module holds the data that a decision needs to call it. The counters of
//! a running version ([`RunState`]) are kept when its binding is edited, like those of a client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::catalog::methods;
use super::path::Template;
use crate::kernel::ids::{PluginId, Timestamp};
use crate::kernel::secret::Hash;

/// Whether the result of a plugin counts (`enforce`) or is only recorded (`shadow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Shadow,
    Enforce,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Enforce => "enforce",
        }
    }
}

/// An interface that a component can export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Export {
    Authorizer,
    RoleMapper,
}

impl Export {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorizer => "authorizer",
            Self::RoleMapper => "role-mapper",
        }
    }
}

/// The interfaces that a component exports. Stored as a list of their names; an unknown name is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "Vec<Export>")]
pub struct Exports {
    pub authorizer: bool,
    pub role_mapper: bool,
}

impl Exports {
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.authorizer, Export::Authorizer), (self.role_mapper, Export::RoleMapper)];
        all.into_iter().filter(|(has, _)| *has).map(|(_, export)| export.as_str()).collect()
    }
}

impl From<Vec<Export>> for Exports {
    fn from(exports: Vec<Export>) -> Self {
        Self { authorizer: exports.contains(&Export::Authorizer), role_mapper: exports.contains(&Export::RoleMapper) }
    }
}

/// The access requests that an authorizer covers; all if every list is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Names of permissions, or `video.*` for all permissions below `video`.
    pub permissions: Vec<String>,
    pub routes: RouteFilters,
    /// Modules of direct grants.
    pub modules: Vec<String>,
}

/// The properties of an access request that a filter compares.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilterInput<'a> {
    /// Names of the permissions of which any one is enough.
    pub permissions: &'a [&'a str],
    /// Method and canonical path.
    pub route: Option<(&'a str, &'a str)>,
    /// The module of a direct grant.
    pub module: Option<&'a str>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        let Self { permissions, routes, modules } = self;
        permissions.is_empty() && routes.is_empty() && modules.is_empty()
    }

    /// Whether the filter covers the request. One matching entry is enough.
    pub fn covers(&self, topic: &FilterInput<'_>) -> bool {
        self.is_empty()
            || topic.permissions.iter().any(|name| self.permissions.iter().any(|own| is_below(own, name)))
            || topic.route.is_some_and(|(method, path)| self.routes.cover(method, path))
            || topic.module.is_some_and(|module| self.modules.iter().any(|own| own == module))
    }
}

/// Whether an entry of a filter matches a name: `video.edit` matches itself, `video.*` all names below `video`.
fn is_below(own: &str, name: &str) -> bool {
    match own.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('.') => name.len() > prefix.len() && name.starts_with(prefix),
        _ => own == name,
    }
}

/// Routes such as `/videos/:id`, `POST /videos` and `/files/*rest`. They are parsed as catalog templates on first use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct RouteFilters {
    texts: Vec<String>,
    parsed: OnceLock<Vec<RouteFilter>>,
}

/// The methods joined with `|`, and the template.
type RouteFilter = (Box<str>, Template);

impl RouteFilters {
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// GET includes HEAD, which would otherwise bypass the plugin.
    fn cover(&self, method: &str, path: &str) -> bool {
        let is_method = |token: &str| token == "*" || token == method || (token == "GET" && method == "HEAD");
        let all = self.parsed.get_or_init(|| self.texts.iter().filter_map(|text| route_filter(text).ok()).collect());
        all.iter().any(|(methods, template)| methods.split('|').any(is_method) && template.matches(path))
    }
}

impl PartialEq for RouteFilters {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for RouteFilters {}

impl From<Vec<String>> for RouteFilters {
    fn from(texts: Vec<String>) -> Self {
        Self { texts, parsed: OnceLock::new() }
    }
}

impl From<RouteFilters> for Vec<String> {
    fn from(filters: RouteFilters) -> Self {
        filters.texts
    }
}

/// Parses `[METHOD|METHOD ]/a/template`. The error is a sentence for the user.
pub fn route_filter(text: &str) -> Result<RouteFilter, String> {
    let (tokens, template) = match text.split_once(' ') {
        Some((tokens, template)) if !text.starts_with('/') => (tokens, template),
        _ => ("*", text),
    };
    methods(tokens)?;
    Ok((tokens.into(), Template::parse(template)?))
}

/// The activation of a version, in either mode, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    pub version: u32,
    pub may_grant: bool,
    pub filter: Filter,
    pub deadline_ms: Option<u32>,
    /// Unix milliseconds.
    pub since: i64,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of a plugin's log.
#[derive(Debug, Clone)]
pub struct LogRecord {
    pub at: Timestamp,
    pub level: LogLevel,
    pub message: String,
}

/// The kind of a fault: why a call returned no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A trap, such as a division by zero or a panic of the guest.
    Trap,
    Fuel,
    Deadline,
    Memory,
    Stack,
    /// Its answer is too large or not valid, or it logged too much.
    Output,
    /// It returned an error.
    Rule,
    /// The input is longer than allowed. The guest is not responsible for this kind, nor for those below.
    Input,
    /// The call could not start in time.
    Busy,
    /// The version failed too often and is no longer called.
    Quarantined,
    /// The component cannot be loaded: it is not compiled, or its bytes are missing.
    Unavailable,
}

impl FaultKind {
    pub const ALL: [Self; 11] = [
        Self::Trap,
        Self::Fuel,
        Self::Deadline,
        Self::Memory,
        Self::Stack,
        Self::Output,
        Self::Rule,
        Self::Input,
        Self::Busy,
        Self::Quarantined,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Output => "output",
            Self::Rule => "rule_error",
            Self::Input => "input",
            Self::Busy => "busy",
            Self::Quarantined => "quarantined",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the guest is responsible, so that the fault counts towards quarantine.
    pub fn is_guest_fault(self) -> bool {
        !matches!(self, Self::Input | Self::Busy | Self::Quarantined | Self::Unavailable)
    }
}

/// The outcome of a plugin in a decision or a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginOutcome {
    Allow,
    Deny,
    Abstain,
    /// A role mapper returned roles.
    Roles,
    /// A shadow plugin was not called, because its filter excludes the request.
    NotCovered,
    Failed(FaultKind),
}

impl PluginOutcome {
    const ANSWERS: [Self; 5] = [Self::Allow, Self::Deny, Self::Abstain, Self::Roles, Self::NotCovered];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Abstain => "abstain",
            Self::Roles => "roles",
            Self::NotCovered => "not_covered",
            Self::Failed(kind) => kind.as_str(),
        }
    }

    /// The outcome with this wire spelling.
    pub fn of(word: &str) -> Option<Self> {
        let mut all = Self::ANSWERS.into_iter().chain(FaultKind::ALL.map(Self::Failed));
        all.find(|outcome| outcome.as_str() == word)
    }
}

impl Serialize for PluginOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PluginOutcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::of(&word).ok_or_else(|| serde::de::Error::custom(format!("{word:?} is not the outcome of a plugin")))
    }
}

/// Counters of a running version since the start of the server.
#[derive(Debug, Default)]
pub struct CallStats {
    pub outcomes: BTreeMap<PluginOutcome, u64>,
    /// Results of a plugin in shadow mode that would have changed a decision or a mapping in enforce mode.
    pub differed: u64,
    pub duration_us: u64,
    pub duration_us_max: u64,
    pub fuel: u64,
    pub fuel_max: u64,
    pub memory_bytes_max: u64,
    /// Calls that used more processor time than a call may use on a request thread.
    pub slow: u64,
    /// Calls that ran or ended on the background runtime instead of a request thread.
    pub aside: u64,
    /// The latest log lines, oldest first.
    pub log: VecDeque<LogRecord>,
    pub log_dropped: u64,
    /// The times of recent failures.
    failures: VecDeque<Timestamp>,
}

/// The state of a running version, shared by all snapshots that contain it.
#[derive(Debug)]
pub struct RunState {
    /// Whether it failed too often. Requests that it covers are then denied, and it is not called any more.
    is_quarantined: AtomicBool,
    stats: Mutex<CallStats>,
}

impl RunState {
    pub fn new(is_quarantined: bool) -> Self {
        Self { is_quarantined: AtomicBool::new(is_quarantined), stats: Mutex::default() }
    }

    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Ordering::Acquire)
    }

    /// Stops calls of this version; see `is_quarantined`.
    pub fn quarantine(&self) {
        self.is_quarantined.store(true, Ordering::Release);
    }

    /// Reads from the counters. Calls that count wait for it, so `read` must be quick.
    pub fn read<T: Default>(&self, read: impl FnOnce(&CallStats) -> T) -> T {
        self.with(|stats| read(stats)).unwrap_or_default()
    }

    /// Updates the counters. `count` must be quick.
    pub fn count(&self, count: impl FnOnce(&mut CallStats)) {
        let _ = self.with(count);
    }

    fn with<T>(&self, f: impl FnOnce(&mut CallStats) -> T) -> Option<T> {
        self.stats.lock().ok().map(|mut stats| f(&mut stats))
    }

    /// Counts a failure. Returns true only for the failure that quarantines the version.
    pub fn has_failed_too_often(&self, now: Timestamp, failures_max: u64, window_ms: i64) -> bool {
        let is_too_many = self.with(|stats| {
            stats.failures.retain(|at| at.plus_ms(window_ms) > now);
            stats.failures.push_back(now);
            stats.failures.len() as u64 >= failures_max
        });
        is_too_many.unwrap_or(true) && !self.is_quarantined.swap(true, Ordering::AcqRel)
    }
}

/// An active version of a plugin.
#[derive(Debug, Clone)]
pub struct Binding {
    pub plugin: PluginId,
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub mode: Mode,
    pub exports: Exports,
    /// Whether its `allow` can allow what no role allows.
    pub may_grant: bool,
    pub filter: Arc<Filter>,
    /// The time limit of a call in milliseconds; `None` uses the setting.
    pub deadline_ms: Option<u32>,
    /// Whether it was uploaded with the limits for large language runtimes.
    pub is_large: bool,
    /// The time of activation in Unix milliseconds. Plugins are called in this order.
    pub since: i64,
    pub run_state: Arc<RunState>,
}

impl Binding {
    /// Whether both are the same activation of the same version.
    pub fn is_same_run(&self, other: &Self) -> bool {
        (self.plugin, self.version, self.mode, self.since) == (other.plugin, other.version, other.mode, other.since)
    }

    /// All fields that decisions depend on, as text.
    pub fn digest_input(&self) -> String {
        let Self {
            plugin,
            name,
            version,
            sha256,
            mode,
            exports,
            may_grant,
            filter,
            deadline_ms,
            is_large,
            since,
            run_state: _,
        } = self;
        format!(
            "{plugin} {name} {version} {} {mode:?} {exports:?} {may_grant} {filter:?} {deadline_ms:?} {is_large} {since}",
            hex::encode(sha256)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::authz::catalog::{Catalog, Node, RouteMatch, UserType};

    fn filter(permissions: &[&str], routes: &[&str], modules: &[&str]) -> Filter {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Filter { permissions: own(permissions), routes: own(routes).into(), modules: own(modules) }
    }

    fn is_route(own: &str, method: &str, path: &str) -> bool {
        RouteFilters::from(vec![own.to_owned()]).cover(method, path)
    }

    #[test]
    fn an_empty_filter_covers_everything_and_any_other_only_what_it_names() {
        let route = FilterInput { permissions: &["video.edit"], route: Some(("PUT", "/videos/7")), module: None };
        let grant = FilterInput { module: Some("cameras"), ..FilterInput::default() };
        assert!(Filter::default().covers(&route) && Filter::default().covers(&grant));
        for (own, covers_route, covers_grant) in [
            (filter(&["video.edit"], &[], &[]), true, false),
            (filter(&["video.*"], &[], &[]), true, false),
            (filter(&["video"], &[], &[]), false, false),
            (filter(&["video.edi"], &[], &[]), false, false),
            (filter(&["*"], &[], &[]), false, false),
            (filter(&[], &["/videos/:id"], &[]), true, false),
            (filter(&[], &["GET /videos/:id", "PUT /videos/{id}"], &[]), true, false),
            (filter(&[], &["GET /videos/:id"], &[]), false, false),
            (filter(&[], &[], &["cameras"]), false, true),
            (filter(&[], &[], &["camera"]), false, false),
            (filter(&["other"], &["/other"], &["cameras"]), false, true),
        ] {
            assert_eq!((own.covers(&route), own.covers(&grant)), (covers_route, covers_grant), "{own:?}");
        }
    }

    #[test]
    fn a_name_with_a_star_matches_all_names_below_it_only() {
        for (own, name, is) in [
            ("video.*", "video.edit", true),
            ("video.*", "video.edit.title", true),
            ("video.*", "video", false),
            ("video.*", "video.", false),
            ("video.*", "videos.edit", false),
            ("video*", "video.edit", false),
            ("video*", "video*", true),
        ] {
            assert_eq!(is_below(own, name), is, "{own} {name}");
        }
    }

    #[test]
    fn a_route_of_a_filter_is_parsed_like_a_catalog_template() {
        for (own, method, path, is) in [
            ("/", "GET", "/", true),
            ("/", "GET", "/a", false),
            ("/videos/:id/", "GET", "/videos/7", true),
            ("/videos/:id", "GET", "/videos", false),
            ("/videos/:id", "GET", "/videos/7/pages", false),
            ("/videos/*rest", "GET", "/videos", false),
            ("/videos/*rest", "GET", "/videos/7", true),
            ("/videos/*rest", "GET", "/videos/7/pages", true),
            ("GET /videos", "HEAD", "/videos", true),
            ("HEAD /videos", "GET", "/videos", false),
            ("GET|POST /videos", "POST", "/videos", true),
            ("* /videos", "POST", "/videos", true),
            ("POST /videos", "post", "/videos", false),
            ("videos", "GET", "/videos", false),
            ("/v/{user id}", "GET", "/v/7", true),
            ("GET /v/{user id}", "GET", "/v/7", true),
            ("/v/{id}.json", "GET", "/v/7.json", true),
            ("/v/{id}.json", "GET", "/v/7.xml", false),
            ("/v/{path+}", "GET", "/v/a/b", true),
            ("/%E4%BD%BF/x", "GET", "/使/x", true),
        ] {
            assert_eq!(is_route(own, method, path), is, "{own} {method} {path}");
        }
    }

    #[test]
    fn exports_and_outcomes_are_read_as_they_are_written_and_unknown_words_are_refused() {
        for (authorizer, role_mapper) in [(false, false), (true, false), (false, true), (true, true)] {
            let exports = Exports { authorizer, role_mapper };
            let json = serde_json::to_string(&exports.names()).unwrap();
            assert_eq!(serde_json::from_str::<Exports>(&json).unwrap(), exports);
        }
        assert!(serde_json::from_str::<Exports>(r#"["authorizer","other"]"#).is_err());
        for outcome in PluginOutcome::ANSWERS.into_iter().chain(FaultKind::ALL.map(PluginOutcome::Failed)) {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<PluginOutcome>(&json).unwrap(), outcome);
        }
        assert!(serde_json::from_str::<PluginOutcome>(r#""other""#).is_err());
    }

    #[test]
    fn recent_failures_count_and_quarantine_is_reported_once() {
        // Times of failures, and the index of the one that quarantines: the third within a second.
        for (times, expected) in [
            (vec![0, 0, 0], Some(2)),
            (vec![0, 1, 999], Some(2)),
            // A failure expires after exactly one second.
            (vec![0, 1, 1_000], None),
            (vec![0, 1, 1_000, 1_000], Some(3)),
            (vec![0, 1_000, 2_000, 3_000, 4_000], None),
            (vec![0, 600, 1_200, 1_800, 2_400], None),
            (vec![0, 600, 1_200, 1_500, 1_600, 1_700], Some(3)),
        ] {
            let live = RunState::new(false);
            let too_often: Vec<usize> = (0..times.len())
                .filter(|n| live.has_failed_too_often(Timestamp(1_000_000 + times[*n]), 3, 1_000))
                .collect();
            assert_eq!(too_often, Vec::from_iter(expected), "{times:?}");
            assert_eq!(live.is_quarantined(), expected.is_some(), "{times:?}");
        }
        assert!(RunState::new(false).has_failed_too_often(Timestamp(0), 1, 1_000), "the limit can be one");
        assert!(!RunState::new(true).has_failed_too_often(Timestamp(0), 1, 1_000), "quarantined before the restart");
    }

    proptest! {
        /// A filter that names a template covers what the catalog routes to that template, and nothing else.
        #[test]
        fn a_filter_matches_a_path_as_the_catalog_does(
            template in "(/(a|b|:x|\\{y\\}|a\\{y\\}|\\{x\\}\\.\\{y\\})){0,3}(/\\*rest|/\\{p\\+\\}|/\\{p\\+\\}:a|/\\{p\\+\\}/b)?",
            path in "(/(a|b|c|ab|a\\.b|a:a)){0,4}",
        ) {
            let template = if template.is_empty() { "/".to_owned() } else { template };
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let node = Node {
                slot: 0,
                name: "it".into(),
                app: "main".into(),
                parent: None,
                http_methods: Some("GET".into()),
                http_path: Some(template.as_str().into()),
                is_open: true,
                user_type: UserType::Backend,
                orphaned: false,
                position: 0,
            };
            let catalog = Catalog::build(vec![node]);
            let is_routed = matches!(catalog.route("main", "GET", &path), RouteMatch::Permissions(..));
            prop_assert_eq!(is_route(&format!("GET {template}"), "GET", &path), is_routed, "{} {}", template, path);
        }
    }
}
