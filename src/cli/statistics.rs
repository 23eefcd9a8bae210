//! The command that prints statistics.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::query;
use super::named::{self, organization_id};
use super::{Common, Failed, output};
use crate::features::statistics::Step;

impl ValueEnum for Step {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Hour, Self::Day]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[derive(Args)]
pub(super) struct StatisticsArguments {
    /// The length of a line
    #[arg(long, value_enum, default_value = "day")]
    by: Step,
    /// Start of the period: a date such as 2026-12-31 (UTC), or a span such as 30d; the last day or week if absent
    #[arg(long, value_parser = named::parse_since)]
    since: Option<i64>,
    /// End of the period; now if absent
    #[arg(long, value_parser = named::parse_since)]
    until: Option<i64>,
    /// Only this organization: id or org_code
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
}

/// Prints the figures, a line for each hour or day; with `--json` all that the operation returns.
pub(super) async fn run(common: &Common, arguments: &StatisticsArguments) -> Result<(), Failed> {
    let mut api = ApiConnection::open(common).await?;
    let tenant = match &arguments.org {
        Some(named) => Some(organization_id(&mut api, named).await?),
        None => None,
    };
    let headers: Vec<(&str, &str)> = tenant.iter().map(|id| ("x-tenant-id", id.as_str())).collect();
    let (from, to) = (arguments.since.map(|at| at.to_string()), arguments.until.map(|at| at.to_string()));
    let filters = [("by", Some(arguments.by.as_str())), ("from", from.as_deref()), ("to", to.as_deref())];
    let found = api.call(Method::GET, &query("/admin/statistics", &filters), &headers, None).await;
    api.close().await;
    let found = found?;
    if common.json {
        output::print_object(true, &found);
        return Ok(());
    }
    let columns = [
        "at",
        "signed_in",
        "failed",
        "denied",
        "jobs_created",
        "jobs_done",
        "jobs_dead",
        "added_bytes",
        "removed_bytes",
    ];
    output::print_table(false, &json!({"items": lines(&found)}), &columns);
    Ok(())
}

/// A line for each bucket.
fn lines(found: &Value) -> Vec<Value> {
    let starts = found["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |series: &Value, n: usize, fits: fn(&Value) -> bool| {
        let counts = series.as_array().into_iter().flatten().filter(|one| fits(one));
        counts.map(|one| one["counts"][n].as_u64().unwrap_or_default()).fold(0, u64::saturating_add)
    };
    let line = |(n, start): (usize, &Value)| {
        let (jobs, storage) = (&found["jobs"], &found["storage"]);
        json!({
            "at": start,
            "signed_in": sum(&found["sign_ins"]["ways"], n, |_| true),
            "failed": found["sign_ins"]["failed"][n],
            "denied": sum(&found["decisions"]["reasons"], n, |one| one["allow"] == false),
            "jobs_created": jobs["created"][n],
            "jobs_done": jobs["done"][n],
            "jobs_dead": jobs["dead"][n],
            "added_bytes": storage["added_bytes"][n],
            "removed_bytes": storage["removed_bytes"][n],
        })
    };
    starts.iter().enumerate().map(line).collect()
}
