//! The sandbox, and the only user of wasmtime: inspects components, compiles them in a child process, and calls them.
//!
//! **Invariant.** A guest cannot make the host panic, and cannot block or starve the host or another organization.
//! Every call has its own store, which is always dropped after it. A call runs as a fiber that yields every
//! millisecond, within the fuel, time, memory and output of its [`Limits`]. It can access nothing but its log. Its
//! answer is untrusted input.

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
pub mod progress;
pub mod vectors;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cache::Cache;
use compile_queue::CompileQueue;
use engine::{Call, RequestThreadBudget, Runtime};
use memory::{Memory, MemoryBudget, Reserved};
use pace::{Pace, Share};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use call_result::{CallResult, Fault};
pub use engine::Loaded;
pub use input::{AccessInput, AuthorizeResult, Claim, LogLine, RoleInput};
pub use limits::{Budget, Limits, Tier};
pub use memory::Key;
pub use pace::{PROOF_CALLS, Spent};
pub use progress::{UploadProgress, UploadStep};

use crate::kernel::authz::permission::is_role_key;
use crate::kernel::authz::plugin::Exports;
pub use crate::kernel::authz::plugin::FaultKind;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret::Hash;

/// A component that passed all checks of an upload: it was compiled and instantiated once.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub sha256: Hash,
    pub loaded: Arc<Loaded>,
    pub exports: Exports,
    /// The names of its imports, as in the component.
    pub imports: Vec<String>,
    pub compile_time: Duration,
    /// The compiled code.
    pub artifact: Arc<[u8]>,
}

/// The host of all plugins of the site.
pub struct Host {
    limits: [Limits; 2],
    runtime: OnceLock<Arc<Runtime>>,
    memory: Memory,
    loaded_bytes_per_organization: u64,
    /// One lock per component that is being loaded, so that loads of different components do not wait for each other.
    load_locks: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
    /// Recent refusals of components, so that a component is not compiled again for each waiting caller.
    refused: Mutex<HashMap<Hash, (Instant, Error)>>,
    compile_queue: CompileQueue,
    /// The cache of compiled components on disk, if any.
    cache: Option<Arc<Cache>>,
    permits: Arc<Semaphore>,
    limits_by_organization: ArcSwap<HashMap<OrganizationId, CallLimits>>,
    calls_per_organization: usize,
    call_wait: Duration,
    /// The speed of the versions that have been called.
    paces: ArcSwap<HashMap<Key, Arc<Pace>>>,
    fast_max: Duration,
    /// The time that all guests of one request may use on its thread.
    request_max: Duration,
}

/// The limits of the calls of one organization.
#[derive(Debug, Clone)]
struct CallLimits {
    all: Arc<Semaphore>,
    /// Permits for trial calls, which need one of `all` too.
    trials: Arc<Semaphore>,
    /// Permits for background threads, so that threads remain for other organizations.
    background: Arc<Semaphore>,
    /// The time that its calls use on request threads.
    share: Arc<Share>,
    /// The memory of its loaded components.
    memory: MemoryBudget,
}

/// The components in memory and on disk, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct ComponentStats {
    pub loaded_bytes: u64,
    pub cached_bytes: u64,
    /// Evictions from memory since the start.
    pub unloaded: u64,
    /// Evictions from disk since the start.
    pub uncached: u64,
}

/// The component to call, and on whose behalf.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub organization: OrganizationId,
    pub loaded: Arc<Loaded>,
    pub tier: Tier,
    /// A lower limit of the running time than that of the tier.
    pub deadline_ms: Option<u32>,
    /// Whether the result has no effect: a dry run, a test, or a plugin that is only watched. Such calls can use only
    /// half of the organization's permits.
    pub is_trial: bool,
}

/// How long a refused component is not compiled again.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The category of error causes that are properties of the component.
const REFUSAL: u32 = 101;

/// Most roles in the result of a role mapper.
pub const ROLES_MAX: usize = 256;
/// The longest reason of a denial.
const REASON_BYTES_MAX: usize = 512;
/// Most bytes of an invalid role key in a message.
const SHOWN_BYTES_MAX: usize = 64;

impl Host {
    /// Creates a host with a cache on disk. `key` authenticates compiled components.
    pub fn new(config: &Config, key: Hash) -> Self {
        let (all, own) = (config.plugin_cache_bytes, config.plugin_cache_bytes_per_organization);
        let cache = Cache::new(&config.data.join("compiled-plugins"), key, all, own);
        Self { cache: Some(Arc::new(cache)), ..Self::without_cache(config) }
    }

