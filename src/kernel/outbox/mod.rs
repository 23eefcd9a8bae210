//! The outbox: events are committed with the change that caused them, and delivered later by `server::deliver`. Written
//! by `app` only.
//!
//! **Invariant.** The targets of an event are determined in the transaction that causes it, one row per target, so that
//! no delivery is lost between the commit and its attempt. An event holds no secret; a secret that a message needs is
//! created when it is delivered.

pub mod delivery;
pub mod delivery_store;

use serde_json::Value;

use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::config::Config;
use crate::kernel::db::Writer;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId, WebhookId};
use delivery::Target;

macro_rules! kinds {
    ($($name:ident $word:literal $sftpgo:literal $mail:literal $about:literal;)*) => {
        /// Kinds of events. Webhooks subscribe to their words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $(#[doc = $about] $name,)* }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$(EventKind::$name,)*];
            pub const fn as_str(self) -> &'static str { match self { $(EventKind::$name => $word,)* } }
            pub fn parse(text: &str) -> Option<Self> { Self::ALL.iter().copied().find(|kind| kind.as_str() == text) }
            pub const fn about(self) -> &'static str { match self { $(EventKind::$name => $about,)* } }
            /// Whether the member's SFTPGo account can change by it.
            const fn is_for_sftpgo(self) -> bool { match self { $(EventKind::$name => $sftpgo,)* } }
            /// Whether it changes if the member can sign in to WordPress.
            const fn is_for_wordpress(self) -> bool { matches!(self, EventKind::MemberSuspended | EventKind::MemberActivated) }
            /// Whether a mail is sent for it.
            const fn is_for_mail(self) -> bool { match self { $(EventKind::$name => $mail,)* } }
        }
    };
}

kinds! {
    // kind             word                  sftpgo mail   when
    MemberCreated      "member.created"      true   false  "A member was created";
    MemberUpdated      "member.updated"      true   false  "A member's names changed";
    MemberSuspended    "member.suspended"    true   false  "A member was suspended";
    MemberActivated    "member.activated"    true   false  "A member is active again";
    MemberDeleted      "member.deleted"      true   false  "A member was erased";
    MemberWelcomed     "member.welcomed"     false  true   "A member gets a one-time link to set the first password";
    PasswordForgotten  "member.password_forgotten" false true "A member asked for a link to set a new password";
    QuotaChanged       "quota.changed"       true   false  "A member's quota changed";
    QuotaWarning       "quota.warning"       false  true   "A member's usage passed 80 or 95 per cent";
    CeilingWarning     "quota.ceiling_warning" false false "An organization's usage passed 80 or 95 per cent of its ceiling";
    QuotaFull          "quota.full"          true   false  "A quota, or the one above it, is full";
    QuotaExceeded      "quota.exceeded"      true   false  "Something did not fit into a quota";
    QuotaFreed         "quota.freed"         true   false  "A full quota has free space again";
    VideoRegistered    "video.registered"    false  false  "A video was registered";
    VideoChanged       "video.changed"       false  false  "A video was replaced, moved or renamed";
    VideoDeleted       "video.deleted"       false  false  "A video was deleted";
    VideoTransferred   "video.transferred"   false  false  "A video has another owner";
    JobDead            "job.dead"            false  false  "A job failed too often";
    PluginQuarantined  "plugin.quarantined"  false  false  "A plugin failed too often";
}

/// An event to be recorded.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub organization: Option<OrganizationId>,
    pub member: Option<MemberId>,
    pub data: Value,
    /// The creator of the deferred grant that the event is about; never part of a message.
    pub maker: Option<Grantor>,
}

impl Event {
    pub fn new(kind: EventKind, data: Value) -> Self {
        Self { kind, organization: None, member: None, data, maker: None }
    }

    #[must_use]
    pub fn within(mut self, organization: impl Into<Option<OrganizationId>>) -> Self {
        self.organization = organization.into();
        self
    }

    #[must_use]
    pub fn granted_by(mut self, maker: &Grantor) -> Self {
        self.maker = Some(maker.clone());
        self
    }

