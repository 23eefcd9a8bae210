//! Counters and gauges for `/metrics`. Counting never fails a request.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::App;
use crate::access::decide::Reason;
use crate::access::snapshot::Snapshot;
use crate::error::{Error, Result};

pub struct Figures {
    registry: Registry,
    /// By operation and status.
    pub requests: IntCounterVec,
    pub duration_s: Histogram,
    /// One per [`Reason`], in its order.
    decisions: Vec<IntCounter>,
    /// By client and outcome.
    pub clients: IntCounterVec,
    pub panics: IntCounter,
    /// Attempts by kind of target and what came of them.
    pub deliveries: IntCounterVec,
    /// What waits or was given up, by kind of target.
    pub outbox: IntGaugeVec,
    pub outbox_oldest_s: IntGauge,
    decisions_dropped: IntCounter,
    /// By outcome.
    plugin_calls: IntCounterVec,
    plugin_duration_s: Histogram,
    /// Components that the compiler refused.
    pub plugin_compile_failures: IntCounter,
    /// By digest and outcome, of what is in force: as many as there are bindings.
    plugin_runs: IntGaugeVec,
    gauges: Gauges,
}

struct Gauges {
    epoch: IntGauge,
    members: IntGauge,
    queued: IntGauge,
    jobs: IntGauge,
    batches: IntGauge,
    batch_largest: IntGauge,
    queue_busy: IntGauge,
    commit_failures: IntGauge,
    writer_panics: IntGauge,
    plugins_in_force: IntGauge,
    plugins_quarantined: IntGauge,
}

impl Figures {
    pub fn new() -> Result<Self> {
        let failed = |e: prometheus::Error| Error::internal(format!("a metric cannot be made: {e}"));
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let made = IntCounterVec::new(Opts::new(name, help), labels).map_err(failed)?;
            registry.register(Box::new(made.clone())).map_err(failed)?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let made = IntGauge::new(name, help).map_err(failed)?;
            registry.register(Box::new(made.clone())).map_err(failed)?;
            Ok(made)
        };
        let by_reason = counters("roster_decisions_total", "Answers of the check operation", &["reason"])?;
        let panics =
            IntCounter::new("roster_panics_total", "Requests that panicked and were answered 500").map_err(failed)?;
        registry.register(Box::new(panics.clone())).map_err(failed)?;
        let decisions_dropped =
            IntCounter::new("roster_decisions_dropped_total", "Decisions that the decision log could not take")
                .map_err(failed)?;
        registry.register(Box::new(decisions_dropped.clone())).map_err(failed)?;
        let buckets = vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
        let options = HistogramOpts::new("roster_request_seconds", "From arrival to answer").buckets(buckets);
        let duration_s = Histogram::with_opts(options).map_err(failed)?;
        registry.register(Box::new(duration_s.clone())).map_err(failed)?;
        let outbox = Opts::new("roster_outbox", "Deliveries that wait or were given up");
        let outbox = IntGaugeVec::new(outbox, &["target", "state"]).map_err(failed)?;
        registry.register(Box::new(outbox.clone())).map_err(failed)?;
        let buckets = vec![0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.02, 0.1];
        let options = HistogramOpts::new("roster_plugin_seconds", "One call of a plugin, without waiting for its turn");
        let plugin_duration_s = Histogram::with_opts(options.buckets(buckets)).map_err(failed)?;
        registry.register(Box::new(plugin_duration_s.clone())).map_err(failed)?;
        let about = "Components that could not be compiled within their limits";
        let plugin_compile_failures = IntCounter::new("roster_plugin_compile_failures_total", about).map_err(failed)?;
        registry.register(Box::new(plugin_compile_failures.clone())).map_err(failed)?;
        let options = Opts::new("roster_plugin_runs", "Calls of the versions that are in force or watched now");
        let plugin_runs = IntGaugeVec::new(options, &["sha256", "outcome"]).map_err(failed)?;
        registry.register(Box::new(plugin_runs.clone())).map_err(failed)?;
        Ok(Self {
            outbox,
            outbox_oldest_s: gauge("roster_outbox_oldest_seconds", "Age of the oldest event that waits for a target")?,
            deliveries: counters(
                "roster_deliveries_total",
                "Attempts to deliver an event: delivered, failed, dead",
                &["target", "outcome"],
            )?,
            plugin_calls: counters("roster_plugin_calls_total", "Calls of plugins", &["outcome"])?,
            plugin_duration_s,
            plugin_compile_failures,
            plugin_runs,
            requests: counters("roster_requests_total", "Answered requests", &["operation", "status"])?,
            clients: counters("roster_client_requests_total", "Requests of API clients", &["client", "outcome"])?,
            decisions: Reason::ALL.iter().map(|reason| by_reason.with_label_values(&[reason.word()])).collect(),
            duration_s,
            panics,
            decisions_dropped,
            gauges: Gauges {
                epoch: gauge("roster_policy_epoch", "Epoch of the policy in force")?,
                members: gauge("roster_members", "Members in the policy")?,
                queued: gauge("roster_writer_queue", "Changes that wait for the writer now")?,
                jobs: gauge("roster_writer_jobs", "Changes run since the start")?,
                batches: gauge("roster_writer_batches", "Commits since the start")?,
                batch_largest: gauge("roster_writer_batch_largest", "Most changes in one commit")?,
                queue_busy: gauge("roster_writer_busy", "Changes refused because the queue was full")?,
                commit_failures: gauge("roster_writer_commit_failures", "Commits that failed")?,
                writer_panics: gauge("roster_writer_panics", "Changes that panicked and were rolled back")?,
                plugins_in_force: gauge("roster_plugins_in_force", "Versions of plugins that are enforced or watched")?,
                plugins_quarantined: gauge("roster_plugins_quarantined", "Those of them that failed too often")?,
            },
            registry,
        })
    }

    /// A call of a plugin, by the word of its outcome.
    pub fn count_plugin_call(&self, word: &str, duration: std::time::Duration) {
        self.plugin_calls.with_label_values(&[word]).inc();
        self.plugin_duration_s.observe(duration.as_secs_f64());
    }

    /// By the reason's word.
    pub fn count_decision(&self, word: &str) {
        if let Some(counter) =
            Reason::ALL.iter().position(|reason| reason.word() == word).and_then(|n| self.decisions.get(n))
        {
            counter.inc();
        }
    }
}

