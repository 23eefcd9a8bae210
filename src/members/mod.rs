//! Members: people, with the external names they are known by and the organizations they belong to.
//!
//! **Invariant.** A member is found by its own id or by (provider, subject), never linked by e-mail.

pub mod api;
pub mod password;
pub mod store;

use crate::access::caller::{Identity, Who};
use crate::access::permission::PLATFORM_ADMIN;
use crate::access::snapshot::{Change, Snapshot};
use crate::access::{self, Reach};
use crate::app::{App, Changed, Transaction, end_sessions, use_setup_token};
use crate::db::{Reader, Writer};
use crate::error::{Cause, Error, Field, Result};
use crate::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::journal::Entry;
use crate::permissions;

/// The provider whose subject is `authentik_sub` on the wire.
pub const AUTHENTIK: &str = "authentik";

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub username: Option<String>,
    pub email: Option<String>,
    pub display_name: Option<String>,
    /// `pending`, `active`, `suspended` or `deleted`
    pub status: String,
    pub authentik_sub: Option<String>,
    pub authentik_user_id: Option<String>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Member {
    pub fn is_active(&self) -> bool {
        self.status == "active"
    }
}

/// What a new member begins with.
#[derive(Debug, Clone, Default)]
pub struct NewMember {
    pub username: Option<String>,
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub authentik_sub: Option<String>,
    pub authentik_user_id: Option<String>,
    pub password_hash: Option<String>,
    pub is_suspended: bool,
}

/// Creates a member; the policy learns of it by `access::store::person`.
pub fn create(w: &Writer<'_>, new: &NewMember) -> Result<MemberId> {
    let id = MemberId::new();
    store::insert_member(w, id, new)?;
    if let Some(subject) = &new.authentik_sub {
        store::insert_identity(w, id, AUTHENTIK, subject, new.authentik_user_id.as_deref())?;
    }
    Ok(id)
}

pub fn get(r: &Reader<'_>, id: MemberId) -> Result<Member> {
    store::get_member(r, id)
}

pub fn find(r: &Reader<'_>, id: MemberId) -> Result<Option<Member>> {
    store::find_member(r, id)
}

/// The member of an Authentik subject.
pub fn find_by_sub(r: &Reader<'_>, subject: &str) -> Result<Option<Member>> {
    store::find_by_identity(r, AUTHENTIK, subject)
}

/// What somebody whom we trust says of a person: a provider of sign-in.
#[derive(Debug, Clone)]
pub struct Vouched {
    pub provider: String,
    pub subject: String,
    pub username: Option<String>,
    /// Only one that was proved there.
    pub email: Option<String>,
    pub display_name: Option<String>,
}

/// What became of it here.
pub struct Ensured {
    pub member: MemberId,
    pub is_new: bool,
    /// Names of the fields that were empty before.
    pub filled: Vec<&'static str>,
    pub changes: Vec<Change>,
}

/// The member of a provider's subject.
pub fn find_vouched(r: &Reader<'_>, provider: &str, subject: &str) -> Result<Option<Member>> {
    store::find_by_identity(r, provider, subject)
}