    #[must_use]
    pub fn about(mut self, member: impl Into<Option<MemberId>>) -> Self {
        self.member = member.into();
        self
    }
}

/// Which external systems are configured as targets.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExternalTargets {
    pub sftpgo: bool,
    pub mail: bool,
    pub wordpress: bool,
}

impl ExternalTargets {
    pub fn from_config(config: &Config) -> Self {
        Self {
            sftpgo: config.has_sftpgo(),
            mail: !config.mail_host.is_empty(),
            wordpress: config.has_wordpress_administrator(),
        }
    }
}

const INSERT_EVENT: &str = "
    insert into events (at, kind, organization_id, member_id, data, request_id, maker)
    values (:at, :kind, :organization_id, :member_id, :data, :request_id, :maker)";
const LIST_WEBHOOKS_FOR: &str = "
    select id
    from webhooks
    where status = 'active' and (organization_id is null or organization_id = :organization_id)
        and exists (select 1 from json_each(kinds) where value in (:kind, '*'))";
const ADDRESS: &str = "
    insert into deliveries (target, event_id, state, next_at, updated_at)
    values (:target, :event_id, 'pending', :now, :now)";

/// Adds an event with one delivery per target; returns the number of deliveries.
pub fn record(w: &Writer<'_>, targets: ExternalTargets, request_id: &str, event: &Event) -> Result<usize> {
    let (now, kind, data) = (w.now(), event.kind.as_str(), event.data.to_string());
    let maker = event.maker.as_ref().map(Grantor::to_text);
    let parameters: [(&str, &dyn rusqlite::ToSql); 7] = [
        (":at", &now),
        (":kind", &kind),
        (":organization_id", &event.organization),
        (":member_id", &event.member),
        (":data", &data),
        (":request_id", &request_id),
        (":maker", &maker),
    ];
    w.execute(INSERT_EVENT, &parameters)?;
    let id = w.last_id();
    let webhooks = w.all(LIST_WEBHOOKS_FOR, &[(":organization_id", &event.organization), (":kind", &kind)], |row| {
        row.get::<_, WebhookId>(0)
    })?;
    let sftpgo = event.member.filter(|_| targets.sftpgo && event.kind.is_for_sftpgo());
    let mail = event.member.filter(|_| targets.mail && event.kind.is_for_mail());
    // An account that no longer exists gets no events.
    let is_for_wordpress = targets.wordpress && event.kind.is_for_wordpress() && event.data["gone"] != true;
    let wordpress = event.member.filter(|_| is_for_wordpress);
    let targets = [sftpgo.map(Target::Sftpgo), wordpress.map(Target::Wordpress), mail.map(Target::Mail)];
    let mut count = 0;
    for target in webhooks.into_iter().map(Target::Webhook).chain(targets.into_iter().flatten()) {
        let target = target.to_text();
        count += w.execute(ADDRESS, &[(":target", &target), (":event_id", &id), (":now", &now)])?;
    }
    Ok(count)
}

/// The target of a webhook.
pub fn webhook_target(webhook: WebhookId) -> String {
    Target::Webhook(webhook).to_text()
}

const FIND_WAITING: &str = "
    select 1
    from deliveries d
    join events e on e.id = d.event_id
    where d.target = :target and d.state = 'pending' and e.kind = :kind
    limit 1";

const HURRY: &str = "
    update deliveries
    set next_at = :now
    where target = :target and state = 'pending'";

/// If mail of this kind is pending for a member, makes all pending mail to the member due now. Returns whether it is.
pub fn expedite_mail(w: &Writer<'_>, member: MemberId, kind: EventKind) -> Result<bool> {
    let target = Target::Mail(member).to_text();
    let found = w.find(FIND_WAITING, &[(":target", &target), (":kind", &kind.as_str())], |_| Ok(()))?;
    if found.is_some() {
        w.execute(HURRY, &[(":now", &w.now()), (":target", &target)])?;
    }
    Ok(found.is_some())
}
