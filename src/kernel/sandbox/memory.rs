//! Components in memory, bounded by bytes: for each organization, and for the site.
//!
//! Every loaded component counts for as long as anything holds it. An active component stays loaded for the next call
//! until its memory is needed: then the least recently used component of the organization is evicted, or, if the site
//! has too much, that of the organization with the most. An inactive component is unloaded after the call that it was
//! loaded for.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engine::Loaded;
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret::Hash;

/// A component of an organization. The same bytes in two organizations are two components, so that neither can observe
/// the other.
pub type Key = (OrganizationId, Hash);

/// How long a component waits for calls that hold others to end.
const RESERVE_WAIT: Duration = Duration::from_secs(2);
const RESERVE_STEP: Duration = Duration::from_millis(50);
const UNIT: u64 = 1_024;

/// A limit of bytes, in units of 1 KiB.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u32,
}

impl MemoryBudget {
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS))), units }
    }

    fn used_bytes(&self) -> u64 {
        u64::from(self.units).saturating_sub(self.free.available_permits() as u64).saturating_mul(UNIT)
    }
}

/// The reserved bytes of one component; dropping it releases them.
#[derive(Debug)]
pub struct Reserved {
    _permits: [OwnedSemaphorePermit; 2],
    units: u32,
}

pub struct Memory {
    pub kept: ArcSwap<HashMap<Key, Arc<KeptComponent>>>,
    /// Serializes changes; readers do not wait.
    changing: Mutex<()>,
    in_force: ArcSwap<HashSet<Key>>,
    site: MemoryBudget,
    /// Advances whenever a component is kept; uses in between have the same age.
    clock: AtomicU64,
    evicted: AtomicU64,
}

pub struct KeptComponent {
    loaded: Arc<Loaded>,
    used: AtomicU64,
}

impl Memory {
    pub fn new(bytes: u64) -> Self {
        Self {
            kept: ArcSwap::default(),
            changing: Mutex::default(),
            in_force: ArcSwap::default(),
            site: MemoryBudget::new(bytes),
            clock: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub fn find(&self, key: &Key) -> Option<Arc<Loaded>> {
        let kept = self.kept.load();
        let kept = kept.get(key)?;
        kept.used.store(self.clock.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Some(kept.loaded.clone())
    }

    /// Reserves memory for a component. One that is larger than a limit gets the whole limit. Returns `None` if running
    /// calls hold the memory for longer than the wait.
    pub async fn reserve(&self, organization: OrganizationId, own: &MemoryBudget, bytes: u64) -> Option<Reserved> {
        let own = self.take(own, bytes, Some(organization)).await?;
        let site = self.take(&self.site, bytes, None).await?;
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        Some(Reserved { _permits: [own, site], units })
    }

    async fn take(
        &self,
        budget: &MemoryBudget,
        bytes: u64,
        of: Option<OrganizationId>,
    ) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(budget.units);
        let began = Instant::now();
        while began.elapsed() < RESERVE_WAIT {
            let free = u32::try_from(budget.free.available_permits()).unwrap_or(u32::MAX);
            let mut missing = units.saturating_sub(free);
            while missing > 0
                && let Some(evicted) = self.evict(of)
            {
                missing = missing.saturating_sub(evicted);
            }
            // A running call may still hold an evicted component.
            let taken = budget.free.clone().acquire_many_owned(units);
            if let Ok(taken) = tokio::time::timeout(RESERVE_STEP, taken).await {
                return taken.ok();
            }
        }
        None
    }

    /// Evicts the least recently used component, of this organization, or of the one that has the most. Returns its
    /// units.
    fn evict(&self, of: Option<OrganizationId>) -> Option<u32> {
        self.change(|kept| {
            let of = of.or_else(|| {
                let mut sums: HashMap<OrganizationId, u64> = HashMap::new();
                for ((organization, _), kept) in kept.iter() {
                    *sums.entry(*organization).or_default() += u64::from(kept.loaded.units());
                }
                sums.into_iter().max_by_key(|(_, units)| *units).map(|(organization, _)| organization)
            })?;
            let own = kept.iter().filter(|((organization, _), _)| *organization == of);
            let (key, _) = own.min_by_key(|(_, kept)| kept.used.load(Ordering::Relaxed))?;
            let key = *key;
            self.evicted.fetch_add(1, Ordering::Relaxed);
            kept.remove(&key).map(|evicted| evicted.loaded.units())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<Key, Arc<KeptComponent>>) -> T) -> T {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = HashMap::clone(&self.kept.load());
        let answer = change(&mut kept);
        self.kept.store(Arc::new(kept));
        answer
    }

    /// Keeps a component that is active, or is about to be.
    pub fn keep(&self, key: Key, loaded: Arc<Loaded>) {
        let used = self.clock.fetch_add(2, Ordering::Relaxed) + 2;
        self.change(|kept| kept.insert(key, Arc::new(KeptComponent { loaded, used: AtomicU64::new(used) })));
    }

    pub fn is_in_force(&self, key: &Key) -> bool {
        self.in_force.load().contains(key)
    }

    pub fn in_force(&self) -> Arc<HashSet<Key>> {
        self.in_force.load_full()
    }

    /// Sets the active components; all others are no longer kept.
    pub fn keep_only(&self, in_force: HashSet<Key>) {
        self.change(|kept| {
            kept.retain(|key, _| in_force.contains(key));
            self.in_force.store(Arc::new(in_force));
        });
    }

    pub fn forget(&self, key: &Key) {
        self.change(|kept| kept.remove(key));
    }

    pub fn used_bytes(&self) -> u64 {
        self.site.used_bytes()
    }

    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl Reserved {
    pub fn units(&self) -> u32 {
        self.units
    }
}
