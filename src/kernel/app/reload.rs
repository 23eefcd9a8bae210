//! Compares the policy in memory with the rows it was built from, page by page and concurrently with other work, and
//! repairs differences, of which there should be none.
//!
//! **Invariant.** A page is read outside the writer. What seems to differ is read again by the writer, compared with
//! the snapshot of its batch, and only that is replaced. So nothing is ever replaced by an older state than the
//! published one.

use super::store;
use std::collections::HashMap;

use super::maintenance::batches;
use super::{App, seconds_to_ms};
use crate::kernel::audit_log::{self, Entry};
use crate::kernel::authz::compare_store::{Cursor, PAGE_ROWS};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Part, Snapshot, SnapshotCursor};
use crate::kernel::authz::{self, compare_store as rows};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// The result of a comparison of the policy with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadResult {
    /// When it began.
    pub at: Timestamp,
    pub old_epoch: u64,
    pub new_epoch: u64,
    /// Whether the policy in memory differed from the rows.
    pub changed: bool,
}

/// The results of the last comparisons, by organization; `None` for the whole site.
pub type LastReloads = HashMap<Option<OrganizationId>, ReloadResult>;

/// The side whose facts are iterated and compared with the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The rows: the policy can lack a row or differ from it.
    Rows,
    /// The policy: its row can be deleted.
    Memory,
}

use Side::{Memory, Rows};

/// In the order in which differences can be repaired: what other facts depend on is added before them and removed after
/// them.
const STEPS: [(Part, Side); 18] = [
    (Part::Catalog, Rows),
    (Part::Tenants, Rows),
    (Part::Roles, Rows),
    (Part::Members, Rows),
    (Part::Memberships, Rows),
    (Part::Memberships, Memory),
    (Part::Members, Memory),
    (Part::Roles, Memory),
    (Part::Tenants, Memory),
    (Part::RoleSets, Memory),
    (Part::Grants, Rows),
    (Part::Grants, Memory),
    (Part::Clients, Rows),
    (Part::Clients, Memory),
    (Part::Sessions, Rows),
    (Part::Sessions, Memory),
    (Part::ApiKeys, Rows),
    (Part::ApiKeys, Memory),
];

/// The steps for one organization, or for all. Those for one organization include its members, but no other facts of
/// the site.
fn steps(organization: Option<OrganizationId>) -> impl Iterator<Item = (Part, Side)> {
    const OF_ORGANIZATION: [Part; 4] = [Part::Tenants, Part::Roles, Part::Memberships, Part::RoleSets];
    let is_included = move |step: &(Part, Side)| {
        organization.is_none() || OF_ORGANIZATION.contains(&step.0) || *step == (Part::Members, Side::Rows)
    };
    STEPS.into_iter().filter(is_included)
}

/// What was repaired so far.
#[derive(Debug, Default)]
struct Repaired {
    facts: usize,
    /// The epochs before the first repair and after the last one.
    epochs: Option<(u64, u64)>,
}

impl App {
    /// Compares the policy of one organization, or of all, with the rows, and repairs it.
    ///
    /// If a comparison is running, this waits for it. Its result is returned if it began after this call.
    pub async fn reload(&self, organization: Option<OrganizationId>) -> Result<ReloadResult> {
        self.reload_since(organization, Timestamp::now()).await
    }

    /// Like `reload`, but returns the last result if it is younger than `limits.policy_reload_gap_s`. For callers that
    /// are rate limited.
    pub async fn reload_rate_limited(&self, organization: OrganizationId) -> Result<ReloadResult> {
        let since = Timestamp::now().plus_ms(-seconds_to_ms(self.config.policy_reload_gap_s));
        self.reload_since(Some(organization), since).await
    }

