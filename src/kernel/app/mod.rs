//! The application state that operations use. `read` and `change` are the only ways to the data.
//!
//! **Invariant.** A change goes through [`App::change`]: the check, the write, the audit row and the next policy share
//! one transaction, and the response is sent after the commit and the publication. The `Db` is private, and `change`
//! accepts a result only together with its audit entry, so an unaudited change does not compile.

mod deferred_grants;
pub mod denials;
pub mod encryption;
pub mod evaluate;
pub mod keys;
pub mod large;
pub mod log_entry;
mod long_work;
pub mod maintenance;
pub mod metrics;
mod plugin_calls;
mod reactions;
mod read_cache;
pub mod redact;
pub mod reload;
pub mod repeats;
pub mod store;
pub mod tasks;
pub mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use poem_openapi::types::{ParseFromJSON, ToJSON};
use tokio::sync::Semaphore;
use tokio::sync::futures::Notified;

use crate::kernel::audit_log::{self, Entry, Verified};
use crate::kernel::authn::caller::Guard;
use crate::kernel::authn::{key_store, token};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::config::Config;
use crate::kernel::db::mark::State;
use crate::kernel::db::{Db, Reader, ReaderShare, Slot, Writer};
use crate::kernel::decision_log::DecisionLog;
use crate::kernel::encryption::Encryption;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::intake::BodyBudget;
use crate::kernel::outbound::Outbound;
use crate::kernel::outbox::{self, Event, ExternalTargets};
use crate::kernel::sandbox::Host;
use crate::kernel::secret::{self, Hash, KeyedDigest};
use denials::{Denials, Refusals};
pub use large::LargeBody;
use log_entry::{AllowedCounter, LogEntry};
use metrics::Metrics;
pub use reactions::{Features, Occurrence, Reaction};
use read_cache::ReadCache;

/// Prefixes of the stored password hashes, which name algorithm and cost. The time is that of the last new hash of this
/// kind, or 0 if the kind was found in the database.
pub type HashKinds = Arc<Mutex<BTreeMap<String, Timestamp>>>;

/// The application: one per data directory.
pub struct App {
    db: Db<Snapshot>,
    pub guard: Arc<Guard>,
    pub config: Arc<Config>,
    pub metrics: Metrics,
    /// The limits of request bodies.
    pub intake: Arc<BodyBudget>,
    /// Recent refusals, so that repeats are logged once a minute.
    pub refusals: Refusals,
    /// Requests to external systems.
    pub outbound: Outbound,
    /// Runs the organizations' plugins.
    pub host: Host,
    /// Notified when there are new deliveries.
    pub outbox: tokio::sync::Notify,
    targets: ExternalTargets,
    /// Reactions and secret columns of the features.
    features: &'static Features,
    /// The decision log.
    pub decisions: DecisionLog<LogEntry>,
    /// Counts allowed decisions since the start, to sample which of them are logged.
    allowed: AllowedCounter,
    /// Limits how many password hashes are computed at once.
    pub hashing: Arc<Semaphore>,
    pub hash_kinds: HashKinds,
    /// Makes keyed digests, also of data that may hold a secret, and derives secrets from the server key.
    pub sealer: KeyedDigest,
    /// Encrypts and decrypts the secrets stored in the database.
    pub encryption: Arc<Encryption>,
    /// The server's public URL; set once it listens.
    pub url: OnceLock<String>,
    /// Long work that goes on after its response.
    pub tasks: tasks::Tasks,
    leftovers: long_work::Leftovers,
    /// True as soon as the server is told to stop.
    stopping: tokio::sync::watch::Sender<bool>,
    read_cache: ReadCache,
    denials: Denials,
    /// The last verification of the audit log since the start, with the time when it ended.
    audit_verified: ArcSwapOption<(Timestamp, Verified)>,
    reloaded: tokio::sync::Mutex<reload::LastReloads>,
    /// Serializes rotations of the signing keys and of the key that encrypts them.
    rotating: tokio::sync::Mutex<()>,
}

/// The result of a change, with its audit entries, policy changes and events.
pub struct Changed<T> {
    pub answer: T,
    /// Empty if nothing had to be changed.
    entries: Vec<Entry>,
    policy: Vec<Change>,
    events: Vec<Event>,
}

impl<T> Changed<T> {
    pub fn new(answer: T, entry: Entry) -> Self {
        Self { answer, entries: vec![entry], policy: Vec::new(), events: Vec::new() }
    }

