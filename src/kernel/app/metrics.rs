//! Counters and gauges for `/metrics`. Counting never fails a request.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::App;
use crate::kernel::authz::decide::Reason;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{Error, Result};

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
    /// Attempts by kind of target and what came of them.
    pub deliveries: IntCounterVec,
    /// What waits or was given up, by kind of target.
    pub outbox: IntGaugeVec,
    pub outbox_oldest_s: IntGauge,
    /// Claims that wait for a job.
    pub jobs_waiting: IntGauge,
    decisions_dropped: IntCounter,
    log_dropped: IntCounter,
    /// By outcome.
    plugin_calls: IntCounterVec,
    plugin_duration_s: Histogram,
    /// Those that took more processor time than one may take on the thread of a request.
    pub plugin_slow_calls: IntCounter,
    /// Components that the compiler refused.
    pub plugin_compile_failures: IntCounter,
    /// By digest and outcome, of what is in force: as many as there are bindings.
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

/// A metric, for the manual.
#[derive(Debug)]
pub struct Described {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub about: String,
}

/// Every metric there is, by name.
pub fn described() -> Result<Vec<Described>> {
    let maker = MetricFactory::default();
    Metrics::of(&maker)?;
    let mut described = maker.described.into_inner();
    described.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(described)
}

/// Makes metrics, each known to the registry from then on.
#[derive(Default)]
struct MetricFactory {
    registry: Registry,
    described: RefCell<Vec<Described>>,
}

impl MetricFactory {
    fn registered<M: Collector + Clone + 'static>(&self, kind: &'static str, made: prometheus::Result<M>) -> Result<M> {
        let failed = |e: prometheus::Error| Error::internal(format!("a metric cannot be made: {e}"));
        let made = made.map_err(failed)?;
        self.registry.register(Box::new(made.clone())).map_err(failed)?;
        self.described.borrow_mut().extend(made.desc().into_iter().map(|desc| Described {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            about: desc.help.clone(),
        }));
        Ok(made)
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
    fn new(made: &MetricFactory) -> Result<Self> {
        Ok(Self {
            epoch: made.gauge("roster_policy_epoch", "Epoch of the policy in force")?,
            body_bytes: made.gauge("roster_body_bytes", "Bytes of request bodies in memory now")?,
            members: made.gauge("roster_members", "Members in the policy")?,
            queued: made.gauge("roster_writer_queue", "Changes that wait for the writer now")?,
            jobs: made.gauge("roster_writer_jobs", "Changes run since the start")?,
            batches: made.gauge("roster_writer_batches", "Commits since the start")?,
            batch_largest: made.gauge("roster_writer_batch_largest", "Most changes in one commit")?,
            queue_busy: made.gauge("roster_writer_busy", "Changes refused because the queue was full")?,
            steps_largest: made.gauge(
                "roster_writer_steps_largest",
                "Most work of SQLite in one change since the start, in its steps",
            )?,
            commit_failures: made.gauge("roster_writer_commit_failures", "Commits that failed")?,
            writer_panics: made.gauge("roster_writer_panics", "Changes that panicked and were rolled back")?,
            plugins_in_force: made
                .gauge("roster_plugins_in_force", "Versions of plugins that are enforced or watched")?,
            plugins_quarantined: made.gauge("roster_plugins_quarantined", "Versions in force that failed too often")?,
            plugin_loaded_bytes: made.gauge("roster_plugin_loaded_bytes", "Bytes of compiled plugins in memory")?,
            plugin_cache_bytes: made.gauge("roster_plugin_cache_bytes", "Bytes of compiled plugins on disk")?,
            plugin_unloaded: made
                .gauge("roster_plugin_unloaded", "Compiled plugins that left memory for others since the start")?,
            plugin_uncached: made
                .gauge("roster_plugin_uncached", "Compiled plugins that left the disk for others since the start")?,
        })
    }
}

impl Metrics {
    pub fn new() -> Result<Self> {
        Self::of(&MetricFactory::default())
    }

