//! The commands for videos and quotas.

use std::process::ExitCode;

use clap::Subcommand;
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::{ask, listed, segment, without_nulls};
use super::named::{self, Size, member_id, organization_id};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum VideoCommand {
    /// List videos
    List {
        /// Found in the path
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Take in what lies under the media root; what is known already is left alone
    Import {
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        /// Only this folder below the media root
        #[arg(long, value_name = "FOLDER")]
        prefix: Option<String>,
        /// Queue no jobs for the new videos
        #[arg(long)]
        no_jobs: bool,
    },
    /// Give videos without an owner to whose folders they lie in
    Claim {
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum QuotaCommand {
    /// List what members may store, and do
    List {
        /// Found in username, e-mail and display name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Say what a member may store, or all members of an organization together
    Set {
        /// The member, by username, e-mail or uid; with --org an organization, by id or org_code
        whose: String,
        /// A size such as 20GB, 1.5TB or 512MiB; 0 for nothing at all, `unlimited`, or `default` for what the organization
        /// or the settings say
        #[arg(value_parser = named::size)]
        size: Size,
        /// WHOSE is an organization: this is the ceiling above its members, and `default` is none
        #[arg(long)]
        org: bool,
    },
    /// Prove all usage by the ledger and the videos; exits with 1 when something differs and is not repaired
    Recount {
        /// Bring what differs in line with the videos
        #[arg(long)]
        repair: bool,
    },
}

pub(super) async fn video(common: &Common, command: VideoCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    match command {
        VideoCommand::List { keyword } => {
            let page = ask(common, Method::GET, &listed(&format!("{base}/videos"), keyword.as_deref()), None).await?;
            output::table(common.json, &page, &["uuid", "path", "size", "uid"]);
        }
        VideoCommand::Import { dry_run, prefix, no_jobs } => {
            let options = without_nulls(json!({"dry_run": dry_run, "prefix": prefix, "queue_jobs": !no_jobs}));
            let mut api = ApiConnection::open(common).await?;
            let imported = import(&mut api, &base, options).await;
            api.close().await;
            output::line(common.json, &imported?);
        }
        VideoCommand::Claim { dry_run } => {
            let body = json!({"dry_run": dry_run});
            output::line(common.json, &ask(common, Method::POST, &format!("{base}/videos/claim"), Some(body)).await?);
        }
    }
    Ok(())
}

/// Piece by piece, saying on standard error how far it is.
async fn import(api: &mut ApiConnection, base: &str, mut options: Value) -> Result<Value, Failed> {
    const PIECE: u64 = 1_000;
    const SUMS: [&str; 6] = ["looked_at", "imported", "ownerless", "already_exist", "bytes", "skipped"];
    options["limit"] = PIECE.into();
    let mut sum = Value::Null;
    loop {
        let piece = api.call(Method::POST, &format!("{base}/videos/import"), &[], Some(options.clone())).await?;
        let next = piece["next"].clone();
        sum = added(sum, piece, &SUMS);
        if next.is_null() {
            return Ok(sum);
        }
        complain!("{} files looked at, {} new: {}", sum["looked_at"], sum["imported"], next.as_str().unwrap_or(""));
        options["after"] = next;
    }
}

/// The figures of all pieces so far.
fn added(sum: Value, mut piece: Value, sums: &[&str]) -> Value {
    for name in sums {
        piece[*name] = (piece[*name].as_i64().unwrap_or(0) + sum[*name].as_i64().unwrap_or(0)).into();
    }
    let mut over: Vec<Value> =
        [&sum, &piece].into_iter().flat_map(|of| of["over_quota"].as_array().cloned().unwrap_or_default()).collect();
    over.sort_by_key(Value::to_string);
    over.dedup();
    piece["over_quota"] = over.into();
    piece
}

pub(super) async fn quota(common: &Common, command: QuotaCommand) -> Result<ExitCode, Failed> {
    match command {
        QuotaCommand::List { keyword } => {
            let mut api = ApiConnection::open(common).await?;
            let page = quotas(&mut api, keyword.as_deref()).await;
            api.close().await;
            let page = page?;
            output::table(
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
            output::line(common.json, &set?);
            Ok(ExitCode::SUCCESS)
        }
        QuotaCommand::Recount { repair } => {
            let body = json!({"repair": repair});
            let found = ask(common, Method::POST, "/admin/quotas/recount", Some(body)).await?;
            output::line(common.json, &found);
            let is_right = found["drift"] == 0 || found["repaired"] == true;
            Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Members with their quotas; one without a username goes by its e-mail.
async fn quotas(api: &mut ApiConnection, keyword: Option<&str>) -> Result<Value, Failed> {
    let mut page = api.call(Method::GET, &listed("/admin/quotas", keyword), &[], None).await?;
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
