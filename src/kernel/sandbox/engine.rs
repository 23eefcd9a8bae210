//! The wasmtime engine, and the execution of one call of a guest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower, TypedFunc,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolConcurrencyLimitError,
    PoolingAllocationConfig, Store, Trap, UpdateDeadline, VariableOperatorCost, WasmFeatures,
};

use super::background_runtime::BackgroundRuntime;
use super::guest::{Guest, LINE_BYTES_MAX, LimitExceeded, OUT_OF_FUEL, plain};
use super::input::{Level, RuleError};
use super::limits::{Budget, Limits};
use super::memory::Reserved;
use super::pace::{CpuTimed, Pace, Share, Spent, since_polled};
use super::{AccessInput, AuthorizeResult, CallResult, Fault, FaultKind, RoleInput};
use crate::kernel::authz::plugin::Exports;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::secret::Hash;

/// The names of the interfaces of this major version. Lookups follow semantic versioning: components that were built
/// for another 1.x are found too.
const HOST: &str = "roster:policy/host@1.0.0";
const TYPES: &str = "roster:policy/types@1.0.0";
const AUTHORIZER: &str = "roster:policy/authorizer@1.0.0";
const ROLE_MAPPER: &str = "roster:policy/role-mapper@1.0.0";

/// The interval at which a running guest is interrupted, its CPU time is counted, and it yields.
const TICK: Duration = Duration::from_millis(1);
/// The ticker pauses after this many ticks without a call.
const IDLE_TICKS: u32 = 200;
/// The wall time of a call is limited to this multiple of its running time, because it may wait for a CPU, but not to
/// less than the minimum below.
const WALL_TIME_FACTOR: u64 = 5;
const WALL_TIME_MS_MIN: u64 = 100;
const STACK_BYTES: usize = 256 * 1024;
const FIBER_BYTES: usize = 512 * 1024;
/// Limits of the instance pool; a component that needs more is refused when it is loaded.
const POOL_CALLS: u32 = 64;
const POOL_MEMORY_BYTES: usize = 64 * 1024 * 1024;
const POOL_TABLE_ELEMENTS: usize = 60_000;
/// The bytes of each memory and table that stay resident between two calls.
const KEPT_BYTES: usize = 512 * 1024;
const MEMORIES_MAX: u32 = 4;
const TABLES_MAX: u32 = 64;
const CORE_INSTANCES_MAX: u32 = 64;

/// The available address space, which the generated code depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Memories have reservations so large that accesses need no bounds checks.
    Roomy,
    /// Address space is limited (`ulimit -v`, some containers): calls take longer.
    Scarce,
}

impl Space {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roomy => "roomy",
            Self::Scarce => "scarce",
        }
    }

    /// The space with this name.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Roomy, Self::Scarce].into_iter().find(|space| space.as_str() == text)
    }
}

/// The configuration that generated code depends on: the same in the child process that compiles and in the server.
fn base(space: Space) -> Config {
    let mut config = Config::new();
    // Fuel is the main limit, because it is the same on every machine. Epoch interruption limits time, because a loop
    // of host calls uses little fuel.
    config.consume_fuel(true).operator_cost(operator_cost()).epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_BYTES);
    // Exactly the features of the validation in `inspect`, even if a newer wasmtime enables more.
    config.wasm_features(WasmFeatures::all(), false).wasm_features(super::inspect::features(), true);
    config.cranelift_nan_canonicalization(true).concurrency_support(false);
    config.memory_guaranteed_dense_image_size(64 * 1024 * 1024);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    if space == Space::Scarce {
        config.memory_reservation(0).memory_reservation_for_growth(1024 * 1024).memory_guard_size(64 * 1024);
    }
    config
}

/// The size of a table element.
const ELEMENT_BYTES: u8 = 8;

