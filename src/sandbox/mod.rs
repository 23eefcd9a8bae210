//! The sandbox: the only user of wasmtime. It takes components apart, compiles them in a child process, and calls them.
//!
//! **Invariant.** A guest cannot panic, block or starve the host or another organization. Every call has a store of its
//! own, that is dropped whatever happened; it runs as a fiber that yields every millisecond, within fuel, time, memory and
//! output of its [`Limits`]; it reaches nothing but its log. What it answers is untrusted input.

pub mod compile;
mod engine;
pub mod input;
pub mod inspect;
mod limits;
mod measure;
pub mod pack;
mod slow;
pub mod vectors;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use compile::Cache;
use engine::{Call, Runtime};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use engine::Loaded;
pub use input::{AccessInput, Claim, Level, LogLine, RoleInput, Ruling};
pub use limits::{Budget, Limits, Tier};

use crate::access::permission::is_role_key;
use crate::access::plugin::Exports;
use crate::access::secret::Hash;
use crate::config::Config;
use crate::error::{Cause, Error, Result};
use crate::ids::OrganizationId;

/// What came of one call.
#[derive(Debug, Clone)]
pub struct Called<T> {
    pub outcome: std::result::Result<T, Fault>,
    /// Instructions used.
    pub fuel: u64,
    /// From the moment it had its turn until it was over.
    pub duration: Duration,
    /// Most memory it had.
    pub memory_bytes: u64,
    pub log: Vec<LogLine>,
    /// Lines beyond the limit, which are gone.
    pub log_dropped: u32,
}

impl<T> Called<T> {
    /// What was never called.
    pub fn failed(fault: Fault) -> Self {
        Self {
            outcome: Err(fault),
            fuel: 0,
            duration: Duration::ZERO,
            memory_bytes: 0,
            log: Vec::new(),
            log_dropped: 0,
        }
    }

    /// With another form of the answer.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Called<U> {
        let Self { outcome, fuel, duration, memory_bytes, log, log_dropped } = self;
        Called { outcome: outcome.map(to), fuel, duration, memory_bytes, log, log_dropped }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// For the plugin's author: never for a caller of the API who may not look at plugins.
    pub message: String,
}

/// A closed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A trap, such as a division by zero or a panic of the guest.
    Trap,
    Fuel,
    Deadline,
    Memory,
    Stack,
    /// It answered too much, or what no answer can be.
    Output,
    /// It said itself that it cannot answer.
    Rule,
    /// What was asked is longer than an input may be; the guest has no part in this, nor in those below.
    Input,
    /// No turn was free in time.
    Busy,
    /// It failed too often, and is asked no more.
    Quarantined,
    /// The component cannot be had: it is not compiled, or its bytes are gone.
    Unavailable,
}

impl FaultKind {
    pub const ALL: [Self; 11] = [
        Self::Trap,
        Self::Fuel,
        Self::Deadline,
        Self::Memory,
        Self::Stack,
        Self::Output,
        Self::Rule,
        Self::Input,
        Self::Busy,
        Self::Quarantined,
        Self::Unavailable,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Output => "output",
            Self::Rule => "rule_error",
            Self::Input => "input",
            Self::Busy => "busy",
            Self::Quarantined => "quarantined",
            Self::Unavailable => "unavailable",
        }
    }

    /// Is it the guest's doing, so that it counts towards quarantine?
    pub fn is_of_guest(self) -> bool {
        !matches!(self, Self::Input | Self::Busy | Self::Quarantined | Self::Unavailable)
    }
}

/// What is known of a component that was compiled and started once.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub sha256: Hash,
    pub loaded: Arc<Loaded>,
    pub exports: Exports,
    /// Names of its imports, as they stand in the component.
    pub imports: Vec<String>,
    pub compile_time: Duration,
    /// What was compiled.
    pub artifact: Arc<[u8]>,
}

/// The host of all plugins of the site.
pub struct Host {
    limits: [Limits; 2],
    runtime: OnceLock<Arc<Runtime>>,
    loaded: ArcSwap<HashMap<Hash, Arc<Loaded>>>,
    loaded_max: usize,
    /// One lock for each component that is being made ready: who waits for one does not wait for another.
    readying: Mutex<HashMap<Hash, Weak<tokio::sync::Mutex<()>>>>,
    /// Why a component could not be made ready, so that it is not tried again for everybody who waited for it.
    refused: Mutex<HashMap<Hash, (Instant, Error)>>,
    compiling: Semaphore,
    compile_queue: Semaphore,
    /// Where compiled components outlive the process, if anywhere.
    cache: Option<Arc<Cache>>,
    turns: Arc<Semaphore>,
    turns_of: ArcSwap<HashMap<OrganizationId, Turns>>,
    turns_per_organization: usize,
    turn_wait: Duration,
}