    async fn reload_since(&self, organization: Option<OrganizationId>, since: Timestamp) -> Result<ReloadResult> {
        let mut last = self.reloaded.lock().await;
        if let Some(known) = last.get(&organization).filter(|known| known.at > since) {
            return Ok(*known);
        }
        let at = Timestamp::now();
        let mut repaired = Repaired::default();
        if !self.snapshot().is_available() {
            self.load_missing_policy().await?;
        }
        let epoch = self.snapshot().epoch;
        for (part, side) in steps(organization) {
            let before = repaired.facts;
            match side {
                Side::Rows => self.compare_rows(part, organization, &mut repaired).await?,
                Side::Memory => self.compare_memory(part, organization, &mut repaired).await?,
            }
            if repaired.facts > before {
                let facts = repaired.facts - before;
                tracing::error!(?part, ?side, facts, "the policy in memory differed from the rows and was repaired");
            }
        }
        let (old_epoch, new_epoch) = repaired.epochs.unwrap_or((epoch, epoch));
        let reloaded = ReloadResult { at, old_epoch, new_epoch, changed: repaired.facts > 0 };
        if reloaded.changed {
            self.update_plugins_in_force();
        }
        let gap_ms = seconds_to_ms(self.config.policy_reload_gap_s);
        last.retain(|_, known| known.at > at.plus_ms(-gap_ms));
        last.insert(organization, reloaded);
        Ok(reloaded)
    }

    async fn compare_rows(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        repaired: &mut Repaired,
    ) -> Result<()> {
        let mut next = Some(Cursor::first(organization));
        while let Some(mark) = next.take() {
            let cell = self.guard.snapshot.clone();
            let look = move |r: &Reader<'_>| {
                let page = rows::page(r, part, organization, &mark)?;
                // A change in between looks like a difference, until the writer compares again.
                let current = cell.load_full();
                let suspects = page.facts.into_iter().filter(|fact| current.differs(fact)).collect::<Vec<_>>();
                Ok((suspects, page.next))
            };
            let (suspects, following) = self.read(look).await?;
            self.repair_all(suspects, repaired).await?;
            next = following;
        }
        Ok(())
    }

    async fn compare_memory(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        repaired: &mut Repaired,
    ) -> Result<()> {
        if !self.may_lack_rows(part, organization).await? {
            return Ok(());
        }
        // Facts that are added from here on are added together with their rows.
        let known = self.snapshot();
        let mut next = Some(SnapshotCursor::default());
        while let Some(location) = next.take() {
            let (cell, known) = (self.guard.snapshot.clone(), known.clone());
            let look = move |r: &Reader<'_>| {
                let (facts, following) = known.known(part, organization, location, PAGE_ROWS);
                let mut suspects = Vec::new();
                for fact in facts {
                    let now = rows::reread(r, &cell.load(), &fact)?;
                    if now.iter().any(|now| cell.load().differs(now)) {
                        suspects.push(fact);
                    }
                }
                Ok((suspects, following))
            };
            let (suspects, following) = self.read(look).await?;
            self.repair_all(suspects, repaired).await?;
            next = following;
        }
        Ok(())
    }

    /// Whether facts of this part may lack their rows. `false` saves the comparison of each fact.
    async fn may_lack_rows(&self, part: Part, organization: Option<OrganizationId>) -> Result<bool> {
        /// Concurrent changes can cause false positives; after these tries every fact is compared.
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let cell = self.guard.snapshot.clone();
            let look = move |r: &Reader<'_>| rows::may_lack_rows(r, &cell.load(), part, organization);
            if !self.read(look).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn repair_all(&self, suspects: Vec<Change>, repaired: &mut Repaired) -> Result<()> {
        for batch in batches(suspects) {
            let done = self.db.write(move |w, snapshot| repair(w, snapshot, &batch)).await?;
            if let Some((facts, old, new)) = done {
                repaired.facts += facts;
                repaired.epochs = Some((repaired.epochs.map_or(old, |(first, _)| first), new));
            }
        }
        Ok(())
    }

    /// Loads the policy when there is none because the rows could not be read after a failed commit. Fails with `busy`
    /// if it cannot be loaded yet. Until then every request is denied.
    pub(super) async fn load_missing_policy(&self) -> Result<()> {
        let fresh = self.read(authz::store::load).await?;
        let publish = move |w: &Writer<'_>, snapshot: &mut Snapshot| {
            if !snapshot.is_available() && authz::store::epoch(w)? == fresh.epoch {
                *snapshot = fresh;
            }
            Ok(snapshot.is_available())
        };
        match self.db.write(publish).await? {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::Busy).with_source("the policy is not loaded").retry_after(1)),
        }
    }
}

