//! Deliveries: one event for one target.
//!
//! **Invariant.** An event reaches its target at least once, and a target's events in their order: what failed keeps the
//! later ones waiting until it went through or was given up. A delivery that was made is written down after its answer.

use super::{MAIL, SFTPGO, WEBHOOK, WORDPRESS};
use crate::kernel::authz::deferred_grant::Maker;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp, WebhookId};

/// Who an event is delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Webhook(WebhookId),
    /// Mail to one member.
    Letters(MemberId),
    /// One member's account at SFTPGo.
    Sftpgo(MemberId),
    /// One member's account at WordPress.
    Wordpress(MemberId),
}

impl Target {
    /// The target that a row names; `None` for one that this program delivers nothing to.
    pub fn parse(text: &str) -> Option<Self> {
        let id = |prefix: &str| text.strip_prefix(prefix).and_then(|id| uuid::Uuid::try_parse(id).ok());
        id(WEBHOOK)
            .map(|id| Self::Webhook(WebhookId(id)))
            .or_else(|| id(MAIL).map(|id| Self::Letters(MemberId(id))))
            .or_else(|| id(SFTPGO).map(|id| Self::Sftpgo(MemberId(id))))
            .or_else(|| id(WORDPRESS).map(|id| Self::Wordpress(MemberId(id))))
    }
}

/// The first word of a target.
pub fn kind_of(target: &str) -> &str {
    target.split(' ').next().unwrap_or(target)
}

/// One event for one target.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub target: String,
    pub event: i64,
    /// A word of [`Kind`](super::Kind).
    pub kind: String,
    pub at: Timestamp,
    pub organization: Option<OrganizationId>,
    pub member: Option<MemberId>,
    /// JSON.
    pub data: String,
    /// `pending`, `delivered` or `dead`
    pub state: String,
    pub attempts: u64,
    pub next_at: Timestamp,
    pub last_error: Option<String>,
    pub updated_at: Timestamp,
    /// Who promised what it tells of.
    pub maker: Maker,
}

impl Delivery {
    /// Its name on the wire, the same over all attempts.
    pub fn name(&self) -> String {
        format!("{}.{}", self.event, self.target.replace(' ', "."))
    }
}

/// Event and target that a delivery's name stands for.
pub fn named(name: &str) -> Option<(i64, String)> {
    let (event, target) = name.split_once('.')?;
    Some((event.parse().ok()?, target.replace('.', " ")))
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// There is nothing to deliver, for this reason.
    Needless(&'static str),
    /// Again later; not before the time that the target asked for.
    Failed {
        why: String,
        not_before_s: Option<u64>,
    },
    /// No later attempt would do better.
    Refused(String),
    /// Nothing at all is delivered there any more.
    Gone(String),
}

impl DeliveryOutcome {
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), not_before_s: None }
    }
}

/// What a list of deliveries is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Its events, to its own targets.
    pub organization: Option<OrganizationId>,
    pub state: Option<String>,
    /// A kind of target, or one target.
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
    fn a_name_leads_back_to_its_delivery() {
        let id = WebhookId::new();
        assert_eq!(Target::parse(&webhook_target(id)), Some(Target::Webhook(id)));
        assert_eq!(named(&format!("17.webhook.{}", id.0.simple())), Some((17, webhook_target(id))));
        let member = MemberId::new();
        let account = format!("{SFTPGO}{}", member.0.simple());
        assert_eq!(Target::parse(&account), Some(Target::Sftpgo(member)));
        assert_eq!(
            (named(&format!("17.{}", account.replace(' ', "."))), kind_of(&account)),
            (Some((17, account.clone())), "sftpgo")
        );
        for name in ["", "17", "x.mail", ".mail", "99999999999999999999.mail"] {
            assert_eq!(named(name), None, "{name}");
        }
        for target in ["", "webhook", "webhook x", "sftpgo", "sftpgo x", "pigeon"] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }
}
