//! `roster plugin check`, `test` and `bench`: validates, tests and measures a component without a server or a data
//! directory. Nothing is written to disk.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Common, Failed};
use crate::cli::output;
use crate::kernel::config::Config;
use crate::kernel::error::Error;
use crate::kernel::ids::OrganizationId;
use crate::kernel::sandbox::vectors::{self, Report};
use crate::kernel::sandbox::{
    AccessInput, Admitted, CallContext, CallResult, Host, PROOF_CALLS, RoleInput, Tier, UploadProgress, inspect,
};

/// A component file, and the limits that apply to it.
#[derive(Args)]
pub(in crate::cli) struct Component {
    /// The component
    file: PathBuf,
    /// Apply the limits for big runtimes, such as Python (plugins.large)
    #[arg(long)]
    large: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    component: Component,
}

#[derive(Args)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    component: Component,
    /// Test vectors in YAML or JSON; by default those in the component
    vectors: Option<PathBuf>,
}

#[derive(Args)]
pub(in crate::cli) struct Bench {
    #[command(flatten)]
    component: Component,
    /// How many calls of each kind
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
}

/// A plugin host with the default limits, and the bytes of a component file.
pub(super) struct OfflineHost {
    pub(super) host: Host,
    pub(super) bytes: Vec<u8>,
    pub(super) tier: Tier,
    /// A random id. The host uses it only to share its capacity among organizations.
    pub(super) organization: OrganizationId,
}

impl OfflineHost {
    /// Reads the file.
    pub(super) fn of(file: &Path, is_large: bool) -> Result<Self, Failed> {
        let host = Host::without_cache(&Config::of(Path::new("")));
        let tier = Tier::from_is_large(is_large);
        // One byte above the limit is enough to detect a file that is too large.
        let bytes = read(file, host.limits(tier).file_bytes + 1)?;
        Ok(Self { host, bytes, tier, organization: OrganizationId::new() })
    }

    /// The context for calls to this component.
    pub(super) fn call_context(&self, admitted: &Admitted) -> CallContext {
        CallContext {
            organization: self.organization,
            loaded: admitted.loaded.clone(),
            tier: self.tier,
            deadline_ms: None,
            is_trial: false,
        }
    }
}

/// Reads a file, at most `bytes_max` bytes of it.
fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    read.map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    Ok(bytes)
}

