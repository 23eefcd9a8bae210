//! Operations that compare SFTPGo's users with the members, and repair them.

pub mod hooks;

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Query;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::integrations::sftpgo::reconcile::{Drift, RECONCILE, Repaired, compare, reconcile};
use crate::integrations::sftpgo::require_configured;
use crate::kernel::app::App;
use crate::kernel::app::tasks::Progress;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::http::{OptionalBody, Reply, Tag, TaskReply, ok};
use crate::kernel::ids::MemberId;

/// A member's user at SFTPGo
#[derive(Object)]
struct SftpgoUser {
    uid: MemberId,
    /// The SFTPGo username
    username: String,
}

impl From<(MemberId, String)> for SftpgoUser {
    fn from((uid, username): (MemberId, String)) -> Self {
        Self { uid, username }
    }
}

/// A field of a user that differs from the desired account
#[derive(Object)]
struct SftpgoDifference {
    uid: MemberId,
    /// The SFTPGo username
    username: String,
    /// `status`, `quota_size`, `permissions`, `home_dir`, `additional_info`, or `used_quota_size`, which only a quota
    /// scan can correct
    field: String,
    ours: Any<Value>,
    theirs: Any<Value>,
}

/// The differences between SFTPGo's users and the members
#[derive(Object)]
#[oai(rename = "SftpgoDrift")]
struct DriftView {
    /// The number of members with an SFTPGo username
    members: u64,
    /// The number of users at SFTPGo
    users: u64,
    /// Active members without a user
    missing: Vec<SftpgoUser>,
    /// Users of erased members that are not disabled, or not deleted if `sftpgo.delete` is set
    orphaned: Vec<SftpgoUser>,
    /// Users that belong to no member; they are not changed
    foreign: Vec<String>,
    /// Users with a member's name whose `additional_info` names another member; they are not changed
    conflicts: Vec<SftpgoUser>,
    differing: Vec<SftpgoDifference>,
}

impl From<Drift> for DriftView {
    fn from(drift: Drift) -> Self {
        let users = |list: Vec<(MemberId, String)>| list.into_iter().map(SftpgoUser::from).collect();
        let differing = drift.differing.into_iter().map(|(uid, username, difference)| SftpgoDifference {
            uid,
            username,
            field: difference.field.to_owned(),
            ours: Any(difference.ours),
            theirs: Any(difference.theirs),
        });
        Self {
            members: drift.members as u64,
            users: drift.users as u64,
            missing: users(drift.missing),
            orphaned: users(drift.orphaned),
            foreign: drift.foreign,
            conflicts: users(drift.conflicts),
            differing: differing.collect(),
        }
    }
}

/// A user that could not be repaired
#[derive(Object)]
struct SftpgoFailure {
    uid: MemberId,
    username: String,
    error: String,
}

/// The result of a reconciliation
#[derive(Object)]
#[oai(rename = "SftpgoReconciled")]
struct MendedView {
    /// The differences before the repair
    drift: DriftView,
    /// Members whose user was created, changed, disabled or deleted
    mended: Vec<SftpgoUser>,
    failed: Vec<SftpgoFailure>,
    /// The number of quota scans that were started
    scans: u64,
}

impl From<Repaired> for MendedView {
    fn from(found: Repaired) -> Self {
        let failed = found.failed.into_iter().map(|(uid, username, error)| SftpgoFailure { uid, username, error });
        Self {
            drift: found.drift.into(),
            mended: found.mended.into_iter().map(SftpgoUser::from).collect(),
            failed: failed.collect(),
            scans: found.scans as u64,
        }
    }
}

/// The options of a reconciliation
#[derive(Object)]
struct ReconcileSftpgo {
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
}

crate::document! {
    get_sftpgo_drift: [SftpgoNotConfigured];
    reconcile_sftpgo: [SftpgoNotConfigured];

    "ReconcileSftpgo": r#"{"dry_run":true}"#;
    "SftpgoDrift": r#"{"members":2,"users":2,"missing":[{"uid":"0198c1d2-0000-7000-8000-000000000001","username":"kim"}],"orphaned":[],"foreign":["guest"],"conflicts":[],"differing":[{"uid":"0198c1d2-0000-7000-8000-000000000002","username":"lee","field":"quota_size","ours":10737418240,"theirs":0}]}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/sftpgo", tag = "Tag::Sftpgo")]
impl Api {
    /// Compare SFTPGo's users with the members
    ///
    /// Reads all users of SFTPGo and changes nothing.
    #[oai(path = "/drift", method = "get", operation_id = "get_sftpgo_drift")]
    async fn get_sftpgo_drift(&self, caller: MemberCaller) -> Reply<DriftView> {
        authz::require(&self.app.snapshot(), &caller, Permission::SFTPGO_DRIFT)?;
        Ok(ok(compare(&self.app).await?.into()))
    }

    /// Reconcile SFTPGo's users with the members
    ///
    /// Creates missing users and updates those that differ. Users of erased members are disabled, or deleted if
    /// `sftpgo.delete` is set; users that belong to no member are not changed. If the caller loses the permission, it
    /// stops before the next user; what was done stays. This also runs automatically every `sftpgo.reconcile_s`.
    #[oai(path = "/reconcile", method = "post", operation_id = "reconcile_sftpgo")]
    async fn reconcile_sftpgo(
        &self,
        caller: MemberCaller,
        request: &Request,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        body: OptionalBody<ReconcileSftpgo>,
    ) -> TaskReply<MendedView> {
        authz::require(&self.app.snapshot(), &caller, Permission::SFTPGO_RECONCILE)?;
        let is_dry = body.read(request).await?.and_then(|desired| desired.dry_run) == Some(true);
        require_configured(&self.app.config)?;
        let (app, caller) = (self.app.clone(), caller.0);
        let by = caller.clone();
        let work = move |progress: Progress| async move {
            let mut found = reconcile(&app, &by, is_dry, &progress).await?;
            let stopped = found.stopped.take();
            let answer = MendedView::from(found);
            match stopped {
                None => Ok(answer),
                Some(error) => Err(progress.fail(error, &answer)),
            }
        };
        Ok(self.app.perform(&caller, RECONCILE, background.0 == Some(true), work).await?)
    }
}
