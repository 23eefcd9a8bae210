//! Reactions of features to a change of a lower feature, in the same transaction. The lower feature reports an
//! [`Occurrence`]; the reactions are passed to [`super::App::open`], so that no lower module imports a higher one.

use super::Transaction;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::encryption::SecretColumn;
use crate::kernel::error::Result;
use crate::kernel::ids::{ApiKeyId, InvitationId, MemberId, OrganizationId, PluginId, RoleId, SessionId, WebhookId};
use crate::kernel::secret::Hash;

/// Something that happened in this transaction.
#[derive(Debug)]
pub enum Occurrence<'a> {
    /// A member is active again.
    MemberActivated(MemberId),
    MemberSuspended(MemberId),
    /// All personal data of a member must be deleted. The memberships are deleted already.
    MemberErased(MemberId),
    /// An incomplete registration is replaced or about to be deleted.
    RegistrationDeleted(MemberId),
    /// A member joined or left an organization.
    MembershipsChanged(MemberId),
    EmailChanged(MemberId),
    /// A member has a new password; one session may be kept. `is_reset`: the member had a password before and did not
    /// enter it for this.
    PasswordSet {
        member: MemberId,
        kept: Option<SessionId>,
        is_reset: bool,
    },
    /// An organization is active again, and so are its members.
    OrganizationActivated(OrganizationId),
    /// A role is about to be deleted.
    RoleDeleted(RoleId),
    /// A plugin version failed too often and is no longer called.
    PluginQuarantined {
        plugin: PluginId,
        version: u32,
    },
    /// The invitation is withdrawn, because its creator lost the right to give it; so for the next four.
    InvitationWithdrawn(InvitationId),
    LinkWithdrawn(&'a Hash),
    KeyWithdrawn(ApiKeyId),
    /// A password that somebody else set, with the sessions that were opened with it.
    PasswordWithdrawn(MemberId),
    WebhookWithdrawn(WebhookId),
}

/// Reacts to an occurrence; returns the policy changes that result.
pub type Reaction = fn(&Transaction<'_>, &Occurrence<'_>) -> Result<Vec<Change>>;

/// What the features register with the kernel.
#[derive(Debug)]
pub struct Features {
    pub reactions: &'static [Reaction],
    /// Columns with secrets that are encrypted at rest.
    pub secrets: &'static [SecretColumn],
}
