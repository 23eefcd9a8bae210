//! Commands for plugins: those for authors, which need no server, and those that call operations of the API.

mod live;
mod offline;
mod replay;
mod scaffold;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Common, Failed};
use crate::kernel::authz::plugin::Filter;

/// The filter of a plugin: which access requests it covers. Without any flag it covers all.
#[derive(Args)]
pub(super) struct FilterFlags {
    /// Only access requests for these permissions, such as video.delete,video.*
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    permissions: Vec<String>,
    /// Only access requests for these routes, such as '/videos/:id,POST /videos'
    #[arg(long, value_delimiter = ',')]
    routes: Vec<String>,
    /// Only access requests for direct grants of these modules
    #[arg(long, value_delimiter = ',')]
    modules: Vec<String>,
}

impl FilterFlags {
    fn filter(&self) -> Filter {
        let Self { permissions, routes, modules } = self;
        Filter { permissions: permissions.clone(), routes: routes.clone().into(), modules: modules.clone() }
    }
}

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Create a plugin project that builds
    New(scaffold::New),
    /// Print the interface (WIT)
    Wit,
    /// Convert a core module to a component, or add test vectors to a component
    Pack(scaffold::Pack),
    /// Validate a component as an upload would; exits with 1 if the upload would be refused
    Check(offline::Check),
    /// Run test vectors against a component; exits with 1 if one fails
    Test(offline::Test),
    /// Measure time, fuel and memory of calls to a component
    Bench(offline::Bench),
    /// Show which recorded decisions a component would have changed; exits with 0 also if there are some
    Replay(replay::Replay),
    #[command(flatten)]
    Live(live::LiveCommand),
}

pub(super) async fn run(common: &Common, command: PluginCommand) -> Result<ExitCode, Failed> {
    match command {
        PluginCommand::New(new) => scaffold::new(common, &new),
        PluginCommand::Wit => scaffold::wit(),
        PluginCommand::Pack(pack) => scaffold::pack(common, &pack),
        PluginCommand::Check(check) => offline::check(common, &check).await,
        PluginCommand::Test(test) => offline::test(common, &test).await,
        PluginCommand::Bench(bench) => offline::bench(common, &bench).await,
        PluginCommand::Replay(replay) => replay::run(common, &replay).await,
        PluginCommand::Live(command) => live::run(common, command).await,
    }
}