/// Fuel costs: one per instruction, and one per byte for instructions on ranges of memory, even if these fail. The
/// growth of memories is charged in [`Guest::memory_growing`], because the bytes of a page do not fit into a cost here.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    cost.variable = VariableOperatorCost {
        memory_copy_per_byte: 1,
        memory_fill_per_byte: 1,
        memory_init_per_byte: 1,
        table_copy_per_element: ELEMENT_BYTES,
        table_fill_per_element: ELEMENT_BYTES,
        table_init_per_element: ELEMENT_BYTES,
        table_grow_per_element: ELEMENT_BYTES,
        ..VariableOperatorCost::new()
    };
    cost
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_CALLS)
        // Every call can use the maximum of one call, so that organizations do not compete for pool slots.
        .total_core_instances(POOL_CALLS * CORE_INSTANCES_MAX)
        .total_memories(POOL_CALLS * MEMORIES_MAX)
        .total_tables(POOL_CALLS * TABLES_MAX)
        .total_stacks(POOL_CALLS)
        .max_memory_size(POOL_MEMORY_BYTES)
        .table_elements(POOL_TABLE_ELEMENTS)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        // Returning pages to the system on every call would interrupt all threads of the process, so only the pages
        // that a call wrote are reset.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .async_stack_keep_resident(0);
    pool
}

/// Creates an engine that only compiles, for the child process, which needs no pool.
pub fn compiler(space: Space) -> wasmtime::Result<Engine> {
    Engine::new(&base(space))
}

/// The engine of this process, created when the first component is loaded.
pub struct Runtime {
    pub engine: Engine,
    pub space: Space,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
    /// Runs guests that are not known to be fast, or take long. On request threads they would delay new requests, which
    /// these threads accept only when they are idle.
    pub(super) background: BackgroundRuntime,
}

impl Runtime {
    pub fn new() -> Result<Self> {
        let mut pooled = base(Space::Roomy);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        let created = Engine::new(&pooled).map(|engine| (engine, Space::Roomy)).or_else(|error| {
            tracing::warn!(error = %error, "the address space is limited: calls of plugins take longer");
            Engine::new(&base(Space::Scarce)).map(|engine| (engine, Space::Scarce))
        });
        let (engine, space) = created.map_err(|e| Error::internal(format!("the sandbox cannot be created: {e}")))?;
        let linker = linker(&engine).map_err(|e| Error::internal(format!("the sandbox cannot be linked: {e}")))?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { engine, space, linker, ticker, background: BackgroundRuntime::start()? })
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    linker.instance(TYPES)?;
    linker
        .instance(HOST)?
        .func_wrap("log", |mut store, (level, message): (Level, String)| store.data_mut().log(level, &message))?;
    Ok(linker)
}

/// Interrupts running guests: one thread, which is parked while no guest runs, and ends with its engine.
struct Ticker {
    running: AtomicUsize,
    thread: OnceLock<std::thread::Thread>,
}

