//! Sessions of other members, for administrators.

use std::sync::Arc;

use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::own::{EndedSessions, Sessions, session_view};
use crate::features::members::{self, require_may_change, require_visible};
use crate::features::sessions::{end_all_sessions, end_one_session, store};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::http::{EmptyReply, Reply, Tag, done, ok};
use crate::kernel::ids::{MemberId, SessionId, Timestamp};

crate::document! {
    list_member_sessions: [MemberNotFound];
    end_member_sessions: [NotHeld, MemberNotFound] ["x-policy-epoch"];
    end_member_session: [NotHeld, MemberNotFound, SessionNotFound] ["x-policy-epoch"];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/members", tag = "Tag::Sessions")]
impl Api {
    /// List a member's sessions
    ///
    /// The devices on which the member is signed in. For platform administrators, and for administrators of the only
    /// organization that the member belongs to.
    #[oai(path = "/:id/sessions", method = "get", operation_id = "list_member_sessions")]
    async fn list_member_sessions(&self, caller: MemberCaller, id: Path<MemberId>) -> Reply<Sessions> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::MEMBER_SESSION_LIST)?;
        require_visible(&snapshot, reach, id.0)?;
        delegation::require_sole_organization(&snapshot, reach, id.0)?;
        let list = move |r: &Reader<'_>| {
            members::get(r, id.0)?;
            store::list_sessions(r, id.0, Timestamp::now())
        };
        let found = self.app.read(list).await?;
        Ok(ok(Sessions { items: found.into_iter().map(|row| session_view(row, caller.session)).collect() }))
    }

    /// End all sessions of a member
    ///
    /// Signs the member out everywhere, before the answer is sent, and forgets the remembered devices. Allowed for
    /// platform administrators, and for administrators of the only organization that the member belongs to. Rejected
    /// for a member who holds more rights than the caller.
    #[oai(path = "/:id/sessions", method = "delete", operation_id = "end_member_sessions")]
    async fn end_member_sessions(&self, caller: MemberCaller, id: Path<MemberId>) -> Reply<EndedSessions> {
        let end_all = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = require_may_end(t, caller, Permission::MEMBER_SESSIONS_END, id.0)?;
            end_all_sessions(t, reach.organization(), id.0, None)
        };
        let ended = self.app.change(&caller, "session.end_all", end_all).await?;
        Ok(ok(EndedSessions { ended: ended.answer }).epoch(ended.epoch))
    }

    /// End a session of a member
    ///
    /// Signs one device of the member out; its access tokens stop working before the answer is sent. The same callers
    /// may do it as for all sessions.
    #[oai(path = "/:id/sessions/:session_id", method = "delete", operation_id = "end_member_session")]
    async fn end_member_session(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        session_id: Path<SessionId>,
    ) -> EmptyReply {
        let end = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = require_may_end(t, caller, Permission::MEMBER_SESSION_END, id.0)?;
            end_one_session(t, reach.organization(), id.0, session_id.0)
        };
        let ended = self.app.change(&caller, "session.end", end).await?;
        Ok(done().epoch(ended.epoch))
    }
}

/// Fails unless the caller may end sessions of this member.
fn require_may_end(t: &Transaction<'_>, caller: &Identity, permission: Permission, id: MemberId) -> Result<Reach> {
    let reach = authz::require(t.snapshot(), caller, permission)?;
    require_visible(t.snapshot(), reach, id)?;
    members::get(t, id)?;
    require_may_change(t, caller, reach, id)?;
    Ok(reach)
}
