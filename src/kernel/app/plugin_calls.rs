//! The organizations' own rules, as an operation asks them: a bound plugin is made ready, called, counted, and put into
//! quarantine when it fails too often.

use super::Occurrence;
use super::component_store;
use std::sync::Arc;
use std::time::Duration;

use super::{App, Changed, ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::plugin::{Binding, CallStats, LogRecord, Mode};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use crate::kernel::sandbox::{
    AccessInput, CallContext, CallResult, Fault, FaultKind, Key, Loaded, RoleInput, Ruling, Spent, Tier,
};

/// How long a question waits for a plugin that is not ready: long enough for one that was compiled before, or is small.
const READY_WAIT: Duration = Duration::from_secs(2);

impl App {
    /// Asks an authorizer; `spent` is what the same request has spent on others. Never within a transaction: no guest
    /// runs under the writer.
    pub async fn ask_authorizer(
        self: &Arc<Self>,
        organization: OrganizationId,
        binding: &Binding,
        input: AccessInput,
        spent: &Arc<Spent>,
    ) -> CallResult<Ruling> {
        let called = match self.ready(organization, binding).await {
            Ok(loaded) => self.host.authorize_within(turn(organization, binding, loaded), input, spent).await,
            Err(fault) => CallResult::failed(fault),
        };
        self.count(organization, binding, &called, called.outcome.as_ref().map(Ruling::as_str));
        called
    }

    /// Asks a role mapper. Never within a transaction.
    pub async fn ask_mapper(
        self: &Arc<Self>,
        organization: OrganizationId,
        binding: &Binding,
        input: RoleInput,
    ) -> CallResult<Vec<String>> {
        let called = match self.ready(organization, binding).await {
            Ok(loaded) => self.host.map_roles(turn(organization, binding, loaded), input).await,
            Err(fault) => CallResult::failed(fault),
        };
        self.count(organization, binding, &called, called.outcome.as_ref().map(|_| "roles"));
        called
    }

    async fn ready(self: &Arc<Self>, organization: OrganizationId, binding: &Binding) -> Result<Arc<Loaded>, Fault> {
        if let Err(e) = self.require_tier(organization, binding.is_large) {
            return Err(Fault { kind: FaultKind::Unavailable, message: e.message().to_owned() });
        }
        if binding.live.is_quarantined() {
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
            Ok(loaded) => loaded.unwrap_or_else(|e| Err(Error::internal(format!("a plugin's loading was lost: {e}")))),
            Err(_) => Err(Error::new(ErrorCode::CompilerBusy).with_message("it is being compiled")),
        };
        loaded.map_err(|e| {
            tracing::error!(plugin = %binding.name, error = %e, "a plugin in force cannot be made ready");
            Fault { kind: FaultKind::Unavailable, message: e.message().to_owned() }
        })
    }

    /// Fails for a version of a big runtime whose organization may not have one any more.
    pub fn require_tier(&self, organization: OrganizationId, is_large: bool) -> Result<()> {
        if !is_large || self.tier_of(&self.guard.snapshot.load(), organization) == Tier::Large {
            return Ok(());
        }
        let message = "this version is a big runtime, and plugins.large_organizations does not name its organization";
        Err(Error::new(ErrorCode::PluginTooLarge).with_message(message))
    }

    /// A stored component, ready to be called: it is already, or becomes so now. One that is not in force is so for as long
    /// as this is held.
    pub async fn load_plugin(&self, key: Key, tier: Tier) -> Result<Arc<Loaded>> {
        match self.host.find_loaded(&key) {
            Some(loaded) => Ok(loaded),
            None => self.host.load(key, tier, self.read(move |r| component_store::get_component(r, &key.1))).await,
        }
    }

    /// Makes ready what is in force, so that nobody waits for it: at start, where some of it must be compiled first.
    pub async fn ready_plugins(&self) {
        let snapshot = self.snapshot();
        for (organization, binding) in bound(&snapshot).filter(|(_, binding)| !binding.live.is_quarantined()) {
            let key = (organization, binding.sha256);
            if let Err(e) = self.load_plugin(key, Tier::from_is_large(binding.is_large)).await {
                tracing::error!(plugin = %binding.name, error = %e, "a plugin in force cannot be made ready");
            }
        }
    }

    /// The same with what was compiled before; answers whether that was all.
    pub async fn ready_cached_plugins(&self) -> bool {
        let snapshot = self.snapshot();
        let mut is_all = true;
        for (organization, binding) in bound(&snapshot).filter(|(_, binding)| !binding.live.is_quarantined()) {
            let fetch = async { Err(Error::new(ErrorCode::NotFound)) };
            let key = (organization, binding.sha256);
            is_all &= self.host.load(key, Tier::from_is_large(binding.is_large), fetch).await.is_ok();
        }
        is_all
    }

    /// Tells the host what is in force: after each change of that.
    pub fn keep_plugins(&self) {
        let snapshot = self.snapshot();
        self.host
            .set_in_force(bound(&snapshot).map(|(organization, binding)| (organization, binding.sha256)).collect());
    }

    /// Drops what was made of a component that the organization does not store, or not any more.
    pub async fn forget_plugin(&self, key: Key) {
        let is_stored = self.read(move |r| component_store::has_component(r, key)).await;
        // On a read error the cached copy stays; that is harmless.
        if is_stored.is_ok_and(|is_stored| !is_stored) {
            self.host.forget(&key);
        }
    }

    /// Drops what earlier runs made of components that are not stored any more, and what is too much. At start, before
    /// anybody uploads.
    pub async fn sweep_plugins(&self) {
        self.keep_plugins();
        match self.read(component_store::list_components).await {
            Ok(stored) => self.host.sweep(&stored.into_iter().collect()),
            Err(e) => tracing::warn!(error = %e, "compiled plugins could not be swept"),
        }
    }

    /// A plugin that is only watched would have changed something: counted, and written to its log.
    pub fn note_difference(&self, organization: OrganizationId, binding: &Binding, message: String) {
        tracing::info!(%organization, plugin = %binding.name, version = binding.version, message, "a watched plugin differs");
        binding.live.count(|seen| {
            seen.differed += 1;
            keep(seen, self.log_kept_max(), LogRecord { at: Timestamp::now(), level: "info", message });
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
        outcome: Result<&'static str, &Fault>,
    ) {
        let now = Timestamp::now();
        self.metrics.count_plugin_call(outcome.unwrap_or_else(|fault| fault.kind.as_str()), called.duration);
        self.metrics.plugin_slow_calls.inc_by(called.is_slow.into());
        let kept_max = self.log_kept_max();
        binding.live.count(|seen| {
            let word = outcome.unwrap_or_else(|fault| fault.kind.as_str());
            *seen.outcomes.entry(word).or_default() += 1;
            let duration_us = u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX);
            seen.duration_us = seen.duration_us.saturating_add(duration_us);
            seen.duration_us_max = seen.duration_us_max.max(duration_us);
            seen.fuel = seen.fuel.saturating_add(called.fuel);
            seen.fuel_max = seen.fuel_max.max(called.fuel);
            seen.memory_bytes_max = seen.memory_bytes_max.max(called.memory_bytes);
            seen.slow += u64::from(called.is_slow);
            seen.aside += u64::from(called.is_aside);
            seen.log_dropped += u64::from(called.log_dropped);
            let lines = called.log.iter().map(|line| (line.level.as_str(), line.message.clone()));
            // One in quarantine says no more than it did: its last lines are those that tell why.
            let fault = outcome.err().filter(|fault| fault.kind != FaultKind::Quarantined);
            let fault = fault.map(|fault| ("error", format!("{}: {}", fault.kind.as_str(), fault.message)));
            for (level, message) in lines.chain(fault) {
                keep(seen, kept_max, LogRecord { at: now, level, message });
            }
        });
        let (failures_max, window_ms) = (self.config.plugin_failures, ms(self.config.plugin_failures_window_s));
        if let Err(fault) = outcome
            && fault.kind.is_of_guest()
            && binding.live.has_failed_too_often(now, failures_max, window_ms)
        {
            self.quarantine(organization, binding, fault);
        }
    }

    /// Stores the quarantine of a version. In memory it is already in effect.
    fn quarantine(self: &Arc<Self>, organization: OrganizationId, binding: &Binding, fault: &Fault) {
        let (plugin, version, sha256) = (binding.plugin, binding.version, hex::encode(binding.sha256));
        tracing::error!(%organization, plugin = %binding.name, version, sha256, fault = fault.message, "a plugin failed too often: what it covers is denied until it is deactivated or rolled back");
        let what = serde_json::json!({"version": version, "sha256": sha256, "mode": binding.mode.as_str(), "fault": fault.kind.as_str()});
        let mut told = what.clone();
        told["name"] = serde_json::json!(*binding.name);
        let event = Event::new(EventKind::PluginQuarantined, told).within(organization);
        let entry = Entry::new("plugin", &binding.name).within(organization).after(what);
        let (app, run) = (self.clone(), binding.clone());
        tokio::spawn(async move {
            let write = move |t: &super::Transaction<'_>, _: &Identity| {
                let bound =
                    t.snapshot().tenant(organization).map(|tenant| tenant.plugins().clone()).unwrap_or_default();
                let is_over = !bound.iter().any(|other| other.is_same_run(&run));
                let is_of = |other: &Binding| (other.plugin, other.version) == (plugin, version);
                // A watched run has no effect: not on an enforced one of the same version either, after a restart.
                let decides = |other: &Binding| other.mode == Mode::Enforce && is_of(other);
                if is_over || (run.mode == Mode::Shadow && bound.iter().any(decides)) {
                    return Ok(Changed::nothing(()));
                }
                t.happened(&Occurrence::PluginQuarantined { plugin, version })?;
                Ok(Changed::new((), entry).event([event]).policy([authz::store::plugins(t, organization)?]))
            };
            if let Err(e) = app.change(&Identity::command_line(), "plugin.quarantine", write).await {
                tracing::error!(error = %e, "a quarantine could not be stored: it ends when this process ends");
            }
        });
    }
}

/// Adds a line; the oldest one goes when there are too many.
fn keep(seen: &mut CallStats, kept_max: usize, line: LogRecord) {
    if seen.log.len() >= kept_max {
        seen.log.pop_front();
    }
    seen.log.push_back(line);
}

/// All that is bound, wherever.
fn bound(snapshot: &Snapshot) -> impl Iterator<Item = (OrganizationId, &Binding)> {
    snapshot.tenants().flat_map(|tenant| tenant.plugins().iter().map(|binding| (tenant.id, binding)))
}

fn turn(organization: OrganizationId, binding: &Binding, loaded: Arc<Loaded>) -> CallContext {
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
    fn of_a_log_the_latest_lines_are_kept() {
        for (written, expected) in [(0, ""), (2, "01"), (3, "012"), (4, "123"), (9, "678")] {
            let mut seen = CallStats::default();
            for n in 0..written {
                keep(&mut seen, 3, LogRecord { at: Timestamp(n), level: "info", message: n.to_string() });
            }
            assert_eq!(seen.log.iter().map(|line| line.message.as_str()).collect::<String>(), expected);
        }
    }
}
