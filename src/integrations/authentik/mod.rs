//! Keeps a member and its Authentik account in sync.
//!
//! **Invariant.** Authentik is called outside of any transaction, and its answer is stored in one: if it fails, nothing
//! here has changed. An account that names another member is never taken over, nor is an administrator's.

pub mod api;
pub mod client;

use serde_json::json;

use crate::features::members::{
    self, AUTHENTIK, Capacity, Member, NewMember, changed, member_event, require_may_change, require_visible,
    set_active,
};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach};
use crate::kernel::config::Config;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::MemberId;
use crate::kernel::outbound::connection::{Connection, ConnectionFailure, ConnectionKind};
use crate::kernel::outbox::EventKind;
use client::{Account, DesiredUser};

/// The connection, as the settings describe it.
pub fn connection(config: &Config) -> Connection {
    let connection = Connection::new(client::NAME, ConnectionKind::Authentik, &*config.authentik_url);
    let is_configured = connection.is_configured && config.authentik_token.is_some();
    Connection { is_configured, ..connection }
        .setting("authentik.url", !config.authentik_url.is_empty())
        .setting("authentik.token_file", config.authentik_token.is_some())
}

/// Tests the connection with one request that changes nothing.
pub async fn test(app: &App) -> std::result::Result<(), ConnectionFailure> {
    client::test(app).await
}

/// The desired member and account, as a service requests them.
#[derive(Debug, Clone, Default)]
pub struct EnsureRequest {
    /// The subject at Authentik; Authentik's `uid` of the account if absent.
    pub sub: Option<String>,
    pub uid: Option<MemberId>,
    pub username: Option<String>,
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub is_active: Option<bool>,
}

/// The linked member and account.
#[derive(Debug, Clone)]
pub struct Ensured {
    pub uid: MemberId,
    pub sub: String,
    pub account_id: String,
    /// Whether the account was created.
    pub is_new: bool,
    pub epoch: u64,
}

/// Creates or updates the Authentik account and the member.
pub async fn ensure(app: &App, caller: &Identity, mut wanted: EnsureRequest) -> Result<Ensured> {
    // Another client can take the username between the look-up and the creation.
    const TRIES: usize = 2;
    for _ in 0..TRIES {
        let mut member = plan(app, caller, &wanted).await?;
        let found = look_up(app, member.as_ref(), &wanted).await?;
        if let (Some(account), None) = (&found, &member) {
            // The request has only names: the member is the one that this account belongs to.
            wanted.uid = owner(app, account).await?;
            member = plan(app, caller, &wanted).await?;
        }
        require_names_free(app, member.as_ref(), &wanted).await?;
        let uid = member.as_ref().map_or_else(MemberId::new, |member| member.id);
        let account = match &found {
            Some(account) => {
                require_free(app, account, member.as_ref()).await?;
                let desired = desired_user_of(uid, account, member.as_ref(), &wanted);
                let changed = client::update(app, account, &desired).await?;
                Some(changed.ok_or_else(|| taken("another account at Authentik has this username"))?)
            }
            None => client::create(app, &new_account(uid, member.as_ref(), &wanted)?).await?,
        };
        let Some(account) = account else { continue };
        let known = member.and_then(|member| member.authentik_sub);
        let sub = wanted.sub.clone().or(known).unwrap_or(account.uid);
        let account_id = account.pk.to_string();
        let (link, wanted) = ((sub.clone(), account_id.clone()), wanted.clone());
        let members_max = app.config.members_max;
        let write = move |t: &Transaction<'_>, caller: &Identity| {
            store(t, caller, (uid, &link.0, &link.1), (&wanted, members_max))
        };
        let epoch = app.change(caller, "member.ensure_authentik", write).await?.epoch;
        return Ok(Ensured { uid, sub, account_id, is_new: found.is_none(), epoch });
    }
    Err(taken("an account at Authentik has this username, but cannot be found by it"))
}

fn taken(message: &'static str) -> Error {
    Error::new(ErrorCode::UsernameExists).with_message(message)
}

/// Finds the member, if it exists. Every check that can fail runs before Authentik is called.
async fn plan(app: &App, caller: &Identity, wanted: &EnsureRequest) -> Result<Option<Member>> {
    let (wanted, members_max) = (wanted.clone(), app.config.members_max);
    let check = move |t: &Transaction<'_>, caller: &Identity| {
        let reach = require(t, caller)?;
        let member = find(t, &wanted)?;
        match &member {
            Some(member) => require_changeable(t, caller, reach, member, &wanted)?,
            None => members::require_capacity(t.snapshot(), members_max).map(drop)?,
        }
        Ok(Changed::unchanged(member))
    };
    let member = app.change(caller, "member.ensure_authentik", check).await?.answer;
    Ok(member)
}

fn require(t: &Transaction<'_>, caller: &Identity) -> Result<Reach> {
    authz::require(t.snapshot(), caller, Permission::MEMBER_UPDATE)?;
    authz::require(t.snapshot(), caller, Permission::MEMBER_CREATE)
}

