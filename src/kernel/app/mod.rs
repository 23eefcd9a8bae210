//! The application state that operations use. `read` and `change` are the only ways to the data.
//!
//! **Invariant.** A change goes through [`App::change`]: the check, the write, the audit row and the next policy share
//! one transaction, and the answer leaves after the commit and the publication. The `Db` is private, and `change`
//! takes an answer only with its audit entry, so an unaudited change does not compile.

mod component_store;
mod deferred_grant_store;
mod deferred_grants;
pub mod denials;
pub mod encryption;
pub mod evaluate;
mod idempotency_store;
pub mod keys;
pub mod large;
pub mod log_entry;
pub mod maintenance;
pub mod metrics;
mod plugin_calls;
mod reactions;
mod read_cache;
pub mod redact;
pub mod reload;
pub mod repeats;
pub mod site_store;
pub mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
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
use crate::kernel::db::{Db, Reader, ReaderShare, Writer};
use crate::kernel::decision_log::DecisionLog;
use crate::kernel::encryption::Encryption;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::intake::BodyBudget;
use crate::kernel::outbound::Outbound;
use crate::kernel::outbox::{self, Event, ExternalTargets};
use crate::kernel::sandbox::Host;
use crate::kernel::secret::{self, Hash, Sealer};
use denials::{Denials, Refusals};
pub use large::Large;
use log_entry::{Allowed, LogEntry};
use metrics::Metrics;
pub use reactions::{Features, Occurrence, Reaction};
use read_cache::ReadCache;

/// Beginnings of the password hashes that are stored, which say what work they are, and when they were announced.
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
    /// What the features have to do with the changes of others.
    features: &'static Features,
    /// The decision log.
    pub decisions: DecisionLog<LogEntry>,
    /// Allowed decisions since the start, of which some are logged.
    allowed: Allowed,
    /// Limits how many password hashes are computed at once.
    pub hashing: Arc<Semaphore>,
    pub hash_kinds: HashKinds,
    /// Digests what may hold a secret, and derives secrets from others.
    pub sealer: Sealer,
    /// Reads and writes the secrets that lie in the database.
    pub encryption: Arc<Encryption>,
    /// Where the server answers, once it does.
    pub url: OnceLock<String>,
    /// True from when the server is told to stop.
    stopping: tokio::sync::watch::Sender<bool>,
    read_cache: ReadCache,
    denials: Denials,
    reloaded: tokio::sync::Mutex<reload::Last>,
    /// Whose turn it is at the signing keys, and at the key that encrypts them.
    rotating: tokio::sync::Mutex<()>,
}

/// What a change answers, with what it did.
pub struct Changed<T> {
    pub answer: T,
    /// Empty when there was nothing to change.
    entries: Vec<Entry>,
    policy: Vec<Change>,
    events: Vec<Event>,
}

impl<T> Changed<T> {
    pub fn new(answer: T, entry: Entry) -> Self {
        Self { answer, entries: vec![entry], policy: Vec::new(), events: Vec::new() }
    }

    /// No change was necessary.
    pub fn nothing(answer: T) -> Self {
        Self { answer, entries: Vec::new(), policy: Vec::new(), events: Vec::new() }
    }

    /// Adds an audit entry, for example for another organization.
    #[must_use]
    pub fn also(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds the entries, events and policy changes of another change; keeps this answer.
    #[must_use]
    pub fn and<U>(mut self, other: Changed<U>) -> Self {
        self.entries.extend(other.entries);
        self.policy.extend(other.policy);
        self.events.extend(other.events);
        self
    }

    /// The same change with another form of its answer.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Changed<U> {
        Changed { answer: form(self.answer), entries: self.entries, policy: self.policy, events: self.events }
    }

    /// Adds events for the outbox.
    #[must_use]
    pub fn event(mut self, event: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(event);
        self
    }

    /// Adds changes of the policy snapshot.
    #[must_use]
    pub fn policy(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.policy.extend(changes);
        self
    }
}