    fn of(made: &MetricFactory) -> Result<Self> {
        let by_reason = made.counters("roster_decisions_total", "Answers of the check operation", &["reason"])?;
        let request_s = vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
        let plugin_s = vec![0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.02, 0.1];
        let about_slow = "Calls of plugins that took more than plugins.fast_us of processor time";
        let about_compiler = "Components that could not be compiled within their limits";
        Ok(Self {
            outbox: made.gauges("roster_outbox", "Deliveries that wait or were given up", &["target", "state"])?,
            outbox_oldest_s: made
                .gauge("roster_outbox_oldest_seconds", "Age of the oldest event that waits for a target")?,
            jobs_waiting: made.gauge("roster_jobs_waiting", "Claims that wait for a job now")?,
            deliveries: made.counters(
                "roster_deliveries_total",
                "Attempts to deliver an event: delivered, failed, dead",
                &["target", "outcome"],
            )?,
            plugin_calls: made.counters("roster_plugin_calls_total", "Calls of plugins", &["outcome"])?,
            plugin_duration_s: made.histogram(
                "roster_plugin_seconds",
                "One call of a plugin, without waiting for its turn",
                plugin_s,
            )?,
            plugin_slow_calls: made.counter("roster_plugin_slow_calls_total", about_slow)?,
            plugin_compile_failures: made.counter("roster_plugin_compile_failures_total", about_compiler)?,
            plugin_runs: made.gauges(
                "roster_plugin_runs",
                "Calls of the versions that are in force or watched now",
                &["sha256", "outcome"],
            )?,
            requests: made.counters("roster_requests_total", "Answered requests", &["operation", "status"])?,
            clients: made.counters(
                "roster_client_requests_total",
                "Requests of API clients",
                &["client", "outcome"],
            )?,
            decisions: Reason::ALL.iter().map(|reason| by_reason.with_label_values(&[reason.as_str()])).collect(),
            duration_s: made.histogram(
                "roster_request_seconds",
                "From the start of a request to its answer",
                request_s,
            )?,
            panics: made.counter("roster_panics_total", "Requests that panicked and were answered 500")?,
            decisions_dropped: made
                .counter("roster_decisions_dropped_total", "Decisions that the decision log could not take")?,
            log_dropped: made
                .counter("roster_log_dropped_total", "Log lines that could not be written, or found the queue full")?,
            gauges: Gauges::new(made)?,
            registry: made.registry.clone(),
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
            Reason::ALL.iter().position(|reason| reason.as_str() == word).and_then(|n| self.decisions.get(n))
        {
            counter.inc();
        }
    }
}

/// The text that Prometheus reads.
pub fn render(app: &App) -> Result<String> {
    use std::sync::atomic::Ordering::Relaxed;
    let (db, queued) = app.db_stats();
    let gauges = &app.metrics.gauges;
    let snapshot = app.guard.snapshot.load();
    let as_i64 = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    gauges.epoch.set(as_i64(snapshot.epoch));
    gauges.body_bytes.set(as_i64(app.intake.in_flight()));
    gauges.members.set(as_i64(snapshot.member_states() as u64));
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
    let kept = app.host.kept();
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

/// What is in force now, and what it has done.
fn count_plugins(metrics: &Metrics, snapshot: &Snapshot) {
    metrics.plugin_runs.reset();
    let (mut in_force, mut quarantined) = (0, 0);
    for binding in snapshot.tenants().flat_map(|tenant| tenant.plugins().iter()) {
        in_force += 1;
        quarantined += i64::from(binding.live.is_quarantined());
        let sha256 = hex::encode(binding.sha256);
        for (outcome, count) in binding.live.look(|seen| seen.outcomes.clone()) {
            let runs = metrics.plugin_runs.with_label_values(&[sha256.as_str(), outcome]);
            runs.add(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    metrics.gauges.plugins_in_force.set(in_force);
    metrics.gauges.plugins_quarantined.set(quarantined);
}