    /// A result without audit entries, because nothing had to be changed.
    pub fn unchanged(answer: T) -> Self {
        Self { answer, entries: Vec::new(), policy: Vec::new(), events: Vec::new() }
    }

    /// Adds an audit entry, for example for another organization.
    #[must_use]
    pub fn with_entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds the entries, events and policy changes of another change; keeps the answer of `self`.
    #[must_use]
    pub fn merge<U>(mut self, other: Changed<U>) -> Self {
        self.entries.extend(other.entries);
        self.policy.extend(other.policy);
        self.events.extend(other.events);
        self
    }

    /// Converts the answer; keeps everything else.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Changed<U> {
        Changed { answer: form(self.answer), entries: self.entries, policy: self.policy, events: self.events }
    }

    /// Adds events for the outbox.
    #[must_use]
    pub fn with_events(mut self, event: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(event);
        self
    }

    /// Adds changes of the policy snapshot.
    #[must_use]
    pub fn with_policy_changes(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.policy.extend(changes);
        self
    }
}

/// The answer of a committed change, with the policy epoch in which it is in effect.
pub struct Committed<T> {
    pub answer: T,
    pub epoch: u64,
}

/// The open transaction of a change: the rows, and the policy as left by the changes before it in the batch.
pub struct Transaction<'a> {
    writer: &'a Writer<'a>,
    snapshot: &'a Snapshot,
    encryption: &'a Encryption,
    reactions: &'static [Reaction],
    caused: RefCell<Vec<Change>>,
}

impl<'a> Transaction<'a> {
    /// Runs the reactions of all features to an occurrence. Their policy changes become part of this change.
    pub fn react_to(&self, what: &Occurrence<'_>) -> Result<()> {
        for reaction in self.reactions {
            let changes = reaction(self, what)?;
            self.caused.borrow_mut().extend(changes);
        }
        Ok(())
    }

    /// Returns how many matching policy changes the reactions have added to this change so far.
    pub fn count_policy_changes(&self, matches: impl Fn(&Change) -> bool) -> usize {
        self.caused.borrow().iter().filter(|change| matches(change)).count()
    }

    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Encrypts and decrypts the secrets in the rows.
    pub fn encryption(&self) -> &'a Encryption {
        self.encryption
    }
}

impl<'a> std::ops::Deref for Transaction<'a> {
    type Target = Writer<'a>;

    fn deref(&self) -> &Writer<'a> {
        self.writer
    }
}

/// What an idempotency record keeps of a creating request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The answer, which a repeat of the request gets again.
    Answer,
    /// Only that the request was made, because its answer contains a secret.
    FactOnly,
}

impl App {
    /// Opens the database in the data directory, creates the site row if it is new, and loads the policy.
    pub async fn open(config: Config, features: &'static Features) -> Result<Arc<Self>> {
        let cell = Arc::new(ArcSwap::from_pointee(Snapshot::empty(0)));
        let published = cell.clone();
        let publish = move |next: &Snapshot| {
            if published.load().epoch != next.epoch {
                published.store(Arc::new(next.clone()));
            }
        };
        let db = Db::open(&config, crate::kernel::authz::store::load, recovered, publish)?;
        let encryption = encryption::open(&db, &config, features.secrets).await?;
        let (first_key, server_key, with) = (token::new_key()?, secret::random()?, encryption.clone());
        let (keys, server_key) = db
            .write(move |w, snapshot| {
                store::create_site(w, &with, &server_key)?;
                if key_store::signing_keys(w, &with)?.is_empty() {
                    key_store::insert_signing_key(w, &with, &first_key)?;
                }
                snapshot.epoch = crate::kernel::authz::store::epoch(w)?;
                Ok((key_store::signing_keys(w, &with)?, store::server_key(w, &with)?))
            })
            .await?;
        db.mark(State::Idle).await?;
        let keys = keys::key_set(&keys, &config)?;
        let (sealer, targets) = (KeyedDigest::new(server_key), ExternalTargets::from_config(&config));
        Ok(Arc::new(Self {
            db,
            guard: Arc::new(Guard::new(cell, keys, &config)),
            metrics: Metrics::new()?,
            intake: Arc::new(BodyBudget::new(&config)),
            refusals: denials::refusals(),
            outbound: Outbound::new(&config, redact::is_secret),
            host: Host::new(&config, sealer.digest("key of compiled plugins", &[])),
            decisions: DecisionLog::open(&config, LogEntry::row),
            allowed: AllowedCounter::default(),
            hashing: Arc::new(Semaphore::new(usize::try_from(config.hashes_parallel_max).unwrap_or(1))),
            hash_kinds: HashKinds::default(),
            tasks: tasks::Tasks::new(&config),
            config: Arc::new(config),
            outbox: tokio::sync::Notify::new(),
            targets,
            features,
            sealer,
            encryption,
            url: OnceLock::new(),
            leftovers: long_work::Leftovers::default(),
            stopping: tokio::sync::watch::Sender::new(false),
            read_cache: ReadCache::default(),
            denials: denials::denials(),
            audit_verified: ArcSwapOption::empty(),
            reloaded: tokio::sync::Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
        }))
    }