fn exit_code(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn problem(error: &Error) -> String {
    format!("{}: {}", error.code.as_str(), error.message())
}

/// `roster plugin check`.
pub(super) async fn check(common: &Common, check: &Check) -> Result<ExitCode, Failed> {
    let offline = OfflineHost::of(&check.component.file, check.component.large)?;
    let inspection = inspect::inspect_all(&offline.bytes, offline.host.limits(offline.tier));
    let mut problems: Vec<String> = inspection.problems.iter().map(problem).collect();
    let mut result = json!({
        "ok": false,
        "exports": inspection.inspected.exports.names(),
        "imports": inspection.inspected.imports,
        "bytes": offline.bytes.len(),
        "problems": [],
    });
    if problems.is_empty() {
        let nobody: Arc<dyn UploadProgress> = Arc::new(());
        match offline.host.admit_and_test(offline.organization, &offline.bytes, offline.tier, &nobody).await {
            Err(e) => problems.push(problem(&e)),
            Ok((admitted, reports)) => {
                problems.extend(reports.iter().filter(|report| !report.passed).map(|report| {
                    format!(
                        "plugin_vectors_failed: {}: expected {}, got {}",
                        report.name,
                        report.expected.value(),
                        report.got.value()
                    )
                }));
                result["sha256"] = json!(hex::encode(admitted.sha256));
                result["compile_ms"] = json!(admitted.compile_time.as_millis());
                result["artifact_bytes"] = json!(admitted.artifact.len());
                result["vectors"] = json!(reports.iter().map(Report::value).collect::<Vec<_>>());
            }
        }
    }
    result["ok"] = json!(problems.is_empty());
    result["problems"] = json!(problems);
    if !common.json {
        // Reports are too long for this output: `plugin test` prints them.
        result["vectors"] = json!(result["vectors"].as_array().map_or(0, Vec::len));
    }
    output::print_object(common.json, &result);
    Ok(exit_code(problems.is_empty()))
}

/// `roster plugin test`.
pub(super) async fn test(common: &Common, test: &Test) -> Result<ExitCode, Failed> {
    let offline = OfflineHost::of(&test.component.file, test.component.large)?;
    let vectors = match &test.vectors {
        Some(file) => vectors::parse(&read(file, vectors::VECTORS_BYTES_MAX as u64 + 1)?)?,
        None => vectors::of_component(&offline.bytes)?,
    };
    if vectors.is_empty() {
        return Err(Failed(
            "there are no test vectors: name a file, or add vectors to the component with `roster plugin pack`".into(),
        ));
    }
    let admitted = offline.host.admit(offline.organization, &offline.bytes, offline.tier).await?;
    let call_context = offline.call_context(&admitted);
    let reports = offline.host.test(&call_context, &vectors).await;
    let passed = reports.iter().filter(|report| report.passed).count();
    let items: Vec<Value> = reports.iter().map(Report::value).collect();
    let all_passed = passed == reports.len();
    output::print_table(
        common.json,
        &json!({"ok": all_passed, "passed": passed, "total": items.len(), "items": items}),
        &["name", "passed", "expected", "got", "fuel", "duration_us"],
    );
    if !common.json {
        for report in &reports {
            if let Some(fault) = report.fault.as_ref().filter(|_| !report.passed) {
                say!("{}: {}: {}", report.name, fault.kind.as_str(), fault.message);
            }
            report.log.iter().for_each(|line| say!("{}: log {}: {}", report.name, line.level.as_str(), line.message));
        }
    }
    Ok(exit_code(all_passed))
}

/// `roster plugin bench`.
pub(super) async fn bench(common: &Common, bench: &Bench) -> Result<ExitCode, Failed> {
    let offline = OfflineHost::of(&bench.component.file, bench.component.large)?;
    let admitted = offline.host.admit(offline.organization, &offline.bytes, offline.tier).await?;
    let call_context = offline.call_context(&admitted);
    let mut result = Map::new();
    result.insert("calls".into(), json!(bench.calls));
    result.insert("bytes".into(), json!(offline.bytes.len()));
    result.insert("compile_ms".into(), json!(admitted.compile_time.as_millis()));
    result.insert("artifact_bytes".into(), json!(admitted.artifact.len()));
    let mut started = Vec::new();
    for _ in 0..bench.calls {
        started.push(offline.host.start(&call_context).await?);
    }
    result.insert("instantiate".into(), Value::Object(percentiles(started)));
    if admitted.exports.authorizer {
        let mut calls = Vec::new();
        // Warm-up: the first calls of a component that the host does not know yet run on other threads.
        for _ in 0..PROOF_CALLS {
            offline.host.authorize(call_context.clone(), AccessInput::typical()).await;
        }
        for _ in 0..bench.calls {
            let called = offline.host.authorize(call_context.clone(), AccessInput::typical()).await;
            calls.push(called.map(|ruling| ruling.as_str()));
        }
        result.insert("authorize".into(), call_metrics(calls));
    }
    if admitted.exports.role_mapper {
        let mut calls = Vec::new();
        for _ in 0..PROOF_CALLS {
            offline.host.map_roles(call_context.clone(), RoleInput::typical()).await;
        }
        for _ in 0..bench.calls {
            calls.push(offline.host.map_roles(call_context.clone(), RoleInput::typical()).await.map(|_| "roles"));
        }
        result.insert("map_roles".into(), call_metrics(calls));
    }
    if common.json {
        output::print_object(true, &Value::Object(result));
        return Ok(ExitCode::SUCCESS);
    }
    let kinds = ["instantiate", "authorize", "map_roles"];
    let rows = kinds.iter().filter_map(|kind| {
        let mut row = result.get(*kind)?.as_object()?.clone();
        row.insert("call".into(), json!(kind));
        Some(Value::Object(row))
    });
    output::print_table(
        false,
        &json!({"items": rows.collect::<Vec<_>>()}),
        &["call", "min_us", "p50_us", "p99_us", "max_us", "fuel", "memory_bytes", "outcome"],
    );
    Ok(ExitCode::SUCCESS)
}

/// The durations of the calls, and the fuel, memory and outcome of the last one.
fn call_metrics(calls: Vec<CallResult<&'static str>>) -> Value {
    let last = calls.last().map(|called| {
        let outcome = called.outcome.as_ref().copied().unwrap_or_else(|fault| fault.kind.as_str());
        (called.fuel, called.memory_bytes, outcome)
    });
    let mut result = percentiles(calls.into_iter().map(|called| called.duration).collect());
    if let Some((fuel, memory_bytes, outcome)) = last {
        result.insert("fuel".into(), json!(fuel));
        result.insert("memory_bytes".into(), json!(memory_bytes));
        result.insert("outcome".into(), json!(outcome));
    }
    Value::Object(result)
}

/// Minimum, median, 99th percentile and maximum, in microseconds.
fn percentiles(mut times: Vec<Duration>) -> Map<String, Value> {
    times.sort_unstable();
    let percentile = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        let us = times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6;
        json!((us * 10.0).round() / 10.0)
    };
    [("min_us", 0), ("p50_us", 50), ("p99_us", 99), ("max_us", 100)]
        .map(|(name, percent)| (name.to_owned(), percentile(percent)))
        .into_iter()
        .collect()
}
