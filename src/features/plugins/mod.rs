//! The organizations' plugins: named plugins, their immutable versions, and their activations.
//!
//! A component is stored once, by its digest, even if several organizations upload it. They cannot find out about each
//! other, because a component is compiled and tested again for each organization. An [`Activation`] makes a version
//! active. Changing it is one policy change, so every check sees either the old or the new activation.
//!
//! **Rollback.** Enforcing a version keeps the previous activations, up to [`HISTORY_MAX`]. A rollback restores the
//! last one exactly: its version, its settings and its position in the call order. Deactivation clears this history, so
//! that only a new activation makes a version active again.

pub mod api;
pub mod replay;
pub mod run;
mod store;

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::app::{Occurrence, Transaction};
use crate::kernel::authz::delegation;
use crate::kernel::authz::plugin::{Activation, Export, Exports, Filter, Mode, route_filter};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{OrganizationId, PluginId, Timestamp};
use crate::kernel::sandbox::{AuthorizeResult, CallResult, Fault, Limits, vectors};
use crate::kernel::secret::Hash;
pub use store::list_names;

/// Number of activations that are kept for rollback.
pub const HISTORY_MAX: usize = 5;

/// A plugin as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    pub id: PluginId,
    pub organization: OrganizationId,
    pub name: String,
    pub enforced: Option<Activation>,
    pub shadow: Option<Activation>,
    /// Former enforced activations, latest last.
    pub history: Vec<Activation>,
    /// The highest version number that was ever assigned.
    pub versions_made: u32,
    /// Grows by one with each change.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A version as stored, without the bytes of its component.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub number: u32,
    pub sha256: Hash,
    pub size_bytes: u64,
    pub exports: Exports,
    pub imports: Vec<String>,
    /// Whether it was uploaded under the limits for large runtimes.
    pub is_large: bool,
    /// Whether all its test vectors passed, or it has none.
    pub is_tested: bool,
    pub report: Report,
    pub quarantined_at: Option<Timestamp>,
    /// Kind and name of the principal, as in the audit log.
    pub uploaded_by: String,
    pub created_at: Timestamp,
}

/// A plugin with its versions, oldest first.
#[derive(Debug, Clone)]
pub struct PluginWithVersions {
    pub plugin: Plugin,
    pub versions: Vec<Version>,
}

/// The results of the tests at upload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The results of trial calls with neutral input, one per exported interface. A failure is reported but does not
    /// reject the upload, because a plugin may need more input.
    pub dry_run: Vec<TrialResult>,
    /// Number of its test vectors that passed.
    pub vectors_passed: u32,
    /// The first `FAILED_KEPT` test vectors that failed.
    pub vectors_failed: Vec<FailedVector>,
    pub compile_ms: u64,
}

/// The result of a trial call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialResult {
    pub export: String,
    pub outcome: String,
    /// The kind and message of a failure.
    pub failure: Option<String>,
}

/// Failed vectors that are stored per upload. More would make the list of versions large.
const FAILED_KEPT: usize = 10;
/// Maximum bytes of an expected or actual result that is stored, as JSON.
const FAILED_BYTES_MAX: usize = 1_024;

fn truncate(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= FAILED_BYTES_MAX {
        return value;
    }
    let end = (0..=FAILED_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{} …", &text[..end]).into()
}

/// A test vector that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedVector {
    pub name: String,
    pub expected: Value,
    pub got: Value,
    pub failure: Option<String>,
}

/// The result of a plugin call in its wire form.
#[derive(Debug, Clone, Default)]
pub struct CallSummary {
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub roles: Option<Vec<String>>,
    pub fault: Option<Fault>,
}

impl CallSummary {
    pub fn of_authorizer(called: &CallResult<AuthorizeResult>) -> Self {
        match &called.outcome {
            Ok(ruling) => {
                let reason = if let AuthorizeResult::Deny(reason) = ruling { Some(reason.clone()) } else { None };
                Self { outcome: ruling.as_str(), reason, ..Self::default() }
            }
            Err(fault) => Self::failed(fault),
        }
    }

    pub fn of_mapper(called: &CallResult<Vec<String>>) -> Self {
        match &called.outcome {
            Ok(roles) => Self { outcome: "roles", roles: Some(roles.clone()), ..Self::default() },
            Err(fault) => Self::failed(fault),
        }
    }

