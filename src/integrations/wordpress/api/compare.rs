//! The operation that compares WordPress's users with the members.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use crate::integrations::wordpress::UnreadableUser;
use crate::integrations::wordpress::accounts::{AccountOutcome, Effect};
use crate::integrations::wordpress::compare::{
    COMPARE, CompareCursor, CompareOptions, CompareResult, compare, require_client,
};
use crate::kernel::app::App;
use crate::kernel::app::tasks::Progress;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::error::Error;
use crate::kernel::http::{Body, Tag, TaskReply};
use crate::kernel::ids::MemberId;

crate::text! {
    /// Where a comparison continues: `next` of the previous response
    SyncPlace 1..=32 "^(page|known) [0-9]+$";
}

/// The options of a comparison
#[derive(Object)]
struct SyncWordPress {
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
    /// Continue here; from the start when absent
    from: Option<SyncPlace>,
    /// Stop after this many lists of 100 users; 100 when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    pages: Option<u64>,
    /// The maximum number of members that are suspended because their account is gone; 50 when absent. Check the
    /// remaining ones before you allow more: a reinstalled site has none of the previous accounts
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000")))]
    gone_max: Option<u64>,
}

/// A WordPress account that gets a new member
#[derive(Object)]
struct SyncedAccount {
    wordpress_id: u64,
    /// Null in a dry run
    #[oai(nullable)]
    uid: Option<MemberId>,
}

/// A WordPress account whose member was updated
#[derive(Object)]
struct ChangedAccount {
    wordpress_id: u64,
    uid: MemberId,
    /// The changed fields: names that the member lacked, `organization`, `roles`
    fields: Vec<String>,
    /// The names that differ; the member's values are kept
    kept: Vec<String>,
}

/// An account that no longer exists at WordPress
#[derive(Object)]
struct GoneAccount {
    wordpress_id: u64,
    #[oai(nullable)]
    uid: Option<MemberId>,
    /// Whether the member was suspended; not beyond `gone_max`
    suspended: bool,
}

/// An account that is not linked to a member, but whose username or e-mail a member has
#[derive(Object)]
struct UnlinkedAccount {
    wordpress_id: u64,
    /// The member that has the name. If it is the same person, link it with `wordpress_id` at `/admin/users/{id}`
    uid: MemberId,
}

/// An account whose member stays unchanged
#[derive(Object)]
struct LeftAccount {
    wordpress_id: u64,
    uid: MemberId,
    /// The reason
    why: String,
}

/// A WordPress user that cannot be read and is skipped
#[derive(Object)]
struct OddAccount {
    /// Null if it has no valid number
    #[oai(nullable)]
    wordpress_id: Option<u64>,
    /// Username or name, if it has one
    #[oai(nullable)]
    name: Option<String>,
    /// Why it cannot be read
    why: String,
}

/// The differences between WordPress's users and the members
#[derive(Object)]
struct SyncedWordPress {
    dry_run: bool,
    /// The number of WordPress accounts that were read
    looked_at: u64,
    /// Accounts that get a new member
    new: Vec<SyncedAccount>,
    changed: Vec<ChangedAccount>,
    /// Accounts of which WordPress says that they do not exist
    gone: Vec<GoneAccount>,
    unlinked: Vec<UnlinkedAccount>,
    left: Vec<LeftAccount>,
    odd: Vec<OddAccount>,
    /// Where to continue; null at the end
    #[oai(nullable)]
    next: Option<String>,
}

