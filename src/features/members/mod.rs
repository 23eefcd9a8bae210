//! Members: people, with their identities at external providers and their memberships in organizations.
//!
//! **Invariant.** A member is identified by its id or by (provider, subject). Accounts are never linked by e-mail.

pub mod api;
mod hash_cost;
mod legacy_hash;
pub mod limits;
mod list_store;
mod membership_store;
pub mod password;
mod search_store;
mod store;
mod user_store;
pub mod visible;
mod writes;

use std::net::IpAddr;

use crate::features::permissions;
use crate::kernel::app::{App, Changed, Transaction, consume_setup_token, maintenance};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Grantor};
use crate::kernel::authz::delegation::{self, MemberPart};
use crate::kernel::authz::permission::PLATFORM_ADMIN;
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::authz::snapshot::{Change, MemberStatus, Snapshot};
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
pub use api::MemberOrder;
pub use list_store::{Filter, SortKey, list_members, list_names};
pub use store::{find_member, find_subject_at, get_member, insert_identity, insert_member, set_account_id};
pub use user_store::{delete_subject_at, find_status_reason, set_status_reason, touch};
pub use visible::{find_visible, is_visible, require_visible, visible_path, visible_text};
pub use writes::{delete_membership, erase, get_not_erased, insert_membership, react, set_password, update_names};

/// Returns the ids of the members that a keyword can match, as a JSON array; `None` if there are too many.
pub fn find_among(r: &Reader<'_>, keyword: &str) -> Result<Option<String>> {
    search_store::find_among(r, keyword)
}

/// The provider whose subject is `authentik_sub` on the wire.
pub const AUTHENTIK: &str = "authentik";

/// The provider whose subject is the numeric id of the account at WordPress.
pub const WORDPRESS: &str = "wordpress";

/// The provider whose subject is the member's username at SFTPGo, which is the name of its video folder.
pub const SFTPGO: &str = "sftpgo";

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub username: Option<String>,
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub status: MemberStatus,
    pub authentik_sub: Option<String>,
    pub authentik_user_id: Option<String>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Whether the site vouches for the username. Only then it is the name of a folder.
    pub username_by_site: bool,
}

impl Member {
    /// Sets the username on behalf of a caller with this reach. A username that a tenant, a provider or the user chose
    /// is only a name to sign in with. Setting the same username again does not change `username_by_site`.
    pub fn name(&mut self, reach: Reach, username: Option<String>) {
        if username != self.username {
            self.username_by_site = reach == Reach::Site && username.is_some();
            self.username = username;
        }
    }

    /// Returns what the change from a former state touches.
    fn touch_since(&self, former: &Self) -> MemberPart {
        let names = |member: &Self| (member.username.clone(), member.username_by_site, member.email.clone());
        if names(self) == names(former) { MemberPart::Standing } else { MemberPart::Account }
    }

    /// Returns the names of the fields that differ from a former state, without their values.
    fn fields_changed_since(&self, former: &Self) -> Vec<&'static str> {
        let named = |member: &Self| (member.username.clone(), member.username_by_site);
        let pairs = [
            ("username", named(former) != named(self)),
            ("email", former.email != self.email),
            ("display_name", former.display_name != self.display_name),
        ];
        pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    pub fn is_active(&self) -> bool {
        self.status == MemberStatus::Active
    }

    /// Whether the member registered and has not confirmed the e-mail.
    pub fn is_pending(&self) -> bool {
        self.status == MemberStatus::Pending
    }

    /// Whether the member was erased.
    pub fn is_erased(&self) -> bool {
        self.status == MemberStatus::Deleted
    }
}

/// The initial data of a new member.
#[derive(Debug, Clone, Default)]
pub struct NewMember {
    pub username: Option<String>,
    /// Whether the site vouches for the username.
    pub username_by_site: bool,
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub authentik_sub: Option<String>,
    pub authentik_user_id: Option<String>,
    pub password_hash: Option<String>,
    pub is_suspended: bool,
}

