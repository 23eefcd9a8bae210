//! Roster: the member centre of a small site.
//!
//! One binary keeps members, organizations, roles, API clients and direct grants in one SQLite file and answers "may
//! this member do that?" over REST. This page is the map.
//!
//! # The house
//!
//! An hourglass: wings above (one folder per feature), a kernel below, [`app`] the waist. Imports run downward only:
//!
//! ```text
//! main → cli → routes → <feature>/api → app → journal, sandbox → access → db → config, error, health, ids, log
//! ```
//!
//! A wing has `mod` (types and rules, no SQL, no HTTP), `api` (wire types and operations), `store` (SQL). A wing uses
//! another wing's `mod` only. `tests/it/tidy.rs` holds all of this.
//!
//! [`connect`] is the wing of the neighbours: mail, WordPress, Authentik, SFTPGo, webhooks. `sessions` and `members` use it. It
//! brings the events of [`outbox`] to their targets. Below, beside `access`, lies [`outbound`]: requests to others, with limits on time and length,
//! that follow no redirect and leave alone who fails. It is a room of its own because two wings need it, `connect` and
//! `sessions` (OpenID Connect), and because the failures of a host are counted in one place, whoever asks it.
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
//! `routes` gives the request its id; `kernel::authn::caller` says who calls, and only then `kernel::http::body` reads what is sent;
//! `features::permissions::api::roles` enters `app.change`; inside the writer's transaction `kernel::authz::require` asks the decision, `store` writes, `journal` adds
//! the audit row; the writer commits (with everybody who waited), swaps the snapshot, and only then answers.
//!
//! # A decision: `POST /api/v1/permissions/check`
//!
//! `routes` → `kernel::authn::caller` → `features::decisions::api::check` → `kernel::authz::decide`: load the snapshot, route the canonical
//! path in a trie, find the member's role set, test one bit. No SQLite, no lock, no cache. Where the same snapshot binds
//! plugins, [`kernel::app::verdict`] asks them, in turn, and `decide::settle` has the last word. What was decided goes to
//! [`kernel::decision_log`] behind a queue, which drops rather than waits.
//!
//! # A sign-in: `POST /auth/login`
//!
//! `routes` → `features::sessions::api` → `features::sessions::sign_in`: find the login, ask `kernel::authn::slowdown` for patience, verify the
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
