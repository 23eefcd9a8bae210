//! Calls of the organizations' plugins by operations: a bound plugin is loaded, called, counted, and quarantined if it
//! fails too often.

use super::Occurrence;
use super::store;
use std::sync::Arc;
use std::time::Duration;

use super::{App, Changed, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::plugin::{Binding, CallStats, LogLevel, LogRecord, Mode, PluginOutcome};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use crate::kernel::sandbox::{
    AccessInput, AuthorizeResult, CallContext, CallResult, Fault, FaultKind, Key, Loaded, RoleInput, Spent, Tier,
};

/// How long a call waits for a plugin that is not loaded: long enough if it is small or was compiled before.
const READY_WAIT: Duration = Duration::from_secs(2);

impl App {
    /// Calls an authorizer. `spent` is the time that the same HTTP request has spent on plugins so far. Must not be
    /// called within a transaction: no guest runs while the writer waits.
    pub async fn ask_authorizer(
        self: &Arc<Self>,
        organization: OrganizationId,
        binding: &Binding,
        input: AccessInput,
        spent: &Arc<Spent>,
    ) -> CallResult<AuthorizeResult> {
        let called = match self.ready(organization, binding).await {
            Ok(loaded) => self.host.authorize_within(call_context(organization, binding, loaded), input, spent).await,
            Err(fault) => CallResult::failed(fault),
        };
        self.count(organization, binding, &called, called.outcome.as_ref().map(PluginOutcome::from));
        called
    }

    /// Calls a role mapper. Must not be called within a transaction.
    pub async fn ask_mapper(
        self: &Arc<Self>,
        organization: OrganizationId,
        binding: &Binding,
        input: RoleInput,
    ) -> CallResult<Vec<String>> {
        let called = match self.ready(organization, binding).await {
            Ok(loaded) => self.host.map_roles(call_context(organization, binding, loaded), input).await,
            Err(fault) => CallResult::failed(fault),
        };
        self.count(organization, binding, &called, called.outcome.as_ref().map(|_| PluginOutcome::Roles));
        called
    }

    /// Returns the loaded component of a binding, or the fault to report if it cannot be called.
    async fn ready(self: &Arc<Self>, organization: OrganizationId, binding: &Binding) -> Result<Arc<Loaded>, Fault> {
        if let Err(e) = self.require_tier(organization, binding.is_large) {
            return Err(Fault { kind: FaultKind::Unavailable, message: e.message().to_owned() });
        }
        if binding.run_state.is_quarantined() {
            return Err(Fault {
                kind: FaultKind::Quarantined,
                message: "the plugin is in quarantine: it failed too often".into(),
            });
        }
        if let Some(loaded) = self.host.find_loaded(&(organization, binding.sha256)) {
            return Ok(loaded);
        }
        // Loading continues if the caller disconnects or stops waiting.
        let (app, key, tier) = (self.clone(), (organization, binding.sha256), Tier::from_is_large(binding.is_large));
        let loading = tokio::spawn(async move { app.load_plugin(key, tier).await });
        let loaded = match tokio::time::timeout(READY_WAIT, loading).await {
            Ok(loaded) => loaded.unwrap_or_else(|e| Err(Error::internal(format!("loading a plugin panicked: {e}")))),
            Err(_) => Err(Error::new(ErrorCode::CompilerBusy).with_message("the plugin is being compiled")),
        };
        loaded.map_err(|e| {
            tracing::error!(plugin = %binding.name, error = %e, "a plugin in force cannot be loaded");
            Fault { kind: FaultKind::Unavailable, message: e.message().to_owned() }
        })
    }

    /// Fails with `plugin_too_large` for a large version (one with a language runtime) if its organization may not have
    /// one any more.
    pub fn require_tier(&self, organization: OrganizationId, is_large: bool) -> Result<()> {
        if !is_large || self.tier_of(&self.guard.snapshot.load(), organization) == Tier::Large {
            return Ok(());
        }
        let message =
            "this version needs plugins.large, and plugins.large_organizations does not name its organization";
        Err(Error::new(ErrorCode::PluginTooLarge).with_message(message))
    }

    /// Returns a stored component ready to be called, and loads it if necessary. One that is not in force stays in
    /// memory only as long as the result is held.
    pub async fn load_plugin(&self, key: Key, tier: Tier) -> Result<Arc<Loaded>> {
        match self.host.find_loaded(&key) {
            Some(loaded) => Ok(loaded),
            None => self.host.load(key, tier, self.read(move |r| store::get_component(r, &key.1))).await,
        }
    }

    /// Loads all plugins in force at the start, so that no request waits for it. Some may have to be compiled first.
    pub async fn ready_plugins(&self) {
        let snapshot = self.snapshot();
        for (key, tier, binding) in callable(&snapshot) {
            if let Err(e) = self.load_plugin(key, tier).await {
                tracing::error!(plugin = %binding.name, error = %e, "a plugin in force cannot be loaded");
            }
        }
    }

    /// Loads those plugins in force that are in the compilation cache; returns whether these were all.
    pub async fn ready_cached_plugins(&self) -> bool {
        let snapshot = self.snapshot();
        let mut is_all = true;
        for (key, tier, _) in callable(&snapshot) {
            let fetch = async { Err(Error::new(ErrorCode::NotFound)) };
            is_all &= self.host.load(key, tier, fetch).await.is_ok();
        }
        is_all
    }

    /// Passes the set of plugins in force to the host; called after each change of the set.
    pub fn update_plugins_in_force(&self) {
        let snapshot = self.snapshot();
        self.host.set_active(bound(&snapshot).map(|(organization, binding)| (organization, binding.sha256)).collect());
    }

    /// Drops the compiled form of a component that the organization does not store, or no longer stores.
    pub async fn forget_plugin(&self, key: Key) {
        let is_stored = self.read(move |r| store::has_component(r, key)).await;
        // On a read error the cached copy stays; that is harmless.
        if is_stored.is_ok_and(|is_stored| !is_stored) {
            self.host.forget(&key);
        }
    }

    /// Drops cached compilations of components that are no longer stored, and those beyond the cache limit. Runs at the
    /// start, before any upload.
    pub async fn sweep_plugins(&self) {
        self.update_plugins_in_force();
        match self.read(store::list_components).await {
            Ok(stored) => self.host.sweep(&stored.into_iter().collect()),
            Err(e) => tracing::warn!(error = %e, "the cache of compiled plugins could not be cleaned up"),
        }
    }

    /// Counts that the result of a shadow plugin differs from that in force, and writes it to the plugin's log.
    pub fn record_shadow_difference(&self, organization: OrganizationId, binding: &Binding, message: String) {
        tracing::info!(%organization, plugin = %binding.name, version = binding.version, message, "a shadow plugin differs");
        binding.run_state.count(|stats| {
            stats.differed += 1;
            push_line(stats, self.log_kept_max(), LogRecord { at: Timestamp::now(), level: LogLevel::Info, message });
        });
    }

    fn log_kept_max(&self) -> usize {
        usize::try_from(self.config.plugin_log_kept).unwrap_or(usize::MAX)
    }

    fn count<T>(
        self: &Arc<Self>,
        organization: OrganizationId,
        binding: &Binding,
        called: &CallResult<T>,
        answer: Result<PluginOutcome, &Fault>,
    ) {
        let now = Timestamp::now();
        let outcome = answer.unwrap_or_else(|fault| PluginOutcome::Failed(fault.kind));
        self.metrics.count_plugin_call(outcome, called.duration);
        self.metrics.plugin_slow_calls.inc_by(called.is_slow.into());
        let kept_max = self.log_kept_max();
        binding.run_state.count(|stats| {
            *stats.outcomes.entry(outcome).or_default() += 1;
            let duration_us = u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX);
            stats.duration_us = stats.duration_us.saturating_add(duration_us);
            stats.duration_us_max = stats.duration_us_max.max(duration_us);
            stats.fuel = stats.fuel.saturating_add(called.fuel);
            stats.fuel_max = stats.fuel_max.max(called.fuel);
            stats.memory_bytes_max = stats.memory_bytes_max.max(called.memory_bytes);
            stats.slow += u64::from(called.is_slow);
            stats.aside += u64::from(called.is_aside);
            stats.log_dropped += u64::from(called.log_dropped);
            let lines = called.log.iter().map(|line| (line.level, line.message.clone()));
            // Calls in quarantine add no lines: the last lines are those that explain it.
            let fault = answer.err().filter(|fault| fault.kind != FaultKind::Quarantined);
            let fault = fault.map(|fault| (LogLevel::Error, format!("{}: {}", fault.kind.as_str(), fault.message)));
            for (level, message) in lines.chain(fault) {
                push_line(stats, kept_max, LogRecord { at: now, level, message });
            }
        });
        let (failures_max, window_ms) =
            (self.config.plugin_failures, seconds_to_ms(self.config.plugin_failures_window_s));
        if let Err(fault) = answer
            && fault.kind.is_guest_fault()
            && binding.run_state.has_failed_too_often(now, failures_max, window_ms)
        {
            self.quarantine(organization, binding, fault);
        }
    }

    /// Stores the quarantine of a version. In memory it is in effect already.
    fn quarantine(self: &Arc<Self>, organization: OrganizationId, binding: &Binding, fault: &Fault) {
        let (plugin, version, sha256) = (binding.plugin, binding.version, hex::encode(binding.sha256));
        tracing::error!(%organization, plugin = %binding.name, version, sha256, fault = fault.message, "a plugin failed too often and is quarantined: the requests it covers are denied until it is deactivated or rolled back");
        let details = serde_json::json!({"version": version, "sha256": sha256, "mode": binding.mode.as_str(), "fault": fault.kind.as_str()});
        let mut data = details.clone();
        data["name"] = serde_json::json!(*binding.name);
        let event = Event::new(EventKind::PluginQuarantined, data).within(organization);
        let entry = Entry::new("plugin", &binding.name).within(organization).after(details);
        let (app, run) = (self.clone(), binding.clone());
        tokio::spawn(async move {
            let write = move |t: &super::Transaction<'_>, _: &Identity| {
                let bound =
                    t.snapshot().tenant(organization).map(|tenant| tenant.plugins().clone()).unwrap_or_default();
                let is_over = !bound.iter().any(|other| other.is_same_run(&run));
                let is_of = |other: &Binding| (other.plugin, other.version) == (plugin, version);
                // A shadow run must not quarantine an enforced run of the same version, also not after a restart.
                let decides = |other: &Binding| other.mode == Mode::Enforce && is_of(other);
                if is_over || (run.mode == Mode::Shadow && bound.iter().any(decides)) {
                    return Ok(Changed::unchanged(()));
                }
                t.react_to(&Occurrence::PluginQuarantined { plugin, version })?;
                Ok(Changed::new((), entry)
                    .with_events([event])
                    .with_policy_changes([authz::store::plugins(t, organization)?]))
            };
            if let Err(e) = app.change(&Identity::command_line(), "plugin.quarantine", write).await {
                tracing::error!(error = %e, "a quarantine could not be stored: it lasts only until this process ends");
            }
        });
    }
}

