//! Reservations: bytes that are set aside for an upload whose final size is not known yet.
//!
//! `open` → `committed` (it became a video), `released`, or `expired`. A reservation past its `expires_at` holds no
//! bytes, even before its state is updated.

use serde_json::json;

use super::reservation_store as store;
use super::{Delta, QuotaSettings, adjust, organization_of};
use crate::kernel::app::{Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, ReservationId, Timestamp};

/// The state of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationState {
    Open,
    /// It became a video.
    Committed,
    Released,
    Expired,
}

impl ReservationState {
    pub const ALL: [Self; 4] = [Self::Open, Self::Committed, Self::Released, Self::Expired];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A reservation as stored.
#[derive(Debug, Clone)]
pub struct Reservation {
    pub id: ReservationId,
    pub member: MemberId,
    /// The organization whose ceiling it counts against.
    pub organization: Option<OrganizationId>,
    pub size: i64,
    pub state: ReservationState,
    /// The id of the video it became.
    pub video: Option<String>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

impl Reservation {
    /// Returns its state at this time.
    pub fn state_at(&self, now: Timestamp) -> ReservationState {
        let is_over = self.state == ReservationState::Open && self.expires_at <= now;
        if is_over { ReservationState::Expired } else { self.state }
    }
}

/// Returns a member's reservation. Fails with `reservation_not_found` for another member's.
pub fn get(r: &Reader<'_>, member: MemberId, id: ReservationId) -> Result<Reservation> {
    store::find(r, id)?
        .filter(|reservation| reservation.member == member)
        .ok_or_else(|| ErrorCode::ReservationNotFound.into())
}

/// Reserves bytes. Also returns the warning threshold that the usage has reached, if any.
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
        state: ReservationState::Open,
        video: None,
        expires_at: t.now().plus_ms(rules.reservation_ttl_ms),
        created_at: t.now(),
    };
    store::insert(t, &reservation)?;
    let entry = entry(&reservation).after(json!({"state": reservation.state.as_str(), "size": size}));
    Ok(Changed::new((reservation, account.warning()), entry))
}

/// Marks a reservation as committed to a video.
pub fn mark_committed(w: &Writer<'_>, id: ReservationId, video: &str) -> Result<()> {
    store::set_state(w, id, ReservationState::Committed, Some(video))
}

/// Releases a reservation. Does nothing if it is released or expired already; fails with `reservation_over` if it
/// became a video.
pub fn release(t: &Transaction<'_>, member: MemberId, id: ReservationId) -> Result<Changed<Reservation>> {
    let mut reservation = get(t, member, id)?;
    match reservation.state {
        ReservationState::Open => {}
        ReservationState::Committed => {
            return Err(Error::new(ErrorCode::ReservationOver).with_message("this reservation became a video"));
        }
        ReservationState::Released | ReservationState::Expired => return Ok(Changed::unchanged(reservation)),
    }
    reservation.state = match reservation.state_at(t.now()) {
        ReservationState::Expired => ReservationState::Expired,
        _ => ReservationState::Released,
    };
    close(t, &reservation, reservation.state)?;
    let entry = entry(&reservation).after(json!({"state": reservation.state.as_str()}));
    Ok(Changed::new(reservation, entry))
}

/// Releases all open reservations of a member.
pub fn release_all(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    store::list_open(t, member)?.iter().try_for_each(|reservation| close(t, reservation, ReservationState::Released))
}

fn close(w: &Writer<'_>, reservation: &Reservation, state: ReservationState) -> Result<()> {
    store::set_state(w, reservation.id, state, None)?;
    release_bytes(w, reservation)
}

/// Subtracts the reserved bytes from both accounts. The caller has set the state already.
pub fn release_bytes(w: &Writer<'_>, reservation: &Reservation) -> Result<()> {
    let delta = Delta { used: 0, reserved: -reservation.size, need: 0 };
    // `need` is 0, so the default size is not used.
    super::store::adjust_member(w, reservation.member, delta, 0)?;
    match reservation.organization {
        Some(organization) => super::store::adjust_organization(w, organization, delta).map(drop),
        None => Ok(()),
    }
}

/// Reservations that are no longer open are kept this long, so that repeated requests get the same answer.
const KEPT_MS: i64 = 30 * 86_400_000;

pub(super) fn forget_old(w: &Writer<'_>, most: usize) -> Result<usize> {
    store::delete_old(w, w.now().plus_ms(-KEPT_MS), most)
}

pub fn entry(reservation: &Reservation) -> Entry {
    Entry::new("reservation", reservation.id).within(reservation.organization)
}
