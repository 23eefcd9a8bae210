//! The sandbox: the only user of wasmtime. It takes components apart, compiles them in a child process, and calls them.
//!
//! **Invariant.** A guest cannot panic, block or starve the host or another organization. Every call has a store of its
//! own, that is dropped whatever happened; it runs as a fiber that yields every millisecond, within fuel, time, memory and
//! output of its [`Limits`]; it reaches nothing but its log. What it answers is untrusted input.

mod background_runtime;
mod cache;
pub mod call_result;
pub mod compile;
mod compile_queue;
pub mod engine;
mod guest;
pub mod input;
pub mod inspect;
pub mod limits;
mod measure;
pub mod memory;
pub mod pace;
pub mod pack;
pub mod vectors;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cache::Cache;
use compile_queue::CompileQueue;
use engine::{Call, CallMemory, Runtime};
use memory::{Budget as Places, Memory, Reserved};
use pace::{Pace, Share};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use call_result::{CallResult, Fault, FaultKind};
pub use engine::Loaded;
pub use input::{AccessInput, Claim, Level, LogLine, RoleInput, Ruling};
pub use limits::{Budget, Limits, Tier};
pub use memory::Key;
pub use pace::{PROOF_CALLS, Spent};

use crate::kernel::authz::permission::is_role_key;
use crate::kernel::authz::plugin::Exports;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret::Hash;

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
    memory: Memory,
    loaded_bytes_per_organization: u64,
    /// One lock for each component that is being made ready: who waits for one does not wait for another.
    readying: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
    /// Why a component could not be made ready, so that it is not tried again for everybody who waited for it.
    refused: Mutex<HashMap<Hash, (Instant, Error)>>,
    compile_queue: CompileQueue,
    /// Where compiled components outlive the process, if anywhere.
    cache: Option<Arc<Cache>>,
    turns: Arc<Semaphore>,
    turns_of: ArcSwap<HashMap<OrganizationId, CallLimits>>,
    turns_per_organization: usize,
    turn_wait: Duration,
    /// How fast the versions are that have been asked.
    paces: ArcSwap<HashMap<Key, Arc<Pace>>>,
    fast_max: Duration,
    /// What the guests of one request have of its thread.
    request_max: Duration,
}

/// What one organization has for its calls.
#[derive(Debug, Clone)]
struct CallLimits {
    all: Arc<Semaphore>,
    /// Those of them that calls without effect may have.
    trials: Arc<Semaphore>,
    /// How many calls of it run aside at the same time: the others find a thread there.
    aside: Arc<Semaphore>,
    /// What its calls have of the threads that answer requests.
    share: Arc<Share>,
    /// Its places in memory.
    places: Places,
}

/// What the host has in memory and on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct ComponentStats {
    pub loaded_bytes: u64,
    pub cached_bytes: u64,
    /// Number of evictions since the start.
    pub unloaded: u64,
    pub uncached: u64,
}