/// Makes the member of a provider's subject, active and without roles, or fills what it lacks; nothing is overwritten.
///
/// A name that is malformed, or another member's, is left out: it links nobody, and keeps nobody from signing in.
pub fn ensure_vouched(t: &Transaction<'_>, vouched: &Vouched, members_max: u64) -> Result<Ensured> {
    let former = find_vouched(t, &vouched.provider, &vouched.subject)?;
    if former.as_ref().is_some_and(|member| !member.is_active()) {
        return Err(Cause::InvalidLogin.into());
    }
    let gap = |held: Option<&String>| held.is_none();
    let (no_username, no_email, no_name) = match &former {
        Some(member) => (gap(member.username.as_ref()), gap(member.email.as_ref()), gap(member.display_name.as_ref())),
        None => (true, true, true),
    };
    let free = |login: &String| Ok::<_, Error>(is_login(login) && find_login(t, login)?.is_none());
    let offered = |is_gap: bool, name: &Option<String>, is_email: bool| {
        let Some(name) = name.clone().filter(|name| is_gap && name.contains('@') == is_email) else { return Ok(None) };
        Ok::<_, Error>(if free(&name)? { Some(name) } else { None })
    };
    let username = offered(no_username, &vouched.username, false)?;
    let email = offered(no_email, &vouched.email, true)?;
    let display_name = vouched.display_name.clone().filter(|name| no_name && is_display_name(name));
    let fields = [("username", &username), ("email", &email), ("display_name", &display_name)];
    let filled: Vec<&'static str> = fields.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();

    let Some(mut member) = former else {
        if t.snapshot().people() as u64 >= members_max {
            let message = format!("the site has {members_max} members already (limits.members)");
            return Err(Error::new(Cause::RegistrationClosed).saying(message));
        }
        let id = create(t, &NewMember { username, email, display_name, ..NewMember::default() })?;
        store::insert_identity(t, id, &vouched.provider, &vouched.subject, None)?;
        let changes = vec![access::store::person(t, id)?];
        return Ok(Ensured { member: id, is_new: true, filled, changes });
    };
    if !filled.is_empty() {
        member.username = username.or(member.username);
        member.email = email.or(member.email);
        member.display_name = display_name.or(member.display_name);
        store::update_names(t, &member)?;
    }
    Ok(Ensured { member: member.id, is_new: false, filled, changes: Vec::new() })
}

/// The rule of `DisplayName` in the document, for names that do not come as a request body.
fn is_display_name(name: &str) -> bool {
    const CHARACTERS_MAX: usize = 200;
    (1..=CHARACTERS_MAX).contains(&name.chars().count()) && !name.chars().any(|c| c < ' ' || c == '\u{7f}')
}

/// Makes a member belong to an organization, without a role.
pub fn join(t: &Transaction<'_>, organization: OrganizationId, id: MemberId) -> Result<Change> {
    store::insert_membership(t, organization, id)?;
    access::store::seat(t, organization, id)
}

/// What is known of a login: the member and its password's hash.
#[derive(Debug)]
pub struct Login {
    pub member: Member,
    pub password_hash: Option<String>,
}

/// Finds the member of a login, which is an e-mail or a username.
pub fn find_login(r: &Reader<'_>, login: &str) -> Result<Option<Login>> {
    store::find_login(r, login)
}

/// The form in which e-mails and usernames are compared.
pub fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Fails when the member is out of the caller's reach, exactly as if it did not exist.
pub fn require_visible(snapshot: &Snapshot, reach: Reach, id: MemberId) -> Result<()> {
    let visible = reach
        .organization()
        .is_none_or(|organization| snapshot.tenant(organization).is_some_and(|tenant| tenant.set_of(id).is_some()));
    if visible { Ok(()) } else { Err(Cause::MemberNotFound.into()) }
}

/// Activates or suspends a member; the last owner of an organization and the last administrator stay active.
/// Suspending ends every session.
pub fn set_active(t: &Transaction<'_>, id: MemberId, is_active: bool) -> Result<Vec<Change>> {
    if is_active {
        store::set_status(t, id, "active")?;
        return Ok(vec![access::store::person(t, id)?]);
    }
    permissions::require_not_last_anywhere(t, id)?;
    store::set_status(t, id, "suspended")?;
    let mut changes = end_sessions(t, id, None)?;
    changes.push(access::store::person(t, id)?);
    Ok(changes)
}

/// Gives a member a new password; every session ends, but one that may be kept.
pub fn set_password(t: &Transaction<'_>, id: MemberId, hash: &str, kept: Option<SessionId>) -> Result<Vec<Change>> {
    store::set_password(t, id, hash)?;
    end_sessions(t, id, kept)
}

