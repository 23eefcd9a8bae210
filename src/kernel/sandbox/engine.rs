//! The engine, and one call of a guest.

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
use super::guest::{Broke, Guest, LINE_BYTES_MAX, OUT_OF_FUEL, plain};
use super::input::{Level, RuleError};
use super::limits::{Budget, Limits};
use super::memory::Reserved;
use super::pace::{Clocked, Pace, Share, Spent, since_polled};
use super::{AccessInput, CallResult, Fault, FaultKind, RoleInput, Ruling};
use crate::kernel::authz::plugin::Exports;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::secret::Hash;

/// The interfaces of this major version, as components name them. Lookups follow semantic versions: what was built for
/// another 1.x is found too.
const HOST: &str = "roster:policy/host@1.0.0";
const TYPES: &str = "roster:policy/types@1.0.0";
const AUTHORIZER: &str = "roster:policy/authorizer@1.0.0";
const ROLE_MAPPER: &str = "roster:policy/role-mapper@1.0.0";

/// How often a running guest is interrupted, counted and made to yield.
const TICK: Duration = Duration::from_millis(1);
/// The ticker rests after this many ticks without a call.
const IDLE_TICKS: u32 = 200;
/// A call that waits for the processor may last this many times its running time, and no less than that.
const PATIENCE: u64 = 5;
const PATIENCE_MS_MIN: u64 = 100;
const STACK_BYTES: usize = 256 * 1024;
const FIBER_BYTES: usize = 512 * 1024;
/// What the pool holds ready at most; a component that needs more is refused when it is loaded.
const POOL_CALLS: u32 = 64;
const POOL_MEMORY_BYTES: usize = 64 * 1024 * 1024;
const POOL_TABLE_ELEMENTS: usize = 60_000;
/// Of each memory and table, what stays in place between two calls.
const KEPT_BYTES: usize = 512 * 1024;
const MEMORIES_MAX: u32 = 4;
const TABLES_MAX: u32 = 64;
const CORE_INSTANCES_MAX: u32 = 64;

/// How much address space there is; it changes the code that is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Memories lie in reservations so wide that no access needs a check.
    Roomy,
    /// Where address space is scarce (`ulimit -v`, some containers): calls take longer.
    Scarce,
}

impl Space {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roomy => "roomy",
            Self::Scarce => "scarce",
        }
    }

    pub fn of(word: &str) -> Self {
        if word == Self::Scarce.as_str() { Self::Scarce } else { Self::Roomy }
    }
}

/// All that changes generated code is the same wherever an engine is made: in the child that compiles and in the server.
fn base(space: Space) -> Config {
    let mut config = Config::new();
    // Fuel decides, the same on every machine; the epoch guards wall time, which a loop of host calls escapes by fuel.
    config.consume_fuel(true).operator_cost(charges()).epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_BYTES);
    // Exactly the features that the validation in `inspect` knows, whatever a newer wasmtime adds.
    config.wasm_features(WasmFeatures::all(), false).wasm_features(super::inspect::features(), true);
    config.cranelift_nan_canonicalization(true).concurrency_support(false);
    config.memory_guaranteed_dense_image_size(64 * 1024 * 1024);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    if space == Space::Scarce {
        config.memory_reservation(0).memory_reservation_for_growth(1024 * 1024).memory_guard_size(64 * 1024);
    }
    config
}

/// An element of a table, in bytes.
const ELEMENT_BYTES: u8 = 8;

