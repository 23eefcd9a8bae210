//! The organizations' own rules: plugins by name, their versions, which never change, and what of them is in force.
//!
//! A component is stored once, by its digest, no matter who uploads it: nobody can tell whether somebody else has it too,
//! because it is compiled and tried for everybody anew. What is in force is an [`Activation`] of a version; a change of
//! it is one change of the policy, so that every check lies wholly before or wholly behind it.
//!
//! **Rolling back.** Enforcing a version keeps the activation before it, [`HISTORY_MAX`] deep, and rolling back puts
//! exactly that in force again: its version, its settings and its place in the order. Deactivating ends the story:
//! nothing is kept to roll back to, and from then on only an activation puts anything in force.

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
use crate::kernel::authz::plugin::{Activation, Exports, Filter, Mode, route_filter};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{OrganizationId, PluginId, Timestamp};
use crate::kernel::sandbox::{CallResult, Fault, Limits, Ruling, vectors};
use crate::kernel::secret::Hash;

/// Activations that are kept to roll back to.
pub const HISTORY_MAX: usize = 5;

/// A plugin as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    pub id: PluginId,
    pub organization: OrganizationId,
    pub name: String,
    pub enforced: Option<Activation>,
    pub shadow: Option<Activation>,
    /// What was enforced before, the latest last.
    pub history: Vec<Activation>,
    /// The number of the latest version that there ever was.
    pub versions_made: u32,
    /// Grows with each edit.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A version as stored; its bytes lie elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub number: u32,
    pub sha256: Hash,
    pub size_bytes: u64,
    pub exports: Exports,
    pub imports: Vec<String>,
    /// Was it uploaded under the limits for big runtimes?
    pub is_large: bool,
    /// Did the vectors that it brought along pass, or had it none?
    pub is_tested: bool,
    pub report: Report,
    pub quarantined_at: Option<Timestamp>,
    /// Kind and name, as in the audit.
    pub uploaded_by: String,
    pub created_at: Timestamp,
}

/// A plugin with its versions, the oldest first.
#[derive(Debug, Clone)]
pub struct Whole {
    pub plugin: Plugin,
    pub versions: Vec<Version>,
}

/// What the tests at an upload found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What each interface answered to a question without meaning. A failure is told, not refused: a plugin may want
    /// more to go on.
    pub dry_run: Vec<Tried>,
    /// How many of the vectors that it brought along passed.
    pub vectors_passed: u32,
    /// The first of the others.
    pub vectors_failed: Vec<FailedVector>,
    pub compile_ms: u64,
}

/// What an interface answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub export: String,
    pub outcome: String,
    /// What it failed with: a sentence.
    pub failure: Option<String>,
}

/// Failed vectors that are stored per upload. More would make the list of versions large.
const FAILED_KEPT: usize = 10;
/// What was expected and answered is kept up to this length, as JSON.
const FAILED_BYTES_MAX: usize = 1_024;

fn short(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= FAILED_BYTES_MAX {
        return value;
    }
    let end = (0..=FAILED_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{} …", &text[..end]).into()
}

/// A vector that did not pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedVector {
    pub name: String,
    pub expected: Value,
    pub got: Value,
    pub failure: Option<String>,
}

/// The answer of a call, in words.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub roles: Option<Vec<String>>,
    pub fault: Option<Fault>,
}

