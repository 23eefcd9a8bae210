//! The one test binary. Linking once is faster: separate binaries would spend most of their time on linking.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failed expectation must end the test"
)]

mod cli;
mod console;
mod credentials;
mod harness;
mod integrations;
mod members;
mod permissions;
mod plugins;
mod rules;
mod server;
mod sessions;
mod videos;
mod webhooks;
