//! How SFTPGo's users differ from the members, and bringing them in line.

pub mod hooks;

use std::sync::Arc;

use poem::Request;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::integrations::sftpgo::reconcile::{self, Drift, Repaired};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::http::{OptionalBody, Reply, Tag, ok};
use crate::kernel::ids::MemberId;

/// A member's user at SFTPGo
#[derive(Object)]
struct SftpgoUser {
    uid: MemberId,
    /// The name there
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
    /// The name there
    username: String,
    /// `status`, `quota_size`, `permissions`, `home_dir`, `additional_info`, or `used_quota_size`, which only a count of the
    /// files settles
    field: String,
    ours: Any<Value>,
    theirs: Any<Value>,
}

/// How SFTPGo's users differ from the members
#[derive(Object)]
#[oai(rename = "SftpgoDrift")]
struct DriftView {
    /// How many members have a name there
    members: u64,
    /// How many users are there
    users: u64,
    /// Active members without a user
    missing: Vec<SftpgoUser>,
    /// Users of erased members that are on still, or there at all with `sftpgo.delete`
    orphaned: Vec<SftpgoUser>,
    /// Users that are no member's; they are left alone
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

/// A user that could not be brought in line
#[derive(Object)]
struct SftpgoFailure {
    uid: MemberId,
    username: String,
    error: String,
}

/// What was brought in line
#[derive(Object)]
#[oai(rename = "SftpgoReconciled")]
struct MendedView {
    /// What was found before anything was done
    drift: DriftView,
    /// Members whose user was made, changed or taken away
    mended: Vec<SftpgoUser>,
    failed: Vec<SftpgoFailure>,
    /// How many users' files SFTPGo counts anew
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

/// How to bring SFTPGo's users in line
#[derive(Object)]
struct ReconcileSftpgo {
    /// Only say what would happen
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
    /// See how SFTPGo's users differ from the members
    ///
    /// Asks SFTPGo for all its users, and changes nothing.
    #[oai(path = "/drift", method = "get", operation_id = "get_sftpgo_drift")]
    async fn get_sftpgo_drift(&self, caller: MemberCaller) -> Reply<DriftView> {
        authz::require(&self.app.snapshot(), &caller, Permission::SFTPGO_DRIFT)?;
        Ok(ok(reconcile::compare(&self.app).await?.into()))
    }

    /// Bring SFTPGo's users in line
    ///
    /// Makes users that are missing and changes those that differ. Those of erased members are switched off, or deleted where
    /// `sftpgo.delete` says so; users of nobody here are left alone. It happens by itself every `sftpgo.reconcile_s`.
    #[oai(path = "/reconcile", method = "post", operation_id = "reconcile_sftpgo")]
    async fn reconcile_sftpgo(
        &self,
        caller: MemberCaller,
        request: &Request,
        body: OptionalBody<ReconcileSftpgo>,
    ) -> Reply<MendedView> {
        authz::require(&self.app.snapshot(), &caller, Permission::SFTPGO_RECONCILE)?;
        let is_dry = body.read(request).await?.and_then(|desired| desired.dry_run) == Some(true);
        Ok(ok(reconcile::reconcile(&self.app, &caller, is_dry).await?.into()))
    }
}
