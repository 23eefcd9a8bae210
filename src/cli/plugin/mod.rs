//! The commands for plugins: what an author does without a server, and what is asked of one.

mod kit;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Common, Failed};

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Begin a plugin: write a project that builds
    New(kit::New),
    /// Print the interface
    Wit,
    /// Make a component of a core module, or put test vectors into a component
    Pack(kit::Pack),
}

pub(super) async fn run(common: &Common, command: PluginCommand) -> Result<ExitCode, Failed> {
    match command {
        PluginCommand::New(new) => kit::new(common, &new),
        PluginCommand::Wit => kit::wit(),
        PluginCommand::Pack(pack) => kit::pack(common, &pack),
    }
}
