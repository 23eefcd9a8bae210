//! The policy in memory beside the rows that it was made from: compared in pages, beside all else, and mended where it
//! differs, which it never should.
//!
//! **Invariant.** A page is read outside the writer. What seems to differ is read again by the writer, on the state that
//! it carries, and only that is replaced: nothing older than what was published is ever put in its place.

use super::site_store;
use std::collections::HashMap;

use super::maintenance::pieces;
use super::{App, ms};
use crate::kernel::audit_log::{self, Entry};
use crate::kernel::authz::compare_store::{Mark, PAGE_ROWS};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Part, RowLocation, Snapshot};
use crate::kernel::authz::{self, compare_store as rows};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// What a comparison of the policy with the rows found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// When it began.
    pub at: Timestamp,
    pub old_epoch: u64,
    pub new_epoch: u64,
    /// Did the policy in memory differ from the rows?
    pub changed: bool,
}

/// What the last comparisons found, by organization, or of the whole site.
pub type Last = HashMap<Option<OrganizationId>, Reloaded>;

/// From which side the facts come that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// What there is: the policy may lack it, or have something else.
    Rows,
    /// What the policy knows: the rows may not have it any more.
    Memory,
}

use Side::{Memory, Rows};

/// In the order in which differences can be mended: what others rest on comes first when it is missing, and goes last
/// when it is too much.
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

/// The steps for one organization, or for all. An organization's people are looked at with it; what else is the site's is not.
fn steps(organization: Option<OrganizationId>) -> impl Iterator<Item = (Part, Side)> {
    const BUILTIN_PERMISSIONS: [Part; 4] = [Part::Tenants, Part::Roles, Part::Memberships, Part::RoleSets];
    let is_in = move |step: &(Part, Side)| {
        organization.is_none() || BUILTIN_PERMISSIONS.contains(&step.0) || *step == (Part::Members, Side::Rows)
    };
    STEPS.into_iter().filter(is_in)
}

/// What was mended so far.
#[derive(Debug, Default)]
struct Repaired {
    facts: usize,
    /// Before the first change, and after the last one.
    epochs: Option<(u64, u64)>,
}

impl App {
    /// Compares the policy of one organization, or of all, with the rows, and mends it.
    ///
    /// A caller that comes while a comparison runs waits for it, and takes its answer if it began after the caller came.
    pub async fn reload(&self, organization: Option<OrganizationId>) -> Result<Reloaded> {
        self.reload_since(organization, Timestamp::now()).await
    }

    /// The same for who may not do so all the time: an answer that is younger than `limits.policy_reload_gap_s` is given
    /// again.
    pub async fn reload_now_and_then(&self, organization: OrganizationId) -> Result<Reloaded> {
        let since = Timestamp::now().plus_ms(-ms(self.config.policy_reload_gap_s));
        self.reload_since(Some(organization), since).await
    }

    async fn reload_since(&self, organization: Option<OrganizationId>, since: Timestamp) -> Result<Reloaded> {
        let mut last = self.reloaded.lock().await;
        if let Some(known) = last.get(&organization).filter(|known| known.at > since) {
            return Ok(*known);
        }
        let at = Timestamp::now();
        let mut mended = Repaired::default();
        self.require_policy().await?;
        let epoch = self.snapshot().epoch;
        for (part, side) in steps(organization) {
            let before = mended.facts;
            match side {
                Side::Rows => self.compare_rows(part, organization, &mut mended).await?,
                Side::Memory => self.compare_memory(part, organization, &mut mended).await?,
            }
            if mended.facts > before {
                let facts = mended.facts - before;
                tracing::error!(?part, ?side, facts, "the policy in memory differed from the rows and was mended");
            }
        }
        let (old_epoch, new_epoch) = mended.epochs.unwrap_or((epoch, epoch));
        let reloaded = Reloaded { at, old_epoch, new_epoch, changed: mended.facts > 0 };
        if reloaded.changed {
            self.keep_plugins();
        }
        let gap_ms = ms(self.config.policy_reload_gap_s);
        last.retain(|_, known| known.at > at.plus_ms(-gap_ms));
        last.insert(organization, reloaded);
        Ok(reloaded)
    }

