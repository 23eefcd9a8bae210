//! Commands for tasks in the background of the running server.

use clap::Subcommand;
use poem::http::Method;

use super::commands::{call_api, query, segment};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum TaskCommand {
    /// List the tasks of the running server, newest first
    List,
    /// Show a task with its result
    Show {
        /// The task's id, as `roster task list` shows it
        id: String,
    },
    /// Stop a task; what it has done stays
    Cancel {
        /// The task's id, as `roster task list` shows it
        id: String,
    },
}

pub(super) async fn run(common: &Common, command: TaskCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    let (method, id) = match command {
        TaskCommand::List => {
            let path = query(&format!("{base}/tasks"), &[("limit", Some("200"))]);
            let page = call_api(common, Method::GET, &path, None).await?;
            let columns = ["id", "operation", "state", "step", "done", "total", "actor", "created_at"];
            output::print_table(common.json, &page, &columns);
            return Ok(());
        }
        TaskCommand::Show { id } => (Method::GET, id),
        TaskCommand::Cancel { id } => (Method::DELETE, id),
    };
    let task = call_api(common, method, &format!("{base}/tasks/{}", segment(&id)), None).await?;
    output::print_object(common.json, &task);
    Ok(())
}