crate::document! {
    sync_wordpress: [WordPressNotConfigured];

    "SyncWordPress": r#"{"dry_run":true}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/wordpress", tag = "Tag::WordPress")]
impl Api {
    /// Compare WordPress's users with the members
    ///
    /// New users become members, and roles follow the role mappings of the source `wordpress`. The member of a deleted
    /// user is suspended, after WordPress confirmed the deletion for that number. Members' existing values are never
    /// overwritten, and accounts are never linked by name. 502 `neighbour_failed` when WordPress fails or its answer is
    /// unexpected: completed changes are kept, and the same request continues from there. If the caller loses the
    /// permission, nothing more is changed.
    #[oai(path = "/sync", method = "post", operation_id = "sync_wordpress")]
    async fn sync_wordpress(
        &self,
        caller: MemberCaller,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        body: Body<SyncWordPress>,
    ) -> TaskReply<SyncedWordPress> {
        authz::require(&self.app.snapshot(), &caller, Permission::WORDPRESS_SYNC)?;
        let SyncWordPress { dry_run, from, pages, gone_max } = body.0;
        let is_dry_run = dry_run == Some(true);
        let from = from.map(|text| {
            CompareCursor::parse(&text).ok_or_else(|| Error::field("from", "is not a valid position to continue from"))
        });
        let options = CompareOptions {
            effect: if is_dry_run { Effect::DryRun } else { Effect::Real },
            from: from.transpose()?.unwrap_or(CompareCursor::BEGIN),
            pages: pages.unwrap_or(PAGES),
            gone_max: gone_max.unwrap_or(GONE_MAX),
        };
        require_client(&self.app)?;
        let (app, caller) = (self.app.clone(), caller.0);
        let by = caller.clone();
        let work = move |progress: Progress| async move {
            let mut found = compare(&app, &by, options, &progress).await?;
            let stopped = found.stopped.take();
            let answer = SyncedWordPress::new(is_dry_run, found);
            match stopped {
                None => Ok(answer),
                Some(error) => Err(progress.fail(error, &answer)),
            }
        };
        Ok(self.app.perform(&caller, COMPARE, background.0 == Some(true), work).await?)
    }
}

const PAGES: u64 = 100;
const GONE_MAX: u64 = 50;

impl SyncedWordPress {
    fn new(is_dry_run: bool, found: CompareResult) -> Self {
        let mut answer = Self {
            dry_run: is_dry_run,
            looked_at: found.looked_at,
            new: Vec::new(),
            changed: Vec::new(),
            gone: Vec::new(),
            unlinked: Vec::new(),
            left: Vec::new(),
            odd: Vec::new(),
            next: found.next.map(CompareCursor::to_text),
        };
        found.outcomes.into_iter().for_each(|(id, outcome)| answer.add(id, outcome));
        let not_suspended = |wordpress_id| GoneAccount { wordpress_id, uid: None, suspended: false };
        let odd = |odd: UnreadableUser| OddAccount { wordpress_id: odd.id, name: odd.name, why: odd.why };
        answer.odd = found.odd.into_iter().map(odd).collect();
        answer.gone.extend(found.gone_kept.into_iter().map(not_suspended));
        answer
    }

    fn add(&mut self, wordpress_id: u64, outcome: AccountOutcome) {
        let strings = |names: Vec<&'static str>| names.into_iter().map(str::to_owned).collect();
        match outcome {
            // In a dry run the id was rolled back.
            AccountOutcome::New(uid) => {
                self.new.push(SyncedAccount { wordpress_id, uid: (!self.dry_run).then_some(uid) });
            }
            AccountOutcome::Synced { member, changed, kept } => {
                let (fields, kept) = (strings(changed), strings(kept));
                self.changed.push(ChangedAccount { wordpress_id, uid: member, fields, kept });
            }
            AccountOutcome::Unlinked(uid) => self.unlinked.push(UnlinkedAccount { wordpress_id, uid }),
            AccountOutcome::Unchanged(uid, why) => self.left.push(LeftAccount { wordpress_id, uid, why: why.into() }),
            AccountOutcome::Gone(uid) => {
                self.gone.push(GoneAccount { wordpress_id, uid: Some(uid), suspended: !self.dry_run });
            }
            // Unreadable users of lists are reported separately.
            AccountOutcome::NotLinked | AccountOutcome::Unreadable(_) => {}
        }
    }
}