impl NewMember {
    /// Returns the names of the fields that are set.
    pub fn fields(&self) -> Vec<&'static str> {
        let set = [
            ("username", self.username.is_some()),
            ("email", self.email.is_some()),
            ("display_name", self.display_name.is_some()),
            ("authentik_sub", self.authentik_sub.is_some()),
            ("authentik_user_id", self.authentik_user_id.is_some()),
            ("password", self.password_hash.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}

/// Creates a member. The caller must add its `kernel::authz::store::member_state` to the policy changes.
pub fn create(w: &Writer<'_>, capacity: Capacity, new: &NewMember) -> Result<MemberId> {
    let id = MemberId::new();
    create_as(w, capacity, id, new)?;
    Ok(id)
}

/// Like [`create`], with a given id, for members who create their own account.
pub fn create_as(w: &Writer<'_>, capacity: Capacity, id: MemberId, new: &NewMember) -> Result<()> {
    store::insert_member(w, capacity, id, new)?;
    match &new.authentik_sub {
        Some(subject) => store::insert_identity(w, id, AUTHENTIK, subject, new.authentik_user_id.as_deref()),
        None => Ok(()),
    }
}

/// An identity at an external provider.
#[derive(Debug, Clone)]
pub struct ExternalName {
    pub provider: String,
    pub subject: String,
    /// The provider's own id of the account, where it differs from the subject.
    pub account_id: Option<String>,
}

/// Returns the member with this identity (provider, subject), if any.
pub fn find_by_identity(r: &Reader<'_>, provider: &str, subject: &str) -> Result<Option<Member>> {
    store::find_by_identity(r, provider, subject)
}

/// Returns the name of a member's video folder: its name at SFTPGo; or, if it has none, the username that the site
/// vouches for, unless it is another member's name at SFTPGo.
pub fn sftpgo_name(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    store::find_sftpgo_name(r, id)
}

/// Returns the member whose folder has this name, compared byte by byte as a file system does. A username that a tenant
/// or the user chose is not a folder name: choosing the name of a folder must not give access to its files. Events of
/// SFTPGo never identify a member by a username.
pub fn owner_of_folder(r: &Reader<'_>, name: &str) -> Result<Option<MemberId>> {
    store::find_owner_of_folder(r, name)
}

/// Returns numeric subjects at a provider that are greater than `above`, in ascending order. Erased members have none.
pub fn list_numeric_subjects(r: &Reader<'_>, provider: &str, above: u64, most: usize) -> Result<Vec<u64>> {
    store::list_numeric_subjects(r, provider, above, most)
}

/// Returns the id of a member's account at WordPress.
pub fn wordpress_id(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    store::find_subject_at(r, id, WORDPRESS)
}

/// Returns a member's name at SFTPGo, if it has one. The username is not considered.
pub fn sftpgo_username(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    store::find_subject_at(r, id, SFTPGO)
}

/// Returns all members with a name at SFTPGo, sorted by that name.
pub fn list_sftpgo_members(r: &Reader<'_>) -> Result<Vec<(String, Member)>> {
    store::list_by_provider(r, SFTPGO)
}

/// Returns the account id that is stored with an identity.
pub fn find_account_id(r: &Reader<'_>, provider: &str, subject: &str) -> Result<Option<String>> {
    store::find_account_id(r, provider, subject)
}

/// Creates a member for an identity at a provider. Names from the provider are used if they are valid and not taken.
pub fn create_with_identity(
    w: &Writer<'_>,
    capacity: Capacity,
    id: MemberId,
    name: &ExternalName,
    new: &NewMember,
) -> Result<()> {
    let mut free = new.clone();
    free.username = free_name(w, new.username.as_deref(), is_username)?;
    free.email = free_name(w, new.email.as_deref(), is_email)?;
    free.display_name = new.display_name.clone().filter(|text| is_display_name(text));
    store::insert_member(w, capacity, id, &free)?;
    store::insert_identity(w, id, &name.provider, &name.subject, name.account_id.as_deref())
}

/// Fills missing names of a member with names that are valid and not taken; returns the filled fields.
pub fn fill_gaps(t: &Transaction<'_>, member: &Member, offered: &NewMember) -> Result<Vec<&'static str>> {
    let mut filled = member.clone();
    if filled.username.is_none() {
        filled.username = free_name(t, offered.username.as_deref(), is_username)?;
        filled.username_by_site = false;
    }
    if filled.email.is_none() {
        filled.email = free_name(t, offered.email.as_deref(), is_email)?;
    }
    filled.display_name =
        filled.display_name.or_else(|| offered.display_name.clone().filter(|name| is_display_name(name)));
    if filled != *member {
        writes::update_names(t, &filled)?;
    }
    let gaps = [
        ("username", filled.username != member.username),
        ("email", filled.email != member.email),
        ("display_name", filled.display_name != member.display_name),
    ];
    Ok(gaps.into_iter().filter(|(_, is_filled)| *is_filled).map(|(name, _)| name).collect())
}

/// Returns a username or e-mail if it is valid and no member has it. It never identifies an existing member.
fn free_name(r: &Reader<'_>, offered: Option<&str>, is_valid: fn(&str) -> bool) -> Result<Option<String>> {
    let Some(text) = offered.map(str::trim).filter(|text| is_valid(text)) else { return Ok(None) };
    Ok(find_login(r, text)?.is_none().then(|| text.to_owned()))
}

/// Creates an event about a member. It contains no names: they are read when the event is delivered, so that nothing of
/// an erased member remains. If the member belongs to one organization only, the event belongs to it.
pub fn member_event(t: &Transaction<'_>, kind: EventKind, id: MemberId) -> Event {
    Event::new(kind, serde_json::json!({})).about(id).within(t.snapshot().only_tenant(id).map(|tenant| tenant.id))
}

/// Creates the events for the differences between a member before and after a change.
pub fn changed(t: &Transaction<'_>, former: &Member, member: &Member) -> Vec<Event> {
    let names = |member: &Member| (member.username.clone(), member.email.clone(), member.display_name.clone());
    let switched = if member.is_active() { EventKind::MemberActivated } else { EventKind::MemberSuspended };
    let differing =
        [(EventKind::MemberUpdated, names(member) != names(former)), (switched, member.status != former.status)];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(kind, _)| member_event(t, kind, member.id)).collect()
}

/// Creates the event for a member that will be erased. It contains the name at SFTPGo, the only way to find what must
/// be cleaned up there.
pub fn erased(t: &Transaction<'_>, id: MemberId) -> Result<Event> {
    let mut event = member_event(t, EventKind::MemberDeleted, id);
    if let Some(name) = store::find_subject_at(t, id, SFTPGO)? {
        event.data = serde_json::json!({"sftpgo_username": name});
    }
    Ok(event)
}

/// Adds a member to an organization. Returns the change, or `None` if the member belonged to it already.
pub fn join(t: &Transaction<'_>, organization: OrganizationId, id: MemberId) -> Result<Option<Change>> {
    if store::find_membership(t, organization, id)?.is_some() {
        return Ok(None);
    }
    writes::insert_membership(t, organization, id)?;
    authz::store::membership(t, organization, id).map(Some)
}

pub fn get(r: &Reader<'_>, id: MemberId) -> Result<Member> {
    store::get_member(r, id)
}

pub fn find(r: &Reader<'_>, id: MemberId) -> Result<Option<Member>> {
    store::find_member(r, id)
}

/// Returns the member with this Authentik subject, if any.
pub fn find_by_sub(r: &Reader<'_>, subject: &str) -> Result<Option<Member>> {
    store::find_by_identity(r, AUTHENTIK, subject)
}

/// The member of a login, with its password hash.
#[derive(Debug)]
pub struct Login {
    pub member: Member,
    pub password_hash: Option<String>,
}

/// Finds the member of a login, which is an e-mail or a username.
pub fn find_login(r: &Reader<'_>, login: &str) -> Result<Option<Login>> {
    store::find_login(r, login)
}

/// Returns the normalized form for comparing e-mails and usernames.
pub fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Proof that the limits allow one more member; contains the organization that creates the member, if any. Required to
/// insert a member.
#[derive(Debug)]
pub struct Capacity(Option<OrganizationId>);

/// Fails with `SiteFull` if the site has the maximum number of members. Erased members do not count.
pub fn require_capacity(snapshot: &Snapshot, members_max: u64) -> Result<Capacity> {
    if (snapshot.members() as u64) < members_max { Ok(Capacity(None)) } else { Err(ErrorCode::SiteFull.into()) }
}

/// Activates or suspends a member. Suspending ends all its sessions, and fails for the last owner of an organization
/// and for the last administrator.
pub fn set_active(t: &Transaction<'_>, id: MemberId, is_active: bool) -> Result<Vec<Change>> {
    if is_active {
        writes::set_status(t, id, MemberStatus::Active)?;
        return Ok(vec![authz::store::member_state(t, id)?]);
    }
    permissions::require_not_last_anywhere(t, id)?;
    writes::set_status(t, id, MemberStatus::Suspended)?;
    Ok(vec![authz::store::member_state(t, id)?])
}

/// Returns who chose the member's password, if it was not the member.
pub fn password_maker(r: &Reader<'_>, id: MemberId) -> Result<Option<Grantor>> {
    store::find_password_maker(r, id)
}

/// Fails if another caller chose the password and may no longer do so.
pub fn require_password_kept(t: &Transaction<'_>, id: MemberId) -> Result<()> {
    let Some(maker) = store::find_password_maker(t, id)? else { return Ok(()) };
    let rights = &authz::store::rights_of(t, id)?;
    deferred_grant::require_grantor_authorized(
        t.snapshot(),
        &maker,
        DeferredGrant::Password { member: id, rights },
        t.now(),
    )
}

/// Returns the hash of a member's password, if any.
pub fn password_hash(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    store::find_password(r, id)
}

/// Replaces the hash of the same password. Sessions continue.
pub fn replace_hash(w: &Writer<'_>, id: MemberId, former: &str, hash: &str) -> Result<()> {
    store::replace_hash(w, id, former, hash)
}

/// Creates a pending member, whose e-mail is not confirmed and who cannot do anything. An earlier pending registration
/// with the same e-mail is replaced: a stranger who registered first must not choose the password of the owner of the
/// mailbox.
pub fn register(t: &Transaction<'_>, new: &NewMember, members_max: u64) -> Result<(MemberId, Change)> {
    let former = match new.email.as_deref() {
        Some(email) => store::find_login(t, email)?.map(|login| login.member),
        None => None,
    };
    let id = match former {
        Some(mut member) if member.is_pending() => {
            member.username.clone_from(&new.username);
            member.username_by_site = false;
            member.display_name.clone_from(&new.display_name);
            writes::update_names(t, &member)?;
            writes::replace_pending(t, member.id, new.password_hash.as_deref().unwrap_or_default())?;
            member.id
        }
        Some(_) => return Err(ErrorCode::EmailExists.into()),
        None => {
            let id = create(t, require_capacity(t.snapshot(), members_max)?, new)?;
            writes::set_status(t, id, MemberStatus::Pending)?;
            id
        }
    };
    Ok((id, authz::store::member_state(t, id)?))
}

/// Activates a pending member who confirmed the e-mail. If it is not certain that the member chose the password, the
/// password is deleted.
pub fn confirm(t: &Transaction<'_>, id: MemberId, keeps_password: bool) -> Result<Change> {
    if !keeps_password {
        store::drop_password(t, id)?;
    }
    writes::set_status(t, id, MemberStatus::Active)?;
    authz::store::member_state(t, id)
}

/// Deletes registrations that were not completed within a day.
pub async fn purge_expired_registrations(app: &App) -> Result<()> {
    const REGISTRATION_TTL_MS: i64 = 86_400_000;
    /// The next run deletes the rest.
    const CONCURRENT_MAX: usize = 10_000;
    let before = Timestamp::now().plus_ms(-REGISTRATION_TTL_MS);
    // Selected with a reader, not in the writer thread, because there can be many pending members.
    let lapsed = app.read(move |r| store::list_lapsed(r, before, CONCURRENT_MAX)).await?;
    for piece in maintenance::batches(lapsed) {
        let forget = move |t: &Transaction<'_>, _: &Identity| {
            let gone = writes::delete_lapsed(t, before, &piece)?;
            if gone.is_empty() {
                return Ok(Changed::unchanged(()));
            }
            let entry = Entry::new("members", "pending").after(serde_json::json!({"count": gone.len()}));
            Ok(Changed::new((), entry).with_policy_changes(gone.into_iter().map(Change::MemberDeleted)))
        };
        app.change(&Identity::command_line(), "member.lapse", forget).await?;
    }
    Ok(())
}

/// Fails if the caller sets its own password with an administrative operation. These do not require the current
/// password, so an access token alone would be enough to take over the account.
pub fn require_not_self(caller: &Identity, id: MemberId) -> Result<()> {
    let message = "change your own password at /me/password";
    if caller.member() == Some(id) { Err(Error::new(ErrorCode::Forbidden).with_message(message)) } else { Ok(()) }
}

/// Fails unless the caller may change this member's e-mail, credentials and other data (`kernel::authz::delegation`).
pub fn require_may_change(t: &Transaction<'_>, caller: &Identity, reach: Reach, id: MemberId) -> Result<()> {
    require_may_touch(t, caller, reach, id, MemberPart::Account)
}

/// Fails unless the caller may change the member in this way.
pub fn require_may_touch(
    t: &Transaction<'_>,
    caller: &Identity,
    reach: Reach,
    id: MemberId,
    touch: MemberPart,
) -> Result<()> {
    let rights = authz::store::rights_of(t, id)?;
    delegation::require_may_change(t.snapshot(), caller, (reach, id), (touch, &rights))
}

/// Runs a change with a limit for guessing names. A refused name reveals that a member of another organization has it,
/// so a caller of one organization, and the organization as a whole, get a limited number of these errors
/// (`auth.slow_account_failures`). Names of members of the same organization reveal nothing and do not count.
pub async fn bounded_guesses<T>(
    app: &App,
    guesser: Option<Guesser>,
    names: [Option<String>; 2],
    change: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(Guesser { attempt, reach }) = guesser else { return change.await };
    let (throttle, organization) = (&app.guard.mail_throttle, reach.organization().map(|id| format!("names in {id}")));
    throttle.check(attempt, false, Timestamp::now())?;
    organization.as_ref().map_or(Ok(()), |of| throttle.check_account(of, Timestamp::now()))?;
    let done = change.await;
    let is_taken = |refused: &Error| matches!(refused.code, ErrorCode::UsernameExists | ErrorCode::EmailExists);
    if done.as_ref().is_err_and(is_taken) {
        let snapshot = app.snapshot();
        let is_elsewhere = move |r: &Reader<'_>| -> Result<bool> {
            names.iter().flatten().try_fold(false, |found, name| -> Result<bool> {
                let holder = find_login(r, name)?.map(|login| login.member.id);
                Ok(found || holder.is_some_and(|id| !is_visible(&snapshot, reach, id)))
            })
        };
        if app.read(is_elsewhere).await? {
            throttle.record_failure(attempt, Timestamp::now());
            organization.iter().for_each(|of| throttle.record_account_failure(of, Timestamp::now()));
        }
    }
    done
}