    async fn compare_rows(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        mended: &mut Repaired,
    ) -> Result<()> {
        let mut next = Some(Mark::first(organization));
        while let Some(mark) = next.take() {
            let cell = self.guard.snapshot.clone();
            let look = move |r: &Reader<'_>| {
                let page = rows::page(r, part, organization, &mark)?;
                // A change in between looks like a difference, until the writer looks.
                let current = cell.load_full();
                let suspects = page.facts.into_iter().filter(|fact| current.differs(fact)).collect::<Vec<_>>();
                Ok((suspects, page.next))
            };
            let (suspects, behind) = self.read(look).await?;
            self.mend(suspects, mended).await?;
            next = behind;
        }
        Ok(())
    }

    async fn compare_memory(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        mended: &mut Repaired,
    ) -> Result<()> {
        if !self.may_lack_rows(part, organization).await? {
            return Ok(());
        }
        // What comes in meanwhile has its rows.
        let known = self.snapshot();
        let mut next = Some(RowLocation::default());
        while let Some(place) = next.take() {
            let (cell, known) = (self.guard.snapshot.clone(), known.clone());
            let look = move |r: &Reader<'_>| {
                let (facts, behind) = known.known(part, organization, place, PAGE_ROWS);
                let mut suspects = Vec::new();
                for fact in facts {
                    let now = rows::again(r, &cell.load(), &fact)?;
                    if now.iter().any(|now| cell.load().differs(now)) {
                        suspects.push(fact);
                    }
                }
                Ok((suspects, behind))
            };
            let (suspects, behind) = self.read(look).await?;
            self.mend(suspects, mended).await?;
            next = behind;
        }
        Ok(())
    }

    async fn may_lack_rows(&self, part: Part, organization: Option<OrganizationId>) -> Result<bool> {
        /// Where something is changed all the time, a longer look is taken.
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

    async fn mend(&self, suspects: Vec<Change>, mended: &mut Repaired) -> Result<()> {
        for piece in pieces(suspects) {
            let done = self.db.write(move |w, snapshot| repair(w, snapshot, &piece)).await?;
            if let Some((facts, old, new)) = done {
                mended.facts += facts;
                mended.epochs = Some((mended.epochs.map_or(old, |(first, _)| first), new));
            }
        }
        Ok(())
    }

    /// Reads the policy anew where there is none, because the rows could not be read after a failed commit. Nothing that
    /// is decided changes meanwhile.
    pub(super) async fn require_policy(&self) -> Result<()> {
        if self.guard.snapshot.load().is_available() {
            return Ok(());
        }
        let fresh = self.read(authz::store::load).await?;
        let put = move |w: &Writer<'_>, snapshot: &mut Snapshot| {
            if !snapshot.is_available() && authz::store::epoch(w)? == fresh.epoch {
                *snapshot = fresh;
            }
            Ok(snapshot.is_available())
        };
        match self.db.write(put).await? {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::Busy).with_source("the policy is not known").retry_after(1)),
        }
    }
}

