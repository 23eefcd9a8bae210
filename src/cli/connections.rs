//! Commands on the connections to external systems.

use std::process::ExitCode;

use clap::Subcommand;
use poem::http::Method;

use super::commands::{call_api, segment};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum ConnectionCommand {
    /// List the connections, and how each is
    List,
    /// Test a connection with a request that changes nothing; fails if the test does
    Test {
        /// Its name in `roster connection list`, such as sftpgo
        name: String,
    },
}

pub(super) async fn run(common: &Common, command: ConnectionCommand) -> Result<ExitCode, Failed> {
    match command {
        ConnectionCommand::List => {
            let found = call_api(common, Method::GET, "/admin/connections", None).await?;
            output::print_table(common.json, &found, &["name", "state", "address", "remedy", "last_error"]);
            Ok(ExitCode::SUCCESS)
        }
        ConnectionCommand::Test { name } => {
            let path = format!("/admin/connections/{}/test", segment(&name));
            let mut tested = call_api(common, Method::POST, &path, None).await?;
            let is_ok = tested["ok"] == true;
            if !common.json {
                // People read the outcome; programs get the whole connection.
                for key in ["remedy", "last_error"] {
                    tested[key] = if is_ok { serde_json::Value::Null } else { tested["connection"][key].take() };
                }
                tested["connection"] = name.into();
            }
            output::print_object(common.json, &tested);
            Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
