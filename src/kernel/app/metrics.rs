//! Counters and gauges for `/metrics`. Counting never fails a request.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::App;
use crate::kernel::authz::decide::Reason;
use crate::kernel::authz::plugin::PluginOutcome;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{Error, Result};

/// The registered metrics.
pub struct Metrics {
    registry: Registry,
    /// By operation and status.
    pub requests: IntCounterVec,
    pub duration_s: Histogram,
    /// One per [`Reason`], in its order.
    decisions: Vec<IntCounter>,
    /// By client and outcome.
    pub clients: IntCounterVec,
    pub panics: IntCounter,
    /// Attempts to deliver an event, by kind of target and outcome.
    pub deliveries: IntCounterVec,
    /// Deliveries by kind of target and state.
    pub outbox: IntGaugeVec,
    pub outbox_oldest_s: IntGauge,
    /// Claims that wait for a job.
    pub jobs_waiting: IntGauge,
    decisions_dropped: IntCounter,
    log_dropped: IntCounter,
    /// By outcome.
    plugin_calls: IntCounterVec,
    plugin_duration_s: Histogram,
    /// Calls that took more processor time than `plugins.fast_us`.
    pub plugin_slow_calls: IntCounter,
    /// Components that the compiler refused.
    pub plugin_compile_failures: IntCounter,
    /// By digest and outcome, for the plugin versions in force; so their number is bounded by the bindings.
    plugin_runs: IntGaugeVec,
    gauges: Gauges,
}

struct Gauges {
    epoch: IntGauge,
    body_bytes: IntGauge,
    members: IntGauge,
    queued: IntGauge,
    jobs: IntGauge,
    batches: IntGauge,
    batch_largest: IntGauge,
    queue_busy: IntGauge,
    steps_largest: IntGauge,
    commit_failures: IntGauge,
    writer_panics: IntGauge,
    plugins_in_force: IntGauge,
    plugins_quarantined: IntGauge,
    plugin_loaded_bytes: IntGauge,
    plugin_cache_bytes: IntGauge,
    plugin_unloaded: IntGauge,
    plugin_uncached: IntGauge,
}

/// The description of a metric, for the manual.
#[derive(Debug)]
pub struct MetricDescription {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub about: String,
}

/// The descriptions of all metrics, sorted by name.
pub fn descriptions() -> Result<Vec<MetricDescription>> {
    let factory = MetricFactory::default();
    Metrics::of(&factory)?;
    let mut described = factory.described.into_inner();
    described.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(described)
}

/// Creates and registers metrics.
#[derive(Default)]
struct MetricFactory {
    registry: Registry,
    described: RefCell<Vec<MetricDescription>>,
}

