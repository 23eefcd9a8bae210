//! The operation that searches everything at once.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::search::{Found, Kind, Scope};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::http::{Reply, Tag, like, ok};
use crate::kernel::ids::OrganizationId;

/// What was found
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "Kind")]
enum FoundKind {
    Member,
    Organization,
    Role,
    Permission,
    Plugin,
    Video,
    Webhook,
    ApiClient,
}

/// Something that was found
#[derive(Object)]
#[oai(rename = "FoundItem")]
struct FoundView {
    kind: FoundKind,
    /// The id by which operations address it: of a permission and a plugin its name, of an API client its key
    id: String,
    name: String,
    /// What tells it from others with this name, such as an e-mail or a key
    #[oai(nullable)]
    detail: Option<String>,
    /// The organization in which it can be seen; null for a thing of the site
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// The code of that organization
    #[oai(nullable)]
    org_code: Option<String>,
}

impl FoundView {
    fn of(found: Found, snapshot: &Snapshot) -> Self {
        let Found { kind, id, name, detail, organization } = found;
        let tenant = organization.and_then(|id| snapshot.tenant(id));
        let org_code = tenant.map(|tenant| tenant.org_code.to_string());
        Self { kind: kind.into(), id, name, detail, organization_id: organization, org_code }
    }
}

/// The things that were found, by kind
#[derive(Object)]
struct SearchResult {
    items: Vec<FoundView>,
}

crate::document! {
    "FoundItem": r#"{"kind":"member","id":"019abcde-0000-7000-8000-000000000002","name":"Kim Lee","detail":"kim@example.org","organization_id":"019abcde-0000-7000-8000-000000000003","org_code":"acme"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Search")]
impl Api {
    /// Search everything
    ///
    /// Finds members, organizations, roles, permissions, plugins, videos, webhooks and API clients whose name, e-mail,
    /// key, path or address contains the text, up to 8 of each kind, in the organization of `X-Tenant-ID`. Only kinds
    /// whose list the caller may read are searched; members of `platform` without the header search the whole site. If
    /// few of many things match a short text, not all are found: the lists find them.
    #[oai(path = "/search", method = "get", operation_id = "search")]
    async fn search(
        &self,
        caller: MemberCaller,
        /// At least 2 characters
        #[oai(validator(min_length = 2, max_length = 200))]
        q: Query<String>,
    ) -> Reply<SearchResult> {
        let snapshot = self.app.snapshot();
        let scope = Scope::of(&snapshot, &caller)?;
        let seen = snapshot.clone();
        let pattern = like(Some(&q.0)).unwrap_or_default();
        let found = self.app.read(move |r| scope.find(r, &seen, &q.0, pattern)).await?;
        Ok(ok(SearchResult { items: found.into_iter().map(|one| FoundView::of(one, &snapshot)).collect() }))
    }
}
