//! The one test binary. Linking once is faster: separate binaries would spend most of their time on linking.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a failed expectation must end the test"
)]

mod area_codes;
mod audit;
mod authentik;
mod bodies;
mod catalogs;
mod checks;
mod claims;
mod cli;
mod clients;
mod connections;
mod counterpart_checks;
mod counterparts;
mod crash;
mod decision_log;
mod decisions;
mod deferred_grants;
mod delegation;
mod document;
mod encryption;
mod faults;
mod first_minutes;
mod folders;
mod given;
mod grants;
mod grid;
mod hostile;
mod http;
mod import;
mod invitations;
mod job_queue;
mod jobs;
mod keys;
mod layout;
mod lists;
mod mail;
mod maintenance;
mod manual;
mod mapping;
mod matrix;
mod members;
mod n8n;
mod oidc;
mod openapi;
mod organizations;
mod outbox;
mod own_videos;
mod passwords;
mod permissions;
mod plugin_cli;
mod plugin_decisions;
mod plugin_uploads;
mod plugins;
mod proxies;
mod quotas;
mod receiver;
mod refresh;
mod registration;
mod replay;
mod reservations;
mod schema;
mod second_factor;
mod seen;
mod sessions;
mod setup;
mod sftpgo;
mod sftpgo_events;
mod sftpgo_hooks;
mod site;
mod site_only;
mod storm;
mod storm_clients;
mod stub_server;
mod tidy;
mod users;
mod versions;
mod video_rules;
mod videos;
mod wasm_fixtures;
mod webhooks;
mod wordpress;
mod wordpress_events;
mod wordpress_status;