/// One for an instruction, and for what one instruction does to much memory one for each byte, also where it fails. What a
/// memory grows by is charged where it is summed ([`Guest::memory_growing`]): a page has more bytes than fit here.
fn charges() -> OperatorCost {
    let mut charges = OperatorCost::new();
    charges.variable = VariableOperatorCost {
        memory_copy_per_byte: 1,
        memory_fill_per_byte: 1,
        memory_init_per_byte: 1,
        table_copy_per_element: ELEMENT_BYTES,
        table_fill_per_element: ELEMENT_BYTES,
        table_init_per_element: ELEMENT_BYTES,
        table_grow_per_element: ELEMENT_BYTES,
        ..VariableOperatorCost::new()
    };
    charges
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_CALLS)
        // Every call may have the most that one may have: no organization takes another's place.
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
        // Giving pages back interrupts every thread of the process, on every call: only what a call wrote is put back.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .async_stack_keep_resident(0);
    pool
}

/// An engine that only compiles: in the child process, which needs no pool.
pub fn compiler(space: Space) -> wasmtime::Result<Engine> {
    Engine::new(&base(space))
}

/// The engine of this process, made when the first component is loaded.
pub struct Runtime {
    pub engine: Engine,
    pub space: Space,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
    /// Where a guest goes on that did not answer within its first tick. Beside requests it would keep their threads busy,
    /// which look for new requests only when they have nothing else to do.
    pub(super) slow: BackgroundRuntime,
}

