//! Operations on reservations: bytes set aside for an upload whose final size is not known yet.

use std::sync::Arc;

use poem_openapi::param::{Header, Path};
use poem_openapi::{Enum, Object, OpenApi};

use super::files::require_active;
use super::{FilePath, MeasuredFile, QuotaNeed, RegisteredView, StorageOwner, Warned};
use crate::features::quotas::QuotaSettings;
use crate::features::quotas::reservations::{self, Reservation, ReservationState};
use crate::features::videos::commit_reservation;
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::MemberOrKey;
use crate::kernel::authz::principal::Identity;
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::{ReservationId, Timestamp};

/// Bytes to reserve
#[derive(Object)]
struct Reserve {
    /// In bytes
    #[oai(validator(minimum(value = "1"), maximum(value = "9000000000000000")))]
    size: i64,
}

/// The uploaded file of a reservation
#[derive(Object)]
struct CommitReservation {
    /// `username/…` below the media root
    path: FilePath,
    /// In bytes; used only with a service's API key, and only if there is no file to measure
    #[oai(validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: Option<i64>,
}

/// The state of a reservation
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "ReservationState", remote = "ReservationState")]
enum ReservationStateName {
    Open,
    /// It became a video
    Committed,
    Released,
    /// It is past its expiry and holds no bytes
    Expired,
}

/// Bytes that are set aside for an upload
#[derive(Object)]
#[oai(rename = "Reservation")]
struct ReservationView {
    id: ReservationId,
    /// In bytes
    size: i64,
    state: ReservationStateName,
    /// The video it became
    #[oai(nullable)]
    uuid: Option<String>,
    /// When it expires, in Unix milliseconds
    expires_at: i64,
    /// Unix milliseconds
    created_at: i64,
}

impl From<Reservation> for ReservationView {
    fn from(reservation: Reservation) -> Self {
        Self {
            id: reservation.id,
            size: reservation.size,
            state: reservation.state_at(Timestamp::now()).into(),
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
    /// The bytes are held until the reservation is committed, released or expired.
    #[oai(path = "/", method = "post", operation_id = "create_reservation")]
    async fn create_reservation(
        &self,
        caller: MemberOrKey,
        /// The SFTPGo username of the member for whom a service reserves
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        body: Body<Reserve>,
    ) -> Reply<ReservationView> {
        let (rules, size, named) = (QuotaSettings::from_config(&self.app.config), body.0.size, named.0);
        let wanted = QuotaNeed::default();
        let need = wanted.clone();
        let reserve = move |t: &Transaction<'_>, caller: &Identity| {
            let member = StorageOwner::find(t, t.snapshot(), caller, named.as_deref())?.member;
            require_active(t, member)?;
            wanted.set(member, size);
            let changed = reservations::reserve(t, &rules, member, size)?;
            Ok(changed.map(|(reservation, warning)| Warned { warning, answer: ReservationView::from(reservation) }))
        };
        let reserved = self.app.create(&caller, "reservation.create", None, reserve).await;
        let Warned { answer, warning } = need.record_refusal(&self.app, &caller, reserved).await?.answer;
        Ok(ok(answer).quota_warning(warning))
    }

    /// Commit a reservation
    ///
    /// Registers the uploaded file as a video. The file is measured; unused reserved bytes are released, and additional
    /// bytes must fit the quota, otherwise the reservation stays unchanged. A repeated commit of the same path returns
    /// the same result.
    #[oai(path = "/:id/commit", method = "post", operation_id = "commit_reservation")]
    async fn commit_reservation(
        &self,
        caller: MemberOrKey,
        /// The SFTPGo username of the member for whom a service commits
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        id: Path<ReservationId>,
        body: Body<CommitReservation>,
    ) -> Reply<RegisteredView> {
        let CommitReservation { path, size: reported_size } = body.0;
        let file = MeasuredFile::of(&self.app, &path, reported_size).await?;
        let (rules, named) = (QuotaSettings::from_config(&self.app.config), named.0);
        let plugin_check = file.check_plugins(&self.app, &caller, named.as_deref()).await;
        let wanted = QuotaNeed::default();
        let need = wanted.clone();
        let commit = move |t: &Transaction<'_>, caller: &Identity| {
            plugin_check?;
            let new = file.registration(t, caller, named.as_deref(), &wanted)?;
            commit_reservation(t, &rules, caller, (id.0, new))
        };
        let committed = self.app.change(&caller, "reservation.commit", commit).await;
        let registered = need.record_refusal(&self.app, &caller, committed).await?.answer;
        let warning = registered.warning;
        Ok(ok(registered.into()).quota_warning(warning))
    }

    /// Release a reservation
    ///
    /// Releasing a reservation that is released or expired already changes nothing.
    #[oai(path = "/:id/release", method = "post", operation_id = "release_reservation")]
    async fn release_reservation(
        &self,
        caller: MemberOrKey,
        /// The SFTPGo username of the member for whom a service releases
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
