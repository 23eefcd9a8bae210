//! Users: members together with their WordPress and SFTPGo accounts, quota and organization membership. A user is
//! created, changed and erased as a whole, in one transaction.

pub mod api;
pub mod import;
pub mod spreadsheet;

use serde_json::json;

use crate::features::members::{
    self, Member, NewMember, SFTPGO, WORDPRESS, create, find_by_identity, find_login, folded, join, member_event,
    owner_of_folder, require_capacity,
};
use crate::features::quotas::{self, QuotaAccount, QuotaSettings};
use crate::kernel::app::{Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::delegation::{self, MemberPart};
use crate::kernel::authz::snapshot::{MemberStatus, Snapshot};
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::outbox::EventKind;

/// A member with its external accounts, organization and quota.
#[derive(Debug, Clone)]
pub struct User {
    pub member: Member,
    pub status_reason: Option<String>,
    pub wordpress_id: Option<String>,
    pub sftpgo_username: Option<String>,
    /// The only organization it belongs to.
    pub organization: Option<OrganizationId>,
    pub account: QuotaAccount,
}

impl User {
    /// Returns the user as a caller with this reach can see it. For a member that also belongs to other organizations,
    /// an organization sees the profile, but neither external names nor the stored bytes.
    pub fn seen(self, snapshot: &Snapshot, reach: Reach) -> Self {
        if delegation::require_sole_organization(snapshot, reach, self.member.id).is_ok() {
            return self;
        }
        let account = QuotaAccount { size: 0, used: 0, own_size: None, ..self.account };
        Self { status_reason: None, wordpress_id: None, sftpgo_username: None, account, ..self }
    }
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub username: String,
    pub email: String,
    pub display_name: Option<String>,
    pub wordpress_id: Option<u64>,
    /// The username if absent.
    pub sftpgo_username: Option<String>,
    /// In bytes; the default if absent.
    pub quota_size: Option<i64>,
    pub organization: Option<OrganizationId>,
    /// The creator of the welcome mail's link; `None` sends no mail.
    pub welcome: Option<Grantor>,
}

impl NewUser {
    pub fn sftpgo_username(&self) -> &str {
        self.sftpgo_username.as_deref().unwrap_or(&self.username)
    }
}

/// Whether this can be the name of a video folder: `[a-z0-9][a-z0-9._-]{2,59}`.
pub fn is_folder_name(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_plain = |byte: u8| is_first(byte) || matches!(byte, b'.' | b'_' | b'-');
    (3..=60).contains(&text.len()) && text.bytes().next().is_some_and(is_first) && text.bytes().all(is_plain)
}

/// Fails unless the SFTPGo username can be a folder name.
pub fn require_folder_name(new: &NewUser) -> Result<()> {
    if is_folder_name(new.sftpgo_username()) {
        return Ok(());
    }
    let message = "must be 3 to 60 of a-z 0-9 . _ - beginning with a letter or digit, because it becomes a folder; \
                   it is the username when absent";
    Err(Error::field("sftpgo_username", message))
}

/// Returns the user with this id.
pub fn get(r: &Reader<'_>, snapshot: &Snapshot, rules: &QuotaSettings, id: MemberId) -> Result<User> {
    load_user(r, snapshot, rules, members::get_member(r, id)?)
}

/// Loads the other parts of a member's user.
pub fn load_user(r: &Reader<'_>, snapshot: &Snapshot, rules: &QuotaSettings, member: Member) -> Result<User> {
    let id = member.id;
    Ok(User {
        status_reason: members::find_status_reason(r, id)?,
        wordpress_id: members::find_subject_at(r, id, WORDPRESS)?,
        sftpgo_username: members::find_subject_at(r, id, SFTPGO)?,
        account: quotas::account(r, rules, snapshot, id)?,
        organization: quotas::organization_of(snapshot, id),
        member,
    })
}

/// Names that must be unique.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'n> {
    pub username: Option<&'n str>,
    pub email: Option<&'n str>,
    pub wordpress_id: Option<u64>,
    pub sftpgo_username: Option<&'n str>,
}

/// Returns the names that another member has, each with its error.
pub fn find_taken_names(r: &Reader<'_>, own: Option<MemberId>, names: Names<'_>) -> Result<Vec<(ErrorCode, Field)>> {
    let is_other = |member: &Member| Some(member.id) != own;
    // A registration that is not confirmed yet does not reserve a name.
    let login = |text: &str| -> Result<bool> {
        let found = find_login(r, text)?.map(|login| login.member);
        Ok(found.is_some_and(|member| is_other(&member) && !member.is_pending()))
    };
    let mut found = Vec::new();
    if names.username.map(login).transpose()? == Some(true) {
        found.push((ErrorCode::UsernameExists, "username"));
    }
    if names.email.map(login).transpose()? == Some(true) {
        found.push((ErrorCode::EmailExists, "email"));
    }
    if let Some(id) = names.wordpress_id
        && find_by_identity(r, WORDPRESS, &id.to_string())?.is_some_and(|member| is_other(&member))
    {
        found.push((ErrorCode::WordPressIdExists, "wordpress_id"));
    }
    if let Some(name) = names.sftpgo_username
        && owner_of_folder(r, name)?.is_some_and(|owner| Some(owner) != own)
    {
        found.push((ErrorCode::SftpgoNameExists, "sftpgo_username"));
    }
    Ok(found.into_iter().map(|(cause, field)| (cause, Field::body(field, cause.message()))).collect())
}