impl MetricFactory {
    fn registered<M: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        metric: prometheus::Result<M>,
    ) -> Result<M> {
        let failed = |e: prometheus::Error| Error::internal(format!("a metric cannot be created: {e}"));
        let metric = metric.map_err(failed)?;
        self.registry.register(Box::new(metric.clone())).map_err(failed)?;
        self.described.borrow_mut().extend(metric.desc().into_iter().map(|desc| MetricDescription {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            about: desc.help.clone(),
        }));
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.registered("counter", IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.registered("counter", IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.registered("gauge", IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.registered("gauge", IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
        self.registered("histogram", Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }
}

impl Gauges {
    fn new(factory: &MetricFactory) -> Result<Self> {
        Ok(Self {
            epoch: factory.gauge("roster_policy_epoch", "Epoch of the current policy")?,
            body_bytes: factory.gauge("roster_body_bytes", "Bytes of request bodies in memory")?,
            members: factory.gauge("roster_members", "Members in the policy")?,
            queued: factory.gauge("roster_writer_queue", "Changes that wait for the writer")?,
            jobs: factory.gauge("roster_writer_jobs", "Changes since the start")?,
            batches: factory.gauge("roster_writer_batches", "Commits since the start")?,
            batch_largest: factory.gauge("roster_writer_batch_largest", "Most changes in one commit")?,
            queue_busy: factory.gauge("roster_writer_busy", "Changes refused because the queue was full")?,
            steps_largest: factory.gauge(
                "roster_writer_steps_largest",
                "Most SQLite virtual machine steps of one change since the start",
            )?,
            commit_failures: factory.gauge("roster_writer_commit_failures", "Commits that failed")?,
            writer_panics: factory.gauge("roster_writer_panics", "Changes that panicked and were rolled back")?,
            plugins_in_force: factory.gauge("roster_plugins_in_force", "Plugin versions in enforce or shadow mode")?,
            plugins_quarantined: factory
                .gauge("roster_plugins_quarantined", "Plugin versions in quarantine because they failed too often")?,
            plugin_loaded_bytes: factory.gauge("roster_plugin_loaded_bytes", "Bytes of compiled plugins in memory")?,
            plugin_cache_bytes: factory.gauge("roster_plugin_cache_bytes", "Bytes of compiled plugins on disk")?,
            plugin_unloaded: factory
                .gauge("roster_plugin_unloaded", "Compiled plugins evicted from memory since the start")?,
            plugin_uncached: factory
                .gauge("roster_plugin_uncached", "Compiled plugins evicted from the disk cache since the start")?,
        })
    }
}

impl Metrics {
    pub fn new() -> Result<Self> {
        Self::of(&MetricFactory::default())
    }

    fn of(factory: &MetricFactory) -> Result<Self> {
        let by_reason = factory.counters("roster_decisions_total", "Decisions, by reason", &["reason"])?;
        let request_s = vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
        let plugin_s = vec![0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.02, 0.1];
        let about_slow = "Plugin calls that took more than plugins.fast_us of processor time";
        let about_compiler = "Components that could not be compiled within their limits";
        Ok(Self {
            outbox: factory.gauges("roster_outbox", "Deliveries that are pending or dead", &["target", "state"])?,
            outbox_oldest_s: factory
                .gauge("roster_outbox_oldest_seconds", "Age of the oldest event with a pending delivery")?,
            jobs_waiting: factory.gauge("roster_jobs_waiting", "Claims that wait for a job")?,
            deliveries: factory.counters(
                "roster_deliveries_total",
                "Attempts to deliver an event: delivered, failed, dead",
                &["target", "outcome"],
            )?,
            plugin_calls: factory.counters("roster_plugin_calls_total", "Plugin calls", &["outcome"])?,
            plugin_duration_s: factory.histogram(
                "roster_plugin_seconds",
                "Duration of one plugin call, without waiting time",
                plugin_s,
            )?,
            plugin_slow_calls: factory.counter("roster_plugin_slow_calls_total", about_slow)?,
            plugin_compile_failures: factory.counter("roster_plugin_compile_failures_total", about_compiler)?,
            plugin_runs: factory.gauges(
                "roster_plugin_runs",
                "Calls of the plugin versions in enforce or shadow mode",
                &["sha256", "outcome"],
            )?,
            requests: factory.counters("roster_requests_total", "Answered requests", &["operation", "status"])?,
            clients: factory.counters(
                "roster_client_requests_total",
                "Requests of API clients",
                &["client", "outcome"],
            )?,
            decisions: Reason::ALL.iter().map(|reason| by_reason.with_label_values(&[reason.as_str()])).collect(),
            duration_s: factory.histogram(
                "roster_request_seconds",
                "Duration of a request, from its start to the response",
                request_s,
            )?,
            panics: factory.counter("roster_panics_total", "Requests that panicked and were answered 500")?,
            decisions_dropped: factory
                .counter("roster_decisions_dropped_total", "Decisions that could not be logged")?,
            log_dropped: factory.counter(
                "roster_log_dropped_total",
                "Log lines that could not be written, or did not fit into the queue",
            )?,
            gauges: Gauges::new(factory)?,
            registry: factory.registry.clone(),
        })
    }

    /// Counts a plugin call by its outcome.
    pub fn count_plugin_call(&self, outcome: PluginOutcome, duration: std::time::Duration) {
        self.plugin_calls.with_label_values(&[outcome.as_str()]).inc();
        self.plugin_duration_s.observe(duration.as_secs_f64());
    }

    /// Counts a decision by its reason.
    pub fn count_decision(&self, reason: Reason) {
        // `Reason::ALL` lists the variants in their order, and so do the counters.
        if let Some(counter) = self.decisions.get(reason as usize) {
            counter.inc();
        }
    }
}

/// Renders all metrics in the Prometheus text format.
pub fn render(app: &App) -> Result<String> {
    use std::sync::atomic::Ordering::Relaxed;
    let (db, queued) = app.db_stats();
    let gauges = &app.metrics.gauges;
    let snapshot = app.guard.snapshot.load();
    let as_i64 = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    gauges.epoch.set(as_i64(snapshot.epoch));
    gauges.body_bytes.set(as_i64(app.intake.in_flight()));
    gauges.members.set(as_i64(snapshot.member_state_count() as u64));
    gauges.queued.set(as_i64(queued as u64));
    gauges.jobs.set(as_i64(db.jobs.load(Relaxed)));
    gauges.batches.set(as_i64(db.batches.load(Relaxed)));
    gauges.batch_largest.set(as_i64(db.batch_largest.load(Relaxed)));
    gauges.queue_busy.set(as_i64(db.queue_busy.load(Relaxed)));
    gauges.steps_largest.set(as_i64(db.steps_largest.load(Relaxed)));
    gauges.commit_failures.set(as_i64(db.commit_failures.load(Relaxed)));
    gauges.writer_panics.set(as_i64(db.panics.load(Relaxed)));
    let dropped = &app.metrics.decisions_dropped;
    dropped.inc_by(app.decisions.dropped().saturating_sub(dropped.get()));
    let dropped = &app.metrics.log_dropped;
    dropped.inc_by(crate::kernel::runtime::log::dropped().saturating_sub(dropped.get()));
    count_plugins(&app.metrics, &snapshot);
    let kept = app.host.component_stats();
    gauges.plugin_loaded_bytes.set(as_i64(kept.loaded_bytes));
    gauges.plugin_cache_bytes.set(as_i64(kept.cached_bytes));
    gauges.plugin_unloaded.set(as_i64(kept.unloaded));
    gauges.plugin_uncached.set(as_i64(kept.uncached));
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&app.metrics.registry.gather(), &mut text)
        .map_err(|e| Error::internal(format!("the metrics cannot be rendered: {e}")))?;
    String::from_utf8(text).map_err(|e| Error::internal(e.to_string()))
}

/// Sets the metrics of the plugins in force and their calls.
fn count_plugins(metrics: &Metrics, snapshot: &Snapshot) {
    metrics.plugin_runs.reset();
    let (mut in_force, mut quarantined) = (0, 0);
    for binding in snapshot.tenants().flat_map(|tenant| tenant.plugins().iter()) {
        in_force += 1;
        quarantined += i64::from(binding.run_state.is_quarantined());
        let sha256 = hex::encode(binding.sha256);
        for (outcome, count) in binding.run_state.read(|stats| stats.outcomes.clone()) {
            let runs = metrics.plugin_runs.with_label_values(&[sha256.as_str(), outcome.as_str()]);
            runs.add(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    metrics.gauges.plugins_in_force.set(in_force);
    metrics.gauges.plugins_quarantined.set(quarantined);
}
