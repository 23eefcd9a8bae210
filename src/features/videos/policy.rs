//! What the plugins of the owner's organizations say to a new video (`video.register`), no matter who brings the file: its
//! member or a service by the API, or SFTPGo.
//!
//! **Invariant.** `organizations` alone says whose plugins are asked. They are asked outside of any transaction, all of
//! them with the same facts, and the first that denies or fails decides.

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

/// What plugins know the question by.
const REGISTER: &str = "video.register";

/// Who brings a file.
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
    /// In bytes; none where it is not known yet, as before an upload.
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

/// Whose plugins are asked about a new video: those of all organizations that its owner belongs to, so that nobody picks
/// the one that is lax. The platform has no videos of its own, and an organization that is switched off has no say.
fn organizations(snapshot: &Snapshot, owner: MemberId) -> impl Iterator<Item = OrganizationId> {
    let own = |tenant: &&Tenant| tenant.is_active && !snapshot.is_platform(tenant.id);
    snapshot.tenants_of(owner).filter(own).map(|tenant| tenant.id)
}

/// Is there any plugin to be asked about a new video of this member?
pub fn is_asked(snapshot: &Snapshot, owner: MemberId) -> bool {
    organizations(snapshot, owner).any(|id| has_authorizers(snapshot, Some(id)))
}

/// Asks the plugins; fails where one denies, or fails itself. Never within a transaction: no guest runs under the writer.
pub async fn ask(app: &Arc<App>, caller: &Identity, new: &NewVideo) -> Result<()> {
    let (snapshot, facts, spent) = (app.snapshot(), new.facts(), Arc::default());
    for id in organizations(&snapshot, new.owner) {
        if !has_authorizers(&snapshot, Some(id)) {
            continue;
        }
        let ask = Target::Operation(REGISTER);
        let question = AccessRequest { tenant: Some(id), member: new.owner, with_platform: false, target: ask };
        let evaluation = app.evaluate_with_plugins(&snapshot, &question, &facts, &spent).await;
        let message = match (evaluation.decision.reason, evaluation.message()) {
            (Reason::PluginDenied, Some(sentence)) => format!("a rule of your organization denies this: {sentence}"),
            (Reason::PluginDenied, None) => "a rule of your organization denies this".to_owned(),
            (Reason::PluginFailed, _) => "a rule of your organization failed, so that this is denied".to_owned(),
            // A denial by a gate, such as a suspended member, is answered when the video is stored.
            _ => continue,
        };
        let (source, reason) = (new.source.as_str(), evaluation.decision.reason.as_str());
        tracing::info!(organization = %id, member = %new.owner, source, reason, message, "a new video is denied");
        // The denial is written down in the audit of the organization whose rule it is.
        let _ = caller.context.tenant.set(id);
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    Ok(())
}
