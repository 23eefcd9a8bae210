//! What an author does with a component on their own machine: the validation of an upload, test vectors, a measurement.
//! No data directory, no server, and nothing is left on disk.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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
    AccessInput, Admitted, CallContext, CallResult, Host, PROOF_CALLS, RoleInput, Tier, inspect,
};

/// A component, and the limits it is looked at with.
#[derive(Args)]
pub(in crate::cli) struct Component {
    /// The component
    file: PathBuf,
    /// Under the limits for big runtimes, such as Python (plugins.large)
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
    /// Test vectors in YAML or JSON; those that the component carries when absent
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

/// A host with the limits of a site whose settings say nothing, and the bytes of a file.
pub(super) struct OfflineHost {
    pub(super) host: Host,
    pub(super) bytes: Vec<u8>,
    pub(super) tier: Tier,
    /// Nobody's: a host knows organizations only to share its turns among them.
    pub(super) organization: OrganizationId,
}

impl OfflineHost {
    pub(super) fn of(file: &Path, is_large: bool) -> Result<Self, Failed> {
        let host = Host::without_cache(&Config::of(Path::new("")));
        let tier = Tier::from_is_large(is_large);
        // One byte more than may be is enough to see that it is too large.
        let bytes = read(file, host.limits(tier).file_bytes + 1)?;
        Ok(Self { host, bytes, tier, organization: OrganizationId::new() })
    }

