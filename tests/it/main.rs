//! The one test binary: linking once is most of the time that separate binaries would cost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines, reason = "a test that cannot go on shall stop")]

mod site;

mod audit;
mod clients;
mod grants;
mod members;
mod setup;
mod http;
mod sessions;
mod organizations;
mod cli;
mod crash;
mod openapi;
mod schema;
mod tidy;
mod permissions;
mod checks;
mod matrix;
mod grid;
mod decisions;
