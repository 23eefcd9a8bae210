//! The policy in memory beside the rows that it was made from: compared in pages, beside all else, and mended where it
//! differs, which it never should.
//!
//! **Invariant.** A page is read outside the writer. What seems to differ is read again by the writer, on the state that
//! it carries, and only that is replaced: nothing older than what was published is ever put in its place.

use std::collections::HashMap;

use super::upkeep::pieces;
use super::{App, ms, store};
use crate::access::caller::Identity;
use crate::access::compare_store::{self as rows, Mark, PAGE_ROWS};
use crate::access::snapshot::{Change, Part, Place, Snapshot};
use crate::access::{self};
use crate::db::{Reader, Writer};
use crate::error::{Cause, Error, Result};
use crate::ids::{OrganizationId, Timestamp};
use crate::journal::{self, Entry};

/// What a comparison of the policy with the rows found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// When it began.
    pub at: Timestamp,
    pub old_epoch: u64,
    pub new_epoch: u64,
    /// Did the policy in memory differ from the rows?
    pub changed: bool,
}

/// What the last comparisons found, by organization, or of the whole site.
pub type Last = HashMap<Option<OrganizationId>, Reloaded>;

/// From which side the facts come that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// What there is: the policy may lack it, or have something else.
    Rows,
    /// What the policy knows: the rows may not have it any more.
    Memory,
}

use Side::{Memory, Rows};

/// In the order in which differences can be mended: what others rest on comes first when it is missing, and goes last
/// when it is too much.
const STEPS: [(Part, Side); 18] = [
    (Part::Catalog, Rows),
    (Part::Tenants, Rows),
    (Part::Roles, Rows),
    (Part::People, Rows),
    (Part::Seats, Rows),
    (Part::Seats, Memory),
    (Part::People, Memory),
    (Part::Roles, Memory),
    (Part::Tenants, Memory),
    (Part::RoleSets, Memory),
    (Part::Grants, Rows),
    (Part::Grants, Memory),
    (Part::Clients, Rows),
    (Part::Clients, Memory),
    (Part::Sessions, Rows),
    (Part::Sessions, Memory),
    (Part::ApiKeys, Rows),
    (Part::ApiKeys, Memory),
];

/// The steps for one organization, or for all. An organization's people are looked at with it; what else is the site's is not.
fn steps(organization: Option<OrganizationId>) -> impl Iterator<Item = (Part, Side)> {
    const OWN: [Part; 4] = [Part::Tenants, Part::Roles, Part::Seats, Part::RoleSets];
    let is_in = move |step: &(Part, Side)| {
        organization.is_none() || OWN.contains(&step.0) || *step == (Part::People, Side::Rows)
    };
    STEPS.into_iter().filter(is_in)
}

/// What was mended so far.
#[derive(Debug, Default)]
struct Mended {
    facts: usize,
    /// Before the first change, and after the last one.
    epochs: Option<(u64, u64)>,
}

impl App {
    /// Compares the policy of one organization, or of all, with the rows, and mends it.
    ///
    /// A caller that comes while a comparison runs waits for it, and takes its answer if it began after the caller came.
    pub async fn reload(&self, organization: Option<OrganizationId>) -> Result<Reloaded> {
        self.reload_since(organization, Timestamp::now()).await
    }

    /// The same for who may not do so all the time: an answer that is younger than `limits.policy_reload_gap_s` is given
    /// again.
    pub async fn reload_now_and_then(&self, organization: OrganizationId) -> Result<Reloaded> {
        let since = Timestamp::now().plus_ms(-ms(self.config.policy_reload_gap_s));
        self.reload_since(Some(organization), since).await
    }

    async fn reload_since(&self, organization: Option<OrganizationId>, since: Timestamp) -> Result<Reloaded> {
        let mut last = self.reloaded.lock().await;
        if let Some(known) = last.get(&organization).filter(|known| known.at > since) {
            return Ok(*known);
        }
        let at = Timestamp::now();
        let mut mended = Mended::default();
        self.require_policy().await?;
        let epoch = self.snapshot().epoch;
        for (part, side) in steps(organization) {
            let before = mended.facts;
            match side {
                Side::Rows => self.compare_rows(part, organization, &mut mended).await?,
                Side::Memory => self.compare_memory(part, organization, &mut mended).await?,
            }
            if mended.facts > before {
                let facts = mended.facts - before;
                tracing::error!(?part, ?side, facts, "the policy in memory differed from the rows and was mended");
            }
        }
        let (old_epoch, new_epoch) = mended.epochs.unwrap_or((epoch, epoch));
        let reloaded = Reloaded { at, old_epoch, new_epoch, changed: mended.facts > 0 };
        if reloaded.changed {
            self.keep_plugins();
        }
        let gap_ms = ms(self.config.policy_reload_gap_s);
        last.retain(|_, known| known.at > at.plus_ms(-gap_ms));
        last.insert(organization, reloaded);
        Ok(reloaded)
    }