impl Runtime {
    pub fn new() -> Result<Self> {
        let mut pooled = base(Space::Roomy);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        let made = Engine::new(&pooled).map(|engine| (engine, Space::Roomy)).or_else(|why| {
            tracing::warn!(error = %why, "little address space: calls of plugins take longer");
            Engine::new(&base(Space::Scarce)).map(|engine| (engine, Space::Scarce))
        });
        let (engine, space) = made.map_err(|e| Error::internal(format!("the sandbox cannot be made: {e}")))?;
        let linker = linker(&engine).map_err(|e| Error::internal(format!("the sandbox cannot be linked: {e}")))?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { engine, space, linker, ticker, slow: BackgroundRuntime::start()? })
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

/// Interrupts running guests: one thread, which rests while none runs and ends with its engine.
struct Ticker {
    running: AtomicUsize,
    thread: OnceLock<std::thread::Thread>,
}

impl Ticker {
    fn start(engine: &Engine) -> Result<Arc<Self>> {
        let ticker = Arc::new(Self { running: AtomicUsize::new(0), thread: OnceLock::new() });
        let (engine, beats) = (engine.weak(), Arc::downgrade(&ticker));
        let thread = crate::kernel::runtime::health::spawn("plugin-ticker", move || beat(&engine, &beats));
        let thread = thread.map_err(|e| Error::internal(format!("the plugins' clock cannot be started: {e}")))?;
        // Set once, here.
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    /// A call runs as long as this is kept.
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

fn beat(engine: &wasmtime::EngineWeak, ticker: &Weak<Ticker>) {
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

/// A component that is compiled and linked; each call makes an instance of its own.
pub struct Loaded {
    pre: InstancePre<Guest>,
    authorize: Option<ComponentExportIndex>,
    map_roles: Option<ComponentExportIndex>,
    runtime: Arc<Runtime>,
    sha256: Hash,
    /// Its bytes; none where nobody counts them.
    reserved: Option<Reserved>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loaded {:?}", self.exports())
    }
}

type Authorize = TypedFunc<(AccessInput,), (std::result::Result<Ruling, RuleError>,)>;
type MapRoles = TypedFunc<(RoleInput,), (std::result::Result<Vec<String>, RuleError>,)>;

impl Loaded {
    /// Links a component. Its imports are checked here, the types of its exports only when it is started.
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

    /// What it takes of the memory for components.
    pub fn units(&self) -> u32 {
        self.reserved.as_ref().map_or(0, Reserved::units)
    }

    pub fn exports(&self) -> Exports {
        Exports { authorizer: self.authorize.is_some(), role_mapper: self.map_roles.is_some() }
    }

    /// The same, where it holds up nobody's request.
    pub async fn try_start_aside(self: &Arc<Self>, limits: Limits) -> Result<()> {
        let loaded = self.clone();
        let started = self.runtime.slow.run(async move { loaded.try_start(&limits).await }).await;
        started.unwrap_or_else(|| Err(Error::internal("the start of a plugin was lost")))
    }

    /// Starts it once, and checks the types of what it exports.
    pub async fn try_start(&self, limits: &Limits) -> Result<()> {
        let mut store = self.store(limits, limits.map_roles);
        let patience = patience(limits.map_roles);
        let _running = self.runtime.ticker.enter();
        let started =
            tokio::time::timeout(patience, Clocked::new(self.pre.instantiate_async(&mut store), Duration::MAX)).await;
        let instance = match started {
            Ok((instance, _)) => instance,
            Err(_) if store.data().late().kind == FaultKind::Busy => return Err(ErrorCode::CompilerBusy.into()),
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
        let wrong = |e: wasmtime::Error| {
            Error::new(ErrorCode::PluginExports)
                .with_message(format!("the component's export is not as `plugins/wit` has it: {e:#}"))
        };
        if let Some(index) = &self.authorize {
            let _: Authorize = instance.get_typed_func(&mut store, index).map_err(wrong)?;
        }
        if let Some(index) = &self.map_roles {
            let _: MapRoles = instance.get_typed_func(&mut store, index).map_err(wrong)?;
        }
        Ok(())
    }

    pub async fn authorize(self: &Arc<Self>, call: Call, input: AccessInput) -> CallResult<Ruling> {
        self.call(call, |loaded| loaded.authorize.as_ref(), input).await
    }

    pub async fn map_roles(self: &Arc<Self>, call: Call, input: RoleInput) -> CallResult<Vec<String>> {
        self.call(call, |loaded| loaded.map_roles.as_ref(), input).await
    }

    /// A store with all its limits set, before anything of the guest runs in it.
    fn store(&self, limits: &Limits, budget: Budget) -> Store<Guest> {
        let mut store = Store::new(&self.runtime.engine, Guest::new(limits, budget));
        store.limiter(|guest| guest);
        // Fuel is on in every engine of ours, so that this cannot fail.
        let _ = store.set_fuel(budget.fuel);
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
        store.epoch_deadline_callback(|mut store| {
            let guest = store.data_mut();
            // A slice ends here: it yields. Waiting for the processor does not count.
            guest.ran += since_polled();
            Ok(if guest.ran > guest.ran_max { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        store.set_epoch_deadline(1);
        store
    }

    /// One call: of a version that is known to be fast, on the thread of the request, where most are over at once; what
    /// goes on for too long, and all others, aside, as many at a time as the organization may have there. A short one that
    /// was interrupted must not wait there: it has turns that others want.
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
        let (loaded, aside, fast_max) = (self.clone(), call.aside.clone(), call.fast_max);
        let patience = patience(call.budget);
        let pace = call.pace.clone();
        let is_proven = pace.as_ref().is_some_and(|pace| pace.is_proven());
        let here = Some(call.here.clone()).filter(|here| is_proven && here.is_left());
        let note = move |is_slow: bool| pace.iter().for_each(|pace| pace.note(is_slow));
        let mut clocked = Clocked::new(async move { loaded.run(call, export, input).await }, fast_max);
        let is_noted = here.is_some();
        // One that is proven runs here until it is done, or has run for too long.
        while let Some(here) = &here {
            let before = clocked.spent();
            let polled = futures_util::poll!(&mut clocked);
            here.add(clocked.spent() - before);
            if let Poll::Ready((called, spent)) = polled {
                let is_slow = spent > fast_max;
                note(is_slow);
                return CallResult { is_slow, ..called };
            }
            if clocked.spent() > fast_max {
                // Now, and not at its end: who asks may go away before.
                note(true);
                break;
            }
        }
        let Ok(Ok(aside)) = tokio::time::timeout(patience, aside.acquire_owned()).await else {
            return CallResult::failed(fault(
                FaultKind::Busy,
                "too many plugins of the organization run at the same time",
            ));
        };
        let rest = async move {
            let (called, spent) = clocked.await;
            drop(aside);
            let is_slow = spent > fast_max;
            if !is_noted {
                note(is_slow);
            }
            CallResult { is_slow, is_aside: true, ..called }
        };
        let lost = || CallResult::failed(fault(FaultKind::Unavailable, "the sandbox lost it"));
        self.runtime.slow.run(rest).await.unwrap_or_else(lost)
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
                // Nothing was answered yet: what is neither a trap nor a limit of ours is the machine's.
                Fault { kind: FaultKind::Output, message } if !e.is::<Broke>() => {
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
        let outcome = tokio::time::timeout(patience(budget), called).await;
        drop(running);
        let instructions = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let guest = store.into_data();
        let outcome = outcome.unwrap_or_else(|_| Err(guest.late()));
        let charged = instructions.saturating_add(guest.grown_bytes);
        let outcome =
            if charged > budget.fuel { outcome.and(Err(fault(FaultKind::Fuel, OUT_OF_FUEL))) } else { outcome };
        // Only now somebody else may have the turn.
        drop(call.turns);
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

/// What calls may have of the threads that answer requests.
#[derive(Clone)]
pub struct CallMemory {
    /// What the guests of the same request took.
    pub spent: Arc<Spent>,
    pub request_max: Duration,
    pub share: Arc<Share>,
}

impl CallMemory {
    fn is_left(&self) -> bool {
        self.spent.is_below(self.request_max) && self.share.is_left(Instant::now())
    }

    fn add(&self, time: Duration) {
        self.spent.add(time);
        self.share.add(time, Instant::now());
    }
}

/// What a call may have.
pub struct Call {
    pub limits: Limits,
    pub budget: Budget,
    /// Given back when the call is over, even when nobody waits for its answer any more.
    pub turns: Vec<OwnedSemaphorePermit>,
    /// More processor time than this is slow.
    pub fast_max: Duration,
    /// Where it is remembered how fast the version is; without it the call runs aside.
    pub pace: Option<Arc<Pace>>,
    /// What there is for it where requests are answered.
    pub here: CallMemory,
    /// Who of the organization may run aside.
    pub aside: Arc<Semaphore>,
}

/// How long a call may take in all, on a machine that does other things too.
fn patience(budget: Budget) -> Duration {
    Duration::from_millis(budget.running_ms.saturating_mul(PATIENCE).max(PATIENCE_MS_MIN))
}

pub fn fault(kind: FaultKind, message: &str) -> Fault {
    Fault { kind, message: message.to_owned() }
}

/// What went wrong, in one of our words.
fn fault_of(error: &wasmtime::Error) -> Fault {
    if let Some(broke) = error.downcast_ref::<Broke>() {
        let kind = match broke {
            Broke::Memory(_) | Broke::Table(_) => FaultKind::Memory,
            Broke::Fuel => FaultKind::Fuel,
            Broke::LogCalls | Broke::LogBytes => FaultKind::Output,
        };
        return fault(kind, &broke.to_string());
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return fault(FaultKind::Busy, "too many plugins run at the same time");
    }
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => FaultKind::Fuel,
        Some(Trap::Interrupt) => FaultKind::Deadline,
        Some(Trap::StackOverflow) => FaultKind::Stack,
        Some(_) => FaultKind::Trap,
        // What is no trap came up while its answer was read, such as too many bytes, or text that is none.
        None => FaultKind::Output,
    };
    let text = match kind {
        FaultKind::Fuel => OUT_OF_FUEL.to_owned(),
        FaultKind::Deadline => "it ran longer than it may".to_owned(),
        // What happened, and then where: a long way there is cut.
        _ => format!("{}: {error:#}", error.root_cause()),
    };
    Fault { kind, message: plain(&text, LINE_BYTES_MAX) }
}
