//! The comparison of WordPress's users with the members.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::integrations::wordpress::UnreadableUser;
use crate::integrations::wordpress::accounts::{AccountOutcome, Effect};
use crate::integrations::wordpress::compare::{CompareCursor, CompareOptions, compare};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::error::Error;
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::MemberId;

crate::text! {
    /// Where a comparison goes on: `next` of the answer before
    SyncPlace 1..=32 "^(page|known) [0-9]+$";
}

/// How WordPress is compared
#[derive(Object)]
struct SyncWordPress {
    /// Only says what would happen
    dry_run: Option<bool>,
    /// Goes on here; from the beginning when absent
    from: Option<SyncPlace>,
    /// Stops after so many lists of 100 users; after 100 when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    pages: Option<u64>,
    /// Most members who are suspended because their account is gone; 50 when absent. Look at those beyond before you
    /// allow more: a site that was set up anew has none of the former accounts
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000")))]
    gone_max: Option<u64>,
}

/// An account of WordPress that has, or gets, a member of its own
#[derive(Object)]
struct SyncedAccount {
    wordpress_id: u64,
    /// Null for one who would be created
    #[oai(nullable)]
    uid: Option<MemberId>,
}

/// An account whose member is brought in line
#[derive(Object)]
struct ChangedAccount {
    wordpress_id: u64,
    uid: MemberId,
    /// What changes: names that the member lacked, `organization`, `roles`
    fields: Vec<String>,
    /// Names that differ; the member's own stay
    kept: Vec<String>,
}

/// An account that is gone at WordPress
#[derive(Object)]
struct GoneAccount {
    wordpress_id: u64,
    #[oai(nullable)]
    uid: Option<MemberId>,
    /// Is the member suspended by this? Not beyond `gone_max`
    suspended: bool,
}

/// An account without a member of its own, whose username or e-mail somebody has
#[derive(Object)]
struct UnlinkedAccount {
    wordpress_id: u64,
    /// Who has the name. Linked by `wordpress_id` at `/admin/users/{id}`, if it is the same person
    uid: MemberId,
}

/// An account whose member stays as it is
#[derive(Object)]
struct LeftAccount {
    wordpress_id: u64,
    uid: MemberId,
    /// Why
    why: String,
}

/// A user of WordPress that cannot be read, and is left out
#[derive(Object)]
struct OddAccount {
    /// Null where it has no number that could be anybody's
    #[oai(nullable)]
    wordpress_id: Option<u64>,
    /// Username or name, where it has one
    #[oai(nullable)]
    name: Option<String>,
    /// What is wrong with it
    why: String,
}

/// How WordPress and the members differ
#[derive(Object)]
struct SyncedWordPress {
    dry_run: bool,
    /// Accounts of WordPress that were read
    looked_at: u64,
    /// Who becomes a member
    new: Vec<SyncedAccount>,
    changed: Vec<ChangedAccount>,
    /// What WordPress denies by its number
    gone: Vec<GoneAccount>,
    unlinked: Vec<UnlinkedAccount>,
    left: Vec<LeftAccount>,
    odd: Vec<OddAccount>,
    /// Where to go on; null at the end
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
    /// Who is new there becomes a member; roles follow through the mappings of the source `wordpress`; who is gone, which
    /// WordPress has to say of each number, is suspended. Nothing a member has is overwritten, and nobody is linked by a
    /// name. 502 `neighbour_failed` when WordPress does not answer as it should: what was done stays, and the same
    /// request goes on from there.
    #[oai(path = "/sync", method = "post", operation_id = "sync_wordpress")]
    async fn sync_wordpress(&self, caller: MemberCaller, body: Body<SyncWordPress>) -> Reply<SyncedWordPress> {
        authz::require(&self.app.snapshot(), &caller, Permission::WORDPRESS_SYNC)?;
        let SyncWordPress { dry_run, from, pages, gone_max } = body.0;
        let is_dry_run = dry_run == Some(true);
        let from = from
            .map(|text| CompareCursor::parse(&text).ok_or_else(|| Error::field("from", "is no place to go on from")));
        let options = CompareOptions {
            effect: if is_dry_run { Effect::DryRun } else { Effect::Real },
            from: from.transpose()?.unwrap_or(CompareCursor::BEGIN),
            pages: pages.unwrap_or(PAGES),
            gone_max: gone_max.unwrap_or(GONE_MAX),
        };
        let found = compare(&self.app, &caller, options).await?;
        let mut answer = SyncedWordPress {
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
        found.outcomes.into_iter().for_each(|(id, outcome)| answer.tell(id, outcome));
        let kept = |wordpress_id| GoneAccount { wordpress_id, uid: None, suspended: false };
        let odd = |odd: UnreadableUser| OddAccount { wordpress_id: odd.id, name: odd.name, why: odd.why };
        answer.odd = found.odd.into_iter().map(odd).collect();
        answer.gone.extend(found.gone_kept.into_iter().map(kept));
        Ok(ok(answer))
    }
}

const PAGES: u64 = 100;
const GONE_MAX: u64 = 50;

impl SyncedWordPress {
    fn tell(&mut self, wordpress_id: u64, outcome: AccountOutcome) {
        let words = |names: Vec<&'static str>| names.into_iter().map(str::to_owned).collect();
        match outcome {
            // In a dry run the id is nobody's.
            AccountOutcome::New(uid) => {
                self.new.push(SyncedAccount { wordpress_id, uid: (!self.dry_run).then_some(uid) });
            }
            AccountOutcome::Known { member, changed, kept } => {
                let (fields, kept) = (words(changed), words(kept));
                self.changed.push(ChangedAccount { wordpress_id, uid: member, fields, kept });
            }
            AccountOutcome::Unlinked(uid) => self.unlinked.push(UnlinkedAccount { wordpress_id, uid }),
            AccountOutcome::Left(uid, why) => self.left.push(LeftAccount { wordpress_id, uid, why: why.into() }),
            AccountOutcome::Gone(uid) => {
                self.gone.push(GoneAccount { wordpress_id, uid: Some(uid), suspended: !self.dry_run });
            }
            // Those of lists are told by themselves.
            AccountOutcome::Nobody | AccountOutcome::Odd(_) => {}
        }
    }
}
