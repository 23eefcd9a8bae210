//! The signed-in member's sessions.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};

use crate::features::sessions::store::{self, SessionRow};
use crate::features::sessions::{clear_cookies, end_all_sessions, end_session, trusted_devices};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::principal::Identity;
use crate::kernel::http::{EmptyReply, Reply, Tag, done, ok};
use crate::kernel::ids::{SessionId, Timestamp};

/// A session that has not ended
#[derive(Object)]
#[oai(rename = "Session")]
pub(super) struct SessionView {
    id: SessionId,
    /// Whether this session sent the request
    is_current: bool,
    /// How the member signed in
    method: String,
    /// Whether a second factor was verified
    second_factor: bool,
    /// Short device name from the `User-Agent` header
    device: String,
    /// IP address at sign-in
    address: String,
    /// Time of the last refresh, in Unix milliseconds
    last_used_at: i64,
    /// When the session ends unless it is refreshed, in Unix milliseconds
    expires_at: i64,
    /// Unix milliseconds
    created_at: i64,
}

/// The member's sessions
#[derive(Object)]
pub(super) struct Sessions {
    pub(super) items: Vec<SessionView>,
}

/// How many sessions ended
#[derive(Object)]
pub(super) struct EndedSessions {
    pub(super) ended: u64,
}

crate::document! {
    end_my_session: [SessionNotFound];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/me/sessions", tag = "Tag::Sessions")]
impl Api {
    /// List your sessions
    ///
    /// The devices on which the caller is signed in. `is_current` marks the session that sent the request.
    #[oai(path = "/", method = "get", operation_id = "list_my_sessions")]
    async fn list_my_sessions(&self, caller: MemberCaller) -> Reply<Sessions> {
        let member = caller.signed_in()?;
        let found = self.app.read(move |r| store::list_sessions(r, member, Timestamp::now())).await?;
        Ok(ok(Sessions { items: found.into_iter().map(|row| session_view(row, caller.session)).collect() }))
    }

    /// End one of your sessions
    ///
    /// Signs one device out. Its access tokens stop working before the answer is sent.
    #[oai(path = "/:id", method = "delete", operation_id = "end_my_session")]
    async fn end_my_session(&self, caller: MemberCaller, id: Path<SessionId>) -> EmptyReply {
        end_session(&self.app, &caller, caller.signed_in()?, id.0).await?;
        if caller.session == Some(id.0) {
            clear_cookies(&self.app, &caller.context);
        }
        Ok(done())
    }

    /// Sign out everywhere
    ///
    /// Ends every session of the caller, including this one unless `keep_current` is set. Their access tokens stop
    /// working before the answer is sent. All remembered devices are forgotten.
    #[oai(path = "/", method = "delete", operation_id = "end_my_sessions")]
    async fn end_my_sessions(
        &self,
        caller: MemberCaller,
        /// Keeps the session that sent the request
        keep_current: Query<Option<bool>>,
    ) -> Reply<EndedSessions> {
        let member = caller.signed_in()?;
        let kept = caller.session.filter(|_| keep_current.0 == Some(true));
        let end_all = move |t: &Transaction<'_>, _: &Identity| {
            end_all_sessions(t, None, member, kept).map(|ended| ended.map(|ended| EndedSessions { ended }))
        };
        let answer = self.app.change(&caller, "session.end_all", end_all).await?.answer;
        if kept.is_none() {
            clear_cookies(&self.app, &caller.context);
            trusted_devices::clear_cookie(&self.app, &caller.context);
        }
        Ok(ok(answer))
    }
}

pub(super) fn session_view(row: SessionRow, current: Option<SessionId>) -> SessionView {
    SessionView {
        is_current: current == Some(row.id),
        id: row.id,
        method: row.method,
        second_factor: row.second_factor,
        device: row.device,
        address: row.address,
        last_used_at: row.rotated_at.0,
        expires_at: row.expires_at.0,
        created_at: row.created_at.0,
    }
}