/// A caller who could guess names of members in other organizations.
#[derive(Debug, Clone, Copy)]
pub struct Guesser {
    attempt: Attempt,
    reach: Reach,
}

impl Guesser {
    /// Returns the guesser of a caller with this reach. `None` for the reach of the site, which includes all members,
    /// and for programs.
    pub fn from_caller(caller: &Identity, reach: Reach) -> Option<Self> {
        let is_counted = matches!(caller.principal, Principal::Member(_)) && reach != Reach::Site;
        is_counted.then(|| Self::by(&Grantor::from_caller(caller), caller.context.address, reach))
    }

    /// Returns the guesser for a deferred grant: the attempts count for its maker.
    pub fn by(maker: &Grantor, address: Option<IpAddr>, reach: Reach) -> Self {
        Self { attempt: Attempt::new(&format!("names {}", maker.to_text()), address), reach }
    }
}

/// Checks the login and the password of a first administrator. Fails with all faults at once.
pub fn validate_first_administrator(login: &str, password: &str) -> Result<()> {
    let mut faults: Vec<Field> =
        password::faults(password).into_iter().map(|fault| Field::body("password", fault)).collect();
    if !is_login(login.trim()) {
        faults.insert(0, Field::body("login", "must be an e-mail, or a username of letters, digits, and . _ -"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::fields(faults)) }
}

/// The rules of `Username`, `Email` and `DisplayName` in the OpenAPI document, for texts that are not in a request
/// body.
fn is_login(login: &str) -> bool {
    if login.contains('@') { is_email(login) } else { is_username(login) }
}

pub fn is_username(text: &str) -> bool {
    const USERNAME_BYTES_MAX: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= USERNAME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_plain)
}

