//! Commands for jobs.

use clap::builder::PossibleValue;
use clap::{Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::Value;

use super::api_connection::ApiConnection;
use super::commands::{call_api, query, segment};
use super::named::member_id;
use super::{Common, Failed, output};
use crate::features::jobs::JobState;

impl ValueEnum for JobState {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[derive(Subcommand)]
pub(super) enum JobCommand {
    /// List jobs, newest first
    List {
        /// Only jobs in this state
        #[arg(long, value_enum)]
        state: Option<JobState>,
        /// Only videos of this member, by username, e-mail or uid
        #[arg(long, value_name = "MEMBER")]
        member: Option<String>,
        /// Only the job of this video, by its id
        #[arg(long, value_name = "ID")]
        video: Option<String>,
        /// Only jobs in which the step of this processor is not finished
        #[arg(long)]
        processor: Option<String>,
    },
    /// Count jobs by state
    Counts,
    /// Retry a dead job
    Retry {
        /// The job's id, as `roster job list` shows it
        id: String,
    },
}

pub(super) async fn job(common: &Common, command: JobCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    let answer = match command {
        JobCommand::List { state, member, video, processor } => {
            let filters = [
                ("limit", Some("200")),
                ("state", state.map(JobState::as_str)),
                ("video", video.as_deref()),
                ("processor", processor.as_deref()),
            ];
            let mut api = ApiConnection::open(common).await?;
            let page = list(&mut api, query(&format!("{base}/jobs"), &filters), member.as_deref()).await;
            api.close().await;
            let page = page?;
            let columns = ["id", "state", "path", "progress_percent", "attempts", "run_at", "last_error"];
            output::print_table(common.json, &page, &columns);
            return Ok(());
        }
        JobCommand::Counts => call_api(common, Method::GET, &format!("{base}/jobs/counts"), None).await?,
        JobCommand::Retry { id } => {
            call_api(common, Method::POST, &format!("{base}/jobs/{}/retry", segment(&id)), None).await?
        }
    };
    output::print_object(common.json, &answer);
    Ok(())
}

async fn list(api: &mut ApiConnection, path: String, member: Option<&str>) -> Result<Value, Failed> {
    let path = match member {
        Some(named) => format!("{path}&member={}", segment(&member_id(api, named).await?)),
        None => path,
    };
    api.call(Method::GET, &path, &[], None).await
}