/// Replaces those suspects that still differ; returns their number and the epochs before and after, or `None` if there
/// are none.
fn repair(w: &Writer<'_>, snapshot: &mut Snapshot, suspects: &[Change]) -> Result<Option<(usize, u64, u64)>> {
    let mut after = snapshot.clone();
    let mut facts = 0;
    for suspect in suspects {
        for now in rows::reread(w, &after, suspect)? {
            if after.differs(&now) {
                after.apply(now);
                facts += 1;
            }
        }
    }
    if facts == 0 {
        return Ok(None);
    }
    let old = snapshot.epoch;
    let new = old.max(authz::store::epoch(w)?) + 1;
    store::raise_epoch(w, new)?;
    let entry = Entry::new("policy", "memory").after(serde_json::json!({"replaced": facts}));
    audit_log::record_done(w, &Identity::command_line(), "policy.replace", &entry)?;
    after.epoch = new;
    *snapshot = after;
    Ok(Some((facts, old, new)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use uuid::Uuid;

    use super::*;
    use crate::kernel::app::{Changed, Transaction};
    use crate::kernel::authz::catalog::Catalog;
    use crate::kernel::authz::snapshot::{GrantKey, MemberStatus, Right, Role, RoleKind, Session};
    use crate::kernel::config::Config;
    use crate::kernel::ids::{ApiKeyId, GrantId, MemberId, RoleId, SessionId};

    const ACME: OrganizationId = OrganizationId(id(0xa000, 0));
    const BOLT: OrganizationId = OrganizationId(id(0xa000, 1));
    const READER: RoleId = RoleId(id(0xc000, 0));
    const SESSION: SessionId = SessionId(id(0xe000, 0));
    const KEY: ApiKeyId = ApiKeyId(id(0xf000, 0));

    /// As SQL makes them: `unhex(printf('0000000000007000<kind>%012x', n))`.
    const fn id(kind: u64, n: u64) -> Uuid {
        Uuid::from_u64_pair(0x7000, (kind << 48) | n)
    }

    const fn member(n: u64) -> MemberId {
        MemberId(id(0xb000, n))
    }

    fn right(n: u64) -> GrantKey {
        let scope_id = format!("p{n}");
        Right { scope_type: "project", scope_id: &scope_id, module: "videos", action: "edit" }.key(member(n))
    }

    fn grant(n: u64) -> GrantId {
        GrantId(id(0xd000, n))
    }

    /// Two organizations; all members are in the first one, the first two also in the second one.
    const ROWS: &str = "
        pragma synchronous = off;
        begin;
        insert into organizations (id, org_code, name, status, created_at, updated_at)
        values (unhex('0000000000007000a000000000000000'), 'acme', 'Acme', 'active', 1, 1),
               (unhex('0000000000007000a000000000000001'), 'bolt', 'Bolt', 'active', 1, 1);
        insert into permissions (name, app, status, type, position, created_at, updated_at)
        values ('doc.read', 'main', 'open', 'backend_user', 0, 1, 1);
        insert into roles (id, organization_id, key, display_name, status, is_system, created_at, updated_at)
        values (unhex('0000000000007000c000000000000000'), unhex('0000000000007000a000000000000000'), 'reader', 'R', 'open', 0, 1, 1),
               (unhex('0000000000007000c000000000000001'), unhex('0000000000007000a000000000000001'), 'reader', 'R', 'open', 0, 1, 1);
        insert into role_permissions (role_id, permission_slot)
        select r.id, p.slot from roles r, permissions p where p.name = 'doc.read';
        with n (n) as (values (0) union all select n + 1 from n where n < :members - 1)
        insert into members (id, status, created_at, updated_at)
        select unhex(printf('0000000000007000b000%012x', n)), 'active', 1, 1 from n;
        insert into memberships (organization_id, member_id, created_at)
        select o.id, m.id, 1
        from members m, organizations o
        where o.org_code = 'acme' or (o.org_code = 'bolt' and m.id < unhex('0000000000007000b000000000000002'));
        insert into role_assignments (id, organization_id, member_id, role_id, source, created_at, updated_at)
        select m.member_id, m.organization_id, m.member_id, r.id, 'manual', 1, 1
        from memberships m
        join roles r on r.organization_id = m.organization_id;
        with n (n) as (values (0) union all select n + 1 from n where n < :members - 1)
        insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
        select unhex(printf('0000000000007000d000%012x', n)), unhex(printf('0000000000007000b000%012x', n)), 'project',
               'p' || n, 'videos', 'edit', 1
        from n;
        insert into sessions (id, member_id, method, second_factor, refresh_hash, rotated_at, expires_at, ends_at, device,
                              address, created_at)
        values (unhex('0000000000007000e000000000000000'), unhex('0000000000007000b000000000000000'), 'password', 0,
                randomblob(32), 1, 2, 2, '', '', 1);
        insert into api_clients (client_key, name, status, api_key_hash, scopes, allowed_origins, allowed_ips,
                                 allowed_paths, created_at, updated_at)
        values ('office', 'Office', 'active', randomblob(32), '[]', '[]', '[]', '[]', 1, 1);
        insert into api_keys (id, type, name, member_id, hash, scopes, expires_at, created_at, updated_at)
        values (unhex('0000000000007000f000000000000000'), 'muser', 'own', unhex('0000000000007000b000000000000000'),
                randomblob(32), '[]', 2, 1, 1);
        insert into plugin_components (sha256, component, created_at) values (zeroblob(32), x'00', 1);
        insert into plugins (id, organization_id, name, enforced, created_at, updated_at)
        select id, id, 'rule', '{\"version\":1,\"may_grant\":false,\"filter\":{},\"deadline_ms\":null,\"since\":1}', 1, 1
        from organizations
        where org_code = 'acme';
        insert into plugin_versions (plugin_id, version, sha256, exports, imports, is_large, is_tested, report, uploaded_by,
                                     created_at)
        select id, 1, zeroblob(32), '[]', '[]', 0, 1, '{}', 'cli', 1 from plugins;
        commit;";

    struct TestSite {
        app: Arc<App>,
        directory: tempfile::TempDir,
    }

    impl TestSite {
        async fn of(members: u64) -> Self {
            Self::with(members, |_| {}).await
        }

        async fn with(members: u64, set: impl FnOnce(&mut Config)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap().close().await;
            let mut config = Config::of(directory.path());
            set(&mut config);
            let rows = rusqlite::Connection::open(config.database_file()).unwrap();
            rows.execute_batch(&ROWS.replace(":members", &members.to_string())).unwrap();
            drop(rows);
            let app = App::open(config, &crate::server::features::FEATURES).await.unwrap();
            Self { app, directory }
        }

        /// Changes the policy in memory, but no row.
        async fn damage(&self, changes: Vec<Change>) {
            let write = move |w: &Writer<'_>, snapshot: &mut Snapshot| {
                changes.into_iter().for_each(|change| snapshot.apply(change));
                snapshot.epoch += 1;
                store::raise_epoch(w, snapshot.epoch)
            };
            self.app.db.write(write).await.unwrap();
        }

        /// Changes rows, but not the policy.
        fn damage_rows(&self, statements: &str) {
            let rows = rusqlite::Connection::open(self.directory.path().join("roster.db")).unwrap();
            rows.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            rows.execute_batch(statements).unwrap();
        }

        /// Whether the policy in memory equals the rows.
        async fn is_consistent(&self) -> bool {
            let fresh = self.app.read(authz::store::load).await.unwrap();
            let known = self.app.snapshot();
            (fresh.epoch, fresh.digest()) == (known.epoch, known.digest())
        }

        fn jobs(&self) -> u64 {
            self.app.db.stats.jobs.load(Ordering::Relaxed)
        }

        async fn close(self) {
            self.app.close().await;
        }
    }

    fn role(id: RoleId, key: &str) -> Role {
        Role { id, key: key.into(), is_open: true, holds: RoleKind::Ticked, ticked: Arc::default() }
    }

    /// Every kind of damage to the policy in memory, with its name.
    fn damages() -> Vec<(&'static str, Vec<Change>)> {
        let tenant = |org_code: &str, is_active| Change::Tenant {
            id: ACME,
            org_code: org_code.into(),
            is_active,
            requires_second_factor: !is_active,
        };
        let session = Session { member: member(1), second_factor: true };
        vec![
            ("a status", vec![Change::Member(member(0), MemberStatus::Suspended)]),
            ("a member is missing", vec![Change::MemberDeleted(member(0))]),
            ("a surplus member", vec![Change::Member(member(1 << 40), MemberStatus::Active)]),
            ("a placement", vec![Change::OrganizationCount(member(2), None)]),
            ("an inactive organization", vec![tenant("acme", false)]),
            ("a name", vec![tenant("other", true)]),
            ("a membership is missing", vec![Change::Membership(BOLT, member(0), None)]),
            ("a surplus membership", vec![Change::Membership(BOLT, member(2), Some(Vec::new()))]),
            ("a role that is not held", vec![Change::Membership(ACME, member(0), Some(Vec::new()))]),
            ("a permission of a role", vec![Change::Role(ACME, role(READER, "reader"))]),
            ("a role is missing", vec![Change::RoleDeleted(ACME, READER)]),
            ("a surplus role", vec![Change::Role(BOLT, role(RoleId::new(), "ghost"))]),
            (
                "a role instead of another",
                vec![Change::RoleDeleted(ACME, READER), Change::Role(ACME, role(RoleId::new(), "ghost"))],
            ),
            ("plugins", vec![Change::Plugins(ACME, Vec::new())]),
            ("the catalog", vec![Change::Catalog(Arc::new(Catalog::build(Vec::new())))]),
            ("a grant is missing", vec![Change::Grant(right(0), None)]),
            ("a surplus grant", vec![Change::Grant(right(1 << 40), Some(GrantId::new()))]),
            ("a grant of another row", vec![Change::Grant(right(0), Some(GrantId::new()))]),
            ("a client", vec![Change::ClientDeleted("office".into())]),
            ("a session is missing", vec![Change::Session(SESSION, None)]),
            ("a surplus session", vec![Change::Session(SessionId::new(), Some(session))]),
            ("the session of another member", vec![Change::Session(SESSION, Some(session))]),
            ("an API key", vec![Change::ApiKeyDeleted(KEY)]),
        ]
    }

    #[tokio::test]
    async fn damage_in_memory_is_found_and_repaired() {
        let site = TestSite::of(5).await;
        assert!(site.is_consistent().await);
        let together = ("all at once", damages().into_iter().flat_map(|(_, changes)| changes).collect());
        for (what, changes) in damages().into_iter().chain([together]) {
            site.damage(changes).await;
            assert!(!site.is_consistent().await, "{what} is no damage");
            let before = site.app.snapshot().epoch;
            let found = site.app.reload(None).await.unwrap();
            assert!(found.changed && found.old_epoch == before && found.new_epoch > before, "{what}: {found:?}");
            assert_eq!(site.app.snapshot().epoch, found.new_epoch, "{what}");
            assert!(site.is_consistent().await, "{what} was not repaired");
            let again = site.app.reload(None).await.unwrap();
            assert_eq!((again.changed, again.old_epoch, again.new_epoch), (false, found.new_epoch, found.new_epoch));
        }
        site.close().await;
    }

    #[tokio::test]
    async fn rows_changed_by_another_program_are_found_and_loaded() {
        let site = TestSite::of(5).await;
        for statement in [
            "update members set status = 'suspended' where id = unhex('0000000000007000b000000000000003')",
            "delete from grants where id = unhex('0000000000007000d000000000000000')",
            "delete from sessions",
            "update organizations set status = 'inactive' where org_code = 'bolt'",
            "insert into roles (id, organization_id, key, display_name, status, is_system, created_at, updated_at)
             select unhex('0000000000007000c000000000000007'), id, 'writer', 'W', 'open', 0, 1, 1 from organizations
             where org_code = 'acme'",
            "delete from role_assignments where member_id = unhex('0000000000007000b000000000000001');
             delete from memberships where member_id = unhex('0000000000007000b000000000000001')",
            "delete from api_keys",
            "update plugins set shadow = enforced, enforced = null",
            "update permissions set status = 'close'",
        ] {
            site.damage_rows(statement);
            assert!(!site.is_consistent().await, "{statement}");
            assert!(site.app.reload(None).await.unwrap().changed, "{statement}");
            assert!(site.is_consistent().await, "{statement}");
        }
        site.close().await;
    }

    #[tokio::test]
    async fn an_organization_without_a_row_becomes_inactive() {
        let site = TestSite::of(5).await;
        let ghost = OrganizationId::new();
        let made =
            Change::Tenant { id: ghost, org_code: "ghost".into(), is_active: true, requires_second_factor: true };
        site.damage(vec![made, Change::Membership(ghost, member(3), Some(Vec::new()))]).await;
        assert!(site.app.reload(None).await.unwrap().changed);
        let snapshot = site.app.snapshot();
        assert!(!snapshot.tenant(ghost).unwrap().is_active && !snapshot.requires_second_factor(member(3)));
        assert_eq!(snapshot.only_tenant(member(3)).map(|tenant| tenant.id), Some(ACME));
        assert!(!site.app.reload(None).await.unwrap().changed);
        site.close().await;
    }

    #[tokio::test]
    async fn a_comparison_without_differences_does_not_use_the_writer() {
        // Three pages, the last one not full.
        let site = TestSite::of(2 * PAGE_ROWS as u64 + 1).await;
        let before = site.jobs();
        for organization in [None, Some(ACME), Some(BOLT)] {
            assert!(!site.app.reload(organization).await.unwrap().changed);
        }
        assert_eq!(site.jobs(), before);
        site.close().await;
    }

    #[tokio::test]
    async fn the_comparison_of_an_organization_changes_no_other() {
        let site = TestSite::of(5).await;
        let membership = |organization| Change::Membership(organization, member(0), None);
        site.damage(vec![membership(ACME), membership(BOLT), Change::Session(SESSION, None)]).await;
        assert!(site.app.reload(Some(ACME)).await.unwrap().changed);
        let has_membership =
            |organization| site.app.snapshot().tenant(organization).unwrap().set_of(member(0)).is_some();
        assert!(has_membership(ACME) && !has_membership(BOLT) && site.app.snapshot().session(SESSION).is_none());
        assert!(!site.app.reload(Some(ACME)).await.unwrap().changed);
        assert!(site.app.reload(Some(BOLT)).await.unwrap().changed);
        assert!(has_membership(BOLT) && site.app.snapshot().session(SESSION).is_none());
        assert!(site.app.reload(None).await.unwrap().changed);
        assert!(site.is_consistent().await);
        site.close().await;
    }

    #[tokio::test]
    async fn an_organization_gets_the_last_result_again_within_the_gap() {
        let gap = |gap_s| TestSite::with(5, move |config: &mut Config| config.policy_reload_gap_s = gap_s);
        // Of a member who is in no other organization.
        let damage = || vec![Change::Membership(ACME, member(3), None)];
        let (with, without) = (gap(60).await, gap(0).await);
        let first = with.app.reload_rate_limited(ACME).await.unwrap();
        without.app.reload_rate_limited(ACME).await.unwrap();
        with.damage(damage()).await;
        without.damage(damage()).await;
        assert_eq!(with.app.reload_rate_limited(ACME).await.unwrap(), first);
        assert!(without.app.reload_rate_limited(ACME).await.unwrap().changed);
        // Another organization has a gap of its own, and the site has none.
        assert!(!with.app.reload_rate_limited(BOLT).await.unwrap().changed);
        assert!(with.app.reload(None).await.unwrap().changed);
        assert_eq!(with.app.reload_rate_limited(ACME).await.unwrap(), first);
        // Just within the gap, and just past it.
        for (age_ms, is_again) in [(30_000, true), (60_000, false)] {
            let at = Timestamp::now().plus_ms(-age_ms);
            with.app.reloaded.lock().await.insert(Some(ACME), ReloadResult { at, ..first });
            let answer = with.app.reload_rate_limited(ACME).await.unwrap();
            assert_eq!(answer.at == at, is_again, "{age_ms}");
        }
        with.close().await;
        without.close().await;
    }

    async fn put_grant(app: &App, n: u64, exists: bool) {
        let write = move |t: &Transaction<'_>, _: &Identity| {
            let id = [(":id", &grant(n) as &dyn rusqlite::ToSql)];
            let change = if exists {
                let scope_id = format!("p{n}");
                t.execute(
                    "insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
                     values (:id, :member_id, 'project', :scope_id, 'videos', 'edit', 1)",
                    &[id[0], (":member_id", &member(0)), (":scope_id", &scope_id)],
                )?;
                let right = Right { scope_type: "project", scope_id: &scope_id, module: "videos", action: "edit" };
                Change::Grant(right.key(member(0)), Some(grant(n)))
            } else {
                t.execute("delete from grants where id = :id", &id)?;
                Change::Grant(key_of(n), None)
            };
            Ok(Changed::new((), Entry::new("grant", grant(n))).with_policy_changes([change]))
        };
        app.change(&Identity::command_line(), "grant.test", write).await.unwrap();
    }

    fn key_of(n: u64) -> GrantKey {
        let scope_id = format!("p{n}");
        Right { scope_type: "project", scope_id: &scope_id, module: "videos", action: "edit" }.key(member(0))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_continue_during_a_comparison_and_none_is_undone() {
        const MEMBERS: u64 = 20_000;
        const ROUNDS: usize = 3;
        /// More than one batch of each.
        const DAMAGED: u64 = 500;
        let site = Arc::new(TestSite::of(MEMBERS).await);
        let other = site.clone();
        let comparisons = tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let memberships = (0..DAMAGED).map(|n| Change::Membership(ACME, member(n), None));
                let grants = (0..DAMAGED).map(|n| Change::Grant(right(n), None));
                other.damage(memberships.chain(grants).collect()).await;
                assert!(other.app.reload(None).await.unwrap().changed);
            }
        });
        // Every second grant is deleted again.
        let (mut n, mut epoch) = (MEMBERS, 0);
        while !comparisons.is_finished() || n < MEMBERS + 20 {
            put_grant(&site.app, n, true).await;
            assert_eq!(site.app.snapshot().grant(&key_of(n)), Some(grant(n)));
            if n % 2 == 0 {
                put_grant(&site.app, n, false).await;
            }
            let snapshot = site.app.snapshot();
            assert!(snapshot.epoch > epoch, "an older policy was published");
            epoch = snapshot.epoch;
            for m in MEMBERS.max(n - 10)..=n {
                assert_eq!(snapshot.grant(&key_of(m)), (m % 2 == 1).then(|| grant(m)), "{m} of {n}");
            }
            n += 1;
        }
        comparisons.await.unwrap();
        assert!(site.is_consistent().await);
        // A scan of all members takes several times as many steps.
        let steps = site.app.db.stats.steps_largest.load(Ordering::Relaxed);
        assert!(steps > 0 && steps < 2 * MEMBERS, "one change took {steps} steps");
        site.app.close().await;
    }
}
