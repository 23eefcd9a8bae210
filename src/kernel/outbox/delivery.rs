//! Deliveries: one event for one target.
//!
//! **Invariant.** An event is delivered to its target at least once, and the events of a target in their order: a
//! failed delivery holds up the later ones until it succeeds or is given up. A delivery is recorded after the target's
//! response.

use uuid::Uuid;

use super::EventKind;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp, WebhookId};

/// The kind of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    Webhook,
    Mail,
    Sftpgo,
    Wordpress,
}

impl TargetKind {
    pub const ALL: [Self; 4] = [Self::Webhook, Self::Mail, Self::Sftpgo, Self::Wordpress];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
            Self::Sftpgo => "sftpgo",
            Self::Wordpress => "wordpress",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind of a row's target; `None` if this version has no such kind.
    pub fn of(target: &str) -> Option<Self> {
        Self::parse(kind_of(target))
    }
}

/// The receiver of an event. There is one per account and mailbox, so that one that fails does not hold up the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Webhook(WebhookId),
    /// Mail to one member.
    Mail(MemberId),
    /// One member's account at SFTPGo.
    Sftpgo(MemberId),
    /// One member's account at WordPress.
    Wordpress(MemberId),
}

impl Target {
    /// Parses the target of a row; `None` if this version has no such kind of target.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(' ')?;
        let id = Uuid::try_parse(id).ok()?;
        Some(match TargetKind::parse(kind)? {
            TargetKind::Webhook => Self::Webhook(WebhookId(id)),
            TargetKind::Mail => Self::Mail(MemberId(id)),
            TargetKind::Sftpgo => Self::Sftpgo(MemberId(id)),
            TargetKind::Wordpress => Self::Wordpress(MemberId(id)),
        })
    }

    /// The target as stored: its kind and the id.
    pub fn to_text(self) -> String {
        let (kind, id) = match self {
            Self::Webhook(id) => (TargetKind::Webhook, id.0),
            Self::Mail(id) => (TargetKind::Mail, id.0),
            Self::Sftpgo(id) => (TargetKind::Sftpgo, id.0),
            Self::Wordpress(id) => (TargetKind::Wordpress, id.0),
        };
        format!("{} {}", kind.as_str(), id.simple())
    }
}

/// The word for the kind of a target: the first of its text.
pub fn kind_of(target: &str) -> &str {
    target.split(' ').next().unwrap_or(target)
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It waits for its first or next attempt.
    Pending,
    /// It was delivered, or there was nothing to deliver.
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One event for one target.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub target: String,
    pub event: i64,
    pub kind: EventKind,
    pub at: Timestamp,
    pub organization: Option<OrganizationId>,
    pub member: Option<MemberId>,
    /// JSON.
    pub data: String,
    pub state: DeliveryState,
    pub attempts: u64,
    pub next_at: Timestamp,
    pub last_error: Option<String>,
    pub updated_at: Timestamp,
    /// The creator of the deferred grant that the event is about.
    pub maker: Grantor,
}

impl Delivery {
    /// The id of the delivery on the wire, the same for all attempts.
    pub fn name(&self) -> String {
        format!("{}.{}", self.event, self.target.replace(' ', "."))
    }
}

/// Parses a delivery's name into event and target.
pub fn parse_delivery_name(name: &str) -> Option<(i64, String)> {
    let (event, target) = name.split_once('.')?;
    Some((event.parse().ok()?, target.replace('.', " ")))
}

/// The outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// Nothing has to be delivered, for this reason.
    Skipped(&'static str),
    /// To be retried; if the target asked for a delay, not before that many seconds.
    Failed {
        why: String,
        not_before_s: Option<u64>,
    },
    /// A retry would fail too.
    PermanentFailure(String),
    /// The target no longer exists: all its deliveries are given up.
    TargetGone(String),
}

impl DeliveryOutcome {
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), not_before_s: None }
    }
}

/// The filter of a list of deliveries.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only events of this organization, and webhooks only if they belong to it.
    pub organization: Option<OrganizationId>,
    pub state: Option<DeliveryState>,
    /// Whether an attempt was made. A pending delivery with one is failing.
    pub is_tried: Option<bool>,
    /// A kind of target (`webhook`), or one target (`webhook …`).
    pub target: Option<String>,
    pub kind: Option<String>,
    pub since: Option<i64>,
    pub until: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::super::webhook_target;
    use super::*;

    #[test]
    fn a_delivery_is_found_by_its_name() {
        let id = WebhookId::new();
        assert_eq!(Target::parse(&webhook_target(id)), Some(Target::Webhook(id)));
        assert_eq!(parse_delivery_name(&format!("17.webhook.{}", id.0.simple())), Some((17, webhook_target(id))));
        let member = MemberId::new();
        let account = Target::Sftpgo(member).to_text();
        assert_eq!(Target::parse(&account), Some(Target::Sftpgo(member)));
        assert_eq!(
            (parse_delivery_name(&format!("17.{}", account.replace(' ', "."))), TargetKind::of(&account)),
            (Some((17, account.clone())), Some(TargetKind::Sftpgo))
        );
        for name in ["", "17", "x.mail", ".mail", "99999999999999999999.mail"] {
            assert_eq!(parse_delivery_name(name), None, "{name}");
        }
        for target in ["", "webhook", "webhook x", "sftpgo", "sftpgo x", "pigeon"] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }
}
