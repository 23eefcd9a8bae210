//! The modules that all features share. They import nothing from features, integrations and entry points.

pub mod app;
pub mod audit_log;
pub mod authn;
pub mod authz;
pub mod config;
pub mod db;
pub mod decision_log;
pub mod encryption;
pub mod error;
pub mod http;
pub mod ids;
pub mod intake;
pub mod nearest;
pub mod outbound;
pub mod outbox;
pub mod runtime;
pub mod sandbox;
pub mod secret;
pub mod units;
