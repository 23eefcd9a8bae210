//! Operations on reservations: bytes promised to an upload whose size is not known yet.

use std::sync::Arc;

use poem_openapi::param::{Header, Path};
use poem_openapi::{Enum, Object, OpenApi};

use super::files::require_takes;
use super::{FilePath, MeasuredFile, QuotaNeed, RegisteredView, StorageOwner, Warned};
use crate::features::quotas::QuotaSettings;
use crate::features::quotas::reservations::{self, Reservation};
use crate::features::videos::commit_reservation;
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::MemberOrKey;
use crate::kernel::authz::principal::Identity;
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::{ReservationId, Timestamp};

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

crate::document! {
    create_reservation: [
        VideoPath, OwnerNotFound, MemberNotActive, NotYourFolder, QuotaExceeded, OrganizationQuotaExceeded,
        ReservationsFull,
    ] ["x-quota-warning"];
    commit_reservation: [
        NotYourFolder, VideoPath, FileChanged, NotAFile, FileNotFound, MediaRootNotConfigured, OwnerNotFound,
        MemberNotActive, VideosFull, QuotaExceeded, OrganizationQuotaExceeded, ReservationNotFound, ReservationOver,
    ] ["x-quota-warning"];
    release_reservation: [NotYourFolder, ReservationNotFound, ReservationOver];

    "Reserve": r#"{"size":734003200}"#;
    "CommitReservation": r#"{"path":"kim/2026/harbour.mp4"}"#;
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
        caller: MemberOrKey,
        /// For whom a service reserves, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        body: Body<Reserve>,
    ) -> Reply<ReservationView> {
        let (rules, size, named) = (QuotaSettings::from_config(&self.app.config), body.0.size, named.0);
        let wanted = QuotaNeed::default();
        let noted = wanted.clone();
        let reserve = move |t: &Transaction<'_>, caller: &Identity| {
            let member = StorageOwner::find(t, t.snapshot(), caller, named.as_deref())?.member;
            require_takes(t, member)?;
            wanted.set(member, size);
            let changed = reservations::reserve(t, &rules, member, size)?;
            Ok(changed.map(|(reservation, warning)| Warned { warning, answer: ReservationView::from(reservation) }))
        };
        let reserved = self.app.create(&caller, "reservation.create", None, reserve).await;
        let Warned { answer, warning } = noted.noted(&self.app, &caller, reserved).await?.answer;
        Ok(ok(answer).quota_warning(warning))
    }

    /// Make a video of a reservation
    ///
    /// The file is measured. What it takes less than reserved is free again; what it takes more must fit, otherwise the
    /// reservation stays as it was. A repeat with the same path answers the same.
    #[oai(path = "/:id/commit", method = "post", operation_id = "commit_reservation")]
    async fn commit_reservation(
        &self,
        caller: MemberOrKey,
        /// For whom a service commits, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        id: Path<ReservationId>,
        body: Body<CommitReservation>,
    ) -> Reply<RegisteredView> {
        let CommitReservation { path, size: said } = body.0;
        let file = MeasuredFile::of(&self.app, &path, said).await?;
        let (rules, named) = (QuotaSettings::from_config(&self.app.config), named.0);
        let ruled = file.ruled(&self.app, &caller, named.as_deref()).await;
        let wanted = QuotaNeed::default();
        let noted = wanted.clone();
        let commit = move |t: &Transaction<'_>, caller: &Identity| {
            ruled?;
            let new = file.registration(t, caller, named.as_deref(), &wanted)?;
            commit_reservation(t, &rules, caller, (id.0, new))
        };
        let committed = self.app.change(&caller, "reservation.commit", commit).await;
        let registered = noted.noted(&self.app, &caller, committed).await?.answer;
        let warning = registered.warning;
        Ok(ok(registered.into()).quota_warning(warning))
    }

    /// Take a reservation back
    ///
    /// A repeat changes nothing, nor does it for one that is too old.
    #[oai(path = "/:id/release", method = "post", operation_id = "release_reservation")]
    async fn release_reservation(
        &self,
        caller: MemberOrKey,
        /// For whom a service releases, by the name at SFTPGo
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        id: Path<ReservationId>,
    ) -> Reply<ReservationView> {
        let named = named.0;
        let release = move |t: &Transaction<'_>, caller: &Identity| {
            let member = StorageOwner::find(t, t.snapshot(), caller, named.as_deref())?.member;
            reservations::release(t, member, id.0)
        };
        let released = self.app.change(&caller, "reservation.release", release).await?;
        Ok(ok(released.answer.into()))
    }
}
