//! The commands for plugins: what an author does without a server, and what is asked of one.

mod live;
mod offline;
mod replay;
mod scaffold;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Common, Failed};
use crate::kernel::authz::plugin::Filter;

/// Which questions a plugin covers; all of them without any of these.
#[derive(Args)]
pub(super) struct FilterFlags {
    /// Only questions about these, such as video.delete,video.*
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    permissions: Vec<String>,
    /// Only these routes, such as '/videos/:id,POST /videos'
    #[arg(long, value_delimiter = ',')]
    routes: Vec<String>,
    /// Only grants of these modules
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
    /// Begin a plugin: write a project that builds
    New(scaffold::New),
    /// Print the interface
    Wit,
    /// Make a component of a core module, or put test vectors into a component
    Pack(scaffold::Pack),
    /// Check a component as an upload would; the exit status says whether it would be taken
    Check(offline::Check),
    /// Ask a component test vectors; the exit status says whether it answered all as expected
    Test(offline::Test),
    /// Measure how long and how much a component's calls run
    Bench(offline::Bench),
    /// Show which recorded decisions a component would have changed; the exit status is 0 whatever it finds
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