/// Replaces what differs still, of one piece of suspects; answers how many facts that were, and the epochs before and
/// after.
fn repair(w: &Writer<'_>, snapshot: &mut Snapshot, suspects: &[Change]) -> Result<Option<(usize, u64, u64)>> {
    let mut after = snapshot.clone();
    let mut facts = 0;
    for suspect in suspects {
        for now in rows::again(w, &after, suspect)? {
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
    site_store::raise_epoch(w, new)?;
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
    use crate::kernel::authz::snapshot::{GrantKey, Holds, Right, Role, Session, Status};
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

    /// Two organizations; all members are in the first one, and the first two in the second one as well.
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

    struct Town {
        app: Arc<App>,
        directory: tempfile::TempDir,
    }

    impl Town {
        async fn of(members: u64) -> Self {
            Self::with(members, |_| {}).await
        }

        async fn with(members: u64, set: impl FnOnce(&mut Config)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap().close().await;
            let mut config = Config::of(directory.path());
            set(&mut config);
            let town = |app| Self { app, directory };
            let rows = rusqlite::Connection::open(config.database_file()).unwrap();
            rows.execute_batch(&ROWS.replace(":members", &members.to_string())).unwrap();
            drop(rows);
            town(App::open(config, &crate::server::features::FEATURES).await.unwrap())
        }

        /// Changes the policy in memory, and no row.
        async fn damage(&self, changes: Vec<Change>) {
            let spoil = move |w: &Writer<'_>, snapshot: &mut Snapshot| {
                changes.into_iter().for_each(|change| snapshot.apply(change));
                snapshot.epoch += 1;
                site_store::raise_epoch(w, snapshot.epoch)
            };
            self.app.db.write(spoil).await.unwrap();
        }

        /// Changes rows, and no policy.
        fn damage_rows(&self, statements: &str) {
            let rows = rusqlite::Connection::open(self.directory.path().join("roster.db")).unwrap();
            rows.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            rows.execute_batch(statements).unwrap();
        }

        /// Are memory and rows the same?
        async fn is_whole(&self) -> bool {
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
        Role { id, key: key.into(), is_open: true, holds: Holds::Ticked, ticked: Arc::default() }
    }

    /// Everything that can be wrong in memory, with what it is.
    fn damages() -> Vec<(&'static str, Vec<Change>)> {
        let tenant = |org_code: &str, is_active| Change::Tenant {
            id: ACME,
            org_code: org_code.into(),
            is_active,
            requires_second_factor: !is_active,
        };
        let session = Session { member: member(1), second_factor: true };
        vec![
            ("a status", vec![Change::Member(member(0), Status::Suspended)]),
            ("a person is missing", vec![Change::MemberGone(member(0))]),
            ("a person too many", vec![Change::Member(member(1 << 40), Status::Active)]),
            ("a place", vec![Change::Placed(member(2), None)]),
            ("a closed organization", vec![tenant("acme", false)]),
            ("a name", vec![tenant("other", true)]),
            ("a seat is missing", vec![Change::Membership(BOLT, member(0), None)]),
            ("a seat too many", vec![Change::Membership(BOLT, member(2), Some(Vec::new()))]),
            ("a role that is not held", vec![Change::Membership(ACME, member(0), Some(Vec::new()))]),
            ("a tick", vec![Change::Role(ACME, role(READER, "reader"))]),
            ("a role is missing", vec![Change::RoleGone(ACME, READER)]),
            ("a role too many", vec![Change::Role(BOLT, role(RoleId::new(), "ghost"))]),
            (
                "a role in the place of another",
                vec![Change::RoleGone(ACME, READER), Change::Role(ACME, role(RoleId::new(), "ghost"))],
            ),
            ("plugins", vec![Change::Plugins(ACME, Vec::new())]),
            ("the catalog", vec![Change::Catalog(Arc::new(Catalog::build(Vec::new())))]),
            ("a grant is missing", vec![Change::Grant(right(0), None)]),
            ("a grant too many", vec![Change::Grant(right(1 << 40), Some(GrantId::new()))]),
            ("a grant of another row", vec![Change::Grant(right(0), Some(GrantId::new()))]),
            ("a client", vec![Change::ClientGone("office".into())]),
            ("a session is missing", vec![Change::Session(SESSION, None)]),
            ("a session too many", vec![Change::Session(SessionId::new(), Some(session))]),
            ("another's session", vec![Change::Session(SESSION, Some(session))]),
            ("an API key", vec![Change::ApiKeyGone(KEY)]),
        ]
    }

    #[tokio::test]
    async fn whatever_is_wrong_in_memory_is_found_and_mended() {
        let town = Town::of(5).await;
        assert!(town.is_whole().await);
        let together = ("all at once", damages().into_iter().flat_map(|(_, changes)| changes).collect());
        for (what, changes) in damages().into_iter().chain([together]) {
            town.damage(changes).await;
            assert!(!town.is_whole().await, "{what} is no damage");
            let before = town.app.snapshot().epoch;
            let found = town.app.reload(None).await.unwrap();
            assert!(found.changed && found.old_epoch == before && found.new_epoch > before, "{what}: {found:?}");
            assert_eq!(town.app.snapshot().epoch, found.new_epoch, "{what}");
            assert!(town.is_whole().await, "{what} was not mended");
            let again = town.app.reload(None).await.unwrap();
            assert_eq!((again.changed, again.old_epoch, again.new_epoch), (false, found.new_epoch, found.new_epoch));
        }
        town.close().await;
    }

    #[tokio::test]
    async fn whatever_is_changed_in_rows_behind_our_back_is_found_and_taken_over() {
        let town = Town::of(5).await;
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
            town.damage_rows(statement);
            assert!(!town.is_whole().await, "{statement}");
            assert!(town.app.reload(None).await.unwrap().changed, "{statement}");
            assert!(town.is_whole().await, "{statement}");
        }
        town.close().await;
    }

    #[tokio::test]
    async fn an_organization_without_a_row_is_closed() {
        let town = Town::of(5).await;
        let ghost = OrganizationId::new();
        let made =
            Change::Tenant { id: ghost, org_code: "ghost".into(), is_active: true, requires_second_factor: true };
        town.damage(vec![made, Change::Membership(ghost, member(3), Some(Vec::new()))]).await;
        assert!(town.app.reload(None).await.unwrap().changed);
        let snapshot = town.app.snapshot();
        assert!(!snapshot.tenant(ghost).unwrap().is_active && !snapshot.requires_second_factor(member(3)));
        assert_eq!(snapshot.only_tenant(member(3)).map(|tenant| tenant.id), Some(ACME));
        assert!(!town.app.reload(None).await.unwrap().changed);
        town.close().await;
    }

    #[tokio::test]
    async fn where_nothing_differs_the_writer_is_not_asked() {
        // Three pages, the last one not full.
        let town = Town::of(2 * PAGE_ROWS as u64 + 1).await;
        let before = town.jobs();
        for organization in [None, Some(ACME), Some(BOLT)] {
            assert!(!town.app.reload(organization).await.unwrap().changed);
        }
        assert_eq!(town.jobs(), before);
        town.close().await;
    }

    #[tokio::test]
    async fn an_organization_s_comparison_leaves_all_others_alone() {
        let town = Town::of(5).await;
        let membership = |organization| Change::Membership(organization, member(0), None);
        town.damage(vec![membership(ACME), membership(BOLT), Change::Session(SESSION, None)]).await;
        assert!(town.app.reload(Some(ACME)).await.unwrap().changed);
        let has_seat = |organization| town.app.snapshot().tenant(organization).unwrap().set_of(member(0)).is_some();
        assert!(has_seat(ACME) && !has_seat(BOLT) && town.app.snapshot().session(SESSION).is_none());
        assert!(!town.app.reload(Some(ACME)).await.unwrap().changed);
        assert!(town.app.reload(Some(BOLT)).await.unwrap().changed);
        assert!(has_seat(BOLT) && town.app.snapshot().session(SESSION).is_none());
        assert!(town.app.reload(None).await.unwrap().changed);
        assert!(town.is_whole().await);
        town.close().await;
    }

    #[tokio::test]
    async fn an_organization_gets_the_last_answer_again_within_the_gap() {
        let gap = |gap_s| Town::with(5, move |config: &mut Config| config.policy_reload_gap_s = gap_s);
        // Of somebody who is in no other.
        let spoilt = || vec![Change::Membership(ACME, member(3), None)];
        let (with, without) = (gap(60).await, gap(0).await);
        let first = with.app.reload_now_and_then(ACME).await.unwrap();
        without.app.reload_now_and_then(ACME).await.unwrap();
        with.damage(spoilt()).await;
        without.damage(spoilt()).await;
        assert_eq!(with.app.reload_now_and_then(ACME).await.unwrap(), first);
        assert!(without.app.reload_now_and_then(ACME).await.unwrap().changed);
        // Another organization has a gap of its own, and the site has none.
        assert!(!with.app.reload_now_and_then(BOLT).await.unwrap().changed);
        assert!(with.app.reload(None).await.unwrap().changed);
        assert_eq!(with.app.reload_now_and_then(ACME).await.unwrap(), first);
        // Just within the gap, and just behind it.
        for (age_ms, is_again) in [(30_000, true), (60_000, false)] {
            let at = Timestamp::now().plus_ms(-age_ms);
            with.app.reloaded.lock().await.insert(Some(ACME), Reloaded { at, ..first });
            let answer = with.app.reload_now_and_then(ACME).await.unwrap();
            assert_eq!(answer.at == at, is_again, "{age_ms}");
        }
        with.close().await;
        without.close().await;
    }

    async fn put_grant(app: &App, n: u64, is_there: bool) {
        let write = move |t: &Transaction<'_>, _: &Identity| {
            let place = [(":id", &grant(n) as &dyn rusqlite::ToSql)];
            let change = if is_there {
                let scope_id = format!("p{n}");
                t.execute(
                    "insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
                     values (:id, :member_id, 'project', :scope_id, 'videos', 'edit', 1)",
                    &[place[0], (":member_id", &member(0)), (":scope_id", &scope_id)],
                )?;
                let right = Right { scope_type: "project", scope_id: &scope_id, module: "videos", action: "edit" };
                Change::Grant(right.key(member(0)), Some(grant(n)))
            } else {
                t.execute("delete from grants where id = :id", &place)?;
                Change::Grant(key_of(n), None)
            };
            Ok(Changed::new((), Entry::new("grant", grant(n))).policy([change]))
        };
        app.change(&Identity::command_line(), "grant.test", write).await.unwrap();
    }

    fn key_of(n: u64) -> GrantKey {
        let scope_id = format!("p{n}");
        Right { scope_type: "project", scope_id: &scope_id, module: "videos", action: "edit" }.key(member(0))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_go_on_during_a_comparison_and_none_of_them_is_undone() {
        const MEMBERS: u64 = 20_000;
        const ROUNDS: usize = 3;
        /// More than one piece of each.
        const SPOILT: u64 = 500;
        let town = Arc::new(Town::of(MEMBERS).await);
        let other = town.clone();
        let comparisons = tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let memberships = (0..SPOILT).map(|n| Change::Membership(ACME, member(n), None));
                let grants = (0..SPOILT).map(|n| Change::Grant(right(n), None));
                other.damage(memberships.chain(grants).collect()).await;
                assert!(other.app.reload(None).await.unwrap().changed);
            }
        });
        // Of these every second one stays.
        let (mut n, mut epoch) = (MEMBERS, 0);
        while !comparisons.is_finished() || n < MEMBERS + 20 {
            put_grant(&town.app, n, true).await;
            assert_eq!(town.app.snapshot().grant(&key_of(n)), Some(grant(n)));
            if n % 2 == 0 {
                put_grant(&town.app, n, false).await;
            }
            let snapshot = town.app.snapshot();
            assert!(snapshot.epoch > epoch, "an older policy was published");
            epoch = snapshot.epoch;
            for m in MEMBERS.max(n - 10)..=n {
                assert_eq!(snapshot.grant(&key_of(m)), (m % 2 == 1).then(|| grant(m)), "{m} of {n}");
            }
            n += 1;
        }
        comparisons.await.unwrap();
        assert!(town.is_whole().await);
        // One look at all members takes several times as much.
        let steps = town.app.db.stats.steps_largest.load(Ordering::Relaxed);
        assert!(steps > 0 && steps < 2 * MEMBERS, "one change took {steps} steps");
        town.app.close().await;
    }
}