/// The turns of one organization.
#[derive(Debug, Clone)]
struct Turns {
    all: Arc<Semaphore>,
    /// Those of them that calls without effect may have, and compilations.
    trials: Arc<Semaphore>,
}

impl Turns {
    fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), trials: Arc::new(Semaphore::new((count / 2).max(1))) }
    }
}

/// Which call is made, and for whom.
#[derive(Debug, Clone)]
pub struct Turn {
    pub organization: OrganizationId,
    pub loaded: Arc<Loaded>,
    pub tier: Tier,
    /// Less running time than the limits give.
    pub deadline_ms: Option<u32>,
    /// Nothing comes of it: a dry run, a test, or a plugin that is only watched. Such calls leave turns to the others.
    pub is_trial: bool,
}

/// How long a component that could not be made ready is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The category of causes that lie in the component itself.
const REFUSAL: u32 = 101;

/// What a mapper may name at most.
pub const ROLES_MAX: usize = 256;
/// The longest reason of a denial.
const REASON_BYTES_MAX: usize = 512;
/// How much of a role that cannot be is shown.
const SHOWN_BYTES_MAX: usize = 64;

impl Host {
    /// With a key that authenticates compiled components.
    pub fn new(config: &Config, key: Hash) -> Self {
        let cache = Cache::new(&config.data.join("compiled-plugins"), key);
        Self { cache: Some(Arc::new(cache)), ..Self::without_cache(config) }
    }