/// Which call is made, and for whom.
#[derive(Debug, Clone)]
pub struct CallContext {
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
        let (all, own) = (config.plugin_cache_bytes, config.plugin_cache_bytes_per_organization);
        let cache = Cache::new(&config.data.join("compiled-plugins"), key, all, own);
        Self { cache: Some(Arc::new(cache)), ..Self::without_cache(config) }
    }

    /// Leaves nothing on disk.
    pub fn without_cache(config: &Config) -> Self {
        let many = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            limits: [Limits::for_tier(config, Tier::Standard), Limits::for_tier(config, Tier::Large)],
            runtime: OnceLock::new(),
            memory: Memory::new(config.plugin_loaded_bytes),
            loaded_bytes_per_organization: config.plugin_loaded_bytes_per_organization,
            readying: Mutex::default(),
            refused: Mutex::default(),
            compile_queue: CompileQueue::new(
                many(config.plugin_compile_queue_max),
                many(config.plugin_compile_queue_per_organization),
            ),
            cache: None,
            turns: Arc::new(Semaphore::new(many(config.plugin_calls_max))),
            turns_of: ArcSwap::default(),
            turns_per_organization: many(config.plugin_calls_per_organization),
            turn_wait: Duration::from_millis(config.plugin_wait_ms),
            paces: ArcSwap::default(),
            fast_max: Duration::from_micros(config.plugin_fast_us),
            request_max: Duration::from_micros(config.plugin_request_us),
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
    pub async fn admit(&self, organization: OrganizationId, component: &[u8], tier: Tier) -> Result<Admitted> {
        let _place = self.compile_queue.enter(organization).ok_or_else(|| self.compiler_busy(tier))?;
        self.compiled(organization, component, tier, false).await
    }

    /// The same also for one that was admitted before and must come up again: it needs no place among the uploads.
    async fn compiled(
        &self,
        organization: OrganizationId,
        component: &[u8],
        tier: Tier,
        is_stored: bool,
    ) -> Result<Admitted> {
        let limits = *self.limits(tier);
        let bytes = component.to_vec();
        let look = move || Ok((inspect::inspect(&bytes, &limits)?, Hash::from(Sha256::digest(&bytes))));
        let (inspected, sha256) = off_the_path(look).await?.map_err(|e: Error| e)?;
        let runtime = self.runtime()?;
        let (artifact, compile_time) = {
            let turn = self.compile_queue.turn(organization, is_stored).await;
            let _turn = turn.ok_or_else(|| self.compiler_busy(tier))?;
            let began = Instant::now();
            (compile::compile(component, &limits, runtime.space).await?, began.elapsed())
        };
        let reserved = self.reserve(organization, artifact.len() as u64).await?;
        let engine = runtime.engine.clone();
        let load = move || (compile::component_of(&engine, &artifact), artifact);
        let (component, artifact) = runtime.slow.work(load).await?;
        // It was compiled for this very engine: what is refused now is more than the pool has for one call.
        let component = component.map_err(|e| {
            Error::new(ErrorCode::PluginTooComplex)
                .with_message(format!("the component has more than a call can have: {e:#}"))
        })?;
        let loaded = Arc::new(Loaded::link(runtime, &component, sha256, Some(reserved))?);
        if loaded.exports() != inspected.exports {
            return Err(ErrorCode::PluginExports.into());
        }
        loaded.try_start_aside(limits).await?;
        let (exports, imports) = (inspected.exports, inspected.imports);
        Ok(Admitted { sha256, loaded, exports, imports, compile_time, artifact: artifact.into() })
    }

    /// Places in memory, for as long as they are held.
    async fn reserve(&self, organization: OrganizationId, bytes: u64) -> Result<Reserved> {
        let places = self.turns_of(organization).places;
        self.memory.reserve(organization, &places, bytes).await.ok_or_else(|| {
            let message = "running calls hold all the memory that compiled plugins may have (plugins.loaded_bytes)";
            Error::new(ErrorCode::CompilerBusy).with_message(message).retry_after(1)
        })
    }

    fn compiler_busy(&self, tier: Tier) -> Error {
        Error::new(ErrorCode::CompilerBusy).retry_after(self.limits(tier).compile_cpu_s)
    }

    /// Keeps a component that is stored now, compiled on disk.
    pub async fn adopt(&self, organization: OrganizationId, admitted: &Admitted) {
        let (key, artifact) = ((organization, admitted.sha256), admitted.artifact.clone());
        let (Ok(runtime), Some(cache)) = (self.runtime(), self.cache.clone()) else { return };
        let (engine, in_force) = (runtime.engine.clone(), self.memory.in_force());
        let kept = runtime.slow.work(move || cache.keep(&engine, &key, &artifact, &in_force)).await;
        if let Err(e) = kept.and_then(|kept| kept.map_err(|e| Error::internal(e.to_string()))) {
            tracing::warn!(error = %e, "a compiled plugin cannot be kept and will be compiled again after a restart");
        }
    }

    /// A component that is ready to be called, if it is.
    pub fn find_loaded(&self, key: &Key) -> Option<Arc<Loaded>> {
        self.memory.find(key)
    }

    /// Keeps a component ready that comes into force now, until something else [is](Self::set_in_force).
    pub fn keep_loaded(&self, key: Key, loaded: Arc<Loaded>) {
        self.memory.keep(key, loaded);
    }

    /// Makes a component ready: from the cache, or compiled again from the bytes that `fetch` gives. It stays so when it is
    /// in force.
    pub async fn load(
        &self,
        key: Key,
        tier: Tier,
        fetch: impl Future<Output = Result<Vec<u8>>>,
    ) -> Result<Arc<Loaded>> {
        let lock = self.lock_of(key);
        let _one_at_a_time = lock.lock().await;
        if let Some(loaded) = self.find_loaded(&key) {
            return Ok(loaded);
        }
        let (organization, sha256) = key;
        if let Some(error) = self.was_refused(&sha256) {
            return Err(error);
        }
        let loaded = match self.load_cached(key).await? {
            Some(loaded) => loaded,
            None => {
                let component = fetch.await?;
                if <Hash>::from(Sha256::digest(&component)) != sha256 {
                    return Err(Error::internal("a stored component is not the one that was uploaded"));
                }
                let admitted = self.compiled(organization, &component, tier, true).await;
                if let Err(e) = &admitted
                    && e.cause.category() == REFUSAL
                {
                    let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                    refused.insert(sha256, (Instant::now(), e.clone()));
                }
                let admitted = admitted?;
                self.adopt(organization, &admitted).await;
                admitted.loaded
            }
        };
        if self.memory.is_in_force(&key) {
            self.keep_loaded(key, loaded.clone());
        }
        Ok(loaded)
    }

    async fn load_cached(&self, key: Key) -> Result<Option<Arc<Loaded>>> {
        let runtime = self.runtime()?;
        let Some(cache) = self.cache.clone() else { return Ok(None) };
        let (engine, at) = (runtime.engine.clone(), cache.clone());
        let Some(bytes) = runtime.slow.work(move || at.find_bytes(&engine, &key)).await? else { return Ok(None) };
        let reserved = self.reserve(key.0, bytes).await?;
        let engine = runtime.engine.clone();
        let component = runtime.slow.work(move || cache.load(&engine, &key)).await?;
        component.map(|component| Loaded::link(runtime, &component, key.1, Some(reserved)).map(Arc::new)).transpose()
    }

    fn lock_of(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut readying = self.readying.lock().unwrap_or_else(PoisonError::into_inner);
        readying.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = readying.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        readying.insert(key, Arc::downgrade(&lock));
        lock
    }

    fn was_refused(&self, sha256: &Hash) -> Option<Error> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (at, _)| at.elapsed() < REFUSED_FOR);
        refused.get(sha256).map(|(_, error)| error.clone())
    }

    /// Says what is in force: all else is unloaded as soon as no call holds it.
    pub fn set_in_force(&self, in_force: HashSet<Key>) {
        self.memory.keep_only(in_force);
    }

    /// Drops what was made of a component, and what is known of it.
    pub fn forget(&self, key: &Key) {
        self.memory.forget(key);
        self.paces.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.remove(key);
            known
        });
        if let Some(cache) = &self.cache {
            cache.forget(key);
        }
    }

    /// Drops all compiled components but those of these, what was not written to the end, and what is too much. At start,
    /// while nothing is compiled.
    pub fn sweep(&self, stored: &HashSet<Key>) {
        if let Some(cache) = &self.cache {
            cache.sweep(stored, &self.memory.in_force());
        }
    }

    pub fn kept(&self) -> ComponentStats {
        let cache = self.cache.as_ref();
        ComponentStats {
            loaded_bytes: self.memory.used_bytes(),
            cached_bytes: cache.map_or(0, |cache| cache.bytes()),
            unloaded: self.memory.evicted(),
            uncached: cache.map_or(0, |cache| cache.evicted()),
        }
    }

    /// Instantiates the component without a call; returns how long that takes.
    pub async fn start(&self, turn: &CallContext) -> Result<Duration> {
        let began = Instant::now();
        turn.loaded.try_start(self.limits(turn.tier)).await?;
        Ok(began.elapsed())
    }

    /// Asks an authorizer.
    pub async fn authorize(&self, turn: CallContext, input: AccessInput) -> CallResult<Ruling> {
        self.authorize_within(turn, input, &Arc::default()).await
    }

    /// The same as one of several calls of a request.
    pub async fn authorize_within(
        &self,
        turn: CallContext,
        input: AccessInput,
        spent: &Arc<Spent>,
    ) -> CallResult<Ruling> {
        let limits = self.limits(turn.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return too_much(limits.input_bytes);
        }
        let Some(turns) = self.turn(&turn).await else { return busy() };
        let call = self.call(&turn, limits.authorize, turns, spent.clone());
        let mut result = turn.loaded.authorize(call, input).await;
        if let Ok(Ruling::Deny(reason)) = &mut result.outcome {
            *reason = guest::plain(reason, REASON_BYTES_MAX);
        }
        result
    }

    /// Asks a role mapper.
    pub async fn map_roles(&self, turn: CallContext, input: RoleInput) -> CallResult<Vec<String>> {
        let limits = self.limits(turn.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return too_much(limits.input_bytes);
        }
        let Some(turns) = self.turn(&turn).await else { return busy() };
        let call = self.call(&turn, limits.map_roles, turns, Arc::default());
        let mut result = turn.loaded.map_roles(call, input).await;
        if let Ok(roles) = &result.outcome
            && let Some(fault) = roles_fault(roles)
        {
            result.outcome = Err(engine::fault(FaultKind::Output, &fault));
        }
        result
    }

    fn call(&self, turn: &CallContext, budget: Budget, turns: Vec<OwnedSemaphorePermit>, spent: Arc<Spent>) -> Call {
        let key = (turn.organization, turn.loaded.sha256());
        let CallLimits { aside, share, .. } = self.turns_of(turn.organization);
        Call {
            limits: *self.limits(turn.tier),
            budget: turn.budget(budget),
            turns,
            fast_max: self.fast_max,
            pace: (!turn.is_trial).then(|| self.pace_of(key)),
            here: CallMemory { spent, request_max: self.request_max, share },
            aside,
        }
    }

    fn pace_of(&self, key: Key) -> Arc<Pace> {
        entry_of(&self.paces, key, Arc::default)
    }

    /// A turn among all calls, and among those of the organization; `None` when none is free in time.
    async fn turn(&self, turn: &CallContext) -> Option<Vec<OwnedSemaphorePermit>> {
        let CallLimits { all, trials, .. } = self.turns_of(turn.organization);
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

    fn turns_of(&self, organization: OrganizationId) -> CallLimits {
        let own = self.turns_per_organization;
        entry_of(&self.turns_of, organization, || CallLimits {
            all: Arc::new(Semaphore::new(own)),
            trials: Arc::new(Semaphore::new((own / 2).max(1))),
            aside: Arc::new(Semaphore::new(background_runtime::threads_per_organization())),
            share: Arc::new(Share::of(background_runtime::threads())),
            places: Places::new(self.loaded_bytes_per_organization),
        })
    }
}