fn find(t: &Transaction<'_>, wanted: &EnsureRequest) -> Result<Option<Member>> {
    let of_sub = match &wanted.sub {
        Some(sub) => members::find_by_identity(t, AUTHENTIK, sub)?,
        None => None,
    };
    let Some(uid) = wanted.uid else { return Ok(of_sub) };
    let member = members::find_member(t, uid)?.filter(|member| !member.is_erased());
    let member = member.ok_or(ErrorCode::MemberNotFound)?;
    let is_other = |sub: &String| wanted.sub.as_ref().is_some_and(|wanted| wanted != sub);
    if of_sub.is_some_and(|other| other.id != uid) || member.authentik_sub.as_ref().is_some_and(is_other) {
        return Err(ErrorCode::MemberExists.into());
    }
    Ok(Some(member))
}

fn require_changeable(
    t: &Transaction<'_>,
    caller: &Identity,
    reach: Reach,
    member: &Member,
    wanted: &EnsureRequest,
) -> Result<()> {
    require_visible(t.snapshot(), reach, member.id)?;
    let is_kept = |now: &Option<String>, wanted: &Option<String>| wanted.is_none() || now == wanted;
    let is_status_kept = wanted.is_active.is_none_or(|is_active| is_active == member.is_active());
    // A caller who links a member to an account can sign in as that member.
    let is_linked = member.authentik_sub.is_some();
    if is_linked
        && is_status_kept
        && is_kept(&member.username, &wanted.username)
        && is_kept(&member.email, &wanted.email)
        && is_kept(&member.display_name, &wanted.display_name)
    {
        return Ok(());
    }
    require_may_change(t, caller, reach, member.id)
}

