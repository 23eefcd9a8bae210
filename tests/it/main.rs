//! The one test binary: linking once is most of the time that separate binaries would cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a test that cannot go on shall stop"
)]

mod counterparts;
mod guests;
mod site;

mod audit;
mod authentik;
mod checks;
mod cli;
mod clients;
mod crash;
mod decision_log;
mod decisions;
mod grants;
mod grid;
mod hostile;
mod http;
mod invitations;
mod keys;
mod kit;
mod mapping;
mod matrix;
mod members;
mod oidc;
mod openapi;
mod organizations;
mod passwords;
mod peers;
mod permissions;
mod plugin_uploads;
mod plugins;
mod refresh;
mod registration;
mod schema;
mod second_factor;
mod sessions;
mod setup;
mod standin;
mod tidy;
mod verdicts;
mod wordpress;