    /// Creates a host without a cache on disk.
    pub fn without_cache(config: &Config) -> Self {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            limits: [Limits::for_tier(config, Tier::Standard), Limits::for_tier(config, Tier::Large)],
            runtime: OnceLock::new(),
            memory: Memory::new(config.plugin_loaded_bytes),
            loaded_bytes_per_organization: config.plugin_loaded_bytes_per_organization,
            load_locks: Mutex::default(),
            refused: Mutex::default(),
            compile_queue: CompileQueue::new(
                count(config.plugin_compile_queue_max),
                count(config.plugin_compile_queue_per_organization),
            ),
            cache: None,
            permits: Arc::new(Semaphore::new(count(config.plugin_calls_max))),
            limits_by_organization: ArcSwap::default(),
            calls_per_organization: count(config.plugin_calls_per_organization),
            call_wait: Duration::from_millis(config.plugin_wait_ms),
            paces: ArcSwap::default(),
            fast_max: Duration::from_micros(config.plugin_fast_us),
            request_max: Duration::from_micros(config.plugin_request_us),
        }
    }

    pub fn limits(&self, tier: Tier) -> &Limits {
        &self.limits[usize::from(tier == Tier::Large)]
    }

    /// The engine. It takes memory, so that it is created for the first component.
    fn runtime(&self) -> Result<&Arc<Runtime>> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let created = Arc::new(Runtime::new()?);
        Ok(self.runtime.get_or_init(|| created))
    }

    /// Inspects, compiles and instantiates an uploaded component. Fails if it cannot be called, and with
    /// `compiler_busy` if too many uploads wait. Nothing is stored before [`Host::adopt`].
    pub async fn admit(&self, organization: OrganizationId, component: &[u8], tier: Tier) -> Result<Admitted> {
        let nobody: Arc<dyn UploadProgress> = Arc::new(());
        self.admit_watched(organization, component, tier, &nobody).await
    }

    /// Like [`Host::admit`]; reports its steps.
    async fn admit_watched(
        &self,
        organization: OrganizationId,
        component: &[u8],
        tier: Tier,
        progress: &Arc<dyn UploadProgress>,
    ) -> Result<Admitted> {
        let _slot = self.compile_queue.admit_upload(organization).ok_or_else(|| self.compiler_busy(tier))?;
        self.compile_and_load(organization, component, (tier, false), progress).await
    }

    /// Does the work of [`Host::admit`], also for a stored component that must be compiled again, which needs no upload
    /// slot.
    async fn compile_and_load(
        &self,
        organization: OrganizationId,
        component: &[u8],
        (tier, is_stored): (Tier, bool),
        progress: &Arc<dyn UploadProgress>,
    ) -> Result<Admitted> {
        let limits = *self.limits(tier);
        let (bytes, watched) = (component.to_vec(), progress.clone());
        let inspect = move || Ok((inspect::inspect(&bytes, &limits, &*watched)?, Hash::from(Sha256::digest(&bytes))));
        let (inspected, sha256) = run_blocking(inspect).await?.map_err(|e: Error| e)?;
        progress.step(UploadStep::Compiled);
        let runtime = self.runtime()?;
        let (artifact, compile_time) = {
            let permit = self.compile_queue.acquire(organization, is_stored).await;
            let _permit = permit.ok_or_else(|| self.compiler_busy(tier))?;
            let began = Instant::now();
            (compile::compile(component, &limits, runtime.space).await?, began.elapsed())
        };
        progress.step(UploadStep::Started);
        let reserved = self.reserve(organization, artifact.len() as u64).await?;
        let engine = runtime.engine.clone();
        let load = move || (compile::component_of(&engine, &artifact), artifact);
        let (component, artifact) = runtime.background.work(load).await?;
        // It was compiled for this engine, so an error here means that it exceeds the pool's limits for one call.
        let component = component.map_err(|e| {
            Error::new(ErrorCode::PluginTooComplex)
                .with_message(format!("the component exceeds the limits of a call: {e:#}"))
        })?;
        let loaded = Arc::new(Loaded::link(runtime, &component, sha256, Some(reserved))?);
        if loaded.exports() != inspected.exports {
            return Err(ErrorCode::PluginExports.into());
        }
        loaded.try_start_in_background(limits).await?;
        let (exports, imports) = (inspected.exports, inspected.imports);
        Ok(Admitted { sha256, loaded, exports, imports, compile_time, artifact: artifact.into() })
    }

    /// Reserves memory for a component, until the reservation is dropped. Fails with `compiler_busy` if running calls
    /// hold it.
    async fn reserve(&self, organization: OrganizationId, bytes: u64) -> Result<Reserved> {
        let budget = self.call_limits(organization).memory;
        self.memory.reserve(organization, &budget, bytes).await.ok_or_else(|| {
            let message = "running calls hold all memory for compiled plugins (plugins.loaded_bytes)";
            Error::new(ErrorCode::CompilerBusy).with_message(message).retry_after(1)
        })
    }

    fn compiler_busy(&self, tier: Tier) -> Error {
        Error::new(ErrorCode::CompilerBusy).retry_after(self.limits(tier).compile_cpu_s)
    }

    /// Writes the compiled code of a component that is now stored to the cache on disk.
    pub async fn adopt(&self, organization: OrganizationId, admitted: &Admitted) {
        let (key, artifact) = ((organization, admitted.sha256), admitted.artifact.clone());
        let (Ok(runtime), Some(cache)) = (self.runtime(), self.cache.clone()) else { return };
        let (engine, in_force) = (runtime.engine.clone(), self.memory.in_force());
        let kept = runtime.background.work(move || cache.keep(&engine, &key, &artifact, &in_force)).await;
        if let Err(e) = kept.and_then(|kept| kept.map_err(|e| Error::internal(e.to_string()))) {
            tracing::warn!(error = %e, "a compiled plugin cannot be cached on disk and will be compiled again after a restart");
        }
    }

    /// Returns a component if it is loaded.
    pub fn find_loaded(&self, key: &Key) -> Option<Arc<Loaded>> {
        self.memory.find(key)
    }

    /// Keeps an activated component loaded, until it is no longer [active](Self::set_active).
    pub fn keep_loaded(&self, key: Key, loaded: Arc<Loaded>) {
        self.memory.keep(key, loaded);
    }

    /// Loads a component: from the cache, or compiled again from the bytes that `fetch` returns. It stays loaded if it
    /// is active.
    pub async fn load(
        &self,
        key: Key,
        tier: Tier,
        fetch: impl Future<Output = Result<Vec<u8>>>,
    ) -> Result<Arc<Loaded>> {
        let lock = self.lock_of(key);
        let _guard = lock.lock().await;
        if let Some(loaded) = self.find_loaded(&key) {
            return Ok(loaded);
        }
        let (organization, sha256) = key;
        if let Some(error) = self.find_refusal(&sha256) {
            return Err(error);
        }
        let loaded = match self.load_cached(key).await? {
            Some(loaded) => loaded,
            None => {
                let component = fetch.await?;
                if <Hash>::from(Sha256::digest(&component)) != sha256 {
                    return Err(Error::internal("a stored component does not have its digest"));
                }
                let nobody: Arc<dyn UploadProgress> = Arc::new(());
                let admitted = self.compile_and_load(organization, &component, (tier, true), &nobody).await;
                if let Err(e) = &admitted
                    && e.code.category() == REFUSAL
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
        let (engine, shared) = (runtime.engine.clone(), cache.clone());
        let Some(bytes) = runtime.background.work(move || shared.find_bytes(&engine, &key)).await? else {
            return Ok(None);
        };
        let reserved = self.reserve(key.0, bytes).await?;
        let engine = runtime.engine.clone();
        let component = runtime.background.work(move || cache.load(&engine, &key)).await?;
        component.map(|component| Loaded::link(runtime, &component, key.1, Some(reserved)).map(Arc::new)).transpose()
    }

    fn lock_of(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut load_locks = self.load_locks.lock().unwrap_or_else(PoisonError::into_inner);
        load_locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = load_locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        load_locks.insert(key, Arc::downgrade(&lock));
        lock
    }

    fn find_refusal(&self, sha256: &Hash) -> Option<Error> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (at, _)| at.elapsed() < REFUSED_FOR);
        refused.get(sha256).map(|(_, error)| error.clone())
    }

    /// Sets the active components. All others are unloaded as soon as no call holds them.
    pub fn set_active(&self, in_force: HashSet<Key>) {
        self.memory.keep_only(in_force);
    }

    /// Removes a component from memory and from the cache, and forgets its speed.
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

    /// Deletes from the cache all components that are not stored, incomplete files, and what exceeds the limits. Must
    /// run at start, while nothing is compiled.
    pub fn sweep(&self, stored: &HashSet<Key>) {
        if let Some(cache) = &self.cache {
            cache.sweep(stored, &self.memory.in_force());
        }
    }

    pub fn component_stats(&self) -> ComponentStats {
        let cache = self.cache.as_ref();
        ComponentStats {
            loaded_bytes: self.memory.used_bytes(),
            cached_bytes: cache.map_or(0, |cache| cache.bytes()),
            unloaded: self.memory.evicted(),
            uncached: cache.map_or(0, |cache| cache.evicted()),
        }
    }

    /// Instantiates the component without a call, and returns how long that took.
    pub async fn start(&self, context: &CallContext) -> Result<Duration> {
        let began = Instant::now();
        context.loaded.try_start(self.limits(context.tier)).await?;
        Ok(began.elapsed())
    }

    /// Calls an authorizer.
    pub async fn authorize(&self, context: CallContext, input: AccessInput) -> CallResult<AuthorizeResult> {
        self.authorize_within(context, input, &Arc::default()).await
    }

    /// Calls an authorizer as one of several calls of a request; `spent` sums their time on the request thread.
    pub async fn authorize_within(
        &self,
        context: CallContext,
        input: AccessInput,
        spent: &Arc<Spent>,
    ) -> CallResult<AuthorizeResult> {
        let limits = self.limits(context.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return input_too_large(limits.input_bytes);
        }
        let Some(permits) = self.acquire(&context).await else { return busy() };
        let call = self.call(&context, limits.authorize, permits, spent.clone());
        let mut result = context.loaded.authorize(call, input).await;
        if let Ok(AuthorizeResult::Deny(reason)) = &mut result.outcome {
            *reason = guest::plain(reason, REASON_BYTES_MAX);
        }
        result
    }

    /// Calls a role mapper.
    pub async fn map_roles(&self, context: CallContext, input: RoleInput) -> CallResult<Vec<String>> {
        let limits = self.limits(context.tier);
        if input.bytes() as u64 > limits.input_bytes {
            return input_too_large(limits.input_bytes);
        }
        let Some(permits) = self.acquire(&context).await else { return busy() };
        let call = self.call(&context, limits.map_roles, permits, Arc::default());
        let mut result = context.loaded.map_roles(call, input).await;
        if let Ok(roles) = &result.outcome
            && let Some(fault) = roles_fault(roles)
        {
            result.outcome = Err(engine::fault(FaultKind::Output, &fault));
        }
        result
    }

    fn call(
        &self,
        context: &CallContext,
        budget: Budget,
        permits: Vec<OwnedSemaphorePermit>,
        spent: Arc<Spent>,
    ) -> Call {
        let key = (context.organization, context.loaded.sha256());
        let CallLimits { background, share, .. } = self.call_limits(context.organization);
        Call {
            limits: *self.limits(context.tier),
            budget: context.budget(budget),
            permits,
            fast_max: self.fast_max,
            pace: (!context.is_trial).then(|| self.pace_of(key)),
            request_thread: RequestThreadBudget { spent, request_max: self.request_max, share },
            background_permits: background,
        }
    }

    fn pace_of(&self, key: Key) -> Arc<Pace> {
        entry_of(&self.paces, key, Arc::default)
    }

    /// Acquires the permits of a call, of the organization and of the site; `None` if they are not free in time.
    async fn acquire(&self, context: &CallContext) -> Option<Vec<OwnedSemaphorePermit>> {
        let CallLimits { all, trials, .. } = self.call_limits(context.organization);
        // The organization's permits first: a call that waits for them holds none of the site's.
        let semaphores = context.is_trial.then_some(trials).into_iter().chain([all, self.permits.clone()]);
        let acquire = async {
            let mut acquired = Vec::with_capacity(3);
            for semaphore in semaphores {
                acquired.push(semaphore.acquire_owned().await.ok()?);
            }
            Some(acquired)
        };
        tokio::time::timeout(self.call_wait, acquire).await.ok().flatten()
    }

    fn call_limits(&self, organization: OrganizationId) -> CallLimits {
        let own = self.calls_per_organization;
        entry_of(&self.limits_by_organization, organization, || CallLimits {
            all: Arc::new(Semaphore::new(own)),
            trials: Arc::new(Semaphore::new((own / 2).max(1))),
            background: Arc::new(Semaphore::new(background_runtime::threads_per_organization())),
            share: Arc::new(Share::of(background_runtime::threads())),
            memory: MemoryBudget::new(self.loaded_bytes_per_organization),
        })
    }
}

/// Returns the value of a key, and creates it if there is none.
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

/// Runs work that takes long for the largest components on a blocking thread.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("work on a plugin was lost: {e}")))
}

fn input_too_large<T>(bytes_max: u64) -> CallResult<T> {
    CallResult::failed(engine::fault(FaultKind::Input, &format!("its input has more than {bytes_max} bytes")))
}

fn busy<T>() -> CallResult<T> {
    CallResult::failed(engine::fault(FaultKind::Busy, "too many plugins are running"))
}

/// Why the result of a role mapper is not valid, if so.
fn roles_fault(roles: &[String]) -> Option<String> {
    if roles.len() > ROLES_MAX {
        return Some(format!("it returned {} roles, and {ROLES_MAX} are allowed", roles.len()));
    }
    if let Some(invalid) = roles.iter().find(|key| !is_role_key(key)) {
        return Some(format!("it returned an invalid role key: {:?}", guest::plain(invalid, SHOWN_BYTES_MAX)));
    }
    let mut seen = HashSet::new();
    let duplicate = roles.iter().find(|key| !seen.insert(key.as_str()))?;
    Some(format!("it returned {duplicate} twice"))
}

#[cfg(test)]
mod limit_tests;