/// An answer that is committed and in force, with the epoch from which it is.
pub struct Committed<T> {
    pub answer: T,
    pub epoch: u64,
}

/// The open transaction of a change: the rows, and the policy as the changes before it have left it.
pub struct Transaction<'a> {
    writer: &'a Writer<'a>,
    snapshot: &'a Snapshot,
    encryption: &'a Encryption,
    reactions: &'static [Reaction],
    caused: RefCell<Vec<Change>>,
}

impl<'a> Transaction<'a> {
    /// Tells the features that something happened. What they change in the policy by it belongs to this change.
    pub fn happened(&self, what: &Occurrence<'_>) -> Result<()> {
        for reaction in self.reactions {
            let changes = reaction(self, what)?;
            self.caused.borrow_mut().extend(changes);
        }
        Ok(())
    }

    /// How many such changes of the policy the features added to this change so far.
    pub fn caused(&self, is_such: impl Fn(&Change) -> bool) -> usize {
        self.caused.borrow().iter().filter(|change| is_such(change)).count()
    }

    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// For the secrets among the rows.
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

/// May the answer to a creating request be kept for a repeat of it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Answer,
    /// It shows a secret.
    FactOnly,
}

impl App {
    /// Opens the data directory's database, founds the site when it is new, and loads the policy.
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
                site_store::found_site(w, &with, &server_key)?;
                if key_store::signing_keys(w, &with)?.is_empty() {
                    key_store::insert_signing_key(w, &with, &first_key)?;
                }
                snapshot.epoch = crate::kernel::authz::store::epoch(w)?;
                Ok((key_store::signing_keys(w, &with)?, site_store::server_key(w, &with)?))
            })
            .await?;
        db.mark(State::Idle).await?;
        let keys = keys::keys_of(&keys, &config)?;
        let (sealer, targets) = (Sealer::new(server_key), ExternalTargets::from_config(&config));
        Ok(Arc::new(Self {
            db,
            guard: Arc::new(Guard::new(cell, keys, &config)),
            metrics: Metrics::new()?,
            intake: Arc::new(BodyBudget::new(&config)),
            refusals: denials::refusals(),
            outbound: Outbound::new(&config),
            host: Host::new(&config, sealer.digest("key of compiled plugins", &[])),
            decisions: DecisionLog::open(&config, LogEntry::row),
            allowed: Allowed::default(),
            hashing: Arc::new(Semaphore::new(usize::try_from(config.hashes_parallel_max).unwrap_or(1))),
            hash_kinds: HashKinds::default(),
            config: Arc::new(config),
            outbox: tokio::sync::Notify::new(),
            targets,
            features,
            sealer,
            encryption,
            url: OnceLock::new(),
            stopping: tokio::sync::watch::Sender::new(false),
            read_cache: ReadCache::default(),
            denials: denials::denials(),
            reloaded: tokio::sync::Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
        }))
    }

    /// The current policy snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.guard.snapshot.load_full()
    }

    /// Reads rows, scheduled fairly by the current request's caller.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn =
            RequestContext::current().map_or_else(ReaderShare::of_server, |context| context.turn(&self.snapshot()));
        self.db.read(turn, query).await
    }

    /// Reads a member's own answer, as JSON with its version, unless it was read since the last commit.
    pub async fn get_or_load(
        &self,
        member: MemberId,
        query: impl FnOnce(&Reader<'_>) -> Result<(String, i64)> + Send + 'static,
    ) -> Result<(String, i64)> {
        // The moment is taken before the rows are: what is read is as of then, or newer.
        let moment = self.db.stats.ended.load(Ordering::Acquire);
        if let Some(known) = self.read_cache.find(moment, member) {
            return Ok(known);
        }
        let answer = self.read(query).await?;
        self.read_cache.put(moment, member, answer.clone());
        Ok(answer)
    }

    /// Changes rows, and the policy with them.
    pub async fn change<T: Send + 'static>(
        &self,
        caller: &Identity,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
    ) -> Result<Committed<T>> {
        self.require_policy().await?;
        let (caller, features) = (caller.clone(), self.features);
        let (targets, encryption) = (self.targets, self.encryption.clone());
        let (committed, addressed) = self
            .db
            .write(move |w, snapshot| apply((w, &encryption, features), snapshot, targets, (&caller, action), change))
            .await?;
        if addressed > 0 {
            self.outbox.notify_one();
        }
        Ok(committed)
    }

    /// A creating change: a repeat with the same `Idempotency-Key` gets the same answer and changes nothing.
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

    /// The same where the answer shows a secret, which is never kept: a repeat is refused. What is one's own needs no
    /// permission.
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
        let Some(wanted) = caller.idempotency.clone() else { return self.change(caller, action, change).await };
        let ttl_ms = ms(self.config.idempotency_ttl_s);
        let fingerprint = self.sealer.digest("request", &wanted.parts(caller.context.body.bytes()));
        let change = move |t: &Transaction<'_>, caller: &Identity| {
            if let Some(permission) = permission {
                authz::require(t.snapshot(), caller, permission)?;
            }
            let (kind, name) = caller.actor();
            let actor = format!("{kind} {name}");
            let place = (actor.as_str(), action, wanted.key.as_str());
            if let Some(known) = idempotency_store::find_remembered(t, place, t.now().plus_ms(-ttl_ms))? {
                return repeated(known, &fingerprint).map(Changed::nothing);
            }
            let changed = change(t, caller)?;
            let answer = (keep == Keep::Answer).then(|| changed.answer.to_json_string());
            idempotency_store::remember(t, place, &idempotency_store::Remembered { fingerprint, answer })?;
            Ok(changed)
        };
        self.change(caller, action, change).await
    }

    /// Writes without an audit entry and without a policy change, such as `last_used_at` or expired rows.
    pub async fn write_unaudited<T: Send + 'static>(
        &self,
        tidy: impl FnOnce(&Writer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.write(move |w, _| tidy(w)).await
    }

    /// Waits up to 50 ms for a policy epoch that the caller names (`min_epoch`).
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

    /// Walks the audit's chain.
    pub async fn verify_audit(&self) -> Result<Verified> {
        self.db.read_whole(audit_log::verify).await
    }

    /// Creates the token of a one-time set-up link; the previous token becomes invalid.
    pub async fn new_setup_token(&self) -> Result<String> {
        let token = secret::token("")?;
        let (hash, ttl_ms) = (secret::hash(&token), ms(self.config.setup_link_ttl_s));
        let caller = Identity::command_line();
        self.change(&caller, "setup_link.create", move |t, _| {
            site_store::set_setup(t, Some((hash, t.now().plus_ms(ttl_ms))))?;
            Ok(Changed::new((), Entry::new("site", "setup link")))
        })
        .await?;
        Ok(token)
    }

    /// The address people use: for links, never what a request calls us.
    pub fn public_url(&self) -> String {
        self.url.get().cloned().unwrap_or_else(|| self.config.public_url())
    }

    /// Done at the end of the next batch of changes.
    pub fn next_commit(&self) -> Notified<'_> {
        self.db.committed.notified()
    }

    /// Ends all long polls, because the server is stopping.
    pub fn stop_waiting(&self) {
        self.stopping.send_replace(true);
    }

    /// Done when the server is told to stop.
    pub async fn stopped(&self) {
        // It cannot be closed while somebody waits here.
        let _ = self.stopping.subscribe().wait_for(|is_stopping| *is_stopping).await;
    }

    pub fn db_stats(&self) -> (&crate::kernel::db::WriterStats, usize) {
        (&self.db.stats, self.db.queued())
    }

    /// Finishes what waits and closes the files.
    pub async fn close(&self) {
        self.decisions.close().await;
        self.db.close().await;
    }
}