    /// Leaves nothing on disk.
    pub fn without_cache(config: &Config) -> Self {
        let many = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            limits: [Limits::of(config, Tier::Standard), Limits::of(config, Tier::Large)],
            runtime: OnceLock::new(),
            loaded: ArcSwap::default(),
            loaded_max: many(config.plugin_loaded_max),
            readying: Mutex::default(),
            refused: Mutex::default(),
            compiling: Semaphore::new(1),
            compile_queue: Semaphore::new(many(config.plugin_compile_queue_max)),
            cache: None,
            turns: Arc::new(Semaphore::new(many(config.plugin_calls_max))),
            turns_of: ArcSwap::default(),
            turns_per_organization: many(config.plugin_calls_per_organization),
            turn_wait: Duration::from_millis(config.plugin_wait_ms),
        }
    }

    pub fn limits(&self, tier: Tier) -> &Limits {
        &self.limits[usize::from(tier == Tier::Large)]
    }

    /// The engine takes memory, so that it is made for the first component only.
    fn runtime(&self) -> Result<&Arc<Runtime>> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = Arc::new(Runtime::new()?);
        Ok(self.runtime.get_or_init(|| made))
    }

    /// Is this component fit to be called? Looked into, compiled, started once. Nothing is kept of it before it is
    /// adopted.
    pub async fn admit(&self, component: &[u8], tier: Tier) -> Result<Admitted> {
        let _place = self.compile_queue.try_acquire().map_err(|_| self.compiler_busy(tier))?;
        self.admit_stored(component, tier).await
    }

    /// The same for one that was admitted before and must come up again: it never stands behind uploads that wait.
    async fn admit_stored(&self, component: &[u8], tier: Tier) -> Result<Admitted> {
        let limits = *self.limits(tier);
        let bytes = component.to_vec();
        let look = move || Ok((inspect::inspect(&bytes, &limits)?, Hash::from(Sha256::digest(&bytes))));
        let (inspected, sha256) = off_the_path(look).await?.map_err(|e: Error| e)?;
        let runtime = self.runtime()?;
        let began = Instant::now();
        let artifact = {
            let _turn = self.compiling.acquire().await.map_err(|_| self.compiler_busy(tier))?;
            compile::compile(component, &limits, runtime.space).await?
        };
        let compile_time = began.elapsed();
        let engine = runtime.engine.clone();
        let load = move || (compile::component_of(&engine, &artifact), artifact);
        let (component, artifact) = off_the_path(load).await?;
        // It was compiled for this very engine: what is refused now is more than the pool has for one call.
        let component = component.map_err(|e| {
            Error::new(Cause::PluginTooComplex).saying(format!("the component has more than a call can have: {e:#}"))
        })?;
        let loaded = Arc::new(Loaded::link(runtime, &component)?);
        if loaded.exports() != inspected.exports {
            return Err(Cause::PluginExports.into());
        }
        loaded.try_start(&limits).await?;
        let (exports, imports) = (inspected.exports, inspected.imports);
        Ok(Admitted { sha256, loaded, exports, imports, compile_time, artifact: artifact.into() })
    }

    fn compiler_busy(&self, tier: Tier) -> Error {
        Error::new(Cause::CompilerBusy).retry_after(self.limits(tier).compile_cpu_s)
    }

    /// Keeps a component that is stored now: ready in memory, and compiled on disk.
    pub async fn adopt(&self, admitted: &Admitted) {
        let (sha256, artifact) = (admitted.sha256, admitted.artifact.clone());
        self.remember(sha256, admitted.loaded.clone());
        let (Ok(runtime), Some(cache)) = (self.runtime(), self.cache.clone()) else { return };
        let engine = runtime.engine.clone();
        let kept = off_the_path(move || cache.keep(&engine, &sha256, &artifact)).await;
        if let Err(e) = kept.and_then(|kept| kept.map_err(|e| Error::internal(e.to_string()))) {
            tracing::warn!(error = %e, "a compiled plugin cannot be kept and will be compiled again after a restart");
        }
    }

    /// A component that is ready to be called, if it is.
    pub fn find_loaded(&self, sha256: &Hash) -> Option<Arc<Loaded>> {
        self.loaded.load().get(sha256).cloned()
    }

    /// Makes a component ready: from the cache, or compiled again from the bytes that `fetch` gives.
    pub async fn load(
        &self,
        sha256: Hash,
        tier: Tier,
        fetch: impl Future<Output = Result<Vec<u8>>>,
    ) -> Result<Arc<Loaded>> {
        let lock = self.lock_of(sha256);
        let _one_at_a_time = lock.lock().await;
        if let Some(loaded) = self.find_loaded(&sha256) {
            return Ok(loaded);
        }
        if let Some(error) = self.was_refused(&sha256) {
            return Err(error);
        }
        let runtime = self.runtime()?;
        let (engine, cache) = (runtime.engine.clone(), self.cache.clone());
        let cached = off_the_path(move || cache.and_then(|cache| cache.load(&engine, &sha256))).await?;
        if let Some(component) = cached {
            let loaded = Arc::new(Loaded::link(runtime, &component)?);
            self.remember(sha256, loaded.clone());
            return Ok(loaded);
        }
        let component = fetch.await?;
        if <Hash>::from(Sha256::digest(&component)) != sha256 {
            return Err(Error::internal("a stored component is not the one that was uploaded"));
        }
        let admitted = self.admit_stored(&component, tier).await;
        if let Err(e) = &admitted
            && e.cause.category() == REFUSAL
        {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(sha256, (Instant::now(), e.clone()));
        }
        let admitted = admitted?;
        self.adopt(&admitted).await;
        Ok(admitted.loaded)
    }

    fn lock_of(&self, sha256: Hash) -> Arc<tokio::sync::Mutex<()>> {
        let mut readying = self.readying.lock().unwrap_or_else(PoisonError::into_inner);
        readying.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = readying.get(&sha256).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        readying.insert(sha256, Arc::downgrade(&lock));
        lock
    }

    fn was_refused(&self, sha256: &Hash) -> Option<Error> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (at, _)| at.elapsed() < REFUSED_FOR);
        refused.get(sha256).map(|(_, error)| error.clone())
    }

    fn remember(&self, sha256: Hash, loaded: Arc<Loaded>) {
        self.loaded.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(sha256, loaded.clone());
            known
        });
    }

    /// Drops what is loaded beyond the limit and not among these.
    pub fn keep_loaded(&self, in_force: &HashSet<Hash>) {
        self.loaded.rcu(|known| {
            let mut known = HashMap::clone(known);
            let mut spare = self.loaded_max;
            known.retain(|sha256, _| {
                let is_spare = !in_force.contains(sha256);
                let stays = !is_spare || spare > 0;
                spare -= usize::from(is_spare && stays);
                stays
            });
            known
        });
    }

    /// Drops what was made of a component.
    pub fn forget(&self, sha256: &Hash) {
        self.loaded.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.remove(sha256);
            known
        });
        let gone = hex::encode(sha256);
        self.drop_files_but(|digest, _| digest != gone);
    }

    /// Drops all compiled components but those of these, and what was not written to the end. At start, while nothing is
    /// compiled.
    pub fn sweep(&self, stored: &HashSet<Hash>) {
        let stored: HashSet<String> = stored.iter().map(hex::encode).collect();
        self.drop_files_but(|digest, is_whole| is_whole && stored.contains(digest));
    }

    fn drop_files_but(&self, keeps: impl Fn(&str, bool) -> bool) {
        if let Some(cache) = &self.cache {
            cache.drop_but(keeps);
        }
    }

    /// Starts it and asks it nothing: how long that takes.
    pub async fn start(&self, turn: &Turn) -> Result<Duration> {
        let began = Instant::now();
        turn.loaded.try_start(self.limits(turn.tier)).await?;
        Ok(began.elapsed())
    }

    /// Asks an authorizer.
    pub async fn authorize(&self, turn: Turn, input: AccessInput) -> Called<Ruling> {
        let limits = self.limits(turn.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return too_much(limits.input_bytes);
        }
        let Some(turns) = self.turn(&turn).await else { return busy() };
        let call = Call { limits: *limits, budget: turn.budget(limits.authorize), turns };
        let mut called = turn.loaded.authorize(call, input).await;
        if let Ok(Ruling::Deny(reason)) = &mut called.outcome {
            *reason = engine::plain(reason, REASON_BYTES_MAX);
        }
        called
    }

    /// Asks a role mapper.
    pub async fn map_roles(&self, turn: Turn, input: RoleInput) -> Called<Vec<String>> {
        let limits = self.limits(turn.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return too_much(limits.input_bytes);
        }
        let Some(turns) = self.turn(&turn).await else { return busy() };
        let call = Call { limits: *limits, budget: turn.budget(limits.map_roles), turns };
        let mut called = turn.loaded.map_roles(call, input).await;
        if let Ok(roles) = &called.outcome
            && let Some(fault) = roles_fault(roles)
        {
            called.outcome = Err(engine::fault(FaultKind::Output, &fault));
        }
        called
    }

    /// A turn among all calls, and among those of the organization; `None` when none is free in time.
    async fn turn(&self, turn: &Turn) -> Option<Vec<OwnedSemaphorePermit>> {
        let Turns { all, trials } = self.turns_of(turn.organization);
        // The organization's own first: who waits there takes nothing from the others.
        let line = turn.is_trial.then_some(trials).into_iter().chain([all, self.turns.clone()]);
        let taken = async {
            let mut taken = Vec::with_capacity(3);
            for turns in line {
                taken.push(turns.acquire_owned().await.ok()?);
            }
            Some(taken)
        };
        tokio::time::timeout(self.turn_wait, taken).await.ok().flatten()
    }

    fn turns_of(&self, organization: OrganizationId) -> Turns {
        if let Some(turns) = self.turns_of.load().get(&organization) {
            return turns.clone();
        }
        let fresh = Turns::new(self.turns_per_organization);
        self.turns_of.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(organization).or_insert_with(|| fresh.clone());
            known
        });
        self.turns_of.load().get(&organization).cloned().unwrap_or(fresh)
    }
}

