//! What Roster does: one folder per feature. A feature uses of another one what its `mod.rs` offers, never its `api` or `store`;
//! which feature uses which is written in `tests/it/layout.rs`, and has no cycle.

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
pub mod sessions;
pub mod videos;
pub mod webhooks;
