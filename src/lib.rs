//! Roster: the member centre of a small site.
//!
//! One binary keeps members, organizations, roles, API clients and direct grants in one SQLite file and answers "may
//! this member do that?" over REST. This page is the map.
//!
//! # Layout
//!
//! Imports point down:
//!
//! ```text
//! cli, server, console   entry points: commands, the router and its layers, pages
//! integrations           one folder per external system: wordpress, sftpgo, authentik, mail
//! features               one folder per feature: members, sessions, permissions, videos, …
//! kernel                 what everything stands on
//! ```
//!
//! A feature has `mod` (types and rules, no SQL, no HTTP), `api` (wire types and operations), `store` (SQL). It uses what
//! another feature's `mod` offers, never its `api` or `store`, and the features' imports have no cycle. What a feature must
//! cause in one above it is said as an [`Occurrence`](kernel::app::Occurrence); who reacts to it is listed in
//! [`server::features`]. In the kernel [`kernel::app`] stands above `sandbox` and `http`, these above `authn`, `authn` above
//! `authz`. `tests/it/layout.rs` has both graphs as tables and holds all of this; `tests/it/tidy.rs` says which crate is used
//! where.
//!
//! # What is promised
//!
//! 1. **One door for writes**: [`kernel::app::App::change`]. The permission check, the write, the audit row and the next
//!    policy share one transaction.
//! 2. **One decision**: [`kernel::authz::decide`] is a pure function over one snapshot; every guard and the check operation
//!    call it.
//! 3. **Read your writes**: commit, publish the new snapshot, then answer.
//! 4. **Fail closed**: what is unknown, ambiguous or not canonical is denied, with its reason.
//! 5. **A tenant sees only itself**: what is foreign looks as if it were missing.
//! 6. **Durable means durable**: an answered write survives a power cut; speed comes from group commit.
//!
//! # A change: `PUT /api/v1/permissions/roles/{id}/permissions`
//!
//! `server` gives the request its id; `kernel::authn::caller` says who calls, and only then `kernel::http::body` reads what is sent;
//! `features::permissions::api::roles` enters `app.change`; inside the writer's transaction `kernel::authz::require` asks the decision, `store` writes, `audit_log` adds
//! the audit row; the writer commits (with everybody who waited), swaps the snapshot, and only then answers.
//!
//! # A decision: `POST /api/v1/permissions/check`
//!
//! `server` → `kernel::authn::caller` → `features::decisions::api::check` → `kernel::authz::decide`: load the snapshot, route the canonical
//! path in a trie, find the member's role set, test one bit. No SQLite, no lock, no cache. Where the same snapshot binds
//! plugins, [`kernel::app::verdict`] asks them, in turn, and `decide::settle` has the last word. What was decided goes to
//! [`kernel::decision_log`] behind a queue, which drops rather than waits.
//!
//! # A sign-in: `POST /auth/login`
//!
//! `server` → `features::sessions::api` → `features::sessions::sign_in`: find the login, ask `kernel::authn::slowdown` for patience, verify the
//! password in `features::members::password`, which hashes a few at a time. Every other way to sign in joins here:
//! `features::sessions::open` enters `app.change`, asks whether the member is active and whether a second factor is due, and
//! stores a session, or a challenge (401). Then `kernel::authn::token` signs an access token that names the session.
//!
//! # A registration: `POST /api/v1/register`
//!
//! `features::videos::measure` looks how large the file is, `features::videos::api::files` enters one transaction and finds whose folder it is,
//! and `features::videos::admit` asks all that it can be refused for: `features::quotas` takes the bytes by a conditional update. Then
//! all is decided: `features::videos::keep` stores the video beside a row of the ledger and queues its job, and `app.change` adds
//! audit row and event. Hooks and imports do both halves at once, by `features::videos::register`.
//!
//! # A plugin: `POST /api/v1/plugins` and `…/activate`
//!
//! `features::plugins::api::upload` hands the component to `sandbox`, which takes it apart, compiles it in a child process, starts
//! it and asks its test vectors; only then `app.change` stores it as a version. `features::plugins::api::life` makes a version
//! ready, then binds it in `app.change`: one epoch, behind which the snapshot holds it and `kernel::app::rules` asks it.

pub mod cli;
pub mod console;
pub mod server;

pub mod integrations;

pub mod features;

pub mod kernel;