impl Turn {
    fn budget(&self, budget: Budget) -> Budget {
        let running_ms = self.deadline_ms.map_or(budget.running_ms, |ms| budget.running_ms.min(ms.into()));
        Budget { running_ms, ..budget }
    }
}

/// Work that takes long for the largest components, where it holds up nobody's request.
async fn off_the_path<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("work on a plugin was lost: {e}")))
}

fn too_much<T>(bytes_max: u64) -> Called<T> {
    Called::failed(engine::fault(FaultKind::Input, &format!("its input would have more than {bytes_max} bytes")))
}

fn busy<T>() -> Called<T> {
    Called::failed(engine::fault(FaultKind::Busy, "too many plugins run at the same time"))
}

/// Why this cannot be a list of role keys.
fn roles_fault(roles: &[String]) -> Option<String> {
    if roles.len() > ROLES_MAX {
        return Some(format!("it named {} roles, and {ROLES_MAX} are allowed", roles.len()));
    }
    if let Some(odd) = roles.iter().find(|key| !is_role_key(key)) {
        return Some(format!("it named a role that cannot be: {:?}", engine::plain(odd, SHOWN_BYTES_MAX)));
    }
    let mut seen = HashSet::new();
    let twice = roles.iter().find(|key| !seen.insert(key.as_str()))?;
    Some(format!("it named {twice} twice"))
}

#[cfg(test)]
mod bounds;
