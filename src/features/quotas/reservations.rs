//! Reservations: bytes that are promised to an upload whose size is not known yet.
//!
//! `open` → `committed` (it became a video), `released`, or `expired`. One whose time is over holds nothing any more,
//! whether or not that was written down yet.

use serde_json::json;

use super::reservation_store as store;
use super::{Delta, QuotaSettings, adjust, organization_of};
use crate::kernel::app::{Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, ReservationId, Timestamp};

/// A reservation as stored.
#[derive(Debug, Clone)]
pub struct Reservation {
    pub id: ReservationId,
    pub member: MemberId,
    /// Under whose ceiling it counts.
    pub organization: Option<OrganizationId>,
    pub size: i64,
    /// `open`, `committed`, `released` or `expired`
    pub state: String,
    /// What it became.
    pub video: Option<String>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

impl Reservation {
    /// Where it stands at a moment.
    pub fn state_at(&self, now: Timestamp) -> &str {
        if self.state == "open" && self.expires_at <= now { "expired" } else { &self.state }
    }
}

/// A member's reservation; somebody else's is not there.
pub fn get(r: &Reader<'_>, member: MemberId, id: ReservationId) -> Result<Reservation> {
    store::find(r, id)?
        .filter(|reservation| reservation.member == member)
        .ok_or_else(|| ErrorCode::ReservationNotFound.into())
}

/// Promises bytes. Answers the warning that fits the usage too.
pub fn reserve(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    member: MemberId,
    size: i64,
) -> Result<Changed<(Reservation, Option<i64>)>> {
    let organization = organization_of(t.snapshot(), member);
    if store::count_open(t, member, t.now())? >= rules.reservations_max {
        return Err(ErrorCode::ReservationsFull.into());
    }
    let delta = Delta { used: 0, reserved: size, need: size };
    let account = adjust(t, rules, (member, organization), delta)?;
    let reservation = Reservation {
        id: ReservationId::new(),
        member,
        organization,
        size,
        state: "open".into(),
        video: None,
        expires_at: t.now().plus_ms(rules.reservation_ttl_ms),
        created_at: t.now(),
    };
    store::insert(t, &reservation)?;
    let entry = entry(&reservation).after(json!({"state": "open", "size": size}));
    Ok(Changed::new((reservation, account.warning()), entry))
}

/// Writes down what a reservation became.
pub fn mark_committed(w: &Writer<'_>, id: ReservationId, video: &str) -> Result<()> {
    store::set_state(w, id, "committed", Some(video))
}

/// Takes a promise back. A repeat, and one that is over anyway, change nothing.
pub fn release(t: &Transaction<'_>, member: MemberId, id: ReservationId) -> Result<Changed<Reservation>> {
    let mut reservation = get(t, member, id)?;
    match reservation.state.as_str() {
        "open" => {}
        "committed" => {
            return Err(Error::new(ErrorCode::ReservationOver).with_message("this reservation became a video"));
        }
        _ => return Ok(Changed::nothing(reservation)),
    }
    let state = if reservation.expires_at <= t.now() { "expired" } else { "released" };
    close(t, &reservation, state)?;
    state.clone_into(&mut reservation.state);
    let entry = entry(&reservation).after(json!({"state": state}));
    Ok(Changed::new(reservation, entry))
}

/// Takes all promises to a member back.
pub fn release_all(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    store::list_open(t, member)?.iter().try_for_each(|reservation| close(t, reservation, "released"))
}

fn close(w: &Writer<'_>, reservation: &Reservation, state: &str) -> Result<()> {
    store::set_state(w, reservation.id, state, None)?;
    give_back(w, reservation)
}

/// What it holds is free again. Its state says that already.
pub fn give_back(w: &Writer<'_>, reservation: &Reservation) -> Result<()> {
    let delta = Delta { used: 0, reserved: -reservation.size, need: 0 };
    // Nothing is asked, so that no setting matters.
    super::store::adjust_member(w, reservation.member, delta, 0)?;
    match reservation.organization {
        Some(organization) => super::store::adjust_organization(w, organization, delta).map(drop),
        None => Ok(()),
    }
}

/// A reservation that is over is kept this long, so that repeats get their answer.
const KEPT_MS: i64 = 30 * 86_400_000;

pub(super) fn forget_old(w: &Writer<'_>, most: usize) -> Result<usize> {
    store::forget(w, w.now().plus_ms(-KEPT_MS), most)
}

pub fn entry(reservation: &Reservation) -> Entry {
    Entry::new("reservation", reservation.id).within(reservation.organization)
}
