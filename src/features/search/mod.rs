//! Search over everything that a caller may list: a few things of each kind.

pub mod api;

use crate::features::{api_clients, members, organizations, permissions, plugins, videos, webhooks};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::{PageRequest, Reader};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId};

/// The most things of one kind in an answer.
pub const OF_KIND_MAX: usize = 8;

/// A kind of thing, in the order of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Member,
    Organization,
    Role,
    Permission,
    Plugin,
    Video,
    Webhook,
    ApiClient,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Member,
        Self::Organization,
        Self::Role,
        Self::Permission,
        Self::Plugin,
        Self::Video,
        Self::Webhook,
        Self::ApiClient,
    ];

    /// The permissions of the lists of these things; one is enough.
    fn listed_with(self) -> &'static [Permission] {
        match self {
            Self::Member => &[Permission::USER_LIST, Permission::MEMBER_LIST],
            Self::Organization => &[Permission::ORGANIZATION_LIST],
            Self::Role => &[Permission::ROLE_LIST],
            // The catalog is no secret, but its names say something only to those who see roles.
            Self::Permission => &[Permission::ROLE_LIST_PERMISSIONS],
            Self::Plugin => &[Permission::PLUGIN_LIST],
            Self::Video => &[Permission::VIDEO_LIST],
            Self::Webhook => &[Permission::WEBHOOK_LIST],
            Self::ApiClient => &[Permission::CLIENT_LIST],
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    /// The id by which operations address it.
    pub id: String,
    pub name: String,
    /// What tells it from others with this name: an e-mail, a key, an address.
    pub detail: Option<String>,
    /// The organization in which it can be seen; `None` for a thing of the site.
    pub organization: Option<OrganizationId>,
}

/// What the caller may search: the kinds, each with its reach, and the organization of things that only one has.
#[derive(Debug, Clone)]
pub struct Scope {
    kinds: Vec<(Kind, Reach)>,
    tenant: Option<OrganizationId>,
}

impl Scope {
    /// Fails for a caller whose organization is not known, or not visible to it.
    pub fn of(snapshot: &Snapshot, caller: &Identity) -> Result<Self> {
        let mut kinds = Vec::new();
        for kind in Kind::ALL {
            for permission in kind.listed_with() {
                match authz::require(snapshot, caller, *permission) {
                    Ok(reach) => kinds.push((kind, reach)),
                    Err(error) if error.is_denial() => continue,
                    Err(error) => return Err(error),
                }
                break;
            }
        }
        let is_program = matches!(caller.principal, Principal::CommandLine) && caller.named_tenant.is_none();
        let tenant = if kinds.is_empty() || is_program { None } else { Some(caller.tenant(snapshot)?) };
        Ok(Self { kinds, tenant })
    }

    /// Finds things whose names contain the text. `pattern` is the text for `like` in SQL.
    pub fn find(&self, r: &Reader<'_>, snapshot: &Snapshot, text: &str, pattern: String) -> Result<Vec<Found>> {
        let sought = Sought { r, snapshot, text, lower: text.to_lowercase(), pattern, tenant: self.tenant };
        let mut all = Vec::new();
        for (kind, reach) in &self.kinds {
            let mut found = match kind {
                Kind::Member => sought.members(*reach)?,
                Kind::Organization => sought.organizations(*reach)?,
                Kind::Role => sought.roles()?,
                Kind::Permission => sought.permissions(),
                Kind::Plugin => sought.plugins()?,
                Kind::Video => sought.videos(*reach)?,
                Kind::Webhook => sought.webhooks(*reach)?,
                Kind::ApiClient => sought.api_clients()?,
            };
            found.truncate(OF_KIND_MAX);
            all.append(&mut found);
        }
        Ok(all)
    }
}

/// One search.
struct Sought<'s> {
    r: &'s Reader<'s>,
    snapshot: &'s Snapshot,
    text: &'s str,
    lower: String,
    /// For lists that filter in SQL.
    pattern: String,
    tenant: Option<OrganizationId>,
}