/// Adds a line; drops the oldest one if there are too many.
fn push_line(stats: &mut CallStats, kept_max: usize, line: LogRecord) {
    if stats.log.len() >= kept_max {
        stats.log.pop_front();
    }
    stats.log.push_back(line);
}

/// All plugins that are bound, with their organizations.
fn bound(snapshot: &Snapshot) -> impl Iterator<Item = (OrganizationId, &Binding)> {
    snapshot.tenants().flat_map(|tenant| tenant.plugins().iter().map(|binding| (tenant.id, binding)))
}

/// The components of all plugins that are bound and not in quarantine.
fn callable(snapshot: &Snapshot) -> impl Iterator<Item = (Key, Tier, &Binding)> {
    bound(snapshot)
        .filter(|(_, binding)| !binding.run_state.is_quarantined())
        .map(|(organization, binding)| ((organization, binding.sha256), Tier::from_is_large(binding.is_large), binding))
}

fn call_context(organization: OrganizationId, binding: &Binding, loaded: Arc<Loaded>) -> CallContext {
    let is_trial = binding.mode == Mode::Shadow;
    CallContext {
        organization,
        loaded,
        tier: Tier::from_is_large(binding.is_large),
        deadline_ms: binding.deadline_ms,
        is_trial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_of_a_log_are_kept() {
        for (written, expected) in [(0, ""), (2, "01"), (3, "012"), (4, "123"), (9, "678")] {
            let mut stats = CallStats::default();
            for n in 0..written {
                push_line(&mut stats, 3, LogRecord { at: Timestamp(n), level: LogLevel::Info, message: n.to_string() });
            }
            assert_eq!(stats.log.iter().map(|line| line.message.as_str()).collect::<String>(), expected);
        }
    }
}