    /// The current policy snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.guard.snapshot.load_full()
    }

    /// Runs a read query; the read connections are shared fairly among callers.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let share =
            RequestContext::current().map_or_else(ReaderShare::of_server, |context| context.turn(&self.snapshot()));
        self.db.read(share, query).await
    }

    /// Returns a member's own data as JSON with its version: from the cache if it was read since the last commit,
    /// otherwise from `query`.
    pub async fn get_or_load(
        &self,
        member: MemberId,
        query: impl FnOnce(&Reader<'_>) -> Result<(String, i64)> + Send + 'static,
    ) -> Result<(String, i64)> {
        // The commit count is taken before the rows are read, so that they are as of then or newer.
        let commits = self.db.stats.ended.load(Ordering::Acquire);
        if let Some(known) = self.read_cache.find(commits, member) {
            return Ok(known);
        }
        let answer = self.read(query).await?;
        self.read_cache.put(commits, member, answer.clone());
        Ok(answer)
    }

    /// Runs a change in one transaction: rows, audit entries, events and the next policy.
    pub async fn change<T: Send + 'static>(
        &self,
        caller: &Identity,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
    ) -> Result<Committed<T>> {
        let (slot, filled) = Slot::pair();
        let change =
            move |t: &Transaction<'_>, caller: &Identity| Ok(change(t, caller)?.map(|answer| filled.fill(answer)));
        let epoch = self.run_change(caller, action, Box::new(change)).await?;
        Ok(Committed { answer: slot.take()?, epoch })
    }

    /// Returns the epoch of the policy after the change.
    async fn run_change(&self, caller: &Identity, action: &'static str, change: ChangeBody) -> Result<u64> {
        if !self.guard.snapshot.load().is_available() {
            self.load_missing_policy().await?;
        }
        let (caller, features) = (caller.clone(), self.features);
        let (targets, encryption) = (self.targets, self.encryption.clone());
        let (epoch, delivery_count) = self
            .db
            .write(move |w, snapshot| apply((w, &encryption, features), snapshot, targets, (&caller, action), change))
            .await?;
        if delivery_count > 0 {
            self.outbox.notify_one();
        }
        Ok(epoch)
    }

    /// Runs a creating change. A repeat with the same `Idempotency-Key` gets the same answer and changes nothing.
    ///
    /// The permission is checked before the stored answer is returned, so a caller who lost it gets 403.
    pub async fn create<T: ToJSON + ParseFromJSON + Send + 'static>(
        &self,
        caller: &Identity,
        action: &'static str,
        permission: impl Into<Option<Permission>>,
        change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
    ) -> Result<Committed<T>> {
        self.once(caller, action, (permission.into(), Keep::Answer), change).await
    }

    /// Like `create`, for an answer that contains a secret. It is never stored, so a repeat fails with
    /// `secret_not_kept`. `permission` is `None` where callers create something of their own.
    pub async fn create_secret<T: ToJSON + ParseFromJSON + Send + 'static>(
        &self,
        caller: &Identity,
        action: &'static str,
        permission: impl Into<Option<Permission>>,
        change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
    ) -> Result<Committed<T>> {
        self.once(caller, action, (permission.into(), Keep::FactOnly), change).await
    }

    async fn once<T: ToJSON + ParseFromJSON + Send + 'static>(
        &self,
        caller: &Identity,
        action: &'static str,
        (permission, keep): (Option<Permission>, Keep),
        change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
    ) -> Result<Committed<T>> {
        let Some(idempotency) = caller.idempotency.clone() else { return self.change(caller, action, change).await };
        let ttl_ms = seconds_to_ms(self.config.idempotency_ttl_s);
        let fingerprint = self.sealer.digest("request", &idempotency.parts(caller.context.body.bytes()));
        let change = move |t: &Transaction<'_>, caller: &Identity| {
            if let Some(permission) = permission {
                authz::require(t.snapshot(), caller, permission)?;
            }
            let (kind, name) = caller.actor();
            let actor = format!("{kind} {name}");
            let key = (actor.as_str(), action, idempotency.key.as_str());
            if let Some(stored) = store::find_remembered(t, key, t.now().plus_ms(-ttl_ms))? {
                return stored_answer(stored, &fingerprint).map(Changed::unchanged);
            }
            let changed = change(t, caller)?;
            let answer = (keep == Keep::Answer).then(|| changed.answer.to_json_string());
            store::remember(t, key, &store::IdempotencyRecord { fingerprint, answer })?;
            Ok(changed)
        };
        self.change(caller, action, change).await
    }

    /// Writes without an audit entry and without a policy change, such as `last_used_at` or expired rows.
    pub async fn write_unaudited<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Writer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.write(move |w, _| write(w)).await
    }

    /// Waits up to 50 ms until the policy has this epoch (`min_epoch` of a request). Fails with `epoch_not_reached`.
    pub async fn wait_for_epoch(&self, epoch: u64) -> Result<()> {
        const TRIES: u32 = 10;
        const PAUSE: Duration = Duration::from_millis(5);
        for _ in 0..TRIES {
            if self.guard.snapshot.load().epoch >= epoch {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::new(ErrorCode::EpochNotReached).retry_after(1))
    }

    /// Verifies the hash chain of the audit log. `check` tells, again and again, whether the caller still may; when it
    /// fails, the verification ends with its error.
    pub async fn verify_audit(
        &self,
        progress: &tasks::Progress,
        check: impl Fn() -> Result<()> + Send + 'static,
    ) -> Result<Verified> {
        let told = progress.clone();
        let verify = move |r: &Reader<'_>| {
            told.of(audit_log::last_id(r)?);
            audit_log::verify(r, |count| {
                told.advance(count);
                told.check()?;
                check()
            })
        };
        let verified = progress.unless_cancelled(self.db.read_scan(verify)).await?;
        self.audit_verified.store(Some(Arc::new((Timestamp::now(), verified.clone()))));
        Ok(verified)
    }

    /// The last verification of the audit log since the start, with the time when it ended.
    pub fn last_audit_verification(&self) -> Option<Arc<(Timestamp, Verified)>> {
        self.audit_verified.load_full()
    }

    /// Creates the token of a one-time set-up link; the previous token becomes invalid.
    pub async fn new_setup_token(&self) -> Result<String> {
        let token = secret::token("")?;
        let (hash, ttl_ms) = (secret::hash(&token), seconds_to_ms(self.config.setup_link_ttl_s));
        let caller = Identity::command_line();
        self.change(&caller, "setup_link.create", move |t, _| {
            store::set_setup(t, Some((hash, t.now().plus_ms(ttl_ms))))?;
            Ok(Changed::new((), Entry::new("site", "setup link")))
        })
        .await?;
        Ok(token)
    }

    /// The public URL of the site, for links; never taken from the `Host` of a request.
    pub fn public_url(&self) -> String {
        self.url.get().cloned().unwrap_or_else(|| self.config.public_url())
    }

    /// Completes at the end of the next batch of changes.
    pub fn next_commit(&self) -> Notified<'_> {
        self.db.committed.notified()
    }

    /// Ends all long polls and tasks, because the server is stopping.
    pub fn begin_shutdown(&self) {
        self.tasks.stop();
        self.stopping.send_replace(true);
    }

    /// Completes when the server is told to stop.
    pub async fn stopped(&self) {
        // The channel cannot be closed here: `self` owns the sender.
        let _ = self.stopping.subscribe().wait_for(|is_stopping| *is_stopping).await;
    }

    /// Statistics of the writer, and the number of changes in its queue.
    pub fn db_stats(&self) -> (&crate::kernel::db::WriterStats, usize) {
        (&self.db.stats, self.db.queued())
    }

    /// Finishes queued work and closes the files.
    pub async fn close(&self) {
        self.leftovers.end().await;
        self.decisions.close().await;
        self.db.close().await;
    }
}