impl Answer {
    pub fn of_authorizer(called: &CallResult<Ruling>) -> Self {
        match &called.outcome {
            Ok(ruling) => {
                let reason = if let Ruling::Deny(reason) = ruling { Some(reason.clone()) } else { None };
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

    pub fn tried(self, export: &str) -> Tried {
        let said = |fault: Fault| format!("{}: {}", fault.kind.as_str(), fault.message);
        Tried { export: export.to_owned(), outcome: self.outcome.to_owned(), failure: self.fault.map(said) }
    }
}

impl Report {
    /// With what came of the vectors.
    pub fn count(&mut self, vectors: &[vectors::Report]) {
        let (passed, failed): (Vec<_>, Vec<_>) = vectors.iter().partition(|vector| vector.passed);
        self.vectors_passed = u32::try_from(passed.len()).unwrap_or(u32::MAX);
        let told = |vector: &vectors::Report| FailedVector {
            name: vector.name.clone(),
            expected: short(vector.expected.value()),
            got: short(vector.got.value()),
            failure: vector.fault.as_ref().map(|fault| fault.message.clone()),
        };
        self.vectors_failed = failed.into_iter().take(FAILED_KEPT).map(told).collect();
    }

    pub fn is_green(&self) -> bool {
        self.vectors_failed.is_empty()
    }
}

/// How far a version has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Fit to be called, but its own vectors say that it is wrong.
    Compiled,
    Tested,
    Shadow,
    Active,
    /// It was enforced before, and can be rolled back to.
    Retired,
    Quarantined,
}

impl Plugin {
    fn is_bound(&self) -> bool {
        self.enforced.is_some() || self.shadow.is_some()
    }

    /// The activations that are in force, with their modes.
    pub fn activations(&self) -> impl Iterator<Item = (Mode, &Activation)> {
        let enforced = self.enforced.iter().map(|activation| (Mode::Enforce, activation));
        enforced.chain(self.shadow.iter().map(|activation| (Mode::Shadow, activation)))
    }

    fn is_enforced(&self, number: u32) -> bool {
        self.enforced.as_ref().is_some_and(|activation| activation.version == number)
    }

    fn is_watched(&self, number: u32) -> bool {
        self.shadow.as_ref().is_some_and(|activation| activation.version == number)
    }

    fn is_kept(&self, number: u32) -> bool {
        self.history.iter().any(|activation| activation.version == number)
    }

    /// Would something be missing without this version?
    fn needs(&self, number: u32) -> bool {
        self.is_enforced(number) || self.is_watched(number) || self.is_kept(number)
    }

    pub fn state_of(&self, version: &Version) -> State {
        let number = version.number;
        match version {
            _ if version.quarantined_at.is_some() => State::Quarantined,
            _ if self.is_enforced(number) => State::Active,
            _ if self.is_watched(number) => State::Shadow,
            _ if self.is_kept(number) => State::Retired,
            _ if version.is_tested => State::Tested,
            _ => State::Compiled,
        }
    }

    /// Enforces a version; what was enforced so far is kept to roll back to.
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
        if self.is_watched(number) {
            self.shadow = None;
        }
    }

    /// Puts a version in force, or has it watched. The same once more is no change.
    pub fn activate(&mut self, mode: Mode, mut activation: Activation) {
        let present = match mode {
            Mode::Enforce => &self.enforced,
            Mode::Shadow => &self.shadow,
        };
        if let Some(present) = present {
            // A new run, even within the same millisecond: what the former one counted is over.
            activation.since = activation.since.max(present.since + 1);
        }
        match mode {
            Mode::Enforce => self.enforce(activation),
            Mode::Shadow => self.shadow = Some(activation),
        }
    }

    /// Is the version in force in this way already?
    pub fn is_active_alike(&self, mode: Mode, activation: &Activation) -> bool {
        self.activations().any(|(present_mode, present)| present_mode == mode && is_alike(present, activation))
    }

    pub fn deactivate(&mut self) {
        (self.enforced, self.shadow) = (None, None);
        self.history.clear();
    }

    /// Puts the activation before the present one in force again; answers it.
    pub fn roll_back(&mut self) -> Result<&Activation> {
        // Without one that is enforced there is no history either.
        let former = self.history.pop().ok_or(ErrorCode::NothingToRollBack)?;
        self.end_shadow_of(former.version);
        Ok(self.enforced.insert(former))
    }
}

/// Do these mean the same, but for their beginning?
fn is_alike(one: &Activation, other: &Activation) -> bool {
    *one == Activation { since: one.since, ..other.clone() }
}

impl Whole {
    pub fn find(&self, number: u32) -> Result<&Version> {
        let found = self.versions.iter().find(|version| version.number == number);
        found.ok_or_else(|| ErrorCode::PluginVersionNotFound.into())
    }

    /// The version that is meant when none is named: the one in force, else the one that is watched, else the newest.
    pub fn usual(&self) -> Result<&Version> {
        match self.plugin.activations().next() {
            Some((_, activation)) => self.find(activation.version),
            None => self.versions.last().ok_or_else(|| ErrorCode::PluginVersionNotFound.into()),
        }
    }

