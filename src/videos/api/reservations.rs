//! Operations on reservations: bytes promised to an upload whose size is not known yet.

use std::sync::{Arc, OnceLock};

use poem_openapi::param::{Header, Path};
use poem_openapi::{Enum, Object, OpenApi};

use super::files::require_takes;
use super::{FilePath, Owner, RegisteredView};
use crate::access::caller::{Identity, PersonOrKey};
use crate::app::{App, Transaction};
use crate::db::Reader;
use crate::error::{Cause, Result};
use crate::ids::{ReservationId, Timestamp};
use crate::videos::quota::{Fit, Rules};
use crate::videos::reservations::{self, Reservation};
use crate::videos::{self, Registration};
use crate::wire::{Body, Reply, Tag, ok};

/// Bytes to be promised
#[derive(Object)]
struct Reserve {
    /// In bytes
    #[oai(validator(minimum(value = "1"), maximum(value = "9000000000000000")))]
    size: i64,
}

/// What an upload became
#[derive(Object)]
struct CommitReservation {
    /// `username/…` below the media root
    path: FilePath,
    /// In bytes; counts only from a service's key, and only while there is no file to measure
    #[oai(validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: Option<i64>,
}

/// Where a reservation stands
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ReservationState {
    Open,
    /// It became a video
    Committed,
    Released,
    /// It holds nothing any more
    Expired,
}

/// A promise of bytes
#[derive(Object)]
#[oai(rename = "Reservation")]
struct ReservationView {
    id: ReservationId,
    /// In bytes
    size: i64,
    state: ReservationState,
    /// The video it became
    #[oai(nullable)]
    uuid: Option<String>,
    /// When it ends by itself, in Unix milliseconds
    expires_at: i64,
    /// Unix milliseconds
    created_at: i64,
}

impl From<Reservation> for ReservationView {
    fn from(reservation: Reservation) -> Self {
        let state = match reservation.state_at(Timestamp::now()) {
            "open" => ReservationState::Open,
            "committed" => ReservationState::Committed,
            "released" => ReservationState::Released,
            _ => ReservationState::Expired,
        };
        Self {
            id: reservation.id,
            size: reservation.size,
            state,
            uuid: reservation.video,
            expires_at: reservation.expires_at.0,
            created_at: reservation.created_at.0,
        }
    }
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/quota/reservations", tag = "Tag::Quotas")]
impl Api {
    /// Reserve bytes for an upload
    ///
    /// They are held until the reservation is committed, released, or too old.
    #[oai(path = "/", method = "post", operation_id = "create_reservation")]
    async fn create_reservation(
        &self,
        caller: PersonOrKey,
        /// For whom a service reserves, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        body: Body<Reserve>,
    ) -> Reply<ReservationView> {
        let (rules, size) = (Rules::of(&self.app.config), body.0.size);
        let owner = self.owner(&caller, named.0).await?;
        let member = owner.member;
        let warning = Arc::new(OnceLock::new());
        let warned = warning.clone();
        let reserve = move |t: &Transaction<'_>, _: &Identity| {
            require_takes(t, member)?;
            let changed = reservations::reserve(t, &rules, member, size)?;
            let _ = warned.set(changed.answer.1);
            Ok(changed.map(|(reservation, _)| ReservationView::from(reservation)))
        };
        match self.app.create(&caller, "reservation.create", None, reserve).await {
            Ok(made) => Ok(ok(made.answer).quota_warning(warning.get().copied().flatten())),
            Err(refused) => {
                videos::note_refusal(&self.app, &caller, member, size, &refused).await;
                Err(refused.into())
            }
        }
    }

    /// Make a video of a reservation
    ///
    /// The file is measured. What it takes less than reserved is free again; what it takes more must fit, otherwise the
    /// reservation stays as it was. A repeat with the same path answers the same.
    #[oai(path = "/:id/commit", method = "post", operation_id = "commit_reservation")]
    async fn commit_reservation(
        &self,
        caller: PersonOrKey,
        /// For whom a service commits, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        id: Path<ReservationId>,
        body: Body<CommitReservation>,
    ) -> Reply<RegisteredView> {
        let CommitReservation { path, size: said } = body.0;
        let owner = self.owner(&caller, named.0).await?;
        let (member, path) = (owner.member, owner.path(&self.app, &path)?);
        let video = path.id();
        let look = move |r: &Reader<'_>| Ok((reservations::get(r, member, id.0)?, videos::find(r, &video)?));
        let (reservation, known) = self.app.read(look).await?;
        match reservation.state_at(Timestamp::now()) {
            "open" => {}
            "committed" if reservation.video == Some(path.id()) => {
                return Ok(ok(RegisteredView { uuid: path.id(), already_exists: true }));
            }
            _ => return Err(Cause::ReservationOver.into()),
        }
        let size = match known {
            // Nothing is counted for it.
            Some(known) => known.size,
            None => owner.size(&self.app, &path, said).await?,
        };
        let rules = Rules::of(&self.app.config);
        let new = Registration { path, owner: member, size, fit: Fit::Must, queues_job: true };
        let commit = move |t: &Transaction<'_>, caller: &Identity| {
            require_takes(t, member)?;
            reservations::commit(t, &rules, caller, (id.0, new))
        };
        match self.app.change(&caller, "reservation.commit", commit).await {
            Ok(made) => {
                let warning = made.answer.warning;
                Ok(ok(made.answer.into()).quota_warning(warning))
            }
            Err(refused) => {
                videos::note_refusal(&self.app, &caller, member, size, &refused).await;
                Err(refused.into())
            }
        }
    }

    /// Take a reservation back
    ///
    /// A repeat changes nothing, nor does it for one that is too old.
    #[oai(path = "/:id/release", method = "post", operation_id = "release_reservation")]
    async fn release_reservation(
        &self,
        caller: PersonOrKey,
        /// For whom a service releases, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        id: Path<ReservationId>,
    ) -> Reply<ReservationView> {
        let member = self.owner(&caller, named.0).await?.member;
        let release = move |t: &Transaction<'_>, _: &Identity| reservations::release(t, member, id.0);
        let released = self.app.change(&caller, "reservation.release", release).await?;
        Ok(ok(released.answer.into()))
    }
}

impl Api {
    async fn owner(&self, caller: &Identity, named: Option<String>) -> Result<Owner> {
        let (who, snapshot) = (caller.clone(), self.app.snapshot());
        self.app.read(move |r| Owner::find(r, &snapshot, &who, named.as_deref())).await
    }
}