/// The policy after a failed commit: the previous one if the epoch in the database is unchanged, otherwise the one read
/// from the rows. If they cannot be read, an empty policy, which denies everything.
fn recovered(r: &Reader<'_>, before: Snapshot) -> Snapshot {
    match crate::kernel::authz::store::epoch(r) {
        Ok(epoch) if epoch == before.epoch => before,
        _ => crate::kernel::authz::store::load(r).unwrap_or_else(|e| {
            tracing::error!(error = %e, "the policy cannot be read: everything is denied until it can be");
            Snapshot::empty(0)
        }),
    }
}

/// Marks an id as erased: stored answers that contain it are never returned again. [`App::forget_erased`] deletes them.
pub fn mark_erased(t: &Transaction<'_>, id: impl std::fmt::Display) -> Result<()> {
    store::erase_name(t, &id.to_string())
}

/// Consumes the set-up token, in the transaction that creates the first administrator.
pub fn consume_setup_token(t: &Transaction<'_>, offered: &str) -> Result<()> {
    let (hash, expires_at) = store::find_setup(t)?.ok_or(ErrorCode::SetupToken)?;
    if !(secret::equal(&secret::hash(offered), &hash) & (t.now() < expires_at)) {
        return Err(ErrorCode::SetupToken.into());
    }
    store::set_setup(t, None)
}

