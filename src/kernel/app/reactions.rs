//! What features do in the transaction of a lower feature's change. The lower feature reports an [`Occurrence`]; the
//! reactions are passed to [`super::App::open`], so that nothing is called upward.

use super::Transaction;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::encryption::SecretColumn;
use crate::kernel::error::Result;
use crate::kernel::ids::{ApiKeyId, InvitationId, MemberId, OrganizationId, PluginId, RoleId, SessionId, WebhookId};
use crate::kernel::secret::Hash;

/// Something that happened in this transaction.
#[derive(Debug)]
pub enum Occurrence<'a> {
    /// A member may act again.
    MemberActivated(MemberId),
    MemberSuspended(MemberId),
    /// All that names a person goes. Its memberships are gone already.
    MemberErased(MemberId),
    /// A registration that nobody completed is replaced, or about to go.
    RegistrationGone(MemberId),
    /// A member joined or left an organization.
    MembershipsChanged(MemberId),
    EmailChanged(MemberId),
    /// A member has another password; one session may be kept. `is_reset`: there was one before, and it was not shown.
    PasswordSet {
        member: MemberId,
        kept: Option<SessionId>,
        is_reset: bool,
    },
    /// The members of an organization may act again.
    OrganizationActivated(OrganizationId),
    /// A role is about to go.
    RoleDeleted(RoleId),
    /// A version failed too often and is asked no more.
    PluginQuarantined {
        plugin: PluginId,
        version: u32,
    },
    /// What somebody promised is withdrawn, because its maker may not give it any more.
    InvitationWithdrawn(InvitationId),
    LinkWithdrawn(&'a Hash),
    KeyWithdrawn(ApiKeyId),
    /// A password that somebody else chose, with all that it opened.
    PasswordWithdrawn(MemberId),
    WebhookWithdrawn(WebhookId),
}

/// Does what belongs to an occurrence; answers what that changes in the policy.
pub type Reaction = fn(&Transaction<'_>, &Occurrence<'_>) -> Result<Vec<Change>>;

/// What the kernel has of the features.
#[derive(Debug)]
pub struct Features {
    pub reactions: &'static [Reaction],
    /// Their columns of secrets that must be read back.
    pub secrets: &'static [SecretColumn],
}