    async fn compare_rows(&self, part: Part, organization: Option<OrganizationId>, mended: &mut Mended) -> Result<()> {
        let mut next = Some(Mark::first(organization));
        while let Some(mark) = next.take() {
            let cell = self.guard.snapshot.clone();
            let look = move |r: &Reader<'_>| {
                let page = rows::page(r, part, organization, &mark)?;
                // A change in between looks like a difference, until the writer looks.
                let current = cell.load_full();
                let suspects = page.facts.into_iter().filter(|fact| current.differs(fact)).collect::<Vec<_>>();
                Ok((suspects, page.next))
            };
            let (suspects, behind) = self.read(look).await?;
            self.mend(suspects, mended).await?;
            next = behind;
        }
        Ok(())
    }

    async fn compare_memory(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        mended: &mut Mended,
    ) -> Result<()> {
        if !self.may_lack_rows(part, organization).await? {
            return Ok(());
        }
        // What comes in meanwhile has its rows.
        let known = self.snapshot();
        let mut next = Some(Place::default());
        while let Some(place) = next.take() {
            let (cell, known) = (self.guard.snapshot.clone(), known.clone());
            let look = move |r: &Reader<'_>| {
                let (facts, behind) = known.known(part, organization, place, PAGE_ROWS);
                let mut suspects = Vec::new();
                for fact in facts {
                    let now = rows::again(r, &cell.load(), &fact)?;
                    if now.iter().any(|now| cell.load().differs(now)) {
                        suspects.push(fact);
                    }
                }
                Ok((suspects, behind))
            };
            let (suspects, behind) = self.read(look).await?;
            self.mend(suspects, mended).await?;
            next = behind;
        }
        Ok(())
    }

    async fn may_lack_rows(&self, part: Part, organization: Option<OrganizationId>) -> Result<bool> {
        /// Where something is changed all the time, a longer look is taken.
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let cell = self.guard.snapshot.clone();
            let look = move |r: &Reader<'_>| rows::may_lack_rows(r, &cell.load(), part, organization);
            if !self.read(look).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn mend(&self, suspects: Vec<Change>, mended: &mut Mended) -> Result<()> {
        for piece in pieces(suspects) {
            let done = self.db.write(move |w, snapshot| mend(w, snapshot, &piece)).await?;
            if let Some((facts, old, new)) = done {
                mended.facts += facts;
                mended.epochs = Some((mended.epochs.map_or(old, |(first, _)| first), new));
            }
        }
        Ok(())
    }

    /// Reads the policy anew where there is none, because the rows could not be read after a failed commit. Nothing that
    /// is decided changes meanwhile.
    pub(super) async fn require_policy(&self) -> Result<()> {
        if self.guard.snapshot.load().is_available() {
            return Ok(());
        }
        let fresh = self.read(access::store::load).await?;
        let put = move |w: &Writer<'_>, snapshot: &mut Snapshot| {
            if !snapshot.is_available() && access::store::epoch(w)? == fresh.epoch {
                *snapshot = fresh;
            }
            Ok(snapshot.is_available())
        };
        match self.db.write(put).await? {
            true => Ok(()),
            false => Err(Error::new(Cause::Busy).because("the policy is not known").retry_after(1)),
        }
    }
}

/// Replaces what differs still, of one piece of suspects; answers how many facts that were, and the epochs before and
/// after.
fn mend(w: &Writer<'_>, snapshot: &mut Snapshot, suspects: &[Change]) -> Result<Option<(usize, u64, u64)>> {
    let mut after = snapshot.clone();
    let mut facts = 0;
    for suspect in suspects {
        for now in rows::again(w, &after, suspect)? {
            if after.differs(&now) {
                after.apply(now);
                facts += 1;
            }
        }
    }
    if facts == 0 {
        return Ok(None);
    }
    let old = snapshot.epoch;
    let new = old.max(access::store::epoch(w)?) + 1;
    store::raise_epoch(w, new)?;
    let entry = Entry::new("policy", "memory").after(serde_json::json!({"replaced": facts}));
    journal::record_done(w, &Identity::command_line(), "policy.replace", &entry)?;
    after.epoch = new;
    *snapshot = after;
    Ok(Some((facts, old, new)))
}