    fn failed(fault: &Fault) -> Self {
        Self { outcome: "failed", fault: Some(fault.clone()), ..Self::default() }
    }

    pub fn tried(self, export: Export) -> TrialResult {
        let describe = |fault: Fault| format!("{}: {}", fault.kind.as_str(), fault.message);
        TrialResult {
            export: export.as_str().to_owned(),
            outcome: self.outcome.to_owned(),
            failure: self.fault.map(describe),
        }
    }
}

impl Report {
    /// Adds the results of the test vectors.
    pub fn count(&mut self, vectors: &[vectors::Report]) {
        let (passed, failed): (Vec<_>, Vec<_>) = vectors.iter().partition(|vector| vector.passed);
        self.vectors_passed = u32::try_from(passed.len()).unwrap_or(u32::MAX);
        let failed_vector = |vector: &vectors::Report| FailedVector {
            name: vector.name.clone(),
            expected: truncate(vector.expected.value()),
            got: truncate(vector.got.value()),
            failure: vector.fault.as_ref().map(|fault| fault.message.clone()),
        };
        self.vectors_failed = failed.into_iter().take(FAILED_KEPT).map(failed_vector).collect();
    }

    pub fn all_passed(&self) -> bool {
        self.vectors_failed.is_empty()
    }
}

/// The state of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It compiled, but failed its own test vectors.
    Compiled,
    Tested,
    Shadow,
    Active,
    /// It was enforced before and is kept for rollback.
    Retired,
    Quarantined,
}

impl Plugin {
    fn is_bound(&self) -> bool {
        self.enforced.is_some() || self.shadow.is_some()
    }

    /// The current activations, with their modes.
    pub fn activations(&self) -> impl Iterator<Item = (Mode, &Activation)> {
        let enforced = self.enforced.iter().map(|activation| (Mode::Enforce, activation));
        enforced.chain(self.shadow.iter().map(|activation| (Mode::Shadow, activation)))
    }

    fn is_enforced(&self, number: u32) -> bool {
        self.enforced.as_ref().is_some_and(|activation| activation.version == number)
    }

    fn is_shadow(&self, number: u32) -> bool {
        self.shadow.as_ref().is_some_and(|activation| activation.version == number)
    }

    fn is_in_history(&self, number: u32) -> bool {
        self.history.iter().any(|activation| activation.version == number)
    }

    /// Whether this version is enforced, a shadow, or kept for rollback.
    fn needs(&self, number: u32) -> bool {
        self.is_enforced(number) || self.is_shadow(number) || self.is_in_history(number)
    }

    pub fn state_of(&self, version: &Version) -> VersionState {
        let number = version.number;
        match version {
            _ if version.quarantined_at.is_some() => VersionState::Quarantined,
            _ if self.is_enforced(number) => VersionState::Active,
            _ if self.is_shadow(number) => VersionState::Shadow,
            _ if self.is_in_history(number) => VersionState::Retired,
            _ if version.is_tested => VersionState::Tested,
            _ => VersionState::Compiled,
        }
    }

    /// Enforces a version and keeps the previous activation for rollback.
    fn enforce(&mut self, activation: Activation) {
        self.end_shadow_of(activation.version);
        let former = self.enforced.take();
        if let Some(former) = former.filter(|former| !is_alike(former, &activation)) {
            self.history.push(former);
            let surplus = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..surplus);
        }
        self.enforced = Some(activation);
    }

    fn end_shadow_of(&mut self, number: u32) {
        if self.is_shadow(number) {
            self.shadow = None;
        }
    }

    /// Activates a version. Activating the same version with the same settings again adds nothing to the history.
    pub fn activate(&mut self, mode: Mode, mut activation: Activation) {
        let present = match mode {
            Mode::Enforce => &self.enforced,
            Mode::Shadow => &self.shadow,
        };
        if let Some(present) = present {
            // Distinct even within the same millisecond, because statistics belong to one activation.
            activation.since = activation.since.max(present.since + 1);
        }
        match mode {
            Mode::Enforce => self.enforce(activation),
            Mode::Shadow => self.shadow = Some(activation),
        }
    }

    /// Whether this version is already active in this mode with these settings.
    pub fn is_already_active(&self, mode: Mode, activation: &Activation) -> bool {
        self.activations().any(|(present_mode, present)| present_mode == mode && is_alike(present, activation))
    }

    pub fn deactivate(&mut self) {
        (self.enforced, self.shadow) = (None, None);
        self.history.clear();
    }

    /// Restores the previous activation and returns it. Fails with `NothingToRollBack` if there is none.
    pub fn roll_back(&mut self) -> Result<&Activation> {
        // If no version is enforced, the history is empty.
        let former = self.history.pop().ok_or(ErrorCode::NothingToRollBack)?;
        self.end_shadow_of(former.version);
        Ok(self.enforced.insert(former))
    }
}