pub fn is_email(text: &str) -> bool {
    const EMAIL_BYTES_MAX: usize = 254;
    const LOCAL_CHARACTERS_MAX: usize = 64;
    let is_part =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c <= ' ' || c == '\u{7f}' || "@<>\"".contains(c));
    text.len() <= EMAIL_BYTES_MAX
        && text.split_once('@').is_some_and(|(local, domain)| {
            local.chars().count() <= LOCAL_CHARACTERS_MAX && is_part(local) && is_part(domain)
        })
}

pub fn is_display_name(text: &str) -> bool {
    const DISPLAY_NAME_CHARACTERS_MAX: usize = 200;
    (1..=DISPLAY_NAME_CHARACTERS_MAX).contains(&text.chars().count()) && !text.chars().any(|c| c < ' ' || c == '\u{7f}')
}

/// Creates the first administrator of the site, from the command line or with the set-up token. Fails with `SetupDone`
/// if there is an active one.
pub async fn create_first_administrator(
    app: &App,
    login: &str,
    password: String,
    setup_token: Option<String>,
) -> Result<MemberId> {
    validate_first_administrator(login, &password)?;
    let login = login.trim().to_owned();
    let hash = password::hash(app, password).await?;
    let create_admin = move |t: &Transaction<'_>, _: &Identity| {
        if let Some(token) = &setup_token {
            consume_setup_token(t, token)?;
        }
        let platform = t.snapshot().platform().ok_or(ErrorCode::OrganizationNotFound)?;
        if has_administrator(t, platform.id)? {
            return Err(ErrorCode::SetupDone.into());
        }
        let (email, username) = if login.contains('@') { (Some(login), None) } else { (None, Some(login)) };
        let new =
            NewMember { email, username, password_hash: Some(hash), username_by_site: true, ..NewMember::default() };
        // The first administrator is created even if the site is full.
        let id = create(t, Capacity(None), &new)?;
        writes::insert_membership(t, platform.id, id)?;
        permissions::assign_system_role(t, platform.id, id, PLATFORM_ADMIN)?;
        let entry = Entry::new("member", id).within(platform.id).after(serde_json::json!({"role": PLATFORM_ADMIN}));
        let changes = [authz::store::member_state(t, id)?, authz::store::membership(t, platform.id, id)?];
        let created = member_event(t, EventKind::MemberCreated, id).within(platform.id);
        Ok(Changed::new(id, entry).with_policy_changes(changes).with_events([created]))
    };
    app.change(&Identity::command_line(), "member.create_first_administrator", create_admin)
        .await
        .map(|made| made.answer)
}

fn has_administrator(r: &Reader<'_>, platform: OrganizationId) -> Result<bool> {
    permissions::has_active_holder(r, platform, PLATFORM_ADMIN)
}

/// Whether there is an active platform administrator.
pub async fn is_set_up(app: &App) -> Result<bool> {
    let Some(platform) = app.snapshot().platform().map(|platform| platform.id) else { return Ok(false) };
    app.read(move |r| has_administrator(r, platform)).await
}