/// The text that Prometheus reads.
pub fn render(app: &App) -> Result<String> {
    use std::sync::atomic::Ordering::Relaxed;
    let (db, queued) = app.db_figures();
    let gauges = &app.figures.gauges;
    let snapshot = app.guard.snapshot.load();
    let as_i64 = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    gauges.epoch.set(as_i64(snapshot.epoch));
    gauges.members.set(as_i64(snapshot.people() as u64));
    gauges.queued.set(as_i64(queued as u64));
    gauges.jobs.set(as_i64(db.jobs.load(Relaxed)));
    gauges.batches.set(as_i64(db.batches.load(Relaxed)));
    gauges.batch_largest.set(as_i64(db.batch_largest.load(Relaxed)));
    gauges.queue_busy.set(as_i64(db.queue_busy.load(Relaxed)));
    gauges.commit_failures.set(as_i64(db.commit_failures.load(Relaxed)));
    gauges.writer_panics.set(as_i64(db.panics.load(Relaxed)));
    let dropped = &app.figures.decisions_dropped;
    dropped.inc_by(app.decisions.dropped().saturating_sub(dropped.get()));
    count_plugins(&app.figures, &snapshot);
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&app.figures.registry.gather(), &mut text)
        .map_err(|e| Error::internal(format!("the metrics cannot be rendered: {e}")))?;
    String::from_utf8(text).map_err(|e| Error::internal(e.to_string()))
}

/// What is in force now, and what it has done.
fn count_plugins(figures: &Figures, snapshot: &Snapshot) {
    figures.plugin_runs.reset();
    let (mut in_force, mut quarantined) = (0, 0);
    for binding in snapshot.tenants().flat_map(|tenant| tenant.plugins().iter()) {
        in_force += 1;
        quarantined += i64::from(binding.live.is_quarantined());
        let sha256 = hex::encode(binding.sha256);
        for (outcome, count) in binding.live.look(|seen| seen.outcomes.clone()) {
            let runs = figures.plugin_runs.with_label_values(&[sha256.as_str(), outcome]);
            runs.add(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    figures.gauges.plugins_in_force.set(in_force);
    figures.gauges.plugins_quarantined.set(quarantined);
}
