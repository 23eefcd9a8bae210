//! Operations of the signed-in member on its own profile.

use std::sync::Arc;

use poem_openapi::param::Header;
use poem_openapi::types::{MaybeUndefined, ToJSON};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::MemberOrganization;
use crate::features::members::{Member, changed, store, writes};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{MemberCaller, MemberOrKey};
use crate::kernel::authz;
use crate::kernel::authz::key::ME_READ;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::PageRequest;
use crate::kernel::error::Result;
use crate::kernel::http::{Body, DisplayName, RenderedReply, Reply, Tag, ok, rendered, require_version};
use crate::kernel::ids::MemberId;

/// The signed-in member
#[derive(Object)]
struct Me {
    /// The subject at the provider that the member signs in with; the member's id if there is none
    sub: String,
    uid: MemberId,
    #[oai(nullable)]
    username: Option<String>,
    #[oai(nullable)]
    email: Option<String>,
    #[oai(nullable)]
    display_name: Option<String>,
    organizations: Vec<MemberOrganization>,
}

/// The fields of the profile to change
#[derive(Object)]
struct UpdateMe {
    /// Null removes it
    #[oai(nullable)]
    display_name: MaybeUndefined<DisplayName>,
}

crate::document! {
    get_me: [] ["etag"];
    update_me: [] ["etag", "x-policy-epoch"];

    "UpdateMe": r#"{"display_name":"Kim L."}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/me", tag = "Tag::Members")]
impl Api {
    /// Get the signed-in member
    ///
    /// Returns the profile and the organizations that the member belongs to. The first call with a provider's token
    /// creates the member.
    #[oai(path = "/", method = "get", operation_id = "get_me")]
    async fn get_me(&self, caller: MemberOrKey) -> RenderedReply<Me> {
        let id = authz::require_own(&caller, ME_READ)?;
        let read =
            move |r: &crate::kernel::db::Reader<'_>| me(r, id).map(|(me, version)| (me.to_json_string(), version));
        let (me, version) = self.app.get_or_load(id, read).await?;
        Ok(rendered(me).version(version))
    }

    /// Update the signed-in member
    ///
    /// Changes only the fields that are sent. The password has its own operation.
    #[oai(path = "/", method = "patch", operation_id = "update_me")]
    async fn update_me(
        &self,
        caller: MemberCaller,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateMe>,
    ) -> Reply<Me> {
        let id = caller.signed_in()?;
        let update = move |t: &Transaction<'_>, _: &Identity| {
            let former = store::get_member(t, id)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let mut member: Member = former.clone();
            match body.0.display_name {
                MaybeUndefined::Undefined => {}
                MaybeUndefined::Null => member.display_name = None,
                MaybeUndefined::Value(name) => member.display_name = Some(name.0),
            }
            if member == former {
                return Ok(Changed::unchanged(()));
            }
            writes::update_names(t, &member)?;
            let entry = Entry::new("member", id).after(json!({"fields": ["display_name"]}));
            Ok(Changed::new((), entry).with_events(changed(t, &former, &member)))
        };
        let updated = self.app.change(&caller, "member.update_self", update).await?;
        let (me, version) = self.app.read(move |r| me(r, id)).await?;
        Ok(ok(me).version(version).epoch(updated.epoch))
    }
}

fn me(r: &crate::kernel::db::Reader<'_>, id: MemberId) -> Result<(Me, i64)> {
    let member = store::get_member(r, id)?;
    let window = PageRequest::internal(None, None, None)?;
    let organizations = store::list_memberships(r, id, None, &window)?.items;
    let me = Me {
        sub: store::find_subject(r, id)?.unwrap_or_else(|| id.to_string()),
        uid: id,
        username: member.username,
        email: member.email,
        display_name: member.display_name,
        organizations: organizations.into_iter().map(Into::into).collect(),
    };
    Ok((me, member.version))
}