/// Whether two activations are equal except for their start.
fn is_alike(one: &Activation, other: &Activation) -> bool {
    *one == Activation { since: one.since, ..other.clone() }
}

impl PluginWithVersions {
    pub fn find(&self, number: u32) -> Result<&Version> {
        let found = self.versions.iter().find(|version| version.number == number);
        found.ok_or_else(|| ErrorCode::PluginVersionNotFound.into())
    }

    /// Returns the default version: the enforced one, otherwise the shadow, otherwise the newest.
    pub fn default_version(&self) -> Result<&Version> {
        match self.plugin.activations().next() {
            Some((_, activation)) => self.find(activation.version),
            None => self.versions.last().ok_or_else(|| ErrorCode::PluginVersionNotFound.into()),
        }
    }

    /// Describes everything that affects decisions, for the audit log.
    fn described(&self) -> Value {
        let describe = |activation: &Activation| {
            let version = self.versions.iter().find(|version| version.number == activation.version);
            json!({
                "version": activation.version,
                "sha256": version.map(|version| hex::encode(version.sha256)),
                "may_grant": activation.may_grant,
                "filter": activation.filter,
                "deadline_ms": activation.deadline_ms,
            })
        };
        json!({"enforce": self.plugin.enforced.as_ref().map(describe), "shadow": self.plugin.shadow.as_ref().map(describe)})
    }
}

/// Fails with `OwnerNeeded` unless the caller may make this activation. Only an owner may make or restore an activation
/// that can grant rights: with `may_grant`, or by enforcing a role mapper.
pub fn require_owner(
    snapshot: &Snapshot,
    caller: &Identity,
    organization: OrganizationId,
    (mode, activation, exports): (Mode, &Activation, Exports),
) -> Result<()> {
    let can_grant = activation.may_grant || (mode == Mode::Enforce && exports.role_mapper);
    let is_owner = delegation::is_owner(snapshot, caller, organization);
    if can_grant && !is_owner { Err(ErrorCode::OwnerNeeded.into()) } else { Ok(()) }
}

/// Fails unless every entry of a filter is valid. Does not check that the names exist, because an import may create
/// them.
pub fn require_filter(filter: &Filter) -> Result<()> {
    let entries = |list: &'static str, texts: &[String], fault: fn(&str) -> Option<String>| -> Vec<Field> {
        let faults = (0..).zip(texts).filter_map(|(n, text): (usize, _)| Some((n, fault(text)?)));
        faults.map(|(n, why)| Field::at(&["body", "filter", list, &n.to_string()], why)).collect()
    };
    let mut faults = entries("permissions", &filter.permissions, permission_fault);
    faults.extend(entries("routes", filter.routes.texts(), |text| route_filter(text).err()));
    if faults.is_empty() { Ok(()) } else { Err(Error::fields(faults)) }
}

/// Returns the fault of a filter entry such as `video.delete` or `video.*`. An entry that can never match is rejected,
/// because the plugin would silently cover nothing.
fn permission_fault(name: &str) -> Option<String> {
    let plain = name.strip_suffix(".*").unwrap_or(name);
    let is_valid = !plain.is_empty() && !plain.contains('*');
    (!is_valid)
        .then(|| "must be a permission's name, or `name.*` for all below it; empty lists cover everything".to_owned())
}

/// Fails for a deadline above the limits of the exported interfaces.
pub fn require_deadline(deadline_ms: Option<u32>, exports: Exports, limits: &Limits) -> Result<()> {
    let limit = |is_exported: bool, running_ms: u64| if is_exported { running_ms } else { 0 };
    let max_ms = limit(exports.authorizer, limits.authorize.running_ms)
        .max(limit(exports.role_mapper, limits.map_roles.running_ms));
    match deadline_ms {
        Some(ms) if u64::from(ms) > max_ms => {
            Err(Error::field("deadline_ms", format!("must be at most {max_ms}, the limit in the settings")))
        }
        _ => Ok(()),
    }
}