/// Fails if any names are taken, with one error that lists them all; the first determines the error code.
fn refused(taken: Vec<(ErrorCode, Field)>) -> Result<()> {
    let Some((cause, _)) = taken.first() else { return Ok(()) };
    let mut error = Error::new(*cause);
    error.fields = taken.into_iter().map(|(_, field)| field).collect();
    Err(error)
}

/// Creates a user.
pub fn create_user(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    new: &NewUser,
    members_max: u64,
) -> Result<Changed<MemberId>> {
    require_folder_name(new)?;
    let capacity = require_capacity(t.snapshot(), members_max)?;
    let sftpgo_username = new.sftpgo_username();
    let names = Names {
        username: Some(&new.username),
        email: Some(&new.email),
        wordpress_id: new.wordpress_id,
        sftpgo_username: Some(sftpgo_username),
    };
    refused(find_taken_names(t, None, names)?)?;
    let id = create(
        t,
        capacity,
        &NewMember {
            username: Some(new.username.clone()),
            username_by_site: true,
            email: Some(new.email.clone()),
            display_name: new.display_name.clone(),
            ..NewMember::default()
        },
    )?;
    members::insert_identity(t, id, SFTPGO, sftpgo_username, None)?;
    if let Some(number) = new.wordpress_id {
        members::insert_identity(t, id, WORDPRESS, &number.to_string(), None)?;
    }
    // Creates the quota account. It moves under the organization's ceiling with the first video, once the snapshot
    // contains the membership.
    let quota_changed = quotas::set_quota(t, rules, Reach::Site, (id, new.quota_size))?;
    let mut changes = vec![authz::store::member_state(t, id)?];
    let mut entry = Entry::new("member", id).after(json!({
        "fields": ["username", "email", "sftpgo_username"], "quota_size": new.quota_size,
        "wordpress_id": new.wordpress_id,
    }));
    if let Some(organization) = new.organization {
        changes.extend(join(t, organization, id)?);
        entry = entry.within(organization);
    }
    let event = |kind| member_event(t, kind, id).within(new.organization);
    let welcomed = new.welcome.as_ref().map(|maker| event(EventKind::MemberWelcomed).granted_by(maker));
    let events: Vec<_> = std::iter::once(event(EventKind::MemberCreated)).chain(welcomed).collect();
    Ok(Changed::new(id, entry).with_policy_changes(changes).with_events(events).merge(quota_changed))
}

/// The changes of a user.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    pub email: Option<String>,
    pub display_name: Option<String>,
    /// `Some(None)` resets it to the default.
    pub quota_size: Option<Option<i64>>,
    /// `Some(None)` removes it.
    pub wordpress_id: Option<Option<u64>>,
    /// Only for a member that has none: folders are never renamed.
    pub sftpgo_username: Option<String>,
    pub join: Option<OrganizationId>,
}

/// Returns what a change of these fields affects.
pub fn touch_of(fields: &[&str]) -> MemberPart {
    let opens = |field: &&str| ["email", "wordpress_id", "sftpgo_username"].contains(field);
    if fields.iter().any(opens) { MemberPart::Account } else { MemberPart::Standing }
}

