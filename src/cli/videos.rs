//! Commands for videos and quotas.

use std::process::ExitCode;

use clap::Subcommand;
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::{call_api, list_path, segment, without_nulls};
use super::named::{self, Size, member_id, organization_id};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum VideoCommand {
    /// List videos
    List {
        /// Text to find in the path
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Register the files below the media root; videos that are already registered are not changed
    Import {
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// Only this folder below the media root
        #[arg(long, value_name = "FOLDER")]
        prefix: Option<String>,
        /// Queue no jobs for the new videos
        #[arg(long)]
        no_jobs: bool,
    },
    /// Give videos without an owner to the members whose folders contain them
    Claim {
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum QuotaCommand {
    /// List quotas and usage of members
    List {
        /// Text to find in username, e-mail and display name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Set the quota of a member, or the ceiling of an organization
    Set {
        /// The member, by username, e-mail or uid; with --org an organization, by id or org_code
        whose: String,
        /// A size such as 20GB, 1.5TB or 512MiB; 0 for no storage at all, `unlimited`, or `default` for the size that
        /// the organization or the settings set
        #[arg(value_parser = named::parse_size)]
        size: Size,
        /// WHOSE is an organization: set the ceiling above all its members; `default` removes it
        #[arg(long)]
        org: bool,
    },
    /// Compare all usage with the ledger and the videos; exits with 1 if something differs and is not repaired
    Recount {
        /// Correct differences, by the sizes of the videos
        #[arg(long)]
        repair: bool,
    },
}

pub(super) async fn video(common: &Common, command: VideoCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    match command {
        VideoCommand::List { keyword } => {
            let page =
                call_api(common, Method::GET, &list_path(&format!("{base}/videos"), keyword.as_deref()), None).await?;
            output::print_table(common.json, &page, &["uuid", "path", "size", "uid"]);
        }
        VideoCommand::Import { dry_run, prefix, no_jobs } => {
            let options = without_nulls(json!({"dry_run": dry_run, "prefix": prefix, "queue_jobs": !no_jobs}));
            let mut api = ApiConnection::open(common).await?;
            let imported = import(&mut api, &base, options).await;
            api.close().await;
            output::print_object(common.json, &imported?);
        }
        VideoCommand::Claim { dry_run } => {
            let body = json!({"dry_run": dry_run});
            output::print_object(
                common.json,
                &call_api(common, Method::POST, &format!("{base}/videos/claim"), Some(body)).await?,
            );
        }
    }
    Ok(())
}

/// Calls the operation in batches, and prints the progress to standard error.
async fn import(api: &mut ApiConnection, base: &str, mut options: Value) -> Result<Value, Failed> {
    const FILES_PER_REQUEST: u64 = 1_000;
    const SUMS: [&str; 6] = ["looked_at", "imported", "ownerless", "already_exist", "bytes", "skipped"];
    options["limit"] = FILES_PER_REQUEST.into();
    let mut sum = Value::Null;
    loop {
        let batch = api.call(Method::POST, &format!("{base}/videos/import"), &[], Some(options.clone())).await?;
        let next = batch["next"].clone();
        sum = added(sum, batch, &SUMS);
        if next.is_null() {
            return Ok(sum);
        }
        complain!("{} files read, {} new: {}", sum["looked_at"], sum["imported"], next.as_str().unwrap_or(""));
        options["after"] = next;
    }
}

/// Adds the counts of a batch to the sums, and merges the members over quota.
fn added(sum: Value, mut batch: Value, sums: &[&str]) -> Value {
    for name in sums {
        batch[*name] = (batch[*name].as_i64().unwrap_or(0) + sum[*name].as_i64().unwrap_or(0)).into();
    }
    let mut over: Vec<Value> =
        [&sum, &batch].into_iter().flat_map(|of| of["over_quota"].as_array().cloned().unwrap_or_default()).collect();
    over.sort_by_key(Value::to_string);
    over.dedup();
    batch["over_quota"] = over.into();
    batch
}

pub(super) async fn quota(common: &Common, command: QuotaCommand) -> Result<ExitCode, Failed> {
    match command {
        QuotaCommand::List { keyword } => {
            let mut api = ApiConnection::open(common).await?;
            let page = quotas(&mut api, keyword.as_deref()).await;
            api.close().await;
            let page = page?;
            output::print_table(
                common.json,
                &page,
                &["uid", "username|email", "size", "used", "reserved", "free", "percent"],
            );
            Ok(ExitCode::SUCCESS)
        }
        QuotaCommand::Set { whose, size, org } => {
            let mut api = ApiConnection::open(common).await?;
            let set = set(&mut api, &whose, size, org).await;
            api.close().await;
            output::print_object(common.json, &set?);
            Ok(ExitCode::SUCCESS)
        }
        QuotaCommand::Recount { repair } => {
            let body = json!({"repair": repair});
            let found = call_api(common, Method::POST, "/admin/quotas/recount", Some(body)).await?;
            output::print_object(common.json, &found);
            let is_right = found["drift"] == 0 || found["repaired"] == true;
            Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Lists members with their quotas. Adds the e-mail of members without a username.
async fn quotas(api: &mut ApiConnection, keyword: Option<&str>) -> Result<Value, Failed> {
    let mut page = api.call(Method::GET, &list_path("/admin/quotas", keyword), &[], None).await?;
    for item in page["items"].as_array_mut().into_iter().flatten().filter(|item| item["username"].is_null()) {
        let path = format!("/admin/members/{}", segment(item["uid"].as_str().unwrap_or_default()));
        item["email"] = api.call(Method::GET, &path, &[], None).await?["email"].take();
    }
    Ok(page)
}

async fn set(api: &mut ApiConnection, whose: &str, size: Size, is_organization: bool) -> Result<Value, Failed> {
    let (kind, id) = match is_organization {
        true => ("organizations", organization_id(api, whose).await?),
        false => ("members", member_id(api, whose).await?),
    };
    let path = format!("/admin/{kind}/{}/quota", segment(&id));
    api.call(Method::PATCH, &path, &[], Some(json!({"size": size.0}))).await
}