    /// All that decides, for the audit.
    fn described(&self) -> Value {
        let told = |activation: &Activation| {
            let version = self.versions.iter().find(|version| version.number == activation.version);
            json!({
                "version": activation.version,
                "sha256": version.map(|version| hex::encode(version.sha256)),
                "may_grant": activation.may_grant,
                "filter": activation.filter,
                "deadline_ms": activation.deadline_ms,
            })
        };
        json!({"enforce": self.plugin.enforced.as_ref().map(told), "shadow": self.plugin.shadow.as_ref().map(told)})
    }
}

/// An activation that can hand out rights, be it again, is an owner's: by an `allow` that opens what no role does, or by
/// the roles that a mapper names.
pub fn require_owner(
    snapshot: &Snapshot,
    caller: &Identity,
    organization: OrganizationId,
    (mode, activation, exports): (Mode, &Activation, Exports),
) -> Result<()> {
    let hands_out = activation.may_grant || (mode == Mode::Enforce && exports.role_mapper);
    let is_owner = delegation::is_owner(snapshot, caller, organization);
    if hands_out && !is_owner { Err(ErrorCode::OwnerNeeded.into()) } else { Ok(()) }
}

/// Fails unless a filter can be understood. Whether there is anything of these names is not asked: an import may bring it.
pub fn require_filter(filter: &Filter) -> Result<()> {
    let entries = |list: &'static str, texts: &[String], fault: fn(&str) -> Option<String>| -> Vec<Field> {
        let faults = (0..).zip(texts).filter_map(|(n, text): (usize, _)| Some((n, fault(text)?)));
        faults.map(|(n, why)| Field::at(&["body", "filter", list, &n.to_string()], why)).collect()
    };
    let mut faults = entries("permissions", &filter.permissions, permission_fault);
    faults.extend(entries("routes", filter.routes.texts(), |text| route_filter(text).err()));
    if faults.is_empty() { Ok(()) } else { Err(Error::fields(faults)) }
}

/// What is wrong with `video.delete` or `video.*`. What could never fit would leave everything uncovered, silently.
fn permission_fault(name: &str) -> Option<String> {
    let plain = name.strip_suffix(".*").unwrap_or(name);
    let is_right = !plain.is_empty() && !plain.contains('*');
    (!is_right)
        .then(|| "is the name of a permission, or `name.*` for all below it; all lists empty cover all".to_owned())
}

/// Fails for a deadline that no call of these interfaces has.
pub fn require_deadline(deadline_ms: Option<u32>, exports: Exports, limits: &Limits) -> Result<()> {
    let of = |has: bool, running_ms: u64| if has { running_ms } else { 0 };
    let most =
        of(exports.authorizer, limits.authorize.running_ms).max(of(exports.role_mapper, limits.map_roles.running_ms));
    match deadline_ms {
        Some(ms) if u64::from(ms) > most => {
            Err(Error::field("deadline_ms", format!("must be {most} or less, as the settings limit such calls")))
        }
        _ => Ok(()),
    }
}

/// Fails for what cannot be the name of a plugin.
pub fn require_name(name: &str) -> Result<()> {
    const NAME_BYTES_MAX: usize = 63;
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|c| c.is_ascii_lowercase());
    if is_name { Ok(()) } else { Err(ErrorCode::PluginName.into()) }
}

/// When each organization uploaded lately. In memory: a restart forgives.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<OrganizationId, VecDeque<Timestamp>>>);

impl Uploads {
    const WINDOW_MS: i64 = 60_000;

    /// Counts an upload, unless there were too many within a minute.
    pub fn take(&self, organization: OrganizationId, now: Timestamp, per_min: u64) -> Result<()> {
        let Ok(mut known) = self.0.lock() else { return Ok(()) };
        known.retain(|_, times| {
            times.retain(|at| at.plus_ms(Self::WINDOW_MS) > now);
            !times.is_empty()
        });
        let times = known.entry(organization).or_default();
        if times.len() as u64 >= per_min {
            let wait_ms = times.front().map_or(0, |first| first.plus_ms(Self::WINDOW_MS).0 - now.0);
            let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000).max(1);
            return Err(Error::new(ErrorCode::UploadsLimited).retry_after(seconds));
        }
        times.push_back(now);
        Ok(())
    }
}

/// What an upload brings, once it is known to be fit.
#[derive(Debug)]
pub struct Upload {
    pub name: String,
    pub component: hyper::body::Bytes,
    pub version: Version,
}

/// How much an organization may have.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub plugins_max: u64,
    pub versions_max: u64,
    /// Of all components of the organization together.
    pub bytes_max: u64,
}

/// Fails when there is no place for one more version under this name.
pub fn require_quota(r: &Reader<'_>, organization: OrganizationId, name: &str, room: Room) -> Result<()> {
    let full = |what: String| Err(Error::new(ErrorCode::PluginsFull).with_message(format!("{what}: delete some")));
    match store::find_plugin(r, organization, name)? {
        Some(known) if store::count_versions(r, known.id)? >= room.versions_max => {
            return full(format!("the plugin has {} versions already (plugins.versions)", room.versions_max));
        }
        None if store::count_plugins(r, organization)? >= room.plugins_max => {
            let most = room.plugins_max;
            return full(format!("the organization has {most} plugins already (plugins.per_organization)"));
        }
        _ => {}
    }
    if store::sum_bytes(r, organization)? >= room.bytes_max {
        let most = room.bytes_max;
        return full(format!("the organization's components have {most} bytes already (plugins.bytes)"));
    }
    Ok(())
}