    /// What asks this component, with all turns that there are.
    pub(super) fn turn(&self, admitted: &Admitted) -> CallContext {
        CallContext {
            organization: self.organization,
            loaded: admitted.loaded.clone(),
            tier: self.tier,
            deadline_ms: None,
            is_trial: false,
        }
    }
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    read.map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    Ok(bytes)
}

fn status(is_right: bool) -> ExitCode {
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn problem(error: &Error) -> String {
    format!("{}: {}", error.cause.as_str(), error.message())
}

/// `roster plugin check`.
pub(super) async fn check(common: &Common, check: &Check) -> Result<ExitCode, Failed> {
    let stand = OfflineHost::of(&check.component.file, check.component.large)?;
    let looked = inspect::look(&stand.bytes, stand.host.limits(stand.tier));
    let mut problems: Vec<String> = looked.problems.iter().map(problem).collect();
    let mut shown = json!({
        "ok": false,
        "exports": looked.inspected.exports.words(),
        "imports": looked.inspected.imports,
        "bytes": stand.bytes.len(),
        "problems": [],
    });
    if problems.is_empty() {
        match stand.host.admit_and_test(stand.organization, &stand.bytes, stand.tier).await {
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
                shown["sha256"] = json!(hex::encode(admitted.sha256));
                shown["compile_ms"] = json!(admitted.compile_time.as_millis());
                shown["artifact_bytes"] = json!(admitted.artifact.len());
                shown["vectors"] = json!(reports.iter().map(Report::value).collect::<Vec<_>>());
            }
        }
    }
    shown["ok"] = json!(problems.is_empty());
    shown["problems"] = json!(problems);
    if !common.json {
        // A table of cells is no place for whole reports: `plugin test` shows them.
        shown["vectors"] = json!(shown["vectors"].as_array().map_or(0, Vec::len));
    }
    output::line(common.json, &shown);
    Ok(status(problems.is_empty()))
}

/// `roster plugin test`.
pub(super) async fn test(common: &Common, test: &Test) -> Result<ExitCode, Failed> {
    let stand = OfflineHost::of(&test.component.file, test.component.large)?;
    let vectors = match &test.vectors {
        Some(file) => vectors::parse(&read(file, vectors::VECTORS_BYTES_MAX as u64 + 1)?)?,
        None => vectors::of_component(&stand.bytes)?,
    };
    if vectors.is_empty() {
        return Err(Failed("there are no test vectors: name a file, or pack some into the component".into()));
    }
    let admitted = stand.host.admit(stand.organization, &stand.bytes, stand.tier).await?;
    let turn = stand.turn(&admitted);
    let reports = stand.host.test(&turn, &vectors).await;
    let passed = reports.iter().filter(|report| report.passed).count();
    let items: Vec<Value> = reports.iter().map(Report::value).collect();
    let all_passed = passed == reports.len();
    output::table(
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
    Ok(status(all_passed))
}

/// `roster plugin bench`.
pub(super) async fn bench(common: &Common, bench: &Bench) -> Result<ExitCode, Failed> {
    let stand = OfflineHost::of(&bench.component.file, bench.component.large)?;
    let admitted = stand.host.admit(stand.organization, &stand.bytes, stand.tier).await?;
    let turn = stand.turn(&admitted);
    let mut shown = Map::new();
    shown.insert("calls".into(), json!(bench.calls));
    shown.insert("bytes".into(), json!(stand.bytes.len()));
    shown.insert("compile_ms".into(), json!(admitted.compile_time.as_millis()));
    shown.insert("artifact_bytes".into(), json!(admitted.artifact.len()));
    let mut started = Vec::new();
    for _ in 0..bench.calls {
        started.push(stand.host.start(&turn).await?);
    }
    shown.insert("instantiate".into(), Value::Object(spread(started)));
    if admitted.exports.authorizer {
        let mut calls = Vec::new();
        // As on a server that knows it.
        for _ in 0..PROOF_CALLS {
            stand.host.authorize(turn.clone(), AccessInput::neutral()).await;
        }
        for _ in 0..bench.calls {
            let called = stand.host.authorize(turn.clone(), AccessInput::neutral()).await;
            calls.push(called.map(|ruling| ruling.as_str()));
        }
        shown.insert("authorize".into(), measured(calls));
    }
    if admitted.exports.role_mapper {
        let mut calls = Vec::new();
        for _ in 0..PROOF_CALLS {
            stand.host.map_roles(turn.clone(), RoleInput::neutral()).await;
        }
        for _ in 0..bench.calls {
            calls.push(stand.host.map_roles(turn.clone(), RoleInput::neutral()).await.map(|_| "roles"));
        }
        shown.insert("map_roles".into(), measured(calls));
    }
    if common.json {
        output::line(true, &Value::Object(shown));
        return Ok(ExitCode::SUCCESS);
    }
    let kinds = ["instantiate", "authorize", "map_roles"];
    let rows = kinds.iter().filter_map(|kind| {
        let mut row = shown.get(*kind)?.as_object()?.clone();
        row.insert("call".into(), json!(kind));
        Some(Value::Object(row))
    });
    output::table(
        false,
        &json!({"items": rows.collect::<Vec<_>>()}),
        &["call", "min_us", "p50_us", "p99_us", "max_us", "fuel", "memory_bytes", "outcome"],
    );
    Ok(ExitCode::SUCCESS)
}

/// How long calls took, what the last of them used, and how it ended.
fn measured(calls: Vec<CallResult<&'static str>>) -> Value {
    let last = calls.last().map(|called| {
        let outcome = called.outcome.as_ref().copied().unwrap_or_else(|fault| fault.kind.as_str());
        (called.fuel, called.memory_bytes, outcome)
    });
    let mut shown = spread(calls.into_iter().map(|called| called.duration).collect());
    if let Some((fuel, memory_bytes, outcome)) = last {
        shown.insert("fuel".into(), json!(fuel));
        shown.insert("memory_bytes".into(), json!(memory_bytes));
        shown.insert("outcome".into(), json!(outcome));
    }
    Value::Object(shown)
}

/// The least, the middle, the slow end and the most, in microseconds.
fn spread(mut times: Vec<Duration>) -> Map<String, Value> {
    times.sort_unstable();
    let at = |hundredths: usize| {
        let place = (times.len() * hundredths / 100).min(times.len().saturating_sub(1));
        let us = times.get(place).copied().unwrap_or_default().as_secs_f64() * 1e6;
        json!((us * 10.0).round() / 10.0)
    };
    [("min_us", 0), ("p50_us", 50), ("p99_us", 99), ("max_us", 100)]
        .map(|(name, hundredths)| (name.to_owned(), at(hundredths)))
        .into_iter()
        .collect()
}
