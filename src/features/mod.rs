//! One folder per feature. A feature uses only the `mod.rs` of another one, never its `api` or `store`.
//! `tests/it/rules/layout.rs` lists which feature may use which; the list has no cycle.

pub mod api_clients;
pub mod api_keys;
pub mod audit;
pub mod decisions;
pub mod grants;
pub mod invitations;
pub mod jobs;
pub mod members;
pub mod organizations;
pub mod permissions;
pub mod plugins;
pub mod provisioning;
pub mod quotas;
pub mod search;
pub mod sessions;
pub mod statistics;
pub mod tasks;
pub mod videos;
pub mod webhooks;