impl Ticker {
    fn start(engine: &Engine) -> Result<Arc<Self>> {
        let ticker = Arc::new(Self { running: AtomicUsize::new(0), thread: OnceLock::new() });
        let (engine, weak) = (engine.weak(), Arc::downgrade(&ticker));
        let thread = crate::kernel::runtime::health::spawn("plugin-ticker", move || tick(&engine, &weak));
        let thread = thread.map_err(|e| Error::internal(format!("the ticker for plugins cannot be started: {e}")))?;
        // Set once, here.
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    /// Registers a running call, until the returned guard is dropped.
    fn enter(self: &Arc<Self>) -> Running {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running(self.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engine: &wasmtime::EngineWeak, ticker: &Weak<Ticker>) {
    let mut idle = 0;
    while let Some(ticker) = ticker.upgrade() {
        let is_idle = ticker.running.load(Ordering::SeqCst) == 0;
        drop(ticker);
        idle = if is_idle { idle + 1 } else { 0 };
        if idle > IDLE_TICKS {
            // A new call, or the drop of the ticker, unparks this thread.
            std::thread::park();
            idle = 0;
            continue;
        }
        std::thread::sleep(TICK);
        if let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
        }
    }
}

/// A component that is compiled and linked; each call creates its own instance.
pub struct Loaded {
    pre: InstancePre<Guest>,
    authorize: Option<ComponentExportIndex>,
    map_roles: Option<ComponentExportIndex>,
    runtime: Arc<Runtime>,
    sha256: Hash,
    /// Its reserved memory; `None` if it is not counted.
    reserved: Option<Reserved>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loaded {:?}", self.exports())
    }
}

type Authorize = TypedFunc<(AccessInput,), (std::result::Result<AuthorizeResult, RuleError>,)>;
type MapRoles = TypedFunc<(RoleInput,), (std::result::Result<Vec<String>, RuleError>,)>;

impl Loaded {
    /// Links a component. Checks its imports; the types of its exports are checked by [`Loaded::try_start`].
    pub fn link(
        runtime: &Arc<Runtime>,
        component: &Component,
        sha256: Hash,
        reserved: Option<Reserved>,
    ) -> Result<Self> {
        let pre = runtime.linker.instantiate_pre(component).map_err(|e| {
            Error::new(ErrorCode::PluginImports).with_message(format!("the component cannot be linked: {e:#}"))
        })?;
        let export = |interface: &str, name: &str| {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), name)
        };
        let (authorize, map_roles) = (export(AUTHORIZER, "authorize"), export(ROLE_MAPPER, "map-roles"));
        if authorize.is_none() && map_roles.is_none() {
            return Err(ErrorCode::PluginExports.into());
        }
        Ok(Self { pre, authorize, map_roles, runtime: runtime.clone(), sha256, reserved })
    }

    pub fn sha256(&self) -> Hash {
        self.sha256
    }

    /// The size of its reserved memory, in units of 1 KiB.
    pub fn units(&self) -> u32 {
        self.reserved.as_ref().map_or(0, Reserved::units)
    }

    pub fn exports(&self) -> Exports {
        Exports { authorizer: self.authorize.is_some(), role_mapper: self.map_roles.is_some() }
    }

    /// Runs [`Loaded::try_start`] on a background thread.
    pub async fn try_start_in_background(self: &Arc<Self>, limits: Limits) -> Result<()> {
        let loaded = self.clone();
        let started = self.runtime.background.run(async move { loaded.try_start(&limits).await }).await;
        started.unwrap_or_else(|| Err(Error::internal("the start of a plugin was lost")))
    }

    /// Instantiates the component once, and checks the types of its exports.
    pub async fn try_start(&self, limits: &Limits) -> Result<()> {
        let mut store = self.store(limits, limits.map_roles);
        let wall_time_max = wall_time_max(limits.map_roles);
        let _running = self.runtime.ticker.enter();
        let started =
            tokio::time::timeout(wall_time_max, CpuTimed::new(self.pre.instantiate_async(&mut store), Duration::MAX))
                .await;
        let instance = match started {
            Ok((instance, _)) => instance,
            Err(_) if store.data().timeout_fault().kind == FaultKind::Busy => {
                return Err(ErrorCode::CompilerBusy.into());
            }
            Err(_) => {
                return Err(Error::new(ErrorCode::PluginStart).with_message("the component takes too long to start"));
            }
        };
        let instance = instance.map_err(|e| {
            Error::new(ErrorCode::PluginStart).with_message(format!(
                "{}: {}",
                ErrorCode::PluginStart.message(),
                fault_of(&e).message
            ))
        })?;
        let wrong_type = |e: wasmtime::Error| {
            Error::new(ErrorCode::PluginExports)
                .with_message(format!("the type of the component's export differs from `plugins/wit`: {e:#}"))
        };
        if let Some(index) = &self.authorize {
            let _: Authorize = instance.get_typed_func(&mut store, index).map_err(wrong_type)?;
        }
        if let Some(index) = &self.map_roles {
            let _: MapRoles = instance.get_typed_func(&mut store, index).map_err(wrong_type)?;
        }
        Ok(())
    }

    pub async fn authorize(self: &Arc<Self>, call: Call, input: AccessInput) -> CallResult<AuthorizeResult> {
        self.call(call, |loaded| loaded.authorize.as_ref(), input).await
    }

    pub async fn map_roles(self: &Arc<Self>, call: Call, input: RoleInput) -> CallResult<Vec<String>> {
        self.call(call, |loaded| loaded.map_roles.as_ref(), input).await
    }

    /// Creates a store with all limits set, before any code of the guest runs.
    fn store(&self, limits: &Limits, budget: Budget) -> Store<Guest> {
        let mut store = Store::new(&self.runtime.engine, Guest::new(limits, budget));
        store.limiter(|guest| guest);
        // Fuel is enabled in `base`, so that this cannot fail.
        let _ = store.set_fuel(budget.fuel);
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
        store.epoch_deadline_callback(|mut store| {
            let guest = store.data_mut();
            // The end of a time slice: the guest yields. Only CPU time counts, not waiting for a CPU.
            guest.ran += since_polled();
            Ok(if guest.ran > guest.ran_max { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        store.set_epoch_deadline(1);
        store
    }

    /// Runs one call. A version that is proven to be fast starts on the request thread, where most calls end at once.
    /// All other calls, and those that take too long, run on background threads, as many at a time as the organization
    /// may use. A short call that is interrupted by a tick stays on the request thread, because while it waits for a
    /// background thread it would hold permits that others need.
    async fn call<Input, Answer>(
        self: &Arc<Self>,
        call: Call,
        export: fn(&Self) -> Option<&ComponentExportIndex>,
        input: Input,
    ) -> CallResult<Answer>
    where
        Input: Send + 'static,
        Answer: Send + 'static,
        (Input,): ComponentNamedList + Lower + Send + Sync + 'static,
        (std::result::Result<Answer, RuleError>,): ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let (loaded, background_permits, fast_max) = (self.clone(), call.background_permits.clone(), call.fast_max);
        let wall_time_max = wall_time_max(call.budget);
        let pace = call.pace.clone();
        let is_proven = pace.as_ref().is_some_and(|pace| pace.is_proven());
        let request_thread = Some(call.request_thread.clone()).filter(|budget| is_proven && budget.is_left());
        let record = move |is_slow: bool| pace.iter().for_each(|pace| pace.record(is_slow));
        let mut clocked = CpuTimed::new(async move { loaded.run(call, export, input).await }, fast_max);
        let is_recorded = request_thread.is_some();
        // A proven version runs here until it is done, or has used too much CPU time.
        while let Some(request_thread) = &request_thread {
            let before = clocked.spent();
            let polled = futures_util::poll!(&mut clocked);
            request_thread.add(clocked.spent() - before);
            if let Poll::Ready((called, spent)) = polled {
                let is_slow = spent > fast_max;
                record(is_slow);
                return CallResult { is_slow, ..called };
            }
            if clocked.spent() > fast_max {
                // Recorded now and not at the end, because the caller may disconnect before.
                record(true);
                break;
            }
        }
        let Ok(Ok(background_permits)) = tokio::time::timeout(wall_time_max, background_permits.acquire_owned()).await
        else {
            return CallResult::failed(fault(FaultKind::Busy, "too many plugins of the organization are running"));
        };
        let rest = async move {
            let (called, spent) = clocked.await;
            drop(background_permits);
            let is_slow = spent > fast_max;
            if !is_recorded {
                record(is_slow);
            }
            CallResult { is_slow, is_aside: true, ..called }
        };
        let lost = || CallResult::failed(fault(FaultKind::Unavailable, "the call was lost in the sandbox"));
        self.runtime.background.run(rest).await.unwrap_or_else(lost)
    }

    async fn run<Input, Answer>(
        &self,
        call: Call,
        export: fn(&Self) -> Option<&ComponentExportIndex>,
        input: Input,
    ) -> CallResult<Answer>
    where
        (Input,): ComponentNamedList + Lower + Send + Sync + 'static,
        (std::result::Result<Answer, RuleError>,): ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let began = Instant::now();
        let budget = call.budget;
        let mut store = self.store(&call.limits, budget);
        let running = self.runtime.ticker.enter();
        let called = async {
            let Some(export) = export(self) else { return Err(fault(FaultKind::Unavailable, "it has no such export")) };
            let instance = self.pre.instantiate_async(&mut store).await.map_err(|e| match fault_of(&e) {
                // There is no answer yet, so an error that is neither a trap nor a limit of the guest is one of the
                // host.
                Fault { kind: FaultKind::Output, message } if !e.is::<LimitExceeded>() => {
                    Fault { kind: FaultKind::Unavailable, message }
                }
                fault => fault,
            })?;
            let function: TypedFunc<(Input,), (std::result::Result<Answer, RuleError>,)> =
                instance.get_typed_func(&mut store, export).map_err(|e| fault_of(&e))?;
            let (answer,) = function.call_async(&mut store, (input,)).await.map_err(|e| fault_of(&e))?;
            answer.map_err(|RuleError { code, message }| {
                fault(FaultKind::Rule, &plain(&format!("{code}: {message}"), LINE_BYTES_MAX))
            })
        };
        let outcome = tokio::time::timeout(wall_time_max(budget), called).await;
        drop(running);
        let instructions = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let guest = store.into_data();
        let outcome = outcome.unwrap_or_else(|_| Err(guest.timeout_fault()));
        let charged = instructions.saturating_add(guest.grown_bytes);
        let outcome =
            if charged > budget.fuel { outcome.and(Err(fault(FaultKind::Fuel, OUT_OF_FUEL))) } else { outcome };
        // Released only now, when the store is gone.
        drop(call.permits);
        CallResult {
            outcome,
            fuel: charged.min(budget.fuel),
            duration: began.elapsed(),
            memory_bytes: guest.memory_bytes,
            is_slow: false,
            is_aside: false,
            log: guest.log,
            log_dropped: guest.log_dropped,
        }
    }
}

/// The time that calls may use on request threads.
#[derive(Clone)]
pub struct RequestThreadBudget {
    /// The time that the guests of the same request have used.
    pub spent: Arc<Spent>,
    pub request_max: Duration,
    pub share: Arc<Share>,
}

impl RequestThreadBudget {
    fn is_left(&self) -> bool {
        self.spent.is_below(self.request_max) && self.share.is_left(Instant::now())
    }

    fn add(&self, time: Duration) {
        self.spent.add(time);
        self.share.add(time, Instant::now());
    }
}

/// The limits of one call, and the permits that it holds.
pub struct Call {
    pub limits: Limits,
    pub budget: Budget,
    /// Released when the call is over, even if its caller has disconnected.
    pub permits: Vec<OwnedSemaphorePermit>,
    /// A call that uses more CPU time than this is slow.
    pub fast_max: Duration,
    /// The record of the version's speed; without it the call runs on a background thread.
    pub pace: Option<Arc<Pace>>,
    /// The time it may use on request threads.
    pub request_thread: RequestThreadBudget,
    /// Permits of the organization for background threads.
    pub background_permits: Arc<Semaphore>,
}

/// The limit of the wall time of a call, on a machine with other load.
fn wall_time_max(budget: Budget) -> Duration {
    Duration::from_millis(budget.running_ms.saturating_mul(WALL_TIME_FACTOR).max(WALL_TIME_MS_MIN))
}

pub fn fault(kind: FaultKind, message: &str) -> Fault {
    Fault { kind, message: message.to_owned() }
}

/// Classifies an error of wasmtime.
fn fault_of(error: &wasmtime::Error) -> Fault {
    if let Some(exceeded) = error.downcast_ref::<LimitExceeded>() {
        let kind = match exceeded {
            LimitExceeded::Memory(_) | LimitExceeded::Table(_) => FaultKind::Memory,
            LimitExceeded::Fuel => FaultKind::Fuel,
            LimitExceeded::LogCalls | LimitExceeded::LogBytes => FaultKind::Output,
        };
        return fault(kind, &exceeded.to_string());
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return fault(FaultKind::Busy, "too many plugins are running");
    }
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => FaultKind::Fuel,
        Some(Trap::Interrupt) => FaultKind::Deadline,
        Some(Trap::StackOverflow) => FaultKind::Stack,
        Some(_) => FaultKind::Trap,
        // An error that is no trap arose when the answer was read, such as too many bytes, or text that is not UTF-8.
        None => FaultKind::Output,
    };
    let text = match kind {
        FaultKind::Fuel => OUT_OF_FUEL.to_owned(),
        FaultKind::Deadline => "it exceeded its running time".to_owned(),
        // The cause first, then the context: a long context is cut.
        _ => format!("{}: {error:#}", error.root_cause()),
    };
    Fault { kind, message: plain(&text, LINE_BYTES_MAX) }
}