/// Who may change an e-mail, a credential or a status: the site, a program, or the administrator of the one
/// organization that the member belongs to; and nobody of a member who holds more than they do.
pub fn require_may_change(t: &Transaction<'_>, caller: &Identity, reach: Reach, id: MemberId) -> Result<()> {
    if caller.member() == Some(id) && matches!(caller.who, Who::Member(_)) {
        return Ok(());
    }
    let snapshot = t.snapshot();
    if reach != Reach::Site && snapshot.only_tenant(id).is_none() {
        let message = "this member belongs to other organizations too: only the platform can change this";
        return Err(Error::new(Cause::Forbidden).saying(message));
    }
    for tenant in snapshot.tenants().filter(|tenant| tenant.set_of(id).is_some()) {
        for role in tenant.roles_of(id) {
            access::require_held(snapshot, caller, tenant.id, role)?;
        }
    }
    permissions::require_grants_held(t, caller, id)
}

/// Are this login and this password good enough for a first administrator? Says all that is wrong at once.
pub fn require_first(login: &str, password: &str) -> Result<()> {
    let mut faults: Vec<Field> =
        password::faults(password).into_iter().map(|fault| Field::body("password", fault)).collect();
    if !is_login(login.trim()) {
        faults.insert(0, Field::body("login", "must be an e-mail, or a username of letters, digits, and . _ -"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::fields(faults)) }
}

/// The rules of `Username` and `Email` in the document, for logins that do not come as a request body.
fn is_login(login: &str) -> bool {
    const USERNAME_BYTES_MAX: usize = 64;
    const EMAIL_BYTES_MAX: usize = 254;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_part =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c <= ' ' || c == '\u{7f}' || "@<>\"".contains(c));
    match login.split_once('@') {
        Some((local, domain)) => {
            login.len() <= EMAIL_BYTES_MAX
                && local.chars().count() <= USERNAME_BYTES_MAX
                && is_part(local)
                && is_part(domain)
        }
        None => {
            login.len() <= USERNAME_BYTES_MAX
                && login.starts_with(|first: char| first.is_ascii_alphanumeric())
                && login.bytes().all(is_plain)
        }
    }
}

/// Makes the first administrator of the site: by the command line, or by whoever holds the set-up link.
pub async fn create_first_administrator(
    app: &App,
    login: &str,
    password: String,
    setup_token: Option<String>,
) -> Result<MemberId> {
    require_first(login, &password)?;
    let login = login.trim().to_owned();
    let hash = password::hash(app, password).await?;
    let create_admin = move |t: &Transaction<'_>, _: &Identity| {
        if let Some(token) = &setup_token {
            use_setup_token(t, token)?;
        }
        let platform = t.snapshot().platform().ok_or(Cause::OrganizationNotFound)?;
        if has_administrator(t, platform.id)? {
            return Err(Cause::SetupDone.into());
        }
        let (email, username) = if login.contains('@') { (Some(login), None) } else { (None, Some(login)) };
        let id = create(t, &NewMember { email, username, password_hash: Some(hash), ..NewMember::default() })?;
        store::insert_membership(t, platform.id, id)?;
        permissions::assign_system_role(t, platform.id, id, PLATFORM_ADMIN)?;
        let entry = Entry::new("member", id).within(platform.id).after(serde_json::json!({"role": PLATFORM_ADMIN}));
        let changes = [access::store::person(t, id)?, access::store::seat(t, platform.id, id)?];
        Ok(Changed::new(id, entry).policy(changes))
    };
    app.change(&Identity::command_line(), "member.create_first_administrator", create_admin)
        .await
        .map(|made| made.answer)
}

fn has_administrator(r: &Reader<'_>, platform: OrganizationId) -> Result<bool> {
    permissions::has_active_holder(r, platform, PLATFORM_ADMIN)
}

/// Is there an active platform administrator?
pub async fn is_set_up(app: &App) -> Result<bool> {
    let Some(platform) = app.snapshot().platform().map(|platform| platform.id) else { return Ok(false) };
    app.read(move |r| has_administrator(r, platform)).await
}