/// Whether the token is that of the pending set-up link and has not expired.
pub fn is_setup_token(r: &Reader<'_>, offered: &str) -> Result<bool> {
    let found = store::find_setup(r)?;
    let now = Timestamp::now();
    Ok(found.is_some_and(|(hash, expires_at)| secret::equal(&secret::hash(offered), &hash) & (now < expires_at)))
}

type ChangeBody = Box<dyn FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<()>> + Send>;

/// Runs a change and writes its audit entries, events and policy. Returns the epoch after it, and the number of
/// deliveries it created.
fn apply(
    (w, encryption, features): (&Writer<'_>, &Encryption, &'static Features),
    snapshot: &mut Snapshot,
    targets: ExternalTargets,
    (caller, action): (&Identity, &'static str),
    change: ChangeBody,
) -> Result<(u64, usize)> {
    if !snapshot.is_available() {
        // After a failed commit the rows could not be read: nothing is changed until they have been.
        return Err(Error::new(ErrorCode::Busy).with_source("the policy is not loaded").retry_after(1));
    }
    // The body may arrive long after authentication, so the credential is checked again here, for every change.
    let caller = &caller.as_of(snapshot, w.now())?;
    let reactions = features.reactions;
    let t = Transaction { writer: w, snapshot, encryption, reactions, caused: RefCell::default() };
    let Changed { answer: (), entries, mut policy, events } = change(&t, caller)?;
    policy.extend(t.caused.into_inner());
    entries.iter().try_for_each(|entry| audit_log::record_done(w, caller, action, entry))?;
    let request_id = &caller.context.request_id;
    let mut delivery_count = 0;
    for event in &events {
        delivery_count += outbox::record(w, targets, request_id, event)?;
    }
    if policy.is_empty() {
        return Ok((snapshot.epoch, delivery_count));
    }
    let epoch = snapshot.epoch + 1;
    store::raise_epoch(w, epoch)?;
    let deferred_grants = deferred_grants::at_stake(w, snapshot, &policy)?;
    if deferred_grants.is_empty() {
        // From here on nothing can fail: the writer's snapshot must change only together with the rows.
        policy.into_iter().for_each(|change| snapshot.apply(change));
    } else {
        let mut after = snapshot.clone();
        policy.into_iter().for_each(|change| after.apply(change));
        let t = Transaction { writer: w, snapshot: &*snapshot, encryption, reactions, caused: RefCell::default() };
        let entries = deferred_grants::withdraw(&t, &after, deferred_grants)?;
        let changes = t.caused.into_inner();
        entries.iter().try_for_each(|entry| audit_log::record_done(w, caller, "promise.withdraw", entry))?;
        changes.into_iter().for_each(|change| after.apply(change));
        *snapshot = after;
    }
    snapshot.epoch = epoch;
    Ok((epoch, delivery_count))
}

/// Returns the stored answer of a repeated request. Fails with `idempotency_key_reused` if the request differs, and
/// with `secret_not_kept` if the answer contained a secret.
fn stored_answer<T: ParseFromJSON>(stored: store::IdempotencyRecord, fingerprint: &Hash) -> Result<T> {
    if stored.fingerprint != *fingerprint {
        return Err(ErrorCode::IdempotencyKeyReused.into());
    }
    let answer = stored.answer.ok_or(ErrorCode::SecretNotKept)?;
    T::parse_from_json_string(&answer)
        .map_err(|e| Error::internal(format!("a stored answer cannot be parsed: {}", e.into_message())))
}

/// Exponential back-off: `first` after one failed attempt, doubled with each further one, at most `longest`.
pub fn backoff(attempts: u64, first: u64, longest: u64) -> u64 {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(40);
    first.saturating_mul(1 << doublings).min(longest)
}

/// Converts the seconds of a setting to milliseconds, as added to a [`Timestamp`].
pub fn seconds_to_ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