/// The policy after a failed commit: as before, if the rows say that nothing was kept; from the rows, if it was; and
/// none at all, which denies everything, if they cannot be read.
fn recovered(r: &Reader<'_>, before: Snapshot) -> Snapshot {
    match crate::kernel::authz::store::epoch(r) {
        Ok(epoch) if epoch == before.epoch => before,
        _ => crate::kernel::authz::store::load(r).unwrap_or_else(|e| {
            tracing::error!(error = %e, "the policy cannot be read: everything is denied until it can");
            Snapshot::empty(0)
        }),
    }
}

/// Nobody gets an answer any more that names something, because it was erased. [`App::forget_erased`] deletes them.
pub fn erase_answers_naming(t: &Transaction<'_>, id: impl std::fmt::Display) -> Result<()> {
    idempotency_store::erase_name(t, &id.to_string())
}

/// Consumes the set-up token, in the transaction that creates the first administrator.
pub fn use_setup_token(t: &Transaction<'_>, offered: &str) -> Result<()> {
    let (hash, until) = site_store::find_setup(t)?.ok_or(ErrorCode::SetupToken)?;
    if !(secret::equal(&secret::hash(offered), &hash) & (t.now() < until)) {
        return Err(ErrorCode::SetupToken.into());
    }
    site_store::set_setup(t, None)
}