/// Fails with `PluginName` unless this is a valid name of a plugin.
pub fn require_name(name: &str) -> Result<()> {
    const NAME_BYTES_MAX: usize = 63;
    let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_allowed)
        && name.bytes().next().is_some_and(|c| c.is_ascii_lowercase());
    if is_name { Ok(()) } else { Err(ErrorCode::PluginName.into()) }
}

/// The recent uploads of each organization. Kept in memory, so a restart clears them.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<OrganizationId, VecDeque<Timestamp>>>);

impl Uploads {
    const WINDOW_MS: i64 = 60_000;

    /// Counts an upload. Fails with `UploadsLimited` after `per_min` uploads within a minute.
    pub fn take(&self, organization: OrganizationId, now: Timestamp, per_min: u64) -> Result<()> {
        let Ok(mut uploads) = self.0.lock() else { return Ok(()) };
        uploads.retain(|_, times| {
            times.retain(|at| at.plus_ms(Self::WINDOW_MS) > now);
            !times.is_empty()
        });
        let times = uploads.entry(organization).or_default();
        if times.len() as u64 >= per_min {
            let wait_ms = times.front().map_or(0, |first| first.plus_ms(Self::WINDOW_MS).0 - now.0);
            let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000).max(1);
            return Err(Error::new(ErrorCode::UploadsLimited).retry_after(seconds));
        }
        times.push_back(now);
        Ok(())
    }
}

/// An upload that passed inspection.
#[derive(Debug)]
pub struct Upload {
    pub name: String,
    pub component: hyper::body::Bytes,
    pub version: Version,
}

/// The plugin quota of an organization.
#[derive(Debug, Clone, Copy)]
pub struct PluginQuota {
    pub plugins_max: u64,
    pub versions_max: u64,
    /// Maximum bytes of all components of the organization together.
    pub bytes_max: u64,
}

/// Fails with `PluginsFull` if the quota does not allow one more version under this name.
pub fn require_quota(r: &Reader<'_>, organization: OrganizationId, name: &str, quota: PluginQuota) -> Result<()> {
    let full = |what: String| Err(Error::new(ErrorCode::PluginsFull).with_message(format!("{what}: delete some")));
    match store::find_plugin(r, organization, name)? {
        Some(known) if store::count_versions(r, known.id)? >= quota.versions_max => {
            return full(format!("the plugin has the maximum of {} versions (plugins.versions)", quota.versions_max));
        }
        None if store::count_plugins(r, organization)? >= quota.plugins_max => {
            let max = quota.plugins_max;
            return full(format!("the organization has the maximum of {max} plugins (plugins.per_organization)"));
        }
        _ => {}
    }
    if store::sum_bytes(r, organization)? >= quota.bytes_max {
        let max = quota.bytes_max;
        return full(format!("the organization's components use the maximum of {max} bytes (plugins.bytes)"));
    }
    Ok(())
}

/// Stores a version under the next number. Returns the plugin, the number of the version, and whether it is new: if a
/// version has the same bytes, that one is returned.
pub fn store_version(
    t: &Transaction<'_>,
    organization: OrganizationId,
    upload: Upload,
    quota: PluginQuota,
) -> Result<(PluginWithVersions, u32, bool)> {
    let Upload { name, component, mut version } = upload;
    let known = store::find_plugin(t, organization, &name)?;
    if let Some(known) = &known
        && let Some(number) = store::find_version_of(t, known.id, &version.sha256)?
    {
        return Ok((store::get(t, organization, &name)?, number, false));
    }
    require_quota(t, organization, &name, quota)?;
    let mut plugin = match known {
        Some(known) => known,
        None => store::insert_plugin(t, organization, &name)?,
    };
    plugin.versions_made += 1;
    version.number = plugin.versions_made;
    store::put_component(t, &version.sha256, &component)?;
    store::insert_version(t, plugin.id, &version)?;
    store::update_plugin(t, &plugin)?;
    Ok((store::get(t, organization, &name)?, version.number, true))
}