impl Sought<'_> {
    /// The first part of a list. Not exact: if few of many rows match, a bounded number of them is looked at.
    fn window() -> Result<PageRequest> {
        PageRequest::new(Some(OF_KIND_MAX as u64), None, None)
    }

    fn fits(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.lower)
    }

    /// Somebody whose login is the text comes first, however many others contain it.
    fn members(&self, reach: Reach) -> Result<Vec<Found>> {
        let exact = members::find_login(self.r, self.text)?.map(|login| login.member);
        let exact = exact.filter(|member| !member.is_erased() && members::is_visible(self.snapshot, reach, member.id));
        let filter = members::Filter {
            organization: reach.organization(),
            keyword: Some(self.pattern.clone()),
            ..members::Filter::default()
        };
        let listed = members::list_members(self.r, &filter, &Self::window()?)?.items;
        let known = exact.as_ref().map(|member| member.id);
        let others = listed.into_iter().filter(|member| Some(member.id) != known);
        Ok(exact.into_iter().chain(others).map(|member| self.member(reach, member)).collect())
    }

    fn member(&self, reach: Reach, member: members::Member) -> Found {
        let organization = reach.organization().or_else(|| self.organization_of(member.id));
        let mut names = [member.display_name, member.username, member.email].into_iter().flatten();
        let id = member.id.to_string();
        let name = names.find(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
        Found { kind: Kind::Member, id, name, detail: names.next_back(), organization }
    }

    /// An organization of the member, `platform` only if there is no other.
    fn organization_of(&self, member: MemberId) -> Option<OrganizationId> {
        let mut all = self.snapshot.tenants_of(member).map(|tenant| tenant.id);
        let first = all.next()?;
        Some(if self.snapshot.is_platform(first) { all.next().unwrap_or(first) } else { first })
    }

    fn organizations(&self, reach: Reach) -> Result<Vec<Found>> {
        let filter =
            organizations::Filter { only: reach.organization(), is_active: None, keyword: Some(self.pattern.clone()) };
        let listed = organizations::list_organizations(self.r, &filter, &Self::window()?)?.items;
        let found = listed.into_iter().map(|one| Found {
            kind: Kind::Organization,
            id: one.id.to_string(),
            name: one.name,
            detail: Some(one.org_code),
            organization: Some(one.id),
        });
        Ok(found.collect())
    }

    fn roles(&self) -> Result<Vec<Found>> {
        let Some(tenant) = self.tenant else { return Ok(Vec::new()) };
        let all = permissions::list_roles(self.r, tenant)?;
        let fitting = all.into_iter().filter(|role| self.fits(&role.display_name) || self.fits(&role.key));
        let found = fitting.map(|role| Found {
            kind: Kind::Role,
            id: role.id.to_string(),
            name: role.display_name,
            detail: Some(role.key),
            organization: Some(tenant),
        });
        Ok(found.collect())
    }

    fn permissions(&self) -> Vec<Found> {
        let catalog = &self.snapshot.catalog;
        let is_of_tenant = |slot| self.tenant.is_none_or(|tenant| catalog.is_for(slot, tenant));
        let fitting = catalog.iter().filter(|node| !node.orphaned && is_of_tenant(node.slot) && self.fits(&node.name));
        let found = fitting.map(|node| Found {
            kind: Kind::Permission,
            id: node.name.to_string(),
            name: node.name.to_string(),
            detail: node.http_path.as_ref().map(ToString::to_string),
            organization: self.tenant,
        });
        found.take(OF_KIND_MAX).collect()
    }

    fn plugins(&self) -> Result<Vec<Found>> {
        let Some(tenant) = self.tenant else { return Ok(Vec::new()) };
        let fitting = plugins::list_names(self.r, tenant)?.into_iter().filter(|name| self.fits(name));
        let found = fitting.map(|name| Found {
            kind: Kind::Plugin,
            id: name.clone(),
            name,
            detail: None,
            organization: Some(tenant),
        });
        Ok(found.collect())
    }

    fn videos(&self, reach: Reach) -> Result<Vec<Found>> {
        let seen_by = reach.organization();
        let filter =
            videos::Filter { organization: seen_by, keyword: Some(self.pattern.clone()), ..videos::Filter::default() };
        let listed = videos::list_videos(self.r, &filter, &Self::window()?)?.items;
        let found = listed.into_iter().map(|video| {
            let name = members::visible_path(self.r, seen_by, video.member, video.path.as_str())?;
            let organization = seen_by.or(video.organization);
            Ok(Found { kind: Kind::Video, id: video.id, name, detail: None, organization })
        });
        found.collect()
    }

    /// There are few: `limits` allow some dozens for each organization.
    fn webhooks(&self, reach: Reach) -> Result<Vec<Found>> {
        let window = PageRequest::new(Some(PageRequest::MAX), None, None)?;
        let all = webhooks::list_webhooks(self.r, reach.organization(), &window)?.items;
        let fitting = all.into_iter().filter(|one| self.fits(&one.name) || self.fits(&one.url));
        let found = fitting.map(|one| Found {
            kind: Kind::Webhook,
            id: one.id.to_string(),
            name: one.name,
            detail: Some(one.url),
            organization: one.organization,
        });
        Ok(found.collect())
    }

    fn api_clients(&self) -> Result<Vec<Found>> {
        let listed = api_clients::list_clients(self.r, Some(&self.pattern), &Self::window()?)?.items;
        let found = listed.into_iter().map(|client| Found {
            kind: Kind::ApiClient,
            id: client.client_key.clone(),
            name: client.name,
            detail: Some(client.client_key),
            organization: None,
        });
        Ok(found.collect())
    }
}
