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
mod receiver;
mod site;

mod audit;
mod authentik;
mod checks;
mod cli;
mod clients;
mod crash;
mod decisions;
mod grants;
mod grid;
mod http;
mod invitations;
mod keys;
mod letters;
mod matrix;
mod members;
mod oidc;
mod openapi;
mod organizations;
mod outbox;
mod passwords;
mod peers;
mod permissions;
mod quotas;
mod refresh;
mod registration;
mod reservations;
mod schema;
mod second_factor;
mod sessions;
mod setup;
mod sftpgo;
mod standin;
mod tidy;
mod videos;
mod webhooks;
mod wordpress;
