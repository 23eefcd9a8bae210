//! Commands that compare accounts at external systems with the members.

use clap::Subcommand;
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum SyncCommand {
    /// Update the members to match the users at WordPress, and list the differences
    Wordpress {
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// How many members to suspend at most because their account no longer exists
        #[arg(long, value_name = "N", default_value_t = 50)]
        gone_max: u64,
    },
}

pub(super) async fn run(common: &Common, command: SyncCommand) -> Result<(), Failed> {
    let SyncCommand::Wordpress { dry_run, gone_max } = command;
    let mut api = ApiConnection::open(common).await?;
    let report = wordpress(&mut api, dry_run, gone_max).await;
    api.close().await;
    let report = report?;
    if common.json {
        output::print_object(true, &report);
    } else {
        print(&report, dry_run);
    }
    Ok(())
}

/// The lists of the report, each with its sign in the output.
const LISTS: [(&str, char); 6] =
    [("new", '+'), ("changed", '~'), ("gone", '-'), ("unlinked", '?'), ("left", '!'), ("odd", '!')];

/// Calls the operation in batches, and prints the progress to standard error.
async fn wordpress(api: &mut ApiConnection, dry_run: bool, gone_max: u64) -> Result<Value, Failed> {
    /// Pages of 100 users per request.
    const PAGES_PER_REQUEST: u64 = 5;
    let mut report = json!({"dry_run": dry_run, "looked_at": 0});
    LISTS.iter().for_each(|(list, _)| report[*list] = json!([]));
    let mut options = json!({"dry_run": dry_run, "pages": PAGES_PER_REQUEST, "gone_max": gone_max});
    loop {
        let batch = api.call(Method::POST, "/admin/wordpress/sync", &[], Some(options.clone())).await?;
        report["looked_at"] = (number(&report["looked_at"]) + number(&batch["looked_at"])).into();
        for (list, _) in LISTS {
            if let (Some(sum), Some(more)) = (report[list].as_array_mut(), batch[list].as_array()) {
                sum.extend(more.iter().cloned());
            }
        }
        let gone = report["gone"].as_array().map_or(0, |gone| gone.iter().filter(|row| !row["uid"].is_null()).count());
        options["gone_max"] = gone_max.saturating_sub(gone as u64).into();
        if batch["next"].is_null() {
            return Ok(report);
        }
        options["from"] = batch["next"].clone();
        complain!("{} accounts read; on to {}", report["looked_at"], batch["next"].as_str().unwrap_or_default());
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn print(report: &Value, dry_run: bool) {
    let count = |list: &str| report[list].as_array().map_or(0, Vec::len);
    for (list, sign) in LISTS {
        for row in report[list].as_array().into_iter().flatten() {
            let more = match list {
                "changed" => format!(" {} kept {}", row["fields"], row["kept"]),
                "unlinked" => " has the same username or e-mail: link the two if they are the same person".to_owned(),
                "left" => format!(" {}", row["why"].as_str().unwrap_or_default()),
                "odd" => {
                    let text = |name: &str| row[name].as_str().unwrap_or_default();
                    format!(" {} cannot be read and is skipped: {}", text("name"), text("why"))
                }
                "gone" if row["uid"].is_null() => " exceeds --gone-max and is not changed".to_owned(),
                _ => String::new(),
            };
            say!("{sign} {} {}{more}", row["wordpress_id"], row["uid"].as_str().unwrap_or("-"));
        }
    }
    let done = if dry_run { "; nothing was changed" } else { "" };
    say!(
        "{} accounts: {} new, {} changed, {} gone, {} unlinked, {} left, {} odd{done}",
        report["looked_at"],
        count("new"),
        count("changed"),
        count("gone"),
        count("unlinked"),
        count("left"),
        count("odd")
    );
}
