//! Plugin checks for new videos (`video.register`), regardless of how the file arrives: by a member or a service
//! through the API, or through SFTPGo.
//!
//! **Invariant.** Only `organizations` decides whose plugins are called. They run outside of any transaction, all with
//! the same facts, and the first that denies or fails decides.

use std::sync::Arc;

use super::path::VideoPath;
use crate::kernel::app::App;
use crate::kernel::app::evaluate::{RequestFacts, has_authorizers};
use crate::kernel::authz::decide::{AccessRequest, Reason, Target};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Snapshot, Tenant};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::sandbox::Claim;

/// The operation name that plugins receive.
const REGISTER: &str = "video.register";

/// How a file arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Api,
    Sftpgo,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sftpgo => "sftpgo",
        }
    }
}

/// A file that is to become a video of a member.
#[derive(Debug, Clone)]
pub struct NewVideo {
    pub owner: MemberId,
    pub path: VideoPath,
    /// In bytes; `None` if not known yet, as before an upload.
    pub size: Option<i64>,
    pub source: Source,
}

impl NewVideo {
    fn facts(&self) -> RequestFacts {
        let fact = |name: &str, value: String| Claim { name: name.to_owned(), values: vec![value] };
        let known =
            [fact("video_path", self.path.as_str().to_owned()), fact("video_source", self.source.as_str().to_owned())];
        RequestFacts(known.into_iter().chain(self.size.map(|size| fact("size_bytes", size.to_string()))).collect())
    }
}

/// Returns the organizations whose plugins are called for a new video: all active ones of its owner, so that a member
/// cannot choose the most permissive one. The platform organization is excluded, as it has no videos.
fn organizations(snapshot: &Snapshot, owner: MemberId) -> impl Iterator<Item = OrganizationId> {
    let own = |tenant: &&Tenant| tenant.is_active && !snapshot.is_platform(tenant.id);
    snapshot.tenants_of(owner).filter(own).map(|tenant| tenant.id)
}

/// Whether any plugin must be called for a new video of this member.
pub fn has_plugins(snapshot: &Snapshot, owner: MemberId) -> bool {
    organizations(snapshot, owner).any(|id| has_authorizers(snapshot, Some(id)))
}

/// Calls the plugins; fails if one denies or fails. Must not run within a transaction: guest code never blocks the
/// writer.
pub async fn check(app: &Arc<App>, caller: &Identity, new: &NewVideo) -> Result<()> {
    let (snapshot, facts, spent) = (app.snapshot(), new.facts(), Arc::default());
    for id in organizations(&snapshot, new.owner) {
        if !has_authorizers(&snapshot, Some(id)) {
            continue;
        }
        let target = Target::Operation(REGISTER);
        let request = AccessRequest { tenant: Some(id), member: new.owner, with_platform: false, target };
        let evaluation = app.evaluate_with_plugins(&snapshot, &request, &facts, &spent).await;
        let message = match (evaluation.decision.reason, evaluation.message()) {
            (Reason::PluginDenied, Some(message)) => format!("a rule of your organization denies this: {message}"),
            (Reason::PluginDenied, None) => "a rule of your organization denies this".to_owned(),
            (Reason::PluginFailed, _) => "a rule of your organization failed, so this is denied".to_owned(),
            // Other denials, such as a suspended member, are reported when the video is stored.
            _ => continue,
        };
        let (source, reason) = (new.source.as_str(), evaluation.decision.reason.as_str());
        tracing::info!(organization = %id, member = %new.owner, source, reason, message, "a new video is denied");
        // The denial is recorded in the audit log of the organization that owns the plugin.
        let _ = caller.context.tenant.set(id);
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    Ok(())
}
