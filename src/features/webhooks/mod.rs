//! The neighbours: what Roster asks of other services of the site, and what it tells them.
//!
//! **Invariant.** An event reaches its target at least once, and a target's events in their order: what failed keeps the
//! later ones waiting until it went through or was given up. A delivery that was made is written down after its answer.

pub mod address;
pub mod api;
pub mod sender;
pub mod store;

use crate::kernel::app::backoff;
use crate::kernel::authz::promise::Maker;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbox::{Kind, MAIL, SFTPGO, WEBHOOK, WORDPRESS};

/// Who an event is delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Webhook(WebhookId),
    /// Letters to one member.
    Letters(MemberId),
    /// One member's account at SFTPGo.
    Sftpgo(MemberId),
    /// One member's account at WordPress.
    Wordpress(MemberId),
}

impl Target {
    /// The target that a row names; `None` for one that this program delivers nothing to.
    pub fn of(text: &str) -> Option<Self> {
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
    /// A word of [`Kind`].
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
pub enum Outcome {
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

impl Outcome {
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), not_before_s: None }
    }
}

/// Wait after so many failed attempts, in milliseconds, before jitter.
pub fn backoff_ms(attempts: u64, first_s: u64, most_s: u64) -> u64 {
    backoff(attempts, first_s, most_s).saturating_mul(1_000)
}

/// Somebody who is told of events by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// `None` hears of the whole site.
    pub organization: Option<OrganizationId>,
    pub name: String,
    pub url: String,
    /// Words of [`Kind`], or `*`.
    pub kinds: Vec<String>,
    pub is_active: bool,
    pub generation: i64,
    pub previous_until: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Hears of everything.
const EVERY_KIND: &str = "*";

/// All that is wrong with an entry of a webhook's `kinds`.
pub fn kind_faults(text: &str) -> Vec<String> {
    if text == EVERY_KIND || Kind::ALL.iter().any(|kind| kind.word() == text) {
        return Vec::new();
    }
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
    vec![format!("is no kind of event: one of {}, or *", known.join(", "))]
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
    use std::path::Path;

    use super::*;
    use crate::kernel::config::Config;
    use crate::kernel::outbox;

    #[test]
    fn a_neighbour_may_be_away_for_a_day_and_nothing_is_tried_for_a_week() {
        const HOUR_MS: u64 = 3_600_000;
        let config = Config::of(Path::new("data"));
        let wait_ms = |attempts| backoff_ms(attempts, config.outbox_backoff_s, config.outbox_backoff_max_s);
        let all_ms: u64 = (1..config.outbox_attempts_max).map(wait_ms).sum();
        // The jitter takes a fifth at most, and adds one.
        assert!(all_ms * 4 / 5 > 24 * HOUR_MS, "{all_ms}");
        assert!(all_ms * 6 / 5 < 7 * 24 * HOUR_MS, "{all_ms}");
        // Who looks at what was given up has time to.
        assert!(config.outbox_ttl_s * 1_000 > 2 * all_ms);
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let waits = [1, 2, 3, 4, 13, 14, 100, u64::MAX].map(|attempts| backoff_ms(attempts, 5, 21_600));
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 20_480_000, 21_600_000, 21_600_000, 21_600_000]);
        assert_eq!(backoff_ms(7, 0, 21_600), 0);
        assert_eq!(backoff_ms(1, 100, 1), 1_000);
    }

    #[test]
    fn a_name_leads_back_to_its_delivery() {
        let id = WebhookId::new();
        assert_eq!(Target::of(&outbox::calls_to(id)), Some(Target::Webhook(id)));
        assert_eq!(named(&format!("17.webhook.{}", id.0.simple())), Some((17, outbox::calls_to(id))));
        let member = MemberId::new();
        let account = format!("{SFTPGO}{}", member.0.simple());
        assert_eq!(Target::of(&account), Some(Target::Sftpgo(member)));
        assert_eq!(
            (named(&format!("17.{}", account.replace(' ', "."))), kind_of(&account)),
            (Some((17, account.clone())), "sftpgo")
        );
        for name in ["", "17", "x.mail", ".mail", "99999999999999999999.mail"] {
            assert_eq!(named(name), None, "{name}");
        }
        for target in ["", "webhook", "webhook x", "sftpgo", "sftpgo x", "pigeon"] {
            assert_eq!(Target::of(target), None, "{target}");
        }
    }
}
