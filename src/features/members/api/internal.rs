//! Operations on members for the services of this site.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::{MemberOrganization, MemberView};
use crate::features::members::list_store::{self, Filter};
use crate::features::members::store;
use crate::features::members::{
    AUTHENTIK, Member, NewMember, changed, create, member_event, require_capacity, require_may_touch, require_visible,
    set_active, writes,
};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::InternalCaller;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::PageRequest;
use crate::kernel::error::ErrorCode;
use crate::kernel::http::{Body, DisplayName, Email, Page, Reply, Subject, Tag, Username, like, ok};
use crate::kernel::ids::MemberId;
use crate::kernel::outbox::EventKind;

/// The data of a service about a user who signed in there
#[derive(Object)]
struct UpsertBySub {
    /// The subject at Authentik
    sub: Subject,
    username: Option<Username>,
    email: Option<Email>,
    display_name: Option<DisplayName>,
    /// Unchanged by default; a new member is active
    is_active: Option<bool>,
}

crate::document! {
    upsert_member_by_sub: [
        NotHeld, MemberNotFound, MemberExists, EmailExists, UsernameExists, SiteFull,
    ] ["etag", "x-policy-epoch"];
    get_member_by_sub: [MemberNotFound];
    list_member_organizations_internal: [MemberNotFound];

    "UpsertBySub": r#"{"sub":"a1b2c3","username":"kim","email":"kim@example.org","display_name":"Kim"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/internal", tag = "Tag::Members")]
impl Api {
    /// Create or update the member of a subject
    ///
    /// Absent fields stay unchanged. Fails if another member has the e-mail; members are never linked by e-mail.
    #[oai(path = "/users/upsert-by-sub", method = "post", operation_id = "upsert_member_by_sub")]
    async fn upsert_member_by_sub(&self, caller: InternalCaller, body: Body<UpsertBySub>) -> Reply<MemberView> {
        let body = body.0;
        let members_max = self.app.config.members_max;
        let upsert = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_UPDATE)?;
            authz::require(t.snapshot(), caller, Permission::MEMBER_CREATE)?;
            let Some(former) = store::find_by_identity(t, AUTHENTIK, &body.sub)? else {
                let new = NewMember {
                    username: body.username.map(|text| text.0),
                    username_by_site: reach == Reach::Site,
                    email: body.email.map(|text| text.0),
                    display_name: body.display_name.map(|text| text.0),
                    authentik_sub: Some(body.sub.0),
                    is_suspended: body.is_active == Some(false),
                    ..NewMember::default()
                };
                let id = create(t, require_capacity(t.snapshot(), members_max)?, &new)?;
                let mut entry = Entry::new("member", id).after(json!({"created_by_sub": true}));
                let mut changes = vec![authz::store::member_state(t, id)?];
                if let Some(organization) = reach.organization() {
                    writes::insert_membership(t, organization, id)?;
                    changes.push(authz::store::membership(t, organization, id)?);
                    entry = entry.within(organization);
                }
                let created = member_event(t, EventKind::MemberCreated, id).within(reach.organization());
                return Ok(Changed::new(store::get_member(t, id)?, entry)
                    .with_policy_changes(changes)
                    .with_events([created]));
            };
            require_visible(t.snapshot(), reach, former.id)?;
            let mut member: Member = former.clone();
            if let Some(username) = body.username {
                member.name(reach, Some(username.0));
            }
            member.email = body.email.map(|text| text.0).or(member.email);
            member.display_name = body.display_name.map(|text| text.0).or(member.display_name);
            let is_active = body.is_active.filter(|is_active| *is_active != former.is_active());
            if member == former && is_active.is_none() {
                return Ok(Changed::unchanged(former));
            }
            require_may_touch(t, caller, reach, former.id, member.touch_since(&former))?;
            if member != former {
                writes::update_names(t, &member)?;
            }
            let mut changes = Vec::new();
            if let Some(is_active) = is_active {
                changes = set_active(t, former.id, is_active)?;
            }
            let entry = Entry::new("member", former.id).after(json!({"updated_by_sub": true, "is_active": is_active}));
            let member = store::get_member(t, former.id)?;
            let events = changed(t, &former, &member);
            Ok(Changed::new(member, entry).with_policy_changes(changes).with_events(events))
        };
        let made = self.app.change(&caller, "member.upsert_by_sub", upsert).await?;
        let version = made.answer.version;
        Ok(ok(made.answer.into()).version(version).epoch(made.epoch))
    }

    /// List members, for the services of this site
    ///
    /// A page has up to 500 members, more than in `list_members`.
    #[oai(path = "/members", method = "get", operation_id = "list_members_internal")]
    async fn list_members_internal(
        &self,
        caller: InternalCaller,
        /// Only members with this text in the username, e-mail or display name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_LIST)?;
        let keyword = like(keyword.0.as_deref());
        let filter = Filter { organization: reach.organization(), keyword, ..Filter::default() };
        let window = PageRequest::internal(limit.0, offset.0, after.0)?;
        Ok(ok(self.app.read(move |r| list_store::list_members(r, &filter, &window)).await?.into()))
    }

    /// Get the member of a subject, for the services of this site
    ///
    /// Finds the member by its subject at Authentik.
    #[oai(path = "/members/by-sub/:sub", method = "get", operation_id = "get_member_by_sub")]
    async fn get_member_by_sub(&self, caller: InternalCaller, sub: Path<String>) -> Reply<MemberView> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::MEMBER_GET)?;
        let member = self
            .app
            .read(move |r| store::find_by_identity(r, AUTHENTIK, &sub.0))
            .await?
            .ok_or(ErrorCode::MemberNotFound)?;
        require_visible(&snapshot, reach, member.id)?;
        Ok(ok(member.into()))
    }

    /// List a member's organizations, for the services of this site
    ///
    /// Finds the member by its id.
    #[oai(
        path = "/members/:member_id/organizations",
        method = "get",
        operation_id = "list_member_organizations_internal"
    )]
    async fn list_member_organizations_internal(
        &self,
        caller: InternalCaller,
        member_id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberOrganization>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::MEMBERSHIP_LIST)?;
        require_visible(&snapshot, reach, member_id.0)?;
        let window = PageRequest::internal(limit.0, offset.0, after.0)?;
        let found = self
            .app
            .read(move |r| {
                store::get_member(r, member_id.0)?;
                store::list_memberships(r, member_id.0, reach.organization(), &window)
            })
            .await?;
        Ok(ok(found.into()))
    }
}