impl Edit {
    /// Returns the names of the fields that differ from the present values.
    pub fn fields(&self, user: &User, snapshot: &Snapshot) -> Vec<&'static str> {
        let number = |id: &Option<u64>| id.map(|id| id.to_string());
        let belongs = |id: &OrganizationId| snapshot.tenant(*id).is_some_and(|t| t.set_of(user.member.id).is_some());
        let differs = [
            ("email", self.email.as_ref().is_some_and(|email| user.member.email.as_ref() != Some(email))),
            (
                "display_name",
                self.display_name.as_ref().is_some_and(|name| user.member.display_name.as_ref() != Some(name)),
            ),
            ("quota_size", self.quota_size.is_some_and(|size| user.account.own_size != size)),
            ("wordpress_id", self.wordpress_id.as_ref().is_some_and(|id| number(id) != user.wordpress_id)),
            (
                "sftpgo_username",
                self.sftpgo_username.as_ref().is_some_and(|name| user.sftpgo_username.as_ref() != Some(name)),
            ),
            ("org_code", self.join.as_ref().is_some_and(|id| !belongs(id))),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Returns all conflicts of the change.
    pub fn faults(&self, r: &Reader<'_>, user: &User) -> Result<Vec<(ErrorCode, Field)>> {
        let names = Names {
            username: None,
            email: self.email.as_deref(),
            wordpress_id: self.wordpress_id.flatten(),
            sftpgo_username: self.sftpgo_username.as_deref(),
        };
        let mut faults = find_taken_names(r, Some(user.member.id), names)?;
        let renamed = user.sftpgo_username.as_ref().zip(self.sftpgo_username.as_ref()).is_some_and(|(a, b)| a != b);
        if renamed {
            let message = "a folder is never renamed: the member keeps its SFTPGo name";
            faults.push((ErrorCode::SftpgoNameExists, Field::body("sftpgo_username", message)));
        }
        Ok(faults)
    }
}

/// Changes the fields that differ; returns their names.
pub fn update_user(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    reach: Reach,
    user: &User,
    edit: &Edit,
) -> Result<Changed<Vec<&'static str>>> {
    let (id, fields) = (user.member.id, edit.fields(user, t.snapshot()));
    if fields.is_empty() {
        return Ok(Changed::unchanged(fields));
    }
    refused(edit.faults(t, user)?)?;
    let mut changes = Vec::new();
    let mut member = user.member.clone();
    member.email = edit.email.clone().or(member.email);
    member.display_name = edit.display_name.clone().or(member.display_name);
    if member != user.member {
        members::update_names(t, &member)?;
    } else {
        members::touch(t, id)?;
    }
    if fields.contains(&"wordpress_id") {
        members::delete_subject_at(t, id, WORDPRESS)?;
        if let Some(number) = edit.wordpress_id.flatten() {
            members::insert_identity(t, id, WORDPRESS, &number.to_string(), None)?;
        }
    }
    if fields.contains(&"sftpgo_username")
        && let Some(name) = &edit.sftpgo_username
    {
        members::insert_identity(t, id, SFTPGO, name, None)?;
    }
    let quota_changed = match edit.quota_size {
        Some(size) => quotas::set_quota(t, rules, reach, (id, size))?,
        None => Changed::unchanged(false),
    };
    if let Some(organization) = edit.join {
        changes.extend(join(t, organization, id)?);
    }
    let is_of_member = fields.iter().any(|field| *field != "quota_size");
    let updated = is_of_member.then(|| member_event(t, EventKind::MemberUpdated, id));
    let entry = Entry::new("member", id).within(reach.organization()).after(json!({"fields": &fields}));
    Ok(Changed::new(fields, entry).with_policy_changes(changes).with_events(updated).merge(quota_changed))
}

/// Suspends or reactivates a member, and stores the reason.
pub fn set_active(
    t: &Transaction<'_>,
    reach: Reach,
    id: MemberId,
    is_active: bool,
    reason: Option<&str>,
) -> Result<Changed<()>> {
    let previous = members::get_not_erased(t, id)?;
    let is_same = previous.is_active() == is_active && members::find_status_reason(t, id)?.as_deref() == reason;
    if is_same {
        return Ok(Changed::unchanged(()));
    }
    let changes = if previous.is_active() == is_active { Vec::new() } else { members::set_active(t, id, is_active)? };
    members::set_status_reason(t, id, reason)?;
    members::touch(t, id)?;
    let kind = if is_active { EventKind::MemberActivated } else { EventKind::MemberSuspended };
    let event = (!changes.is_empty()).then(|| member_event(t, kind, id));
    let status = if is_active { MemberStatus::Active } else { MemberStatus::Suspended };
    // The reason is free text that can contain personal data: the audit log records only whether there is one.
    let after = json!({"fields": ["status"], "status": status.as_str(), "has_reason": reason.is_some()});
    Ok(Changed::new((), Entry::new("member", id).within(reach.organization()).after(after))
        .with_policy_changes(changes)
        .with_events(event))
}

/// Returns the member with this username, if any.
pub fn find_by_username(r: &Reader<'_>, username: &str) -> Result<Option<Member>> {
    let found = find_login(r, username)?.map(|login| login.member);
    let has_username = |member: &Member| member.username.as_deref().map(folded) == Some(folded(username));
    Ok(found.filter(|member| has_username(member) && !member.is_pending()))
}

#[cfg(test)]
mod tests {
    use super::is_folder_name;

    #[test]
    fn a_folder_name_has_3_to_60_plain_characters_and_starts_with_a_letter_or_digit() {
        let (fits, too_long) = ("a".repeat(60), "a".repeat(61));
        for name in ["kim", "0kim", "k.i_m-", &fits] {
            assert!(is_folder_name(name), "{name}");
        }
        for name in ["", "ki", "Kim", ".kim", "-kim", "ki/m", "kím", "ki m", "..", &too_long] {
            assert!(!is_folder_name(name), "{name}");
        }
    }
}