/// Is there a link, does this token open it, and is it still alive?
pub fn is_setup_token(r: &Reader<'_>, offered: &str) -> Result<bool> {
    let found = site_store::find_setup(r)?;
    Ok(found.is_some_and(|(hash, until)| secret::equal(&secret::hash(offered), &hash) & (Timestamp::now() < until)))
}

/// Runs a change with all that belongs to it; answers also how many deliveries it made.
fn apply<T>(
    (w, encryption, features): (&Writer<'_>, &Encryption, &'static Features),
    snapshot: &mut Snapshot,
    targets: ExternalTargets,
    (caller, action): (&Identity, &'static str),
    change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>>,
) -> Result<(Committed<T>, usize)> {
    if !snapshot.is_available() {
        // The rows could not be read after a failed commit: nothing goes on before they were.
        return Err(Error::new(ErrorCode::Busy).with_source("the policy is not known").retry_after(1));
    }
    // The body may have come long after the credential was shown: it is asked again, here for every change.
    let caller = &caller.as_of(snapshot, w.now())?;
    let reactions = features.reactions;
    let t = Transaction { writer: w, snapshot, encryption, reactions, caused: RefCell::default() };
    let Changed { answer, entries, mut policy, events } = change(&t, caller)?;
    policy.extend(t.caused.into_inner());
    entries.iter().try_for_each(|entry| audit_log::record_done(w, caller, action, entry))?;
    let request_id = &caller.context.request_id;
    let mut addressed = 0;
    for event in &events {
        addressed += outbox::record(w, targets, request_id, event)?;
    }
    if policy.is_empty() {
        return Ok((Committed { answer, epoch: snapshot.epoch }, addressed));
    }
    let epoch = snapshot.epoch + 1;
    site_store::raise_epoch(w, epoch)?;
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
    Ok((Committed { answer, epoch }, addressed))
}

fn repeated<T: ParseFromJSON>(known: idempotency_store::Remembered, fingerprint: &Hash) -> Result<T> {
    if known.fingerprint != *fingerprint {
        return Err(ErrorCode::IdempotencyKeyReused.into());
    }
    let answer = known.answer.ok_or(ErrorCode::SecretNotKept)?;
    T::parse_from_json_string(&answer)
        .map_err(|e| Error::internal(format!("a kept answer cannot be read: {}", e.into_message())))
}

/// The wait after so many failed attempts: the first, and twice as long after each further one, up to the longest.
pub fn backoff(attempts: u64, first: u64, longest: u64) -> u64 {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(40);
    first.saturating_mul(1 << doublings).min(longest)
}

/// Seconds of a setting as milliseconds of a moment.
pub fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