async fn look_up(app: &App, member: Option<&Member>, wanted: &EnsureRequest) -> Result<Option<Account>> {
    if let Some(account_id) = member.and_then(|member| member.authentik_user_id.as_deref())
        && let Some(account) = client::find(app, account_id).await?
        && is_linked(&account, member)
    {
        return Ok(Some(account));
    }
    // The present name first: the desired one can be new.
    let names = [member.and_then(|member| member.username.clone()), wanted.username.clone()];
    for name in names.into_iter().flatten() {
        if let Some(account) = client::find_by_username(app, &name).await? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// Fails if another member has this username or e-mail, before Authentik is called.
async fn require_names_free(app: &App, member: Option<&Member>, wanted: &EnsureRequest) -> Result<()> {
    let own = member.map(|member| member.id);
    let names = [(wanted.username.clone(), ErrorCode::UsernameExists), (wanted.email.clone(), ErrorCode::EmailExists)];
    let check = move |r: &Reader<'_>| {
        names.iter().try_for_each(|(name, cause)| {
            let Some(name) = name else { return Ok(()) };
            let is_others = members::find_login(r, name)?.is_some_and(|found| Some(found.member.id) != own);
            if is_others { Err((*cause).into()) } else { Ok(()) }
        })
    };
    app.read(check).await
}

/// Returns the member linked to an account, if any.
async fn owner(app: &App, account: &Account) -> Result<Option<MemberId>> {
    let sub = account.uid.clone();
    Ok(app.read(move |r| members::find_by_identity(r, AUTHENTIK, &sub)).await?.map(|member| member.id))
}

/// Fails if this member cannot be linked to the account.
async fn require_free(app: &App, account: &Account, member: Option<&Member>) -> Result<()> {
    if !account.is_personal() {
        let message = "this account at Authentik is an administrator's or a program's: it is managed there";
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    let named = account.roster_uid().map(MemberId::of).filter(|id| !id.is_nil());
    let named = match named {
        Some(id) => app.read(move |r| members::find_member(r, id)).await?,
        None => None,
    };
    let named = named.filter(|named| !named.is_erased()).map(|named| named.id);
    let linked = owner(app, account).await?;
    let is_others = [named, linked].into_iter().flatten().any(|id| member.is_none_or(|member| member.id != id));
    if is_others {
        return Err(
            Error::new(ErrorCode::MemberExists).with_message("this account at Authentik belongs to another member")
        );
    }
    Ok(())
}

/// Whether this account is linked to this member. The number alone does not prove that, because a reinstalled Authentik
/// assigns the numbers again.
fn is_linked(account: &Account, member: Option<&Member>) -> bool {
    member.is_some_and(|member| {
        let is_numbered = member.authentik_user_id.as_ref() == Some(&account.pk.to_string());
        account.roster_uid() == Some(&*member.id.to_string())
            || member.authentik_sub.as_ref() == Some(&account.uid)
            || (is_numbered && member.username.as_ref() == Some(&account.username))
    })
}

fn new_account(uid: MemberId, member: Option<&Member>, wanted: &EnsureRequest) -> Result<DesiredUser> {
    let known = |field: fn(&Member) -> &Option<String>| member.and_then(|member| field(member).clone());
    let username = wanted.username.clone().or_else(|| known(|member| &member.username));
    if username.is_none() {
        return Err(Error::field("username", "is required to create an account at Authentik"));
    }
    Ok(DesiredUser {
        username,
        name: wanted.display_name.clone().or_else(|| known(|member| &member.display_name)),
        email: wanted.email.clone().or_else(|| known(|member| &member.email)),
        is_active: Some(wanted.is_active.unwrap_or_else(|| member.is_none_or(Member::is_active))),
        roster_uid: uid.to_string(),
    })
}

/// Returns the desired values for an existing account. An account that was not created here keeps its values, and only
/// empty ones are filled.
fn desired_user_of(uid: MemberId, account: &Account, member: Option<&Member>, wanted: &EnsureRequest) -> DesiredUser {
    let is_ours = is_linked(account, member);
    let name = |wanted: &Option<String>, known: Option<&String>, now: &str| {
        let wanted = wanted.clone().filter(|_| is_ours || now.is_empty());
        wanted.or_else(|| known.cloned().filter(|_| now.is_empty()))
    };
    DesiredUser {
        username: wanted.username.clone().filter(|_| is_ours),
        name: name(&wanted.display_name, member.and_then(|member| member.display_name.as_ref()), &account.name),
        email: name(&wanted.email, member.and_then(|member| member.email.as_ref()), &account.email),
        // A member suspended here is deactivated there; an account deactivated only there stays so.
        is_active: wanted.is_active.or_else(|| member.filter(|member| !member.is_active()).map(|_| false)),
        roster_uid: uid.to_string(),
    }
}

/// Stores the member and its link to the account.
fn store(
    t: &Transaction<'_>,
    caller: &Identity,
    (uid, sub, account_id): (MemberId, &str, &str),
    (wanted, members_max): (&EnsureRequest, u64),
) -> Result<Changed<()>> {
    let reach = require(t, caller)?;
    let Some(previous) = members::find_member(t, uid)? else {
        let capacity = members::require_capacity(t.snapshot(), members_max)?;
        return store_new(t, (reach, capacity), (uid, sub, account_id), wanted);
    };
    if previous.is_erased() {
        // The member was erased while Authentik was called: it stays erased.
        return Err(ErrorCode::MemberDeleted.into());
    }
    require_changeable(t, caller, reach, &previous, wanted)?;
    let mut member = previous.clone();
    if wanted.username.is_some() {
        member.name(reach, wanted.username.clone());
    }
    member.email = wanted.email.clone().or(member.email);
    member.display_name = wanted.display_name.clone().or(member.display_name);
    let is_active = wanted.is_active.filter(|is_active| *is_active != previous.is_active());
    let is_linked = previous.authentik_sub.as_deref() == Some(sub);
    let is_same_account = previous.authentik_user_id.as_deref() == Some(account_id);
    if member == previous && is_active.is_none() && is_linked && is_same_account {
        return Ok(Changed::unchanged(()));
    }
    if member != previous {
        members::update_names(t, &member)?;
    }
    if !is_linked {
        members::insert_identity(t, uid, AUTHENTIK, sub, Some(account_id))?;
    } else if !is_same_account {
        members::set_account_id(t, uid, AUTHENTIK, account_id)?;
    }
    let changes = match is_active {
        Some(is_active) => set_active(t, uid, is_active)?,
        None => Vec::new(),
    };
    let after =
        json!({"linked": !is_linked, "account": account_id, "names": member != previous, "is_active": is_active});
    let events = changed(t, &previous, &members::get_member(t, uid)?);
    Ok(Changed::new((), Entry::new("member", uid).after(after)).with_policy_changes(changes).with_events(events))
}

fn store_new(
    t: &Transaction<'_>,
    (reach, capacity): (Reach, Capacity),
    (uid, sub, account_id): (MemberId, &str, &str),
    wanted: &EnsureRequest,
) -> Result<Changed<()>> {
    let new = NewMember {
        username: wanted.username.clone(),
        username_by_site: reach == Reach::Site,
        email: wanted.email.clone(),
        display_name: wanted.display_name.clone(),
        is_suspended: wanted.is_active == Some(false),
        ..NewMember::default()
    };
    members::insert_member(t, capacity, uid, &new)?;
    members::insert_identity(t, uid, AUTHENTIK, sub, Some(account_id))?;
    let mut changes = vec![authz::store::member_state(t, uid)?];
    let mut entry = Entry::new("member", uid).after(json!({"created": true, "account": account_id}));
    if let Some(organization) = reach.organization() {
        members::insert_membership(t, organization, uid)?;
        changes.push(authz::store::membership(t, organization, uid)?);
        entry = entry.within(organization);
    }
    let created = member_event(t, EventKind::MemberCreated, uid).within(reach.organization());
    Ok(Changed::new((), entry).with_policy_changes(changes).with_events([created]))
}