/// Stores a version under the next number, and answers it; or the one that has these bytes already.
pub fn store_version(
    t: &Transaction<'_>,
    organization: OrganizationId,
    upload: Upload,
    room: Room,
) -> Result<(Whole, u32, bool)> {
    let Upload { name, component, mut version } = upload;
    let known = store::find_plugin(t, organization, &name)?;
    if let Some(known) = &known
        && let Some(number) = store::find_version_of(t, known.id, &version.sha256)?
    {
        return Ok((store::get(t, organization, &name)?, number, false));
    }
    require_quota(t, organization, &name, room)?;
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

/// What changes here with what others change.
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
    fn rolling_back_walks_along_what_was_enforced_and_no_further_than_is_kept() {
        let mut plugin = plugin();
        assert_eq!(plugin.roll_back().expect_err("nothing yet").cause, ErrorCode::NothingToRollBack);
        (1..=8).for_each(|n| plugin.activate(Mode::Enforce, activation(n)));
        let kept: Vec<u32> = plugin.history.iter().map(|activation| activation.version).collect();
        assert_eq!(kept, [3, 4, 5, 6, 7]);
        for n in [7, 6, 5, 4, 3] {
            assert_eq!(plugin.roll_back().expect("kept").version, n);
        }
        assert_eq!(plugin.roll_back().expect_err("no more").cause, ErrorCode::NothingToRollBack);
        assert!(plugin.is_enforced(3));
    }

    #[test]
    fn enforcing_ends_the_shadow_of_the_same_version_only() {
        let mut plugin = plugin();
        plugin.activate(Mode::Shadow, activation(2));
        plugin.activate(Mode::Enforce, activation(1));
        assert!(plugin.is_watched(2));
        plugin.activate(Mode::Enforce, activation(2));
        assert!(!plugin.is_watched(2) && plugin.is_enforced(2) && plugin.is_kept(1));
        plugin.deactivate();
        assert!(!plugin.is_bound() && plugin.history.is_empty());
    }

    #[test]
    fn the_same_once_more_is_a_new_run_and_nothing_to_roll_back_to() {
        let mut plugin = plugin();
        plugin.activate(Mode::Enforce, activation(1));
        plugin.activate(Mode::Enforce, activation(1));
        assert_eq!((plugin.history.len(), plugin.enforced.as_ref().map(|a| a.since)), (0, Some(8)));
        plugin.activate(Mode::Enforce, Activation { may_grant: true, ..activation(1) });
        assert_eq!(plugin.history.len(), 1);
    }

    #[test]
    fn a_route_of_a_filter_is_a_path_perhaps_with_methods() {
        for right in ["/", "/videos/:id", "POST /videos", "* /files/*rest", "GET|POST /a/{b}"] {
            assert_eq!(route_filter(right).err(), None, "{right}");
        }
        for wrong in ["", "videos", "post /videos", "GET|GET /videos", "GET  /videos", "GET videos", "/a//b", "/a/:"] {
            assert!(route_filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_permission_of_a_filter_is_a_name_or_all_below_one() {
        for right in ["video", "video.delete", "video.*"] {
            assert_eq!(permission_fault(right), None, "{right}");
        }
        for wrong in ["", "*", ".*", "video*", "video.*.x", "*.delete"] {
            assert!(permission_fault(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn uploads_are_counted_by_organization_and_forgotten_after_a_minute() {
        let (uploads, acme, bolt) = (Uploads::default(), OrganizationId::new(), OrganizationId::new());
        let at = |ms: i64| Timestamp(1_000_000 + ms);
        assert!(uploads.take(acme, at(0), 2).is_ok() && uploads.take(acme, at(20_000), 2).is_ok());
        let refused = uploads.take(acme, at(20_001), 2).expect_err("one too many");
        assert_eq!(
            (refused.cause, refused.retry_after_s.map(std::num::NonZeroU32::get)),
            (ErrorCode::UploadsLimited, Some(40))
        );
        assert!(uploads.take(bolt, at(20_001), 2).is_ok());
        assert!(uploads.take(acme, at(60_000), 2).is_ok());
        assert!(uploads.take(acme, at(60_001), 2).is_err());
    }

    #[test]
    fn names_have_their_letters_and_their_length() {
        for right in ["a", "business-hours-2", &"x".repeat(63)] {
            assert!(require_name(right).is_ok(), "{right}");
        }
        for wrong in ["", "2a", "-a", "A", "a_b", "a.b", "é", &"x".repeat(64)] {
            assert!(require_name(wrong).is_err(), "{wrong}");
        }
    }
}
