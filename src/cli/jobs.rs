//! The commands for jobs.

use clap::Subcommand;
use poem::http::Method;
use serde_json::Value;

use super::api_connection::ApiConnection;
use super::commands::{ask, query, segment};
use super::named::member_id;
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum JobCommand {
    /// List jobs, the newest first
    List {
        /// queued, held, leased, done or dead
        #[arg(long)]
        state: Option<String>,
        /// Whose videos, by username, e-mail or uid
        #[arg(long, value_name = "MEMBER")]
        member: Option<String>,
        /// The video's id
        #[arg(long, value_name = "ID")]
        video: Option<String>,
        /// Only jobs where this processor is not over
        #[arg(long)]
        processor: Option<String>,
    },
    /// Count jobs by state
    Counts,
    /// Retry a dead job
    Retry {
        /// As `roster job list` shows it
        id: String,
    },
}

pub(super) async fn job(common: &Common, command: JobCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    let answer = match command {
        JobCommand::List { state, member, video, processor } => {
            let narrowed = [
                ("limit", Some("200")),
                ("state", state.as_deref()),
                ("video", video.as_deref()),
                ("processor", processor.as_deref()),
            ];
            let mut api = ApiConnection::open(common).await?;
            let page = list(&mut api, query(&format!("{base}/jobs"), &narrowed), member.as_deref()).await;
            api.close().await;
            let page = page?;
            let columns = ["id", "state", "path", "progress_percent", "attempts", "run_at", "last_error"];
            output::table(common.json, &page, &columns);
            return Ok(());
        }
        JobCommand::Counts => ask(common, Method::GET, &format!("{base}/jobs/counts"), None).await?,
        JobCommand::Retry { id } => {
            ask(common, Method::POST, &format!("{base}/jobs/{}/retry", segment(&id)), None).await?
        }
    };
    output::line(common.json, &answer);
    Ok(())
}

async fn list(api: &mut ApiConnection, path: String, member: Option<&str>) -> Result<Value, Failed> {
    let path = match member {
        Some(named) => format!("{path}&member={}", segment(&member_id(api, named).await?)),
        None => path,
    };
    api.call(Method::GET, &path, &[], None).await
}