/// The value of a key, made when there is none.
fn entry_of<K: Copy + Eq + std::hash::Hash, V: Clone>(map: &ArcSwap<HashMap<K, V>>, key: K, make: impl Fn() -> V) -> V {
    if let Some(value) = map.load().get(&key) {
        return value.clone();
    }
    let fresh = make();
    map.rcu(|known| {
        let mut known = HashMap::clone(known);
        known.entry(key).or_insert_with(|| fresh.clone());
        known
    });
    map.load().get(&key).cloned().unwrap_or(fresh)
}

impl CallContext {
    fn budget(&self, budget: Budget) -> Budget {
        let running_ms = self.deadline_ms.map_or(budget.running_ms, |ms| budget.running_ms.min(ms.into()));
        Budget { running_ms, ..budget }
    }
}

/// Work that takes long for the largest components, where it holds up nobody's request.
async fn off_the_path<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("work on a plugin was lost: {e}")))
}

fn too_much<T>(bytes_max: u64) -> CallResult<T> {
    CallResult::failed(engine::fault(FaultKind::Input, &format!("its input would have more than {bytes_max} bytes")))
}

fn busy<T>() -> CallResult<T> {
    CallResult::failed(engine::fault(FaultKind::Busy, "too many plugins run at the same time"))
}

/// Why this cannot be a list of role keys.
fn roles_fault(roles: &[String]) -> Option<String> {
    if roles.len() > ROLES_MAX {
        return Some(format!("it named {} roles, and {ROLES_MAX} are allowed", roles.len()));
    }
    if let Some(odd) = roles.iter().find(|key| !is_role_key(key)) {
        return Some(format!("it named a role that cannot be: {:?}", guest::plain(odd, SHOWN_BYTES_MAX)));
    }
    let mut seen = HashSet::new();
    let twice = roles.iter().find(|key| !seen.insert(key.as_str()))?;
    Some(format!("it named {twice} twice"))
}

#[cfg(test)]
mod limit_tests;
