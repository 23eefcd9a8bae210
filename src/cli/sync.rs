//! The commands that compare the accounts of external systems with the members.

use clap::Subcommand;
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum SyncCommand {
    /// Bring the members in line with the users of WordPress, and say what differed
    Wordpress {
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        /// Most members to suspend because their account is gone
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
        output::line(true, &report);
    } else {
        tell(&report, dry_run);
    }
    Ok(())
}

/// What is listed, with the sign it has in the report.
const LISTS: [(&str, char); 6] =
    [("new", '+'), ("changed", '~'), ("gone", '-'), ("unlinked", '?'), ("left", '!'), ("odd", '!')];

/// Piece by piece, saying on standard error how far it is.
async fn wordpress(api: &mut ApiConnection, dry_run: bool, gone_max: u64) -> Result<Value, Failed> {
    /// Lists of 100 users at a time.
    const PIECE: u64 = 5;
    let mut report = json!({"dry_run": dry_run, "looked_at": 0});
    LISTS.iter().for_each(|(list, _)| report[*list] = json!([]));
    let mut options = json!({"dry_run": dry_run, "pages": PIECE, "gone_max": gone_max});
    loop {
        let piece = api.call(Method::POST, "/admin/wordpress/sync", &[], Some(options.clone())).await?;
        report["looked_at"] = (number(&report["looked_at"]) + number(&piece["looked_at"])).into();
        for (list, _) in LISTS {
            if let (Some(sum), Some(more)) = (report[list].as_array_mut(), piece[list].as_array()) {
                sum.extend(more.iter().cloned());
            }
        }
        let gone = report["gone"].as_array().map_or(0, |gone| gone.iter().filter(|row| !row["uid"].is_null()).count());
        options["gone_max"] = gone_max.saturating_sub(gone as u64).into();
        if piece["next"].is_null() {
            return Ok(report);
        }
        options["from"] = piece["next"].clone();
        complain!("{} accounts read; on to {}", report["looked_at"], piece["next"].as_str().unwrap_or_default());
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn tell(report: &Value, dry_run: bool) {
    let count = |list: &str| report[list].as_array().map_or(0, Vec::len);
    for (list, sign) in LISTS {
        for row in report[list].as_array().into_iter().flatten() {
            let more = match list {
                "changed" => format!(" {} kept {}", row["fields"], row["kept"]),
                "unlinked" => " has the same username or e-mail: link them, if it is one person".to_owned(),
                "left" => format!(" {}", row["why"].as_str().unwrap_or_default()),
                "odd" => {
                    let text = |name: &str| row[name].as_str().unwrap_or_default();
                    format!(" {} cannot be read and is left out: {}", text("name"), text("why"))
                }
                "gone" if row["uid"].is_null() => " more than --gone-max: stays as it is".to_owned(),
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