/// Stores the quarantine of a plugin version, which the kernel reports.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::PluginQuarantined { plugin, version } => {
            store::quarantine(t, *plugin, *version).map(|()| Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(version: u32) -> Activation {
        Activation { version, may_grant: false, filter: Filter::default(), deadline_ms: None, since: 7 }
    }

    fn plugin() -> Plugin {
        Plugin {
            id: PluginId::new(),
            organization: OrganizationId::new(),
            name: "hours".into(),
            enforced: None,
            shadow: None,
            history: Vec::new(),
            versions_made: 9,
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn rollback_restores_former_activations_up_to_the_history_limit() {
        let mut plugin = plugin();
        assert_eq!(plugin.roll_back().expect_err("nothing yet").code, ErrorCode::NothingToRollBack);
        (1..=8).for_each(|n| plugin.activate(Mode::Enforce, activation(n)));
        let history: Vec<u32> = plugin.history.iter().map(|activation| activation.version).collect();
        assert_eq!(history, [3, 4, 5, 6, 7]);
        for n in [7, 6, 5, 4, 3] {
            assert_eq!(plugin.roll_back().expect("kept").version, n);
        }
        assert_eq!(plugin.roll_back().expect_err("no more").code, ErrorCode::NothingToRollBack);
        assert!(plugin.is_enforced(3));
    }

    #[test]
    fn enforcing_ends_the_shadow_of_the_same_version_only() {
        let mut plugin = plugin();
        plugin.activate(Mode::Shadow, activation(2));
        plugin.activate(Mode::Enforce, activation(1));
        assert!(plugin.is_shadow(2));
        plugin.activate(Mode::Enforce, activation(2));
        assert!(!plugin.is_shadow(2) && plugin.is_enforced(2) && plugin.is_in_history(1));
        plugin.deactivate();
        assert!(!plugin.is_bound() && plugin.history.is_empty());
    }

    #[test]
    fn repeating_an_activation_restarts_it_and_adds_no_history() {
        let mut plugin = plugin();
        plugin.activate(Mode::Enforce, activation(1));
        plugin.activate(Mode::Enforce, activation(1));
        assert_eq!((plugin.history.len(), plugin.enforced.as_ref().map(|a| a.since)), (0, Some(8)));
        plugin.activate(Mode::Enforce, Activation { may_grant: true, ..activation(1) });
        assert_eq!(plugin.history.len(), 1);
    }

    #[test]
    fn a_filter_route_is_a_path_with_optional_methods() {
        for valid in ["/", "/videos/:id", "POST /videos", "* /files/*rest", "GET|POST /a/{b}"] {
            assert_eq!(route_filter(valid).err(), None, "{valid}");
        }
        for invalid in ["", "videos", "post /videos", "GET|GET /videos", "GET  /videos", "GET videos", "/a//b", "/a/:"]
        {
            assert!(route_filter(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn a_filter_permission_is_a_name_or_a_prefix() {
        for valid in ["video", "video.delete", "video.*"] {
            assert_eq!(permission_fault(valid), None, "{valid}");
        }
        for invalid in ["", "*", ".*", "video*", "video.*.x", "*.delete"] {
            assert!(permission_fault(invalid).is_some(), "{invalid}");
        }
    }

    #[test]
    fn uploads_are_limited_per_organization_and_minute() {
        let (uploads, acme, bolt) = (Uploads::default(), OrganizationId::new(), OrganizationId::new());
        let at = |ms: i64| Timestamp(1_000_000 + ms);
        assert!(uploads.take(acme, at(0), 2).is_ok() && uploads.take(acme, at(20_000), 2).is_ok());
        let refused = uploads.take(acme, at(20_001), 2).expect_err("one too many");
        assert_eq!(
            (refused.code, refused.retry_after_s.map(std::num::NonZeroU32::get)),
            (ErrorCode::UploadsLimited, Some(40))
        );
        assert!(uploads.take(bolt, at(20_001), 2).is_ok());
        assert!(uploads.take(acme, at(60_000), 2).is_ok());
        assert!(uploads.take(acme, at(60_001), 2).is_err());
    }

    #[test]
    fn names_have_allowed_characters_and_a_maximum_length() {
        for valid in ["a", "business-hours-2", &"x".repeat(63)] {
            assert!(require_name(valid).is_ok(), "{valid}");
        }
        for invalid in ["", "2a", "-a", "A", "a_b", "a.b", "é", &"x".repeat(64)] {
            assert!(require_name(invalid).is_err(), "{invalid}");
        }
    }
}
